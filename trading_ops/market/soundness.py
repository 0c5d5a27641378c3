"""Can these candles be true: sorted, on the hour, complete, with prices that do not contradict each other?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from trading_ops.market.candles import FIELDS, HOUR, InvalidCandles

if TYPE_CHECKING:
    import pandas as pd

SHOWN_PROBLEMS = 3  # offending bars named per kind; the rest is only counted


@dataclass(frozen=True)
class CandleReport:
    """What is wrong with a frame; gaps are (first missing bar's open, next bar's open, missing bars)."""

    symbol: str
    bars: int
    first: datetime | None
    last: datetime | None
    gaps: tuple[tuple[datetime, datetime, int], ...]
    missing_bars: int
    duplicates: int
    unsorted: int
    off_grid: int
    impossible: int
    problems: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Nothing but gaps: exchanges do stand still, but no bar contradicts itself or its neighbour."""
        return not (self.duplicates or self.unsorted or self.off_grid or self.impossible)


def check_candles(frame: pd.DataFrame, symbol: str) -> CandleReport:
    """Look for gaps, repeated, unsorted or off-hour bars, and prices that cannot be.

    Impossible: NaN or infinite, low > min(open, close), high < max(open, close), low <= 0, volume < 0.
    Raises InvalidCandles where `frame` is no candle frame at all.
    """
    times = _times(frame, symbol)
    hour = HOUR // timedelta(microseconds=1)
    repeated = frame.index.duplicated()
    backwards = np.flatnonzero(np.diff(times) < 0) + 1
    off_grid = np.flatnonzero(times % hour)
    grid = np.unique(times[times % hour == 0])
    holes = np.flatnonzero(np.diff(grid) > hour)
    gaps = tuple((_at(grid[i] + hour), _at(grid[i + 1]), int((grid[i + 1] - grid[i]) // hour - 1)) for i in holes)
    impossible, problems = _impossible(frame, times, symbol)
    problems += [
        f"{symbol} {_at(times[i])}: this bar appears twice; once would be right"
        for i in np.flatnonzero(repeated)[:SHOWN_PROBLEMS]
    ]
    problems += [
        f"{symbol} {_at(times[i])}: follows the later {_at(times[i - 1])}; times must ascend"
        for i in backwards[:SHOWN_PROBLEMS]
    ]
    problems += [f"{symbol} {_at(times[i])}: time is not on the hour" for i in off_grid[:SHOWN_PROBLEMS]]
    return CandleReport(
        symbol=symbol,
        bars=len(frame),
        first=_at(times.min()) if len(times) else None,
        last=_at(times.max()) if len(times) else None,
        gaps=gaps,
        missing_bars=sum(missing for _, _, missing in gaps),
        duplicates=int(repeated.sum()),
        unsorted=len(backwards),
        off_grid=len(off_grid),
        impossible=impossible,
        problems=tuple(problems),
    )


def require_sound(frame: pd.DataFrame, symbol: str) -> pd.DataFrame:
    """`frame` itself; raises InvalidCandles with its first problem where it is not sound."""
    report = check_candles(frame, symbol)
    if not report.sound:
        faults = report.impossible + report.duplicates + report.unsorted + report.off_grid
        raise InvalidCandles(report.problems[0] + (f" (the first of {faults} faults)" if faults > 1 else ""))
    return frame


def _times(frame: pd.DataFrame, symbol: str) -> np.ndarray:
    """The index as int64 microseconds since 1970; raises InvalidCandles where the frame has not the right shape."""
    import pandas as pd

    for field in FIELDS:
        if list(frame.columns).count(field) != 1:
            raise InvalidCandles(f"{symbol}: the frame needs one column {field!r}; it has {list(frame.columns)}")
        if not pd.api.types.is_numeric_dtype(frame[field].dtype) or pd.api.types.is_bool_dtype(frame[field].dtype):
            raise InvalidCandles(f"{symbol}: column {field!r} is {frame[field].dtype}; float64 would be right")
    index = frame.index
    if not isinstance(index, pd.DatetimeIndex) or str(index.tz) != "UTC":
        raise InvalidCandles(f"{symbol}: the index is {index.dtype}; the bars' open times in UTC would be right")
    if index.hasnans:
        raise InvalidCandles(f"{symbol}: a bar has no time (NaT); every bar needs its open time")
    return index.as_unit("us").asi8


def _impossible(frame: pd.DataFrame, times: np.ndarray, symbol: str) -> tuple[int, list[str]]:
    values = {field: frame[field].to_numpy("float64") for field in FIELDS}
    low, high, volume = values["low"], values["high"], values["volume"]
    bottom, top = np.fmin(values["open"], values["close"]), np.fmax(values["open"], values["close"])
    rules = [(~np.isfinite(values[field]), field, "a finite number") for field in FIELDS]
    rules += [
        (low > bottom, "low", "at most min(open, close)"),
        (high < top, "high", "at least max(open, close)"),
        (low <= 0, "low", "above 0"),
        (volume < 0, "volume", "0 or more"),
    ]
    bad = np.zeros(len(frame), dtype=bool)
    problems = []
    for wrong, field, right in rules:
        bad |= wrong
        for i in np.flatnonzero(wrong)[:SHOWN_PROBLEMS]:
            problems.append(f"{symbol} {_at(times[i])}: {field} is {values[field][i]:.10g}; it must be {right}")
    return int(bad.sum()), problems


def _at(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(microseconds))
