"""What must a channel hear of an incident before this message?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict, StoreError, StoreUnavailable
from trading_ops.notifications.alert import Alert, Step
from trading_ops.notifications.delivery import CARRIED, FAILED, PENDING, SENT, STATE, unsettled

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

AFTER = "after"  # in a delivery: the keys that the channel is told first, or that are given up there


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
        """The other messages of the alert's incident, and what opened it under a key of its own."""
        opening = self._all.intersection({alert.opening, alert.group} - {None})
        return (self._by_incident.get(alert.incident or "", set()) | opening) - {alert.dedup_key}


def first_told(
    store: AuditStore, alert: Alert, names: Collection[str], waiting: Named, *, quiet: bool
) -> dict[str, dict[str, list[str]]]:
    """What the delivery on each channel says of the incident's earlier messages, which are all among `waiting`."""
    first = [_make_way(store, document, names, alert, quiet=quiet) for document in _earlier(store, alert, waiting)]
    keys = {name: [str(body["alert"]["dedup_key"]) for body in first if name in unsettled(body)] for name in names}
    return {name: {AFTER: before} if before else {} for name, before in keys.items()}


def comes_first(store: AuditStore, name: str, delivery: Mapping[str, Any]) -> bool:
    """Whether the channel is still to be told of an earlier message of the incident."""
    found = (_readable(store, key) for key in delivery.get(AFTER, ()))
    return any(name in unsettled(document.body) for document in found if document)


def with_what_comes_first(
    store: AuditStore, document: StateDocument, names: Collection[str]
) -> dict[str, Mapping[str, Any]]:
    """An alert by its key, after those that one of these channels is told before it."""
    told = [delivery for name, delivery in document.body["channels"].items() if name in names]
    found = [_readable(store, key) for key in {key for delivery in told for key in delivery.get(AFTER, ())}]
    first = [before for before in found if before and set(unsettled(before.body)).intersection(names)]
    in_order = [*sorted(first, key=lambda before: str(before.body["created_at"])), document]
    return {before.key: before.body for before in in_order}


def handle_of_opening(store: AuditStore, alert: Alert, name: str) -> str | None:
    """What the channel calls the message that opened the alert's incident, None where that is not known."""
    # where several were told in one message it can be answered, but not changed for one of them
    told_in = (alert.opening,) if alert.step is Step.UPDATED else (alert.group, alert.opening)
    for key in filter(None, told_in):
        document = _readable(store, key)
        if document and (handle := document.body["channels"].get(name, {}).get("handle")):
            return str(handle)
    return None


def _earlier(store: AuditStore, alert: Alert, waiting: Named) -> list[StateDocument]:
    """The messages of the alert's incident, oldest first, that some channel is still to hear of, all in `waiting`."""
    if alert.incident is None:
        return []
    found = [_readable(store, key) for key in sorted(waiting.beside(alert), key=lambda key: (len(key), key))]
    known = [
        document
        for document in found
        if document and (document.key == alert.group or _incident(document.body) == alert.incident)
    ]
    open_ = [document for document in known if unsettled(document.body)]
    return sorted(open_, key=lambda document: str(document.body["created_at"]))


def _make_way(
    store: AuditStore, document: StateDocument, names: Collection[str], alert: Alert, *, quiet: bool
) -> Mapping[str, Any]:
    """Let an earlier message keep the alert from these channels no longer than it must; the body of it afterwards.

    An update that no channel has shown is told by what comes after it; only what is quiet itself waits for the night.
    """
    while True:
        body = document.body
        channels = {name: dict(delivery) for name, delivery in body["channels"].items()}
        for name in channels.keys() & set(names):
            if body["alert"].get("step") == Step.UPDATED and channels[name]["state"] in (PENDING, FAILED):
                channels[name].update(state=SENT, superseded_by=alert.dedup_key, error=None, next_at=None)
            elif not quiet:
                channels[name].pop("quiet_until", None)
        if channels == body["channels"]:
            return body
        body = {**{name: value for name, value in body.items() if name != CARRIED}, "channels": channels}
        with suppress(Conflict):  # a channel was told in between: look again
            return store.put_state(STATE, document.key, body, expected_version=document.version).body
        document = store.get_state(STATE, document.key) or document


def _readable(store: AuditStore, key: str) -> StateDocument | None:
    try:
        return store.get_state(STATE, key)
    except StoreUnavailable:
        raise
    except StoreError:  # it is damaged: it holds up nothing
        return None


def _incident(body: Mapping[str, Any]) -> object:
    alert = body.get("alert")
    return alert.get("incident") if isinstance(alert, Mapping) else None
