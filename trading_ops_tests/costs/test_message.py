"""What are people told of a day's API costs, also where the bot does not tell its own?"""

import pytest

from trading_ops.costs.budget import Limits
from trading_ops.costs.message import report_alert

DAY = "2025-03-09"


def told(**changes):
    document = {
        "day_usd": 1.5, "month_usd": 12.25, "platform_month_projected_usd": 42.0, "requests": 7, "error": None,
        "tokens": {"input": 1_000}, "cost_by_model_usd": {"gpt-4o": 1.5}, "llm_allowed": True,
        "unsettled": 0, "unsettled_usd": 0.0, "refusals": {}, "overrides": [], "stop_lifts_at": None, **changes,
    }  # fmt: skip
    return report_alert({DAY: document}, [DAY], limits=Limits())


def test_the_report_says_day_and_month_beside_their_limits():
    alert = told()
    assert alert.what == "API costs on 2025-03-09: $1.50 on the day, $12.25 this month"
    assert alert.why.splitlines() == [
        "day: $1.50 of $5.00, warning above $2.00",
        "month: $12.25 of $100.00, warning above $50.00, heading for $42.00 by the platform's own calls",
    ]
    assert (alert.what_to_do, alert.incident, alert.severity) == ("Nothing.", None, "INFO")
    assert alert.picture["limits"] == {"warning above": 2.0, "critical above": 5.0}


def test_costs_that_the_bot_does_not_tell_are_unknown_and_not_zero():
    alert = told(error="connection refused")
    assert alert.what == "API costs on 2025-03-09: unknown"
    assert alert.why.startswith("the platform's own calls, day: $1.50 of $5.00")
    assert alert.why.endswith("the bot's costs are unknown: connection refused")


@pytest.mark.parametrize("allowed", [True, False])
def test_a_budget_that_is_spent_says_that_no_call_starts(allowed):
    assert ("no LLM call starts" in told(llm_allowed=allowed).what_to_do) is not allowed
