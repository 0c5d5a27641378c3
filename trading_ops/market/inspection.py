"""Are the candles of a folder, or of another source, sound and fresh?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from trading_ops.market.candles import FRESH_WITHIN, HOUR, CandleError, CandleSource, utc
from trading_ops.market.parquet import SUFFIX, ParquetCandles, candle_files
from trading_ops.market.soundness import CandleReport, check_candles

LONGEST_GAPS = 3
_FAR = datetime(2199, 1, 1, tzinfo=UTC)  # a clock by which every recorded bar is complete, so that none hides

Status = Literal["sound", "stale", "unsound", "broken"]


@dataclass(frozen=True)
class Inspection:
    """The verdict on one symbol; gaps alone are no fault.

    stale: the last bar closed more than 48 h before the newest bar, or before now. `ahead_h`: hours of bars that have
    not closed yet, which is unsound. `problems` names the first offending bars of each kind.
    """

    symbol: str
    status: Status
    bars: int = 0
    first: datetime | None = None
    last: datetime | None = None
    gaps: int = 0
    missing_bars: int = 0
    longest_gaps: tuple[str, ...] = ()
    duplicates: int = 0
    unsorted: int = 0
    off_grid: int = 0
    impossible: int = 0
    ahead_h: int = 0
    behind_newest_h: int | None = None
    behind_now_h: int | None = None
    problems: tuple[str, ...] = ()


def inspect_folder(
    folder: Path, now: datetime, symbols: Sequence[str] | None = None, *, current: bool = True
) -> list[Inspection]:
    """Each file of the folder, or those of `symbols`; a file that cannot be read is one verdict, not the end.

    `current`: whether the bars should reach up to now. Raises CandleError where the folder has no candle files.
    """
    files = candle_files(folder)
    nowhere = {symbol: f"{folder}: holds no file {symbol}{SUFFIX}" for symbol in symbols or () if symbol not in files}

    def read(symbol: str) -> CandleReport:
        return check_candles(ParquetCandles(folder, lambda: _FAR, symbols=[symbol]).candles(symbol), symbol)

    return judge({**_reports(read, [s for s in symbols or files if s in files]), **nowhere}, now, current=current)


def inspect_source(source: CandleSource, now: datetime, symbols: Sequence[str] | None = None) -> list[Inspection]:
    """Each symbol of the source, or those of `symbols`."""
    ends = source.stale_symbols()

    def read(symbol: str) -> CandleReport:
        return check_candles(source.candles(symbol, end=ends.get(symbol)), symbol)

    return judge(_reports(read, symbols or sorted({*source.symbols(), *ends})), now)


def _reports(read: Callable[[str], CandleReport], symbols: Sequence[str]) -> dict[str, CandleReport | str]:
    reports: dict[str, CandleReport | str] = {}
    for symbol in symbols:
        try:
            reports[symbol] = read(symbol)
        except CandleError as error:
            reports[symbol] = str(error)
    return reports


def judge(
    reports: Mapping[str, CandleReport | str],
    now: datetime,
    *,
    current: bool = True,
    fresh_within: timedelta = FRESH_WITHIN,
) -> list[Inspection]:
    """The verdict on each report, or on the error that stands in for one, by symbol."""
    complete = utc(now, "now").replace(minute=0, second=0, microsecond=0)
    closes = [min(r.last + HOUR, complete) for r in reports.values() if isinstance(r, CandleReport) and r.last]
    newest = max(closes, default=complete)
    return [
        Inspection(symbol, "broken", problems=(report,))
        if isinstance(report, str)
        else _verdict(report, complete, newest, current, fresh_within // HOUR)
        for symbol, report in sorted(reports.items())
    ]


def _verdict(report: CandleReport, complete: datetime, newest: datetime, current: bool, limit: int) -> Inspection:
    last = report.last
    if last is None:
        return Inspection(report.symbol, "broken", problems=(f"{report.symbol}: has no bars",))
    close = last + HOUR
    problems = list(report.problems)
    ahead = max(0, (close - complete) // HOUR)
    if ahead:
        problems.append(
            f"{report.symbol} {last}: this bar has not closed yet at {complete}; only complete bars belong into a file"
        )
    behind_newest, behind_now = (max(0, (until - close) // HOUR) for until in (newest, complete))
    stale = behind_newest > limit or (current and behind_now > limit)
    if stale:
        behind = max(behind_newest, behind_now if current else 0)
        problems.append(f"{report.symbol}: its last bar closed {behind} h ago; at most {limit} h would be fresh")
    longest = sorted(report.gaps, key=lambda gap: -gap[2])[:LONGEST_GAPS]
    return Inspection(
        symbol=report.symbol,
        status="unsound" if ahead or not report.sound else "stale" if stale else "sound",
        bars=report.bars,
        first=report.first,
        last=last,
        gaps=len(report.gaps),
        missing_bars=report.missing_bars,
        longest_gaps=tuple(
            f"{bars} bar{'s' if bars > 1 else ''} from {start:%Y-%m-%d %H:%M} UTC" for start, _, bars in longest
        ),
        duplicates=report.duplicates,
        unsorted=report.unsorted,
        off_grid=report.off_grid,
        impossible=report.impossible,
        ahead_h=ahead,
        behind_newest_h=behind_newest,
        behind_now_h=behind_now,
        problems=tuple(problems),
    )
