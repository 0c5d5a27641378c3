"""What do a day's costs say to those who are told, and to a call that wants to start?"""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.audit.store import Entry, open_store
from trading_ops.costs.budget import Limits, judge_costs
from trading_ops.costs.findings import cost_findings
from trading_ops.costs.ledger import CallRefused
from trading_ops.costs.overrides import Override, allow, in_force
from trading_ops.costs.report import BudgetView, cost_days
from trading_ops.costs.spending import Spending
from trading_ops.costs.usage import COLLECTION, read_usage, usage_by_day
from trading_ops_tests.costs.worlds import NOON, World

DAY = "2025-03-10"


def day_of(cost_usd: float, view: BudgetView | None = None, bot: Any = None) -> dict[str, Any]:
    usage = usage_by_day([(DAY, {"model": "gpt-4o", "cost_usd": cost_usd})])
    return cost_days(usage, {DAY: bot} if bot else {}, [DAY], Limits(), view)[DAY]


def word(period: str, up_to_usd: float) -> dict[str, dict[str, Override]]:
    return {DAY: {period: Override(period, up_to_usd, "release", "ann", NOON.isoformat(), "2025-03-11T00:00:00+00:00")}}


def test_B037_a_critical_day_says_when_the_stop_lifts():
    document = day_of(5.01)
    assert (document["llm_allowed"], document["stop_lifts_at"]) == (False, "2025-03-11T00:00:00+00:00")
    (found,) = cost_findings(document)
    assert (found.severity, found.about, found.text) == ("CRITICAL", "day", "$5.01 this day exceeds $5.00")
    assert found.detail == "no LLM call starts until 2025-03-11 00:00 UTC"


def test_a_call_that_cost_more_than_was_reserved_is_told(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/audit.db") as store:
        world = World(store)
        world.settle(world.reserve(0.01), 0.01)
        assert [found.about for found in cost_findings(found_on(world))] == []
        world.settle(world.reserve(0.01), 0.02)
        (found,) = cost_findings(found_on(world))
    assert (found.severity, found.text) == ("ERROR", "1 LLM call cost more than was reserved")


def found_on(world: World) -> dict[str, Any]:
    usage = read_usage(world.store, NOON.date(), NOON.date())
    return cost_days(usage, {}, [DAY], Limits(), BudgetView(spending=world.ledger.spending()))[DAY]


def test_B038_a_critical_month_stops_until_the_next():
    document = day_of(100.01)
    assert document["stop_lifts_at"] == "2025-04-01T00:00:00+00:00"
    assert [found.about for found in cost_findings(document)] == ["day", "month"]


def test_an_override_lifts_the_stop_and_not_the_alert():
    document = day_of(5.01, BudgetView(overrides=word("day", 6.0)))
    assert (document["status"], document["llm_allowed"], document["stop_lifts_at"]) == ("critical", True, None)
    (found,) = cost_findings(document)
    assert (found.severity, found.detail) == ("CRITICAL", "ann allowed up to $6.00 this day: release")
    assert document["overrides"][0]["up_to_usd"] == 6.0
    for up_to_usd, period in ((5.005, "day"), (200.0, "month")):
        assert not day_of(5.01, BudgetView(overrides=word(period, up_to_usd)))["llm_allowed"]


def test_exactly_what_was_allowed_is_within_it():
    assert judge_costs(6.0, 0.0, allowed_up_to={"day": 6.0}).llm_allowed
    assert judge_costs(6.0, 0.0, allowed_up_to={"day": 6.0}).status == "critical"
    assert judge_costs(6.000001, 0.0, allowed_up_to={"day": 6.0}).stopped == ("day",)


def test_calls_that_the_budget_refused_are_a_warning_and_those_of_the_hour_a_figure():
    view = BudgetView(Spending(refused={DAY: {"day": 2, "hour": 9, "price": 1}}))
    document = day_of(1.0, view)
    assert document["refusals"] == {"day": 2, "hour": 9, "price": 1}
    (found,) = cost_findings(document)
    assert (found.severity, found.text, found.about) == ("WARNING", "2 LLM calls were refused", "refused")
    assert found.detail == "2 by the day's budget; LLM calls may start"
    assert list(cost_findings(day_of(1.0, BudgetView(Spending(refused={DAY: {"hour": 9}}))))) == []


def test_sums_that_are_not_what_the_rows_say_are_an_error():
    (found,) = cost_findings(day_of(1.0, BudgetView(Spending({DAY: 900_000_000}))))
    assert (found.severity, found.about) == ("ERROR", "ledger")
    assert found.text == "the budget counts $0.900000, the ledger's rows $1.000000"
    assert list(cost_findings(day_of(0.1 + 0.2, BudgetView(Spending({DAY: 300_000_000}))))) == []


def test_a_call_that_is_open_counts_at_its_bound_and_is_shown_as_such():
    rows = [(DAY, {"model": "a", "cost_usd": 0.5, "outcome": "reserved"}), (DAY, {"model": "a", "cost_usd": 0.25})]
    document = cost_days(usage_by_day(rows), {}, [DAY], Limits())[DAY]
    assert (document["requests"], document["unsettled"], document["unsettled_usd"]) == (2, 1, 0.5)
    assert document["day_usd"] == 0.75


@pytest.mark.parametrize(
    ("own", "bots", "allowed_usd"),
    [(4.0, 0.0, None), (5.0, 0.0, None), (4.0, 1.01, None), (4.0, 1.01, 6.0), (0.5, 99.0, None), (0.5, 99.0, 99.4)],
)
def test_the_document_of_the_present_day_allows_what_the_ledger_would(tmp_path: Path, own, bots, allowed_usd):
    """A call that costs nothing tells whether the budget is closed; one beyond what is left is always refused."""
    with open_store(f"sqlite:///{tmp_path}/audit.db") as store:
        world = World(store)
        world.settle(world.reserve(own), own)
        statistics = {"total_requests": 1, "total_cost_usd": bots, "daily_cost_usd": bots, "monthly_cost_usd": bots}
        store.append("bot_usage", [Entry("2025-03-09", "", statistics)], recorded_at=NOON)
        if allowed_usd:
            allow(store, NOON, "day", allowed_usd, reason="release", by="ann", limits=Limits())
        standing = world.ledger.standing()
        view = BudgetView(world.ledger.spending(), {DAY: in_force(store, NOON.date())}, {DAY: standing})
        usage = read_usage(store, NOON.date(), NOON.date())
        document = cost_days(usage, {DAY: statistics}, [DAY], Limits(), view)[DAY]
        if document["llm_allowed"]:
            world.reserve(0.0, model="free")
        else:
            with pytest.raises(CallRefused) as refused:
                world.reserve(0.0, model="free")
            assert refused.value.lifts_at == datetime.fromisoformat(document["stop_lifts_at"])
        assert document["left_day_usd"] == pytest.approx(max((allowed_usd or 5.0) - own - bots, 0.0))
        with pytest.raises(CallRefused):
            world.reserve(document["left_day_usd"] + 0.000001)
        if document["left_day_usd"]:
            world.reserve(round(document["left_day_usd"], 6))


def test_what_others_do_to_the_rows_shows(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/audit.db") as store:
        world = World(store)
        call = world.reserve(0.5)
        store.append(COLLECTION, [Entry(DAY, "by hand", {"model": "a", "cost_usd": 1.0})])
        usage = read_usage(store, NOON.date() - timedelta(days=9), NOON.date())
        document = cost_days(usage, {}, [DAY], Limits(), BudgetView(world.ledger.spending()))[DAY]
        assert [found.about for found in cost_findings(document)] == ["ledger"]
        world.settle(call, 0.5)
