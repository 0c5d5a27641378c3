"""What comes of these orders on these bars? The kernel's loops with their memory around them, and no frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_ops.backtesting.bars import Bars
from trading_ops.backtesting.orders import Terms


@dataclass(frozen=True, eq=False, slots=True)
class Filled:
    """Trade k: `places[k]` (entry bar, exit bar, reason) and `amounts[k]` (entry fill, exit fill, quantity, fees,
    funding). `equity` and `unrealised` in USDT at each bar's close, `ends` the equity at each day's last.
    """

    places: np.ndarray
    amounts: np.ndarray
    side: float
    rejected: int
    ends: np.ndarray
    equity: np.ndarray
    unrealised: np.ndarray

    @property
    def pnl_usdt(self) -> np.ndarray:
        """Each trade's profit, net of fees and funding."""
        entry, leave, quantity, fee, funding = self.amounts.T
        return self.side * quantity * (leave - entry) - fee - funding


def fill(
    bars: Bars,
    terms: Terms,
    enter_at: np.ndarray,
    leave_at: np.ndarray,
    allowed: np.ndarray,
    stop_loss: float,
    take_profit: float,
) -> Filled:
    """Arguments as `kernel.fill_orders` has them."""
    from trading_ops.backtesting import kernel

    count = len(bars.opened)
    places, amounts = np.empty((count, 3), np.int64), np.empty((count, 5))
    done, rejected, _ = kernel.fill_orders(
        bars, terms, enter_at, leave_at, allowed, stop_loss, take_profit, places, amounts
    )
    ends, equity, unrealised = np.empty(len(bars.day_end)), np.empty(count), np.empty(count)
    kernel.mark(bars, terms, done, places, amounts, ends, equity, unrealised)
    return Filled(places[:done], amounts[:done], terms.side, int(rejected), ends, equity, unrealised)
