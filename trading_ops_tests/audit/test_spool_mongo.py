"""Does a record reach a real MongoDB once and in order, whatever happens to the server?"""

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from pymongo import MongoClient

import trading_ops
from trading_ops.audit.copy import copy_store
from trading_ops.audit.mongo import MongoStore
from trading_ops.audit.spool import SpooledStore
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import AuditStore, Entry, Receipt, StoreUnavailable
from trading_ops_tests.servers.mongod import Mongod

ROOT = Path(trading_ops.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
SPOOLED = Receipt(0, 0, False, "", spooled=True)
PATIENT_S, HASTY_S = 20.0, 1.0

WRITER = """
import sys, time
from pathlib import Path
from trading_ops.audit.mongo import MongoStore
from trading_ops.audit.spool import SpooledStore
from trading_ops.audit.store import Entry

uri, folder, name, turn = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
store = SpooledStore(MongoStore(uri, timeout_s=1.0), folder / "spool.db", retry_after_s=0.3)
while not (folder / "stop").exists():
    receipts = store.append("turns", [Entry("", name, {"turn": turn}), Entry("2025-03-01", f"{name}-{turn}", {})])
    store.append("flips", [Entry("", name, {"side": turn % 2})])
    print(turn, receipts[0].spooled, flush=True)
    turn += 1
    time.sleep(0.01)  # spooling is faster than shipping
"""


DIES_IN_ITS_TRANSACTION = """
import os, signal, sys
from pymongo.monitoring import CommandListener, register

class Dies(CommandListener):
    def started(self, event):
        if event.command_name == "commitTransaction":
            os.kill(os.getpid(), signal.SIGKILL)
    def succeeded(self, event): ...
    def failed(self, event): ...

register(Dies())
from trading_ops.audit.mongo import MongoStore
from trading_ops.audit.store import Entry

MongoStore(sys.argv[1]).append("c", [Entry("2025-03-01", "rsi", {"value": value}) for value in "AB"])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """A server of this module's own, for it is killed and frozen; every test leaves it running."""
    with Mongod(tmp_path_factory.mktemp("mongod")) as server:
        yield server


@pytest.fixture
def address(server: Mongod) -> str:
    return server.address(f"spool_{uuid4().hex}")


def opened(address: str, folder: Path, *, timeout_s: float = PATIENT_S) -> SpooledStore:
    """As another process would open it: it knows of no failure yet."""
    return SpooledStore(MongoStore(address, timeout_s=timeout_s), folder / "spool.db")


def entry(value: object, key: str = "rsi") -> Entry:
    return Entry("2025-03-01", key, {"value": value})


def said(store: AuditStore) -> list[object]:
    return [record.body["value"] for record in sorted(store.read("c", all_revisions=True), key=lambda r: r.seq)]


def test_B127_down_at_the_start_and_back_later(server, address, tmp_path):
    server.kill()
    try:
        with opened(address, tmp_path, timeout_s=HASTY_S) as store:
            for value in ("A", "B", "A"):
                assert store.append("c", [entry(value)], recorded_at=NOON) == [SPOOLED]
            assert "cannot be reached" in (store.backlog().shared_error or "")
            with pytest.raises(StoreUnavailable, match="cannot be reached"):
                store.put_state("budget", "2025-03-01", {}, expected_version=0)
            (record,) = store.read("c", partitions=["2025-03-01"], key="rsi")
            assert record.body == {"value": "A"}
    finally:
        server.start()
    with opened(address, tmp_path) as store:
        assert store.ship() == 3
        assert said(store) == ["A", "B", "A"]
        assert store.verify() == []


def test_a_server_that_hangs_and_then_does_what_it_was_asked_stores_nothing_twice(server, address, tmp_path):
    """What a frozen server has in its socket it may still do when it goes on, though nobody waits for it."""
    with opened(address, tmp_path, timeout_s=HASTY_S) as hasty, opened(address, tmp_path) as store:
        for mode in "ABA":
            store.append("c", [entry(f"before {mode}")])
            hasty.read("c")
            with server.frozen():
                assert hasty.append("c", [entry(mode), entry(mode, "macd")]) == [SPOOLED, SPOOLED]
                with pytest.raises(StoreUnavailable):
                    hasty.heads()
            store.ship()
            hasty._writes._retry_at = hasty._reads._retry_at = 0.0  # the 30 seconds are over
        assert store.backlog().waiting == 0
        rsi = [record.body["value"] for record in store.read("c", key="rsi", all_revisions=True)]
        assert rsi == [value for mode in "ABA" for value in (f"before {mode}", mode)]
        macd = [record.body["value"] for record in store.read("c", key="macd", all_revisions=True)]
        assert macd == list("ABA")
        assert store.verify() == []


def test_a_body_too_large_for_mongodb_is_refused_without_holding_up_the_others(server, address, tmp_path):
    with opened(address, tmp_path, timeout_s=HASTY_S) as store, server.frozen():
        store.append("c", [entry(0)])
        store.append("c", [entry(1), Entry("2025-03-01", "huge", {"text": "x" * 17_000_000}), entry(3)])
        store.append("c", [entry(4)])
    with opened(address, tmp_path) as store:
        assert store.ship() == 4
        backlog = store.backlog()
        assert (backlog.waiting, backlog.refused) == (0, 1)
        assert "16 MB" in (backlog.refusal or "")
        assert said(store) == [0, 1, 3, 4]


def test_a_user_that_may_only_read_from_now_on_is_answered_and_loses_nothing(tmp_path):
    key = tmp_path / "key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    with Mongod(tmp_path / "db", "--keyFile", str(key)) as server:
        with MongoClient(server.uri) as first:  # localhost may make the first user
            first.admin.command("createUser", "root", pwd="r", roles=["root"])
        with MongoClient(server.address("admin", "root:r")) as root:
            root.audit.command("createUser", "ops", pwd="secret-o", roles=["readWrite"])
            with opened(server.address("audit", "ops:secret-o"), tmp_path) as store:
                store.append("c", [entry("old")])
                root.audit.command("updateUser", "ops", roles=["read"])
                assert store.append("c", [entry("new")]) == [SPOOLED]
                (record,) = store.read("c")
                assert (record.body, record.seq, record.revision) == ({"value": "new"}, 0, 2)
                error = store.backlog().shared_error or ""
                assert "readWrite" in error
                assert "secret-o" not in error
                root.audit.command("updateUser", "ops", roles=["readWrite"])
            with opened(server.address("audit", "ops:secret-o"), tmp_path) as store:
                assert said(store) == ["old", "new"]
                assert (store.backlog().waiting, store.verify()) == (0, [])


def test_what_a_writer_killed_in_its_transaction_held_up_waits_here_until_that_expires(address, tmp_path):
    died = subprocess.run([sys.executable, "-c", DIES_IN_ITS_TRANSACTION, address], env=ENVIRONMENT)
    assert died.returncode == -signal.SIGKILL
    with opened(address, tmp_path, timeout_s=HASTY_S) as store:
        assert store.append("c", [entry("B")]) == [SPOOLED]
    with opened(address, tmp_path) as store:
        ship_all(store)
        assert (store.backlog().waiting, store.backlog().refused, store.verify()) == (0, 0, [])
        assert said(store) == ["B"]


@pytest.mark.parametrize("rounds", [2, pytest.param(25, marks=pytest.mark.chaos)])
def test_servers_and_writers_killed_at_random_lose_and_double_nothing(server, address, tmp_path, rounds):
    dice = random.Random(rounds)
    acknowledged, waited = {"anna": -1, "bert": -1}, 0
    writers = {name: begin(address, tmp_path, name, 0) for name in acknowledged}
    for _ in range(rounds):
        time.sleep(dice.uniform(1.0, 2.0))
        if dice.random() < 0.5:
            with server.frozen():
                time.sleep(dice.uniform(0.5, 2.0))
                waited += kill_and_begin(dice, writers, acknowledged, address, tmp_path)
        else:
            server.kill()
            time.sleep(dice.uniform(0.1, 1.0))
            waited += kill_and_begin(dice, writers, acknowledged, address, tmp_path)
            server.start()
        waited += kill_and_begin(dice, writers, acknowledged, address, tmp_path)
    time.sleep(2)
    (tmp_path / "stop").touch()
    for name, process in writers.items():
        waited += end(name, process, acknowledged)
        assert process.returncode == 0
    with opened(address, tmp_path) as store:
        ship_all(store)
        assert (store.backlog().waiting, store.backlog().refused, store.verify()) == (0, 0, []), store.backlog()
        for name, last in acknowledged.items():
            assert last > 0
            turns = [r.body["turn"] for r in store.read("turns", key=name, all_revisions=True)]
            assert turns == list(range(last + 1))
            flips = [r.body["side"] for r in store.read("flips", key=name, all_revisions=True)]
            assert flips == [turn % 2 for turn in range(last + 1)]
    assert waited > 0


def test_a_sqlite_store_moves_to_mongodb_and_back_with_the_same_hashes(server, address, tmp_path):
    with SqliteStore(tmp_path / "audit.db") as here, MongoStore(address) as there, SqliteStore(tmp_path / "b") as back:
        for n in range(40):
            here.append("c", [entry(n % 3), entry(n, f"{n}")], recorded_at=NOON + timedelta(seconds=n // 4))
        here.put_state("guard", "rsi", {"disabled": True}, expected_version=0)
        assert all(copied.same for copied in copy_store(here, there))
        assert there.heads() == here.heads()
        assert there.read("c", all_revisions=True) == here.read("c", all_revisions=True)
        there.append("c", [entry("in MongoDB")])
        assert all(copied.same for copied in copy_store(there, back))
        assert back.heads() == there.heads()
        assert [document.body for document in back.list_state("guard")] == [{"disabled": True}]


def ship_all(store: SpooledStore) -> None:
    """A writer that was killed between a transaction's first write and its end holds its place until that expires."""
    until = time.monotonic() + 300
    while store.backlog().waiting and time.monotonic() < until:
        store.ship()
        store._writes._retry_at = store._reads._retry_at = 0.0  # the 30 seconds are over


def begin(address: str, folder: Path, name: str, turn: int) -> "subprocess.Popen[str]":
    line = [sys.executable, "-c", WRITER, address, str(folder), name, str(turn)]
    return subprocess.Popen(line, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def end(name: str, process: "subprocess.Popen[str]", acknowledged: dict[str, int]) -> int:
    """Wait for a writer's end and note its last acknowledged turn; how many of its turns had to wait."""
    output, _ = process.communicate(timeout=300)
    lines = [line.split() for line in output.splitlines(keepends=True) if line.endswith("\n")]
    if lines:
        acknowledged[name] = int(lines[-1][0])
    return sum(line[1] == "True" for line in lines)


def kill_and_begin(
    dice: random.Random,
    writers: "dict[str, subprocess.Popen[str]]",
    acknowledged: dict[str, int],
    address: str,
    folder: Path,
) -> int:
    name = dice.choice(sorted(writers))
    writers[name].kill()
    waited = end(name, writers[name], acknowledged)
    writers[name] = begin(address, folder, name, acknowledged[name] + 1)
    return waited
