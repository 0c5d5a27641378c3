"""`trading-ops candles` as a real process, against a server that speaks an exchange's language."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from filelock import FileLock

from trading_ops.market.download import LOCK
from trading_ops.market.parquet import ParquetCandles, write_candles
from trading_ops.market.simulated import SimulatedCandles
from trading_ops.services import Services
from trading_ops_tests.conftest import QuietSettings
from trading_ops_tests.servers.binance import BinanceServer, Fault
from trading_ops_tests.test_cli import BIN, NEED_ANOTHER, command, new_home

HOUR = timedelta(hours=1)
DAYS = 180  # five pages


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return new_home(tmp_path)


@pytest.fixture
def server() -> Iterator[BinanceServer]:
    """Two markets, with two more hours than have passed so that the running bar and the next are there."""
    source = SimulatedCandles(lambda: now() + 2 * HOUR, ["BTCUSDT", "ETHUSDT"])
    with BinanceServer({symbol: source.candles(symbol) for symbol in source.symbols()}) as server:
        yield server


def candles(home: Path, server: BinanceServer, *line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return command(["trading-ops", "candles", *line], home, TRADING_OPS_EXCHANGE_URL=server.url, **environment)


def started(home: Path, server: BinanceServer, *line: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "DAGSTER_HOME": str(home), "TERM": "xterm"}
    return subprocess.Popen(
        [BIN / "trading-ops", "candles", *line],
        cwd=home,
        env={**environment, "TRADING_OPS_EXCHANGE_URL": server.url},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
    )


def recorded(folder: Path, symbol: str) -> pd.DataFrame:
    return ParquetCandles(folder, now, symbols=[symbol]).candles(symbol)


def test_a_download_ends_with_a_table_and_what_to_set(home, server):
    done = candles(home, server, "download", "--symbols", "btcusdt, ETHUSDT", "--days", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert "hourly candles of binance in var/candles" in " ".join(done.stdout.split())
    for symbol in ("BTCUSDT", "ETHUSDT"):
        bars = recorded(home / "var" / "candles", symbol)
        pd.testing.assert_frame_equal(bars, server.bars[symbol].loc[bars.index[0] : bars.index[-1]])
        assert bars.index[0].hour == 0
        assert re.search(rf"{symbol} +│ +{len(bars)} +│ .* │ +{len(bars)} +│ none", done.stdout)
    said = done.stdout.splitlines()
    assert "TRADING_OPS_CANDLES=var/candles" in said
    assert "TRADING_OPS_SYMBOLS=BTCUSDT,ETHUSDT" in said
    assert max(map(len, said)) <= 80
    settings = dict(line.split("=") for line in said if line.startswith("TRADING_OPS_"))
    again = candles(home, server, "download", "--days", "3", **settings)
    assert again.returncode == 0
    assert ".env" not in again.stdout
    assert candles(home, server, "check", **settings).returncode == 0


def test_the_readmes_download_works(home, server):
    (line,) = [line for line in NEED_ANOTHER if "download" in line]
    environment = {"TRADING_OPS_EXCHANGE_URL": server.url, "TRADING_OPS_SYMBOLS": "BTCUSDT,ETHUSDT"}
    done = command(line.split(), home, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(recorded(home / "var" / "candles", "ETHUSDT")) >= 400 * 24


def test_json_is_one_document(home, server):
    folder = str(home / "elsewhere")
    line = ("--symbols", "BTCUSDT,ETHUSDT", "--days", "2", "--folder", folder)
    done = candles(home, server, "download", *line, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["exchange"], document["folder"]) == ("binance", folder)
    assert document["set"]["TRADING_OPS_CANDLES"] == folder
    assert [d["symbol"] for d in document["downloads"]] == ["BTCUSDT", "ETHUSDT"]
    for download in document["downloads"]:
        assert download["bars"] == download["new_bars"] == len(recorded(Path(folder), download["symbol"]))
        assert download["error"] is None
    checked = candles(home, server, "check", "--folder", folder, "--json")
    document = json.loads(checked.stdout)
    assert document["sound"] is True
    assert [(s["symbol"], s["status"], s["gaps"]) for s in document["symbols"]] == [
        ("BTCUSDT", "sound", 0),
        ("ETHUSDT", "sound", 0),
    ]


def test_a_killed_download_goes_on_where_it_was(home, server):
    server.hold_after = 3
    line = ("download", "--symbols", "BTCUSDT", "--days", str(DAYS))
    with started(home, server, *line) as victim:
        assert server.held.wait(300)
        victim.kill()
    folder = home / "var" / "candles"
    assert len(recorded(folder, "BTCUSDT")) == 3_000
    server.hold_after = None
    done = candles(home, server, *line)
    assert done.returncode == 0, done.stderr
    bars = recorded(folder, "BTCUSDT")
    pd.testing.assert_frame_equal(bars, server.bars["BTCUSDT"].loc[bars.index[0] : bars.index[-1]])
    assert len(bars) >= DAYS * 24
    again = [opened for (_, opened), count in server.served.items() if count > 1]
    assert again == [bars.index[2_999]]  # the seam, once more


@pytest.mark.chaos
def test_a_download_killed_ten_times_ends_with_the_same_bars(home, server):
    line = ("download", "--symbols", "BTCUSDT,ETHUSDT", "--days", "400")
    folder = home / "var" / "candles"
    kills = 0
    for turn in range(10):
        server.hold_after = len(server.klines_asked()) + 1 + turn % 3
        server.held.clear()
        with started(home, server, *line) as victim:
            while not server.held.wait(0.05) and victim.poll() is None:
                pass
            time.sleep(0.002 * turn)
            kills += victim.poll() is None
            victim.kill()
        server.released.set()
        server.released.clear()
        for path in folder.glob("*-1h.parquet"):
            bars = recorded(folder, path.name.removesuffix("-1h.parquet"))
            assert (bars.index[1:] - bars.index[:-1]).unique().tolist() == [HOUR]
    assert kills >= 5
    server.hold_after = None
    assert candles(home, server, *line).returncode == 0
    for symbol in ("BTCUSDT", "ETHUSDT"):
        bars = recorded(folder, symbol)
        pd.testing.assert_frame_equal(bars, server.bars[symbol].loc[bars.index[0] : bars.index[-1]])


def test_an_interrupted_download_says_what_is_kept(home, server):
    server.hold_after = 2
    with started(home, server, "download", "--symbols", "BTCUSDT", "--days", str(DAYS)) as victim:
        assert server.held.wait(300)
        victim.send_signal(signal.SIGINT)
        _, said = victim.communicate(timeout=300)
    assert victim.returncode == 130
    assert said == "interrupted; every page fetched so far is kept, run the same again to go on\n"
    assert len(recorded(home / "var" / "candles", "BTCUSDT")) == 2_000


def test_two_downloads_into_one_folder_do_not_meet(home, server):
    server.hold_after = 0
    with started(home, server, "download", "--symbols", "BTCUSDT", "--days", "2") as first:
        assert server.held.wait(300)
        second = candles(home, server, "download", "--symbols", "ETHUSDT", "--days", "2")
        assert second.returncode == 1
        assert second.stderr == "var/candles: another download is at work in this folder; wait for it to end\n"
        server.released.set()
        assert first.wait(300) == 0
    with FileLock(home / "var" / "candles" / LOCK, timeout=0):
        assert not (home / "var" / "candles" / "ETHUSDT-1h.parquet").exists()


def test_what_failed_exits_1_and_the_rest_is_done(home, server):
    done = candles(home, server, "download", "--symbols", "BTCUSD,ETHUSDT", "--days", "2")
    assert done.returncode == 1
    assert done.stderr.startswith("BTCUSD: no spot market of binance has this name; did you mean BTCUSDT")
    assert len(done.stderr.splitlines()) == 1
    assert len(recorded(home / "var" / "candles", "ETHUSDT")) >= 48


def test_a_ban_exits_1_with_a_clear_sentence(home, server):
    server.faults.append(Fault(418, '{"code":-1003,"msg":"Way too much request weight"}', {"Retry-After": "600"}))
    done = candles(home, server, "download", "--symbols", "BTCUSDT,ETHUSDT", "--days", "2")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "BTCUSDT: binance has banned this address for asking too often (HTTP 418); wait 600 s at least",
        "ETHUSDT: not tried",
    ]
    assert len(server.klines_asked()) == 1


def test_an_impossible_bar_exits_1_and_is_named(home, server):
    bars = server.bars["BTCUSDT"].copy()
    wrong = bars.index[-10]
    bars.loc[wrong, "volume"] = -1.0
    server.bars["BTCUSDT"] = bars
    done = candles(home, server, "download", "--symbols", "BTCUSDT", "--days", "2")
    assert done.returncode == 1
    assert f"left out: BTCUSDT {wrong}: volume is -1; it must be 0 or more" in " ".join(done.stdout.split())
    assert wrong not in recorded(home / "var" / "candles", "BTCUSDT").index
    assert candles(home, server, "check", "--folder", "var/candles").returncode == 0  # a gap is no fault


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["download", "--days", "0"], "greater than or equal to 1"),
        (["download", "--symbols", " , "], "--symbols names no symbol; give at least one, such as BTCUSDT,ETHUSDT"),
        (["download", "--symbols", "../BTCUSDT"], "a symbol has letters, digits, - and _, such as BTCUSDT"),
        (["download", "--exchange", "binanze"], "'binanze' is none of ccxt's"),
        (["check", "--symbols", ""], "--symbols names no symbol"),
    ],
)
def test_bad_input_exits_2_and_says_what_would_be_right(home, server, line, says):
    done = candles(home, server, *line)
    assert done.returncode == 2
    assert says in re.sub(r"[\s│]+", " ", done.stderr)
    assert "Traceback" not in done.stderr
    assert server.asked == []


def test_a_mirror_stands_in_for_its_own_exchange_only():
    def addresses(name: str, **settings: str) -> str:
        return str(Services(QuietSettings(**settings)).exchange(name)._client.urls["api"])

    mirrored = {"exchange": "binance", "exchange_url": "http://mirror.example/path"}
    assert "http://mirror.example/path/" in addresses("binance", **mirrored)
    assert "mirror.example" not in addresses("kraken", **mirrored)
    assert "mirror.example" not in addresses("binance")


def test_check_says_what_is_wrong_with_each_file(home, server):
    folder = home / "mine"
    folder.mkdir()
    end = now().replace(minute=0, second=0, microsecond=0)
    bars = server.bars["BTCUSDT"].loc[: end - HOUR]
    write_candles(folder / "GOODUSDT-1h.parquet", bars.drop(bars.index[-30:-20]))
    write_candles(folder / "TWICEUSDT-1h.parquet", pd.concat([bars, bars[-1:]]))
    write_candles(folder / "OLDUSDT-1h.parquet", bars[:-100])
    (folder / "TEXTUSDT-1h.parquet").write_text("no parquet")
    done = candles(home, server, "check", "--folder", "mine")
    assert (done.returncode, done.stderr) == (1, "")
    for symbol, verdict in (("GOOD", "sound"), ("TWICE", "unsound"), ("OLD", "stale"), ("TEXT", "broken")):
        assert re.search(rf"{symbol}USDT .*{verdict}", done.stdout), symbol
    said = " ".join(done.stdout.split())
    assert re.search(r"GOODUSDT .*│ 10 +│ 0 h", done.stdout)
    assert "GOODUSDT: 1 gap, the longest: 10 bars from" in said
    assert "this bar appears twice" in said
    assert "OLDUSDT: its last bar closed 100 h ago; at most 48 h would be fresh" in said
    assert "TEXTUSDT-1h.parquet: cannot be read as parquet" in said
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert candles(home, server, "check", "--folder", "mine", "--symbols", "GOODUSDT").returncode == 0
    replayed = {"TRADING_OPS_CANDLES": "mine", "TRADING_OPS_REPLAY": "true"}
    assert candles(home, server, "check", "--symbols", "OLDUSDT", **replayed).returncode == 0


def test_check_without_a_folder_looks_at_the_candles_in_use(home, server):
    done = candles(home, server, "check")
    assert done.returncode == 0
    assert "simulated candles" in done.stdout
    assert re.search(r"SOLUSDT .*│ none +│ +0 h +│ sound", done.stdout)
    nowhere = candles(home, server, "check", "--folder", "nowhere")
    assert nowhere.returncode == 1
    assert nowhere.stderr == "nowhere: no such folder; it should hold files such as BTCUSDT-1h.parquet\n"


@pytest.mark.parametrize("line", [[], ["download"], ["check"]])
def test_help_is_there_on_every_level(tmp_path, line):
    done = command(["trading-ops", "candles", *line, "--help"], tmp_path)
    assert done.returncode == 0
    assert "Usage: trading-ops candles" in done.stdout


def test_progress_is_drawn_for_people_only(home, server):
    line = ("download", "--symbols", "BTCUSDT", "--days", "100")
    assert candles(home, server, *line).stderr == ""
    terminal, stderr = os.openpty()
    with started(home, server, *line, "--folder", "again", stderr=stderr) as watched:
        os.close(stderr)
        drawn = read_all(terminal)
    assert watched.returncode == 0
    bars = len(recorded(home / "again", "BTCUSDT"))
    assert f"{bars}/{bars}" in drawn


def read_all(terminal: int) -> str:
    """What was drawn until the other side closed, which Linux tells as an error."""
    drawn = b""
    try:
        while part := os.read(terminal, 65_536):
            drawn += part
    except OSError:
        pass
    finally:
        os.close(terminal)
    return drawn.decode(errors="replace")
