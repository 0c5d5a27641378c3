"""`trading-ops decisions`, as real processes over a real store."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from trading_ops.assessments.schema import Assessment
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry
from trading_ops.services import Services
from trading_ops_tests.assessments.examples import DAY, breach_of, day_of, evidence_of, model_of, opinion
from trading_ops_tests.assessments.recorded import answering, recorded, some_document
from trading_ops_tests.conftest import QuietSettings
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
    chance = Random(7)
    keep(home, (some_document(chance, number) for number in range(1000)))
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
    first, second = (some_document(chance, 0) for _ in range(2))
    other = some_document(chance, 1)
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
    keep(home, [{"day": DAY}, {**some_document(Random(3), 1), "opinion": 3, "decision": [1]}])
    code, said, wrong = decisions(home, "replay", EVER)
    assert (code, wrong) == (1, "")
    assert "evidence: missing" in " ".join(said.split())
    code, said, wrong = decisions(home, "list", EVER)
    assert (code, wrong) == (0, "")
    assert DAY in said


@pytest.mark.parametrize("what", ["list", "replay"])
def test_while_the_bot_is_down_the_record_is_read_all_the_same(home: Path, what: str):
    keep(home, [some_document(Random(3), 1)])
    code, said, wrong = decisions(home, what, EVER, "--json", TRADING_OPS_BOT_URL="http://127.0.0.1:9")
    assert (code, wrong) == (0, "")
    assert json.loads(said)


@pytest.mark.parametrize("what", ["list", "replay", "why", "calibration"])
def test_where_nothing_is_recorded_that_is_said(home: Path, what: str):
    code, said, wrong = decisions(home, what)
    assert (code, wrong) == (0, "")
    assert "nothing recorded" in said


def test_the_decisions_are_listed_newest_first_within_80_columns(home: Path):
    chance = Random(5)
    keep(home, (some_document(chance, number) for number in range(9)))
    code, said, wrong = decisions(home, "list", EVER)
    assert (code, wrong) == (0, "")
    assert max(map(len, said.splitlines())) <= 80
    code, said, _ = decisions(home, "list", EVER, "--json")
    days = [row["day"] for row in json.loads(said)]
    assert (days[-1], days) == (DAY, sorted(days, reverse=True))
    assert {row["agreed"] for row in json.loads(said)} <= {True, False, None}


@pytest.mark.parametrize("what", ["list", "why", "replay", "calibration"])
def test_each_command_has_help(home: Path, what: str):
    code, said, _ = decisions(home, what, "--help")
    assert code == 0
    assert f"Usage: trading-ops decisions {what}" in said


HOSTILE = "[red]markets[/red] moved \x1b[2J\u202e " + "far " * 60
POOR = evidence_of(
    days=tuple(day_of(back, wins=4, window_win_rate_pct=40.0) for back in reversed(range(7))),
    models=(model_of(), model_of("transformer/DOGEUSDT", drift=True)),
    breaches=(breach_of(),),
    missing=(),
)


def asked(said: Assessment) -> dict[str, Any]:
    return recorded(POOR, lambda *_: SimpleNamespace(assessment=said, attempts=()))


def test_a_day_is_explained_with_both_opinions_and_what_came_after_within_80_columns(home: Path):
    document = asked(opinion("wait", 0.9).model_copy(update={"reasoning": HOSTILE}))
    keep(home, [document])
    tried = {"day": "2025-03-10", "name": "lstm/BTCUSDT", "outcome": "kept", "why": "no better: [bold]p 0.4",
             "trigger": {"decision": document["decision_id"]},
             "scores": {"challenger": {"n": 700, "accuracy": 0.52, "brier": 0.2491}, "champion": None}}  # fmt: skip
    other = {**tried, "day": "2025-03-09", "name": "gru/ETHUSDT", "trigger": {"decision": "2025-03-08-0123456789"}}
    keep(home, [tried, other], "retrain_history")
    after = {"total_trades": 20, "win_rate_pct": 65.0, "intervals": {"win_rate_pct": [43.3, 81.9]}}
    keep(home, [{"day": day, "source": source, "portfolio": after} for day, source in
                (("2025-03-09", "test"), ("2025-03-16", "test"), ("2025-03-17", "test"), ("2025-03-15", "another"))],
         "performance_metrics")  # fmt: skip
    keep(home, [{"day": "2025-03-10", "source": "test", "pooled": {"accuracy": 0.51, "n": 48}}],
         "model_accuracy_history")  # fmt: skip
    code, said, wrong = decisions(home, "why")
    assert (code, wrong) == (0, "")
    assert max(map(len, said.splitlines())) <= 80
    assert "\x1b" not in said
    assert "\u202e" not in said
    told = " ".join(said.split())
    for part in (
        "2025-03-09: wait: GPT-4 says wait with confidence 0.90, which holds back what is due",
        "Decided by: gpt, rule veto", "Rules alone: retrain; due: 3 days with trades below 55 % wins: 40 %, 40 %, 40 %",
        "GPT-4: wait, confidence 0.90, urgency medium: holds back; disagrees with the rules",
        'It says: "[red]markets[/red] moved', 'It suggests: "look at rsi"', "Missing: nothing",
        "│ 2025-03-03 │ 40 [17, 69] of 10 │ 52.0 of 24", "│ 70 │ 40.0 [58.5, 79.5] │ 2.70 [1.90, 3.50] │ 2.20 ± 7.0",
        "│ transformer/DOGEUSDT │ 10.0 │ 240 │ 52.0 of 168 │ 0.5 [-9.0, 10.0] │ yes",
        "│ BTCUSDT │ 168 │ 0.50 │ 0.60 │ 1.00 │ -3.00 │ 1.10",
        "Critical: rsi: win_rate_pct 30.00 [15.00, 50.00], limit 55, confirmed",
        "Retrained lstm/BTCUSDT: kept: no better: [bold]p 0.4",
        "Scores of the challenger: n 700, accuracy 0.5200, brier 0.2491",
        "│ 2025-03-10 │ - │ - │ 51.0 of 48", "│ 2025-03-16 │ 20 │ 65.0 [43.3, 81.9] │ -",
        "Recomputed from the record: DIFFERENT, opinion: recorded one, but no attempt with a valid reply",
    ):  # fmt: skip
        assert part in told
    for part in ("gru/ETHUSDT", "2025-03-15", "2025-03-17"):
        assert part not in told
    code, said, _ = decisions(home, "why", DAY, "--json")
    found = json.loads(said)
    assert (code, found["document"], found["revision"]) == (0, document, 1)
    assert [one["name"] for one in found["after"]["retrains"]] == ["lstm/BTCUSDT"]
    assert [day["day"] for day in found["after"]["days"]] == ["2025-03-10", "2025-03-16"]


def test_a_retrain_that_an_earlier_revision_started_is_told_as_such(home: Path):
    first, second = recorded(evidence_of(), answering()), recorded(evidence_of(missing=("x",)), answering())
    keep(home, [first])
    keep(home, [second])
    trigger = {"decision": first["decision_id"]}
    failed = {"day": DAY, "name": "lstm/BTCUSDT", "outcome": "failed", "why": "no candles", "trigger": trigger}
    keep(home, [failed], "retrain_history")
    told = " ".join(decisions(home, "why")[1].split())
    assert f"decision {second['decision_id']}, revision 2" in told
    assert f"failed, by the earlier decision {first['decision_id']}: no candles" in told
    assert "The days after: none is recorded yet" in told
    assert "Recomputed from the record: identical" in told


@pytest.mark.parametrize(
    ("day", "said"),
    [
        (
            "2025-03-01",
            "no decision is recorded of 2025-03-01; there are those of 2025-03-20, 2025-03-19, 2025-03-18, ",
        ),
        ("yesterday", "DAY 'yesterday' is no day: one such as 2025-03-20 would be right"),
    ],
)
def test_an_unknown_day_exits_2_and_the_days_that_there_are_are_named(home: Path, day: str, said: str):
    chance = Random(5)
    keep(home, (some_document(chance, number) for number in range(12)))
    code, told, wrong = decisions(home, "why", day)
    assert (code, told) == (2, "")
    assert wrong.startswith(said)
    assert "Traceback" not in wrong


DAMAGED = {
    "fields are missing": {"decision": {"action": "wait"}},
    "a field has another type": {"decision": {**asked(opinion())["decision"], "agreed": [1], "blocked": 3}},
    "no evidence": {"evidence": None},
    "an opinion that is none": {"opinion": {"recommendation": "\x1b[2J"}},
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_decision_is_not_explained_but_said_to_be_damaged(home: Path, change: dict[str, Any]):
    keep(home, [{**recorded(evidence_of(), answering()), **change}])
    code, told, wrong = decisions(home, "why")
    assert (code, told) == (1, "")
    assert wrong.startswith(f"the decision of {DAY} cannot be read")
    assert "Traceback" not in wrong
    assert "\x1b" not in wrong
    assert decisions(home, "why", "--json")[0] == 0


def test_how_far_its_confidence_came_true_is_told_with_how_much_is_known(home: Path):
    source = Services(QuietSettings(data_dir=home / "var")).bot.source

    def body(number: int) -> dict[str, Any]:
        return {"day": f"2025-03-{number:02}", "source": source, "decision": {"due": number < 10},
                "opinion": opinion("wait", 0.72).model_dump(mode="json")}  # fmt: skip

    keep(home, map(body, range(1, 13)))
    code, said, wrong = decisions(home, "calibration")
    assert (code, wrong) == (0, "")
    assert max(map(len, said.splitlines())) <= 80
    told = " ".join(said.split())
    for part in (
        "│ 0.7 to 0.8 │ 5 │ 0.72 │ 0.60 [0.23, 0.88]",
        "Brier score 0.254, of always saying 0.60: 0.240",
        "not scored: 7 whose week is not over, 0 of which nothing can be told",
        "GPT-4's word counts: 5 of 20 opinions scored",
    ):
        assert part in told
    code, said, _ = decisions(home, "calibration", "--json")
    found = json.loads(said)
    assert (code, found["until"], found["pending"], len(found["scored"])) == (0, "2025-03-12", 7, 5)
    assert (found["adviser"]["standing"], found["last_change"]) == ("deciding", None)
    change = {"day": "2025-03-12", "standing": "advisory", "why": "it was \x1b[2J worse"}
    with SqliteStore(home / "var" / "audit.db") as store:
        store.append("adviser_standings", [Entry("2025-03-12", source, change)])
    told = decisions(home, "calibration")[1]
    assert "last change: advisory since 2025-03-12, it was" in told
    assert "\x1b" not in told
