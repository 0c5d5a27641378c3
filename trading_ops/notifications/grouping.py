"""Which incidents begin at about the same time, and how are they told in one message?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from trading_ops.audit.store import Conflict, StoreError, StoreUnavailable
from trading_ops.notifications import incidents
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.delivery import DAMAGE, alert_of
from trading_ops.notifications.incident import Incident, Policy
from trading_ops.notifications.incident_store import damaged
from trading_ops.notifications.wording import together

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument
    from trading_ops.notifications.incident_store import IncidentStore, Problems
    from trading_ops.notifications.outbox import Outbox

GROUPING = "incident_grouping"
WINDOW, GROUP = "window", "group"  # {until}; see Group


@dataclass(frozen=True, slots=True)
class Group:
    """A message about several incidents; it is being told while it names `episodes`, each with what it tells of."""

    alert: Alert
    episodes: Mapping[str, int]
    findings: Mapping[str, Collection[str]]


class Grouping:
    """The window in which openings wait for others, and the message about several that is being told."""

    def __init__(
        self,
        store: AuditStore,
        incident_store: IncidentStore,
        outbox: Outbox,
        now: Callable[[], datetime],
        policy: Policy,
    ) -> None:
        self._store = store
        self._incidents = incident_store
        self._outbox = outbox
        self._now = now
        self._policy = policy

    def window(self, problems: Problems) -> datetime | None:
        """Until when an incident that opens now waits for others; None: it is the first, or nobody can say."""
        within = self._policy.group_within
        while True:
            now = self._now()
            try:
                known = self._store.get_state(GROUPING, WINDOW)
            except StoreUnavailable:
                raise
            except StoreError as error:  # it is damaged: each is told by itself
                problems.append(str(error))
                return None
            try:
                until = datetime.fromisoformat(known.body["until"]) if known else now
                if timedelta(0) < until - now <= within:
                    return until
            except (LookupError, TypeError, ValueError) as error:  # written anew below
                problems.append(str(damaged("the window of incidents told together", error)))
            body = {"until": (now + within).isoformat()}
            with suppress(Conflict):  # another one was the first: look again
                self._store.put_state(GROUPING, WINDOW, body, expected_version=known.version if known else 0)
                return None

    def tell(self, silenced: Callable[[str], bool], problems: Problems) -> int:
        """Tell openings that are due in one message a severity where they are several, write-ahead; how many.

        A message that is damaged is left out: its incidents are told anew. Raises StoreUnavailable.
        """
        told = 0
        try:
            while True:
                # before the incidents: who tells them in between changes its version
                known = self._store.get_state(GROUPING, GROUP)
                if known and known.body.get("episodes"):
                    told += self._finish(known, problems)
                    continue
                due = [incident for incident in self._incidents.unsettled()[0] if self._opens(incident, silenced)]
                by_severity = [[one for one in due if one.level is severity] for severity in Severity]
                several = next((some for some in reversed(by_severity) if len(some) > 1), None)
                if several is None:
                    return told
                self._begin(several, known)
        except StoreUnavailable:
            raise
        except StoreError as error:  # each is told by itself
            problems.append(str(error))
            return told

    def _opens(self, incident: Incident, silenced: Callable[[str], bool]) -> bool:
        if incident.urgent or silenced(incident.key):
            return False
        return incidents.due(incident, self._now(), self._policy, release=True) is Step.OPENED

    def _begin(self, several: Sequence[Incident], after: StateDocument | None) -> None:
        """Write down that these are told together, unless another process has begun since `after`."""
        number = self._number(after)
        alert = together(several, f"incidents_together/{number}")
        body = {
            "number": number,
            "alert": alert.to_document(),
            "episodes": {incident.key: incident.episode for incident in several},
            "findings": {incident.key: sorted(incident.findings) for incident in several},
        }
        self._put(body, after)

    def _number(self, after: StateDocument | None) -> int:
        """Of the next message; where nobody knows how many there were, one that none of them had."""
        last = after.body.get("number") if after else 0
        return last + 1 if isinstance(last, int) else int(self._now().timestamp())

    def _finish(self, document: StateDocument, problems: Problems) -> int:
        """Tell it, then that its incidents were told; each step changes nothing where it was done before. How many."""
        done = {**document.body, "episodes": {}}
        try:
            group = _read(document)
        except StoreError as error:  # under another number, for nobody knows whether this one was told
            problems.append(str(error))
            self._put({**done, "number": None}, document)
            return 0
        self._outbox.publish(group.alert)
        told = []
        for key, episode in group.episodes.items():
            change = partial(
                incidents.told_together,
                group=group.alert,
                episode=episode,
                findings=group.findings.get(key),
                now=self._now(),
                policy=self._policy,
            )
            try:
                told.append(self._incidents.write(key, change, problems))
            except StoreUnavailable:
                raise
            except StoreError as error:  # it holds up no other
                problems.append(str(error))
        self._incidents.publish(told, problems)
        self._put(done, document)
        return 1

    def _put(self, body: dict[str, object], known: StateDocument | None) -> None:
        with suppress(Conflict):  # another process is at it
            self._store.put_state(GROUPING, GROUP, body, expected_version=known.version if known else 0)


def _read(document: StateDocument) -> Group:
    alert = alert_of(document.body, f"{GROUPING}/{GROUP}")
    try:
        episodes = dict(document.body["episodes"])
        findings = {key: frozenset(known) for key, known in document.body.get("findings", {}).items()}
    except DAMAGE as error:
        raise damaged(f"the alert '{GROUPING}/{GROUP}'", error) from error
    return Group(alert, episodes, findings)
