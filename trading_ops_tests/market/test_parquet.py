"""Are recorded candles read as they are, and is what cannot be read refused by name?"""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trading_ops.market.candles import CandleError, StaleSymbol, UnknownSymbol
from trading_ops.market.parquet import ParquetCandles
from trading_ops.market.soundness import check_candles

START = datetime(2024, 1, 1, tzinfo=UTC)
EPOCH_MS = 1_704_067_200_000  # 2024-01-01 00:00 UTC
RECORDED = Path(__file__).parents[3] / "shared" / "data" / "market"
needs_recorded = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"no recorded candles at {RECORDED}")


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


MS_UTC = pa.timestamp("ms", "UTC")


def table(hours: list[int], ts: pa.DataType = MS_UTC, **columns: pa.Array) -> pa.Table:
    """Bars whose close is the hour + 1; ts in the wanted type."""
    stamps = pa.array([EPOCH_MS + 3_600_000 * hour for hour in hours], pa.int64())
    times = stamps if ts == pa.int64() else stamps.cast(MS_UTC).cast(ts)
    close = np.array(hours) + 1.0
    values = {"ts": times, "open": close, "high": close, "low": close, "close": close, "volume": close} | columns
    return pa.table({name: column for name, column in values.items() if column is not None})


def source(folder: Path, now: datetime | None = None, **files: pa.Table) -> ParquetCandles:
    for symbol, content in files.items():
        pq.write_table(content, folder / f"{symbol}-1h.parquet")
    return ParquetCandles(folder, lambda: now or at(1000))


@pytest.mark.parametrize(
    "ts",
    [
        pa.timestamp("s", "UTC"),
        pa.timestamp("ms", "UTC"),
        pa.timestamp("us", "UTC"),
        pa.timestamp("ns", "UTC"),
        pa.timestamp("us", "Europe/Berlin"),
        pa.timestamp("ms"),
        pa.timestamp("ns"),
        pa.int64(),
    ],
    ids=str,
)
def test_every_kind_of_timestamp_gives_the_same_utc_bars(tmp_path: Path, ts: pa.DataType):
    candles = source(tmp_path, AUSDT=table([0, 1, 2], ts))
    coverage = candles.coverage(["AUSDT"])
    assert (coverage.first, coverage.end) == (at(0), at(3))
    bars = candles.candles("AUSDT", at(1))
    assert list(bars.index) == [at(1), at(2)]
    assert list(bars.close) == [2.0, 3.0]
    assert bars.index.name == "time"
    assert str(bars.index.dtype) == "datetime64[us, UTC]"
    assert list(bars.columns) == ["open", "high", "low", "close", "volume"]


def test_files_without_statistics_are_read_all_the_same(tmp_path: Path):
    pq.write_table(table([0, 1, 2]), tmp_path / "AUSDT-1h.parquet", write_statistics=False)
    old = table([0, 1, 2], pa.timestamp("ns"))
    pq.write_table(old, tmp_path / "BUSDT-1h.parquet", use_deprecated_int96_timestamps=True)
    candles = ParquetCandles(tmp_path, lambda: at(1000))
    assert candles.coverage(["AUSDT", "BUSDT"]).end == at(3)
    assert list(candles.candles("BUSDT", at(2)).index) == [at(2)]


def test_duplicate_and_unsorted_rows_are_given_as_recorded(tmp_path: Path):
    candles = source(tmp_path, AUSDT=table([0, 2, 1, 1, 5]))
    bars = candles.candles("AUSDT")
    assert list(bars.close) == [1.0, 3.0, 2.0, 2.0, 6.0]
    report = check_candles(bars, "AUSDT")
    assert (report.duplicates, report.unsorted, report.missing_bars) == (1, 1, 2)
    assert candles.coverage(["AUSDT"]).end == at(6)


