"""Is the spend within its limits, and may another LLM call start?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from trading_ops.notifications.alert import Severity


@dataclass(frozen=True, slots=True)
class Limits:
    """USD a UTC day and a UTC calendar month; exactly at a limit is within it."""

    day_warning_usd: float = 2.0
    day_critical_usd: float = 5.0
    month_warning_usd: float = 50.0
    month_critical_usd: float = 100.0


@dataclass(frozen=True, slots=True)
class CostAlert:
    period: str
    severity: Severity
    spent_usd: float
    limit_usd: float


@dataclass(frozen=True, slots=True)
class BudgetState:
    """`status`: good, warning or critical. Critical stops further LLM calls until the period ends or an override.

    `stopped`: the periods (day, month) that stop them, without those of which an operator allowed more.
    """

    status: str
    llm_allowed: bool
    alerts: tuple[CostAlert, ...]
    stopped: tuple[str, ...] = ()


def judge_costs(
    day_usd: float, month_usd: float, limits: Limits = Limits(), allowed_up_to: Mapping[str, float] | None = None
) -> BudgetState:
    """Compare the UTC day's and month's spend with the limits, strictly above; raises ValueError for no amount.

    `allowed_up_to`: USD that an operator allowed for the `day` or the `month`: they lift the stop, not the alert.
    """
    for name, amount in (("day_usd", day_usd), ("month_usd", month_usd)):
        if not math.isfinite(amount) or amount < 0:
            raise ValueError(f"{name} is {amount}; a finite amount of at least 0 is needed")
    found = (
        _judge_period("day", day_usd, limits.day_warning_usd, limits.day_critical_usd),
        _judge_period("month", month_usd, limits.month_warning_usd, limits.month_critical_usd),
    )
    alerts = tuple(alert for alert in found if alert)
    critical = [alert for alert in alerts if alert.severity is Severity.CRITICAL]
    more = allowed_up_to or {}
    stopped = tuple(a.period for a in critical if round(a.spent_usd, 9) > more.get(a.period, a.limit_usd))
    return BudgetState("critical" if critical else "warning" if alerts else "good", not stopped, alerts, stopped)


def _judge_period(period: str, spent: float, warning: float, critical: float) -> CostAlert | None:
    exact = round(spent, 9)  # sums of prices carry binary dust
    if exact > critical:
        return CostAlert(period, Severity.CRITICAL, spent, critical)
    return CostAlert(period, Severity.WARNING, spent, warning) if exact > warning else None
