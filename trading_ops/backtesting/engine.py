"""What would a strategy have earned on these candles, after costs?

Rules: DESIGN.md section 4, "Backtest". `_walk` is the one place where orders fill; it runs compiled by numba.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from math import isfinite
from typing import Any

import numpy as np
import pandas as pd

from trading_ops.market.candles import InvalidCandles, require_sound
from trading_ops.performance.metrics import max_drawdown, profit_factor, sharpe_ratio
from trading_ops.strategies.signals import STRATEGIES, InvalidParameters, check_parameters, check_stops, signals

INITIAL_USDT = 10_000.0
CLOSE_REASONS = ("signal", "stop_loss", "take_profit", "open_at_end")
SIGNAL, STOP_LOSS, TAKE_PROFIT, OPEN_AT_END = range(4)
MEASURES = (
    "total_trades",
    "win_rate_pct",
    "total_return_pct",
    "sharpe_ratio",
    "max_drawdown_pct",
    "profit_factor",
    "avg_duration_hours",
)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and isfinite(value)


class InvalidCosts(ValueError):
    """Costs or capital that cannot be; the message names field, value and what would be right."""


@dataclass(frozen=True)
class Costs:
    """What trading costs: fee and slippage in percent of a fill, the exchange's lot step and least order if known."""

    fee_pct: float = 0.1
    slippage_pct: float = 0.05
    lot_step: float | None = None
    min_notional_usdt: float | None = None

    def __post_init__(self) -> None:
        for name in ("fee_pct", "slippage_pct"):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value < 100:
                raise InvalidCosts(f"{name} is {value!r}; a percentage from 0 to below 100 would be right")
        if self.lot_step is not None and (not _is_number(self.lot_step) or self.lot_step <= 0):
            raise InvalidCosts(f"lot_step is {self.lot_step!r}; a quantity above 0, or None, would be right")
        if self.min_notional_usdt is not None and (
            not _is_number(self.min_notional_usdt) or self.min_notional_usdt < 0
        ):
            raise InvalidCosts(f"min_notional_usdt is {self.min_notional_usdt!r}; 0 or more, or None, would be right")


DEFAULT_COSTS = Costs()


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """What came of it. None is undefined: no closed trade, no loss (profit factor), too few days (Sharpe).

    `trades`: entry_time and exit_time (open of the bar of the fill, UTC; the last close where open_at_end), entry_price
    and exit_price (fills), quantity, fee_usdt, pnl_usdt (net), pnl_pct (net, of entry notional), bars, close_reason
    (CLOSE_REASONS), open_at_end. Open trades count in `equity` and the return only.
    `equity`, `unrealised` (mark value less entry notional and entry fee): USDT at each bar's close, the index "time".
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
    initial_usdt: float = INITIAL_USDT,
    entries_allowed: np.ndarray | None = None,
) -> BacktestResult:
    """Trade one strategy, long only, one position at a time, all of the equity.

    `parameters`: the strategy's, and for any of them stop_loss_pct and take_profit_pct (percent of the entry fill).
    `entries_allowed`: a bool a bar; False forbids an entry fill at this bar (a disabled strategy still leaves).
    Raises InvalidCandles, InvalidParameters, InvalidCosts.
    """
    checked = check_parameters(strategy, parameters)
    require_sound(candles, "candles")
    entries, exits = signals(candles, strategy, {name: checked[name] for name in STRATEGIES[strategy].defaults})
    stops = {name: checked.get(name) for name in ("stop_loss_pct", "take_profit_pct")}
    return _trade(candles, entries, exits, costs, stops, initial_usdt, entries_allowed)


def trade_signals(
    candles: pd.DataFrame,
    entries: np.ndarray,
    exits: np.ndarray,
    costs: Costs = DEFAULT_COSTS,
    *,
    stop_loss_pct: float | None = None,
    take_profit_pct: float | None = None,
    initial_usdt: float = INITIAL_USDT,
    entries_allowed: np.ndarray | None = None,
) -> BacktestResult:
    """`backtest` with signals of one's own: a bool a bar each, true at the close after which to act."""
    require_sound(candles, "candles")
    stops = check_stops("signals", {"stop_loss_pct": stop_loss_pct, "take_profit_pct": take_profit_pct})
    return _trade(candles, entries, exits, costs, stops, initial_usdt, entries_allowed)


