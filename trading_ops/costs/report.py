"""What was spent on LLM calls on a day and in its month, and where is the month heading?"""

from __future__ import annotations

import calendar
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

from trading_ops.bot.client import BotError
from trading_ops.bot.records import InvalidRecord, UsageStatistics
from trading_ops.costs.budget import Limits, judge_costs
from trading_ops.costs.usage import DayUsage


def cost_days(
    usage: Mapping[str, DayUsage], bot_usage: Mapping[str, Mapping[str, Any]], days: Sequence[str], limits: Limits
) -> dict[str, dict[str, Any]]:
    """One document a UTC day: requests, tokens by class, cost by model, to date, projected, and the budget's state.

    `usage`: the platform's ledger by day, from the first of the month of the first day. `bot_usage`: what the bot
    reported on a day, either its statistics or {"error": why}; the bot knows only its present, so most past days
    have none. The bot's own estimates for its day and month add to the platform's.
    """
    return {day: _day(day, usage, bot_usage.get(day), limits) for day in days}


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


def _day(day: str, usage: Mapping[str, DayUsage], bot: Mapping[str, Any] | None, limits: Limits) -> dict[str, Any]:
    today, first = date.fromisoformat(day), month_start(day)
    spent = usage.get(day, DayUsage())
    elapsed = [str(first + timedelta(days=i)) for i in range(today.day)]
    month_to_date = sum(usage[d].cost_usd for d in elapsed if d in usage)
    failed = bot if bot and "error" in bot else None
    statistics = None if failed else bot
    day_usd = spent.cost_usd + (statistics["daily_cost_usd"] if statistics else 0.0)
    month_usd = month_to_date + (statistics["monthly_cost_usd"] if statistics else 0.0)
    budget = judge_costs(day_usd, month_usd, limits)
    return {
        "day": day,
        "outcome": failed["outcome"] if failed else "measured",
        "error": failed["error"] if failed else None,
        "requests": spent.requests,
        "tokens": spent.tokens,
        "cost_by_model_usd": spent.cost_by_model,
        "platform_cost_usd": spent.cost_usd,
        "platform_month_to_date_usd": month_to_date,
        "platform_month_projected_usd": month_to_date / today.day * calendar.monthrange(today.year, today.month)[1],
        "bot": dict(statistics) if statistics else None,
        "day_usd": day_usd,
        "month_usd": month_usd,
        "status": "unknown" if failed and budget.status == "good" else budget.status,
        "llm_allowed": budget.llm_allowed,
        "alerts": [asdict(alert) for alert in budget.alerts],
    }
