"""Do ten bars, worked out with a pencil, give these very dollars?

One story: it buys at 100, and a gap throws it out below its stop; it buys at 90, and of a bar that touches stop and
target alike it takes the worse; it buys a third time and leaves by signal with a profit; the signal of the last bar is
never filled. The fee is 1 %, slippage 0, the stop 10 %, the target 20 %.
"""

import numpy as np
import pandas as pd
import pytest

from trading_ops.backtesting.engine import backtest, sweep, trade_signals
from trading_ops.backtesting.orders import Costs

FEE = Costs(fee_pct=1, slippage_pct=0)
LIMITS = {"stop_loss_pct": 10.0, "take_profit_pct": 20.0}
# open, high, low, close; entry signals at the closes of 0, 2, 5 and 9, exit signals at the closes of 7 and 8
BARS = [
    (100, 100, 100, 100),
    (100, 105, 95, 102),  # buys at 100: stop 90, target 120
    (80, 92, 78, 90),  # opens below the stop: sold at the open, 80, not at 90
    (90, 92, 88, 91),  # buys at 90: stop 81, target 108
    (91, 110, 80, 100),  # touches both: sold at the stop, 81
    (100, 100, 100, 100),
    (100, 104, 98, 103),  # buys at 100: stop 90, target 120
    (103, 112, 102, 110),
    (110, 111, 108, 110),  # the exit signal of 7 fills at 110; that of 8 finds nothing to sell
    (110, 110, 110, 110),  # the entry signal of the last bar has no bar to fill in
]
# what a dollar becomes in each trade: bought with the fee, sold less the fee
GAPPED, STOPPED, LEFT = (0.99 * sold / (1.01 * bought) for bought, sold in ((100, 80), (90, 81), (100, 110)))


def frame(bars: list[tuple] = BARS) -> pd.DataFrame:
    index = pd.date_range("2024-01-01", periods=len(bars), freq="h", tz="UTC", name="time")
    return pd.DataFrame(np.array(bars, float), index=index, columns=["open", "high", "low", "close"]).assign(volume=1.0)


def flags(*at: int, count: int = 10) -> np.ndarray:
    return np.isin(np.arange(count), at)


def test_ten_bars_with_a_gap_a_clash_a_signal_and_a_last_signal_to_the_cent():
    result = trade_signals(frame(), flags(0, 2, 5, 9), flags(7, 8), FEE, **LIMITS)
    trades = result.trades
    assert trades["close_reason"].tolist() == ["stop_loss", "stop_loss", "signal"]
    assert trades["entry_price"].tolist() == pytest.approx([100, 90, 100])
    assert trades["exit_price"].tolist() == pytest.approx([80, 81, 110])
    assert trades["entry_time"].dt.hour.tolist() == [1, 3, 6]
    assert trades["exit_time"].dt.hour.tolist() == [2, 4, 8]
    # 10,000 -> 7,841.58 -> 6,917.67 -> 7,458.76
    assert result.equity.round(2).tolist() == [10_000, 10_099.01, 7_841.58, 7_850.21] + [6_917.67] * 2 + [
        7_054.66,
        7_534.1,
        7_458.76,
        7_458.76,
    ]
    assert trades["pnl_usdt"].tolist() == pytest.approx([-2_158.4158, -923.9094, 541.0854], abs=1e-4)
    assert trades["quantity"].tolist() == pytest.approx([99.0099, 86.2661, 68.4918], abs=1e-4)
    assert trades["fee_usdt"].tolist() == pytest.approx([178.2178, 147.5149, 143.8328], abs=1e-4)
    assert result.equity.iloc[-1] == pytest.approx(10_000 * GAPPED * STOPPED * LEFT)
    assert (result.total_trades, result.avg_duration_hours, result.rejected_orders) == (3, pytest.approx(4 / 3), 0)
    assert result.win_rate_pct == pytest.approx(100 / 3)
    assert result.total_return_pct == pytest.approx(-25.4124, abs=1e-4)
    assert result.profit_factor == pytest.approx(541.0854 / (2_158.4158 + 923.9094), abs=1e-6)
    assert result.max_drawdown_pct == pytest.approx(100 * (1 - 6_917.6747 / 10_099.0099), abs=1e-5)
    assert result.sharpe_ratio is None  # one day


def test_ten_bars_without_the_exit_end_in_an_open_position_that_counts_in_equity_alone():
    result = trade_signals(frame(), flags(0, 2, 5, 9), flags(), FEE, **LIMITS)
    last = result.trades.iloc[-1]
    assert (last["close_reason"], last["exit_price"]) == ("open_at_end", 110)
    assert last["exit_time"] == pd.Timestamp("2024-01-01 10:00", tz="UTC")  # the last close
    # 6,917.67 buys 68.4918 at 100 and pays 68.49; at 110 they are worth 7,534.10, and no fee is paid for a mark
    assert last["pnl_usdt"] == pytest.approx(68.49183 * 10 - 68.49183, abs=1e-3)
    assert result.equity.iloc[-1] == pytest.approx(10_000 * GAPPED * STOPPED * 110 / 101)
    assert (result.total_trades, result.win_rate_pct, result.profit_factor) == (2, 0.0, 0.0)
    assert result.avg_duration_hours == 1.0


def test_ten_bars_that_a_strategy_of_its_own_trades_by_hand():
    # Changes - -1 -1 2 3 3 -2 1 -1 -2; the averages start as the mean of two, then halve and take half of the newest.
    # RSI(2): - - 0 66.7 88.9 95.2 54.1 67.9 42.3 16.9. The 0 has nothing before it to cross from.
    close = [100, 99, 98, 100, 103, 106, 104, 105, 104, 102]
    bars = frame([(c, c, c, c) for c in close])
    parameters = {"period": 2, "oversold": 50, "overbought": 70}
    result = backtest(bars, "rsi", parameters, FEE)  # crosses below 50 at the close of 8
    (row,) = result.trades.to_dict("records")
    assert (row["entry_time"].hour, row["entry_price"], row["close_reason"]) == (9, 102, "open_at_end")
    assert result.equity.iloc[-1] == pytest.approx(10_000 / 1.01)
    table = sweep(bars, "rsi", {"period": [2], "oversold": [10, 50], "overbought": [70]}, FEE)
    assert table["total_return_pct"].tolist() == pytest.approx([0.0, 100 / 1.01 - 100])  # never crosses 10
    assert table["total_trades"].tolist() == [0, 0]
    undefined = ["win_rate_pct", "sharpe_ratio", "profit_factor", "avg_duration_hours"]
    assert table[undefined].isna().all(axis=None)
    assert table["max_drawdown_pct"].tolist() == pytest.approx([0.0, 100 - 100 / 1.01])