def sweep(
    candles: pd.DataFrame, strategy: str, grid: Mapping[str, Sequence[Any]], costs: Costs = DEFAULT_COSTS
) -> pd.DataFrame:
    """One row for each combination of the grid's values: the grid's parameters, then MEASURES (NaN where undefined).

    Raises InvalidParameters before anything runs where one combination cannot be, such as oversold >= overbought.
    """
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence | np.ndarray) or len(values) == 0:
            raise InvalidParameters(f"{strategy}: {name} is {values!r}; a list of values to try would be right")
    sets = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    for parameters in sets:
        check_parameters(strategy, parameters)
    results = (backtest(candles, strategy, parameters, costs) for parameters in sets)
    rows = [
        parameters | {measure: getattr(result, measure) for measure in MEASURES}
        for parameters, result in zip(sets, results, strict=True)
    ]
    return pd.DataFrame(rows, columns=[*grid, *MEASURES]).astype(dict.fromkeys(MEASURES[1:], "float64"))


def _trade(
    candles: pd.DataFrame,
    entries: np.ndarray,
    exits: np.ndarray,
    costs: Costs,
    stops: Mapping[str, float | None],
    initial_usdt: float,
    entries_allowed: np.ndarray | None,
) -> BacktestResult:
    bars = len(candles)
    if bars < 2:
        raise InvalidCandles(f"a backtest needs at least 2 bars, one to decide at and one to fill in; there are {bars}")
    if not _is_number(initial_usdt) or initial_usdt <= 0:
        raise InvalidCosts(f"initial_usdt is {initial_usdt!r}; an amount above 0 would be right")
    allowed = np.ones(bars, dtype=bool) if entries_allowed is None else entries_allowed
    named = {"entries": entries, "exits": exits, "entries_allowed": allowed}
    flags = [_flags(name, given, bars) for name, given in named.items()]
    prices = [np.ascontiguousarray(candles[field].to_numpy("float64")) for field in ("open", "high", "low", "close")]
    wanted = stops.get("stop_loss_pct"), stops.get("take_profit_pct"), costs.lot_step, costs.min_notional_usdt
    limits = [np.nan if value is None else float(value) for value in wanted]
    equity, unrealised, places, amounts, rejected = _compiled()(
        *prices, *flags, costs.fee_pct / 100.0, costs.slippage_pct / 100.0, *limits, float(initial_usdt)
    )
    opens = pd.DatetimeIndex(candles.index, name="time").as_unit("us")
    closes = opens + pd.Timedelta(hours=1)
    trades = _trades(places, amounts, opens, closes)
    closed = trades[~trades["open_at_end"].to_numpy()]
    held = (closed["exit_time"] - closed["entry_time"]).dt.total_seconds() / 3600.0
    drawdown = max_drawdown(np.concatenate(([initial_usdt], equity)))
    return BacktestResult(
        total_trades=len(closed),
        win_rate_pct=100.0 * float((closed["pnl_usdt"] > 0).mean()) if len(closed) else None,
        total_return_pct=100.0 * float(equity[-1] / initial_usdt - 1.0),
        sharpe_ratio=sharpe_ratio(_daily_returns(opens, equity, initial_usdt)),
        max_drawdown_pct=100.0 * (drawdown or 0.0),
        profit_factor=profit_factor(closed),
        avg_duration_hours=float(held.mean()) if len(closed) else None,
        rejected_orders=int(rejected),
        trades=trades,
        equity=pd.Series(equity, index=closes, name="equity_usdt"),
        unrealised=pd.Series(unrealised, index=closes, name="unrealised_usdt"),
    )


def _daily_returns(opens: pd.DatetimeIndex, equity: np.ndarray, initial_usdt: float) -> np.ndarray:
    """E_d / E_(d-1) - 1 with E_d the last equity of UTC day d; the bar closing at 24:00 belongs to the day it ends."""
    days = opens.asi8 // (24 * 3_600_000_000)
    points = np.concatenate(([initial_usdt], equity[np.flatnonzero(np.diff(days, append=days[-1] + 1))]))
    return points[1:] / points[:-1] - 1.0


