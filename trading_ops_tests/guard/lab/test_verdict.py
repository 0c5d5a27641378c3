"""Is a rule that hurts told from one that helps, from luck, and from too little to tell?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from trading_ops.guard.lab.replay import Halt, net_at_any_hour, replay
from trading_ops.guard.lab.rules import StrategyRule
from trading_ops.guard.lab.verdict import (
    AS_ANY_STOP,
    HELPS,
    HURTS,
    TOO_FEW,
    UNCLEAR,
    Tally,
    judge_net,
    tally,
    total_interval,
)
from trading_ops.guard.rules import Limits
from trading_ops_tests.guard.lab.books import at, hourly, hours

DAY = np.timedelta64(24, "h")
YEAR = 365 * 24


def halt(week: int, net: float, **changes: object) -> Halt:
    values = {
        "rule": "daily_loss", "strategies": ("rsi",), "at": at(week * 168 + 5), "resumed_at": at(week * 168 + 29),
        "figure": 11.0, "limit": 10.0, "equity_usdt": (1_000.0,), "earned_usdt": net, "without_usdt": 0.0,
        "within_at_day_end": False, "cut_off": False,
    }  # fmt: skip
    return Halt(**{**values, **changes})  # type: ignore[arg-type]


def tallied(nets: Sequence[float], share: float = 0.0) -> Tally:
    """A stop a week."""
    return tally([halt(week, net) for week, net in enumerate(nets)], hours(YEAR), {"rsi": share})


def test_what_was_avoided_forgone_and_false_is_counted_by_hand():
    found = tally(
        [halt(0, 5.0), halt(0, -2.0), halt(3, 0.0, within_at_day_end=True), halt(52, -4.0, resumed_at=at(YEAR + 50))],
        hours(YEAR),
        {"rsi": 0.001},
    )
    assert (found.halts, found.weeks, found.halted_hours) == (4, 2, 24 + 24 + 24 + 19)  # the last until the bars end
    assert (found.avoided_usdt, found.forgone_usdt, found.net_usdt) == (5.0, 6.0, -1.0)
    assert (found.false_alarms, found.idle, found.within_at_day_end) == (2, 1, 1)
    assert found.any_hour_usdt == pytest.approx(4.0)  # 0.1 % of 1,000, four times
    assert (found.interval_usdt, found.verdict) == (None, TOO_FEW)


def test_a_rule_without_a_stop_says_nothing():
    found = tallied([])
    assert (found.halts, found.net_usdt, found.verdict) == (0, 0.0, TOO_FEW)


@pytest.mark.parametrize(
    ("nets", "share", "verdict"),
    [
        pytest.param([-5.0] * 9, 0.0, TOO_FEW, id="nine weeks are too few"),
        pytest.param([-5.0] * 9 + [0.0] * 20, 0.0, TOO_FEW, id="a stop in which nothing would have been traded"),
        pytest.param([-5.0] * 10, 0.0, HURTS, id="ten weeks, all of them worse"),
        pytest.param([5.0] * 10, 0.0, HELPS, id="ten weeks, all of them better"),
        pytest.param([5.0, -5.0] * 10, 0.0, UNCLEAR, id="as often better as worse"),
        pytest.param([5.0] * 10, 0.005, AS_ANY_STOP, id="any stop of this strategy brings as much"),
        pytest.param([-1.0] * 30 + [90.0], 0.0, UNCLEAR, id="one great day outweighs all: luck alone could explain it"),
    ],
)
def test_a_verdict(nets: list[float], share: float, verdict: str):
    assert tallied(nets, share).verdict == verdict


def test_stops_of_one_week_are_one_event():
    """Twenty strategies that stop on the same ten days are no two hundred proofs."""
    rng = np.random.default_rng(3)
    weekly = rng.normal(0.0, 10.0, 12)
    together = tally([halt(w, net) for w, net in enumerate(weekly) for _ in range(20)], hours(YEAR), {"rsi": 0.0})
    single = tallied(weekly.tolist())
    assert together.interval_usdt == pytest.approx([20 * bound for bound in single.interval_usdt or ()])


def test_the_interval_covers_a_normal_sum_as_often_as_it_says():
    """52 weeks of N(1, 5): the sum's true mean is 52, its deviation sqrt(52) * 5 = 36."""
    rng = np.random.default_rng(5)
    intervals = np.array([total_interval(rng.normal(1.0, 5.0, 52)) for _ in range(200)])
    covered = ((intervals[:, 0] <= 52) & (intervals[:, 1] >= 52)).mean()
    assert 0.90 <= covered <= 0.985
    assert np.diff(intervals).mean() == pytest.approx(2 * 1.96 * 36, rel=0.05)


@pytest.mark.parametrize(("after", "verdict"), [(-5.0, HELPS), (5.0, HURTS)], ids=["losses go on", "they turn"])
def test_the_lab_finds_what_was_planted(after: float, verdict: str):
    """Every fifth day begins with a loss of 2 %, and what follows it for 20 hours is known."""
    earned = np.random.default_rng(7).normal(0.0, 3.0, YEAR)
    for start in range(0, YEAR, 120):
        earned[start] = -200.0
        earned[start + 1 : start + 21] += after
        earned[start + 60] += 200.0  # won back later, so that a stopped year is worth the same
    found = verdict_of(earned.tolist(), 1.0)
    assert (found.halts, found.verdict) == (73, verdict)
    assert found.net_usdt == pytest.approx(-73 * 20 * after, abs=4 * 3.0 * (73 * 24) ** 0.5)


def test_a_strategy_that_only_loses_is_helped_no_more_than_by_any_stop():
    rng = np.random.default_rng(11)
    found = verdict_of(rng.normal(-0.6, 6.0, YEAR).tolist(), 0.5)
    assert found.verdict == AS_ANY_STOP, found


def verdict_of(earned: list[float], daily_loss_pct: float) -> Tally:
    bars = hours(YEAR)
    book = hourly("rsi", earned, bars, initial=10_000.0)
    rule = StrategyRule(Limits(daily_loss_pct=daily_loss_pct, consecutive_losses=10**9))
    return tally(replay([book], bars, rule, DAY).halts, bars, {"rsi": net_at_any_hour(book, bars, DAY)})


def test_the_words_follow_from_the_interval_alone():
    assert judge_net((-1.0, 0.0), 0.0) == UNCLEAR  # an end at 0 excludes nothing
    assert judge_net((0.0, 1.0), 0.0) == UNCLEAR
