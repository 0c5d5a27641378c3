"""Where do alerts go while the audit store is down, and what becomes of them when it is back?"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict, Entry
from trading_ops.notifications.delivery import HISTORY, SENT, STATE, history_key, undelivered

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

CARRIED = "carried_over"
TAKEN = "fallback"  # the claim on a delivery that the fallback made


class Fallback:
    """A local store for alerts, opened when an alert needs it or when there is one from before."""

    def __init__(self, open_store: Callable[[], AuditStore], exists: Callable[[], bool]) -> None:
        self._open = open_store
        self._exists = exists
        self._opened: AuditStore | None = None

    def store(self) -> AuditStore:
        """The store, made where there is none; raises StoreUnavailable when that cannot be done."""
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def existing(self) -> AuditStore | None:
        """The store, None while no alert ever needed it."""
        return self.store() if self._opened or self._exists() else None

    def uncarried(self) -> list[StateDocument]:
        """The alerts that the audit store does not know of."""
        store = self.existing()
        return [d for d in store.list_state(STATE) if not d.body.get(CARRIED)] if store else []

    def carry_over(self, main: AuditStore) -> None:
        """Give delivered alerts and the records of their deliveries to the audit store, so that it tells no one again.

        Where it knows the alert its document stays, but for channels that it had not reached. Repeatable at any point.
        """
        for document in self.uncarried():
            if undelivered(document.body):
                continue
            try:
                main.put_state(STATE, document.key, document.body, expected_version=0)
            except Conflict:
                _note_deliveries(main, document.key, document.body["channels"])
            for channel in document.body["channels"]:
                for record in self.store().read(HISTORY, key=history_key(document.key, channel)):
                    entry = Entry(record.partition, record.key, record.body)
                    main.append(HISTORY, [entry], recorded_at=record.recorded_at)
            with suppress(Conflict):  # another process carries the same alerts
                body = {**document.body, CARRIED: True}
                self.store().put_state(STATE, document.key, body, expected_version=document.version)


def _note_deliveries(main: AuditStore, key: str, told: dict[str, Any]) -> None:
    """Mark as sent what the audit store's own document says nobody has got yet."""
    while document := main.get_state(STATE, key):
        body = document.body
        late = [name for name in undelivered(body) if told.get(name, {}).get("state") == SENT]
        if not late:
            return
        sent = {name: {**body["channels"][name], "state": SENT, "claim": TAKEN, "error": None} for name in late}
        with suppress(Conflict):  # it moved on in between: look again
            body = {**body, "channels": {**body["channels"], **sent}}
            main.put_state(STATE, key, body, expected_version=document.version)
            return
