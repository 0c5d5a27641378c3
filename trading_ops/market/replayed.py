"""What would the recorded market look like if it happened now?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from trading_ops.market.candles import CandleSource, Span, SpannedCandles, common_coverage, require_known

if TYPE_CHECKING:
    import pandas as pd

WEEK = timedelta(weeks=1)


class ReplayedCandles(SpannedCandles):
    """`source`'s bars of `symbols`, later by whole weeks (weekday and hour stay), so that they end in the past 7 days.

    shift = floor((now - end) / 7 days) x 7 days, with end the coverage end of `symbols`. Whether a symbol is stale is
    judged among `symbols` alone: replaying is what makes an old recording fresh. The shift grows by a week each week.
    """

    def __init__(self, source: CandleSource, symbols: Sequence[str], now: Callable[[], datetime]) -> None:
        super().__init__(now)
        self._source = source
        self._symbols = tuple(symbols)
        self._starts: dict[tuple[str, datetime], datetime] = {}

    @property
    def origin(self) -> str:  # type: ignore[override]
        return f"{self.label} of {self._source.origin}"

    @property
    def label(self) -> str:  # type: ignore[override]  # the shift belongs to it: it makes this week's bars other ones
        return f"replayed {self._shift(self._recorded()) // WEEK:+d} weeks"

    def spans(self) -> dict[str, Span]:
        recorded = self._recorded()
        shift = self._shift(recorded)
        complete = self.now().replace(minute=0, second=0, microsecond=0)
        return {symbol: Span(span.first + shift, min(span.end + shift, complete)) for symbol, span in recorded.items()}

    def _bars(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        import pandas as pd

        recorded = self._recorded()
        shift = self._shift(recorded)
        begin = min(start - shift, recorded[symbol].end)
        bars = self._source.candles(symbol, begin, max(begin, min(end - shift, recorded[symbol].end)))
        return bars.set_axis((pd.DatetimeIndex(bars.index) + pd.Timedelta(shift)).rename("time"))

    def _shift(self, recorded: dict[str, Span]) -> timedelta:
        end = common_coverage(self._symbols, recorded, self._source.label).end
        return (self.now() - end) // WEEK * WEEK

    def _recorded(self) -> dict[str, Span]:
        """The spans in the source's own time."""
        fresh, stale = self._source.symbols(), self._source.stale_symbols()
        there = {*fresh, *stale}
        spans = {}
        for symbol in self._symbols:
            require_known(symbol, there, self._source.label)
            if symbol in stale:
                spans[symbol] = Span(self._start_of(symbol, stale[symbol]), stale[symbol])
            else:
                coverage = self._source.coverage([symbol])
                spans[symbol] = Span(coverage.first, coverage.end)
        return spans

    def _start_of(self, symbol: str, end: datetime) -> datetime:
        """A stale symbol's first bar, which the protocol tells only through its candles."""
        if (symbol, end) not in self._starts:
            self._starts[symbol, end] = self._source.candles(symbol, end=end).index.min().to_pydatetime()
        return self._starts[symbol, end]
