"""What would a strategy have earned on these candles, after costs?

Rules: docs/backtests.md. The loops are in kernel.py, costs and ways of placing orders in orders.py, many
parameter sets at once in scores.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trading_ops.backtesting.bars import bars_of
from trading_ops.backtesting.filling import Filled, fill
from trading_ops.backtesting.orders import AT_ONCE, DEFAULT_COSTS, INITIAL_USDT, Costs, Execution, fraction, terms_of
from trading_ops.backtesting.scores import score_sets
from trading_ops.market.soundness import require_sound
from trading_ops.performance.metrics import max_drawdown, profit_factor, sharpe_ratio
from trading_ops.strategies.signals import STRATEGIES, InvalidParameters, check_parameters, check_stops, signals

CLOSE_REASONS = ("signal", "stop_loss", "take_profit", "open_at_end", "liquidation")  # by the kernel's numbers


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """What came of it. None is undefined: no closed trade, no loss (profit factor), too few days (Sharpe).

    `trades`: entry_time and exit_time (open of the bar of the fill, UTC; the last close where open_at_end), entry_price
    and exit_price (fills), quantity, fee_usdt, funding_usdt, pnl_usdt (net), pnl_pct (net, of entry notional), bars,
    close_reason (CLOSE_REASONS), open_at_end. Open trades count in `equity` and the return only.
    `equity`, `unrealised` (mark value less entry notional, entry fee and funding): USDT at each bar's close, the index
    "time".
    """

    total_trades: int
    win_rate_pct: float | None
    total_return_pct: float
    sharpe_ratio: float | None
    max_drawdown_pct: float
    profit_factor: float | None
    avg_duration_hours: float | None
    rejected_orders: int
    trades: pd.DataFrame
    equity: pd.Series
    unrealised: pd.Series


def backtest(
    candles: pd.DataFrame,
    strategy: str,
    parameters: Mapping[str, Any] | None = None,
    costs: Costs = DEFAULT_COSTS,
    *,
    execution: Execution = AT_ONCE,
    initial_usdt: float = INITIAL_USDT,
    entries_allowed: np.ndarray | None = None,
) -> BacktestResult:
    """Trade one strategy, one position at a time.

    `parameters`: the strategy's, and for any of them stop_loss_pct and take_profit_pct (percent of the entry fill).
    `entries_allowed`: a bool a bar; False forbids an entry fill at this bar (a disabled strategy still leaves).
    Raises InvalidCandles, InvalidParameters, InvalidCosts.
    """
    checked = check_parameters(strategy, parameters)
    require_sound(candles, "candles")
    own = {name: checked[name] for name in STRATEGIES[strategy].defaults}
    entries, exits = signals(candles, strategy, own, side=execution.side)
    return _trade(candles, entries, exits, costs, checked, execution, initial_usdt, entries_allowed)


def trade_signals(
    candles: pd.DataFrame,
    entries: np.ndarray,
    exits: np.ndarray,
    costs: Costs = DEFAULT_COSTS,
    *,
    stop_loss_pct: float | None = None,
    take_profit_pct: float | None = None,
    execution: Execution = AT_ONCE,
    initial_usdt: float = INITIAL_USDT,
    entries_allowed: np.ndarray | None = None,
) -> BacktestResult:
    """`backtest` with signals of one's own: a bool a bar each, true at the close after which to act."""
    require_sound(candles, "candles")
    stops = check_stops("signals", {"stop_loss_pct": stop_loss_pct, "take_profit_pct": take_profit_pct})
    return _trade(candles, entries, exits, costs, stops, execution, initial_usdt, entries_allowed)


def sweep(
    candles: pd.DataFrame,
    strategy: str,
    grid: Mapping[str, Sequence[Any]],
    costs: Costs = DEFAULT_COSTS,
    *,
    execution: Execution = AT_ONCE,
    threads: int = 1,
) -> pd.DataFrame:
    """One row for each combination of the grid's values: the grid's parameters, then MEASURES (NaN where undefined).

    Raises InvalidParameters before anything runs where one combination cannot be, such as oversold >= overbought.
    """
    if not grid:
        raise InvalidParameters(f"{strategy}: the grid is empty; a list of values for each parameter would be right")
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or len(values) == 0:
            raise InvalidParameters(f"{strategy}: {name} is {values!r}; a list of values to try would be right")
    kinds = {name: pd.Series(list(values)) for name, values in grid.items()}
    places = np.indices([len(values) for values in kinds.values()]).reshape(len(kinds), -1)
    sets = {
        name: values.take(at).reset_index(drop=True) for (name, values), at in zip(kinds.items(), places, strict=True)
    }
    scores = score_sets(candles, strategy, sets, costs, execution=execution, threads=threads)
    return pd.DataFrame(sets | scores.figures)


