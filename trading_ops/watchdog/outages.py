"""How do people hear once that something stopped, and once that it is over?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from trading_ops.notifications.alert import Alert
from trading_ops.watchdog.heartbeat import Outage
from trading_ops.watchdog.rules import Finding

if TYPE_CHECKING:
    from trading_ops.notifications.desk import IncidentDesk


def tell(
    desk: IncidentDesk,
    known: Mapping[str, Outage],
    findings: Sequence[Finding],
    ended: Collection[str],
    note: Callable[[Mapping[str, Outage]], None],
) -> None:
    """Every finding is an incident, and a known outage that ended is over; `note` keeps what is open.

    Noted before it is told, and forgotten when its end is known to the audit store: a process killed in between says
    the same again, which changes nothing. Raises StoreError where nothing can be written.
    """
    outages = {**known, **{finding.name: known.get(finding.name) or _began(finding) for finding in findings}}
    note(outages)
    for finding in findings:
        desk.observe(_alert(finding, outages[finding.name]))
    for name in sorted(ended):
        if desk.recover(_incident(name)).noted:
            outages.pop(name)
    note(outages)


def _incident(name: str) -> str:
    return f"watchdog/{name}"


def _began(finding: Finding) -> Outage:
    opening = f"{_incident(finding.name)}/{finding.since.isoformat()}"
    return Outage(since=finding.since, opening=opening, severity=finding.severity, what=finding.what)


def _alert(finding: Finding, outage: Outage) -> Alert:
    return Alert(
        severity=outage.severity,
        dedup_key=outage.opening,
        what=outage.what,
        why=finding.why,
        what_to_do=finding.what_to_do,
        incident=_incident(finding.name),
        since=outage.since.isoformat(),
    )
