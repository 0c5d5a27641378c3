"""A bot in one terminal, the platform in another: the README's commands, over a real socket between two processes."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trading_ops_tests.conftest import ROOT
from trading_ops_tests.fakes import trade
from trading_ops_tests.servers.bot import CLOSED, ScriptedServer, serving
from trading_ops_tests.test_cli import BIN, bodies, command, new_home

TERMINALS = re.findall(r"```sh\n(trading-ops bot serve.*?)```.*?```sh\n(export TRADING_OPS_BOT_URL.*?)```",
                       (ROOT / "README.md").read_text(), re.S)  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the README's first terminal, on a free port."""
    home = new_home(tmp_path_factory.mktemp("bot"))
    ((first, _),) = TERMINALS
    line = first.strip().replace("--port 8900", "--port 0").split()
    env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "DAGSTER_HOME": str(home)}
    with subprocess.Popen(line, cwd=home, env=env, stdout=subprocess.PIPE, text=True) as bot:
        assert bot.stdout is not None
        yield re.search(r"http://\S+(?=;)", bot.stdout.readline()).group()  # type: ignore[union-attr]
        bot.terminate()
        assert bot.wait(300) == 0


@pytest.fixture(scope="module")
def watched(served: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the README's second terminal was typed in."""
    home = new_home(tmp_path_factory.mktemp("platform"))
    ((_, second),) = TERMINALS
    _, *lines = second.strip().splitlines()
    for line in lines:
        done = command(line.split(), home, TRADING_OPS_BOT_URL=served)
        assert (done.returncode, "failed" in done.stdout.replace("measured", "")) == (0, False), done
        (home / "said").open("a").write(done.stdout)
    return home


def documents(home: Path, collection: str) -> list[dict[str, Any]]:
    return [json.loads(body) for _, _, body in bodies(home, collection)]


def test_the_readmes_two_terminals_measure_the_bot(watched: Path, served: str):
    said = " ".join((watched / "said").read_text().split())
    assert f"the bot at {served}" in said
    assert "measured 7 days" in said
    assert "no row was quarantined in the last 30 days" in said
    assert len(bodies(watched, "performance_metrics")) == 7


def test_the_served_bot_has_the_trades_that_the_embedded_one_has(watched: Path, tmp_path: Path):
    home = new_home(tmp_path)
    assert command(["trading-ops", "backfill", "--days", "7"], home).returncode == 0
    days = documents(watched, "closed_trades")
    own = {document["day"]: document for document in documents(home, "closed_trades")}
    same = [day for day in days if day["day"] in own]  # midnight may pass in between
    assert len(same) >= 6
    for day in same:
        assert day["trades"] == own[day["day"]]["trades"]


@pytest.fixture
def dubious(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A home, and a bot that tells two trades of which one cannot be true, and only its account."""
    newest = "2025-03-09"
    account = {"initial_usdt": 10_000.0, "balance_usdt": 10_010.0, "equity_usdt": 10_010.0, "total_return_pct": 0.1,
               "total_trades": 1, "winning_trades": 1, "initial_by_strategy": {"rsi": 10_000.0}}  # fmt: skip
    script: dict[str, Any] = {
        "/api/health": {"healthy": True, "now": "2025-03-10T12:00:00Z"},
        CLOSED: [trade("good", f"{newest}T10:00:00+00:00"),
                 trade("bad", f"{newest}T11:00:00+00:00") | {"pnl_usdt": -5_000.0}],
        "/api/strategies": [{"name": "rsi", "enabled": True}],
        "/api/paper-trading/portfolio": account,
        "/ai/cost/statistics": {},
    }  # fmt: skip
    with serving(ScriptedServer(script)) as address:
        yield new_home(tmp_path), address


def test_a_quarantined_row_is_listed_with_its_reason(dubious: tuple[Path, str]):
    home, address = dubious
    environment = {"TRADING_OPS_BOT_URL": address, "TRADING_OPS_BOT_SINCE": "2025-03-01"}
    done = command(["trading-ops", "backfill", "--days", "1"], home, **environment)
    assert done.returncode == 0, done.stderr
    table = command(["trading-ops", "quarantine"], home, **environment)
    assert table.returncode == 0
    assert "1 rows in 30 days" in table.stdout
    (row,) = json.loads(command(["trading-ops", "quarantine", "--json"], home, **environment).stdout)
    assert (row["day"], row["row"]["trade_id"]) == ("2025-03-09", "bad")
    assert "does not follow from prices, quantity and costs" in row["reason"]


def test_a_deposit_is_noted_down_and_a_wrong_one_refused(dubious: tuple[Path, str]):
    home, address = dubious
    environment = {"TRADING_OPS_BOT_URL": address, "TRADING_OPS_BOT_SINCE": "2025-03-01"}
    line = ["trading-ops", "flow", "--deposit", "500", "--at", "2025-03-08T12:00", "--reason", "more capital"]
    done = command(line, home, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "noted: +500.00 USDT on 2025-03-08 12:00 UTC for the account" in " ".join(done.stdout.split())
    (flow,) = documents(home, "equity_flows")
    assert (flow["amount_usdt"], flow["at"], flow["reason"]) == (500.0, "2025-03-08T12:00:00+00:00", "more capital")
    for wrong in (["--deposit", "5", "--withdrawal", "5"], ["--deposit", "nan"], ["--deposit", "5", "--strategy", "x"]):
        refused = command(["trading-ops", "flow", "--reason", "x", *wrong], home, **environment)
        assert refused.returncode == 2, refused
        assert refused.stderr
    assert len(bodies(home, "equity_flows")) == 1
