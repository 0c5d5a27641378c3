"""How does the delivery of an alert on one channel go from state to state?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict
from trading_ops.notifications.delivery import CARRIED, FAILED, PENDING, SENDING, STATE, checked, unknown_alert

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument


def change(
    store: AuditStore,
    now: Callable[[], datetime],
    key: str,
    name: str,
    state: str,
    *,
    when: Callable[[Mapping[str, Any]], bool],
    claim: str,
    error: str | None = None,
    wait_s: float = 0.0,
    in_doubt: bool = False,
    attempt: bool = True,
    handle: str | None = None,
) -> StateDocument | None:
    """Compare-and-set one channel's state where `when` allows it; as it was before, None where not allowed."""
    while True:
        document = read(store, key)
        before = document.body["channels"].get(name)
        if before is None or not when(before):
            return None
        at = now()
        after = {**before, "state": state, "at": at.isoformat(), "claim": claim, "error": error}
        after["attempts"] = 0 if state == PENDING else before["attempts"] + (state == SENDING and attempt)
        if state == PENDING:
            after.pop("quiet_until", None)  # a person wants it told now
            after["replayed"] = True
        after["next_at"] = (at + timedelta(seconds=wait_s)).isoformat() if state == FAILED else None
        if handle is not None:
            after["handle"] = handle
        taken_over = before["state"] == state == SENDING  # who was at it may have sent it, however this attempt ends
        after["in_doubt"] = in_doubt or taken_over or bool(before.get("in_doubt"))
        body = {**document.body, "channels": {**document.body["channels"], name: after}}
        body.pop(CARRIED, None)  # there is news to carry
        with suppress(Conflict):  # another channel of this alert moved on in between: look again
            store.put_state(STATE, key, body, expected_version=document.version)
            return document


def read(store: AuditStore, key: str) -> StateDocument:
    """The alert with this key; raises LookupError where there is none, and StoreError."""
    document = store.get_state(STATE, key)
    if document is None:
        raise unknown_alert(key)
    return checked(document)
