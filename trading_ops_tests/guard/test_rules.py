"""Does the guard stop exactly what its rules say, and admit when it cannot see?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta, timezone
from math import inf, nan

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.audit.chain import canonical_json
from trading_ops.guard.positions import losing_streaks, positions
from trading_ops.guard.rules import GUARD_BLIND, Limits, describe, judge, judge_days
from trading_ops.portfolio.equity import PORTFOLIO, DailyEquity

START = pd.Timestamp("2025-03-10T00:00", tz="UTC")
NEAR_LOSS, NEAR_STREAK, LOW_RATE = "daily_loss_near_limit", "consecutive_losses_near_limit", "recent_win_rate_low"


def log(
    profits: Sequence[float],
    *,
    at: Sequence[str] | None = None,
    positions: Sequence[str | None] | None = None,
    ids: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Closed trades of one strategy, one a minute from 2025-03-10 00:00 UTC on unless told otherwise."""
    closed_at = START + pd.to_timedelta(range(len(profits)), "min")
    if at is not None:
        closed_at = pd.to_datetime(list(at), utc=True, format="ISO8601")
    return pd.DataFrame({
        "trade_id": ids or [f"t{i:04}" for i in range(len(profits))],
        "position_id": pd.Series(positions or [None] * len(profits), dtype=object),
        "closed_at": pd.DatetimeIndex(closed_at).as_unit("us"),
        "pnl_usdt": np.array(profits, float),
    })  # fmt: skip


@pytest.mark.parametrize(
    ("loss", "breach", "warnings"),
    [
        (0.0, None, ()),
        (799.99, None, ()),
        pytest.param(800.0, None, (NEAR_LOSS,), id="exactly 80 % of the limit warns"),
        pytest.param(1_000.0, None, (NEAR_LOSS,), id="B093 exactly 10 % warns only"),
        pytest.param(1_000.0 + 1e-8, None, (NEAR_LOSS,), id="B093 rounding dust above 10 % is 10 %"),
        pytest.param(1_000.01, "daily_loss", (NEAR_LOSS,), id="a cent more stops"),
        pytest.param(1_001.0, "daily_loss", (NEAR_LOSS,), id="B093 10.01 % stops"),
        pytest.param(25_000.0, "daily_loss", (NEAR_LOSS,), id="more than everything"),
    ],
)
def test_a_loss_strictly_above_ten_percent_of_the_equity_at_midnight_stops(loss, breach, warnings):
    risk = judge(log([-loss]), 10_000.0)
    assert risk.daily_loss_pct == pytest.approx(loss / 100)
    assert (risk.breach, risk.warnings, risk.basis) == (breach, warnings, "mark_to_market")
    assert risk.equity_at_midnight_usdt == 10_000.0
    assert risk.distance["daily_loss_pct"] == pytest.approx(10 - loss / 100)


@pytest.mark.parametrize(
    ("losses", "breach", "warnings"),
    [
        (7, None, ()),
        pytest.param(8, None, (NEAR_STREAK,), id="80 % of the limit warns"),
        pytest.param(10, None, (NEAR_STREAK,), id="B094 ten warn only"),
        pytest.param(11, "consecutive_losses", (NEAR_STREAK,), id="B094 eleven stop"),
        pytest.param(19, "consecutive_losses", (NEAR_STREAK,), id="nineteen"),
    ],
)
def test_strictly_more_than_ten_consecutive_losses_stop(losses: int, breach: str | None, warnings: tuple[str, ...]):
    risk = judge(log([50.0, *[-1.0] * losses]), 10_000.0)
    assert (risk.consecutive_losses, risk.breach) == (losses, breach)
    assert tuple(w for w in risk.warnings if w != LOW_RATE) == warnings
    assert risk.distance["consecutive_losses"] == 10 - losses


def test_both_limits_crossed_name_the_money_first():
    risk = judge(log([-100.0] * 11), 10_000.0)
    assert (risk.daily_loss_pct, risk.consecutive_losses, risk.breach) == (11.0, 11, "daily_loss")


