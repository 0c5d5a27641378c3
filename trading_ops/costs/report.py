"""What was spent on LLM calls on a day and in its month, and where is the month heading?"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta
from typing import Any

from trading_ops.bot.client import BotError
from trading_ops.bot.records import InvalidRecord, UsageStatistics
from trading_ops.costs.budget import Limits, judge_costs
from trading_ops.costs.overrides import Override, period_end
from trading_ops.costs.spending import Spending, usd
from trading_ops.costs.standing import Standing
from trading_ops.costs.usage import DayUsage


@dataclass(frozen=True, slots=True)
class BudgetView:
    """What the budget itself knows besides the ledger's rows: its sums and refusals, and an operator's words by day.

    `now`: by day, for the newest one, what `Ledger.reserve` would say at present.
    """

    spending: Spending = field(default_factory=Spending)
    overrides: Mapping[str, Mapping[str, Override]] = field(default_factory=dict)
    now: Mapping[str, Standing] = field(default_factory=dict)


def cost_days(
    usage: Mapping[str, DayUsage],
    bot_usage: Mapping[str, Mapping[str, Any]],
    days: Sequence[str],
    limits: Limits,
    view: BudgetView | None = None,
) -> dict[str, dict[str, Any]]:
    """One document a UTC day: requests, tokens by class, cost by model, to date, projected, and the budget's state.

    `usage`: the platform's ledger by day, from the first of the month of the first day; calls that are not settled
    count at their bound. `bot_usage`: what the bot reported on a day, either its statistics or {"error": why}; the bot
    knows only its present, so most past days have none. The bot's own estimates for its day and month add to the
    platform's. `llm_allowed` is what `Ledger.reserve` would say now for a day in `view.now`; for another, what the
    day's figures and the operator's words of then say.
    """
    seen = view or BudgetView()
    return {day: _day(day, usage, bot_usage.get(day), limits, seen) for day in days}


def read_bot(usage_statistics: Any) -> dict[str, Any]:
    """Ask the bot (a callable) for its statistics; a bot that fails or answers nonsense gives {"outcome", "error"}."""
    try:
        answer: UsageStatistics = usage_statistics()
    except InvalidRecord as error:
        return {"outcome": "bad_data", "error": str(error)}
    except BotError as error:
        return {"outcome": "bot_unreachable", "error": str(error)}
    return answer.model_dump(mode="json")


def month_start(day: str) -> date:
    """The first day of the UTC calendar month."""
    return date.fromisoformat(day).replace(day=1)


def projection(month_to_date_usd: float, day: date) -> float:
    """USD at the end of the month at its pace so far: to date / days elapsed, the day among them, * days of the month.

    >>> projection(1.0, date(2025, 2, 14))
    2.0
    """
    return month_to_date_usd / day.day * calendar.monthrange(day.year, day.month)[1]


def _day(
    day: str, usage: Mapping[str, DayUsage], bot: Mapping[str, Any] | None, limits: Limits, view: BudgetView
) -> dict[str, Any]:
    today, first = date.fromisoformat(day), month_start(day)
    spent = usage.get(day, DayUsage())
    elapsed = [str(first + timedelta(days=i)) for i in range(today.day)]
    month_to_date = sum(usage[d].cost_usd for d in elapsed if d in usage)
    failed = bot if bot and "error" in bot else None
    statistics = None if failed else bot
    day_usd = spent.cost_usd + (statistics["daily_cost_usd"] if statistics else 0.0)
    month_usd = month_to_date + (statistics["monthly_cost_usd"] if statistics else 0.0)
    words, now = view.overrides.get(day, {}), view.now.get(day)
    budget = judge_costs(day_usd, month_usd, limits, {period: word.up_to_usd for period, word in words.items()})
    ends = [period_end(period, today) for period in budget.stopped]
    lifts_at = now.lifts_at if now else max(ends).isoformat() if ends else None
    refused = view.spending.refused.get(day, {})
    counted = view.spending.days.get(day)
    return {
        "day": day,
        "outcome": failed["outcome"] if failed else "measured",
        "error": failed["error"] if failed else None,
        "requests": spent.requests,
        "unsettled": spent.unsettled,
        "unsettled_usd": spent.unsettled_usd,
        "beyond_bound": spent.beyond,
        "refusals": dict(refused),
        "tokens": spent.tokens,
        "cost_by_model_usd": spent.cost_by_model,
        "platform_cost_usd": spent.cost_usd,
        "platform_month_to_date_usd": month_to_date,
        "platform_month_projected_usd": projection(month_to_date, today),
        "budget_day_usd": None if counted is None else usd(counted),
        "bot": dict(statistics) if statistics else None,
        "day_usd": day_usd,
        "month_usd": month_usd,
        "status": "unknown" if failed and budget.status == "good" else budget.status,
        "llm_allowed": now.llm_allowed if now else budget.llm_allowed,
        "llm_refused_because": now.why if now else None,
        "stop_lifts_at": lifts_at,
        "left_day_usd": now.day.left_usd if now else None,
        "left_month_usd": now.month.left_usd if now else None,
        "overrides": [asdict(words[period]) for period in sorted(words)],
        "alerts": [asdict(alert) for alert in budget.alerts],
    }
