"""Is a copied audit trail the same one, whatever interrupts the copy and whatever was there before?"""

import json
import os
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import trading_ops
from trading_ops.audit.copy import Copied, CopyRefused, copy_store
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry, StoreError
from trading_ops_tests.test_cli import command

ROOT = Path(trading_ops.__file__).parents[1]
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)

COPY = """
import sys
from trading_ops.audit.copy import copy_store
from trading_ops.audit.sqlite import SqliteStore

print("begun", flush=True)
copy_store(SqliteStore(sys.argv[1]), SqliteStore(sys.argv[2]))
"""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[SqliteStore]:
    """Two collections with revisions, repeated times and 2,500 records of one moment; three state documents."""
    with SqliteStore(tmp_path / "source.db") as store:
        for n, value in enumerate("ABABA"):
            store.append("flips", [Entry("2025-03-01", "rsi", {"value": value})], recorded_at=NOON)
            store.append("flips", [Entry("", f"{n}", {"n": n})], recorded_at=NOON + timedelta(days=n))
        store.append("many", [Entry("2025-03-01", f"{n}", {"n": n}) for n in range(2_500)], recorded_at=NOON)
        store.append("many", [Entry("2025-03-01", "0", {"n": -1})])
        for key in ("rsi", "macd"):
            store.put_state("guard", key, {"disabled": False}, expected_version=0)
        store.put_state("guard", "rsi", {"disabled": True}, expected_version=1)
        store.put_state("outbox", "k", {"sent": 1.5}, expected_version=0)
        yield store


@pytest.fixture
def destination(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "destination.db") as store:
        yield store


def state(store: SqliteStore) -> dict[tuple[str, str], Any]:
    return {(name, d.key): d.body for name in store.state_collections() for d in store.list_state(name)}


def test_a_copy_has_the_same_records_times_and_hashes(source, destination):
    told: list[tuple[int, int]] = []
    copied = copy_store(source, destination, progress=lambda done, total: told.append((done, total)))
    assert destination.heads() == source.heads()
    assert destination.verify(expected=source.heads()) == []
    for name in ("flips", "many"):
        assert destination.read(name, all_revisions=True) == source.read(name, all_revisions=True)
    assert state(destination) == state(source)
    assert copied == [
        Copied("flips", "history", 10, 10, source.head("flips"), True),
        Copied("many", "history", 2_501, 2_501, source.head("many"), True),
        Copied("guard", "state", 2, 2, None, True),
        Copied("outbox", "state", 1, 1, None, True),
    ]
    assert told[-1] == (2_511, 2_511)
    assert [done for done, _ in told if done > 10] == [1_010, 2_010, 2_510, 2_511]


def test_a_second_copy_adds_only_what_came_since(source, destination):
    copy_store(source, destination)
    source.append("flips", [Entry("2025-03-02", "rsi", {"value": "C"})])
    source.put_state("guard", "macd", {"disabled": True}, expected_version=1)
    copied = copy_store(source, destination)
    assert [(c.collection, c.copied, c.same) for c in copied] == [
        ("flips", 1, True), ("many", 0, True), ("guard", 1, True), ("outbox", 0, True),
    ]  # fmt: skip
    assert destination.heads() == source.heads()
    assert state(destination) == state(source)


def test_large_records_of_one_moment_are_copied_in_parts_a_database_can_take(source, destination):
    source.append("large", [Entry("", f"{n}", {"text": "x" * 1_500_000}) for n in range(5)], recorded_at=NOON)
    told: list[int] = []
    copied = copy_store(source, destination, progress=lambda done, total: told.append(done))
    assert [done for done in told if 10 < done <= 15] == [12, 14, 15]  # the ten before are the flips
    assert all(c.same for c in copied)
    assert destination.heads() == source.heads()


def test_an_empty_store_is_copied_too(tmp_path, destination):
    with SqliteStore(tmp_path / "empty.db") as empty:
        assert copy_store(empty, destination) == []


