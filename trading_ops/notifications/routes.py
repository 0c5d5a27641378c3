"""Which channels is an alert told on, and may it wait until the night is over?"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta

from trading_ops.notifications.alert import Alert, Severity, Step

_HOURS = re.compile(r"\s*(\d{1,2}:\d\d)\s*-\s*(\d{1,2}:\d\d)\s*")


@dataclass(frozen=True, slots=True)
class QuietHours:
    """From one time of the day (UTC) to another, this one excluded; over midnight where the end is the earlier one."""

    begin: time
    end: time

    def over_at(self, now: datetime) -> datetime | None:
        """When they end, where `now` lies in them.

        >>> night = QuietHours(time(22), time(7))
        >>> str(night.over_at(datetime(2025, 3, 1, 23, 30, tzinfo=UTC)))
        '2025-03-02 07:00:00+00:00'
        >>> night.over_at(datetime(2025, 3, 1, 7, tzinfo=UTC))
        """
        moment = now.astimezone(UTC)
        for day in (moment.date() - timedelta(days=1), moment.date()):
            began = datetime.combine(day, self.begin, UTC)
            ends = datetime.combine(day + timedelta(days=self.end <= self.begin), self.end, UTC)
            if began <= moment < ends:
                return ends
        return None


@dataclass(frozen=True, slots=True)
class Routes:
    """`by_severity`: the channels of a severity; those that are not named go to every channel but the escalation's own.

    `escalation`: the channels that are told, one step after the other, while nobody acknowledges a CRITICAL.
    """

    by_severity: Mapping[Severity, tuple[str, ...]] = field(default_factory=dict)
    escalation: Sequence[tuple[str, ...]] = ()
    quiet_hours: QuietHours | None = None

    def channels_of(self, alert: Alert, chosen: Collection[str]) -> list[str]:
        """The chosen channels that this alert goes to, in their order.

        An escalation goes to the channels of its step, or where there are no steps to those that were told before; what
        comes after it goes to all of them. That an incident goes on or is over concerns those who heard of it alone.
        """
        severities = (alert.step in (Step.UPDATED, Step.RESOLVED) and alert.told) or (alert.level,)
        own = {name for step in self.escalation for name in step}
        own -= {name for names in self.by_severity.values() for name in names}
        others = [name for name in chosen if name not in own]
        usual = {name for severity in severities for name in self.by_severity.get(severity, others)}
        if alert.step == Step.ESCALATED and self.escalation:
            told = set(self.escalation[min(alert.escalation, len(self.escalation)) - 1])
        else:
            told = usual.union(*self.escalation[: alert.escalation])
        return [name for name in chosen if name in told]

    def described(self, chosen: Collection[str], escalate_after: timedelta) -> str:
        """Who is told of what.

        >>> routes = Routes(escalation=(("webhook",), ("email",)))
        >>> routes.described(["slack", "discord", "webhook", "email"], timedelta(minutes=15))
        'INFO…CRITICAL: slack, discord; CRITICAL after 15 min: webhook, then email'
        """
        told: dict[tuple[str, ...], list[Severity]] = {}
        for severity in Severity:
            names = self.channels_of(Alert(severity, "", "", "", ""), chosen)
            told.setdefault(tuple(names), []).append(severity)
        parts = [f"{_range(severities)}: {', '.join(names) or 'nobody'}" for names, severities in told.items()]
        steps = [", ".join(there) for names in self.escalation if (there := [n for n in names if n in chosen])]
        after = f"{escalate_after.total_seconds() / 60:g} min"
        parts.append(f"CRITICAL after {after}: {', then '.join(steps) or 'the same again'}")
        if hours := self.quiet_hours:
            parts.append(f"INFO waits from {hours.begin:%H:%M} to {hours.end:%H:%M} UTC")
        return "; ".join(parts)

    def quiet_until(self, alert: Alert, now: datetime) -> datetime | None:
        """Until when the alert waits; only an INFO does."""
        return self.quiet_hours.over_at(now) if self.quiet_hours and alert.severity == Severity.INFO else None


def parse_routes(text: str) -> dict[Severity, tuple[str, ...]]:
    """Raises ValueError, which says what would be right.

    >>> parse_routes("INFO=email; critical = slack, pagerduty")
    {<Severity.INFO: 'INFO'>: ('email',), <Severity.CRITICAL: 'CRITICAL'>: ('slack', 'pagerduty')}
    """
    routes: dict[Severity, tuple[str, ...]] = {}
    for part in filter(str.strip, text.split(";")):
        name, equals, channels = part.partition("=")
        severity = name.strip().upper()
        if not equals or severity not in set(Severity):
            raise ValueError(f"{part.strip()!r} is no route; give one such as CRITICAL=slack,pagerduty, more after a ;")
        if Severity(severity) in routes:
            raise ValueError(f"{severity} is given twice; give each severity once")
        routes[Severity(severity)] = _names(channels)
    return routes


def parse_escalation(text: str) -> tuple[tuple[str, ...], ...]:
    """
    >>> parse_escalation("telegram; pagerduty, email")
    (('telegram',), ('pagerduty', 'email'))
    """
    return tuple(names for step in text.split(";") if (names := _names(step)))


def parse_quiet_hours(text: str) -> QuietHours:
    """Raises ValueError, which says what would be right."""
    found = _HOURS.fullmatch(text)
    try:
        begin, end = (time.fromisoformat(part.zfill(5)) for part in found.groups()) if found else (None, None)
    except ValueError:
        begin = end = None
    if begin is None or end is None or begin == end:
        raise ValueError(f"{text!r} are no hours; give UTC times such as 22:00-07:00")
    return QuietHours(begin, end)


def _range(severities: Sequence[Severity]) -> str:
    """
    >>> _range(list(Severity)[:3]), _range([Severity.INFO, Severity.CRITICAL])
    ('INFO…ERROR', 'INFO, CRITICAL')
    """
    first, last = severities[0], severities[-1]
    unbroken = len(severities) > 1 and last.rank - first.rank == len(severities) - 1
    return f"{first}…{last}" if unbroken else ", ".join(severities)


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
