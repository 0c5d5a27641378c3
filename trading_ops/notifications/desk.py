"""How does an incident go on from process to process, each of its messages told once?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict, Entry, StoreError, StoreUnavailable
from trading_ops.notifications import incidents
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.delivery import alert_of
from trading_ops.notifications.grouping import GROUP, GROUPING, Grouping
from trading_ops.notifications.incident import ACTIONS, Incident, Policy, unsettled
from trading_ops.notifications.silences import Silences
from trading_ops.notifications.waiting import Waiting

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument
    from trading_ops.notifications.outbox import Outbox

STATE = "incidents"  # a document a key: its newest episode, see Incident
INDEX = "incidents_unsettled"  # what a tick reads

_Change = Callable[[Incident | None], Incident | None]
_Silenced = Callable[[str], bool]


class IncidentDesk:
    """One incident per key in `store`, its messages in `outbox`.

    The write-ahead: an incident is written together with its unsent messages, these are published, then they are taken
    out. A key is incident, episode and number, so what a killed process left is published again and told once.

    Without the store nobody knows what was told before: `observe` then publishes the alert under its own key, which the
    outbox tells once, and the incident begins with it when the store is back. What recovers in the meantime is told
    when it is seen well again.
    """

    def __init__(
        self, store: AuditStore, outbox: Outbox, now: Callable[[], datetime], policy: Policy | None = None
    ) -> None:
        self._store = store
        self._outbox = outbox
        self._now = now
        self._policy = policy or Policy()
        self._unsettled = Waiting(store, unsettled, INDEX, STATE, _read)
        self._grouping = Grouping(store, now, self._policy.group_within)
        self.silences = Silences(store, now)
        self.store_error: str | None = None  # why the last call had to do without the store; None: it did not

    def observe(self, alert: Alert, findings: Mapping[str, Severity] | None = None) -> None:
        """What `alert.incident` names is so now; `findings`: what exactly, without figures, each new one is told.

        `alert.dedup_key` names these findings for the time without a store. Raises StoreUnavailable when neither the
        store nor the outbox can be written.
        """
        key = alert.incident
        if key is None:
            raise ValueError(f"the alert {alert.dedup_key!r} names no incident")
        held: list[datetime | None] = []  # the window is asked for once, whoever else writes the incident in between

        def seen(known: Incident | None) -> Incident:
            silenced = bool(self.silences.covering(key))
            if not held and not silenced and (known is None or not (known.open or known.told_open)):
                held.append(self._grouping.window())
            if known and held == [None]:  # the first of all opens at once, also where another process wrote it before
                known = replace(known, held_until=None)
            return incidents.observe(
                known,
                alert,
                findings or {},
                self._now(),
                self._policy,
                silenced=silenced,
                held_until=(held or [None])[0],
            )

        self.store_error = None
        try:
            self._adopt()
            incident = self._write(key, seen)
        except StoreError as error:
            self.store_error = str(error)
            self._outbox.publish(alert)
        else:
            self._send(incident)

    def recover(self, key: str) -> None:
        """What the incident is about is well; no incident, or one that is over, changes nothing."""
        self.store_error = None
        try:
            self._adopt()
            self._send(self._write(key, self._well))
        except StoreError as error:
            self.store_error = str(error)

    def acknowledge(self, key: str, by: str) -> Incident:
        """Somebody looks after it; `key` may be one of its messages'. Raises LookupError, and StoreError."""
        now = self._now()
        found = self._answered("acknowledged", key, {"by": by, "at": now.isoformat()})
        acknowledged = self._write(found, lambda known: known and incidents.acknowledge(known, by, now))
        assert acknowledged is not None
        return acknowledged

    def resolve(self, key: str, *, by: str, reason: str) -> Incident:
        """Somebody says that it is over, for nothing looks at it any more; what is seen again opens again.

        `key` may be one of its messages'. Raises ValueError without a reason, LookupError, and StoreError.
        """
        if not reason.strip():
            raise ValueError("who resolves an incident says why")
        self.store_error = None
        self._adopt()
        body = {"by": by, "at": self._now().isoformat(), "reason": reason.strip()}
        resolved = self._write(self._answered("resolved", key, body), self._well)
        assert resolved is not None
        self._send(resolved)
        return resolved

    def _answered(self, action: str, key: str, body: Mapping[str, Any]) -> str:
        """The key of an open incident, with a record of what somebody does about it, written before it is done."""
        found = self._of_message(key)
        document = self._store.get_state(STATE, found)
        if document is None or not _known_as_open(_read(document)):
            raise LookupError(f"no open incident has the key {key!r}; trading-ops alerts incidents shows them")
        record = {"action": action, **body, "incident": found}
        self._store.append(ACTIONS, [Entry(str(self._now().date()), f"{action}/{found}", record)])
        return found

    def incident(self, key: str) -> Incident | None:
        """What is known under the incident's own key; raises StoreError."""
        document = self._store.get_state(STATE, key)
        return _read(document) if document else None

    def unsettled(self) -> list[Incident]:
        """The incidents that are open, or not yet told to be over, oldest first; raises StoreError."""
        found, damaged = self._look()
        if damaged:
            raise StoreError("; ".join(damaged))
        return found

    def tick(self) -> int:
        """Tell what is due by now and what a killed process left; the number of messages that are now in the outbox.

        What is damaged or cannot be reached waits for the next time, and `store_error` says why.
        """
        self.store_error, told = None, 0
        try:
            self._note(self._adopt())
            silenced = self.silences.look()
            told += self._tell_together(silenced)
            found, damaged = self._look()
        except StoreError as error:
            self._note([str(error)])
            return told
        due = []
        for incident in found:
            try:
                due.append(self._write(incident.key, partial(self._due, silenced)))
            except StoreError as error:
                damaged.append(str(error))
        try:
            told += self._send(*due)
        except StoreError as error:
            damaged.append(str(error))
        self._note(damaged)
        return told

    def _note(self, damaged: list[str]) -> None:
        known = [self.store_error] if self.store_error else []
        self.store_error = "; ".join(dict.fromkeys([*known, *damaged])) or None

    def _look(self) -> tuple[list[Incident], list[str]]:
        """The unsettled incidents, oldest first, and why others cannot be read; raises StoreUnavailable."""
        documents, damaged = self._unsettled.documents()
        return [_read(document) for document in documents], damaged

    def _due(self, silenced: _Silenced, known: Incident | None) -> Incident | None:
        return known and incidents.settle(known, self._now(), self._policy, silenced=silenced(known.key), release=True)

    def _well(self, known: Incident | None) -> Incident | None:
        if known is None or not _known_as_open(known):
            return known
        silenced = bool(self.silences.covering(known.key))
        return incidents.recover(known, self._now(), self._policy, silenced=silenced)

    def _tell_together(self, silenced: _Silenced) -> int:
        """Tell openings that are due in one message a severity where they are several, write-ahead; how many."""
        told = 0
        while True:
            try:
                # before the incidents: who tells them in between changes its version
                known = self._grouping.newest()
                alert = alert_of(known.body, f"{GROUPING}/{GROUP}") if known and known.body["episodes"] else None
            except StoreUnavailable:
                raise
            except StoreError as error:  # each is told by itself
                self._note([str(error)])
                return told
            if known and alert:
                told += 1
                self._finish(known, alert)
                continue
            due = [incident for incident in self._look()[0] if self._opens(incident, silenced)]
            by_severity = [[one for one in due if one.level is severity] for severity in Severity]
            several = next((some for some in reversed(by_severity) if len(some) > 1), None)
            if several is None:
                return told
            self._grouping.begin(several, known)

    def _opens(self, incident: Incident, silenced: _Silenced) -> bool:
        if incident.urgent or silenced(incident.key):
            return False
        return incidents.due(incident, self._now(), self._policy, release=True) is Step.OPENED

    def _finish(self, group: StateDocument, alert: Alert) -> None:
        """Tell it, then that its incidents were told; each step changes nothing where it was done before."""
        self._outbox.publish(alert)
        told, damaged = [], []
        for key, episode in group.body["episodes"].items():
            change = partial(incidents.told_together, episode=episode, now=self._now(), policy=self._policy)
            try:
                told.append(self._write(key, change))
            except StoreUnavailable:
                raise
            except StoreError as error:  # it holds up no other
                damaged.append(str(error))
        self._send(*told)
        self._note(damaged)
        self._grouping.finish(group)

    def _adopt(self) -> list[str]:
        """Begin the incidents that were told while the store was away, with what was told; what is damaged of it."""
        try:
            told, damaged = self._outbox.without_store()
        except StoreError:  # the outbox says so with its next alert
            return []
        for alert, at in told:
            if not alert.incident or alert.since is not None:  # its incident is known, and has it among its messages
                continue
            try:
                self._write(alert.incident, partial(incidents.adopt, alert=alert, at=at, policy=self._policy))
            except StoreUnavailable:
                raise
            except StoreError as error:
                damaged.append(str(error))
        return damaged

    def _write(self, key: str, change: _Change) -> Incident | None:
        """Compare-and-set the incident, with what is to be told; what it is then."""
        while True:
            document = self._store.get_state(STATE, key)
            known = _read(document) if document else None
            after = change(known)
            if after is None or after == known:
                return after
            body = after.to_document()
            if unsettled(body):
                self._unsettled.add(key)  # before it is one, so that no tick misses it
            try:
                self._store.put_state(STATE, key, body, expected_version=document.version if document else 0)
            except Conflict:  # another process saw it too: look again
                continue
            self._index_again(key, body)
            return after

    def _index_again(self, key: str, body: Mapping[str, Any]) -> None:
        """A tick that read the incident right before it was written has taken its key out of the index."""
        if not unsettled(body):
            return
        try:
            self._unsettled.add(key)
        except StoreError as error:  # it is written all the same, and its next change adds it
            self.store_error = str(error)

    def _send(self, *changed: Incident | None) -> int:
        """Publish what is unsent and take it out; how many messages."""
        waiting = [incident for incident in changed if incident and incident.unsent]
        alerts = [alert for incident in waiting for alert in incident.unsent]
        if not alerts:
            return 0
        self._outbox.publish_all(alerts)
        keys = {alert.dedup_key for alert in alerts}
        try:
            for incident in waiting:
                self._write(incident.key, lambda known: known and incidents.sent(known, keys))
                if document := self._store.get_state(STATE, incident.key):
                    self._unsettled.settle(document)
        except StoreError as error:  # the outbox has them: the next tick finds that out
            self.store_error = str(error)
        return len(keys)

    def _of_message(self, key: str) -> str:
        """The key of the incident that this key, or this message, is about."""
        if self._store.get_state(STATE, key):
            return key
        try:
            return alert_of(self._outbox.delivery(key), key).incident or key
        except LookupError:
            return key


def _known_as_open(incident: Incident) -> bool:
    return incident.open or incident.told_open


def _read(document: StateDocument) -> Incident:
    try:
        return Incident.from_document(document.body)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StoreError(f"the incident {document.key!r} is damaged: {type(error).__name__}: {error}") from error
