"""Does a day's cost document add both sources up, and say when one is missing?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from math import inf, nan
from typing import Any

import pytest

from trading_ops.audit.chain import canonical_json
from trading_ops.bot.client import BotUnreachable
from trading_ops.bot.records import InvalidRecord, UsageStatistics
from trading_ops.costs.budget import Limits
from trading_ops.costs.report import cost_days, month_start, read_bot
from trading_ops.costs.usage import DayUsage, usage_by_day

STATISTICS = {"total_requests": 0, "total_cost_usd": 0.0, "daily_cost_usd": 0.0, "monthly_cost_usd": 0.0}


def usage(**cost_by_day: float) -> dict[str, DayUsage]:
    """One call a day, written d0301=0.5 for 0.5 USD on 2025-03-01."""
    return usage_by_day(
        (f"2025-{day[1:3]}-{day[3:]}", {"model": "gpt-4o", "cost_usd": cost, "tokens": {"input": 100}})
        for day, cost in cost_by_day.items()
    )


def day_of(platform: dict[str, DayUsage], bot: Any, day: str = "2025-03-10") -> dict[str, Any]:
    return cost_days(platform, {day: bot} if bot else {}, [day], Limits())[day]


def asked(payload: Any) -> Callable[[], UsageStatistics]:
    return lambda: UsageStatistics.parse(payload)


def told(document: dict[str, Any]) -> list[tuple[str, str, float]]:
    return [(a["period"], a["severity"], a["spent_usd"]) for a in document["alerts"]]


def test_B032_the_bots_figures_above_the_limits_give_two_warnings():
    statistics = {"total_requests": 234, "total_cost_usd": 1.87, "daily_cost_usd": 2.34, "monthly_cost_usd": 70.2}
    document = day_of({}, read_bot(asked(statistics)))
    assert told(document) == [("day", "WARNING", 2.34), ("month", "WARNING", 70.2)]
    assert (document["bot"]["total_requests"], document["bot"]["total_cost_usd"]) == (234, 1.87)
    assert (document["status"], document["llm_allowed"], document["outcome"]) == ("warning", True, "measured")
    canonical_json(document)


def test_B033_nothing_spent_is_measured_and_good():
    document = day_of({}, read_bot(asked(STATISTICS)))
    assert (document["alerts"], document["platform_cost_usd"], document["requests"]) == ([], 0, 0)
    assert (document["bot"]["total_cost_usd"], document["bot"]["total_requests"]) == (0, 0)
    assert (document["outcome"], document["status"], document["error"]) == ("measured", "good", None)


@pytest.mark.parametrize(
    ("daily", "monthly", "alerts", "allowed"),
    [
        pytest.param(2.0, 50.0, [], True, id="B034"),
        pytest.param(2.01, 50.01, [("day", "WARNING", 2.01), ("month", "WARNING", 50.01)], True, id="B035"),
        pytest.param(5.0, 100.0, [("day", "WARNING", 5.0), ("month", "WARNING", 100.0)], True, id="B036"),
        pytest.param(5.01, 20.0, [("day", "CRITICAL", 5.01)], False, id="B037"),
        pytest.param(0.0, 100.01, [("month", "CRITICAL", 100.01)], False, id="B038"),
        pytest.param(60.0, 1_800.0, [("day", "CRITICAL", 60.0), ("month", "CRITICAL", 1_800.0)], False, id="B039"),
    ],
)
def test_the_bots_estimates_are_judged(daily: float, monthly: float, alerts: list, allowed: bool):
    reported = STATISTICS | {"daily_cost_usd": daily, "monthly_cost_usd": monthly}
    document = day_of({}, read_bot(asked(reported)))
    assert (told(document), document["llm_allowed"]) == (alerts, allowed)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("daily_cost_usd", nan, id="B040 NaN"),
        pytest.param("daily_cost_usd", inf, id="B041 infinite"),
        pytest.param("daily_cost_usd", None, id="B043 null"),
        pytest.param("daily_cost_usd", "3", id="B043 a text"),
        pytest.param("monthly_cost_usd", -1.0, id="negative"),
        pytest.param("total_requests", True, id="a truth is no count"),
        pytest.param("total_requests", -1, id="a negative count"),
        pytest.param("total_requests", 2.5, id="half a request"),
    ],
)
def test_figures_that_cannot_be_are_bad_data_naming_the_field_and_never_no_alert(field: str, value: Any):
    answer = read_bot(asked(STATISTICS | {field: value}))
    assert answer["outcome"] == "bad_data"
    assert field in answer["error"]
    document = day_of(usage(d0310=0.5), answer)
    assert (document["outcome"], document["bot"]) == ("bad_data", None)
    assert field in document["error"]
    assert document["day_usd"] == 0.5  # the platform's own calls are still known and judged
    canonical_json(document)


def test_a_bot_out_of_reach_is_another_outcome_and_the_own_calls_still_count():
    def refuse() -> UsageStatistics:
        raise BotUnreachable("connection refused")

    document = day_of(usage(d0310=5.01), read_bot(refuse))
    assert (document["outcome"], document["error"]) == ("bot_unreachable", "connection refused")
    assert told(document) == [("day", "CRITICAL", 5.01)]
    assert not document["llm_allowed"]


def test_an_error_that_is_not_the_bots_is_not_swallowed():
    def broken() -> UsageStatistics:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read_bot(broken)


def test_a_spend_that_is_half_unknown_is_not_good():
    assert day_of({}, {"outcome": "bad_data", "error": "daily_cost_usd: nan"})["status"] != "good"


def test_the_platforms_and_the_bots_spend_add_up_before_they_are_judged():
    document = day_of(usage(d0310=1.5), STATISTICS | {"daily_cost_usd": 1.0, "monthly_cost_usd": 49.0})
    assert (document["day_usd"], document["month_usd"]) == (2.5, 50.5)
    assert told(document) == [("day", "WARNING", 2.5), ("month", "WARNING", 50.5)]
    assert (document["platform_cost_usd"], document["platform_month_to_date_usd"]) == (1.5, 1.5)


def test_the_month_to_date_begins_on_the_first_and_ends_with_the_day():
    spent = usage(d0228=90.0, d0301=1.0, d0310=2.0, d0311=40.0)
    document = day_of(spent, None)
    assert (document["platform_cost_usd"], document["platform_month_to_date_usd"]) == (2.0, 3.0)
    assert document["platform_month_projected_usd"] == pytest.approx(3.0 / 10 * 31)
    assert document["month_usd"] == 3.0


@pytest.mark.parametrize(
    ("day", "spent", "projected"),
    [
        pytest.param("2025-03-01", usage(d0301=1.0), 31.0, id="the first day of a month"),
        pytest.param("2025-03-31", usage(d0301=1.0), 1.0, id="the last"),
        pytest.param("2025-02-14", usage(d0201=1.0), 2.0, id="February"),
    ],
)
def test_the_projection_is_the_months_pace_to_its_end(day: str, spent: dict[str, DayUsage], projected: float):
    assert day_of(spent, None, day)["platform_month_projected_usd"] == pytest.approx(projected)


def test_B038_the_month_starts_again_with_the_next_calendar_month():
    spent = usage(d0330=60.0, d0331=45.0)
    documents = cost_days(spent, {}, ["2025-03-30", "2025-03-31", "2025-04-01"], Limits())
    assert [d["llm_allowed"] for d in documents.values()] == [False, False, True]
    assert [d["month_usd"] for d in documents.values()] == [60.0, 105.0, 0.0]


def test_B037_the_day_starts_again_with_the_next_day():
    documents = cost_days(usage(d0310=5.01, d0311=1.0), {}, ["2025-03-10", "2025-03-11"], Limits())
    assert [d["status"] for d in documents.values()] == ["critical", "good"]


def test_a_past_day_of_which_the_bot_knows_nothing_is_measured_without_it():
    document = day_of(usage(d0310=0.5), None)
    assert (document["outcome"], document["bot"], document["day_usd"]) == ("measured", None, 0.5)
    assert document["tokens"]["input"] == 100
    assert document["cost_by_model_usd"] == {"gpt-4o": 0.5}


def test_a_day_in_a_range_is_the_day_alone():
    spent = usage(d0301=1.0, d0302=3.0, d0303=0.1)
    days = ["2025-03-01", "2025-03-02", "2025-03-03"]
    together = cost_days(spent, {"2025-03-02": STATISTICS}, days, Limits())
    for day in days:
        alone = cost_days(spent, {"2025-03-02": STATISTICS}, [day], Limits())
        assert canonical_json(alone[day]) == canonical_json(together[day])


def test_the_first_of_the_month_is_of_the_utc_calendar():
    assert month_start("2025-03-31") == month_start("2025-03-01") == date(2025, 3, 1)


@pytest.mark.parametrize("payload", [{}, None, [], "down", {"success": True, "data": STATISTICS}])
def test_statistics_that_are_none_are_refused(payload: Any):
    with pytest.raises(InvalidRecord, match="UsageStatistics"):
        UsageStatistics.parse(payload)
