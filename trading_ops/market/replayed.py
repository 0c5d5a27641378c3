"""What would the recorded market look like if it happened now?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from trading_ops.market.candles import (
    CandleError,
    CandleSource,
    Columns,
    Span,
    SpannedCandles,
    Survey,
    common_coverage,
    require_known,
)

if TYPE_CHECKING:
    import pandas as pd

WEEK = timedelta(weeks=1)
_US = timedelta(microseconds=1)


class ReplayedCandles(SpannedCandles):
    """`source`'s bars of `symbols`, later by whole weeks (weekday and hour stay), so that they end in the past 7 days.

    shift = floor((now - end) / 7 days) x 7 days, with end the coverage end of `symbols`. Whether a symbol is stale is
    judged among `symbols` alone: replaying is what makes an old recording fresh. The shift grows by a week each week.
    `others`: whether the source's other symbols are replayed along, up to where the last of `symbols` ends.
    """

    def __init__(
        self, source: CandleSource, symbols: Sequence[str], now: Callable[[], datetime], *, others: bool = False
    ) -> None:
        super().__init__(now)
        self._source = source
        self._symbols = tuple(symbols)
        self._others = others

    @property
    def origin(self) -> str:  # type: ignore[override]
        return f"{self.label} of {self._source.origin}"

    @property
    def label(self) -> str:  # type: ignore[override]  # the shift belongs to it: it makes this week's bars other ones
        return f"replayed {self._shift(self._recorded()) // WEEK:+d} weeks"

    def spans(self) -> dict[str, Span]:
        return self._replayed(self._recorded())

    def survey(self) -> Survey:
        recorded = self._surveyed()
        return Survey(self._replayed(recorded.spans), recorded.unreadable if self._others else {})

    def tails(self, spans: Mapping[str, Span], hours: int) -> Iterator[tuple[str, Columns | CandleError]]:
        shift = self._shift(self._recorded())
        recorded = {symbol: Span(span.first - shift, span.end - shift) for symbol, span in spans.items()}
        for symbol, columns in self._source.tails(recorded, hours):
            if isinstance(columns, Columns):
                columns = Columns(columns.times + np.int64(shift // _US), columns.values)
            yield symbol, columns

    def _bars(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        import pandas as pd

        recorded = self._recorded()
        shift = self._shift(recorded)
        # never before the first bar: no date is earlier than the one that stands for "all there is"
        begin = min(max(start, recorded[symbol].first + shift) - shift, recorded[symbol].end)
        bars = self._source.candles(symbol, begin, max(begin, min(end - shift, recorded[symbol].end)))
        return bars.set_axis((pd.DatetimeIndex(bars.index) + pd.Timedelta(shift)).rename("time"))

    def _replayed(self, recorded: Mapping[str, Span]) -> dict[str, Span]:
        shift = self._shift(recorded)
        complete = self.now().replace(minute=0, second=0, microsecond=0)
        latest = min(max(recorded[symbol].end for symbol in self._symbols) + shift, complete)
        chosen = recorded if self._others else self._symbols
        spans = {symbol: recorded[symbol] for symbol in chosen}
        return {
            symbol: Span(span.first + shift, min(span.end + shift, latest))
            for symbol, span in spans.items()
            if span.first + shift < latest
        }

    def _shift(self, recorded: Mapping[str, Span]) -> timedelta:
        for symbol in self._symbols:
            require_known(symbol, recorded, self._source.label)
        end = common_coverage(self._symbols, {s: recorded[s] for s in self._symbols}, self._source.label).end
        return (self.now() - end) // WEEK * WEEK

    def _recorded(self) -> dict[str, Span]:
        """The spans in the source's own time."""
        return self._surveyed().spans

    def _surveyed(self) -> Survey:
        """What the source has; raises CandleError where one of `symbols`, which set the shift, cannot be read."""
        survey = self._source.survey()
        for symbol in self._symbols:
            if symbol in survey.unreadable:
                raise CandleError(survey.unreadable[symbol])
        return survey
