"""`trading-ops backtest` and `trading-ops strategies` as real processes, beside the job that does the same."""

import inspect
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from trading_ops.backtesting.request import BacktestRequest
from trading_ops.cli.backtest import backtest
from trading_ops.market.parquet import write_candles
from trading_ops.market.simulated import SimulatedCandles
from trading_ops_tests.conftest import NOON, ROOT
from trading_ops_tests.test_cli import command, new_home

PERIOD = ["--start", "2025-01-01", "--end", "2025-03-01"]
EXAMPLE = [*PERIOD, "--set", "period=14", "--set", "oversold=25", "--stop-loss", "5", "--take-profit", "10"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_home(tmp_path_factory.mktemp("home"))


def stored(home: Path) -> dict[str, dict]:
    with closing(sqlite3.connect(f"file:{home}/var/audit.db?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT key, body FROM history WHERE collection = 'backtests' ORDER BY seq").fetchall()
    return {key: json.loads(body) for key, body in rows}


def test_a_backtest_ends_with_a_table_that_fits_80_columns_and_a_page(home):
    orders = ["--side", "short", "--market", "futures", "--funding", "0.01", "--latency", "1", "--slippage", "0.1"]
    line = ["backtest", "macd", "ethusdt", *orders]
    done = command(["trading-ops", *line, *PERIOD], home)
    assert (done.returncode, done.stderr) == (0, "")
    assert "short macd on ETHUSDT, 2025-01-01 to 2025-03-01, simulated candles" in done.stdout
    for figure in ("total return %", "without costs %", "Sharpe ratio", "max drawdown %", "win rate %", "funding USDT"):
        assert re.search(rf"^ {figure} +[-+]?\d", done.stdout, re.M), figure
    assert re.search(r"^0\.\d+ % a day (more|less) than buying and holding", done.stdout, re.M)
    (page,) = re.findall(r"^tear sheet:  (\S+)$", done.stdout, re.M)
    assert (home / page).read_text().startswith("<!DOCTYPE html>")
    table = [text for text in done.stdout.splitlines() if not text.startswith("tear sheet")]
    assert max(map(len, table)) <= 80
    again = command(["trading-ops", *line, *PERIOD], home)
    assert re.search(r"^audit trail: backtests record \d+, stored before$", again.stdout, re.M)


def test_the_job_with_the_example_file_and_the_command_give_the_same_document(home):
    file = ROOT / "examples" / "backtest_strategy.yaml"
    run = f"dagster job execute -m trading_ops.definitions -j backtest_strategy -c {file}"
    job = command(run.split(), home)
    assert job.returncode == 0, job.stderr[-2000:]
    before = stored(home)
    done = command(["trading-ops", "backtest", "rsi", "BTCUSDT", *EXAMPLE, "--json"], home)
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert printed["backtest"] == before[printed["backtest"]["digest"]]
    assert printed["tear_sheet"] == f"var/reports/backtests/{printed['backtest']['digest']}.html"
    assert stored(home) == before  # the command found it stored already


def test_history_shows_what_was_backtested(home):
    command(["trading-ops", "backtest", "volume", *PERIOD, "--no-tear-sheet"], home)
    done = command(["trading-ops", "history", "backtests", "--days", "1"], home)
    assert done.returncode == 0
    assert "volume on BTCUSDT, " in done.stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["rsy"], "strategy 'rsy' is unknown; there are bollinger, macd, rsi, volume"),
        (["rsi", "BTCUSD"], "symbol 'BTCUSD' is unknown, did you mean BTCUSDT"),
        (["rsi", "--start", "2025-13-01"], "start is '2025-13-01'; a UTC day such as 2025-03-01 would be right"),
        (["rsi", "--start", "2023-01-01"], "start is 2023-01-01; the simulated candles of BTCUSDT cover"),
        (["rsi", "--set", "period"], "--set 'period': NAME=VALUE would be right, such as period=14"),
        (["rsi", "--set", "=3"], "--set '=3': NAME=VALUE would be right"),
        (["rsi", "--set", "period=3", "--set", "period=4"], "period is 3 already; once would be right"),
        (["rsi", "--set", "period=x"], "rsi: period is 'x'; a whole number from 2 to 1000 would be right"),
        (["rsi", "--set", "period=nan"], "rsi: period is nan; a whole number"),
        (["rsi", "--set", "stop_loss_pct=3", "--stop-loss", "4"], "stop_loss_pct is given by --set and by its own"),
        (["rsi", "--fee", "-1"], "fee_pct is -1.0; a percentage from 0 to below 100 would be right"),
        (["rsi", "--fee", "much"], "Invalid value for '--fee'"),
        (["rsi", "--side", "short"], "cannot go short; give market 'futures'"),
    ],
)
def test_bad_input_exits_2_and_says_what_would_be_right(home, line, said):
    done = command(["trading-ops", "backtest", *line], home)
    assert done.returncode == 2
    assert said in re.sub(r"[\s│]+", " ", done.stderr)
    assert "Traceback" not in done.stderr


