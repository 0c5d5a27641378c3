"""Does the engine fill, charge and count as a person with a pencil would?"""

from math import inf, nan, sqrt

import numpy as np
import pandas as pd
import pytest

from trading_ops.backtesting.engine import BacktestResult, backtest, sweep, trade_signals
from trading_ops.backtesting.orders import Costs, InvalidCosts
from trading_ops.backtesting.scores import MEASURES
from trading_ops.market.candles import InvalidCandles
from trading_ops.strategies.signals import InvalidParameters, signals

FREE = Costs(fee_pct=0, slippage_pct=0)
DEAR = Costs(fee_pct=1, slippage_pct=2)
QUIET = (100.0, 101.0, 99.0, 100.0)
Bar = tuple[float, float, float, float]


def candles(bars: list[Bar], hours: list[int] | None = None) -> pd.DataFrame:
    """Bars (open, high, low, close) at these hours after 2024-01-01, volume 1."""
    start = pd.Timestamp("2024-01-01", tz="UTC")
    index = pd.DatetimeIndex([start + pd.Timedelta(hours=h) for h in hours or range(len(bars))], name="time")
    return pd.DataFrame(bars, index=index, columns=["open", "high", "low", "close"]).assign(volume=1.0)


def trade(bars: list[Bar], enter: list[int], leave: list[int], costs: Costs = FREE, **options) -> BacktestResult:
    """Trade signals at the closes of the bars `enter` and `leave`."""
    hours = options.pop("hours", None)
    entries, exits = (np.isin(np.arange(len(bars)), at) for at in (enter, leave))
    return trade_signals(candles(bars, hours), entries, exits, costs, **options)


def hour(number: float) -> pd.Timestamp:
    return pd.Timestamp("2024-01-01", tz="UTC") + pd.Timedelta(hours=number)


def walk(seed: int, count: int = 1500) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, count)))
    opened = np.concatenate(([100.0], close[:-1]))
    bars = np.column_stack((opened, np.maximum(opened, close) * 1.004, np.minimum(opened, close) * 0.996, close))
    return candles(bars.tolist()).assign(volume=random.lognormal(0, 1, count))


def test_a_signal_fills_at_the_next_open_with_slippage_and_fees_on_both_sides():
    bars = [QUIET, (100.0, 111.0, 99.0, 110.0), (110.0, 122.0, 109.0, 120.0), (120.0, 121.0, 119.0, 120.0)]
    result = trade(bars, enter=[0], leave=[1], costs=DEAR)
    (row,) = result.trades.to_dict("records")
    quantity = 10_000 / (102 * 1.01)
    assert row["entry_price"] == pytest.approx(102.0)
    assert row["exit_price"] == pytest.approx(107.8)
    assert row["quantity"] == pytest.approx(quantity)
    assert row["fee_usdt"] == pytest.approx(quantity * (1.02 + 1.078))
    assert row["pnl_usdt"] == pytest.approx(quantity * (107.8 - 102 - 1.02 - 1.078))
    assert row["pnl_pct"] == pytest.approx(100 * (107.8 - 102 - 1.02 - 1.078) / 102)
    assert (row["entry_time"], row["exit_time"], row["bars"]) == (hour(1), hour(2), 1)
    assert (row["close_reason"], row["open_at_end"]) == ("signal", False)
    after = 10_000 + row["pnl_usdt"]
    assert result.equity.tolist() == pytest.approx([10_000, quantity * 110, after, after])
    assert result.unrealised.tolist() == pytest.approx([0, quantity * (110 - 102 - 1.02), 0, 0])
    assert list(result.equity.index) == [hour(1), hour(2), hour(3), hour(4)]
    assert result.equity.index.name == "time"
    assert (result.total_trades, result.win_rate_pct, result.avg_duration_hours) == (1, 100.0, 1.0)
    assert result.total_return_pct == pytest.approx(row["pnl_usdt"] / 100)
    assert result.profit_factor is None
    assert result.max_drawdown_pct == pytest.approx(100 * (1 - after / (quantity * 110)))


