"""The trading-ops command and Dagster's own ones, as real processes in a home of their own."""

import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops_tests import processes
from trading_ops_tests.conftest import ROOT

BIN = processes.BIN
A_WHILE_S = 300


def command(
    line: list[str], home: Path, *, fresh: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment in a home with PATH and HOME alone; any other program, or `fresh`, anew."""
    env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "COLUMNS": "80", "DAGSTER_HOME": str(home), **environment}
    if line[0] in ("trading-ops", "dagster") and not fresh:
        return processes.run(line, home, env, timeout_s=300)
    return subprocess.run(line, cwd=home, env=env, capture_output=True, text=True, check=False, timeout=300)


def new_home(folder: Path) -> Path:
    """A home whose UTC day goes on for a while: where it is about to end, the next one is waited for."""
    now = datetime.now(UTC)
    left = (now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1) - now).total_seconds()
    if left < A_WHILE_S:
        time.sleep(left + 1)
    for name in ("dagster.yaml", "workspace.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    (folder / "trading_ops").symlink_to(ROOT / "trading_ops")  # dg looks for the package in the project
    (folder / "examples").symlink_to(ROOT / "examples")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the newest three days are measured."""
    folder = new_home(tmp_path_factory.mktemp("home"))
    done = command(["trading-ops", "backfill", "--days", "3"], folder, fresh=True)
    assert done.returncode == 0, done.stderr
    (folder / "said").write_text(done.stdout)
    return folder


@pytest.mark.parametrize(
    "line",
    [
        ["trading-ops", "audit", "verify"],
        ["trading-ops", "history", "no_such_collection"],
        ["trading-ops", "backtest", "--end", "2025-03-01", "--json"],
    ],
)
def test_a_process_that_has_its_libraries_already_does_what_a_fresh_one_does(home, line):
    told = [command(line, home, fresh=fresh) for fresh in (True, False)]
    assert (told[0].returncode, told[0].stdout, told[0].stderr) == (told[1].returncode, told[1].stdout, told[1].stderr)


def test_a_backfill_ends_with_a_table_that_fits_80_columns(home):
    said = (home / "said").read_text()
    assert re.search(r"measured 3 days \(\S+ to \S+\) x 7 assets in", said)
    for strategy in ("rsi", "macd", "bollinger", "volume", "portfolio"):
        assert re.search(rf"^ {strategy} +\d+ ", said, re.M), strategy
    assert "simulated candles" in said
    assert max(map(len, said.splitlines())) <= 80


def test_a_second_backfill_adds_nothing_and_tells_nobody_again(home):
    before = command(["trading-ops", "audit", "heads"], home).stdout
    assert "performance_metrics:3:" in before
    done = command(["trading-ops", "backfill", "--days", "3", "--missing"], home)
    assert (done.returncode, done.stderr) == (0, "")
    assert command(["trading-ops", "audit", "heads"], home).stdout == before


def test_a_backfill_killed_in_the_middle_loses_and_doubles_nothing(home, tmp_path):
    folder = new_home(tmp_path)
    env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(folder), "DAGSTER_HOME": str(folder)}
    line = [BIN / "trading-ops", "backfill", "--days", "3"]
    with subprocess.Popen(line, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as victim:
        deadline = time.monotonic() + 300
        while "closed_trades" not in collections(folder):
            assert time.monotonic() < deadline
            assert victim.poll() is None
            time.sleep(0.02)
        victim.kill()
    assert "portfolio_reports" not in collections(folder)
    done = command(["trading-ops", "backfill", "--days", "3", "--missing"], folder)
    assert done.returncode == 0, done.stderr
    assert command(["trading-ops", "audit", "verify"], folder).returncode == 0
    for name in ("closed_trades", "performance_metrics", "strategy_risk", "portfolio_reports", "api_cost_history"):
        assert len(bodies(folder, name)) == 3, name
        assert set(bodies(folder, name)) <= set(bodies(home, name)), name
    assert set(told(folder).values()) == {1}


def collections(folder: Path) -> set[str]:
    return {name for (name,) in rows(folder, "SELECT DISTINCT collection FROM history")}


def bodies(folder: Path, collection: str) -> list[tuple[str, int, str]]:
    return rows(folder, f"SELECT partition, revision, body FROM history WHERE collection = '{collection}' ORDER BY seq")


def told(folder: Path) -> dict[str, int]:
    return dict(rows(folder, "SELECT key, count(*) FROM history WHERE collection = 'notifications' GROUP BY key"))


def rows(folder: Path, sql: str) -> list[tuple[Any, ...]]:
    """What the audit store holds; nothing while it is not there yet."""
    try:
        with closing(sqlite3.connect(f"file:{folder}/var/audit.db?mode=ro", uri=True)) as db:
            return db.execute(sql).fetchall()
    except sqlite3.OperationalError:
        return []


def test_json_is_one_document(home):
    done = command(["trading-ops", "backfill", "--days", "1", "--json"], home)
    document = json.loads(done.stdout)
    assert document["backfill"]["days"] == 1
    assert document["backfill"]["succeeded"]
    assert set(document["performance"]["strategies"]) == {"rsi", "macd", "bollinger", "volume"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["backfill", "--first", "2020-01-01", "--last", "2020-01-02"], "the bot covers 2024-01-01 to"),
        (["backfill", "--days", "2", "--first", "2025-01-01"], "give either --days or --first"),
        (["backfill", "--days", "0"], "greater than or equal to 1"),
        (["history", "no_such_collection"], "no_such_collection"),
        (["audit", "verify", "--head", "nonsense"], "COLLECTION:SEQ:HASH is needed"),
    ],
)
def test_bad_input_exits_2_and_says_what_would_be_right(home, line, said):
    done = command(["trading-ops", *line], home)
    assert done.returncode == 2
    assert said in re.sub(r"[\s│]+", " ", done.stderr)
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_exits_2_and_names_the_variable(home):
    done = command(["trading-ops", "audit", "heads"], home, TRADING_OPS_SHARPE_TARGET="nan")
    assert done.returncode == 2
    assert "TRADING_OPS_SHARPE_TARGET: Input should be a finite number" in done.stderr


