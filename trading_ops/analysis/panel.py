"""Which bars do many symbols have, on one grid of hours?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from trading_ops.analysis.indicators import NEEDED_BARS
from trading_ops.market.candles import FIELDS, HOUR, CandleError, CandleSource, Columns, Span, frame_of
from trading_ops.market.soundness import check_candles

OPEN, HIGH, LOW, CLOSE, VOLUME = range(len(FIELDS))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)


@dataclass(frozen=True, eq=False)
class Panel:
    """`values`: float64 (FIELDS, symbols, bars), a column an hour from `start` on, NaN where a symbol has no bar.

    Right-aligned: the last column is the newest bar of any of the symbols. Each symbol's window ends with its own last
    bar, and starts `lookback` hours before that, so that no symbol's bars depend on which others are here.
    """

    symbols: tuple[str, ...]
    start: datetime
    values: np.ndarray

    @property
    def bars(self) -> np.ndarray:
        """The real bars of each symbol."""
        return (~np.isnan(self.values[CLOSE])).sum(axis=1)

    @property
    def last(self) -> np.ndarray:
        """The column of each symbol's last bar."""
        there = ~np.isnan(self.values[CLOSE])
        return there.shape[1] - 1 - np.argmax(there[:, ::-1], axis=1)


def read_panel(source: CandleSource, spans: Mapping[str, Span], lookback: int) -> tuple[Panel, dict[str, str]]:
    """The last `lookback` hours of each symbol, and why others are not there: unreadable, unsound, too few bars.

    Hours in which an exchange stood still are gaps, not faults.
    """
    from trading_ops.analysis import kernel  # here, since numba takes half a second

    ends = [span.end for span in spans.values()]
    start = (min(ends, default=_EPOCH) - lookback * HOUR).replace(minute=0, second=0, microsecond=0)
    width = -((start - max(ends, default=start)) // HOUR)
    values = np.full((len(FIELDS), len(spans), width), np.nan)
    kept: list[str] = []
    failed: dict[str, str] = {}
    for symbol, columns in source.tails(spans, lookback):
        if not isinstance(columns, Columns):
            failed[symbol] = str(columns)
            continue
        at = len(kept)
        sound = kernel.place_bars(columns.times, *columns.values, (start - _EPOCH) // _US, HOUR // _US, values, at)
        if not sound:
            failed[symbol] = why_unsound(columns, symbol)
            values[:, at] = np.nan
        elif len(columns.times) < NEEDED_BARS:
            failed[symbol] = f"{len(columns.times)} bars in the last {lookback} hours; {NEEDED_BARS} are needed"
            values[:, at] = np.nan
        else:
            kept.append(symbol)
    return Panel(tuple(kept), start, values[:, : len(kept)]), failed


def why_unsound(columns: Columns, symbol: str) -> str:
    """The first fault of these bars, and how many there are."""
    try:
        report = check_candles(frame_of(columns), symbol)
    except CandleError as error:
        return str(error)
    faults = report.impossible + report.duplicates + report.unsorted + report.off_grid
    said = report.problems[0] if report.problems else f"{symbol}: its bars do not lie in the period asked for"
    return said + (f" (the first of {faults} faults)" if faults > 1 else "")
