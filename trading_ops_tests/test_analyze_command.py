"""`trading-ops analyze` as a real process: tables for people, documents for programs, and a word on what is wrong."""

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trading_ops.market.parquet import ParquetCandles, write_candles
from trading_ops_tests.test_candles_command import read_all
from trading_ops_tests.test_cli import BIN, command, new_home


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_home(tmp_path_factory.mktemp("home"))


def test_the_table_ranks_the_configured_symbols_within_80_columns(home):
    done = command(["trading-ops", "analyze"], home)
    assert (done.returncode, done.stderr) == (0, "")
    said = " ".join(done.stdout.split())
    assert "5 of 5 symbols as of" in said
    assert "simulated candles" in said
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "BNBUSDT"):
        assert symbol in said
    assert max(map(len, done.stdout.splitlines())) <= 80
    history = command(["trading-ops", "history", "bulk_analyses"], home)
    assert (history.returncode, "simulated" in history.stdout) == (0, True)


def test_json_is_the_document_and_failures_are_in_it(home):
    done = command(["trading-ops", "analyze", "--symbols", "btcusdt,NOPE,BTCUSDT", "--json"], home)
    assert done.returncode == 0
    assert done.stderr.strip() == "named more than once, analysed once: BTCUSDT"
    document = json.loads(done.stdout)
    assert (document["asked"], document["analysed"]) == (2, 1)
    assert document["failed"] == [{"symbol": "NOPE", "reason": "unknown: no simulated candles"}]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (["--symbols", ""], 2, "symbols: 0 are asked for; 1 to 5,000 would be right"),
        (["--symbols", "BTC/USDT"], 2, "symbols[0] is 'BTC/USDT'"),
        (["--symbols", "BTCUSDT", "--all"], 2, "one of the two would be right"),
        (["--lookback", "10"], 2, "lookback_bars is 10; a whole number from 50 to 5,000"),
        (["--min-score", "7"], 2, "min_score is 7.0; a number from 0 to 1"),
        (["--symbols", "NOPE,NEITHER"], 1, "all 2 symbols failed, so there is no result:\nNEITHER: unknown"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_input_exits_2_and_failure_of_all_exits_1_B141(home, line, code, said):
    done = command(["trading-ops", "analyze", *line], home)
    assert done.returncode == code
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_all_recorded_symbols_are_analysed_and_the_stale_ones_named(home, market):
    done = command(["trading-ops", "analyze", "--all", "--json"], home, TRADING_OPS_CANDLES=str(market))
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["asked"] == 40
    stale = {failure["symbol"]: failure["reason"] for failure in document["failed"]}
    assert "stale: its recorded bars end at 2021-06-20 17:00 UTC, while UNIUSDT reaches" in stale["LUNAUSDT"]
    assert document["analysed"] == 40 - len(stale) > 0


def test_a_replayed_recording_is_analysed_with_all_the_folder_has(home, market, tmp_path):
    recorded = ParquetCandles(market, lambda: datetime(2025, 9, 19, 23, tzinfo=UTC))
    for symbol in ("BTCUSDT", "ETHUSDT", "UNIUSDT", "SUIUSDT"):
        write_candles(tmp_path / f"{symbol}-1h.parquet", recorded.candles(symbol).iloc[-600:])
    environment = {"TRADING_OPS_CANDLES": str(tmp_path), "TRADING_OPS_REPLAY": "true", "TRADING_OPS_SYMBOLS": "BTCUSDT"}
    done = command(["trading-ops", "analyze", "--all", "--json"], home, **environment)
    document = json.loads(done.stdout)
    assert (document["analysed"], document["failed"]) == (4, [])
    assert document["candles"].startswith("replayed +")
    assert len({row["as_of"] for row in document["rows"]}) == 1


def test_progress_is_drawn_in_a_terminal_only(home):
    terminal, stderr = os.openpty()
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "DAGSTER_HOME": str(home), "TERM": "xterm"}
    line = [BIN / "trading-ops", "analyze"]
    with subprocess.Popen(line, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=stderr, text=True) as watched:
        os.close(stderr)
        drawn = read_all(terminal)
        assert watched.stdout is not None
        assert "5 of 5 symbols" in " ".join(watched.stdout.read().split())
    assert watched.returncode == 0
    assert "analysing" in drawn
    assert "5/5" in drawn
