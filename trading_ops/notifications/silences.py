"""Which incidents does somebody not want to hear of, why, and until when?"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict, Entry, StoreError, StoreUnavailable
from trading_ops.notifications.backoff import clock_was_ahead
from trading_ops.notifications.incident import ACTIONS

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

STATE, KEY = "silences", "all"  # one document {silences: [...]}
KEPT = timedelta(days=30)  # after its end a silence is still listed
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Silence:
    """Nothing is told of the incidents whose key is `pattern` or matches it (`*`, `?`, `[...]`) before `until`."""

    name: str
    pattern: str
    since: datetime
    until: datetime
    reason: str
    by: str

    def covers(self, key: str, now: datetime) -> bool:
        """Whether this incident is silenced now.

        >>> from datetime import UTC
        >>> noon, night = datetime(2025, 3, 10, 12, tzinfo=UTC), datetime(2025, 3, 11, tzinfo=UTC)
        >>> silence = Silence("a1", "run/*", noon, night, "maintenance", "ana")
        >>> silence.covers("run/train_model", noon), silence.covers("run/train_model", night), silence.covers("x", noon)
        (True, False, False)
        """
        if clock_was_ahead(self.since, now):  # it would last longer than anybody asked for
            return False
        return now < self.until and (key == self.pattern or fnmatchcase(key, self.pattern))

    def to_document(self) -> dict[str, Any]:
        return {**asdict(self), "since": self.since.isoformat(), "until": self.until.isoformat()}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> Silence:
        """Raises LookupError, TypeError or ValueError where this is no silence."""
        texts = {name: document[name] for name in ("name", "pattern", "reason", "by")}
        if wrong := [name for name, text in texts.items() if not isinstance(text, str)]:
            raise TypeError(f"{', '.join(wrong)}: no text")
        since, until = (datetime.fromisoformat(document[name]) for name in ("since", "until"))
        if since.tzinfo is None or until.tzinfo is None:
            raise ValueError("a moment without a time zone")
        return cls(since=since, until=until, **texts)


class Silences:
    """The silences in a store; every method raises StoreError. A damaged one silences nothing; the log says so."""

    def __init__(self, store: AuditStore, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now

    def all(self) -> list[Silence]:
        """Those that hold, and those that ended lately; the newest last."""
        try:
            return _listed(self._store.get_state(STATE, KEY))
        except StoreUnavailable:
            raise
        except StoreError as error:
            _log.warning("the silences cannot be read, and nothing is silenced: %s", error)
            return []

    def covering(self, key: str) -> list[Silence]:
        """The silences that this incident is under now."""
        return [silence for silence in self.all() if silence.covers(key, self._now())]

    def look(self) -> Callable[[str], bool]:
        """Whether an incident is silenced, as is known now: for who asks of many."""
        silences, now = self.all(), self._now()
        return lambda key: any(silence.covers(key, now) for silence in silences)

    def add(self, pattern: str, until: datetime, *, reason: str, by: str) -> Silence:
        """Begin one; raises ValueError where it says not enough, or is over already."""
        now = self._now()
        if not pattern.strip() or not reason.strip():
            raise ValueError("a silence needs a pattern and a reason")
        if until <= now:
            raise ValueError(f"{until:%Y-%m-%d %H:%M} UTC is over: a silence needs an end that is still to come")
        silence = Silence(secrets.token_hex(3), pattern.strip(), now, until, reason.strip(), by)
        self._record("silenced", silence, by)
        self._change(lambda silences: [*silences, silence])
        return silence

    def end(self, name: str, *, by: str) -> Silence:
        """End one early; raises LookupError where none of this name holds."""
        now = self._now()
        found = next((s for s in self.all() if s.name == name and now < s.until), None)
        if found is None:
            raise LookupError(f"no silence {name!r} holds; trading-ops alerts silences shows them")
        ended = replace(found, until=now)
        self._record("unsilenced", ended, by)
        self._change(lambda silences: [ended if silence.name == name else silence for silence in silences])
        return ended

    def _record(self, action: str, silence: Silence, by: str) -> None:
        """Written before it holds: what people did not hear of, somebody answers for."""
        now = self._now()
        body = {"action": action, "by": by, "at": now.isoformat(), "silence": silence.to_document()}
        self._store.append(ACTIONS, [Entry(str(now.date()), f"{action}/{silence.name}", body)])

    def _change(self, change: Callable[[list[Silence]], list[Silence]]) -> None:
        while True:
            document = self._store.get_state(STATE, KEY)
            kept = [s for s in change(_listed(document)) if self._now() - s.until < KEPT]
            body = {"silences": [silence.to_document() for silence in kept]}
            with suppress(Conflict):  # another one began or ended: look again
                self._store.put_state(STATE, KEY, body, expected_version=document.version if document else 0)
                return


def _listed(document: StateDocument | None) -> list[Silence]:
    found = []
    for listed in document.body.get("silences", ()) if document else ():
        try:
            found.append(Silence.from_document(listed))
        except (LookupError, TypeError, ValueError) as error:
            _log.warning("a silence is damaged and silences nothing: %s: %s", type(error).__name__, error)
    return found
