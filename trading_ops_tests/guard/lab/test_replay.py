"""Does a rule stop at the very bar at which the guard would, and is each stop compared with the hours without it?"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.guard.drawdown import PortfolioLimits
from trading_ops.guard.lab.paths import Bars, Book, Path
from trading_ops.guard.lab.replay import Replay, net_at_any_hour, replay
from trading_ops.guard.lab.rules import AccountRule, StrategyRule, judge_bar
from trading_ops.guard.ledger import Ledger
from trading_ops.guard.rules import Limits
from trading_ops_tests.guard.lab.books import START, at, hourly, hours

NEVER = 10**9
DAY = np.timedelta64(24, "h")


def replayed(earned: list[float], limits: Limits, resume_after_h: int = 24) -> Replay:
    bars = hours(len(earned))
    return replay([hourly("rsi", earned, bars)], bars, StrategyRule(limits), np.timedelta64(resume_after_h, "h"))


def test_the_eleventh_loss_in_a_row_stops_and_the_tenth_does_not():
    streak = Limits(daily_loss_pct=NEVER)
    assert replayed([-1.0] * 10 + [5.0] + [-1.0] * 10, streak).halts == ()
    (halt,) = replayed([-1.0] * 11 + [-2.0, -3.0, 4.0] + [0.0] * 20, streak).halts
    assert (halt.rule, halt.figure, halt.limit) == ("consecutive_losses", 11, 10)
    assert (halt.at, halt.resumed_at) == (at(11), at(35))  # the close of the 11th hour, and a day later
    # stopped it earned nothing; without the stop it would have lost 2 and 3 and won 4
    assert (halt.earned_usdt, halt.without_usdt, halt.net_usdt) == (0.0, -1.0, 1.0)
    assert halt.equity_usdt == (989.0,)


def test_a_zero_neither_breaks_nor_extends_the_streak():
    (halt,) = replayed([-1.0] * 5 + [0.0, 0.0] + [-1.0] * 6, Limits(daily_loss_pct=NEVER)).halts
    assert halt.at == at(13)


@pytest.mark.parametrize(("lost", "stops"), [(100.0, 0), (101.0, 1)], ids=["10 % is the limit", "10.1 % is beyond it"])
def test_a_daily_loss_beyond_the_limit_stops_and_one_at_it_does_not(lost: float, stops: int):
    found = replayed([-lost, 7.0, -2.0], Limits())
    assert len(found.halts) == stops
    if stops:
        (halt,) = found.halts
        assert (halt.rule, halt.figure) == ("daily_loss", pytest.approx(10.1))
        assert halt.net_usdt == pytest.approx(-5.0)  # it would have won 7 and lost 2
        assert halt.cut_off  # the bars end before its resume
        assert (found.final_usdt, found.final_without_usdt) == (899.0, 904.0)


def test_the_loss_is_of_one_utc_day_and_of_the_equity_at_its_midnight():
    quiet = [0.0] * 22
    assert replayed([*quiet, -60.0, -30.0, -60.0, -30.0, *quiet], Limits()).halts == ()  # 9 %, then 9.9 % of 910
    (halt,) = replayed([*quiet, -60.0, -30.0, -60.0, -32.0, *quiet], Limits()).halts
    assert (halt.at, halt.figure) == (at(26), pytest.approx(100 * 92 / 910))


def test_after_a_resume_the_count_begins_anew():
    earned = [-1.0] * 11 + [0.0] * 5 + [-1.0] * 10  # resumed at hour 16; ten more losses are no breach
    assert [halt.at for halt in replayed(earned, Limits(daily_loss_pct=NEVER), 5).halts] == [at(11)]
    assert [halt.at for halt in replayed([*earned, -1.0], Limits(daily_loss_pct=NEVER), 5).halts] == [at(11), at(27)]
    # the day's baseline is the resume: 8 % of 880 are no 10 % of the 1,000 of midnight
    lost = [-120.0, 0.0, 0.0, -70.0, -17.0, -2.0]
    assert [halt.at for halt in replayed(lost, Limits(), 2).halts] == [at(1), at(6)]


def test_after_a_resume_the_loss_is_of_what_was_there_then_also_where_that_was_more():
    bars = hours(6)
    # stopped at 880; what was open brings it to 1,200 while it is stopped; 1,081 is no 10 % of that, 1,079 is
    worth = np.array([1000.0, 880.0, 1200.0, 1081.0, 1079.0, 1079.0, 1079.0])
    path = Path(worth, np.zeros(7), np.array([0]), np.array([-120.0]))
    marked = Path(worth, worth - 880.0, path.exits, path.profits)
    rule = StrategyRule(Limits())
    assert rule.first(bars, [path], 0) == (0, "daily_loss", 12.0, 10.0)
    assert rule.first(bars, [marked], 2) == (3, "daily_loss", pytest.approx(100 * 121 / 1200), 10.0)


def test_losses_before_a_resume_are_no_part_of_the_streak():
    path = Path(np.full(13, 1000.0), np.zeros(13), np.arange(12), np.full(12, -1.0))
    assert [judge_bar(hours(12), path, 11, since, Limits()).consecutive_losses for since in (0, 4, 11)] == [12, 8, 1]


def test_what_is_compared_differs_in_one_stop_alone():
    """A quarter is lost, then a half, each time with a fifth to win after it; each stop is told of what was left."""
    bars = hours(60)
    rates = np.zeros(60)
    rates[[0, 1, 30, 31]] = -0.25, 0.2, -0.5, 0.2

    def trade(stops):
        stopped = np.zeros(60, dtype=bool)
        for begin, end in stops:
            stopped |= (bars.opens >= begin) & (bars.opens < end)
        worth = np.concatenate(([1000.0], 1000.0 * np.cumprod(1.0 + np.where(stopped, 0.0, rates))))
        return Path(worth, worth - 1000.0, np.array([], int), np.array([]))

    first, second = replay([Book("rsi", trade)], bars, StrategyRule(Limits()), DAY).halts
    assert (first.equity_usdt, first.without_usdt) == ((750.0,), pytest.approx(150.0))
    # a fifth of 375, not of the 450 that would be there had the first stop not been
    assert (second.equity_usdt, second.without_usdt) == ((375.0,), pytest.approx(75.0))


def test_a_day_that_would_have_ended_within_the_limit_is_told():
    recovers, falls = [-101.0, 50.0, *[0.0] * 30], [-101.0, *[0.0] * 22, -1.0, *[0.0] * 30]
    assert [halt.within_at_day_end for halt in replayed(recovers, Limits()).halts] == [True]
    assert [halt.within_at_day_end for halt in replayed(falls, Limits()).halts] == [False]


def test_a_healthy_year_is_never_stopped():
    rng = np.random.default_rng(1)
    assert replayed((rng.normal(0.5, 2.0, 8760)).tolist(), Limits()).halts == ()


def test_a_drawdown_of_the_account_stops_all_and_counts_anew_after_the_resume():
    bars = hours(12)
    one = hourly("rsi", [100.0, -50.0, -80.0, 0.0, 0.0, 0.0, -30.0, -40.0, -60.0, 9.0, 9.0, 9.0], bars)
    two = hourly("macd", [0.0, -50.0, -31.0, 5.0, 0.0, 0.0, -20.0, -40.0, -18.0, 9.0, 9.0, 9.0], bars)
    found = replay([one, two], bars, AccountRule(PortfolioLimits(from_peak_pct=10.0)), np.timedelta64(3, "h"))
    first, second = found.halts
    # the peak was 2,100; 2,000 is 4.8 % and 1,889 is 10.05 % below it
    assert (first.at, first.rule, first.strategies) == (at(3), "portfolio_drawdown_from_peak", ("rsi", "macd"))
    assert (first.figure, first.net_usdt) == (pytest.approx(100 * 211 / 2100), pytest.approx(-5.0))
    # still 10.05 % down at the resume, so it counts from 1,889: 1,759 is 6.9 % and 1,681 is 11.01 % below
    assert (second.at, second.figure) == (at(9), pytest.approx(100 * 208 / 1889))


def test_a_drawdown_from_the_start_counts_from_the_resume_after_it():
    bars = hours(12)
    book = hourly("rsi", [50.0, -151.0, 0.0, 0.0, 0.0, -80.0, -5.0, -6.0, 0.0, 0.0, 0.0, 0.0], bars)
    found = replay([book], bars, AccountRule(PortfolioLimits(from_start_pct=10.0)), np.timedelta64(2, "h"))
    assert [halt.at for halt in found.halts] == [at(2), at(8)]  # 899 of 1,000; then 808 of 899
    assert [halt.figure for halt in found.halts] == pytest.approx([10.1, 100 * 91 / 899])


def test_a_drawdown_that_is_over_at_the_resume_keeps_its_peak():
    bars = hours(8)
    # stopped at 900 of 1,000; a position that stays open brings it back to 950 while stopped
    path = Path(
        np.array([1000.0, 890.0, 940, 940, 901, 899, 899, 899, 899]), np.zeros(9), np.array([], int), np.array([])
    )
    rule = AccountRule(PortfolioLimits(from_peak_pct=10.0))
    breach = rule.first(bars, [path], 0)
    assert breach is not None
    rule.resumed([path], 2)
    again = rule.first(bars, [path], 2)
    assert again is not None
    assert (breach.bar, again.bar, again.figure) == (0, 4, pytest.approx(10.1))  # of 1,000, as before


def test_a_stop_at_any_hour_brings_back_what_a_strategy_loses_by_the_hour():
    bars = hours(24 * 60)
    book = hourly("rsi", [-0.1] * len(bars), bars)
    share = net_at_any_hour(book, bars, DAY)
    assert share == pytest.approx(2.4 / 930, rel=0.01)  # 24 hours of 0.1, of about 930 on average


WALKS = st.lists(st.integers(-30, 24).map(lambda quarter: quarter / 4), min_size=30, max_size=160)


@settings(deadline=None, max_examples=60)
@given(WALKS, st.integers(1, 30), st.floats(0.4, 3.0), st.integers(1, 6))
def test_every_bar_asked_of_the_live_ledger_gives_the_same_stops(earned, resume_after_h, loss, streak):
    limits = Limits(daily_loss_pct=loss, consecutive_losses=streak)
    found = replayed(earned, limits, resume_after_h)
    assert [(h.rule, h.at) for h in found.halts] == plain_loop(earned, limits, resume_after_h)


def plain_loop(earned: list[float], limits: Limits, resume_after_h: int) -> list[tuple[str, np.datetime64]]:
    """The live guard's ledger, asked every hour, with a person who resumes; one profit an hour, nothing left open."""
    begin = START.astype(datetime).replace(tzinfo=UTC)
    ledger, halts = Ledger(), []
    equity = baseline = 1_000.0
    day: date | None = None
    stopped_until = None
    for hour, profit in enumerate(earned):
        opens = begin + timedelta(hours=hour)
        if stopped_until is not None and opens < stopped_until:
            continue
        if stopped_until is not None:
            ledger, day, baseline, stopped_until = Ledger(stopped_until), opens.date(), equity, None
        if opens.date() != day:
            day, baseline = opens.date(), equity
        equity += profit
        ledger.add(f"t{hour}", opens, profit, None)
        risk = ledger.risk(day, baseline, limits)
        if risk.breach is not None:
            halts.append((risk.breach, at(hour + 1)))
            stopped_until = opens + timedelta(hours=1 + resume_after_h)
    return halts


