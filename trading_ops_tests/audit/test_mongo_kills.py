"""Does a mongod killed again and again lose, double or disorder anything that was acknowledged?"""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import trading_ops
from trading_ops.audit.mongo import MongoStore
from trading_ops_tests.servers.mongod import Mongod

ROOT = Path(trading_ops.__file__).parents[1]
PATIENCE_S = 120

WRITER = """
import json, sys
from trading_ops.audit.mongo import MongoStore
from trading_ops.audit.store import Entry, StoreUnavailable

uri, name, appends = sys.argv[1], sys.argv[2], int(sys.argv[3])
with MongoStore(uri, timeout_s=2) as store:
    for n in range(appends):
        # every fourth append is a batch, which must be there whole or not at all
        keys = [f"{name}-{n}-{part}" for part in range(3 if n % 4 == 3 else 1)]
        entries = [Entry("2025-03-01", key, {"by": name, "n": n}) for key in keys]
        while True:
            try:
                receipts = store.append("llm_calls", entries)
                break
            except StoreUnavailable:
                print(json.dumps({"unavailable": n}), flush=True)
        for receipt in receipts:
            print(json.dumps({"n": n, "seq": receipt.seq, "hash": receipt.hash}), flush=True)
"""

STARTER = """
import sys
from pathlib import Path
from trading_ops_tests.servers.mongod import Mongod

server = Mongod(Path(sys.argv[1])).start()
print(server.port, flush=True)
sys.stdin.read()
"""


def test_no_mongod_outlives_the_tests_that_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(tmp_path / "mongod")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    starter = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    port = int(starter.stdout.readline())
    assert knock(port) == 0
    starter.kill()
    starter.communicate()
    deadline = time.monotonic() + PATIENCE_S
    while (answer := knock(port)) == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert answer == errno.ECONNREFUSED


def knock(port: int) -> int:
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port))


@pytest.mark.parametrize(
    ("writers", "appends", "kills"), [(2, 100, 2), pytest.param(4, 500, 10, marks=pytest.mark.chaos)]
)
def test_a_mongod_killed_while_processes_write_loses_and_doubles_nothing(
    tmp_path: Path, writers: int, appends: int, kills: int
) -> None:
    names = [f"writer-{n}" for n in range(writers)]

    def told(name: str) -> list[dict[str, Any]]:
        lines = (tmp_path / f"{name}.log").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def acknowledged() -> int:
        return sum(len({fact["n"] for fact in told(name) if "seq" in fact}) for name in names)

    with Mongod(tmp_path / "mongod") as server:
        uri = server.address("kills")
        processes = []
        try:
            for name in names:
                with (tmp_path / f"{name}.log").open("w") as log:
                    command = [sys.executable, "-c", WRITER, uri, name, str(appends)]
                    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
                    processes.append(subprocess.Popen(command, env=environment, stdout=log))
            for kill in range(1, kills + 1):
                deadline = time.monotonic() + PATIENCE_S
                while acknowledged() < writers * appends * kill // (kills + 1):
                    assert time.monotonic() < deadline
                    time.sleep(0.005)
                server.restart()
            assert [process.wait(timeout=PATIENCE_S) for process in processes] == [0] * writers
        finally:
            for process in processes:
                process.kill()
                process.wait()
        with MongoStore(uri) as store:
            assert store.verify(expected=store.heads()) == []
            records = {record.seq: record for record in store.read("llm_calls", all_revisions=True)}

    assert len(records) == writers * sum(3 if n % 4 == 3 else 1 for n in range(appends))
    assert len({record.key for record in records.values()}) == len(records)
    for name in names:
        facts = [fact for fact in told(name) if "seq" in fact]
        assert [records[fact["seq"]].hash for fact in facts] == [fact["hash"] for fact in facts]
        mine = [record for _, record in sorted(records.items()) if record.body["by"] == name]
        assert [record.seq for record in mine] == [fact["seq"] for fact in facts]
        assert [record.body["n"] for record in mine] == sorted(record.body["n"] for record in mine)
