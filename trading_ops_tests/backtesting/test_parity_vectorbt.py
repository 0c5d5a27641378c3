"""Does a sweep give the trades and measures that vectorbt gives, set for set, on a recorded year?"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trading_ops.backtesting.engine import sweep
from trading_ops.backtesting.orders import Costs
from trading_ops.strategies.signals import signals
from trading_ops_tests.backtesting.vectorbt_sweep import vectorbt_sweep

BARS = 8_760
COSTS = Costs(fee_pct=0.1, slippage_pct=0.05)
GRID = {
    "period": [5, 7, 9, 11, 13, 14, 17, 19, 21, 28],
    "oversold": [18.0, 20.0, 22.5, 25.0, 27.5, 30.0, 32.5, 35.0, 40.0, 45.0],
    "overbought": [50.0, 55.0, 57.5, 60.0, 65.0, 67.5, 70.0, 75.0, 80.0, 85.0],
}


@pytest.fixture
def year(market: Path) -> pd.DataFrame:
    frame = pd.read_parquet(market / "BTCUSDT-1h.parquet").set_index("ts").rename_axis("time")[-BARS:]
    assert (np.diff(frame.index) == pd.Timedelta(hours=1)).all()
    return frame


def test_a_thousand_rsi_sets_trade_and_measure_as_in_vectorbt(year: pd.DataFrame):
    # The reference shares nothing with ours but the candles: RSI, crossings, fills and measures are its own.
    ours, theirs = sweep(year, "rsi", GRID, COSTS), vectorbt_sweep(year, GRID, COSTS)
    assert len(ours) == len(theirs) == 1_000
    np.testing.assert_array_equal(ours[list(GRID)], theirs[list(GRID)])
    np.testing.assert_array_equal(ours["total_trades"], theirs["total_trades"])
    assert_close(ours["total_return_pct"] / 100, theirs["total_return_pct"] / 100, 1e-10)
    assert_close(ours["sharpe_ratio"], theirs["sharpe_ratio"], 1e-8)
    assert_close(ours["max_drawdown_pct"] / 100, theirs["max_drawdown_pct"] / 100, 1e-10)
    assert_close(ours["win_rate_pct"], theirs["win_rate_pct"], 1e-10)
    assert_close(ours["profit_factor"], theirs["profit_factor"], 1e-8)
    assert_close(ours["avg_duration_hours"], theirs["avg_duration_hours"], 1e-8)
    # what was compared is no desert: many trades, undefined measures, both signs
    assert ours["total_trades"].sum() > 40_000
    assert (ours["total_return_pct"] > 0).any()
    assert (ours["total_return_pct"] < 0).any()
    assert ours["profit_factor"].isna().any()


@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaPendingDeprecationWarning")  # vectorbt's lists
def test_our_rsi_signals_are_those_of_vectorbts_own_rsi_once_it_has_forgotten_its_start(year: pd.DataFrame):
    """vectorbt's RSI is no TA-Lib: it averages exponentially from the first change on, where Wilder starts with a mean.

    With a span of 2 * period - 1 both weigh a change by 1 / period; the start fades by (1 - 1 / period) a bar.
    """
    import vectorbt as vbt

    close = year["close"].tz_localize(None)
    own = vbt.RSI.run(close, window=[2 * period - 1 for period in GRID["period"]], ewm=True).rsi.to_numpy()
    for period, theirs in zip(GRID["period"], own.T, strict=True):
        settled = slice(40 * period, None)  # (1 - 1 / period) ** (40 * period) is below e ** -40
        before = np.append(np.nan, theirs[:-1])
        for oversold, overbought in zip(GRID["oversold"], GRID["overbought"], strict=True):
            limits = {"period": period, "oversold": oversold, "overbought": overbought}
            entries, exits = signals(year, "rsi", limits)
            np.testing.assert_array_equal(entries[settled], ((before >= oversold) & (theirs < oversold))[settled])
            np.testing.assert_array_equal(exits[settled], ((before <= overbought) & (theirs > overbought))[settled])


def assert_close(ours: pd.Series, theirs: pd.Series, tolerance: float) -> None:
    """Undefined in the same sets, and elsewhere within an absolute tolerance."""
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance, equal_nan=True)