@pytest.mark.parametrize(
    ("foreign", "reason"),
    [
        pytest.param([("flips", "other")], "flips, record 1: .*rewritten", id="another beginning"),
        pytest.param([("unknown", "other")], "unknown, record 1: ends at 0, head 1", id="a collection of its own"),
    ],
)
def test_another_history_is_refused_before_anything_is_written(source, destination, foreign, reason):
    for collection, key in foreign:
        destination.append(collection, [Entry("", key, {})])
    before = destination.heads()
    with pytest.raises(CopyRefused, match=f"the destination holds another history.*{reason}"):
        copy_store(source, destination)
    assert (destination.heads(), state(destination)) == (before, {})


def test_a_destination_that_has_gone_on_is_refused(source, destination):
    copy_store(source, destination)
    destination.append("flips", [Entry("", "later", {})])
    with pytest.raises(CopyRefused, match="flips, record 11: ends at 10, head 11 was noted"):
        copy_store(source, destination)


@pytest.mark.parametrize("broken", ["source", "destination"])
def test_a_broken_chain_is_not_copied(source, destination, tmp_path, broken):
    copy_store(source, destination)
    with closing(sqlite3.connect(tmp_path / f"{broken}.db", isolation_level=None)) as db:
        db.execute("DROP TRIGGER history_keeps_records")
        db.execute("UPDATE history SET body = '{}' WHERE collection = 'flips' AND seq = 3")
    with pytest.raises(CopyRefused, match=f"the {broken} is broken.*flips, record 3: body and digest do not match"):
        copy_store(source, destination)


def test_a_source_that_goes_on_meanwhile_is_told_as_not_the_same(source, destination):
    def late(done: int, total: int) -> None:
        if done == total:
            source.append("flips", [Entry("", "late", {})])
            source.append("new", [Entry("", "late", {})])

    copied = copy_store(source, destination, progress=late)
    assert [(c.collection, c.records, c.copied, c.same) for c in copied if c.kind == "history"] == [
        ("flips", 11, 10, False), ("many", 2_501, 2_501, True), ("new", 1, 0, False),
    ]  # fmt: skip
    assert [c.same for c in copy_store(source, destination)] == [True] * 5


def test_a_program_that_writes_to_the_destination_meanwhile_is_found_out(source, destination):
    def meddle(done: int, total: int) -> None:
        if done == 1_010:
            destination.append("many", [Entry("", "intruder", {})])

    with pytest.raises(StoreError, match="many: record 1001 became another one"):
        copy_store(source, destination, progress=meddle)


