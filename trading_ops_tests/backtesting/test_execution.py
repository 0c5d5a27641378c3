"""Are orders placed as asked: which side, how late, with how much; and what does a future's funding cost?"""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.backtesting.engine import BacktestResult, backtest, sweep, trade_signals
from trading_ops.backtesting.orders import Costs, Execution, InvalidCosts, InvalidExecution
from trading_ops.backtesting.scores import MEASURES, score_sets
from trading_ops.strategies.signals import STRATEGIES, InvalidParameters, signals
from trading_ops_tests.backtesting.test_engine import FREE, QUIET, Bar, candles, hour, walk

FUTURES = Execution(market="futures")
SHORT = Execution("short", "futures")
MIRROR = {"open": "open", "high": "low", "low": "high", "close": "close"}


def trade(bars: list[Bar], enter: list[int], leave: list[int], execution: Execution, costs: Costs = FREE, **options):
    entries, exits = (np.isin(np.arange(len(bars)), at) for at in (enter, leave))
    hours = options.pop("hours", None)
    return trade_signals(candles(bars, hours), entries, exits, costs, execution=execution, **options)


def only(result: BacktestResult) -> dict:
    (row,) = result.trades.to_dict("records")
    return row


def test_a_late_order_fills_as_many_bars_later_and_until_then_signals_do_not_count():
    bars = [(100.0 + i, 101.0 + i, 99.0 + i, 100.0 + i) for i in range(12)]
    result = trade(bars, enter=[0, 1, 9], leave=[2, 3, 4, 5], execution=Execution(latency_bars=2))
    # Entered by the signal of 0 at 3; the exits of 2 came before there was a position, that of 3 fills at 6.
    assert result.trades["entry_time"].tolist() == [hour(3)]
    assert result.trades["exit_time"].tolist() == [hour(6)]
    assert result.trades["entry_price"].tolist() == [103.0]  # the signal of 9 would fill at 12, which never comes


def test_a_stop_takes_a_position_out_while_its_exit_is_still_on_the_way():
    bars = [QUIET, QUIET, QUIET, (100.0, 101.0, 80.0, 90.0), QUIET, QUIET]
    result = trade(bars, enter=[0], leave=[2], execution=Execution(latency_bars=1), stop_loss_pct=10.0)
    assert (only(result)["close_reason"], only(result)["exit_time"]) == ("stop_loss", hour(3))


def test_an_entry_that_is_forbidden_is_not_ordered_and_holds_up_no_later_one():
    allowed = np.arange(12) >= 8
    result = trade([QUIET] * 12, [2, 4], [], Execution(latency_bars=4), entries_allowed=allowed)
    assert result.trades["entry_time"].tolist() == [hour(9)]  # that of 2 would fill at 7


def test_a_part_of_the_equity_is_traded_and_the_rest_stays_cash():
    bars = [QUIET, QUIET, (100.0, 111.0, 99.0, 110.0), (110.0, 111.0, 109.0, 110.0)]
    result = trade(bars, enter=[0], leave=[2], execution=Execution(equity_pct=25.0))
    assert only(result)["quantity"] == pytest.approx(25.0)
    assert only(result)["pnl_usdt"] == pytest.approx(250.0)
    assert result.total_return_pct == pytest.approx(2.5)


def test_a_short_earns_what_the_price_falls_less_costs_on_both_sides():
    bars = [QUIET, QUIET, (100.0, 101.0, 79.0, 80.0), (80.0, 81.0, 79.0, 80.0)]
    result = trade(bars, enter=[0], leave=[2], execution=SHORT, costs=Costs(fee_pct=1, slippage_pct=2))
    row = only(result)
    quantity = 10_000 / (98 * 1.01)
    assert (row["entry_price"], row["exit_price"]) == (pytest.approx(98.0), pytest.approx(81.6))
    assert row["pnl_usdt"] == pytest.approx(quantity * (98 - 81.6 - 0.98 - 0.816))
    assert result.equity.tolist() == pytest.approx(
        [10_000, 10_000 + quantity * (98 - 100 - 0.98), 10_000 + quantity * (98 - 80 - 0.98), 10_000 + row["pnl_usdt"]]
    )