def test_only_the_asked_hours_come_whatever_the_row_groups(tmp_path: Path):
    pq.write_table(table(list(range(100))), tmp_path / "AUSDT-1h.parquet", row_group_size=7)
    candles = ParquetCandles(tmp_path, lambda: at(1000))
    assert list(candles.candles("AUSDT", at(20), at(30)).close) == list(range(21, 31))
    assert candles.candles("AUSDT", at(20), at(20)).empty
    assert candles.candles("AUSDT", at(200)).empty
    with pytest.raises(CandleError, match="swap start and end"):
        candles.candles("AUSDT", at(30), at(20))


def test_the_running_bar_and_the_future_are_not_given(tmp_path: Path):
    candles = source(tmp_path, now=at(5.99), AUSDT=table(list(range(10))), BUSDT=table([6, 7]))
    assert candles.candles("AUSDT").index[-1] == at(4)
    assert candles.coverage(["AUSDT"]).end == at(5)
    assert candles.symbols() == ["AUSDT"]
    assert ParquetCandles(tmp_path, lambda: at(6)).candles("AUSDT").index[-1] == at(5)


def test_a_stale_symbol_is_told_apart_and_given_only_within_its_life(tmp_path: Path):
    candles = source(tmp_path, AUSDT=table(list(range(60))), OLDUSDT=table(list(range(10))))
    assert candles.symbols() == ["AUSDT"]
    assert candles.stale_symbols() == {"OLDUSDT": at(10)}
    assert len(candles.candles("OLDUSDT", end=at(10))) == 10
    for end in (None, at(11)):
        with pytest.raises(StaleSymbol, match="OLDUSDT: its recorded bars end at 2024-01-01 10:00 UTC"):
            candles.candles("OLDUSDT", at(0), end)
    with pytest.raises(StaleSymbol, match="OLDUSDT"):
        candles.coverage(["AUSDT", "OLDUSDT"])
    narrowed = ParquetCandles(tmp_path, lambda: at(1000), symbols=["OLDUSDT"])
    assert narrowed.symbols() == ["OLDUSDT"]
    assert len(narrowed.candles("OLDUSDT")) == 10


def test_an_unknown_symbol_is_answered_with_what_is_there(tmp_path: Path):
    candles = source(tmp_path, AUSDT=table([0]))
    with pytest.raises(UnknownSymbol, match="DOGEUSDT: no recorded candles; there are AUSDT"):
        candles.candles("DOGEUSDT")
    with pytest.raises(UnknownSymbol):
        candles.candles("../AUSDT")


def test_a_replaced_file_is_noticed(tmp_path: Path):
    candles = source(tmp_path, AUSDT=table([0, 1]))
    assert candles.coverage(["AUSDT"]).end == at(2)
    source(tmp_path, AUSDT=table(list(range(9))))
    assert candles.coverage(["AUSDT"]).end == at(9)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (table([0], volume=None), "needs one column 'volume'"),
        (table([0], close=pa.array(["1"])), "column 'close' is string; double would be right"),
        (table([0], ts=pa.int64()).set_column(0, "ts", pa.array(["2024"])), "column 'ts' is string; a timestamp"),
        (table([0]).set_column(0, "ts", pa.array([1_704_067_200])), "column 'ts' holds 1704067200, as epoch milli"),
        (table([0]).set_column(0, "ts", pa.array([1_704_067_200_000_000_000])), "as epoch milliseconds not between"),
        (table([]), "has no bars"),
    ],
)
def test_an_unfit_file_is_refused_by_file_and_column(tmp_path: Path, content: pa.Table, says: str):
    candles = source(tmp_path, AUSDT=content)
    with pytest.raises(CandleError, match="AUSDT-1h.parquet: .*" + re.escape(says)):
        candles.symbols()


def test_a_row_without_time_is_refused(tmp_path: Path):
    stamps = pa.array([EPOCH_MS, None], pa.timestamp("ms"))
    candles = source(tmp_path, AUSDT=table([0, 1]).set_column(0, "ts", stamps))
    with pytest.raises(CandleError, match="column 'ts' is empty in 1 rows"):
        candles.candles("AUSDT")


