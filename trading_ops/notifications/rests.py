"""Until when does a channel want to be left alone?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict, StoreError, StoreUnavailable
from trading_ops.notifications.backoff import clock_was_ahead, lies_ahead
from trading_ops.notifications.delivery import DAMAGE

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

RESTING = "outbox_resting"  # a document a channel that asked for rest: {until, since}


class Rests:
    """The rests that channels asked for, as a store knows them: every process keeps them. Raises StoreError."""

    def __init__(self, store: AuditStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    def until(self, name: str) -> datetime | None:
        """When the channel's rest is over, None where it does not rest."""
        with suppress(*DAMAGE, Torn):  # a damaged one is over: a channel that still rests says so again
            document = self._document(name)
            return _ends(document.body, self._now()) if document else None
        return None

    def all(self) -> dict[str, datetime]:
        """The channels that rest, and until when; those are missing that rest in a store where one is torn."""
        try:
            names = [document.key for document in self._store.list_state(RESTING)]
        except StoreUnavailable:
            raise
        except StoreError:
            names = []
        return {name: moment for name in names if (moment := self.until(name))}

    def keep(self, name: str, until: datetime) -> None:
        """Leave the channel alone until then; a longer rest that it asked another process for is kept."""
        self._write(name, lambda known: max(until, known or until))

    def end(self, name: str) -> None:
        """A person asked for it."""
        if self.until(name):
            self._write(name, lambda known: self._now())

    def _write(self, name: str, until: Callable[[datetime | None], datetime]) -> None:
        with suppress(Torn):  # it cannot be written over, and nobody rests by it
            while True:
                known, before = self._document(name), self.until(name)
                moment = until(before)
                if known and moment == before:
                    return
                body = {"until": moment.isoformat(), "since": self._now().isoformat()}
                with suppress(Conflict):  # another process was told to wait too: look again
                    self._store.put_state(RESTING, name, body, expected_version=known.version if known else 0)
                    return

    def _document(self, name: str) -> StateDocument | None:
        try:
            return self._store.get_state(RESTING, name)
        except StoreUnavailable:
            raise
        except StoreError as error:
            raise Torn from error


class Torn(Exception):
    """A document that the store itself cannot read."""


def _ends(body: Mapping[str, Any], now: datetime) -> datetime | None:
    moment = datetime.fromisoformat(body["until"])
    if "since" in body and clock_was_ahead(datetime.fromisoformat(body["since"]), now):
        return None
    return moment if lies_ahead(moment, now) else None
