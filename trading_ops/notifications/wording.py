"""What does each message about an incident say?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from trading_ops.notifications.alert import Alert, Step

if TYPE_CHECKING:
    from trading_ops.notifications.incident import Incident, Policy

LISTED = 20  # incidents named in a message about several


def worded(incident: Incident, step: Step, key: str, now: datetime, policy: Policy) -> Alert:
    """The message: what was last seen, and what is new about it."""
    alert = incident.alert
    message = replace(
        alert,
        dedup_key=key,
        incident=incident.key,
        step=step,
        opening=None if step is Step.OPENED else incident.opening,
        since=incident.opened_at.isoformat(),
    )
    seen = f"since {_minute(incident.opened_at)}, seen {_times(incident.count)}"
    often = f", and was seen {_times(incident.count)}" if incident.count else ""
    if step is Step.RESOLVED:
        ended = incident.changed_at
        lasted = f"It lasted {duration(ended - incident.opened_at)}, until {_minute(ended)}"
        return replace(
            message,
            severity=incident.told_severity,  # who heard of it hears that it is over
            what=f"Resolved: {alert.what}",
            why=f"{lasted}{often}.",
            what_to_do="Nothing.",
        )
    if step is Step.ESCALATED:
        number = incident.escalated + 1
        why = (
            f"Nobody has acknowledged it for {duration(now - (incident.unanswered_since or now))}, {seen}.\n{alert.why}"
        )
        answer = f"{alert.what_to_do}\nWho looks after it says so: `trading-ops alerts ack {incident.key}`."
        return replace(message, what=f"Unanswered: {alert.what}", why=why, what_to_do=answer.strip(),
                       numbers={**alert.numbers, "escalation": number})  # fmt: skip
    if incident.flapping and not incident.announced and step in (Step.OPENED, Step.REMINDED):
        quiet = f"You hear of it again when nothing has changed for {duration(policy.steady_after)}."
        came = f"It came {_times(len(incident.openings))} within {duration(policy.flapping_within)}. {quiet}"
        return replace(message, what=f"Flapping: {alert.what}", why=f"{came}\n{alert.why}")
    if step is Step.OPENED and incident.count <= 1:
        return message
    label = "" if step in (Step.OPENED, Step.UPDATED) else "More: " if incident.news else "Still: "
    return replace(message, what=f"{label}{alert.what}", why=f"{alert.why}\n({seen})".strip())


def together(incidents: Sequence[Incident], key: str) -> Alert:
    """One message about several incidents that opened at about the same time, the worst first."""
    worst_first = sorted(incidents, key=lambda incident: (-incident.alert.severity.rank, incident.key))
    shown = worst_first[:LISTED]
    more = len(incidents) - len(shown)
    lines = [f"{incident.alert.severity}: {incident.alert.what}: {_first(incident.alert.why)}" for incident in shown]
    advice = dict.fromkeys(incident.alert.what_to_do for incident in shown if incident.alert.what_to_do)
    return Alert(
        severity=worst_first[0].alert.severity,
        dedup_key=key,
        what=f"{len(incidents)} more incidents: {worst_first[0].alert.what} and {len(incidents) - 1} more",
        why="\n".join([*lines, *([f"and {more} more: `trading-ops alerts incidents`"] if more else [])]),
        what_to_do="\n".join(advice),
        since=min(incident.opened_at for incident in incidents).isoformat(),
    )


def duration(length: timedelta) -> str:
    """A length of time as people say it, in its two largest units.

    >>> duration(timedelta(hours=2, minutes=5, seconds=9)), duration(timedelta(days=1)), duration(timedelta(seconds=1))
    ('2 h 5 min', '1 d', '1 s')
    """
    left, parts = max(int(length.total_seconds()), 0), []
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, seconds)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2]) or "0 s"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _first(text: str) -> str:
    first, _, rest = text.partition("\n")
    return f"{first} …" if rest else first
