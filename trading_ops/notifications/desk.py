"""How does an incident go on from process to process, each of its messages told once?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Entry, StoreError, StoreUnavailable
from trading_ops.commands import visible
from trading_ops.notifications import incidents
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.delivery import DAMAGE, alert_of, told_at, whole
from trading_ops.notifications.delivery import STATE as OUTBOX
from trading_ops.notifications.grouping import Grouping
from trading_ops.notifications.incident import ACTIONS, Incident, Policy
from trading_ops.notifications.incident_store import IncidentStore, damaged
from trading_ops.notifications.silences import Silences
from trading_ops.notifications.waiting import to_adopt

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore
    from trading_ops.notifications.incident_store import Problems
    from trading_ops.notifications.outbox import Outbox

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call: whether the audit store has `noted` it, and the messages `told`, now in the outbox.

    `problem`: why the store was done without, or what in it is damaged and waits; None: nothing.
    """

    noted: bool
    told: int = 0
    problem: str | None = None


class IncidentDesk:
    """One incident per key in `store`, its messages in `outbox`. Threads may share it.

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
        self.silences = Silences(store, now)
        self._incidents = IncidentStore(store, outbox)
        self._grouping = Grouping(store, self._incidents, outbox, now, self._policy)

    def observe(self, alert: Alert, findings: Mapping[str, Severity] | None = None) -> Outcome:
        """What `alert.incident` names is so now; `findings`: what exactly, without figures, each new one is told.

        `alert.dedup_key` names these findings for the time without a store, `alert.since` says since when it is so
        (None: since it is first seen). Raises StoreUnavailable when neither the store nor the outbox can be written.
        """
        key = alert.incident
        if key is None:
            raise ValueError(f"the alert {alert.dedup_key!r} names no incident")
        problems: Problems = []
        held: list[datetime | None] = []  # the window is asked for once, whoever else writes the incident in between

        def seen(known: Incident | None) -> Incident:
            silenced = bool(self.silences.covering(key))
            if not held and not silenced and (known is None or not (known.open or known.told_open)):
                held.append(self._grouping.window(problems))
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

        try:
            self._adopt(problems)
            incident = self._incidents.write(key, seen, problems)
        except StoreError as error:
            self._outbox.publish(alert)
            return _outcome([*problems, str(error)], noted=False, told=1)
        return _outcome(problems, noted=True, told=self._incidents.publish([incident], problems))

    def recover(self, key: str) -> Outcome:
        """What the incident is about is well; no incident, or one that is over, changes nothing."""
        problems: Problems = []
        try:
            self._adopt(problems)
            incident = self._incidents.write(key, self._well, problems)
        except StoreError as error:
            return _outcome([*problems, str(error)], noted=False)
        try:
            told = self._incidents.publish([incident], problems)
        except StoreError as error:  # it is written with the message, which the next tick tells
            return _outcome([*problems, str(error)], noted=True)
        return _outcome(problems, noted=True, told=told)

    def acknowledge(self, key: str, by: str) -> Incident:
        """Somebody looks after it; `key` may be one of its messages'. Raises LookupError, and StoreError."""
        problems: Problems = []
        self._adopt(problems)
        now = self._now()
        found = self._answered("acknowledged", key, {"by": by, "at": now.isoformat()})
        acknowledged = self._incidents.write(found, lambda it: it and incidents.acknowledge(it, by, now), problems)
        assert acknowledged is not None
        _log(problems)
        return acknowledged

    def resolve(self, key: str, *, by: str, reason: str) -> Incident:
        """Somebody says that it is over, for nothing looks at it any more; what is seen again opens again.

        `key` may be one of its messages'. Raises ValueError without a reason, LookupError, and StoreError.
        """
        if not reason.strip():
            raise ValueError("who resolves an incident says why")
        problems: Problems = []
        self._adopt(problems)
        body = {"by": by, "at": self._now().isoformat(), "reason": reason.strip()}
        resolved = self._incidents.write(self._answered("resolved", key, body), self._well, problems)
        assert resolved is not None
        self._incidents.publish([resolved], problems)
        _log(problems)
        return resolved

    def _answered(self, action: str, key: str, body: Mapping[str, Any]) -> str:
        """The key of an open incident, with a record of what somebody does about it, written before it is done."""
        named = self.named(key)
        found = named[0] if len(named) == 1 else key
        known = self._incidents.get(found)
        if known is None or not known.goes_on:
            raise LookupError(f"no open incident has the key {key!r}; trading-ops alerts incidents shows them")
        record = {"action": action, **body, "incident": found}
        self._store.append(ACTIONS, [Entry(str(self._now().date()), f"{action}/{found}", record)])
        return found

    def incident(self, key: str) -> Incident | None:
        """What is known under the incident's own key; raises StoreError."""
        return self._incidents.get(key)

    def named(self, key: str) -> list[str]:
        """The incidents that a key is about, be it their own or a message's; itself where nobody knows it.

        Raises StoreError.
        """
        if self._incidents.get(key):
            return [key]
        try:
            alert = alert_of(self._outbox.delivery(key), key)
        except LookupError:
            shown = [
                one.key for one in self._incidents.unsettled()[0] if visible(one.key) == key
            ]  # as messages show it
            return shown[:1] or [key]
        if alert.step is Step.SEVERAL:
            names = alert.numbers.get("incidents")
            return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        return [alert.incident or key]

    def unsettled(self) -> list[Incident]:
        """The incidents that are open, or not yet told to be over, oldest first; raises StoreError."""
        return whole(*self.readable())

    def readable(self) -> tuple[list[Incident], list[str]]:
        """As `unsettled`, and why others cannot be read; raises StoreUnavailable."""
        return self._incidents.unsettled()

    def tick(self) -> Outcome:
        """Tell what is due by now and what a killed process left.

        What is damaged waits for the next time, and so does everything once the store cannot be reached: each of the
        others would wait for it as long.
        """
        problems: Problems = []
        told, due = 0, []
        try:
            self._adopt(problems)
            silenced = self.silences.look()
            told += self._grouping.tell(silenced, problems)
            found, unreadable = self._incidents.unsettled()
            problems += unreadable
            for incident in found:
                try:
                    due.append(self._incidents.write(incident.key, partial(self._due, silenced), problems))
                except StoreUnavailable:
                    raise
                except StoreError as error:
                    problems.append(str(error))
            told += self._incidents.publish(due, problems)
        except StoreError as error:
            problems.append(str(error))
        return _outcome(problems, noted=not problems, told=told)

    def _due(self, silenced: Callable[[str], bool], known: Incident | None) -> Incident | None:
        return known and incidents.settle(known, self._now(), self._policy, silenced=silenced(known.key), release=True)

    def _well(self, known: Incident | None) -> Incident | None:
        if known is None or not known.goes_on:
            return known
        silenced = bool(self.silences.covering(known.key))
        return incidents.recover(known, self._now(), self._policy, silenced=silenced)

    def _adopt(self, problems: Problems) -> None:
        """Begin the incidents that were told while the store was away, with what was told; raises StoreUnavailable.

        Of what the outbox carried into the store since then as well as of what it has not.
        """
        try:
            local, unreadable = self._outbox.without_store()
        except StoreError:  # the outbox says so with its next alert
            local, unreadable = [], []
        problems += unreadable
        for alert, at in local:
            self._adopt_one(alert, at, problems)
        carried = to_adopt(self._store)
        for key in sorted(carried.named()):
            document = None
            try:
                document = self._store.get_state(OUTBOX, key)
                known = document is None or self._adopt_one(alert_of(document.body, key), told_at(document), problems)
            except StoreUnavailable:
                raise
            except StoreError as error:  # it never can: it is named once
                problems.append(str(error))
                known = True
            if document and known:
                carried.settle(document)

    def _adopt_one(self, alert: Alert, at: datetime, problems: Problems) -> bool:
        """Whether its incident knows that the alert was told; an incident that is damaged holds up no other."""
        if alert.incident is None or incidents.is_its_own(alert):
            return True
        change = partial(incidents.adopt, alert=alert, at=at, policy=self._policy)
        try:
            self._incidents.write(alert.incident, change, problems)
        except StoreUnavailable:
            raise
        except StoreError as error:
            problems.append(str(error))
            return False
        except DAMAGE as error:  # it never can, and would be in the way of all others
            problems.append(str(damaged(f"what is known of {alert.dedup_key!r}", error)))
        return True


def _outcome(problems: Problems, *, noted: bool, told: int = 0) -> Outcome:
    return Outcome(noted, told, "; ".join(dict.fromkeys(problems)) or None)


def _log(problems: Problems) -> None:
    for problem in problems:
        log.warning("what somebody said of an incident is noted, but: %s", problem)
