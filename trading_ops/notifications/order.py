"""What must a channel hear of an incident before this message, and what not any more?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict, StoreError
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.delivery import (
    AFTER,
    AHEAD,
    CARRIED,
    FAILED,
    PENDING,
    SENDING,
    SENT,
    STATE,
    alert_of,
    checked,
    known,
    readable,
    unsettled,
)

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

_Delivery = Mapping[str, Any]


class Named:
    """Keys of messages, found by the incident that they begin with: incident, episode, number."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._by_incident: dict[str, set[str]] = {}
        self._all: set[str] = set()
        for key in keys:
            self.add(key)

    def add(self, key: str) -> None:
        """From now on it is found."""
        self._all.add(key)
        self._by_incident.setdefault(key.rsplit("/", 2)[0], set()).add(key)

    def beside(self, alert: Alert) -> set[str]:
        """The other messages of the alert's incident, and what opened it under keys of their own."""
        openings = self._all & {alert.opening, alert.group, *alert.also}
        return (self._by_incident.get(alert.incident or "", set()) | openings) - {alert.dedup_key}


def first_told(
    store: AuditStore, alert: Alert, names: Collection[str], waiting: Named, *, quiet: bool
) -> dict[str, dict[str, Any]]:
    """What the delivery on each channel says of the incident's earlier messages, which are all among `waiting`."""
    first = [_make_way(store, *earlier, names, alert, quiet=quiet) for earlier in _earlier(store, alert, waiting)]
    keys = {name: [document.key for document in first if name in unsettled(document.body)] for name in names}
    ahead = {AHEAD: True} if _hurries(alert) and alert.level is Severity.CRITICAL else {}
    return {name: {AFTER: before, **ahead} if before else {} for name, before in keys.items()}


def comes_first(store: AuditStore, name: str, delivery: _Delivery) -> bool:
    """Whether the channel is still to be told of an earlier message of the incident.

    A CRITICAL waits only for one that is being sent, or that can be tried and was not since the CRITICAL came.
    """
    before = _still_before(store, name, delivery)
    if not delivery.get(AHEAD):
        return bool(before)
    return any(
        earlier["state"] == SENDING or not (earlier.get("next_at") or _still_before(store, name, earlier))
        for earlier in before
    )


def _still_before(store: AuditStore, name: str, delivery: _Delivery) -> list[_Delivery]:
    found = (known(store, key) for key in delivery.get(AFTER, ()))
    return [document.body["channels"][name] for document in found if document and name in unsettled(document.body)]


def with_what_comes_first(store: AuditStore, key: str, body: Mapping[str, Any], names: Collection[str]) -> list[str]:
    """The alert's key, after those of what one of these channels is still to be told before it."""
    told = [delivery for name, delivery in body["channels"].items() if name in names]
    found = [known(store, key) for key in {key for delivery in told for key in delivery.get(AFTER, ())}]
    first = [before for before in found if before and set(unsettled(before.body)).intersection(names)]
    return [*(before.key for before in sorted(first, key=lambda before: str(before.body["created_at"]))), key]


def handle_of_opening(store: AuditStore, alert: Alert, name: str) -> str | None:
    """What the channel calls the message that opened the alert's incident, None where that is not known."""
    # where several were told in one message it can be answered, but not changed for one of them
    told_in = (alert.opening,) if alert.step is Step.UPDATED else (alert.group, alert.opening)
    for key in filter(None, told_in):
        document = known(store, key)
        if document and (handle := document.body["channels"].get(name, {}).get("handle")):
            return str(handle)
    return None


def without_what_is_over(store: AuditStore, document: StateDocument, names: Collection[str]) -> StateDocument:
    """The alert as it is afterwards: told nothing more on those of the channels that were told the incident's end."""
    try:
        alert = alert_of(document.body, document.key)
    except StoreError:  # who sends it finds out
        return document
    if alert.incident is None or alert.step is Step.RESOLVED:
        return document
    for end in ends_of(store, alert):
        told = [name for name in names if end.body["channels"].get(name, {}).get("state") == SENT]
        document = rewritten(
            store,
            document,
            lambda name, delivery, told=told, end=end: (  # type: ignore[misc]
                superseded(delivery, end.key) if name in told and delivery["state"] not in (SENDING, SENT) else delivery
            ),
        )
    return document


def ends_of(store: AuditStore, alert: Alert) -> list[StateDocument]:
    """What tells the end of that which the alert is about."""
    found = []
    for document in readable(store, prefix=f"{alert.incident}/")[0]:
        with suppress(StoreError):  # damaged: it is not known to have told anything
            end = alert_of(checked(document).body, document.key)
            about = {end.opening, *end.also} if end.step is Step.RESOLVED and end.incident == alert.incident else ()
            if (alert.opening or alert.dedup_key) in about:
                found.append(document)
    return found


def _earlier(store: AuditStore, alert: Alert, waiting: Named) -> list[tuple[StateDocument, Alert]]:
    """The messages of the alert's incident, oldest first, that some channel is still to hear of, all in `waiting`."""
    if alert.incident is None:
        return []
    earlier = []
    for key in sorted(waiting.beside(alert), key=lambda key: (len(key), key)):
        document = known(store, key)
        with suppress(StoreError):  # damaged: it holds up nothing
            if document and unsettled(document.body):
                told = alert_of(document.body, key)
                earlier += [(document, told)] if key == alert.group or told.incident == alert.incident else []
    return sorted(earlier, key=lambda one: str(one[0].body["created_at"]))


def _hurries(alert: Alert) -> bool:
    """Whether it may be urgent: that an incident goes on or is over never is."""
    return alert.step not in (Step.UPDATED, Step.RESOLVED)


def _make_way(
    store: AuditStore, document: StateDocument, earlier: Alert, names: Collection[str], alert: Alert, *, quiet: bool
) -> StateDocument:
    """Let an earlier message keep the alert from these channels no longer than it must; the document afterwards.

    An update that no channel has shown is told by what comes after it; only what is quiet itself waits for the night;
    what is more urgent, or CRITICAL, waits for no pause.
    """
    urgent = alert.level is Severity.CRITICAL or alert.level.rank > earlier.level.rank

    def change(name: str, delivery: _Delivery) -> _Delivery:
        if name not in names:
            return delivery
        if earlier.step is Step.UPDATED and delivery["state"] in (PENDING, FAILED):
            return superseded(delivery, alert.dedup_key)
        now = dict(delivery)
        if not quiet:
            now.pop("quiet_until", None)
        if _hurries(alert) and urgent and now.get("next_at"):
            now["next_at"] = None
        return now

    return rewritten(store, document, change)


def superseded(delivery: _Delivery, by: str) -> _Delivery:
    return {**delivery, "state": SENT, "superseded_by": by, "error": None, "next_at": None}


def rewritten(
    store: AuditStore, document: StateDocument, change: Callable[[str, _Delivery], _Delivery]
) -> StateDocument:
    """The document with each channel's delivery as `change` makes it, written where that is another."""
    while True:
        body = document.body
        channels = {name: change(name, delivery) for name, delivery in body["channels"].items()}
        if channels == body["channels"]:
            return document
        body = {**{name: value for name, value in body.items() if name != CARRIED}, "channels": channels}
        with suppress(Conflict):  # a channel was told in between: look again
            return store.put_state(STATE, document.key, body, expected_version=document.version)
        document = store.get_state(STATE, document.key) or document