@pytest.mark.parametrize(
    ("wins", "total", "rate", "warned"),
    [
        pytest.param(6, 20, 30.0, False, id="B095 30 % is not below 30 %"),
        pytest.param(5, 20, 25.0, True, id="B095 25 % warns"),
        pytest.param(0, 19, None, False, id="B095 nineteen trades: the rule does not apply"),
        pytest.param(20, 20, 100.0, False, id="all won"),
    ],
)
def test_a_low_win_rate_over_the_last_twenty_only_warns(wins: int, total: int, rate: float | None, warned: bool):
    profits = np.full(total, -1.0)
    profits[:: total // wins if wins else total + 1][:wins] = 1.0  # spread out, so that no streak grows
    if not wins:
        profits[::5] = 0.0
    risk = judge(log(profits), 10_000.0, Limits(consecutive_losses=100))
    assert risk.recent_win_rate_pct == rate
    assert (risk.breach, LOW_RATE in risk.warnings) == (None, warned)


def test_only_the_last_twenty_trades_make_the_recent_win_rate_and_a_zero_is_no_win():
    assert judge(log([9.0] * 30 + [1.0, -1.0] * 10), 10_000.0).recent_win_rate_pct == 50.0
    assert judge(log([0.0] * 15 + [1.0] * 5), 10_000.0).recent_win_rate_pct == 25.0


@pytest.mark.parametrize(
    ("profits", "streak"),
    [
        pytest.param([-1, 0, -1], 2, id="B096 a zero inside neither breaks nor extends"),
        pytest.param([-1, -1, 0], 2, id="B096 nor at the end"),
        pytest.param([0, 0, 0], 0, id="zeros are no losses"),
        pytest.param([*[-1] * 10, 0], 10, id="B096 ten losses and a zero are not eleven"),
        pytest.param([*[-1] * 10, 0, -1], 11, id="B096 but the eleventh loss counts"),
        pytest.param([-1, -1, 1], 0, id="a win ends it"),
        pytest.param([-1, 1, -1, -1], 2, id="since the last win"),
        pytest.param([], 0, id="no trade"),
    ],
)
def test_the_losing_streak(profits: list[float], streak: int):
    risk = judge(log(profits), 1e9, day="2025-03-10")
    assert risk.consecutive_losses == streak
    assert (risk.breach == "consecutive_losses") == (streak > 10)


@given(st.lists(st.sampled_from([-5.0, -0.01, 0.0, 0.01, 7.0]), max_size=80))
def test_the_streak_is_a_plain_loops(profits: list[float]):
    expected, streak = [], 0
    for profit in profits:
        streak = 0 if profit > 0 else streak + (profit < 0)
        expected.append(streak)
    assert losing_streaks(np.array(profits, float)).tolist() == expected


@pytest.mark.parametrize("equity", [None, 0.0, -1.0, nan, inf, -inf])
def test_without_an_equity_the_guard_is_blind_and_says_so(equity: float | None):
    risk = judge(log([-9_999.0]), equity)
    assert (risk.daily_loss_pct, risk.equity_at_midnight_usdt, risk.breach) == (None, None, None)
    assert risk.distance["daily_loss_pct"] is None
    assert GUARD_BLIND in risk.warnings
    canonical_json(asdict(risk))


def test_a_blind_guard_still_counts_losses():
    assert judge(log([-1.0] * 11), None).breach == "consecutive_losses"


def test_open_positions_count_from_midnight_to_now():
    # -400 closed, and the open ones went from +200 to -500: 1,100 of 10,000
    risk = judge(log([-400.0]), 10_000.0, unrealised_now=-500.0, unrealised_at_midnight=200.0)
    assert risk.daily_loss_pct == pytest.approx(11.0)
    assert (risk.breach, risk.basis) == ("daily_loss", "mark_to_market")
    recovered = judge(log([-1_500.0]), 10_000.0, unrealised_now=0.0, unrealised_at_midnight=-600.0)
    assert recovered.daily_loss_pct == pytest.approx(9.0)


def test_a_loss_of_marks_alone_stops():
    assert judge(log([]), 10_000.0, day="2025-03-10", unrealised_now=-1_000.5).breach == "daily_loss"


@pytest.mark.parametrize(("now", "midnight"), [(None, None), (None, -5_000.0), (-5_000.0, None)])
def test_without_both_unrealised_figures_only_closed_trades_count_and_it_is_said(now, midnight):
    risk = judge(log([-900.0]), 10_000.0, unrealised_now=now, unrealised_at_midnight=midnight)
    assert (risk.daily_loss_pct, risk.basis) == (pytest.approx(9.0), "closed_only")


def test_a_profit_is_a_loss_of_zero():
    assert judge(log([500.0, -100.0]), 10_000.0).daily_loss_pct == 0.0


def test_B135_the_day_is_a_half_open_utc_day():
    trades = log([-1.0, -2.0, -4.0, -8.0], at=["2025-03-09T23:59:59.999Z", "2025-03-10T00:00:00Z",
                 "2025-03-10T23:59:59.999Z", "2025-03-11T00:00:00Z"])  # fmt: skip
    for day in ("2025-03-10", date(2025, 3, 10)):
        risk = judge(trades, 100.0, day=day)
        assert risk.daily_loss_pct == pytest.approx(6.0)
        assert risk.consecutive_losses == 3  # losses of days before count, those of days after do not
    assert judge(trades, 100.0, day="2025-03-12").daily_loss_pct == 0.0


def test_B134_without_a_day_it_is_the_utc_day_of_the_last_trade():
    trades = log([-3.0, -5.0], at=["2025-03-10T12:00:00Z", "2025-03-10T23:30:00-05:00"])
    assert judge(trades, 100.0).daily_loss_pct == pytest.approx(5.0)


def test_no_trade_at_all_is_no_risk():
    risk = judge(log([]), 10_000.0)
    assert (risk.daily_loss_pct, risk.consecutive_losses, risk.recent_win_rate_pct) == (0.0, 0, None)
    assert (risk.breach, risk.warnings) == (None, ())


def test_trades_are_ordered_by_time_and_then_by_id_whatever_order_they_come_in():
    same = ["2025-03-10T12:00:00Z"] * 2
    assert judge(log([1.0, -1.0], at=same, ids=["a", "b"]), 100.0).consecutive_losses == 1
    assert judge(log([1.0, -1.0], at=same, ids=["b", "a"]), 100.0).consecutive_losses == 0
    backwards = log([5.0, *[-1.0] * 11])[::-1]
    assert judge(backwards, 10_000.0).breach == "consecutive_losses"


def test_the_partial_exits_of_a_position_count_once():
    twelve_exits = log([-1.0] * 12, positions=["p"] * 12)
    assert judge(twelve_exits, 10_000.0).consecutive_losses == 1
    # p lost 5 and won 8: a win
    risk = judge(log([-1.0, -5.0, -1.0, 8.0], positions=[None, "p", None, "p"]), 10_000.0)
    assert risk.consecutive_losses == 0
    assert risk.daily_loss_pct == 0.0


def test_a_position_counts_at_its_last_exit():
    closed_at, profits = positions(log([-5.0, 1.0, -2.0], positions=["p", None, "p"]))
    assert profits.tolist() == [1.0, -7.0]
    assert closed_at[-1] == np.datetime64("2025-03-10T00:02")


def test_a_position_that_bears_the_id_of_a_trade_does_not_meet_it():
    _, profits = positions(log([-5.0, -6.0], positions=[None, "t0000"]))
    assert profits.tolist() == [-5.0, -6.0]


def test_a_bot_that_knows_no_positions_is_guarded_by_its_trades():
    assert judge(log([-1_001.0]).drop(columns="position_id"), 10_000.0).breach == "daily_loss"


def test_trades_before_the_resume_no_longer_count():
    trades = log([*[-1.0] * 11, -1.0, -1.0])
    resumed = (START + timedelta(minutes=11)).to_pydatetime()
    assert judge(trades, 10_000.0).breach == "consecutive_losses"
    risk = judge(trades, 10_000.0, since=resumed)
    assert (risk.consecutive_losses, risk.daily_loss_pct, risk.breach) == (2, pytest.approx(0.02), None)
    assert judge(trades, 10_000.0, since=resumed + timedelta(seconds=1)).consecutive_losses == 1
    assert judge(trades, 10_000.0, since=resumed + timedelta(days=1)).consecutive_losses == 0


def test_the_recent_win_rate_starts_again_at_the_resume():
    resumed = (START + timedelta(minutes=5)).to_pydatetime()
    assert judge(log([-1.0, 1.0] * 12), 10_000.0, since=resumed).recent_win_rate_pct is None


def test_a_resume_with_an_offset_is_the_same_instant():
    trades = log([-1_001.0], at=["2025-03-10T05:00:00Z"])
    resumed = datetime(2025, 3, 10, 9, tzinfo=timezone(timedelta(hours=5)))
    assert judge(trades, 10_000.0, since=resumed) == judge(trades, 10_000.0, since=resumed.astimezone(UTC))


@pytest.mark.parametrize(("now", "midnight"), [(nan, 0.0), (0.0, nan)])
def test_an_unrealised_figure_that_is_no_number_does_not_hide_a_loss(now: float, midnight: float):
    risk = judge(log([-5_000.0]), 10_000.0, unrealised_now=now, unrealised_at_midnight=midnight)
    assert risk.breach == "daily_loss" or GUARD_BLIND in risk.warnings


def test_a_profit_that_is_no_number_is_not_taken_for_zero():
    try:
        risk = judge(log([nan]), 10_000.0)
    except ValueError:
        return
    assert GUARD_BLIND in risk.warnings


def test_money_lost_by_a_partial_exit_is_lost_on_its_own_day():
    """600 on each of two days are 6 % a day; nothing was lost twice and nothing later."""
    trades = log([-600.0, -600.0], at=["2025-03-10T05:00Z", "2025-03-11T05:00Z"], positions=["p", "p"])
    losses = [judge(trades, 10_000.0, day=day).daily_loss_pct for day in ("2025-03-10", "2025-03-11")]
    assert losses == pytest.approx([6.0, 6.0])


def test_every_limit_can_be_set():
    own = Limits(daily_loss_pct=2.0, consecutive_losses=3, recent_win_rate_pct=60.0)
    assert judge(log([-2.0]), 100.0, own).breach is None
    assert judge(log([-2.1]), 100.0, own).breach == "daily_loss"
    assert judge(log([-1.0] * 4), 1e6, own).breach == "consecutive_losses"
    assert judge(log([1.0, -1.0] * 10), 1e6, own).warnings == (LOW_RATE,)
    assert all(
        (NEAR_STREAK in judge(log([-1.0] * n), 1e9, Limits(consecutive_losses=limit)).warnings) == (10 * n >= 8 * limit)
        for limit in (5, 15, 35)
        for n in (limit * 8 // 10 - 1, limit * 8 // 10, limit * 8 // 10 + 1)
    )


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("daily_loss", "lost 12.00 % today, the limit is 10 %"),
        (NEAR_LOSS, "lost 12.00 % today, the limit is 10 %"),
        ("consecutive_losses", "20 losses in a row, the limit is 10"),
        (NEAR_STREAK, "20 losses in a row, the limit is 10"),
        (LOW_RATE, "won 0 % of its last 20 trades, 30 % is low"),
    ],
)
def test_a_rule_is_told_with_its_figure_and_its_limit(rule: str, text: str):
    risk = asdict(judge(log([-60.0] * 20), 10_000.0))
    assert rule in (risk["breach"], "consecutive_losses", *risk["warnings"])
    assert describe(rule, risk, asdict(Limits())) == text


