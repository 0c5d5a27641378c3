"""Which candles are recorded in this folder of parquet files, and how does one more file get there whole?"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trading_ops.files import FileNotWritten, write_whole
from trading_ops.market.candles import FIELDS, HOUR, CandleError, Columns, Span, SpannedCandles, Survey, frame_of

if TYPE_CHECKING:
    import pandas as pd

SUFFIX = "-1h.parquet"
TAILS_KEPT = 5_000_000  # bars; 240 MB
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_US = timedelta(microseconds=1)
_NS_PER_UNIT = {"milliseconds": 1_000_000, "microseconds": 1_000, "nanoseconds": 1}
_US_PER_TICK = {"s": 1_000_000, "ms": 1_000, "us": 1}
_PLAUSIBLE = (datetime(2009, 1, 1, tzinfo=UTC).timestamp(), datetime(2200, 1, 1, tzinfo=UTC).timestamp())


class Footer(NamedTuple):
    """A file's column names, its rows, and what `write_candles` noted beside them."""

    columns: tuple[str, ...]
    bars: int
    notes: dict[str, str]


class _Known(NamedTuple):
    """What a file's footer says: its bars' span, the columns' places, and each row group's first and last ts."""

    version: tuple[int, int, int]
    span: Span
    metadata: Any
    groups: tuple[tuple[int, int] | None, ...]


class _Tail(NamedTuple):
    """Bars [begin, until) of a file, as long as it is the `known` one."""

    known: _Known
    begin: datetime
    until: datetime
    columns: Columns


