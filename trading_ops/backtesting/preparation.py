"""Which bars of the candles answer a request, the bars before it that warm the indicators up included?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING

from trading_ops.backtesting.request import BacktestRequest, InvalidRequest
from trading_ops.market.candles import HOUR, CandleSource, Coverage

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_PERIOD = timedelta(days=365)
WARM_UP = 20  # times the longest indicator: what lies before weighs e^-20 in Wilder's averages, the slowest to forget
SHOWN_SYMBOLS = 20


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request with nothing left open, and its bars: `warm_up` ones before the start, then those of [start, end)."""

    request: BacktestRequest
    candles: pd.DataFrame
    warm_up: int
    label: str

    @property
    def missing_bars(self) -> int:
        """The hours of [start, end) that have no bar."""
        start, end = self.request.start, self.request.end
        hours = 0 if start is None or end is None else (end - start) // HOUR
        return hours - (len(self.candles) - self.warm_up)


def prepare(request: BacktestRequest, source: CandleSource, symbols: Sequence[str]) -> Prepared:
    """Fill in symbol, period and parameters, and fetch the bars.

    `symbols`: of a request without one the first that has candles. Raises InvalidRequest for a symbol or period that
    the source does not cover and for too few bars, CandleError where the candles cannot be had.
    """
    from trading_ops.strategies.signals import STRATEGIES

    symbol = _symbol(request, source, symbols)
    coverage = _coverage(source, symbol)
    start, end = _period(request, coverage, f"the {source.label} candles of {symbol}")
    parameters = request.checked_parameters()
    longest = STRATEGIES[request.strategy].lookback(parameters)
    first = max(coverage.first, start - WARM_UP * longest * HOUR)
    candles = source.candles(symbol, first, end)
    warm_up = int((candles.index < start).sum())
    if len(candles) - warm_up < 2:
        raise InvalidRequest(
            f"start {start.date()} to end {end.date()} holds {len(candles) - warm_up} bars of {symbol}, the exchange"
            " stood still; at least 2 would be right"
        )
    if len(candles) < longest + 2:
        raise InvalidRequest(
            f"{request.strategy} looks back {longest} bars, and up to end {end.date()} there are {len(candles)} of"
            f" {symbol}; a shorter look-back or a later end would be right"
        )
    filled_in = {"symbol": symbol, "start": start.date(), "end": end.date(), "parameters": parameters}
    return Prepared(request.model_copy(update=filled_in), candles, warm_up, source.label)


def _symbol(request: BacktestRequest, source: CandleSource, symbols: Sequence[str]) -> str:
    fresh = source.symbols()
    there = sorted({*fresh, *source.stale_symbols()})
    if request.symbol is None:
        chosen = next((symbol for symbol in [*symbols, *fresh] if symbol in fresh), None)
        if chosen is None:
            raise InvalidRequest(f"symbol is not given, and there are no {source.label} candles of any now")
        return chosen
    if request.symbol not in there:
        near = " or ".join(get_close_matches(request.symbol, there, 3))
        listed = ", ".join(there[:SHOWN_SYMBOLS]) + (", ..." if len(there) > SHOWN_SYMBOLS else "")
        raise InvalidRequest(
            f"symbol {request.symbol!r} is unknown{f', did you mean {near}?' if near else ''}; there are"
            f" {source.label} candles of {listed or 'none'} (TRADING_OPS_SYMBOLS)"
        )
    return request.symbol


def _coverage(source: CandleSource, symbol: str) -> Coverage:
    """From the symbol's first bar to its last complete one, also of one whose candles ended long ago."""
    ended = source.stale_symbols().get(symbol)
    if ended is None:
        return source.coverage([symbol])
    return Coverage(source.candles(symbol, end=ended).index.min().to_pydatetime(), ended)


def _period(request: BacktestRequest, coverage: Coverage, whose: str) -> tuple[datetime, datetime]:
    """[start, end) at midnight UTC; raises InvalidRequest where the candles do not cover it."""
    first, last = coverage.first_day, coverage.last_day
    if first is None or last is None:
        raise InvalidRequest(f"{whose} cover no complete UTC day, only {coverage.first} to {coverage.end}")
    covered, after = f"{whose} cover the complete UTC days {first} to {last}", last + timedelta(days=1)
    end = request.end or after
    if not first < end <= after:
        right = f"{first + timedelta(days=1)} to {after}"
        raise InvalidRequest(f"end is {end}, itself left out; {covered}, so a day from {right} would be right")
    start = request.start or max(first, end - DEFAULT_PERIOD)
    if not first <= start < end:
        right = f"{first} to {end - timedelta(days=1)}"
        raise InvalidRequest(f"start is {start}; {covered}, so a day from {right} would be right")
    return _midnight(start), _midnight(end)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
