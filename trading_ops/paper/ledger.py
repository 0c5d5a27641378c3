"""What did the strategies trade on these candles, and what was each worth at every hour?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from trading_ops.bot.client import BotError
from trading_ops.bot.records import TRADE_FIELDS, OpenOrder
from trading_ops.market.candles import CandleError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

CAPITAL_USDT = 10_000.0  # of each strategy, split evenly over the symbols
# slower than the textbook's daily settings: on hourly bars those trade their capital away in fees
PARAMETERS: dict[str, dict[str, float]] = {
    "rsi": {"period": 7, "oversold": 30, "overbought": 70},
    "macd": {"fast": 36, "slow": 96, "signal": 24},
    "bollinger": {"period": 24, "deviations": 2.0},
    "volume": {"period": 48, "multiplier": 2.5},
}


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything that happened up to `until`: `trades` with the engine's open ones, and hourly wide frames."""

    until: datetime
    trades: pd.DataFrame
    equity: pd.DataFrame
    unrealised: pd.DataFrame
    orders: tuple[OpenOrder, ...]


def trade_all(
    candles: Mapping[str, pd.DataFrame],
    changes: Mapping[str, Sequence[dict[str, Any]]],
    until: datetime,
    *,
    idle: int,
    ended: Sequence[str],
) -> Ledger:
    """Run every strategy over every symbol's candles up to `until`.

    `changes`: each strategy's disables and enables. `idle`: symbols that have no candles, whose share of the capital
    stays in cash. `ended`: symbols whose candles ended before, which leave no order. Raises BotError for candles that
    cannot be traded.
    """
    import pandas as pd

    from trading_ops.backtesting.engine import trade_signals
    from trading_ops.strategies.signals import signals

    share = CAPITAL_USDT / (len(candles) + idle)
    trades: list[pd.DataFrame] = []
    orders: list[OpenOrder] = []
    equity: dict[tuple[str, str], pd.Series] = {}
    unrealised: dict[tuple[str, str], pd.Series] = {}
    for symbol, bars in candles.items():
        for name, parameters in PARAMETERS.items():
            allowed = entries_allowed(bars.index.append(pd.DatetimeIndex([until])), changes[name])
            try:
                entries, exits = signals(bars, name, parameters)
                result = trade_signals(bars, entries, exits, initial_usdt=share, entries_allowed=allowed[:-1])
            except (CandleError, ValueError) as error:
                raise BotError(f"{name} cannot trade {symbol}: {error}") from error
            equity[name, symbol], unrealised[name, symbol] = result.equity, result.unrealised
            trades.append(_as_closed_trades(result.trades, name, symbol))
            order = _order_at_end(name, symbol, until, entries[-1], exits[-1], result.trades, allowed[-1])
            orders += [order] if order and symbol not in ended else []
    return Ledger(
        until,
        pd.concat(trades).sort_values(["closed_at", "trade_id"], ignore_index=True),
        _by_strategy(equity, fill=share) + share * idle,
        _by_strategy(unrealised, fill=0.0),
        tuple(orders),
    )


def entries_allowed(times: pd.DatetimeIndex, changes: Sequence[dict[str, Any]]) -> np.ndarray:
    """For each bar's open, whether a strategy with these changes may enter there; enabled before the first change."""
    import numpy as np
    import pandas as pd

    at = pd.DatetimeIndex([change["at"] for change in changes], tz="UTC") if changes else times[:0]
    states = np.array([True, *(change["enabled"] for change in changes)])
    return states[np.searchsorted(at.as_unit("us").asi8, times.as_unit("us").asi8, side="right")]


def _order_at_end(
    strategy: str, symbol: str, until: datetime, entry: bool, leave: bool, trades: pd.DataFrame, may_enter: bool
) -> OpenOrder | None:
    """The order that the last bar's signal left for the next open, if it left one."""
    holding = bool(trades["open_at_end"].any())
    if not (leave if holding else entry and may_enter):
        return None
    intent: Literal["entry", "exit"] = "exit" if holding else "entry"
    order_id = f"{strategy}-{symbol}-{until:%Y%m%dT%H}-{intent}"
    return OpenOrder(order_id=order_id, strategy=strategy, symbol=symbol, intent=intent, created_at=until)


def _as_closed_trades(trades: pd.DataFrame, strategy: str, symbol: str) -> pd.DataFrame:
    """The engine's trades with the fields of a bot's closed trade; ids follow from strategy, symbol and entry hour."""
    ids = f"{strategy}-{symbol}-" + trades["entry_time"].dt.strftime("%Y%m%dT%H")
    return trades.assign(
        trade_id=ids,
        position_id=ids,
        strategy=strategy,
        symbol=symbol,
        side="long",
        market="spot",
        funding_usdt=0.0,
        opened_at=trades["entry_time"].astype("datetime64[us, UTC]"),
        closed_at=trades["exit_time"].astype("datetime64[us, UTC]"),
    )[[*TRADE_FIELDS, "open_at_end"]]


def _by_strategy(series: dict[tuple[str, str], pd.Series], fill: float) -> pd.DataFrame:
    """Hourly sums over the symbols, a column a strategy; before a symbol's first bar it holds `fill`."""
    import pandas as pd

    wide = pd.concat(series, axis=1).sort_index().ffill().fillna(fill)
    return wide.T.groupby(level=0).sum().T[list(PARAMETERS)]
