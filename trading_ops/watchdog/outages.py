"""How do people hear once that something stopped, and once that it is over?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from trading_ops.notifications.alert import Alert, Step
from trading_ops.watchdog.heartbeat import Outage
from trading_ops.watchdog.rules import Finding, shown

if TYPE_CHECKING:
    from trading_ops.notifications.outbox import Outbox


def tell(
    outbox: Outbox,
    known: Mapping[str, Outage],
    findings: Sequence[Finding],
    ended: Collection[str],
    now: datetime,
    note: Callable[[Mapping[str, Outage]], None],
) -> None:
    """Tell of every finding that began and of the known outages that ended; `note` keeps what is open.

    Noted before it is told, and forgotten after its end was: a process killed in between tells the same messages again
    under the same keys, which the outbox tells once. Raises StoreError where the outbox cannot be written.
    """
    outages = {**known, **{finding.name: known.get(finding.name) or _began(finding) for finding in findings}}
    note(outages)
    for finding in findings:
        outbox.publish(_opened(finding, outages[finding.name]))
    for name in sorted(ended):
        outbox.publish(_resolved(name, outages.pop(name), now))
    note(outages)


def _began(finding: Finding) -> Outage:
    opening = f"watchdog/{finding.name}/{finding.since.isoformat()}"
    return Outage(since=finding.since, opening=opening, severity=finding.severity, what=finding.what)


def _opened(finding: Finding, outage: Outage) -> Alert:
    return Alert(
        severity=outage.severity,
        dedup_key=outage.opening,
        what=outage.what,
        why=finding.why,
        what_to_do=finding.what_to_do,
        incident=f"watchdog/{finding.name}",
        step=Step.OPENED,
        since=outage.since.isoformat(),
    )


def _resolved(name: str, outage: Outage, now: datetime) -> Alert:
    return Alert(
        severity=outage.severity,  # who heard of it hears that it is over
        dedup_key=f"{outage.opening}/resolved",
        what=f"Over: {outage.what}",
        why=f"It lasted from {shown(outage.since)} to {shown(now)}.",
        what_to_do="Nothing.",
        incident=f"watchdog/{name}",
        step=Step.RESOLVED,
        opening=outage.opening,
        since=outage.since.isoformat(),
    )
