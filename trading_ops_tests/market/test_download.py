"""Does a folder of candles catch up with its exchange, losing nothing and asking for nothing twice?"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from trading_ops.market.candles import CandleError
from trading_ops.market.download import LOCK, Download, days_back, download_candles
from trading_ops.market.exchange import ExchangeCandles
from trading_ops.market.parquet import ParquetCandles, read_footer, write_candles
from trading_ops.market.simulated import SimulatedCandles
from trading_ops.market.soundness import check_candles
from trading_ops_tests.conftest import ROOT
from trading_ops_tests.servers.binance import BinanceServer, Fault

NOON = datetime(2025, 3, 10, 12, 30, tzinfo=UTC)
END = datetime(2025, 3, 10, 12, tzinfo=UTC)  # the close of the last complete bar at NOON
LATER = timedelta(hours=1_500)
SIMULATED = SimulatedCandles(lambda: NOON + LATER + timedelta(hours=1))
BARS = {symbol: SIMULATED.candles(symbol) for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")}


def hours(count: int) -> timedelta:
    return timedelta(hours=count)


class Market:
    """A server, a folder and a clock that all tell the same time."""

    def __init__(self, server: BinanceServer, folder: Path) -> None:
        self.server, self.folder, self.time = server, folder, NOON
        server.now = lambda: self.time
        self.exchange = ExchangeCandles("binance", api_url=server.url, timeout_s=30.0, sleep=lambda _: None)

    def download(self, *symbols: str, back: int = 2_500) -> list[Download]:
        start = END - hours(back)
        return download_candles(self.exchange, symbols or ("BTCUSDT",), self.folder, start, lambda: self.time)

    def recorded(self, symbol: str = "BTCUSDT") -> pd.DataFrame:
        return ParquetCandles(self.folder, lambda: self.time, symbols=[symbol]).candles(symbol)

    def file(self, symbol: str = "BTCUSDT") -> Path:
        return self.folder / f"{symbol}-1h.parquet"

    def change(self, time: datetime, **values: float) -> None:
        """From now on the exchange says something else about a bar."""
        bars = self.server.bars["BTCUSDT"].copy()
        bars.loc[time, list(values)] = list(values.values())
        self.server.bars["BTCUSDT"] = bars


@pytest.fixture
def market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Market]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with BinanceServer(dict(BARS)) as server:
        yield Market(server, tmp_path / "candles")


def test_the_folder_holds_what_the_exchange_said_without_the_running_bar(market):
    done = market.download("BTCUSDT", "ETHUSDT")
    for symbol, download in zip(("BTCUSDT", "ETHUSDT"), done, strict=True):
        want = BARS[symbol].loc[END - hours(2_500) : END - hours(1)]
        pd.testing.assert_frame_equal(market.recorded(symbol), want)
        assert (download.symbol, download.bars, download.new_bars, download.gaps) == (symbol, 2_500, 2_500, 0)
        assert (download.first, download.last) == (END - hours(2_500), END - hours(1))
        assert download.succeeded
        assert download.remarks() == []
    market.time += LATER  # by then the running bar of noon would be read, were it recorded
    assert market.recorded().index[-1] == END - hours(1)
    assert sorted(path.name for path in market.folder.iterdir() if path.name != LOCK) == [
        "BTCUSDT-1h.parquet",
        "ETHUSDT-1h.parquet",
    ]


def test_in_the_same_hour_nothing_at_all_is_asked_again(market):
    market.download()
    before = market.file().read_bytes()
    market.server.forget()
    market.exchange = ExchangeCandles("binance", api_url=market.server.url)
    (done,) = market.download()
    assert market.server.asked == []
    assert (done.new_bars, done.bars, done.succeeded) == (0, 2_500, True)
    assert market.file().read_bytes() == before


def test_later_only_the_seam_and_what_is_new_are_asked_for(market):
    market.download()
    market.server.forget()
    market.time += hours(30)
    (done,) = market.download()
    assert done.new_bars == 30
    assert done.last == END + hours(29)
    assert {time for _, time in market.server.served} == set(
        BARS["BTCUSDT"].loc[END - hours(1) : END + hours(29)].index
    )
    pd.testing.assert_frame_equal(market.recorded(), BARS["BTCUSDT"].loc[END - hours(2_500) : END + hours(29)])


def test_more_days_are_added_in_front_and_only_those_are_asked_for(market):
    market.download(back=500)
    market.server.forget()
    (done,) = market.download(back=3_300)
    assert done.new_bars == 2_800
    served = {time for _, time in market.server.served}
    assert served == set(BARS["BTCUSDT"].loc[END - hours(3_300) : END - hours(500)].index)  # the last one is the seam
    assert max(market.server.served.values()) == 1
    pd.testing.assert_frame_equal(market.recorded(), BARS["BTCUSDT"].loc[END - hours(3_300) : END - hours(1)])


def test_fewer_days_take_nothing_away(market):
    market.download()
    (done,) = market.download(back=100)
    assert (done.bars, done.new_bars) == (2_500, 0)


def test_a_market_listed_later_is_told_and_not_asked_for_its_time_before_again(market):
    market.server.bars["BTCUSDT"] = BARS["BTCUSDT"].loc[END - hours(200) :]
    (done,) = market.download(back=300)
    assert done.bars == 200
    assert done.remarks() == [f"BTCUSDT: the exchange has no bar before {END - hours(200):%Y-%m-%d %H:%M} UTC"]
    (more,) = market.download(back=3_300)
    assert (more.bars, more.remarks()) == (200, done.remarks())
    market.server.forget()
    assert market.download(back=3_300)[0].bars == 200
    assert market.server.asked == []


def test_downtime_of_the_exchange_stays_a_gap(market):
    bars = BARS["BTCUSDT"]
    quiet = (bars.index >= END - hours(2_000)) & (bars.index < END - hours(600))
    market.server.bars["BTCUSDT"] = bars[~quiet]
    (done,) = market.download()
    assert (done.bars, done.gaps, done.missing_bars, done.succeeded) == (1_100, 1, 1_400, True)
    assert check_candles(market.recorded(), "BTCUSDT").gaps == ((END - hours(2_000), END - hours(600), 1_400),)


def test_a_market_that_ended_is_told(market):
    market.server.bars["BTCUSDT"] = BARS["BTCUSDT"].loc[: END - hours(51)]
    (done,) = market.download(back=100)
    assert done.succeeded
    assert done.remarks() == [f"BTCUSDT: the exchange has no bar after {END - hours(51):%Y-%m-%d %H:%M} UTC"]


def test_at_both_seams_the_exchanges_newer_word_wins_and_is_told(market):
    market.download(back=100)
    first, last = END - hours(100), END - hours(1)
    was = market.recorded()
    market.change(first, volume=1.5)
    market.change(last, close=was.at[last, "close"] + 0.25, high=was.at[last, "high"] + 1.0)
    market.change(END - hours(50), volume=7.0)  # no seam, so not looked at
    market.time += hours(1)
    (done,) = market.download(back=200)
    assert done.succeeded
    assert done.new_bars == 101
    assert len(done.corrected) == 2
    high, close = was.at[last, "high"], was.at[last, "close"]
    assert done.corrected[0] == (
        f"BTCUSDT {last:%Y-%m-%d %H:%M} UTC: high {high:.10g} is now {high + 1:.10g},"
        f" close {close:.10g} is now {close + 0.25:.10g}"
    )
    assert f"{first:%Y-%m-%d %H:%M} UTC: volume {was.at[first, 'volume']:.10g} is now 1.5" in done.corrected[1]
    now = market.recorded()
    assert now.at[first, "volume"] == 1.5
    assert now.at[last, "close"] == close + 0.25
    assert now.at[END - hours(50), "volume"] == was.at[END - hours(50), "volume"]


def test_an_impossible_bar_is_left_out_named_and_a_gap(market):
    market.change(END - hours(1_500), low=-3.0)
    market.change(END - hours(20), high=1.0)
    (done,) = market.download()
    assert not done.succeeded
    assert done.error is None
    assert (done.rejected_bars, done.bars, done.missing_bars, done.gaps) == (2, 2_498, 2, 2)
    time = (END - hours(1_500)).isoformat(sep=" ")
    assert done.remarks()[0] == f"left out: BTCUSDT {time}: low is -3; it must be above 0"
    assert "high is 1; it must be at least max(open, close)" in done.remarks()[1]
    want = BARS["BTCUSDT"].loc[END - hours(2_500) : END - hours(1)].drop([END - hours(1_500), END - hours(20)])
    pd.testing.assert_frame_equal(market.recorded(), want)
    assert market.download()[0].succeeded  # the gap is recorded, and is no fault


def test_a_recorded_bar_is_not_replaced_by_an_impossible_one(market):
    market.download(back=100)
    was = market.recorded()
    market.change(END - hours(1), close=float("nan"))
    market.time += hours(2)
    (done,) = market.download(back=100)
    assert done.rejected_bars == 1
    assert done.corrected == ()
    pd.testing.assert_frame_equal(market.recorded().loc[: END - hours(1)], was)


def test_a_bar_off_the_hour_is_left_out(market):
    bars = BARS["BTCUSDT"].loc[END - hours(50) :]
    moved = bars.index[10] + timedelta(minutes=30)
    market.server.bars["BTCUSDT"] = bars.set_axis([*bars.index[:10], moved, *bars.index[11:]])
    (done,) = market.download(back=50)
    assert (done.bars, done.rejected_bars) == (49, 1)
    assert "time is not on the hour" in done.rejected[0]


def test_a_market_of_nothing_but_impossible_bars_leaves_no_file(market):
    market.server.bars["BTCUSDT"] = BARS["BTCUSDT"].assign(volume=-1.0)
    (done,) = market.download(back=1_200)
    assert done.rejected_bars == 1_200
    assert len(done.rejected) == 20
    assert "no possible hourly bar" in str(done.error)
    assert done.remarks()[-1] == "BTCUSDT: 1180 more bars left out like these"
    assert not market.file().exists()


def test_an_unknown_symbol_does_not_stop_the_others(market):
    wrong, right = market.download("BTCUSD", "ETHUSDT", back=50)
    assert "did you mean BTCUSDT" in str(wrong.error)
    assert (wrong.succeeded, wrong.bars) == (False, 0)
    assert (right.succeeded, right.bars) == (True, 50)


def test_an_unavailable_exchange_is_left_alone_and_the_pages_before_are_kept(market):
    market.server.faults.extend([Fault(), Fault(), Fault(418, "{}", {"Retry-After": "900"})])
    first, second = market.download("BTCUSDT", "ETHUSDT")
    assert "banned this address" in str(first.error)
    assert first.bars == 2_000
    assert second.error == "ETHUSDT: not tried"
    assert len(market.server.klines_asked()) == 3
    market.server.forget()
    assert [done.bars for done in market.download("BTCUSDT", "ETHUSDT")] == [2_500, 2_500]
    assert sum(count for (symbol, _), count in market.server.served.items() if symbol == "BTCUSDT") == 501
    pd.testing.assert_frame_equal(market.recorded(), BARS["BTCUSDT"].loc[END - hours(2_500) : END - hours(1)])


def test_a_failure_while_days_are_added_in_front_leaves_no_hole(market):
    market.download(back=100)
    market.server.largest_page = 300  # so that a thousand bars take four requests, oldest first
    market.server.faults.extend([Fault()] * 5 + [Fault(418)])
    (failed,) = market.download(back=3_000)
    assert not failed.succeeded
    assert (failed.bars, failed.gaps) == (1_099, 0)  # the first thousand, the seam among them
    assert len(market.recorded()) == 1_099
    market.server.forget()
    (done,) = market.download(back=3_000)
    assert (done.bars, done.gaps) == (3_000, 0)
    assert len(market.server.served) == 1_901 + 1  # what was missing, and the seam


def test_progress_counts_the_hours_up_to_all_of_them(market):
    said: list[tuple[str, int, int]] = []
    start = END - hours(2_500)
    download_candles(market.exchange, ["BTCUSDT"], market.folder, start, lambda: market.time, lambda *s: said.append(s))
    assert said == [("BTCUSDT", done, 2_500) for done in (1_000, 2_000, 2_500)]
    said.clear()
    market.time += hours(9)
    start -= hours(1_200)
    download_candles(market.exchange, ["BTCUSDT"], market.folder, start, lambda: market.time, lambda *s: said.append(s))
    assert said == [("BTCUSDT", done, 1_210) for done in (10, 10 + 999, 1_210)]


def test_what_a_killed_writer_left_is_ignored_and_cleared(market):
    market.download(back=50)
    left = market.folder / "BTCUSDT-1h.parquet.part"
    left.write_bytes(b"PAR1 half a file")
    assert len(market.recorded()) == 50
    market.download(back=50)
    assert not left.exists()


def test_a_second_download_into_the_same_folder_is_refused(market):
    market.folder.mkdir()
    with FileLock(market.folder / LOCK), pytest.raises(CandleError, match="another download is at work in this folder"):
        market.download()
    assert market.server.asked == []
    assert market.download(back=50)[0].succeeded


def test_a_folder_that_cannot_be_written_is_named(market):
    market.folder.write_text("a file")
    with pytest.raises(CandleError, match="candles: cannot be written: "):
        market.download()


def test_bars_of_two_exchanges_do_not_mix(market):
    market.download(back=50)
    before = market.file().read_bytes()
    market.exchange.id = "binanceus"
    (done,) = market.download(back=100)
    assert "holds bars of binance, which those of binanceus must not continue" in str(done.error)
    assert market.file().read_bytes() == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.append_column("trades", table["volume"]), r"further columns \(trades\)"),
        (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "appears twice.*repair it, or move it away"),
        (lambda table: table.drop(["close"]), "needs one column 'close'"),
    ],
)
def test_a_file_that_would_be_harmed_stays_as_it_is(market, change, says):
    market.download(back=50)
    pq.write_table(change(pq.read_table(market.file())), market.file())
    before = market.file().read_bytes()
    market.time += hours(5)
    damaged, other = market.download("BTCUSDT", "ETHUSDT", back=50)
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(damaged.error)
    assert market.file().read_bytes() == before
    assert other.succeeded


def test_a_damaged_file_stays_as_it_is(market):
    market.folder.mkdir()
    market.file().write_bytes(b"no parquet at all")
    (done,) = market.download(back=50)
    assert "cannot be read as parquet" in str(done.error)
    assert market.file().read_bytes() == b"no parquet at all"


def test_a_recording_made_elsewhere_is_continued(market):
    market.folder.mkdir()
    bars = BARS["BTCUSDT"].loc[END - hours(300) : END - hours(100)]
    columns = {"ts": bars.index.as_unit("ms").asi8, **{name: bars[name] for name in bars}}
    pq.write_table(pa.table(columns), market.file())  # epoch milliseconds, and no notes of ours
    (done,) = market.download(back=400)
    assert (done.bars, done.gaps, done.corrected) == (400, 0, ())
    pd.testing.assert_frame_equal(market.recorded(), BARS["BTCUSDT"].loc[END - hours(400) : END - hours(1)])


def test_a_running_bar_recorded_elsewhere_is_replaced_by_the_complete_one(market):
    market.folder.mkdir()
    early = BARS["BTCUSDT"].loc[END - hours(50) : END].copy()
    early.loc[END, "volume"] = 0.125  # recorded at half past, so not complete
    write_candles(market.file(), early)
    assert market.download(back=50)[0].new_bars == 0
    market.time += hours(3)
    market.download(back=50)
    assert market.recorded().at[END, "volume"] == BARS["BTCUSDT"].at[END, "volume"]


def test_days_count_back_to_a_midnight():
    assert days_back(1, NOON) == datetime(2025, 3, 9, tzinfo=UTC)
    assert days_back(400, NOON) == datetime(2024, 2, 4, tzinfo=UTC)


def test_a_reader_meets_whole_files_only(tmp_path):
    path, symbol = tmp_path / "BTCUSDT-1h.parquet", "BTCUSDT"
    sizes = (10, 4_000)
    write_candles(path, BARS[symbol][: sizes[0]])
    done = threading.Event()

    def rewrite() -> None:
        for turn in range(60):
            write_candles(path, BARS[symbol][: sizes[turn % 2]], {"turn": str(turn)})
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(len(ParquetCandles(tmp_path, lambda: NOON).candles(symbol)))
    writer.join()
    assert seen <= set(sizes)
    assert read_footer(path).notes["turn"] == "59"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path):
    path = tmp_path / "BTCUSDT-1h.parquet"
    write_candles(path, BARS["BTCUSDT"][:10])
    before = path.read_bytes()
    program = """
import resource, signal, sys
from pathlib import Path
from trading_ops.market.candles import CandleError
from trading_ops.market.parquet import write_candles
from trading_ops.market.simulated import SimulatedCandles
from datetime import UTC, datetime
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
try:
    write_candles(Path(sys.argv[1]), SimulatedCandles(lambda: datetime(2024, 3, 1, tzinfo=UTC)).candles("BTCUSDT"))
except CandleError as error:
    print(error)
"""
    line = [sys.executable, "-c", program, str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = subprocess.run(line, capture_output=True, text=True, check=True, env=environment, timeout=60).stdout
    assert "BTCUSDT-1h.parquet: cannot be written: " in said
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
