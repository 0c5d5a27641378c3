"""What does each message about an incident say?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from trading_ops.commands import command
from trading_ops.notifications.alert import Alert, Step
from trading_ops.notifications.text import duration

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
        opening=None if step in (Step.OPENED, Step.GROUPED) else incident.opening,
        group=incident.group,
        since=incident.opened_at.isoformat(),
        escalation=incident.reached,
        told=incident.told if incident.told_open else (),
    )
    seen = f"Seen {_times(incident.count)}." if incident.count > 1 else ""
    if step is Step.RESOLVED:
        ended = incident.changed_at
        often = f", and was seen {_times(incident.count)}" if incident.count else ""
        return replace(
            message,
            severity=incident.told_severity,
            also=incident.also,
            why=f"It lasted {_length(ended - incident.opened_at)}, until {ended:%Y-%m-%d %H:%M} UTC{often}.",
            what_to_do="",
        )
    if step is Step.ESCALATED:
        waited = f"Nobody has acknowledged it for {_length(now - (incident.unanswered_since or now))}."
        answer = f"Say who looks after it: `{command('alerts ack', incident.key)}`."
        return replace(
            message,
            why=_lines(waited, alert.why, seen),
            what_to_do=_lines(alert.what_to_do, answer),
            escalation=incident.escalated + 1,
        )
    if incident.flapping and not incident.announced:
        quiet = f"You hear of it again when nothing has changed for {_length(policy.steady_after)}."
        came = f"It came {_times(len(incident.openings))} within {_length(policy.flapping_within)}. {quiet}"
        return replace(message, what=f"Flapping: {alert.what}", why=_lines(came, alert.why))
    more = "More: " if step is Step.REMINDED and incident.news else ""
    return replace(message, what=more + alert.what, why=_lines(alert.why, seen))


def together(incidents: Sequence[Incident], key: str) -> Alert:
    """One message about several incidents of one severity that began at about the same time; it links to the first."""
    shown, more = incidents[:LISTED], len(incidents) - LISTED
    lines = [f"{incident.alert.what}: {_first(incident.alert.why)}" for incident in shown]
    advice = dict.fromkeys(incident.alert.what_to_do for incident in shown)
    done = dict.fromkeys(incident.alert.done for incident in shown)
    return Alert(
        severity=incidents[0].alert.severity,
        dedup_key=key,
        what=f"{incidents[0].alert.what}, and {len(incidents) - 1} more",
        why=_lines(*lines, f"and {more} more" if more > 0 else ""),
        what_to_do=_lines(*advice, "Each by itself: `trading-ops alerts incidents`."),
        done=_lines(*done),
        link=next((incident.alert.link for incident in shown if incident.alert.link), None),
        step=Step.SEVERAL,
        numbers={"incidents": [incident.key for incident in incidents]},
        since=min(incident.opened_at for incident in incidents).isoformat(),
    )


def _length(length: timedelta) -> str:
    return duration(length.total_seconds()) or "less than a minute"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _lines(*texts: str) -> str:
    return "\n".join(filter(None, texts))


def _first(text: str) -> str:
    first, _, rest = text.partition("\n")
    return f"{first} …" if rest else first
