"""The platform's own commands while MongoDB is killed and comes back: nothing is lost, and the user is told."""

import json
from pathlib import Path

import pytest

from trading_ops.audit.store import open_store
from trading_ops_tests.servers.mongod import Mongod
from trading_ops_tests.test_cli import command, new_home


@pytest.fixture
def own(tmp_path: Path):
    """A server that no other test uses, so that it can be killed."""
    (tmp_path / "mongod").mkdir()
    with Mongod(tmp_path / "mongod") as server:
        yield server


def test_days_measured_while_mongodb_is_down_reach_it_once_and_in_order(own: Mongod, tmp_path: Path):
    (tmp_path / "home").mkdir()
    home, environment = new_home(tmp_path / "home"), {"MONGODB_URI": own.address("trail")}

    def run(*line: str, code: int = 0) -> str:
        done = command(["trading-ops", *line], home, **environment)
        assert done.returncode == code, done
        return " ".join((done.stdout + done.stderr).split())

    assert "measured 1 days" in run("backfill", "--days", "1")
    own.kill()
    said = run("backfill", "--days", "3", code=1)  # LLM costs cannot be known without the ledger
    assert "records wait on this machine for the audit store" in said
    assert "(possible duplicate)" in said  # alerts went out all the same
    said = run("doctor", code=1)
    assert "failed audit store: " in said
    assert "warning spool: 13 records wait" in said  # 3 x 4 assets, and what the bot said of its costs
    own.restart()
    assert "13 records shipped now" in run("doctor")
    report = json.loads(run("audit", "verify", "--json"))
    assert report["broken"] == []
    with open_store(environment["MONGODB_URI"]) as store:
        for collection in ("closed_trades", "performance_metrics", "strategy_risk", "portfolio_reports"):
            records = sorted(store.read(collection, all_revisions=True), key=lambda record: record.seq)
            assert [r.seq for r in records] == list(range(1, len(records) + 1))
            assert len({(r.partition, r.digest) for r in records}) == len(records)
            assert len({r.partition for r in records}) == 3
            assert records[0].partition == max(r.partition for r in records)  # measured before the others
    assert "| yes" in run("audit", "copy", "--to", f"sqlite:///{home}/copy.db").replace("│", "|")
    with open_store(f"sqlite:///{home}/copy.db") as copied:
        heads = run("audit", "heads").split()  # the alerts told meanwhile were recorded before the copy
        assert [f"{h.collection}:{h.seq}:{h.hash}" for h in copied.heads()] == heads
        assert copied.verify() == []