def test_state_that_is_newer_in_the_destination_stays_and_is_told(source, destination):
    destination.put_state("guard", "rsi", {"disabled": None}, expected_version=0)
    destination.put_state("guard", "macd", {"disabled": False}, expected_version=0)
    destination.put_state("guard", "own", {}, expected_version=0)
    (guard,) = (c for c in copy_store(source, destination) if c.collection == "guard")
    assert (guard.copied, guard.same, guard.refused) == (0, False, ("rsi",))
    assert state(destination)["guard", "rsi"] == {"disabled": None}
    source.put_state("guard", "rsi", {"disabled": "newest"}, expected_version=2)
    (guard,) = (c for c in copy_store(source, destination) if c.collection == "guard")
    assert (guard.copied, guard.same, guard.refused) == (1, True, ())
    assert state(destination)["guard", "rsi"] == {"disabled": "newest"}
    assert ("guard", "own") in state(destination)


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.chaos)])
def test_a_copy_killed_at_random_is_finished_by_the_next(tmp_path, destination, kills):
    dice = random.Random(kills)
    with SqliteStore(tmp_path / "source.db") as source:
        for n in range(600):
            source.append("c", [Entry("", f"{n % 7}", {"n": n})], recorded_at=NOON + timedelta(seconds=n // 2))
        line = [sys.executable, "-c", COPY, str(tmp_path / "source.db"), str(tmp_path / "destination.db")]
        for _ in range(kills):
            with subprocess.Popen(
                line, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
            ) as victim:
                assert victim.stdout is not None
                assert victim.stdout.readline() == "begun\n"
                time.sleep(dice.uniform(0.01, 0.2))
                victim.kill()
        (copied,) = copy_store(source, destination)
        assert copied.same
        assert destination.heads() == source.heads()
        assert destination.verify() == []


# the command


def audit_copy(home: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return command(["trading-ops", "audit", "copy", *options], home, **environment)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose audit store has two collections and a state document."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").touch()
    with SqliteStore(folder / "var" / "audit.db") as store:
        store.append("performance_metrics", [Entry("2025-03-01", "", {"win_rate": 52.3})], recorded_at=NOON)
        store.append("llm_calls", [Entry("2025-03-01", f"{n}", {"n": n}) for n in range(3)], recorded_at=NOON)
        store.put_state("guard", "rsi", {"disabled": True}, expected_version=0)
    return folder


def test_the_command_copies_and_says_how_to_switch_over(home):
    done = audit_copy(home, "--to", "sqlite:///new/audit.db")
    assert (done.returncode, done.stderr) == (0, "")
    with SqliteStore(home / "var" / "audit.db") as source, SqliteStore(home / "new" / "audit.db") as destination:
        assert destination.heads() == source.heads()
        assert source.heads()[0].hash[:8] in done.stdout
    assert "set TRADING_OPS_STORE=sqlite:///new/audit.db, clear MONGODB_URI" in " ".join(done.stdout.split())
    assert max(map(len, done.stdout.splitlines())) <= 80
    again = audit_copy(home, TRADING_OPS_COPY_TO="sqlite:///new/audit.db")
    assert (again.returncode, again.stderr) == (0, "")


def test_the_command_speaks_json(home):
    done = audit_copy(home, "--json", "--to", "sqlite:///new.db")
    document = json.loads(done.stdout)
    assert document["same"] is True
    assert [(c["collection"], c["kind"], c["records"], c["copied"], c["same"]) for c in document["copied"]] == [
        ("llm_calls", "history", 3, 3, True),
        ("performance_metrics", "history", 1, 1, True),
        ("guard", "state", 1, 1, True),
    ]
    assert len(document["copied"][0]["head"]["hash"]) == 64


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        ([], "nowhere to copy to: give --to sqlite:///copy.db, or set TRADING_OPS_COPY_TO"),
        (["--to", "mongodb://ops:hunter2@db.example/audit"], "--to holds a password.*TRADING_OPS_COPY_TO"),
        (["--to", "mongodb://ops:hunter2@a.example:1,b.example:2/audit"], "--to holds a password"),
        (["--to", "mongodb://db/?tlsCertificateKeyFilePassword=hunter2"], "--to holds a password"),
        (["--to", "mongodb:/ops:hunter2@db.example/audit"], "--to holds a password"),
        (["--to", "mongodb+srv:ops:hunter2@db/audit"], "--to holds a password"),
        (["--to", "ops:hunter2@db.example:27017/audit"], "--to holds a password"),
        (["--to", "ops/hunter2@db/audit"], "the address to copy to is no audit store's; give sqlite:///relative.db"),
        (["--to", "postgres://db/audit"], "is no audit store; give sqlite:///"),
    ],
)
def test_an_address_that_will_not_do_is_refused_with_advice_and_without_its_password(home, options, advice):
    done = audit_copy(home, *options)
    assert done.returncode == 2
    assert re.search(advice, " ".join(done.stderr.split()))
    assert "hunter2" not in done.stderr + done.stdout


def test_the_command_fails_where_the_copy_is_not_the_same(home):
    with SqliteStore(home / "other.db") as other:
        other.append("llm_calls", [Entry("", "", {})])
    done = audit_copy(home, "--to", "sqlite:///other.db")
    assert (done.returncode, "holds another history" in done.stderr) == (1, True)
    with SqliteStore(home / "newer.db") as newer:
        newer.put_state("guard", "rsi", {"disabled": False}, expected_version=0)
    done = audit_copy(home, "--to", "sqlite:///newer.db")
    assert done.returncode == 1
    assert "guard: newer in the destination, left as it is: rsi" in done.stdout
    assert "not the same yet" in done.stderr