def test_candles_that_cannot_be_exit_1_and_name_the_bar(home):
    folder = home / "broken"
    folder.mkdir()
    bars = SimulatedCandles(lambda: NOON, ["BTCUSDT"]).candles("BTCUSDT", NOON.replace(year=2024), NOON)
    bars.iloc[500, 4] = -1.0
    write_candles(folder / "BTCUSDT-1h.parquet", bars)
    given = {"TRADING_OPS_CANDLES": "broken", "TRADING_OPS_SYMBOLS": "BTCUSDT"}
    done = command(["trading-ops", "backtest", "rsi"], home, **given)
    assert done.returncode == 1
    assert "volume is -1; it must be 0 or more" in done.stderr


def test_recorded_candles_are_told_as_such(home, market):
    line = ["backtest", "bollinger", "SOLUSDT", "--start", "2025-06-01", "--json", "--no-tear-sheet"]
    done = command(["trading-ops", *line], home, TRADING_OPS_CANDLES=str(market))
    document = json.loads(done.stdout)["backtest"]
    assert document["candles"] == "recorded"
    assert document["title"] == "bollinger on SOLUSDT, 2025-06-01 to 2025-09-19, recorded candles"
    assert json.loads(done.stdout)["tear_sheet"] is None


def test_the_commands_defaults_are_the_requests():
    names = {"fee": "fee_pct", "slippage": "slippage_pct", "funding": "funding_pct", "latency": "latency_bars",
             "equity": "equity_pct", "initial": "initial_usdt", "min_notional": "min_notional_usdt"}  # fmt: skip
    given = {names.get(name, name): p.default for name, p in inspect.signature(backtest).parameters.items()}
    for name, field in BacktestRequest.model_fields.items():
        if name != "parameters":
            assert given[name] == field.default, name


@pytest.mark.parametrize("name", ["rsi", "macd", "bollinger", "volume"])
def test_a_strategy_is_described_with_its_parameters(home, name):
    done = command(["trading-ops", "strategies", "describe", name], home)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{name}: Enter " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    (document,) = json.loads(command(["trading-ops", "strategies", "describe", name, "--json"], home).stdout)
    for parameter, told in document["parameters"].items():
        low, high = told["bounds"]
        default = "off" if told["default"] is None else f"{told['default']:g}"
        assert re.search(rf"^ {parameter} +{default} +{low:g} to {high:g}", done.stdout, re.M), parameter


def test_all_strategies_are_described_and_an_unknown_one_exits_2(home):
    documents = json.loads(command(["trading-ops", "strategies", "describe", "--json"], home).stdout)
    assert [document["name"] for document in documents] == ["rsi", "macd", "bollinger", "volume"]
    done = command(["trading-ops", "strategies", "describe", "rsy"], home)
    assert done.returncode == 2
    assert done.stderr == "strategy 'rsy' is unknown; there are bollinger, macd, rsi, volume\n"


@pytest.mark.parametrize("line", [["backtest"], ["strategies"], ["strategies", "describe"]])
def test_help_is_there_on_every_level(tmp_path, line):
    done = command(["trading-ops", *line, "--help"], tmp_path)
    assert done.returncode == 0
    assert f"Usage: trading-ops {' '.join(line)}" in done.stdout