def test_the_table_is_about_the_candles_it_was_asked_for(home, market):
    done = command(["trading-ops", "backfill", "--days", "1"], home, TRADING_OPS_CANDLES=str(market))
    assert "7 days to 2025-09-18, recorded candles" in done.stdout
    assert done.stderr.count("CRITICAL") == 0  # a recording is not the present


@pytest.mark.parametrize("job", ["daily_portfolio_report", "daily_api_cost_report"])
def test_every_job_runs_from_dagsters_command(home, job):
    done = command(["dagster", "job", "execute", "-m", "trading_ops.definitions", "-j", job], home)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "RUN_SUCCESS" in done.stderr + done.stdout


def test_every_asset_materialises_from_dagsters_command(home):
    names = "closed_trades,performance_metrics,strategy_risk,portfolio_report,api_costs"
    line = f"dagster asset materialize -m trading_ops.definitions --select {names} --partition 2025-03-02"
    done = command(line.split(), home)
    assert done.returncode == 0, done.stderr[-2000:]
    heads = command(["trading-ops", "history", "strategy_risk", "--days", "3000", "--json"], home).stdout
    assert "2025-03-02" in heads


def test_the_commands_work_in_dagsters_home_only(home, tmp_path):
    done = command(["trading-ops", "audit", "verify"], tmp_path, DAGSTER_HOME=str(home))
    assert done.returncode == 2
    assert f"cd {home}" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_outside_the_projects_folder_the_command_says_so(tmp_path):
    done = command(["trading-ops", "audit", "heads"], tmp_path)
    assert done.returncode == 2
    assert "holds no dagster.yaml" in done.stderr


def test_missing_candles_exit_1_and_name_the_folder(home):
    done = command(["trading-ops", "backfill"], home, TRADING_OPS_CANDLES="nowhere")
    assert done.returncode == 1
    assert done.stderr.strip() == "nowhere: no such folder; it should hold files such as BTCUSDT-1h.parquet"


