"""How does a folder of recorded candles catch up with an exchange, and lose nothing when it is killed?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from trading_ops.files import UNFINISHED
from trading_ops.market.candles import HOUR, CandleError, utc
from trading_ops.market.exchange import ExchangeCandles, ExchangeUnavailable
from trading_ops.market.parquet import SUFFIX
from trading_ops.market.recording import Recording
from trading_ops.market.soundness import check_candles

SHOWN_REJECTED = 20  # rejected bars named a symbol; the rest is only counted
LOCK = ".download.lock"
Progress = Callable[[str, int, int], None]  # symbol, hours asked for so far, hours to ask for


@dataclass(frozen=True)
class Download:
    """One symbol's file after a download; bars open in [asked_from, asked_to), first and last are opens, UTC.

    `corrected`: recorded bars of which the exchange now says something else. `rejected`: bars that cannot be, left out.
    """

    symbol: str
    asked_from: datetime
    asked_to: datetime
    bars: int = 0
    first: datetime | None = None
    last: datetime | None = None
    new_bars: int = 0
    gaps: int = 0
    missing_bars: int = 0
    corrected: tuple[str, ...] = ()
    rejected_bars: int = 0
    rejected: tuple[str, ...] = ()
    error: str | None = None

    @property
    def succeeded(self) -> bool:
        """All that was asked for is recorded, as far as the exchange has it."""
        return self.error is None and not self.rejected_bars

    def remarks(self) -> list[str]:
        """What a person should know beyond the numbers, a sentence each."""
        said = [f"{sentence}; the newer word is recorded" for sentence in self.corrected]
        said += [f"left out: {problem}" for problem in self.rejected]
        if self.rejected_bars > len(self.rejected):
            said.append(f"{self.symbol}: {self.rejected_bars - len(self.rejected)} more bars left out like these")
        if self.error is None and self.first is not None and self.last is not None:
            if self.first > self.asked_from:
                said.append(f"{self.symbol}: the exchange has no bar before {self.first:%Y-%m-%d %H:%M} UTC")
            if self.last + HOUR < self.asked_to:
                said.append(f"{self.symbol}: the exchange has no bar after {self.last:%Y-%m-%d %H:%M} UTC")
        return said


def days_back(days: int, now: datetime) -> datetime:
    """00:00 UTC of the day `days` days before now: where a download of that many complete days starts."""
    return (utc(now, "now") - timedelta(days=days)).replace(hour=0, minute=0, second=0, microsecond=0)


def download_candles(
    exchange: ExchangeCandles,
    symbols: Sequence[str],
    folder: Path,
    start: datetime,
    now: Callable[[], datetime],
    progress: Progress = lambda symbol, done, total: None,
) -> list[Download]:
    """Bring each symbol's file in `folder` up to the last complete bar, and back to `start`; what it holds is kept.

    Each page is durable before the next is asked for. A symbol that fails does not stop the others, an exchange that
    is unavailable does. Raises CandleError where the folder cannot be written or another download is at work in it.
    """
    end = utc(now(), "now").replace(minute=0, second=0, microsecond=0)
    done: list[Download] = []
    unavailable = False
    with _sole_writer(folder):
        for symbol in symbols:
            if unavailable:
                done.append(Download(symbol, start, end, error=f"{symbol}: not tried"))
                continue
            recording = None
            error: CandleError | None = None
            try:
                recording = Recording(folder, symbol, exchange.id, now)
                _catch_up(recording, exchange, start, end, progress)
            except CandleError as problem:
                error, unavailable = problem, isinstance(problem, ExchangeUnavailable)
            done.append(_result(symbol, recording, start, end, error))
    return done


def _catch_up(
    recording: Recording, exchange: ExchangeCandles, start: datetime, end: datetime, progress: Progress
) -> None:
    symbol = recording.symbol
    # The last recorded bar is asked for once more: it was the youngest when it was recorded, so if the exchange (or
    # this machine's clock) was wrong about one, it was this.
    begin = start if recording.last is None else recording.last
    recording.asked_from = recording.asked_from or start
    total = (max(timedelta(0), recording.asked_from - start) + max(timedelta(0), end - begin)) // HOUR
    hours = 0
    if recording.last is None or recording.last + HOUR < end:
        for page in exchange.pages(symbol, begin, end):
            recording.add(page.bars)
            recording.save()
            hours, begin = hours + (page.end - begin) // HOUR, page.end
            progress(symbol, hours, total)
    # Backwards from what is there, a page at a time and each complete before it is kept, so that a kill leaves no hole.
    seam = HOUR if recording.asked_from == recording.first else timedelta(0)
    while start < recording.asked_from:
        until = recording.asked_from + seam
        begin = max(start, until - exchange.page_bars(symbol) * HOUR)
        for page in list(exchange.pages(symbol, begin, until)):
            recording.add(page.bars)
        hours += (recording.asked_from - begin) // HOUR
        recording.asked_from, seam = begin, timedelta(0)
        recording.save()
        progress(symbol, hours, total)
    if recording.first is None:
        raise CandleError(f"{symbol}: {exchange.id} has no possible hourly bar of it from {start:%Y-%m-%d} on")


def _result(
    symbol: str, recording: Recording | None, start: datetime, end: datetime, error: CandleError | None
) -> Download:
    told = None if error is None else str(error)
    if recording is None:
        return Download(symbol, start, end, error=told)
    report = check_candles(recording.bars, symbol)
    return Download(
        symbol=symbol,
        asked_from=start,
        asked_to=end,
        bars=report.bars,
        first=report.first,
        last=report.last,
        new_bars=recording.new_bars,
        gaps=len(report.gaps),
        missing_bars=report.missing_bars,
        corrected=tuple(recording.corrected),
        rejected_bars=len(recording.rejected),
        rejected=tuple(recording.rejected[:SHOWN_REJECTED]),
        error=told,
    )


@contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    """The folder for one download alone, without what a killed one left half written; a kill frees it."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise CandleError(f"{folder}: another download is at work in this folder; wait for it to end") from error
    except OSError as error:
        raise CandleError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        for left in folder.glob(f"*{SUFFIX}*{UNFINISHED}"):
            left.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
