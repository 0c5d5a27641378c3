"""What is a candle, and which symbols have them for how long?"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

FIELDS = ("open", "high", "low", "close", "volume")
HOUR = timedelta(hours=1)
FRESH_WITHIN = timedelta(hours=48)


class CandleError(Exception):
    """Candles cannot be had, or not like this; the message says what would be right."""


class UnknownSymbol(CandleError):
    """The source has no bar of this symbol."""


class StaleSymbol(CandleError):
    """The symbol's bars ended long before the source's newest, so they say nothing about the present."""


class InvalidCandles(CandleError):
    """The frame is no candle frame, or holds bars that cannot be."""


@dataclass(frozen=True)
class Coverage:
    """The period [first, end) that all asked symbols have: first bar's open to last complete bar's close, UTC.

    Bars missing inside it (exchange downtime) do not shorten it; `check_candles` finds them.
    """

    first: datetime
    end: datetime

    @property
    def first_day(self) -> date | None:
        """The first complete UTC day [00:00, 24:00), None where there is none."""
        return self._days()[0]

    @property
    def last_day(self) -> date | None:
        """The last complete UTC day [00:00, 24:00), None where there is none."""
        return self._days()[1]

    def _days(self) -> tuple[date, date] | tuple[None, None]:
        first = (self.first + timedelta(days=1) - timedelta(microseconds=1)).date()
        last = self.end.date() - timedelta(days=1)
        return (first, last) if first <= last else (None, None)


class Span(NamedTuple):
    """From the open of a symbol's first bar to the close of its last complete one, UTC."""

    first: datetime
    end: datetime


class Survey(NamedTuple):
    """What a source has: each symbol's span up to now, fresh or not, and why others cannot be read."""

    spans: dict[str, Span]
    unreadable: dict[str, str]


class Columns(NamedTuple):
    """Bars without a frame: opens as int64 microseconds since 1970 UTC, and FIELDS in their order, float64."""

    times: np.ndarray
    values: tuple[np.ndarray, ...]


