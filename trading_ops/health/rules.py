"""How is a component, given what a probe saw of it, and how is the whole?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from trading_ops.notifications.alert import Severity

if TYPE_CHECKING:
    from trading_ops.market.inspection import Inspection

# the components in the order in which they are shown, as people call them
LABELS = {
    "engine": "engine",
    "ai_service": "AI service",
    "frontend": "frontend",
    "document_db": "document DB",
    "cache": "cache",
    "broker": "message broker",
    "disk": "disk",
    "memory": "memory",
    "candles": "candles",
}
NOT_MODIFIED = 304


class Status(StrEnum):
    """How a component is, in rising order of badness; unknown is not bad."""

    NOT_CONFIGURED = "not configured"
    HEALTHY = "healthy"
    UNKNOWN = "unknown"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"  # it answers, and the answer is bad
    DOWN = "down"  # it does not answer
    CRITICAL = "critical"  # a resource that is nearly used up

    @property
    def rank(self) -> int:
        return list(Status).index(self)

    @property
    def severity(self) -> Severity | None:
        """How loudly it is told; None where there is nothing to tell."""
        if self.rank >= Status.UNHEALTHY.rank:
            return Severity.CRITICAL
        return Severity.WARNING if self is Status.DEGRADED else None


@dataclass(frozen=True, slots=True)
class Limits:
    """An answer of `slow_s` or more is slow; the others are crossed by what is strictly above them."""

    slow_s: float = 5.0
    disk_warning_pct: float = 80.0
    disk_critical_pct: float = 90.0
    memory_warning_pct: float = 80.0
    memory_critical_pct: float = 90.0
    queue_depth: int = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one component is: `found` in words, `numbers` the figures behind it, `tries` how often it was asked."""

    component: str
    status: Status
    found: str
    latency_ms: int | None = None
    address: str = ""
    tries: int = 1
    numbers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return LABELS[self.component]


def worst(statuses: Iterable[Status]) -> Status:
    """The overall status is the worst of all, in whatever order: critical for anything that is told as CRITICAL.

    >>> worst([Status.DOWN, Status.UNHEALTHY, Status.HEALTHY])
    <Status.CRITICAL: 'critical'>
    >>> worst([Status.HEALTHY, Status.NOT_CONFIGURED])
    <Status.HEALTHY: 'healthy'>
    """
    found = max(statuses, key=lambda status: status.rank, default=Status.NOT_CONFIGURED)
    return Status.CRITICAL if found.severity is Severity.CRITICAL else found


def judge_answer(
    component: str, latency_s: float, limits: Limits, *, complaint: str = "", warning: str = "", said: str = ""
) -> Verdict:
    """It answered: unhealthy with a complaint, degraded with a warning or slowly, else healthy."""
    label, latency_ms = LABELS[component], round(1000 * latency_s)
    if complaint:
        return Verdict(component, Status.UNHEALTHY, f"{label} is unhealthy: {complaint}", latency_ms)
    slow = f"{label} is slow: {latency_ms}ms" if latency_s >= limits.slow_s else ""
    if warning or slow:
        return Verdict(component, Status.DEGRADED, "; ".join(filter(None, [warning, slow])), latency_ms)
    return Verdict(component, Status.HEALTHY, said or f"answered in {latency_ms}ms", latency_ms)


def judge_reply(
    component: str,
    code: int,
    latency_s: float,
    limits: Limits,
    *,
    expected: Collection[int] = (),
    complaint: str = "",
) -> Verdict:
    """2xx, 304 and what is `expected` are healthy statuses of HTTP, unless the answer itself has a `complaint`."""
    if not (200 <= code < 300 or code == NOT_MODIFIED or code in expected):
        complaint = f"HTTP {code}{f', {complaint}' if complaint else ''}"
    said = f"HTTP {code} in {round(1000 * latency_s)}ms"
    return judge_answer(component, latency_s, limits, complaint=complaint, said=said)


def judge_queues(depths: Mapping[str, int], latency_s: float, limits: Limits) -> Verdict:
    """A queue that holds more messages than the limit is not worked off."""
    deep = [f"queue {name} holds {depth} messages" for name, depth in depths.items() if depth > limits.queue_depth]
    waiting = f"{sum(depths.values())} messages in {len(depths)} queues"
    found = judge_answer("broker", latency_s, limits, warning=", ".join(deep), said=waiting)
    return Verdict("broker", found.status, found.found, found.latency_ms, numbers={"depths": dict(depths)})


def judge_usage(component: str, used_pct: float, warning_pct: float, critical_pct: float) -> Verdict:
    """Strictly above `warning_pct` is degraded, strictly above `critical_pct` critical."""
    figure = f"{used_pct:.1f}".removesuffix(".0")
    what = f"{LABELS[component].capitalize()} usage"
    numbers = {"used_pct": used_pct}
    if used_pct > critical_pct:
        return Verdict(component, Status.CRITICAL, f"{what} critical: {figure}%", numbers=numbers)
    if used_pct > warning_pct:
        return Verdict(component, Status.DEGRADED, f"{what} high: {figure}%", numbers=numbers)
    return Verdict(component, Status.HEALTHY, f"{figure}% used", numbers=numbers)


def judge_candles(inspections: Sequence[Inspection]) -> Verdict:
    """Unhealthy: bars that cannot be, or no symbol is fresh. Degraded: some are stale, missing or have gaps.

    What cannot be read at all of any symbol is unknown.
    """
    by_status = {status: [i for i in inspections if i.status == status] for status in ("unsound", "stale", "broken")}
    with_gaps = [i for i in inspections if i.missing_bars]
    told = [i.problems[0] for found in by_status.values() for i in found if i.problems]
    told += [f"{i.symbol}: {i.missing_bars} bars missing, {', '.join(i.longest_gaps)}" for i in with_gaps]
    numbers = {"symbols": len(inspections), "stale": len(by_status["stale"]), "unreadable": len(by_status["broken"]),
               "missing_bars": sum(i.missing_bars for i in with_gaps)}  # fmt: skip
    if inspections and len(by_status["broken"]) == len(inspections):
        status = Status.UNKNOWN
    elif by_status["unsound"] or (by_status["stale"] and not any(i.status == "sound" for i in inspections)):
        status = Status.UNHEALTHY
    else:
        status = Status.DEGRADED if told else Status.HEALTHY
    rest = f" (and {len(told) - 1} more)" if len(told) > 1 else ""
    fresh = f"{len(inspections)} symbols are fresh and whole" if inspections else "no symbol is traded"
    return Verdict("candles", status, f"candles: {told[0]}{rest}" if told else fresh, numbers=numbers)
