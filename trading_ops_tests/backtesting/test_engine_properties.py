"""Can the future change the past, and can a dearer market make more of the same trades?"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.backtesting.engine import backtest, trade_signals
from trading_ops.backtesting.orders import Costs
from trading_ops.strategies.signals import STRATEGIES

CUTS = 200
BARS = 1_000
FREQUENT = {  # so that every part of the path holds trades
    "rsi": {"period": 7, "oversold": 35.0, "overbought": 65.0},
    "macd": {"fast": 6, "slow": 13, "signal": 5},
    "bollinger": {"period": 14, "deviations": 1.5},
    "volume": {"period": 12, "multiplier": 1.5},
}
FILLS = ["entry_time", "entry_price", "quantity"]


@pytest.mark.parametrize("strategy", sorted(STRATEGIES))
def test_no_fill_before_any_of_200_bars_changes_with_what_comes_after(market: Path, strategy: str):
    """From a random bar on the future is taken away; at every tenth it is also replaced by one ten times as high."""
    frame = pd.read_parquet(market / "ETHUSDT-1h.parquet").set_index("ts").rename_axis("time")[-BARS:]
    parameters = FREQUENT.get(strategy, {}) | {"stop_loss_pct": 2.0, "take_profit_pct": 3.0}
    whole = backtest(frame, strategy, parameters)
    assert whole.total_trades > 20
    equity, entered = whole.equity.to_numpy(), whole.trades["entry_time"]
    closed_in_whole = whole.trades[~whole.trades["open_at_end"]]
    for number, cut in enumerate(np.random.default_rng(7).choice(np.arange(2, BARS), CUTS, replace=False)):
        now, futures = frame.index[cut], [frame[:cut]]
        if number % 10 == 0:
            futures.append(pd.concat((frame[:cut], 10.0 * frame[cut:])))
        for result in (backtest(future, strategy, parameters) for future in futures):
            assert result.equity.to_numpy()[:cut].tobytes() == equity[:cut].tobytes()
            trades = result.trades
            assert_same(trades.loc[trades["entry_time"] < now, FILLS], whole.trades.loc[entered < now, FILLS])
            closed = trades[~trades["open_at_end"] & (trades["exit_time"] < now)]
            assert_same(closed, closed_in_whole[closed_in_whole["exit_time"] < now])


def assert_same(ours: pd.DataFrame, whole: pd.DataFrame) -> None:
    for name in whole:
        assert ours[name].tolist() == whole[name].tolist(), name


seeds = st.integers(0, 2**32 - 1)
rates = st.floats(0, 5)


def path_and_signals(seed: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """120 bars, half of which gap, and signals as dense as they come."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.02, 120)))
    opened = np.append(100.0, close[:-1]) * np.where(random.random(120) < 0.5, np.exp(random.normal(0, 0.02, 120)), 1)
    high, low = (pick(opened, close) * by for pick, by in ((np.maximum, 1.01), (np.minimum, 0.99)))
    index = pd.date_range("2024-01-01", periods=120, freq="h", tz="UTC", name="time")
    columns = {"open": opened, "high": high, "low": low, "close": close, "volume": np.ones(120)}
    entries, exits = random.random((2, 120)) < 0.2
    return pd.DataFrame(columns, index=index), entries, exits


@settings(deadline=None, max_examples=150)
@given(seeds, rates, rates, st.floats(0, 1), st.sampled_from([None, 1.0, 4.0]), st.sampled_from([None, 1.5, 6.0]))
def test_a_higher_fee_never_raises_the_return_of_the_same_trades(
    seed: int, one: float, other: float, slippage: float, stop: float | None, target: float | None
):
    frame, entries, exits = path_and_signals(seed)
    limits = {"stop_loss_pct": stop, "take_profit_pct": target}  # of the entry fill: a fee does not move them
    low, high = (
        trade_signals(frame, entries, exits, Costs(fee_pct=fee, slippage_pct=slippage), **limits)
        for fee in sorted((one, other))
    )
    same = ["entry_time", "exit_time", "entry_price", "exit_price", "close_reason"]
    pd.testing.assert_frame_equal(low.trades[same], high.trades[same])
    assert not_above(high.equity, low.equity)
    assert not_above(high.trades["pnl_pct"], low.trades["pnl_pct"], slack=1e-9)


@settings(deadline=None, max_examples=150)
@given(seeds, rates, rates, st.floats(0, 1))
def test_more_slippage_never_raises_the_return_of_the_same_trades(seed: int, one: float, other: float, fee: float):
    frame, entries, exits = path_and_signals(seed)  # without stops, which slippage would move
    low, high = (
        trade_signals(frame, entries, exits, Costs(fee_pct=fee, slippage_pct=slippage))
        for slippage in sorted((one, other))
    )
    same = ["entry_time", "exit_time", "close_reason"]
    pd.testing.assert_frame_equal(low.trades[same], high.trades[same])
    assert not_above(high.equity, low.equity)


def not_above(dear: pd.Series, cheap: pd.Series, slack: float = 0.0) -> bool:
    return bool((dear.to_numpy() <= cheap.to_numpy() * (1 + np.sign(cheap.to_numpy()) * 1e-12) + slack).all())
