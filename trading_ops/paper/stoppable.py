"""What would a strategy have traded on these candles, had it been stopped for a while?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trading_ops.backtesting.bars import Bars as KernelBars
from trading_ops.backtesting.bars import bars_of
from trading_ops.backtesting.filling import Filled, fill
from trading_ops.backtesting.kernel import OPEN_AT_END
from trading_ops.backtesting.orders import Terms, fraction, terms_of
from trading_ops.backtesting.preparation import Prepared
from trading_ops.guard.lab.paths import Bars, Book, Path, Stop
from trading_ops.market.soundness import require_sound
from trading_ops.strategies.signals import STOPS, STRATEGIES, signals


@dataclass(frozen=True, eq=False, slots=True)
class Desk:
    """One strategy on one symbol: what its orders follow from. `opens` of all its bars, those that warm up included."""

    symbol: str
    bars: KernelBars
    terms: Terms
    enter_at: np.ndarray
    leave_at: np.ndarray
    stops: tuple[float, ...]
    opens: np.ndarray
    may_enter: np.ndarray

    @classmethod
    def of(cls, prepared: Prepared, capital_usdt: float) -> Desk:
        """Raises InvalidCandles."""
        request, candles = prepared.request, prepared.candles
        require_sound(candles, str(request.symbol))
        own = {name: request.parameters[name] for name in STRATEGIES[request.strategy].defaults}
        enter, leave = signals(candles, request.strategy, own, side=request.execution.side)
        return cls(
            symbol=str(request.symbol),
            bars=bars_of(candles, request.costs),
            terms=terms_of(request.costs, request.execution, capital_usdt),
            enter_at=np.flatnonzero(enter),
            leave_at=np.flatnonzero(leave),
            stops=tuple(fraction(request.parameters.get(name)) for name in STOPS),
            opens=opens_of(prepared),
            may_enter=np.arange(len(candles)) >= prepared.warm_up,
        )

    def trade(self, stops: Sequence[Stop]) -> Filled:
        """As the engine does; no entry fills at an open in one of `stops`."""
        allowed = self.may_enter.copy()
        for begin, end in stops:
            allowed[slice(*np.searchsorted(self.opens, [begin, end]))] = False
        return fill(self.bars, self.terms, self.enter_at, self.leave_at, allowed, *self.stops)


def opens_of(prepared: Prepared) -> np.ndarray:
    """The bars' opens, UTC."""
    return prepared.candles.index.as_unit("us").asi8.view("datetime64[us]")


def book_of(name: str, desks: Sequence[Desk], bars: Bars) -> Book:
    """A strategy on several symbols, each with its own capital, seen at the closes of `bars`.

    A symbol that has no bar in an hour is worth what it was. Trades are in the order of (closed_at, id), as the paper
    bot's ids begin with strategy and symbol.
    """
    ordered = sorted(desks, key=lambda desk: f"{desk.symbol}-")
    # for each of our closes, and the moment before the first: the symbol's last bar, -1 before it has one
    last = [np.searchsorted(desk.opens, np.append(bars.opens[0], bars.closes)) - 1 for desk in ordered]

    def trade(stops: Sequence[Stop]) -> Path:
        equity, unrealised = np.zeros(len(bars) + 1), np.zeros(len(bars) + 1)
        exits, profits = [], []
        for desk, seen in zip(ordered, last, strict=True):
            filled = desk.trade(stops)
            equity += np.where(seen < 0, desk.terms.initial, filled.equity[seen])
            unrealised += np.where(seen < 0, 0.0, filled.unrealised[seen])
            closed = filled.places[:, 2] != OPEN_AT_END
            exits.append(np.searchsorted(bars.opens, desk.opens[filled.places[closed, 1]]))
            profits.append(filled.pnl_usdt[closed])
        bar, profit = np.concatenate(exits), np.concatenate(profits)
        order = np.argsort(bar, kind="stable")
        return Path(equity, unrealised, bar[order], profit[order])

    return Book(name, trade)
