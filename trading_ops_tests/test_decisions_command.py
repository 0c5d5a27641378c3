"""`trading-ops decisions`, as real processes over a real store."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from trading_ops.assessments import schema
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry
from trading_ops_tests.assessments.examples import DAY
from trading_ops_tests.assessments.recorded import some_document
from trading_ops_tests.test_cli import command, new_home

COLLECTION = "gpt4_analysis_history"
EVER = "--days=5000"
# before anything else is imported: whoever opens a socket in that process gets an error
CUT = """
import socket

class Cut:
    def __init__(self, *_, **__):
        raise OSError("the network is cut")

socket.socket = socket.SocketType = socket.create_connection = socket.socketpair = socket.getaddrinfo = Cut
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return new_home(tmp_path)


def keep(home: Path, documents: Iterable[dict[str, Any]], collection: str = COLLECTION) -> None:
    with SqliteStore(home / "var" / "audit.db") as store:
        store.append(collection, [Entry(document["day"], "", document) for document in documents])


def decisions(home: Path, *line: str, **environment: str) -> tuple[int, str, str]:
    done = command(["trading-ops", "decisions", *line], home, **environment)
    return done.returncode, done.stdout, done.stderr


def test_a_thousand_decisions_are_replayed_identically_without_a_network(home: Path):
    chance, replies = Random(7), hasattr(schema, "parse_reply")
    keep(home, (some_document(chance, number, replies=replies) for number in range(1000)))
    (home / "sitecustomize.py").write_text(CUT)
    tried = [sys.executable, "-c", "import socket; socket.socket()"]
    cut = subprocess.run(tried, env={"PYTHONPATH": str(home)}, capture_output=True, text=True, check=False)
    assert "the network is cut" in cut.stderr
    line = ["trading-ops", "decisions", "replay", EVER, "--json"]
    done = command(line, home, fresh=True, PYTHONPATH=str(home))
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["replayed"], found["identical"]) == (1000, 1000)
    assert {one["difference"] for one in found["decisions"]} == {""}


def test_each_revision_is_replayed_and_one_that_differs_ends_with_1(home: Path):
    chance = Random(3)
    first, second = (some_document(chance, 0, replies=False) for _ in range(2))
    other = some_document(chance, 1, replies=False)
    keep(home, [first])
    keep(home, [second, other])
    code, said, wrong = decisions(home, "replay", EVER)
    assert (code, wrong) == (0, "")
    assert "3 of 3 decisions came out identical" in said
    tampered = {**other, "decision": {**other["decision"], "why": "\x1b[2J[red]mine"}}
    keep(home, [tampered])
    code, said, _ = decisions(home, "replay", EVER)
    assert code == 1
    assert "3 of 4 decisions came out identical" in said
    told = "".join(said.replace("│", "").split())
    assert "decision.why:recorded" in told
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) <= 80
    code, said, _ = decisions(home, "replay", EVER, "--json")
    found = json.loads(said)
    assert (code, found["replayed"], found["identical"]) == (1, 4, 3)
    assert [one["revision"] for one in found["decisions"] if one["partition"] == DAY] == [2, 1]


def test_a_damaged_document_is_listed_and_replayed_as_far_as_it_goes(home: Path):
    keep(home, [{"day": DAY}, {**some_document(Random(3), 1, replies=False), "opinion": 3, "decision": [1]}])
    code, said, wrong = decisions(home, "replay", EVER)
    assert (code, wrong) == (1, "")
    assert "evidence: missing" in " ".join(said.split())
    code, said, wrong = decisions(home, "list", EVER)
    assert (code, wrong) == (0, "")
    assert DAY in said


@pytest.mark.parametrize("what", ["list", "replay"])
def test_where_nothing_is_recorded_that_is_said(home: Path, what: str):
    code, said, wrong = decisions(home, what)
    assert (code, wrong) == (0, "")
    assert "nothing recorded" in said


def test_the_decisions_are_listed_newest_first_within_80_columns(home: Path):
    chance = Random(5)
    keep(home, (some_document(chance, number, replies=False) for number in range(9)))
    code, said, wrong = decisions(home, "list", EVER)
    assert (code, wrong) == (0, "")
    assert max(map(len, said.splitlines())) <= 80
    code, said, _ = decisions(home, "list", EVER, "--json")
    days = [row["day"] for row in json.loads(said)]
    assert (days[-1], days) == (DAY, sorted(days, reverse=True))