def test_a_blind_guard_is_told_without_a_figure():
    assert "unknown" in describe(GUARD_BLIND, asdict(judge(log([]), None)), asdict(Limits()))


# whole days at once


def equity(**strategies: Sequence[float]) -> DailyEquity:
    """Equity at the end of 2025-03-09 and the days after; nothing unrealised."""
    index = pd.date_range("2025-03-09", periods=len(next(iter(strategies.values()))), tz="UTC")
    frame = pd.DataFrame(strategies, index, dtype=float)
    frame[PORTFOLIO] = frame.sum(axis=1, skipna=False)
    nothing = frame.where(frame < -inf, 0.0)
    return DailyEquity(frame, nothing, nothing)


def day_of(trades: pd.DataFrame, daily: DailyEquity, day: str = "2025-03-10") -> dict:
    return judge_days(trades, daily, [day], Limits(), label="simulated")[day]


@pytest.mark.parametrize(
    ("profits", "status"),
    [([-1.0], "good"), ([-800.0], "warning"), ([-1_001.0], "critical"), ([], "good")],
)
def test_a_days_status_is_its_worst_strategys(profits: list[float], status: str):
    document = day_of(log(profits).assign(strategy="rsi"), equity(rsi=[10_000, 10_000], macd=[10_000, 10_000]))
    assert document["status"] == status
    assert list(document["strategies"]) == ["rsi", "macd"]
    assert document["strategies"]["macd"]["daily_loss_pct"] == 0.0
    assert document["limits"] == {"daily_loss_pct": 10.0, "consecutive_losses": 10, "recent_win_rate_pct": 30.0}
    canonical_json(document)


