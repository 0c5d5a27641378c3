"""What did each symbol's market do up to the end of a day?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from trading_ops.assessments.evidence import Market

if TYPE_CHECKING:
    import pandas as pd

HOUR_US = 3_600_000_000
WEEK_BARS, LEAST_BARS = 168, 144  # a week with more than a day missing says nothing of the week
FEW = 12  # hourly returns below this say nothing of a day's volatility


def market_days(symbol: str, bars: pd.DataFrame, days: Sequence[str]) -> dict[str, Market]:
    """The state of a symbol at the end of each UTC day, from hourly bars [open, high, low, close, volume] up to it.

    volatility: sample deviation (ddof=1) of the hourly log returns of 24 h or 7 d, in percent; across a missing bar
    there is no return. change: close over the close 24 h or 7 d before, in percent, None where that bar is missing.
    volume_ratio: mean hourly volume of 24 h over that of 7 d.
    """
    opens, close = bars.index.as_unit("us").asi8, bars["close"].to_numpy("float64")
    volume = bars["volume"].to_numpy("float64")
    found = {}
    for day in days:
        end = _end_us(day)
        week, today = (slice(*np.searchsorted(opens, [end - hours * HOUR_US, end])) for hours in (WEEK_BARS, 24))
        found[day] = Market(
            symbol=symbol,
            bars_7d=week.stop - week.start,
            volatility_24h_pct=_volatility(opens, close, today),
            volatility_7d_pct=_volatility(opens, close, week),
            change_24h_pct=_change(opens, close, end, 24),
            change_7d_pct=_change(opens, close, end, WEEK_BARS),
            volume_ratio=_ratio(volume[today], volume[week]),
        )
    return found


def bars_between(opens_us: np.ndarray, since: datetime, day: str) -> int:
    """How many bars open from `since` to the end of the day."""
    start = int(since.timestamp() * 1_000_000)
    first, last = np.searchsorted(opens_us, [start, _end_us(day)])
    return int(max(last - first, 0))


def _end_us(day: str) -> int:
    return int(np.datetime64(date.fromisoformat(day) + timedelta(days=1), "us").astype("int64"))


def _volatility(opens: np.ndarray, close: np.ndarray, part: slice) -> float | None:
    start = max(part.start - 1, 0)
    prices, hours = close[start : part.stop], np.diff(opens[start : part.stop])
    returns = np.diff(np.log(prices))[hours == HOUR_US]
    return float(100 * returns.std(ddof=1)) if returns.size >= FEW else None


def _change(opens: np.ndarray, close: np.ndarray, end: int, hours: int) -> float | None:
    """The last bar before `end` against the one that closed `hours` earlier."""
    last, before = end - HOUR_US, end - (hours + 1) * HOUR_US
    at = np.searchsorted(opens, [last, before])
    if at[0] >= len(opens) or opens[at[0]] != last or opens[at[1]] != before:
        return None
    return float(100 * (close[at[0]] / close[at[1]] - 1))


def _ratio(today: np.ndarray, week: np.ndarray) -> float | None:
    if not today.size or (usual := float(week.mean())) <= 0:
        return None
    return float(today.mean()) / usual