def _trade(
    candles: pd.DataFrame,
    entries: np.ndarray,
    exits: np.ndarray,
    costs: Costs,
    stops: Mapping[str, Any],
    execution: Execution,
    initial_usdt: float,
    entries_allowed: np.ndarray | None,
) -> BacktestResult:
    count = len(candles)
    allowed = np.ones(count, dtype=bool) if entries_allowed is None else entries_allowed
    bars, terms = bars_of(candles, costs), terms_of(costs, execution, initial_usdt)
    named = {"entries": entries, "exits": exits, "entries_allowed": allowed}
    enter, leave, may = (_flags(name, given, count) for name, given in named.items())
    limits = [fraction(stops.get(name)) for name in ("stop_loss_pct", "take_profit_pct")]
    filled = fill(bars, terms, np.flatnonzero(enter), np.flatnonzero(leave), may, *limits)
    opens = pd.DatetimeIndex(candles.index, name="time").as_unit("us")
    closes = opens + pd.Timedelta(hours=1)
    trades = _trades(filled, opens, closes)
    closed = trades[~trades["open_at_end"].to_numpy()]
    held = (closed["exit_time"] - closed["entry_time"]).dt.total_seconds() / 3600.0
    points, equity = np.concatenate(([initial_usdt], filled.ends)), filled.equity
    return BacktestResult(
        total_trades=len(closed),
        win_rate_pct=100.0 * float((closed["pnl_usdt"] > 0).mean()) if len(closed) else None,
        total_return_pct=100.0 * float(equity[-1] / initial_usdt - 1.0),
        sharpe_ratio=sharpe_ratio(day_returns(points)),
        max_drawdown_pct=100.0 * (max_drawdown(np.concatenate(([initial_usdt], equity))) or 0.0),
        profit_factor=profit_factor(closed),
        avg_duration_hours=float(held.mean()) if len(closed) else None,
        rejected_orders=filled.rejected,
        trades=trades,
        equity=pd.Series(equity, index=closes, name="equity_usdt"),
        unrealised=pd.Series(filled.unrealised, index=closes, name="unrealised_usdt"),
    )


def day_returns(points: np.ndarray) -> np.ndarray:
    """E_d / E_(d-1) - 1 of the start capital and the last equity of each UTC day; 0 once all is lost.

    The bar that closes at 24:00 belongs to the day it ends.
    """
    before = points[:-1]
    return np.divide(points[1:], before, out=np.ones(len(before)), where=before > 0) - 1.0


def _trades(filled: Filled, opens: pd.DatetimeIndex, closes: pd.DatetimeIndex) -> pd.DataFrame:
    entry_bar, exit_bar, reason = filled.places.T
    entry_price, exit_price, quantity, fee, funding = filled.amounts.T
    pnl = filled.pnl_usdt
    still_open = reason == CLOSE_REASONS.index("open_at_end")
    return pd.DataFrame(
        {
            "entry_time": opens[entry_bar],
            "exit_time": opens[exit_bar].where(~still_open, closes[exit_bar]),
            "entry_price": entry_price,
            "exit_price": exit_price,
            "quantity": quantity,
            "fee_usdt": fee,
            "funding_usdt": funding,
            "pnl_usdt": pnl,
            "pnl_pct": 100.0 * pnl / (quantity * entry_price),
            "bars": exit_bar - entry_bar,
            "close_reason": pd.Series(np.array(CLOSE_REASONS, dtype=object)[reason], dtype="str"),
            "open_at_end": still_open,
        }
    )


def _flags(name: str, given: np.ndarray, bars: int) -> np.ndarray:
    flags = np.asarray(given)
    if flags.dtype != bool or flags.shape != (bars,):
        raise ValueError(f"{name} is {flags.dtype} of shape {flags.shape}; bool of shape ({bars},) would be right")
    return np.ascontiguousarray(flags)