def test_a_day_with_unknown_equity_at_its_start_is_blind_and_critical():
    for daily in (equity(rsi=[nan, 10_000]), equity(rsi=[0, 10_000])):
        document = day_of(log([-1.0]).assign(strategy="rsi"), daily)
        assert document["strategies"]["rsi"]["warnings"] == (GUARD_BLIND,)
        assert document["status"] == "critical"


def test_a_day_without_marks_is_judged_by_closed_trades():
    daily = equity(rsi=[10_000, 10_000])
    unmarked = DailyEquity(daily.equity, daily.unrealised * nan, daily.flows)
    assert day_of(log([-1.0]).assign(strategy="rsi"), unmarked)["strategies"]["rsi"]["basis"] == "closed_only"


def test_a_strategy_without_any_equity_is_blind_and_not_forgotten():
    trades = log([-9_000.0]).assign(strategy="grid")
    document = day_of(trades, equity(rsi=[10_000, 10_000]))
    assert document["status"] == "critical"
    assert GUARD_BLIND in document["strategies"]["grid"]["warnings"]


def test_a_bot_without_any_equity_is_never_good():
    trades = log([-9_000.0]).assign(strategy="rsi")
    assert day_of(trades, equity(rsi=[10_000, 10_000]))["status"] == "critical"
    nothing = equity(rsi=[10_000, 10_000]).equity[[PORTFOLIO]] * nan
    assert day_of(trades, DailyEquity(nothing, nothing, nothing))["status"] == "critical"


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 120))
def test_many_days_at_once_are_each_day_judged_alone(seed: int, count: int):
    random = np.random.default_rng(seed)
    days = pd.date_range("2025-03-09", periods=6, tz="UTC")
    trades = pd.DataFrame({
        "trade_id": [f"t{i:04}" for i in random.permutation(count)],
        "strategy": random.choice(["rsi", "macd"], count),
        "position_id": [f"p{i}" if i % 3 else None for i in random.integers(0, 60, count)],
        "closed_at": (days[1] + pd.to_timedelta(random.integers(-200, 5 * 1440, count), "min")).as_unit("us"),
        "pnl_usdt": np.round(random.choice([-300.0, -50.0, 0.0, 40.0], count), 2),
    }).sort_values(["closed_at", "trade_id"])  # fmt: skip
    frames = []
    for scale in (10_000, 200):
        frame = pd.DataFrame(random.normal(scale, 100, (6, 2)), days, ["rsi", "macd"])
        frames.append(frame.mask(random.random(frame.shape) < 0.1).assign(portfolio=0.0))
    daily = DailyEquity(frames[0], frames[1], frames[0] * 0)
    names = [str(day.date()) for day in days[1:]]
    documents = judge_days(trades, daily, names, Limits(), label="simulated")
    for before, day, name in zip(days, days[1:], names, strict=False):
        for strategy in ("rsi", "macd"):
            own = trades[trades["strategy"] == strategy]
            figures = [daily.equity.at[before, strategy], daily.unrealised.at[day, strategy],
                       daily.unrealised.at[before, strategy]]  # fmt: skip
            equity_then, now, midnight = (None if np.isnan(f) else float(f) for f in figures)
            until = own[own["closed_at"] < day + pd.Timedelta(days=1)]  # on that day nothing later was known
            risk = judge(until, equity_then, day=name, unrealised_now=now, unrealised_at_midnight=midnight)
            assert documents[name]["strategies"][strategy] == asdict(risk)
