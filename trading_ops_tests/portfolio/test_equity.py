"""Is a day's equity a fact, and a return never something else?"""

from __future__ import annotations

from datetime import date
from math import nan

import pandas as pd
import pytest

from trading_ops.bot.client import EquityHistory
from trading_ops.bot.records import trades_frame
from trading_ops.portfolio.equity import (
    PORTFOLIO,
    DailyEquity,
    daily_equity,
    points_until,
    realised_by_day,
    trusted_returns,
)

FIRST, LAST = date(2025, 3, 1), date(2025, 3, 3)
DAYS = pd.date_range(FIRST, LAST, tz="UTC")


def snapshots(at: dict[str, dict[str, float]], marks: dict[str, dict[str, float]] | None = None) -> EquityHistory:
    """Equity (and unrealised, default 0) by moment and strategy."""
    equity = pd.DataFrame.from_dict(at, orient="index", dtype=float)
    equity.index = pd.to_datetime(equity.index, utc=True, format="ISO8601")
    unrealised = equity * 0.0
    for moment, values in (marks or {}).items():
        unrealised.loc[pd.Timestamp(moment)] = values
    return EquityHistory(equity, unrealised, pd.DataFrame(columns=equity.columns, index=equity.index[:0], dtype=float))


def of_days(rsi: list[float], macd: list[float] | None = None, *, marks=0.0, flows=0.0) -> DailyEquity:
    frames = []
    for values in ({"rsi": rsi, "macd": macd or [10_000.0] * len(rsi)}, {"rsi": marks, "macd": 0.0},
                   {"rsi": flows, "macd": 0.0}):  # fmt: skip
        frame = pd.DataFrame(values, DAYS[: len(rsi)], dtype=float)
        frame[PORTFOLIO] = frame.sum(axis=1, skipna=False)
        frames.append(frame)
    return DailyEquity(*frames)


def realised(daily: DailyEquity, rsi: list[float]) -> pd.DataFrame:
    frame = daily.equity * 0.0
    frame["rsi"] = rsi
    return frame.fillna(0.0).assign(**{PORTFOLIO: rsi})


@pytest.mark.parametrize(
    ("moment", "equity"),
    [
        ("2025-03-02T00:00:00Z", 100.0),
        pytest.param("2025-03-02T00:15:00Z", 100.0, id="exactly 15 minutes after"),
        pytest.param("2025-03-01T23:45:00Z", 100.0, id="exactly 15 minutes before"),
        pytest.param("2025-03-02T00:15:01Z", None, id="a second too late"),
        pytest.param("2025-03-01T23:44:59Z", None, id="a second too early"),
        pytest.param("2025-03-01T00:00:00Z", None, id="the day's start is not its end"),
    ],
)
def test_the_equity_of_a_day_is_a_snapshot_within_15_minutes_of_its_end(moment: str, equity: float | None):
    daily = daily_equity(snapshots({moment: {"rsi": 100.0}}), FIRST, LAST)
    found = daily.equity.at[DAYS[0], "rsi"]
    assert found == equity or (equity is None and found != found)
    assert daily.equity.index.equals(DAYS)


def test_the_nearest_snapshot_wins_and_each_day_has_its_own():
    history = snapshots({
        "2025-03-01T23:50:00Z": {"rsi": 1.0}, "2025-03-02T00:05:00Z": {"rsi": 2.0},
        "2025-03-02T12:00:00Z": {"rsi": 3.0}, "2025-03-03T00:00:00Z": {"rsi": 4.0},
    })  # fmt: skip
    equity = daily_equity(history, FIRST, LAST).equity["rsi"].tolist()
    assert equity == pytest.approx([2.0, 4.0, nan], nan_ok=True)


def test_the_portfolio_is_the_sum_and_unknown_where_one_strategy_is():
    history = snapshots({
        "2025-03-02T00:00:00Z": {"rsi": 100.0, "macd": 50.0}, "2025-03-03T00:00:00Z": {"rsi": 110.0, "macd": nan},
    }, marks={"2025-03-02T00:00:00Z": {"rsi": 7.0, "macd": -2.0}})  # fmt: skip
    daily = daily_equity(history, FIRST, LAST)
    assert daily.equity[PORTFOLIO].tolist() == pytest.approx([150.0, nan, nan], nan_ok=True)
    assert daily.equity["rsi"].tolist() == pytest.approx([100.0, 110.0, nan], nan_ok=True)
    assert daily.unrealised.at[DAYS[0], PORTFOLIO] == 5.0
    assert daily.flows[PORTFOLIO].tolist() == [0.0, 0.0, 0.0]


def test_flows_are_added_up_by_utc_day():
    history = snapshots({"2025-03-02T00:00:00Z": {"rsi": 100.0, "macd": 50.0}})
    at = pd.to_datetime(["2025-03-01T00:00Z", "2025-03-01T23:59:59Z", "2025-03-02T00:00:00Z"], format="ISO8601")
    flows = pd.DataFrame({"rsi": [10.0, -4.0, 1.0]}, at)
    daily = daily_equity(EquityHistory(history.equity, history.unrealised, flows), FIRST, LAST)
    assert daily.flows["rsi"].tolist() == [6.0, 1.0, 0.0]
    assert daily.flows["macd"].tolist() == [0.0, 0.0, 0.0]
    assert daily.flows[PORTFOLIO].tolist() == [6.0, 1.0, 0.0]


def test_a_snapshot_taken_twice_is_still_a_snapshot():
    history = snapshots({"2025-03-02T00:00:00Z": {"rsi": 1.0}})
    twice = EquityHistory(*(pd.concat([f, f]) for f in (history.equity, history.unrealised)), history.flows)
    assert daily_equity(twice, FIRST, LAST).equity["rsi"].tolist()[0] == 1.0


