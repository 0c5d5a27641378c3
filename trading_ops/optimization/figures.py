"""How did one parameter set, or holding the coin, do over some of the days?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.backtesting.engine import BacktestResult, backtest, day_returns, trade_signals
from trading_ops.backtesting.orders import INITIAL_USDT
from trading_ops.optimization.overfitting import probabilistic_sharpe
from trading_ops.optimization.periods import bar_days
from trading_ops.performance.metrics import (
    DAYS_PER_YEAR,
    max_drawdown,
    sharpe_ratio,
    sharpe_standard_error,
    win_rate,
)

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.backtesting.orders import Costs, Execution


class Traded:
    """One backtest over all days of some candles, to be looked at over any of them."""

    def __init__(self, candles: pd.DataFrame, result: BacktestResult) -> None:
        days = bar_days(candles)
        self.days = np.unique(days)
        ends = np.flatnonzero(np.diff(days, append=days[-1] + 1))
        self._returns = day_returns(np.concatenate(([INITIAL_USDT], result.equity.to_numpy()[ends])))
        self._closed = result.trades[~result.trades["open_at_end"]]
        left = self._closed["exit_time"].dt.as_unit("us").dt.tz_localize(None).to_numpy().astype("int64")
        self._closed_on = left // (timedelta(days=1) // timedelta(microseconds=1))

    def returns(self, days: np.ndarray) -> np.ndarray:
        """The equity's returns on these days."""
        return self._returns[np.isin(self.days, days)]

    def trades(self, days: np.ndarray) -> pd.DataFrame:
        """The trades closed on these days."""
        return self._closed[np.isin(self._closed_on, days)]

    def figures(self, days: np.ndarray) -> dict[str, Any]:
        """What it did on these days alone, as if they followed upon each other."""
        closed = self.trades(days)
        won = win_rate(closed)
        return {
            **return_figures(self.returns(days)),
            "total_trades": len(closed),
            "win_rate_pct": None if won is None else 100.0 * won,
        }


def trade_set(
    candles: pd.DataFrame,
    strategy: str,
    parameters: Mapping[str, Any],
    costs: Costs,
    execution: Execution,
    *,
    first_day: int | None = None,
) -> Traded:
    """The set traded over all of the candles; entries from `first_day` (days since 1970) on."""
    allowed = None if first_day is None else bar_days(candles) >= first_day
    return Traded(candles, backtest(candles, strategy, parameters, costs, execution=execution, entries_allowed=allowed))


def hold(candles: pd.DataFrame, costs: Costs, execution: Execution, first_day: int) -> Traded:
    """Buy-and-hold: all of the equity from the open of `first_day` to the end, long, at the same costs.

    Bought at the first open at which an order of the bar before can fill.
    """
    entries = np.ones(len(candles), dtype=bool)
    long = replace(execution, side="long", latency_bars=0, equity_pct=100.0)
    allowed = bar_days(candles) >= first_day
    result = trade_signals(candles, entries, ~entries, costs, execution=long, entries_allowed=allowed)
    return Traded(candles, result)


def return_figures(returns: np.ndarray) -> dict[str, Any]:
    """Figures that follow from daily returns alone; None where undefined. The drawdown is that of daily equity.

    `probabilistic_sharpe`: the probability that the true Sharpe ratio is above 0.
    """
    curve = np.cumprod(np.concatenate(([1.0], 1.0 + returns)))
    sharpe = sharpe_ratio(returns)
    return {
        "days": len(returns),
        "total_return_pct": 100.0 * float(curve[-1] - 1.0),
        "sharpe_ratio": sharpe,
        "sharpe_standard_error": sharpe_standard_error(returns),
        "probabilistic_sharpe": None
        if sharpe is None
        else probabilistic_sharpe(sharpe / DAYS_PER_YEAR**0.5, 0.0, len(returns), *shape_of(returns)),
        "max_drawdown_pct": 100.0 * (max_drawdown(curve) or 0.0),
    }


def shape_of(returns: np.ndarray) -> tuple[float, float]:
    """Skewness and raw kurtosis, of the population.

    >>> shape_of(np.array([-1.0, 0.0, 1.0]))  # symmetric; m4 / m2^2 = (2/3) / (4/9)
    (0.0, 1.5)
    """
    centred = returns - returns.mean()
    spread = np.mean(centred**2)
    return float(np.mean(centred**3) / spread**1.5), float(np.mean(centred**4) / spread**2)
