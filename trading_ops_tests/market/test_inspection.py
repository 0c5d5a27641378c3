"""Does the verdict on a folder of candles find what is wrong, and nothing else?"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trading_ops.market.candles import CandleError
from trading_ops.market.inspection import Inspection, inspect_folder, inspect_source
from trading_ops.market.parquet import write_candles
from trading_ops.market.simulated import SimulatedCandles

START = datetime(2024, 1, 1, tzinfo=UTC)


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


def put(folder: Path, symbol: str, hours: list[float], **values: float) -> None:
    """Bars open 10, high 12, low 9, close 11, volume 5 at the given hours after 2024-01-01; `values` for the last."""
    index = pd.DatetimeIndex([at(hour) for hour in hours], name="time", tz="UTC")
    bars = pd.DataFrame({"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 5.0}, index=index)
    if values:
        bars.loc[bars.index[-1], list(values)] = list(values.values())
    write_candles(folder / f"{symbol}-1h.parquet", bars)


def only(folder: Path, now: datetime, **options: bool) -> Inspection:
    (verdict,) = inspect_folder(folder, now, **options)
    return verdict


def test_complete_bars_up_to_now_are_sound(tmp_path):
    put(tmp_path, "BTCUSDT", [*range(10)])
    verdict = only(tmp_path, at(10.5))
    assert (verdict.status, verdict.bars, verdict.first, verdict.last) == ("sound", 10, at(0), at(9))
    assert (verdict.behind_now_h, verdict.behind_newest_h, verdict.problems) == (0, 0, ())


def test_gaps_are_told_the_longest_first_and_are_no_fault(tmp_path):
    put(tmp_path, "BTCUSDT", [0, 2, 6, 8, 11, 20])
    verdict = only(tmp_path, at(21))
    assert (verdict.status, verdict.gaps, verdict.missing_bars) == ("sound", 5, 15)
    assert verdict.longest_gaps == (
        "8 bars from 2024-01-01 12:00 UTC",
        "3 bars from 2024-01-01 03:00 UTC",
        "2 bars from 2024-01-01 09:00 UTC",
    )


@pytest.mark.parametrize(
    ("hours", "values", "counts", "says"),
    [
        ([0, 1, 1, 2], {}, (1, 0, 0, 0), "this bar appears twice"),
        ([0, 2, 1, 3], {}, (0, 1, 0, 0), "follows the later 2024-01-01 02:00"),
        ([0, 1.5, 2, 3], {}, (0, 0, 1, 0), "2024-01-01 01:30:00+00:00: time is not on the hour"),
        ([0, 1, 2, 3], {"low": 10.5}, (0, 0, 0, 1), "BTCUSDT 2024-01-01 03:00:00+00:00: low is 10.5; it must be"),
    ],
)
def test_what_contradicts_itself_is_unsound_and_named(tmp_path, hours, values, counts, says):
    put(tmp_path, "BTCUSDT", hours, **values)
    verdict = only(tmp_path, at(4))
    assert verdict.status == "unsound"
    assert (verdict.duplicates, verdict.unsorted, verdict.off_grid, verdict.impossible) == counts
    assert says in verdict.problems[0]


def test_a_bar_that_has_not_closed_is_unsound(tmp_path):
    put(tmp_path, "BTCUSDT", [0, 1, 2, 3])
    assert only(tmp_path, at(4)).status == "sound"
    verdict = only(tmp_path, at(3.75))
    assert (verdict.status, verdict.ahead_h, verdict.behind_now_h) == ("unsound", 1, 0)
    assert "2024-01-01 03:00:00+00:00: this bar has not closed yet" in verdict.problems[0]


def test_stale_is_more_than_48_hours_behind_now(tmp_path):
    put(tmp_path, "BTCUSDT", [0, 1])
    assert only(tmp_path, at(2 + 48.9)).status == "sound"
    verdict = only(tmp_path, at(2 + 49))
    assert (verdict.status, verdict.behind_now_h, verdict.behind_newest_h) == ("stale", 49, 0)
    assert verdict.problems == ("BTCUSDT: its last bar closed 49 h ago; at most 48 h would be fresh",)


def test_a_recording_need_not_be_current_but_its_files_must_end_together(tmp_path):
    put(tmp_path, "OLD", [0, 1])
    put(tmp_path, "NEW", [*range(50)])
    assert [v.status for v in inspect_folder(tmp_path, at(10_000), current=False)] == ["sound", "sound"]
    put(tmp_path, "NEW", [*range(51)])
    verdicts = inspect_folder(tmp_path, at(10_000), current=False)
    assert [(v.symbol, v.status, v.behind_newest_h) for v in verdicts] == [("NEW", "sound", 0), ("OLD", "stale", 49)]
    assert [v.status for v in inspect_folder(tmp_path, at(10_000))] == ["stale", "stale"]


def test_a_file_from_the_future_makes_no_other_file_stale(tmp_path):
    put(tmp_path, "BTCUSDT", [0, 1])
    put(tmp_path, "SOLUSDT", [900])
    assert [v.status for v in inspect_folder(tmp_path, at(2))] == ["sound", "unsound"]


def test_a_file_that_cannot_be_read_is_one_verdict_and_the_others_are_judged(tmp_path):
    put(tmp_path, "BTCUSDT", [0, 1])
    put(tmp_path, "EMPTY", [])
    (tmp_path / "TEXT-1h.parquet").write_text("no parquet")
    pq.write_table(pa.table({"ts": [1], "price": [2.0]}), tmp_path / "WRONG-1h.parquet")
    verdicts = {v.symbol: v for v in inspect_folder(tmp_path, at(2), ["BTCUSDT", "EMPTY", "TEXT", "WRONG", "NONE"])}
    assert {symbol: v.status for symbol, v in verdicts.items()} == {
        "BTCUSDT": "sound",
        "EMPTY": "broken",
        "NONE": "broken",
        "TEXT": "broken",
        "WRONG": "broken",
    }
    assert "has no bars" in verdicts["EMPTY"].problems[0]
    assert "cannot be read as parquet" in verdicts["TEXT"].problems[0]
    assert "needs one column 'open'" in verdicts["WRONG"].problems[0]
    assert "holds no file NONE-1h.parquet" in verdicts["NONE"].problems[0]


def test_only_the_symbols_asked_for_are_judged(tmp_path):
    put(tmp_path, "BTCUSDT", [0, 1])
    put(tmp_path, "ETHUSDT", [0, 0])
    assert [v.symbol for v in inspect_folder(tmp_path, at(2), ["BTCUSDT"])] == ["BTCUSDT"]


def test_a_folder_without_candles_is_refused(tmp_path):
    with pytest.raises(CandleError, match="no candle files"):
        inspect_folder(tmp_path, at(0))
    with pytest.raises(CandleError, match="no such folder"):
        inspect_folder(tmp_path / "nowhere", at(0))


def test_another_source_is_judged_by_the_same_rules():
    source = SimulatedCandles(lambda: at(500.5), ["BTCUSDT", "ETHUSDT"])
    verdicts = inspect_source(source, at(500.5))
    assert [(v.symbol, v.status, v.bars) for v in verdicts] == [("BTCUSDT", "sound", 500), ("ETHUSDT", "sound", 500)]
    (known, unknown) = inspect_source(source, at(500.5), ["BTCUSDT", "XUSDT"])
    assert (known.status, unknown.status) == ("sound", "broken")