def test_whole_numbers_are_taken_as_prices_and_an_empty_field_as_nan(tmp_path: Path):
    candles = source(tmp_path, AUSDT=table([0, 1], close=pa.array([1, 2]), low=pa.array([1.0, None])))
    bars = candles.candles("AUSDT")
    assert (bars.dtypes == "float64").all()
    assert list(bars.close) == [1.0, 2.0]
    assert check_candles(bars, "AUSDT").impossible == 1


def test_a_missing_empty_or_broken_folder_is_an_error_not_an_empty_market(tmp_path: Path):
    with pytest.raises(CandleError, match="no such folder"):
        ParquetCandles(tmp_path / "nowhere", lambda: START).symbols()
    with pytest.raises(CandleError, match="no candle files"):
        ParquetCandles(tmp_path, lambda: START).symbols()
    (tmp_path / "AUSDT-1h.parquet").write_bytes(b"half a downl")
    with pytest.raises(CandleError, match=r"AUSDT-1h.parquet: cannot be read as parquet"):
        ParquetCandles(tmp_path, lambda: START).symbols()


def test_a_clock_without_zone_is_refused(tmp_path: Path):
    source(tmp_path, AUSDT=table([0]))
    with pytest.raises(CandleError, match="now 2024-01-01 00:00:00 has no time zone"):
        ParquetCandles(tmp_path, lambda: START.replace(tzinfo=None)).symbols()


@needs_recorded
def test_the_recorded_folder_never_offers_the_symbols_that_ended_in_june_2021():
    candles = ParquetCandles(RECORDED, lambda: datetime(2026, 11, 1, tzinfo=UTC))
    stale = candles.stale_symbols()
    ended = {symbol for symbol, end in stale.items() if end == datetime(2021, 6, 20, 17, tzinfo=UTC)}
    assert len(candles.symbols()) + len(stale) == 40
    assert len(ended) == 22
    assert not ended & set(candles.symbols())
    assert "LUNAUSDT" in ended
    assert set(stale) - ended == {"BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "BNBUSDT"}  # 2025-09, the rest 2026-03
    in_2025 = ParquetCandles(RECORDED, lambda: datetime(2025, 9, 19, 23, tzinfo=UTC))
    assert "BTCUSDT" in in_2025.symbols()
    assert set(in_2025.stale_symbols()) == ended


@needs_recorded
@pytest.mark.parametrize("symbol", ["BTCUSDT", "UNIUSDT", "IMXUSDT", "SUIUSDT", "ADAUSDT", "PEPEUSDT"])
def test_the_recorded_files_are_what_their_provenance_says(symbol: str):
    row = re.search(rf"\| {symbol}-1h\.parquet \|.*", (RECORDED / "PROVENANCE.md").read_text())
    assert row
    cells = [cell.strip() for cell in row[0].split("|")]
    rows, first, last, missing = int(cells[4]), *(pd.Timestamp(cell, tz="UTC") for cell in cells[5:7]), int(cells[7])
    candles = ParquetCandles(RECORDED, lambda: datetime(2026, 11, 1, tzinfo=UTC))
    bars = candles.candles(symbol, end=last + pd.Timedelta("1h"))
    report = check_candles(bars, symbol)
    assert (report.bars, report.first, report.last, report.missing_bars) == (rows, first, last, missing)
    assert report.sound
    if symbol == "BTCUSDT":
        assert report.missing_bars == 20
        assert {str(start.date()) for start, _, _ in report.gaps} == {
            "2020-11-30",
            "2020-12-21",
            "2020-12-25",
            "2021-02-11",
            "2021-03-06",
            "2021-04-20",
            "2021-04-25",
            "2021-08-13",
            "2021-09-29",
            "2023-03-24",
        }


@needs_recorded
def test_the_days_of_the_recorded_bots_symbols_are_their_common_complete_days():
    candles = ParquetCandles(RECORDED, lambda: datetime(2026, 11, 1, tzinfo=UTC), symbols=["BTCUSDT", "ETHUSDT"])
    coverage = candles.coverage(["BTCUSDT", "ETHUSDT"])
    assert (str(coverage.first_day), str(coverage.last_day)) == ("2020-09-20", "2025-09-18")