def test_while_in_a_position_entries_do_not_count_and_when_flat_exits_do_not():
    result = trade([QUIET] * 8, enter=[1, 2, 3, 5], leave=[0, 4, 5])
    # Leaves at 5 on the exit of 4; the entry of 5 is then taken at 6, though an exit signal comes with it.
    assert result.trades["entry_time"].tolist() == [hour(2), hour(6)]
    assert result.trades["exit_time"].tolist() == [hour(5), hour(8)]
    assert result.trades["close_reason"].tolist() == ["signal", "open_at_end"]


def test_an_exit_signal_does_not_open_the_next_position_at_the_same_open():
    result = trade([QUIET] * 5, enter=[0, 2], leave=[2])
    assert result.trades["entry_time"].tolist() == [hour(1)]
    assert result.trades["exit_time"].tolist() == [hour(3)]


def test_a_signal_on_the_last_bar_is_not_filled():
    assert trade([QUIET] * 3, enter=[2], leave=[]).trades.empty
    (row,) = trade([QUIET] * 3, enter=[0], leave=[2]).trades.to_dict("records")
    assert row["close_reason"] == "open_at_end"


def test_a_position_open_at_the_end_is_marked_but_not_counted():
    result = trade([QUIET, QUIET, (100.0, 131.0, 99.0, 130.0)], enter=[0], leave=[], costs=DEAR)
    (row,) = result.trades.to_dict("records")
    quantity = 10_000 / (102 * 1.01)
    assert row["open_at_end"]
    assert row["exit_price"] == 130.0
    assert row["exit_time"] == hour(3)
    assert row["fee_usdt"] == pytest.approx(quantity * 1.02)
    assert row["pnl_usdt"] == pytest.approx(quantity * 28 - quantity * 1.02)
    assert result.equity.iloc[-1] == pytest.approx(10_000 + row["pnl_usdt"])
    assert result.unrealised.iloc[-1] == pytest.approx(row["pnl_usdt"])
    assert (result.total_trades, result.win_rate_pct, result.profit_factor, result.avg_duration_hours) == (0,) + (
        None,
    ) * 3
    assert result.total_return_pct == pytest.approx(row["pnl_usdt"] / 100)


def test_no_trade_leaves_the_capital_and_undefined_measures():
    result = trade([QUIET] * 60, enter=[], leave=[3])
    assert result.trades.empty
    assert (result.equity == 10_000).all()
    assert (result.unrealised == 0).all()
    assert (result.total_trades, result.total_return_pct, result.max_drawdown_pct) == (0, 0.0, 0.0)
    assert result.win_rate_pct is result.sharpe_ratio is result.profit_factor is result.avg_duration_hours is None
    assert result.trades["entry_time"].dtype == "datetime64[us, UTC]"
    assert result.trades["open_at_end"].dtype == bool


STOP_5 = {"stop_loss_pct": 5.0}
TARGET_5 = {"take_profit_pct": 5.0}
BOTH_5 = STOP_5 | TARGET_5


@pytest.mark.parametrize(
    ("what", "limits", "bars", "exit_hour", "exit_price", "reason"),
    [
        ("the stop", STOP_5, [QUIET, (100, 100, 94, 96)], 2, 95.0, "stop_loss"),
        ("the stop touched just so", STOP_5, [QUIET, (100, 100, 95, 96)], 2, 95.0, "stop_loss"),
        ("the stop in the entry bar", STOP_5, [(100, 100, 94, 96), QUIET], 1, 95.0, "stop_loss"),
        ("a gap beyond the stop", STOP_5, [QUIET, (90, 92, 85, 91)], 2, 90.0, "stop_loss"),
        ("the target", TARGET_5, [QUIET, (100, 106, 99, 101)], 2, 105.0, "take_profit"),
        ("the target in the entry bar", TARGET_5, [(100, 105, 99, 101), QUIET], 1, 105.0, "take_profit"),
        ("a gap beyond the target", TARGET_5, [QUIET, (110, 112, 108, 109)], 2, 105.0, "take_profit"),
        ("both in one bar", BOTH_5, [QUIET, (100, 106, 94, 100)], 2, 95.0, "stop_loss"),
        ("both in the entry bar", BOTH_5, [(100, 106, 94, 100), QUIET], 1, 95.0, "stop_loss"),
        ("both, but open beyond the target", BOTH_5, [QUIET, (106, 107, 94, 100)], 2, 105.0, "take_profit"),
        ("both, but open beyond the stop", BOTH_5, [QUIET, (94, 107, 93, 100)], 2, 94.0, "stop_loss"),
    ],
)
def test_stops_and_targets(what: str, limits: dict, bars: list, exit_hour: int, exit_price: float, reason: str):
    (row,) = trade([QUIET, *bars, QUIET], enter=[0], leave=[], **limits).trades.to_dict("records")
    assert (row["exit_time"], row["exit_price"], row["close_reason"]) == (hour(exit_hour), exit_price, reason), what