class ParquetCandles(SpannedCandles):
    """The files SYMBOL-1h.parquet of a folder: columns ts (bar open, UTC), open, high, low, close, volume.

    ts is a timestamp (s, ms, us or ns; with a zone, or naive and then UTC) or an integer: epoch milliseconds.
    `symbols` narrows the source to these files, so that freshness is judged among them alone.
    """

    label = "recorded"

    def __init__(self, folder: Path, now: Callable[[], datetime], *, symbols: Sequence[str] | None = None) -> None:
        super().__init__(now)
        self._folder = Path(folder)
        self.origin = f"recorded in {self._folder.resolve()}"
        self._only = None if symbols is None else set(symbols)
        self._known: dict[Path, _Known] = {}
        self._tails: dict[str, _Tail] = {}

    def spans(self) -> dict[str, Span]:
        spans, errors = self._survey()
        for error in errors.values():
            raise error
        return spans

    def survey(self) -> Survey:
        spans, errors = self._survey()
        return Survey(spans, {symbol: str(error) for symbol, error in errors.items()})

    def _survey(self) -> tuple[dict[str, Span], dict[str, CandleError]]:
        complete = self.now().replace(minute=0, second=0, microsecond=0)
        spans, errors = {}, {}
        for symbol, path in self._files().items():
            try:
                first, end = self._footer(path).span
            except CandleError as error:
                errors[symbol] = error
                continue
            if first + HOUR <= complete:
                spans[symbol] = Span(first, min(end, complete))
        return spans, errors

    def _bars(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        return frame_of(self._columns(symbol, start, end))

    def _columns(self, symbol: str, start: datetime, end: datetime) -> Columns:
        path = self._folder / f"{symbol}{SUFFIX}"
        begin, until = ((moment - _EPOCH) // _US for moment in (start, end))
        while True:
            known, failure = self._footer(path), None
            try:
                times, values = _read(path, known, begin, until)
            except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
                failure = error
            if self._footer(path) is known:  # else it was replaced meanwhile: its footer belongs to other bars
                break
        if failure is not None:
            raise CandleError(f"{path}: cannot be read as candles: {failure}") from failure
        inside = (times >= begin) & (times < until)
        return Columns(times[inside], tuple(values[field][inside] for field in FIELDS))

    def tails(self, spans: Mapping[str, Span], hours: int) -> Iterator[tuple[str, Columns | CandleError]]:
        """As every source's; a tail is decoded once and kept until its file changes, TAILS_KEPT bars in all."""
        for symbol, span in spans.items():
            begin, until = max(span.first, span.end - hours * HOUR), span.end
            try:
                known, kept = self._footer(self._folder / f"{symbol}{SUFFIX}"), self._tails.get(symbol)
                if kept is None or (kept.known, kept.begin, kept.until) != (known, begin, until):
                    kept = _Tail(known, begin, until, self._columns(symbol, begin, until))
                    if (len(self._tails) + 1) * hours > TAILS_KEPT:
                        self._tails.clear()
                    self._tails[symbol] = kept
                yield symbol, kept.columns
            except CandleError as error:
                yield symbol, error

    def _files(self) -> dict[str, Path]:
        files = candle_files(self._folder)
        return files if self._only is None else {name: path for name, path in files.items() if name in self._only}

    def _footer(self, path: Path) -> _Known:
        try:
            stat = path.stat()
            version = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            known = self._known.get(path)
            if known is None or known.version != version:
                known = self._known[path] = _footer(path, version)
        except (OSError, ValueError) as error:
            raise CandleError(f"{path}: cannot be read as parquet: {error}") from error
        return known


def candle_files(folder: Path) -> dict[str, Path]:
    """Each symbol's file; raises CandleError where there is no folder, or no such file in it."""
    if not folder.is_dir():
        raise CandleError(f"{folder}: no such folder; it should hold files such as BTCUSDT{SUFFIX}")
    files = {path.name.removesuffix(SUFFIX): path for path in sorted(folder.glob(f"*{SUFFIX}"))}
    if not files:
        raise CandleError(f"{folder}: no candle files; it should hold files such as BTCUSDT{SUFFIX}")
    return files


def write_candles(path: Path, frame: pd.DataFrame, notes: Mapping[str, str] | None = None) -> None:
    """Put a candle frame into `path`, durably and in one step: a reader or a power cut meets the old file or the new.

    `notes` go into the file beside the columns. Raises CandleError where it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    times = pa.array(frame.index.as_unit("ms"), pa.timestamp("ms", "UTC"))
    table = pa.table({"ts": times} | {field: frame[field].to_numpy("float64") for field in FIELDS})
    image = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(dict(notes or {})), image, row_group_size=8_192)
    try:
        write_whole(path, image.getvalue())
    except FileNotWritten as error:
        raise CandleError(str(error)) from error


def read_footer(path: Path) -> Footer:
    """What the file says about itself; raises CandleError where it is no parquet file."""
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(path)
    except (OSError, ValueError) as error:
        raise CandleError(f"{path}: cannot be read as parquet: {error}") from error
    notes = {
        key.decode(errors="replace"): text.decode(errors="replace") for key, text in (metadata.metadata or {}).items()
    }
    return Footer(tuple(metadata.schema.names), metadata.num_rows, notes)


def _footer(path: Path, version: tuple[int, int, int]) -> _Known:
    """First bar's open and last bar's close, from the footer's statistics (from the column where it has none)."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        _check_schema(path, file.schema_arrow)
        if file.metadata.num_rows == 0:
            raise CandleError(f"{path}: has no bars; remove it or download it again")
        groups = tuple(_group_range(file.metadata, i) for i in range(file.metadata.num_row_groups))
        ranges = [group for group in groups if group is not None]
        if len(ranges) < len(groups):
            times = _microseconds(path, file.read(columns=["ts"]).column("ts"))
            ranges = [(int(times.min()), int(times.max()))]
        metadata = file.metadata
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    for moment in (low, high):
        if not _PLAUSIBLE[0] <= moment // 1_000_000 < _PLAUSIBLE[1]:
            raise CandleError(
                f"{path}: column 'ts' holds {moment // 1_000}, as epoch milliseconds not between 2009 and 2200;"
                " a timestamp, or an integer of epoch milliseconds, would be right"
            )
    return _Known(version, Span(_EPOCH + low * _US, _EPOCH + high * _US + HOUR), metadata, groups)


def _check_schema(path: Path, schema: Any) -> None:
    """Raises CandleError naming the file and the column that is missing or of a wrong type."""
    from pyarrow import types

    for column in ("ts", *FIELDS):
        if schema.names.count(column) != 1:
            raise CandleError(f"{path}: needs one column {column!r}; it has {', '.join(schema.names)}")
        kind = schema.field(column).type
        fits = types.is_timestamp(kind) if column == "ts" else types.is_floating(kind)
        if not (fits or types.is_integer(kind)):
            right = "a timestamp, or an integer: epoch milliseconds," if column == "ts" else "double"
            raise CandleError(f"{path}: column {column!r} is {kind}; {right} would be right")


def _group_range(metadata: Any, group: int) -> tuple[int, int] | None:
    """Lowest and highest ts of a row group in microseconds, None where the writer left no statistics."""
    row_group = metadata.row_group(group)
    columns = (row_group.column(i) for i in range(row_group.num_columns))
    statistics = next(column.statistics for column in columns if column.path_in_schema == "ts")
    if statistics is None or not statistics.has_min_max or statistics.physical_type == "INT96":
        return None
    # the raw integers, since converted ones would import pandas, which loading the definitions must not need
    unit = json.loads(statistics.logical_type.to_json()).get("timeUnit", "milliseconds")
    low, high = (raw * _NS_PER_UNIT[unit] // 1_000 for raw in (statistics.min_raw, statistics.max_raw))
    return low, high


def _read(path: Path, known: _Known, begin: int, until: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Times (int64 microseconds) and fields (float64) of the row groups that may hold a bar of [begin, until)."""
    import pyarrow.parquet as pq

    wanted = [i for i, seen in enumerate(known.groups) if seen is None or (seen[1] >= begin and seen[0] < until)]
    with pq.ParquetFile(path, metadata=known.metadata) as file:
        # one thread: a group is small, and many files are read at once where there are many
        table = file.read_row_groups(wanted, columns=["ts", *FIELDS], use_threads=False)
    values = {field: table.column(field).to_numpy().astype("float64", copy=False) for field in FIELDS}
    return _microseconds(path, table.column("ts")), values


def _microseconds(path: Path, column: Any) -> np.ndarray:
    import pyarrow as pa

    if column.null_count:
        raise CandleError(f"{path}: column 'ts' is empty in {column.null_count} rows; every bar needs its open time")
    ticks = column.cast(pa.int64()).to_numpy()
    unit = column.type.unit if pa.types.is_timestamp(column.type) else "ms"
    return ticks // 1_000 if unit == "ns" else ticks * _US_PER_TICK[unit]
