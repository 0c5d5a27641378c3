"""Until when does a channel want to be left alone?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING

from trading_ops.audit.store import Conflict
from trading_ops.notifications.backoff import lies_ahead
from trading_ops.notifications.delivery import DAMAGE

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore

RESTING = "outbox_resting"  # a document a channel that asked for rest: {until}


class Rests:
    """The rests that channels asked for, as a store knows them: every process keeps them. Raises StoreError."""

    def __init__(self, store: AuditStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    def until(self, name: str) -> datetime | None:
        """When the channel's rest is over, None where it does not rest."""
        document = self._store.get_state(RESTING, name)
        with suppress(*DAMAGE):  # a damaged one is over: a channel that still rests says so again
            moment = datetime.fromisoformat(document.body["until"]) if document else None
            return moment if moment and lies_ahead(moment, self._now()) else None
        return None

    def all(self) -> dict[str, datetime]:
        """The channels that rest, and until when."""
        names = [document.key for document in self._store.list_state(RESTING)]
        return {name: moment for name in names if (moment := self.until(name))}

    def keep(self, name: str, until: datetime) -> None:
        """Leave the channel alone until then; a longer rest that it asked another process for is kept."""
        self._write(name, lambda known: max(until, known or until))

    def end(self, name: str) -> None:
        """A person asked for it."""
        if self.until(name):
            self._write(name, lambda known: self._now())

    def _write(self, name: str, until: Callable[[datetime | None], datetime]) -> None:
        while True:
            known = self._store.get_state(RESTING, name)
            body = {"until": until(self.until(name)).isoformat()}
            if known and known.body == body:
                return
            with suppress(Conflict):  # another process was told to wait too: look again
                self._store.put_state(RESTING, name, body, expected_version=known.version if known else 0)
                return