class CandleSource(Protocol):
    """Hourly candles. A candle frame has float64 columns FIELDS and a DatetimeIndex "time": the bar's open, UTC.

    A bar is complete when time + 1 h <= now. Fresh: the last bar is within 48 h of the source's newest bar.
    """

    @property
    def origin(self) -> str: ...  # which bars these are, in full: two sources with one origin give the same bars

    @property
    def label(self) -> str: ...  # recorded | simulated | replayed +N weeks

    def symbols(self) -> list[str]:
        """The symbols present and fresh, sorted."""

    def stale_symbols(self) -> dict[str, datetime]:
        """The symbols present but not fresh, each with the close of its last bar."""

    def coverage(self, symbols: Sequence[str]) -> Coverage:
        """The period all of them have. Raises UnknownSymbol, StaleSymbol, or CandleError where they share none."""

    def candles(self, symbol: str, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
        """The complete bars opening in [start, end), as recorded: never filled, sorted or de-duplicated.

        A stale symbol is given only for a period that is stated to end within its life (else StaleSymbol).
        """

    def survey(self) -> Survey:
        """What there is. Unlike the rest, it does not fail where one of the symbols cannot be read."""

    def tails(self, spans: Mapping[str, Span], hours: int) -> Iterator[tuple[str, Columns | CandleError]]:
        """Of each symbol, in order, the bars as recorded that open in the `hours` before its span's end.

        `spans` are some of a survey's: many symbols are read at the cost of their own bars alone. An error stands for
        a symbol that cannot be read.
        """


def split_fresh(spans: Mapping[str, Span]) -> tuple[list[str], dict[str, datetime]]:
    """The fresh symbols, and the stale ones with their end."""
    newest = max((span.end for span in spans.values()), default=datetime.min.replace(tzinfo=UTC))
    stale = {symbol: spans[symbol].end for symbol in sorted(spans) if newest - spans[symbol].end > FRESH_WITHIN}
    return [symbol for symbol in sorted(spans) if symbol not in stale], stale


def common_coverage(symbols: Sequence[str], spans: Mapping[str, Span], label: str) -> Coverage:
    """The period all `symbols` have; raises what `CandleSource.coverage` raises."""
    if not symbols:
        raise CandleError("coverage of no symbols was asked; name at least one")
    for symbol in symbols:
        require_known(symbol, spans, label)
    stale = split_fresh(spans)[1]
    if ended := next((symbol for symbol in symbols if symbol in stale), None):
        raise StaleSymbol(
            f"{ended}: {why_stale(ended, spans, label)}; leave it out, or ask for its candles up to its end"
        )
    first, end = max(spans[symbol].first for symbol in symbols), min(spans[symbol].end for symbol in symbols)
    if first >= end:
        raise CandleError(f"{', '.join(symbols)} have no hour in common: the last starts {first}, the first ends {end}")
    return Coverage(first, end)


def why_stale(symbol: str, spans: Mapping[str, Span], label: str) -> str:
    """When a stale symbol ended, and which one goes on."""
    newest = max(spans, key=lambda other: spans[other].end)
    return (
        f"its {label} bars end at {spans[symbol].end:%Y-%m-%d %H:%M} UTC, while {newest} reaches"
        f" {spans[newest].end:%Y-%m-%d %H:%M}"
    )


def require_known(symbol: str, there: Collection[str], label: str) -> None:
    """Raises UnknownSymbol, listing what is there."""
    if symbol not in there:
        raise UnknownSymbol(f"{symbol}: no {label} candles; there are {', '.join(sorted(there)) or 'none at all'}")


def utc(moment: datetime, name: str) -> datetime:
    """`moment` in UTC; raises CandleError for a naive one, since guessing its zone would shift every bar."""
    if moment.tzinfo is None:
        raise CandleError(f"{name} {moment} has no time zone; give it in UTC, such as {moment}+00:00")
    return moment.astimezone(UTC)


class SpannedCandles(ABC):
    """A CandleSource as far as it follows from the symbols' spans; an adapter adds the spans and the bars."""

    label: str
    origin: str

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._clock = now

    @abstractmethod
    def spans(self) -> dict[str, Span]:
        """Each symbol's span, up to now."""

    @abstractmethod
    def _bars(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        """The bars of a known symbol opening in [start, end)."""

    def _columns(self, symbol: str, start: datetime, end: datetime) -> Columns:
        """`_bars` in columns; an adapter that has no frame anyway gives them directly."""
        return columns_of(self._bars(symbol, start, end))

    def survey(self) -> Survey:
        return Survey(self.spans(), {})

    def tails(self, spans: Mapping[str, Span], hours: int) -> Iterator[tuple[str, Columns | CandleError]]:
        for symbol, span in spans.items():
            try:
                yield symbol, self._columns(symbol, max(span.first, span.end - hours * HOUR), span.end)
            except CandleError as error:
                yield symbol, error

    def now(self) -> datetime:
        return utc(self._clock(), "now")

    def symbols(self) -> list[str]:
        return split_fresh(self.spans())[0]

    def stale_symbols(self) -> dict[str, datetime]:
        return split_fresh(self.spans())[1]

    def coverage(self, symbols: Sequence[str]) -> Coverage:
        return common_coverage(symbols, self.spans(), self.label)

    def candles(self, symbol: str, start: datetime | None = None, end: datetime | None = None) -> pd.DataFrame:
        spans = self.spans()
        require_known(symbol, spans, self.label)
        begin = spans[symbol].first if start is None else utc(start, "start")
        until = None if end is None else utc(end, "end")
        if until is not None and until < begin and start is not None:
            raise CandleError(f"{symbol}: the period ends ({until}) before it starts ({begin}); swap start and end")
        last = split_fresh(spans)[1].get(symbol)
        if last is not None and (until is None or until > last):
            raise StaleSymbol(
                f"{symbol}: its {self.label} bars end at {last:%Y-%m-%d %H:%M} UTC; ask for a period up to then"
                f" (end={last.isoformat()}), not {'an open one' if until is None else f'until {until.isoformat()}'}"
            )
        complete = self.now() - HOUR + timedelta(microseconds=1)
        return self._bars(symbol, begin, complete if until is None else min(until, complete))


def frame_of(columns: Columns) -> pd.DataFrame:
    """The candle frame of these columns."""
    import pandas as pd

    index = pd.DatetimeIndex(columns.times.view("M8[us]"), name="time").tz_localize("UTC")
    return pd.DataFrame(dict(zip(FIELDS, columns.values, strict=True)), index=index)


def columns_of(frame: pd.DataFrame) -> Columns:
    """The columns of this candle frame, each in memory of its own."""
    values = tuple(frame[field].to_numpy("float64", copy=True) for field in FIELDS)
    return Columns(frame.index.as_unit("us").asi8.copy(), values)


def digest_of(frame: pd.DataFrame) -> str:
    """SHA-256 (hex) of a candle frame's times (int64, microseconds) and then of its columns FIELDS (float64)."""
    digest = sha256(frame.index.as_unit("us").asi8.astype("<i8").tobytes())
    for field in FIELDS:
        digest.update(frame[field].to_numpy("<f8").tobytes())
    return digest.hexdigest()