def test_a_bot_that_keeps_no_snapshot_has_strategies_of_unknown_equity():
    nothing = pd.DataFrame(columns=["rsi"], index=pd.DatetimeIndex([], tz="UTC"), dtype=float)
    daily = daily_equity(EquityHistory(nothing, nothing, nothing), FIRST, LAST)
    assert daily.equity[["rsi", PORTFOLIO]].isna().all(axis=None)
    assert len(daily.equity) == 3


def test_B023_an_account_of_which_nothing_is_known_is_unknown_and_not_worth_zero():
    """What `Bot.equity_history` promises: empty frames where the bot keeps none."""
    nothing = pd.DataFrame(index=pd.DatetimeIndex([], tz="UTC"))
    daily = daily_equity(EquityHistory(nothing, nothing, nothing), FIRST, LAST)
    assert daily.equity[PORTFOLIO].isna().all()


@pytest.mark.parametrize(
    ("equity", "pnl", "flow", "mark", "known"),
    [
        pytest.param(10_200.0, 200.0, 0.0, 0.0, True, id="explained by trades"),
        pytest.param(10_200.0, 0.0, 200.0, 0.0, True, id="explained by a deposit"),
        pytest.param(10_200.0, 0.0, 0.0, 200.0, True, id="explained by marks"),
        pytest.param(10_400.0, 300.0, -200.0, 300.0, True, id="explained by all together"),
        pytest.param(10_200.0, 0.0, 0.0, 0.0, False, id="2 % that nothing explains"),
        pytest.param(9_800.0, 0.0, 0.0, 0.0, False, id="a fall that nothing explains"),
        pytest.param(10_000.0, 200.0, 0.0, 0.0, False, id="a profit that did not arrive"),
        pytest.param(10_100.0, 0.0, 0.0, 0.0, True, id="exactly 1 %"),
        pytest.param(10_101.0, 0.0, 0.0, 0.0, False, id="just above 1 %"),
        pytest.param(10_299.0, 200.0, 0.0, 0.0, True, id="0.99 % on top of trades"),
        pytest.param(30_000.0, 0.0, 20_000.0, 0.0, True, id="a large deposit"),
    ],
)
def test_a_jump_above_one_percent_that_nothing_explains_is_unknown_never_a_return(equity, pnl, flow, mark, known):
    daily = of_days([10_000.0, equity], marks=[0.0, mark], flows=[0.0, flow])
    returns = trusted_returns(daily, realised(daily, [0.0, pnl]))
    expected = (equity - flow) / 10_000 - 1 if known else nan
    assert returns["rsi"].tolist() == pytest.approx([nan, expected], nan_ok=True)
    assert returns["macd"].tolist() == pytest.approx([nan, 0.0], nan_ok=True)


def test_only_the_change_of_the_marks_explains():
    """500 open yesterday and 500 open today are no news."""
    daily = of_days([10_000.0, 10_500.0], marks=[500.0, 500.0])
    assert trusted_returns(daily, realised(daily, [0.0, 0.0]))["rsi"].isna().all()


@pytest.mark.parametrize("broken", [nan, 0.0, -5.0])
def test_an_unknown_or_impossible_equity_makes_its_return_and_the_next_unknown(broken: float):
    daily = of_days([10_000.0, broken, 10_000.0])
    returns = trusted_returns(daily, realised(daily, [0.0, 0.0, 0.0]))
    assert returns["rsi"].isna().all()


def test_one_unexplained_strategy_can_hide_in_a_large_account_but_not_in_its_own_column():
    daily = of_days([1_000.0, 1_500.0], [99_000.0, 99_000.0])
    returns = trusted_returns(daily, realised(daily, [0.0, 0.0]))
    assert returns["rsi"].isna().all()
    assert returns[PORTFOLIO].tolist() == pytest.approx([nan, 0.005], nan_ok=True)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_infinite_snapshot_is_never_a_return():
    daily = of_days([10_000.0, float("inf"), 10_000.0])
    assert trusted_returns(daily, realised(daily, [0.0, 0.0, 0.0]))["rsi"].isna().all()


def test_trades_are_realised_on_the_utc_day_they_closed_on():
    def row(trade_id: str, strategy: str, closed_at: str, pnl: float) -> dict[str, object]:
        return {"trade_id": trade_id, "strategy": strategy, "closed_at": closed_at, "pnl_usdt": pnl}

    like = of_days([1.0, 1.0, 1.0]).equity
    trades = trades_frame([
        row("a", "rsi", "2025-03-01T00:00:00Z", 5.0), row("b", "rsi", "2025-03-01T23:59:59.999Z", -2.0),
        row("c", "rsi", "2025-03-02T00:00:00Z", 7.0), row("d", "macd", "2025-03-02T12:00:00Z", 1.0),
        row("e", "rsi", "2025-02-28T23:59:59Z", 99.0),
    ])  # fmt: skip
    found = realised_by_day(trades, like)
    assert found["rsi"].tolist() == [3.0, 7.0, 0.0]
    assert found["macd"].tolist() == [0.0, 1.0, 0.0]
    assert found[PORTFOLIO].tolist() == [3.0, 8.0, 0.0]
    assert found.index.equals(like.index)
    assert (realised_by_day(trades_frame([]), like) == 0.0).all(axis=None)


def test_points_until_are_those_up_to_and_including_the_day():
    equity = of_days([1.0, 2.0, 3.0]).equity
    assert points_until(equity, "rsi", DAYS[1]).tolist() == [1.0, 2.0]
    assert points_until(equity, "rsi", DAYS[2], 2).tolist() == [2.0, 3.0]
    assert points_until(equity, "rsi", DAYS[0], 8).tolist() == [1.0]