def test_limits_are_percents_of_the_entry_fill_and_only_the_stop_slips():
    # Fill 102: stop 96.9, target 107.1. A stop is a market order, a target a limit order.
    (stopped,) = trade([QUIET, QUIET, (100, 101, 96, 97)], [0], [], DEAR, **BOTH_5).trades.to_dict("records")
    assert stopped["exit_price"] == pytest.approx(102 * 0.95 * 0.98)
    (reached,) = trade([QUIET, QUIET, (100, 108, 99, 100)], [0], [], DEAR, **BOTH_5).trades.to_dict("records")
    assert reached["exit_price"] == pytest.approx(102 * 1.05)


def test_a_stop_within_the_slippage_fills_at_the_open_not_above_it():
    (row,) = trade([QUIET, QUIET, QUIET], [0], [], DEAR, stop_loss_pct=1.0).trades.to_dict("records")
    assert row["exit_price"] == pytest.approx(100 * 0.98)
    assert row["exit_time"] == hour(1)


def test_the_exit_signal_at_the_open_comes_before_a_stop_in_the_same_bar():
    bars = [QUIET, QUIET, (100, 101, 50, 60), QUIET]
    (row,) = trade(bars, enter=[0], leave=[1], stop_loss_pct=5.0).trades.to_dict("records")
    assert (row["close_reason"], row["exit_price"]) == ("signal", 100.0)


def test_after_a_stop_the_entry_signal_of_the_same_bar_counts():
    result = trade([QUIET, (100, 100, 90, 92), (92, 93, 91, 92), QUIET], enter=[0, 1], leave=[], stop_loss_pct=5.0)
    assert result.trades["entry_time"].tolist() == [hour(1), hour(2)]
    assert result.trades["entry_price"].tolist() == [100.0, 92.0]


def test_after_missing_bars_the_next_real_open_fills():
    bars = [QUIET, (107.0, 108.0, 106.0, 107.0), QUIET, (96.0, 97.0, 95.0, 96.0)]
    result = trade(bars, enter=[0], leave=[2], hours=[0, 7, 8, 30])
    (row,) = result.trades.to_dict("records")
    assert (row["entry_price"], row["exit_price"]) == (107.0, 96.0)
    assert (row["entry_time"], row["exit_time"], row["bars"]) == (hour(7), hour(30), 2)
    assert result.avg_duration_hours == 23.0
    assert list(result.equity.index) == [hour(1), hour(8), hour(9), hour(31)]


def test_the_lot_step_rounds_the_quantity_down_and_the_rest_stays_cash():
    costs = Costs(fee_pct=1, slippage_pct=2, lot_step=0.5)
    result = trade([QUIET, QUIET, (100.0, 111.0, 99.0, 110.0)], enter=[0], leave=[], costs=costs)
    assert result.trades["quantity"].tolist() == [97.0]  # of 97.0685
    assert result.equity.iloc[-1] == pytest.approx(10_000 - 97 * 102 * 1.01 + 97 * 110)


def test_a_lot_step_that_the_money_just_buys_is_bought():
    assert 0.3 / 0.1 < 3  # which rounded down would be two steps
    result = trade([QUIET] * 3, enter=[0], leave=[], costs=Costs(0, 0, lot_step=0.1), initial_usdt=30.0)
    assert result.trades["quantity"].tolist() == pytest.approx([0.3])


