"""How do the loops read a candle frame?"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from trading_ops.backtesting.orders import Costs
from trading_ops.market.candles import InvalidCandles

HOUR_US = 3_600_000_000
FUNDING_HOURS = 8


class Bars(NamedTuple):
    """A candle frame as the loops read it; n bars that touch m UTC days."""

    opened: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    hour: np.ndarray  # of each bar's open, since 1970
    funding: np.ndarray  # paid by one unit held long since the first bar, at each bar's open
    day: np.ndarray  # each bar's day, 0 to m - 1
    day_end: np.ndarray  # each day's last bar


def bars_of(candles: pd.DataFrame, costs: Costs) -> Bars:
    """A sound candle frame as the kernel reads it. Raises InvalidCandles below two bars."""
    if len(candles) < 2:
        raise InvalidCandles(
            f"a backtest needs at least 2 bars, one to decide at and one to fill in; there are {len(candles)}"
        )
    # copies, of one kind whatever the frame: for another the loops would be compiled again
    opened, high, low, close = (np.array(candles[name], dtype="float64") for name in ("open", "high", "low", "close"))
    hour = pd.DatetimeIndex(candles.index).as_unit("us").asi8 // HOUR_US
    days = hour // 24
    day_end = np.flatnonzero(np.diff(days, append=days[-1] + 1))
    day = np.searchsorted(day_end, np.arange(len(hour)))
    # the times between two bars at which funding was due; where bars are missing, several at once
    due = np.diff(hour // FUNDING_HOURS, prepend=hour[0] // FUNDING_HOURS)
    funding = np.cumsum(due * opened) * (costs.funding_pct / 100.0)
    return Bars(opened, high, low, close, hour, funding, day, day_end)