@pytest.mark.parametrize(
    ("bar", "price", "reason"),
    [
        ((100.0, 106.0, 99.0, 100.0), 105.0, "stop_loss"),
        ((107.0, 108.0, 99.0, 100.0), 107.0, "stop_loss"),
        ((100.0, 101.0, 94.0, 95.0), 95.0, "take_profit"),
        ((93.0, 94.0, 92.0, 93.0), 95.0, "take_profit"),
        ((100.0, 106.0, 94.0, 100.0), 105.0, "stop_loss"),
        ((93.0, 106.0, 92.0, 100.0), 95.0, "take_profit"),
    ],
    ids=["stop", "gap beyond the stop", "target", "gap beyond the target", "both: the stop", "gap, then the stop"],
)
def test_a_shorts_stop_lies_above_and_its_target_below(bar: Bar, price: float, reason: str):
    result = trade([QUIET, QUIET, bar], [0], [], SHORT, stop_loss_pct=5.0, take_profit_pct=5.0)
    assert (only(result)["exit_price"], only(result)["close_reason"]) == (price, reason)


def test_a_short_that_loses_everything_is_liquidated_and_owes_nothing():
    bars = [QUIET, QUIET, (100.0, 230.0, 99.0, 220.0), QUIET, QUIET, QUIET]
    result = trade(bars, enter=[0, 3], leave=[], execution=SHORT)
    row = only(result)
    assert (row["exit_price"], row["close_reason"], row["pnl_usdt"]) == (200.0, "liquidation", -10_000.0)
    assert result.equity.tolist() == [10_000, 10_000, 0, 0, 0, 0]
    assert (result.total_return_pct, result.max_drawdown_pct, result.rejected_orders) == (-100.0, 100.0, 1)


@pytest.mark.parametrize(("execution", "sign"), [(FUTURES, 1), (SHORT, -1)])
def test_funding_is_paid_at_00_08_and_16_by_who_holds_then(execution: Execution, sign: int):
    # Held from 07:00 to 17:00: funding of 08:00 and of 16:00 on 100 units at an open of 100, by the long to the short.
    result = trade([QUIET] * 20, enter=[6], leave=[16], execution=execution, costs=Costs(0, 0, funding_pct=0.1))
    assert only(result)["funding_usdt"] == pytest.approx(sign * 2 * 10.0)
    assert only(result)["pnl_usdt"] == pytest.approx(-sign * 20.0)
    assert result.equity.iloc[[6, 8, 15, 16, 19]].tolist() == pytest.approx(
        [10_000 - sign * paid for paid in (0, 10, 10, 20, 20)]
    )


def test_who_enters_at_the_time_of_funding_does_not_pay_and_who_leaves_then_does():
    result = trade([QUIET] * 20, enter=[7], leave=[15], execution=FUTURES, costs=Costs(0, 0, funding_pct=0.1))
    assert (only(result)["entry_time"], only(result)["exit_time"]) == (hour(8), hour(16))
    assert only(result)["funding_usdt"] == pytest.approx(10.0)


def test_funding_that_fell_due_while_bars_were_missing_is_paid_at_the_next_one():
    result = trade([QUIET] * 4, [0], [2], FUTURES, Costs(0, 0, funding_pct=0.1), hours=[0, 1, 18, 19])
    assert only(result)["funding_usdt"] == pytest.approx(20.0)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_short_is_the_long_of_the_mirrored_price(strategy: str):
    frame = walk(3, 3000)
    top = 2 * frame["high"].max()
    mirrored = frame.assign(**{name: top - frame[of] for name, of in MIRROR.items()})
    for ours, theirs in zip(signals(frame, strategy, side="short"), signals(mirrored, strategy), strict=True):
        assert ours.sum() > 20
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"side": "sideways"}, "side is 'sideways'; long or short would be right"),
        ({"market": "casino"}, "market is 'casino'; spot or futures would be right"),
        ({"side": "short"}, "cannot go short; give market 'futures'"),
        ({"latency_bars": 1.5}, "latency_bars is 1.5; a whole number from 0 to 168"),
        ({"latency_bars": -1}, "latency_bars is -1"),
        ({"latency_bars": True}, "latency_bars is True"),
        ({"equity_pct": 0}, "equity_pct is 0; a percentage from 0.01 to 100"),
        ({"equity_pct": float("nan")}, "equity_pct is nan"),
        ({"equity_pct": 10**400}, "equity_pct is 1000"),
    ],
)
def test_an_execution_that_cannot_be_is_named(fields: dict, says: str):
    with pytest.raises(InvalidExecution, match=says):
        Execution(**fields)