@pytest.mark.parametrize("limits", [{"lot_step": 200.0}, {"min_notional_usdt": 10_000.01}])
def test_orders_too_small_are_rejected_counted_and_tried_again(limits: dict):
    result = trade([QUIET] * 6, enter=[0, 2, 5], leave=[], costs=Costs(0, 0, **limits))
    assert result.trades.empty
    assert result.rejected_orders == 2
    assert result.total_return_pct == 0.0


def test_the_least_order_itself_is_taken():
    result = trade([QUIET] * 3, enter=[0], leave=[], costs=Costs(0, 0, min_notional_usdt=10_000.0))
    assert len(result.trades) == 1
    assert result.rejected_orders == 0


def test_a_disabled_strategy_does_not_enter_but_leaves():
    allowed = np.array([True, True, True, False, False, True])
    result = trade([QUIET] * 6, enter=[0, 3, 4], leave=[2], entries_allowed=allowed)
    assert result.trades["entry_time"].tolist() == [hour(1), hour(5)]
    assert result.trades["exit_time"].tolist()[0] == hour(3)
    assert result.rejected_orders == 0


def test_a_disabled_strategy_is_still_stopped_out():
    bars = [QUIET, QUIET, (100, 101, 90, 91), QUIET]
    (row,) = trade(bars, [0], [], stop_loss_pct=5.0, entries_allowed=np.array([1, 1, 0, 0], bool)).trades.to_dict(
        "records"
    )
    assert row["close_reason"] == "stop_loss"


def test_measures_of_a_win_and_a_loss_by_hand():
    bars = [
        QUIET,
        (100.0, 121.0, 99.0, 120.0),
        (120.0, 120.0, 119.0, 120.0),
        (120.0, 121.0, 89.0, 90.0),
        (90.0, 91.0, 89.0, 90.0),
    ]
    result = trade(bars, enter=[0, 2], leave=[1, 3])
    assert result.trades["pnl_usdt"].tolist() == pytest.approx([2_000.0, -3_000.0])
    assert result.trades["pnl_pct"].tolist() == pytest.approx([20.0, -25.0])
    assert result.win_rate_pct == 50.0
    assert result.profit_factor == pytest.approx(2 / 3)
    assert result.max_drawdown_pct == pytest.approx(25.0)
    assert result.total_return_pct == pytest.approx(-10.0)


def test_sharpe_takes_the_last_equity_of_each_utc_day_and_the_capital_before_them():
    # 100 until day 1 ends, 110 at the end of day 2 (its last bar closes at 24:00), 99 at the end of day 3.
    price = np.repeat([100.0, 110.0, 99.0], 24)
    bars = [(p, p, p, p) for p in price]
    bars[24] = (100.0, 110.0, 100.0, 110.0)
    result = trade(bars, enter=[0], leave=[])
    returns = [0.0, 0.1, -0.1]
    assert result.sharpe_ratio == pytest.approx(sqrt(365) * np.mean(returns) / np.std(returns, ddof=1), abs=1e-9)
    rising = trade(bars[:48], enter=[0], leave=[])
    assert rising.sharpe_ratio == pytest.approx(sqrt(365) * 0.05 / (0.1 / sqrt(2)))
    assert trade(bars[:24], enter=[0], leave=[]).sharpe_ratio is None


@pytest.mark.parametrize("strategy", ["rsi", "macd", "bollinger", "volume"])
def test_the_future_changes_no_earlier_fill(strategy: str):
    frame = walk(11)
    parameters = {"stop_loss_pct": 3.0, "take_profit_pct": 4.0}
    whole = backtest(frame, strategy, parameters)
    assert whole.total_trades > 5
    for cut in np.random.default_rng(3).integers(2, len(frame), 50):
        part = backtest(frame[:cut], strategy, parameters)
        closed = part.trades[~part.trades["open_at_end"]]
        pd.testing.assert_frame_equal(closed, whole.trades[: len(closed)], check_exact=True)
        fills = part.trades[["entry_time", "entry_price", "quantity"]]
        pd.testing.assert_frame_equal(fills, whole.trades[fills.columns][: len(fills)], check_exact=True)
        assert part.equity.to_numpy().tobytes() == whole.equity.to_numpy()[:cut].tobytes()


