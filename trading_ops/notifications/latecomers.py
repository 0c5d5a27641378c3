"""What becomes of a message that the audit store hears of when people may know the end of its incident already?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import StoreError
from trading_ops.notifications import incidents
from trading_ops.notifications.alert import Alert, Step
from trading_ops.notifications.backoff import CLOCKS_DIFFER
from trading_ops.notifications.delivery import (
    AFTER,
    AGAIN,
    PENDING,
    SENDING,
    SENT,
    alert_of,
    checked,
    known,
    readable,
    told_at,
    unsettled,
)
from trading_ops.notifications.order import ends_of, rewritten, superseded
from trading_ops.notifications.waiting import Waiting

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

_Delivery = Mapping[str, Any]


def end_last(main: AuditStore, document: StateDocument) -> None:
    """Let the end of an incident be the last that each channel is told of it; repeatable at any point.

    `document`: as a local store holds it, which was carried over to `main`. What is older than an end is told no more
    where that was told; where it may have been told after it, such as a page that was opened again, the end is told
    again; where both are still to be told, the end waits.
    """
    try:
        alert = alert_of(document.body, document.key)
    except StoreError:  # it is told nobody
        return
    if alert.incident is None:
        return
    if alert.step is Step.RESOLVED:
        end = known(main, document.key)
        pairs = [(message, end) for message in _about(main, alert)] if end else []
    else:
        message = known(main, document.key)
        pairs = [(message, end) for end in ends_of(main, alert)] if message else []
    for message, end in pairs:
        carried = document if document.key == message.key else message
        if _is_older(carried, end):
            _end_last(main, message.key, end.key, carried.body["channels"])


def _is_older(message: StateDocument, end: StateDocument) -> bool:
    """Not where the key of a day was told again since, of what began anew; an incident's own keys come but once."""
    return incidents.is_its_own(alert_of(message.body, message.key)) or told_at(message) <= told_at(end)


def _end_last(main: AuditStore, message: str, end: str, local: Mapping[str, _Delivery]) -> None:
    """As `end_last`, of one message and one end of it; `local`: the deliveries of the message as it was carried."""
    before, after = known(main, message), known(main, end)
    if before is None or after is None:
        return

    def again(name: str, delivery: _Delivery) -> _Delivery:
        told = [channels[name] for channels in (before.body["channels"], local) if name in channels]
        ended = _moment(delivery, after) - CLOCKS_DIFFER
        if delivery["state"] == SENT and any(_may_have_come(one) and _moment(one, before) > ended for one in told):
            return {**delivery, "state": PENDING, "attempts": 0, "in_doubt": True, "next_at": None, AGAIN: True}
        waits_for = [*delivery.get(AFTER, ())]
        if name in unsettled(before.body) and delivery["state"] not in (SENDING, SENT) and message not in waits_for:
            return {**delivery, AFTER: [*waits_for, message]}
        return delivery

    def no_more(name: str, delivery: _Delivery) -> _Delivery:
        was_told = after.body["channels"].get(name, {}).get("state") == SENT
        return superseded(delivery, end) if was_told and delivery["state"] != SENT else delivery

    Waiting(main).add(end)  # before it waits, and forgotten by the next drain where it does not
    rewritten(main, after, again)
    rewritten(main, before, no_more)


def _may_have_come(delivery: _Delivery) -> bool:
    """Whether the channel may have the message."""
    return not delivery.get("superseded_by") and bool(delivery["state"] in (SENDING, SENT) or delivery.get("in_doubt"))


def _moment(delivery: _Delivery, document: StateDocument) -> datetime:
    """When it came, or was last tried; where nobody noted that, when it was written."""
    return datetime.fromisoformat(delivery["at"]) if delivery.get("at") else told_at(document)


def _about(main: AuditStore, end: Alert) -> Iterator[StateDocument]:
    """The messages whose end this is."""
    about = {end.opening, *end.also} - {None}
    found = {document.key: document for document in readable(main, prefix=f"{end.incident}/")[0]}
    found |= {key: document for key in about if key and (document := known(main, key))}
    for document in found.values():
        with suppress(StoreError):  # damaged: it is given up
            alert = alert_of(checked(document).body, document.key)
            if alert.step is not Step.RESOLVED and (alert.opening or alert.dedup_key) in about:
                yield document
