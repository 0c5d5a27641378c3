"""Does spending warn above its limits, stop above the critical ones, and never pass for nothing?"""

from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.costs.budget import Limits, judge_costs
from trading_ops.notifications.alert import Severity

W, C = Severity.WARNING, Severity.CRITICAL


@pytest.mark.parametrize(
    ("day", "month", "alerts", "status"),
    [
        pytest.param(0.0, 0.0, [], "good", id="B033 nothing spent"),
        pytest.param(2.0, 50.0, [], "good", id="B034 exactly at the warning limits"),
        pytest.param(2.01, 0.0, [("day", W, 2.0)], "warning", id="B035 day"),
        pytest.param(0.0, 50.01, [("month", W, 50.0)], "warning", id="B035 month"),
        pytest.param(2.34, 70.2, [("day", W, 2.0), ("month", W, 50.0)], "warning", id="B032"),
        pytest.param(5.0, 100.0, [("day", W, 2.0), ("month", W, 50.0)], "warning", id="B036 exactly critical"),
        pytest.param(5.01, 0.0, [("day", C, 5.0)], "critical", id="B037"),
        pytest.param(0.0, 100.01, [("month", C, 100.0)], "critical", id="B038"),
        pytest.param(2.5, 100.01, [("day", W, 2.0), ("month", C, 100.0)], "critical", id="B038 with a warning"),
        pytest.param(60.0, 1_800.0, [("day", C, 5.0), ("month", C, 100.0)], "critical", id="B039"),
        pytest.param(sum([0.1] * 20), sum([0.1] * 500), [], "good", id="B034 sums with binary dust"),
    ],
)
def test_spending_strictly_above_a_limit_alerts_and_above_the_critical_one_stops_calls(day, month, alerts, status):
    state = judge_costs(day, month)
    assert [(a.period, a.severity, a.limit_usd) for a in state.alerts] == alerts
    assert (state.status, state.llm_allowed) == (status, status != "critical")
    assert [a.spent_usd for a in state.alerts] == [{"day": day, "month": month}[a.period] for a in state.alerts]


@pytest.mark.parametrize("amount", [nan, inf, -inf, -0.01])
def test_B040_B041_no_amount_is_an_error_by_name_and_never_no_alert(amount: float):
    with pytest.raises(ValueError, match="day_usd is"):
        judge_costs(amount, 1.0)
    with pytest.raises(ValueError, match="month_usd is"):
        judge_costs(1.0, amount)


def test_an_alert_says_how_much_of_what():
    (alert,) = judge_costs(5.014, 0.0).alerts
    assert (alert.severity, alert.period, alert.spent_usd, alert.limit_usd) == ("CRITICAL", "day", 5.014, 5.0)


def test_the_limits_can_be_set():
    own = Limits(day_warning_usd=0.0, day_critical_usd=0.1, month_warning_usd=0.0, month_critical_usd=0.0)
    assert judge_costs(0.0, 0.0, own).status == "good"
    assert [a.severity for a in judge_costs(0.05, 0.05, own).alerts] == [W, C]


money = st.integers(0, 20_000).map(lambda cents: cents / 100)


@given(day=money, month=money, more=money)
def test_spending_more_never_allows_more(day: float, month: float, more: float):
    order = ("good", "warning", "critical")
    before, after = judge_costs(day, month), judge_costs(day + more, month + more)
    assert order.index(after.status) >= order.index(before.status)
    assert before.llm_allowed >= after.llm_allowed
    assert before.llm_allowed == (day <= 5.0 and month <= 100.0)