def test_a_backtest_is_the_strategys_signals_traded():
    frame = walk(5)
    parameters = {"period": 10, "oversold": 35, "overbought": 65}
    ours = trade_signals(frame, *signals(frame, "rsi", parameters), Costs(0.2, 0.1), stop_loss_pct=4.0)
    result = backtest(frame, "rsi", parameters | {"stop_loss_pct": 4.0}, Costs(0.2, 0.1))
    pd.testing.assert_frame_equal(result.trades, ours.trades)


def test_the_capital_scales_everything():
    one, ten = (backtest(walk(5), "macd", initial_usdt=usdt) for usdt in (1_000.0, 10_000.0))
    assert ten.equity.to_numpy() == pytest.approx(10 * one.equity.to_numpy())
    assert ten.total_return_pct == pytest.approx(one.total_return_pct)


def test_a_sweep_has_one_row_a_set_and_equals_single_backtests():
    frame = walk(9, 600)
    grid = {"period": [7, 14], "oversold": [25.0, 30.0], "stop_loss_pct": [None, 5.0]}
    table = sweep(frame, "rsi", grid)
    assert list(table.columns) == [*grid, *MEASURES]
    assert len(table) == 8
    single = backtest(frame, "rsi", {"period": 14, "oversold": 25.0, "stop_loss_pct": 5.0})
    row = table.iloc[5]
    assert (row["period"], row["oversold"], row["stop_loss_pct"]) == (14, 25.0, 5.0)
    ours = np.array([row[measure] for measure in MEASURES], float)
    np.testing.assert_array_equal(ours, np.array([getattr(single, measure) for measure in MEASURES], float))
    assert np.isnan(table["profit_factor"]).any()
    assert table["total_trades"].dtype == "int64"


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ({"oversold": [30, 70]}, "oversold is 70 and overbought is 70"),
        ({"window": [3]}, "'window' is unknown"),
        ({"period": []}, "a list of values to try"),
        ({"period": 14}, "a list of values to try"),
    ],
)
def test_a_sweep_with_an_impossible_set_is_refused_before_anything_runs(grid: dict, says: str):
    with pytest.raises(InvalidParameters, match=says):
        sweep(walk(1, 1), "rsi", grid)  # one bar alone would be refused as well, had anything run


@pytest.mark.parametrize(
    ("costs", "says"),
    [
        ({"fee_pct": -0.1}, "fee_pct is -0.1; a percentage from 0 to below 100"),
        ({"slippage_pct": 100}, "slippage_pct is 100"),
        ({"fee_pct": nan}, "fee_pct is nan"),
        ({"slippage_pct": inf}, "slippage_pct is inf"),
        ({"fee_pct": "0.1"}, "fee_pct is '0.1'"),
        ({"lot_step": 0}, "lot_step is 0"),
        ({"min_notional_usdt": -5}, "min_notional_usdt is -5"),
    ],
)
def test_costs_that_cannot_be_are_refused(costs: dict, says: str):
    with pytest.raises(InvalidCosts, match=says):
        Costs(**costs)


def test_inputs_that_cannot_be_traded_are_refused():
    frame = walk(1, 50)
    with pytest.raises(InvalidCandles, match=r"at least 2 bars.*there are 1"):
        backtest(frame[:1], "rsi")
    with pytest.raises(InvalidCandles, match="low is nan"):
        backtest(frame.assign(low=nan), "rsi")
    with pytest.raises(InvalidCandles, match="times must ascend"):
        backtest(frame[::-1], "rsi")
    with pytest.raises(InvalidCosts, match="initial_usdt is 0"):
        backtest(frame, "rsi", initial_usdt=0)
    with pytest.raises(InvalidParameters, match="'martingale' is unknown"):
        backtest(frame, "martingale")
    with pytest.raises(InvalidParameters, match="stop_loss_pct is -1"):
        trade_signals(frame, np.zeros(50, bool), np.zeros(50, bool), stop_loss_pct=-1)
    with pytest.raises(ValueError, match=r"entries_allowed is bool of shape \(49,\)"):
        backtest(frame, "rsi", entries_allowed=np.ones(49, bool))