def test_history_shows_the_days_newest_first(home):
    rows = json.loads(command(["trading-ops", "history", "performance_metrics", "--days", "7", "--json"], home).stdout)
    assert len(rows) == 3
    assert [row["day"] for row in rows] == sorted((row["day"] for row in rows), reverse=True)
    table = command(["trading-ops", "history", "performance_metrics", "--days", "7"], home)
    assert rows[0]["day"] in table.stdout


def test_verify_names_the_first_broken_record_and_a_cut_tail(home, tmp_path):
    assert command(["trading-ops", "audit", "verify"], home).returncode == 0
    head = next(
        line for line in command(["trading-ops", "audit", "heads"], home).stdout.split() if "closed_trades" in line
    )
    shutil.copytree(home, tmp_path / "copy")
    with sqlite3.connect(tmp_path / "copy" / "var" / "audit.db") as db:
        db.execute("DROP TRIGGER history_keeps_records")
        db.execute("UPDATE history SET body = replace(body, '2', '3') WHERE collection = 'closed_trades' AND seq = 2")
    done = command(["trading-ops", "audit", "verify"], tmp_path / "copy")
    assert done.returncode == 1
    assert "closed_trades is broken at record 2" in " ".join(done.stdout.split())
    with sqlite3.connect(tmp_path / "copy" / "var" / "audit.db") as db:
        db.execute("DROP TRIGGER history_loses_nothing")
        db.execute("DELETE FROM history WHERE collection = 'closed_trades' AND seq >= 2")
    assert command(["trading-ops", "audit", "verify"], tmp_path / "copy").returncode == 0
    cut = command(["trading-ops", "audit", "verify", "--head", head], tmp_path / "copy")
    assert cut.returncode == 1
    assert "closed_trades" in cut.stdout


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["analyze"],
        ["backfill"],
        ["history"],
        ["audit"],
        ["audit", "verify"],
        ["audit", "heads"],
        ["models"],
        ["models", "train"],
        ["models", "rollback"],
    ],
)
def test_help_is_there_on_every_level_and_anywhere(tmp_path, line):
    done = command(["trading-ops", *line, "--help"], tmp_path)
    assert done.returncode == 0
    assert "Usage: trading-ops" in done.stdout


# these need a second process or do not end; test_two_halves.py, test_candles_command.py, test_guard_command.py run them
NEED_ANOTHER = (
    "trading-ops bot serve --port 8900",
    "trading-ops candles download --days 400",
    "trading-ops guard watch --heartbeat var/heartbeats/guard.json",
    # a champion, which test_models_command.py has
    'trading-ops models promote MODEL --reason "I want to see it predict"',
    'trading-ops models rollback lstm/BTCUSDT --reason "it was worse"',
    "dagster job execute -m trading_ops.definitions -j predict_price -c examples/predict_price.yaml",
)


def readme_commands() -> list[str]:
    """The commands of the README's shell blocks that are no make targets (CI and the UI test run those)."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    assert set(NEED_ANOTHER) <= set(lines)
    prelude = (". .venv", "export ", *NEED_ANOTHER)
    return list(dict.fromkeys(line for line in lines if not line.startswith(prelude) and "make " not in line))


@pytest.mark.parametrize("line", readme_commands())
def test_the_readmes_commands_work(home, line):
    done = command(shlex.split(line), home)
    assert done.returncode == 0, done.stderr
    own = [text for text in done.stderr.splitlines() if "Warning" in text and "SupersessionWarning" not in text]
    assert own == []


def test_who_follows_the_readme_leaves_no_strategy_stopped():
    lines = readme_commands()
    after = lines[next(n for n, line in enumerate(lines) if "strategies halt --all" in line) :]
    resumed = [shlex.split(line)[3] for line in after if line.startswith("trading-ops strategies resume")]
    assert sorted(resumed) == ["bollinger", "macd", "rsi", "volume"]


def test_the_readmes_make_targets_exist():
    wanted = re.findall(r"(?:^|`)make ([a-z]+)", (ROOT / "README.md").read_text(), re.M)
    shown = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ
    ).stdout
    assert {"run", "test", "ui", "check", "bench"} <= set(wanted)
    assert set(wanted) <= set(re.findall(r"make ([a-z]+)", shown))
