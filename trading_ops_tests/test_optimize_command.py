"""`trading-ops optimize` and the job, as real processes in a home of their own."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from trading_ops_tests.conftest import ROOT
from trading_ops_tests.test_cli import BIN, command, new_home

FEW = ["--end", "2025-03-10", "--try", "period=7,14", "--try", "oversold=25:35:5", "--try", "overbought=60,70"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_home(tmp_path_factory.mktemp("home"))


def optimize(home: Path, *line: str) -> tuple[int, str, str]:
    done = command(["trading-ops", "optimize", *line], home)
    return done.returncode, done.stdout, done.stderr


def test_a_search_ends_with_tables_that_fit_80_columns_and_a_verdict(home):
    code, said, wrong = optimize(home, *FEW, "--try", "stop_loss_pct=off,2.5")
    assert (code, wrong) == (0, "")
    assert "rsi on BTCUSDT, simulated candles: 24 sets (the whole grid)" in said
    for part in ("best sets out of sample (period oversold overbought", "fold after fold", "holding", "trials so far"):
        assert part in said
    assert max(map(len, said.splitlines())) <= 80
    (picture,) = re.findall(r"heat map: (\S+)", said)
    assert (home / picture).read_bytes().startswith(b"\x89PNG")
    again = optimize(home, *FEW, "--try", "stop_loss_pct=off,2.5")[1]
    assert "24 of them from an earlier run" in " ".join(again.split())


def test_the_command_and_the_job_give_the_same_document(home, tmp_path):
    code, said, wrong = optimize(home, *FEW, "--sets", "50", "--min-trades", "2", "--json")
    assert (code, wrong) == (0, "")
    document = json.loads(said)
    (tmp_path / "job.yaml").write_text(
        """
        ops:
          search_parameters:
            config:
              sets: 50
              min_trades: 2
              end: "2025-03-10"
              space: {period: [7, 14], oversold: {low: 25, high: 35, step: 5}, overbought: [60, 70]}
        """
    )
    before = command(["trading-ops", "audit", "heads"], home).stdout
    line = f"dagster job execute -m trading_ops.definitions -j optimize_strategy -c {tmp_path / 'job.yaml'}"
    done = command(line.split(), home)
    assert done.returncode == 0, done.stderr[-2000:]
    assert command(["trading-ops", "audit", "heads"], home).stdout == before  # nothing new to remember
    stored = json.loads(command(["trading-ops", "history", "optimizations", "--json"], home).stdout)
    (same,) = [row for row in stored if row["digest"] == document["digest"]]
    assert {name: same[name] for name in document} == document


def test_the_examples_job_runs(home):
    line = (
        f"dagster job execute -m trading_ops.definitions -j optimize_strategy -c {ROOT}/examples/optimize_strategy.yaml"
    )
    done = command(line.split(), home)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "RUN_SUCCESS" in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--sets", "0"], "sets is 0; 10-100000 would be right"),
        (["scalper"], "strategy 'scalper' is unknown; there are bollinger"),
        (["--try", "period"], "--try is 'period'; name=value,value or name=low:high:step would be right"),
        (["--try", "period=5:10"], "--try is 'period=5:10'; name=value,value"),
        (["--try", "period=5", "--try", "period=6"], "--try is 'period=6'"),
        (["--try", "period=5.5"], "period is 5.5; a whole number from 2 to 1000"),
        (["--start", "2025-03-01", "--end", "2025-04-01"], "have 31 whole days, and 90 are needed"),
        (["--folds", "4"], "train_blocks and folds are 11 together"),
    ],
)
def test_bad_input_exits_2_and_says_what_would_be_right_B147(home, line, said):
    code, printed, wrong = optimize(home, *line)
    assert (code, printed) == (2, "")
    assert said in wrong
    assert "Traceback" not in wrong


def test_interrupted_it_says_that_what_is_scored_is_kept(home):
    env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "DAGSTER_HOME": str(home)}
    line = [BIN / "trading-ops", "optimize", "volume", "--sets", "20000", "--try", "period=5:200:1"]
    line += ["--try", "multiplier=1:5:0.01"]
    with subprocess.Popen(line, cwd=home, env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as search:
        deadline = time.monotonic() + 300
        there = set(home.glob("var/optimizations/*/*.npz"))
        while set(home.glob("var/optimizations/*/*.npz")) <= there:
            assert time.monotonic() < deadline
            assert search.poll() is None
            time.sleep(0.02)
        search.send_signal(signal.SIGINT)
        printed, wrong = search.communicate(timeout=300)
    assert (search.returncode, printed) == (130, "")
    assert wrong.strip() == "interrupted; every chunk scored so far is kept, run the same again to go on"


def test_candles_that_are_not_there_exit_1(home):
    code, _, wrong = optimize(home, "rsi", "NOPEUSDT")
    assert code == 1
    assert wrong.startswith("NOPEUSDT: no simulated candles; there are BNBUSDT, BTCUSDT")


def test_help_is_there(tmp_path):
    done = command(["trading-ops", "optimize", "--help"], tmp_path)
    assert done.returncode == 0
    assert "Usage: trading-ops optimize" in done.stdout
