"""When is a metric good, and how sure is a breach?"""

from __future__ import annotations

from dataclasses import dataclass

from trading_ops.notifications.alert import Severity
from trading_ops.performance.intervals import Interval

METRICS = ("win_rate_pct", "avg_profit_pct", "sharpe_ratio")
# how people read each: its name, its unit, and how many decimals at least
READ = {
    "win_rate_pct": ("win rate", " %", 1),
    "avg_profit_pct": ("average profit", " %", 2),
    "sharpe_ratio": ("Sharpe ratio", "", 2),
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a metric is good (at or above the target) and where critical (below), and the trades a verdict needs."""

    win_rate_target_pct: float = 70.0
    win_rate_critical_pct: float = 55.0
    avg_profit_target_pct: float = 2.6
    avg_profit_critical_pct: float = 1.5
    sharpe_target: float = 2.1
    sharpe_critical: float = 1.0
    min_trades: int = 10

    def of(self, metric: str) -> tuple[float, float]:
        """(target, critical) of one of METRICS."""
        return {
            "win_rate_pct": (self.win_rate_target_pct, self.win_rate_critical_pct),
            "avg_profit_pct": (self.avg_profit_target_pct, self.avg_profit_critical_pct),
            "sharpe_ratio": (self.sharpe_target, self.sharpe_critical),
        }[metric]


@dataclass(frozen=True, slots=True)
class MetricAlert:
    """One metric past its limit. `confirmed`: the 95 % interval excludes it; unconfirmed is told, never paged."""

    metric: str
    severity: Severity
    value: float
    limit: float
    interval: Interval
    confirmed: bool


def metric_status(value: float | None, target: float, critical: float) -> str:
    """good at or above the target, critical below the critical limit, warning between; unknown where undefined.

    A value within 1e-9 of a limit is at the limit, so that rounding never changes a verdict.

    >>> metric_status(70.0, 70.0, 55.0), metric_status(55.0, 70.0, 55.0), metric_status(54.9, 70.0, 55.0)
    ('good', 'warning', 'critical')
    """
    if value is None:
        return "unknown"
    if round(value - target, 9) >= 0:
        return "good"
    return "warning" if round(value - critical, 9) >= 0 else "critical"


def describe(metric: str, value: float, limit: float) -> str:
    """A breach in words; with as many decimals as it takes to be seen below the limit.

    >>> describe("win_rate_pct", 23.0769, 55.0), describe("sharpe_ratio", 2.0999, 2.1)
    ('win rate 23.1 % is below 55 %', 'Sharpe ratio 2.0999 is below 2.1')
    """
    name, unit, least = READ[metric]
    decimals = next(count for count in range(least, 12) if round(value, count) < limit)
    return f"{name} {value:.{decimals}f}{unit} is below {limit:g}{unit}"


def worst_status(statuses: list[str]) -> str:
    """The worst of good, warning, critical; unknown only where nothing else is known."""
    order = ("unknown", "good", "warning", "critical")
    return max(statuses, key=order.index, default="unknown")


def confirmed_by(status: str, interval: Interval, target: float, critical: float) -> bool | None:
    """Whether the interval excludes the limit that was crossed; None without a breach, False without an interval."""
    if status not in ("warning", "critical"):
        return None
    return interval is not None and interval[1] < (critical if status == "critical" else target)