@settings(deadline=None, max_examples=40)
@given(WALKS, st.integers(10, 29))
def test_no_stop_looks_ahead(earned, known):
    """The future, cut off, changes no stop that was before."""
    limits = Limits(daily_loss_pct=1.0, consecutive_losses=3)
    whole, cut = replayed(earned, limits, 6), replayed(earned[:known], limits, 6)
    before = [halt for halt in whole.halts if halt.at <= at(known)]
    assert [(h.at, h.rule, h.figure) for h in cut.halts] == [(h.at, h.rule, h.figure) for h in before]
    over = [halt for halt in before if halt.resumed_at <= at(known)]
    assert [h.net_usdt for h in cut.halts[: len(over)]] == [h.net_usdt for h in over]


def test_open_positions_count_by_their_marks_and_a_missing_hour_is_no_hour():
    bars = Bars(np.array([at(22), at(23), at(26), at(27)]))
    # bought before midnight; marked at 1,000, 960, then (after two hours without bars) 870, sold at 880
    path = Path(
        np.array([1000.0, 1000.0, 960.0, 870.0, 880.0]), np.array([0.0, 0.0, -40.0, -130.0, 0.0]), np.array([3]),
        np.array([-120.0]),
    )  # fmt: skip
    risk = judge_bar(bars, path, 2, 0, Limits())
    assert (risk.daily_loss_pct, risk.equity_at_midnight_usdt) == (pytest.approx(100 * 90 / 960), 960.0)
    risk = judge_bar(bars, path, 3, 0, Limits())
    assert (risk.daily_loss_pct, risk.consecutive_losses) == (pytest.approx(100 * 80 / 960), 1)
    assert StrategyRule(Limits(daily_loss_pct=9.0)).first(bars, [path], 0) == (2, "daily_loss", 9.375, 9.0)