def _trades(places: np.ndarray, amounts: np.ndarray, opens: pd.DatetimeIndex, closes: pd.DatetimeIndex) -> pd.DataFrame:
    entry_bar, exit_bar, reason = places.T
    entry_price, exit_price, quantity, fee = amounts.T
    pnl = quantity * (exit_price - entry_price) - fee
    still_open = reason == OPEN_AT_END
    return pd.DataFrame(
        {
            "entry_time": opens[entry_bar],
            "exit_time": opens[exit_bar].where(~still_open, closes[exit_bar]),
            "entry_price": entry_price,
            "exit_price": exit_price,
            "quantity": quantity,
            "fee_usdt": fee,
            "pnl_usdt": pnl,
            "pnl_pct": 100.0 * pnl / (quantity * entry_price),
            "bars": exit_bar - entry_bar,
            "close_reason": pd.Series(np.array(CLOSE_REASONS, dtype=object)[reason], dtype="str"),
            "open_at_end": still_open,
        }
    )


def _walk(
    opened: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    close: np.ndarray,
    entries: np.ndarray,
    exits: np.ndarray,
    allowed: np.ndarray,
    fee: float,
    slip: float,
    stop_pct: float,
    target_pct: float,
    lot_step: float,
    min_notional: float,
    cash: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int]:
    """Bar by bar: the order of the close before fills at the open, then stop and target, then the mark at the close.

    fee and slip are fractions; NaN switches a stop, target, lot step or least order off. Returns equity and unrealised
    (n,), trades as (entry bar, exit bar, reason) and (entry fill, exit fill, quantity, fees), and the rejected orders.
    """
    bars = len(opened)
    equity, unrealised = np.empty(bars), np.zeros(bars)
    places, amounts = np.empty((bars, 3), np.int64), np.empty((bars, 4))
    count, rejected = 0, 0
    quantity, entry, paid, since = 0.0, 0.0, 0.0, 0
    for i in range(bars):
        fill, reason = 0.0, SIGNAL
        if quantity > 0.0:
            if exits[i - 1]:
                fill = opened[i] * (1.0 - slip)
        elif i > 0 and entries[i - 1] and allowed[i]:
            entry = opened[i] * (1.0 + slip)
            bought = cash / (entry * (1.0 + fee))
            if lot_step > 0.0:
                bought = np.floor(bought / lot_step + 1e-9) * lot_step
            if bought <= 0.0 or bought * entry < min_notional:
                rejected += 1
            else:
                quantity, paid, since = bought, bought * entry * fee, i
                cash -= quantity * entry + paid
        if quantity > 0.0 and fill == 0.0:
            stop, target = entry * (1.0 - stop_pct / 100.0), entry * (1.0 + target_pct / 100.0)
            # What the open decides comes first; within the bar the order is unknown, so the worse is taken.
            gapped_up = i > since and opened[i] >= target
            if low[i] <= stop and not gapped_up:
                fill, reason = min(opened[i], stop) * (1.0 - slip), STOP_LOSS
            elif gapped_up or high[i] >= target:
                fill, reason = target, TAKE_PROFIT
        if fill > 0.0:
            cost = quantity * fill * fee
            cash += quantity * fill - cost
            places[count] = since, i, reason
            amounts[count] = entry, fill, quantity, paid + cost
            count += 1
            quantity = 0.0
        equity[i] = cash + quantity * close[i]
        if quantity > 0.0:
            unrealised[i] = quantity * (close[i] - entry) - paid
    if quantity > 0.0:
        places[count] = since, bars - 1, OPEN_AT_END
        amounts[count] = entry, close[bars - 1], quantity, paid
        count += 1
    return equity, unrealised, places[:count].copy(), amounts[:count].copy(), rejected


@cache
def _compiled() -> Callable[..., Any]:
    import numba  # here, since it takes half a second and not every importer trades

    try:
        return numba.njit(cache=True)(_walk)
    except RuntimeError:  # no folder to write the cache to, as in a read-only container
        return numba.njit(_walk)


def _flags(name: str, given: np.ndarray, bars: int) -> np.ndarray:
    flags = np.asarray(given)
    if flags.dtype != bool or flags.shape != (bars,):
        raise ValueError(f"{name} is {flags.dtype} of shape {flags.shape}; bool of shape ({bars},) would be right")
    return np.ascontiguousarray(flags)