def test_spot_has_no_funding():
    with pytest.raises(InvalidCosts, match=r"funding_pct is 0\.1 on market 'spot', which has no funding"):
        backtest(walk(1, 50), "rsi", costs=Costs(funding_pct=0.1))
    with pytest.raises(InvalidCosts, match="funding_pct is 9; a percentage from -5 to 5"):
        Costs(funding_pct=9)


RSI = {"period": [3, 5], "oversold": [35.0, 45.0], "overbought": [55.0]}
GRIDS = {
    "rsi": RSI | {"stop_loss_pct": [None, 2.0], "take_profit_pct": [None, 3.0]},
    "macd": {"fast": [3, 5], "slow": [8, 13], "signal": [2, 4]},
    "bollinger": {"period": [5, 9], "deviations": [0.8, 1.7], "stop_loss_pct": [1.0, None]},
    "volume": {"period": [4, 9], "multiplier": [0.8, 1.5]},
}
executions = st.builds(
    lambda side, late, share: Execution(side, "futures", late, share),
    st.sampled_from(["long", "short"]),
    st.integers(0, 3),
    st.floats(1, 100),
)
prices = st.builds(
    Costs,
    st.floats(0, 2),
    st.floats(0, 1),
    st.sampled_from([None, 0.1, 7.0]),
    st.sampled_from([None, 5_000.0]),
    st.floats(-0.5, 0.5),
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(GRIDS)), executions, prices, st.sampled_from([1, 2]))
def test_each_row_of_a_sweep_is_the_backtest_of_its_set(
    seed: int, strategy: str, execution: Execution, costs: Costs, threads: int
):
    frame = walk(seed, 300)
    table = sweep(frame, strategy, GRIDS[strategy], costs, execution=execution, threads=threads)
    for row in table.to_dict("records"):
        own = {name: None if pd.isna(row[name]) else row[name] for name in GRIDS[strategy]}
        single = backtest(frame, strategy, own, costs, execution=execution)
        theirs = [np.nan if (value := getattr(single, name)) is None else value for name in MEASURES]
        assert [row[name] for name in MEASURES] == pytest.approx(theirs, rel=1e-9, abs=1e-9, nan_ok=True)


def test_the_order_of_sets_and_the_number_of_threads_change_no_bit():
    frame, random = walk(5, 800), np.random.default_rng(1)
    sets = {"period": random.integers(2, 30, 2_500), "oversold": random.integers(20, 45, 2_500)}
    shuffled = random.permutation(2_500)
    first = score_sets(frame, "rsi", sets)
    second = score_sets(frame, "rsi", {name: column[shuffled] for name, column in sets.items()}, threads=3)
    for name in MEASURES:
        np.testing.assert_array_equal(first.figures[name][shuffled], second.figures[name])


def test_blocks_hold_the_sums_of_their_days_and_leave_out_what_is_left_out():
    frame = walk(6, 24 * 20)
    blocks = np.array([-1] * 2 + [0] * 7 + [-1] + [1] * 10)
    scores = score_sets(frame, "rsi", {"period": [5, 9]}, day_blocks=blocks)
    result = backtest(frame, "rsi", {"period": 9})
    ends = result.equity.iloc[23::24].to_numpy()
    returns = ends / np.concatenate(([10_000.0], ends[:-1])) - 1
    closed = result.trades[~result.trades["open_at_end"]]
    days = (closed["exit_time"] - frame.index[0]).dt.days.to_numpy()
    assert scores.block_days.tolist() == [7, 10]
    for block in (0, 1):
        assert scores.block_returns[1, block] == pytest.approx(returns[blocks == block].sum(), abs=1e-12)
        assert scores.block_squares[1, block] == pytest.approx((returns[blocks == block] ** 2).sum(), abs=1e-12)
        assert scores.block_trades[1, block] == np.isin(days, np.flatnonzero(blocks == block)).sum()


def test_blocks_that_do_not_fit_the_candles_are_refused():
    with pytest.raises(ValueError, match=r"day_blocks has shape \(3,\); a block for each of 2 days is needed"):
        score_sets(walk(1, 48), "rsi", {"period": [5]}, day_blocks=np.zeros(3))


@pytest.mark.parametrize(("sets", "says"), [({}, "there is no set"), ({"period": []}, "there is no set")])
def test_no_set_at_all_is_refused(sets: dict, says: str):
    with pytest.raises(InvalidParameters, match=says):
        score_sets(walk(1, 48), "rsi", sets)
    with pytest.raises(InvalidParameters, match="list of values"):
        sweep(walk(1, 48), "rsi", sets)
