"""`trading-ops alerts incidents`, `ack`, `resolve`, `silence`, `silences`, `unsilence` as a person uses them."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.desk import IncidentDesk
from trading_ops.notifications.outbox import Outbox
from trading_ops.notifications.text import message_of
from trading_ops_tests.notifications.test_outbox import Recorder
from trading_ops_tests.test_alerts_command import run
from trading_ops_tests.test_cli import command


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").touch()
    return tmp_path


@pytest.fixture
def desk(home: Path) -> Iterator[IncidentDesk]:
    with SqliteStore(home / "var" / "audit.db") as store:

        def now() -> datetime:
            return datetime.now(UTC)

        yield IncidentDesk(store, Outbox(store, {"chat": Recorder()}, now), now)


def alert(key: str, severity: Severity = Severity.CRITICAL) -> Alert:
    return Alert(severity, f"{key}/first", f"{key} [is] bad", "above 10 %", "Look.", incident=key)


def test_what_is_wrong_is_listed_with_who_looks_after_it_and_what_is_silenced(home, desk):
    assert "no open incident" in run(home, "incidents")
    for key in ("risk", "run/a", "over"):
        desk.observe(alert(key))
    desk.observe(alert("risk"))
    desk.recover("over")
    assert "risk: ana looks after it" in run(home, "ack", "risk", "--by", "ana")
    run(home, "silence", "run/*", "--for", "1h30m", "--reason", "maintenance")
    said = run(home, "incidents", COLUMNS="40").splitlines()
    risk, other = said[:3], said[3:]
    assert [risk[0][18:], *risk[1:]] == [
        "CRITICAL  risk [is] bad", "    risk", "    open, seen 2 times; ana looks after it",
    ]  # fmt: skip
    assert other[1] == "    run/a"
    assert other[2].startswith("    open, seen 1 time; nobody looks after it; silenced until ")
    assert len(other) == 3
    first, second = json.loads(run(home, "incidents", "--json"))
    assert (first["key"], first["count"], first["acknowledged_by"], first["silences"]) == ("risk", 2, "ana", [])
    assert (second["key"], len(second["silences"])) == ("run/a", 1)


def test_a_messages_key_acknowledges_its_incident_and_a_key_that_is_none_fails(home, desk):
    desk.observe(alert("risk"))
    assert "risk: ben looks after it" in run(home, "ack", "risk/1/1", "--by", "ben")
    assert run(home, "ack", "risk", "--by", "ben") == "risk: ben looks after it\n"
    assert run(home, "ack", "risk/1/1", "--by", "ana") == "risk: ana looks after it (before: ben)\n"
    assert json.loads(run(home, "ack", "risk", "--by", "ana", "--json"))["acknowledged_by"] == "ana"
    assert "no open incident has the key 'nothing'" in run(home, "ack", "nothing", code=1)
    desk.recover("risk")
    assert "no open incident has the key 'risk'" in run(home, "ack", "risk", code=1)


def test_the_command_that_a_message_shows_acknowledges_its_incident_whatever_its_name_is(home, desk):
    for name in ("guard/rsi; rm -rf ~", "guard/a  'b'", "guard/x\ny"):
        desk.observe(alert(name))
        _, _, shown = message_of(alert(name), possible_duplicate=False).footer.partition(
            "acknowledge: trading-ops alerts "
        )
        assert "looks after it" in run(home, *shlex.split(shown), "--by", "ana")
        assert desk.incident(name).acknowledged_by == "ana"


def test_an_incident_that_nothing_looks_at_any_more_is_resolved_by_a_person(home, desk):
    for key in ("run/gone", "risk"):
        desk.observe(alert(key))
    said = run(home, "resolve", "run/gone/1/1", "--reason", "the job is gone", "--by", "ana")
    assert "run/gone: over" in said.splitlines()
    assert "RESOLVED  run/gone [is] bad" in said  # told in the terminal, for no channel is chosen
    assert [incident.key for incident in desk.unsettled()] == ["risk"]
    (record,) = desk._store.read("incident_actions")
    noted = {name: record.body[name] for name in ("action", "incident", "by", "reason")}
    assert noted == {"action": "resolved", "incident": "run/gone", "by": "ana", "reason": "the job is gone"}
    run(home, "silence", "risk", "--for", "1h", "--reason", "maintenance")
    assert "risk: over, told later" in run(home, "resolve", "risk", "--reason", "moved")
    assert "no open incident has the key 'run/gone'" in run(home, "resolve", "run/gone", "--reason", "r", code=1)
    assert "says why" in run(home, "resolve", "risk", "--reason", " ", code=2)


def test_the_key_of_a_message_about_several_acknowledges_those_that_are_still_open(home):
    moment = [datetime(2025, 3, 1, 12, tzinfo=UTC)]
    chat = Recorder()
    with SqliteStore(home / "var" / "audit.db") as store:
        desk = IncidentDesk(store, Outbox(store, {"chat": chat}, lambda: moment[0]), lambda: moment[0])
        for key in ("alone", "a", "b", "c"):  # the first is told at once, those that follow within a minute together
            desk.observe(alert(key, Severity.ERROR))
        moment[0] += timedelta(minutes=2)
        desk.tick()
        desk.recover("b")
    (key,) = [told.dedup_key for told, _ in chat.told if told.dedup_key.startswith("incidents_together/")]
    assert run(home, "ack", key, "--by", "ana") == "a: ana looks after it\nc: ana looks after it\n"
    acknowledged = {one["key"]: one["acknowledged_by"] for one in json.loads(run(home, "incidents", "--json"))}
    assert acknowledged == {"alone": None, "a": "ana", "c": "ana"}
    assert [one["key"] for one in json.loads(run(home, "ack", key, "--by", "ben", "--json"))] == ["a", "c"]
    with SqliteStore(home / "var" / "audit.db") as store:
        for one in ("a", "c"):
            IncidentDesk(store, Outbox(store, {"chat": chat}, lambda: moment[0]), lambda: moment[0]).recover(one)
    assert f"no open incident has the key '{key}'" in run(home, "ack", key, code=1)


def test_a_silence_says_what_it_covers_now(home, desk):
    line = ("--for", "1h", "--reason", "maintenance")
    assert "matches no open incident now" in run(home, "silence", "run/*", *line)
    for key in ("run/a", "run/b", "risk", "run/over"):
        desk.observe(alert(key))
    desk.recover("run/over")
    assert "covers 2 open incidents: run/a, run/b" in run(home, "silence", "run/*", *line)
    assert "covers 1 open incident: risk" in run(home, "silence", "risk", *line)
    assert json.loads(run(home, "silence", "run/b", *line, "--json"))["covers"] == ["run/b"]


def test_no_name_from_outside_is_obeyed_by_the_terminal(home, desk):
    desk.observe(alert("guard/\x1b[2Jrsi"))
    assert "covers 1 open incident: guard/�[2Jrsi" in run(home, "silence", "guard/*", "--for", "1h", "--reason", "r")


def test_a_damaged_incident_is_named_and_the_others_are_listed_and_silenced(home, desk):
    for key in ("risk", "run/a"):
        desk.observe(alert(key))
    with SqliteStore(home / "var" / "audit.db") as store:
        document = store.get_state("incidents", "risk")
        assert document
        store.put_state("incidents", "risk", {**document.body, "count": "many"}, expected_version=document.version)
    for said in (run(home, "incidents", code=1), run(home, "silence", "*", "--for", "1h", "--reason", "r", code=1)):
        assert "run/a" in said
        assert "the incident 'risk' is damaged" in said


def test_a_silence_is_begun_listed_and_ended(home, desk):
    assert "no silence" in run(home, "silences")
    end = (datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0)
    until = end.astimezone().isoformat()
    begun = json.loads(run(home, "silence", "risk", "--until", until, "--reason", "known", "--by", "ana", "--json"))
    assert (begun["pattern"], begun["reason"], begun["by"]) == ("risk", "known", "ana")
    assert datetime.fromisoformat(begun["until"]) == end
    listed = run(home, "silences", COLUMNS="200")
    assert "holds" in listed
    assert f"{end:%Y-%m-%d %H:%M}" in listed
    desk.observe(alert("risk"))
    assert [incident.told_open for incident in desk.unsettled()] == [False]
    assert f"{begun['name']}: risk is told again" in run(home, "unsilence", begun["name"])
    assert "over" in run(home, "silences", COLUMNS="200")
    assert "no silence" in run(home, "unsilence", begun["name"], code=1)
    assert desk.tick().told == 1


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["--reason", "r"], "either --for or --until"),
        (["--reason", "r", "--for", "1h", "--until", "2099-01-01"], "either --for or --until"),
        (["--reason", "r", "--for", "soon"], "--for soon: a length such as"),
        (["--reason", "r", "--for", "0m"], "--for 0m: a length such as"),
        (["--reason", "r", "--for", "9999999999999999d"], "a length such as"),
        (["--reason", "r", "--until", "noon"], "--until noon: a moment such as"),
        (["--reason", "r", "--until", "9999-12-31T23:59-05:00"], "--until 9999-12-31T23:59-05:00: a moment such as"),
        (["--reason", "r", "--until", "2020-01-01"], "2020-01-01 00:00 UTC is over"),
        (["--reason", " ", "--for", "1h"], "needs a pattern and a reason"),
        (["--for", "1h"], "Missing option '--reason'"),
    ],
)
def test_a_silence_that_says_not_enough_exits_2(home, line, says):
    done = command(["trading-ops", "alerts", "silence", "risk", *line], home, COLUMNS="200")
    assert done.returncode == 2, done
    assert says in " ".join((done.stdout + done.stderr).split())
