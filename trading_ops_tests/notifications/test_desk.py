"""Is each incident told once, whoever sees it, whatever dies in between, and also while the store is away?"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import trading_ops
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import StoreUnavailable
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.backoff import Backoff
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.desk import IncidentDesk, Outcome
from trading_ops.notifications.incident import Policy
from trading_ops.notifications.incident_store import INDEX, STATE
from trading_ops.notifications.outbox import Outbox
from trading_ops.notifications.routes import Routes
from trading_ops_tests.audit.unreliable import DOWN, READ_ONLY, UP, UnreliableStore
from trading_ops_tests.notifications.test_outbox import Clock, Recorder, backed, outbox

ROOT = Path(trading_ops.__file__).parents[1]
QUIET = Policy(update_every=None)
ERROR, CRITICAL = Severity.ERROR, Severity.CRITICAL

# a process that dies right before its n-th write
MORTAL = """
import os, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.desk import IncidentDesk
from trading_ops.notifications.outbox import Outbox

folder, task, dies_at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

class Mortal(SqliteStore):
    writes = 0
    def mortal(self):
        Mortal.writes += 1
        if Mortal.writes == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
    def put_state(self, *asked, **named):
        self.mortal()
        return super().put_state(*asked, **named)
    def append(self, *asked, **named):
        self.mortal()
        return super().append(*asked, **named)

class Channel:
    name = "chat"
    deduplicates = updates = False
    reports = True
    def send(self, alert, *, possible_duplicate, opening=None):
        with open(folder / "delivered", "a") as file:
            file.write(f"{alert.dedup_key} {possible_duplicate}\\n")

late = timedelta(minutes=2 if task == "tick" else 0)
store = Mortal(folder / "audit.db")
now = lambda: datetime.now(UTC) + late
desk = IncidentDesk(store, Outbox(store, {"chat": Channel()}, now), now)
if task == "observe":
    desk.observe(Alert(Severity.ERROR, "unused", "rsi lost 12 %", "", "", incident="risk"))
elif task == "recover":
    desk.recover("risk")
else:
    desk.tick()
"""


class Interrupted(SqliteStore):
    """A store that lets something happen right before it writes an incident, once."""

    before: Callable[[], object] | None = None

    def put_state(self, *asked: Any, **named: Any) -> Any:
        if asked[0] == STATE and (happens := self.before):
            self.before = None
            happens()
        return super().put_state(*asked, **named)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "audit.db") as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


def alert(incident: str = "risk", severity: Severity = ERROR) -> Alert:
    return Alert(severity, f"{incident}/first", f"{incident} is bad", "above 10 %", "Look.", incident=incident)


def desk(store: SqliteStore, clock: Callable[[], Any], *channels: Recorder, policy: Policy = QUIET) -> IncidentDesk:
    """As another process would make it."""
    return IncidentDesk(store, outbox(store, clock, *channels), clock, policy)


def killed(*_: object) -> None:
    raise SystemExit


def told(chat: Recorder) -> list[str]:
    """What was said, with the step where it is none that begins something."""
    begins = (Step.OPENED, Step.SEVERAL, Step.GROUPED)
    return [alert.what if alert.step in begins else f"{alert.step}: {alert.what}" for alert, _ in chat.told]


def test_an_incident_goes_on_from_process_to_process(store, clock):
    chat = Recorder()
    for _ in range(3):
        desk(store, clock, chat).observe(alert())
        clock.advance(timedelta(minutes=5))
    desk(store, clock, chat).recover("risk")
    desk(store, clock, chat).recover("risk")
    assert told(chat) == ["risk is bad", "resolved: risk is bad"]
    assert "It lasted 15 min, until 2025-03-01 12:15 UTC, and was seen 3 times." in chat.told[1][0].why
    assert desk(store, clock).unsettled() == []


def test_what_is_well_and_was_never_bad_is_told_nobody_and_written_nowhere(store, clock):
    chat = Recorder()
    desk(store, clock, chat).recover("risk")
    assert (chat.told, store.state_collections()) == ([], [])


def test_an_update_is_for_the_channels_that_show_it(store, clock):
    mail, chat = Recorder("mail"), Recorder("chat")
    chat.updates = True
    for loss in (12, 13):
        desk(store, clock, mail, chat, policy=Policy()).observe(replace(alert(), why=f"{loss} %, above 10 %"))
        clock.advance(timedelta(hours=1))
    assert (len(mail.told), len(chat.told)) == (1, 2)
    assert chat.told[1][0].opening == chat.told[0][0].dedup_key


def test_what_opens_within_a_minute_of_another_is_told_together_and_critical_at_once(store, clock):
    chat = Recorder()
    for name in "abcd":
        desk(store, clock, chat).observe(alert(name, CRITICAL if name == "d" else ERROR))
        clock.advance(timedelta(seconds=10))
    assert told(chat) == ["a is bad", "d is bad"]
    assert desk(store, clock, chat).tick().told == 0
    clock.advance(timedelta(seconds=20))
    assert desk(store, clock, chat).tick().told == 1
    assert told(chat)[2:] == ["b is bad, and 1 more"]
    assert chat.told[2][0].why == "b is bad: above 10 %\nc is bad: above 10 %"
    assert desk(store, clock, chat).tick().told == 0
    desk(store, clock, chat).recover("c")
    assert (told(chat)[3:], chat.told[3][0].opening) == (["resolved: c is bad"], "c/1/1")


def test_one_alone_at_the_end_of_the_window_is_told_as_itself_and_what_ended_before_is_not(store, clock):
    chat = Recorder()
    for name in "abc":
        desk(store, clock, chat).observe(alert(name))
    desk(store, clock, chat).recover("c")
    clock.advance(timedelta(minutes=1))
    desk(store, clock, chat).tick()
    assert told(chat) == ["a is bad", "b is bad"]


def test_after_the_window_the_next_one_is_the_first_again(store, clock):
    chat = Recorder()
    desk(store, clock, chat).observe(alert("a"))
    clock.advance(timedelta(minutes=1))
    desk(store, clock, chat).observe(alert("b"))
    assert told(chat) == ["a is bad", "b is bad"]


def test_what_pages_for_each_incident_hears_of_each_and_of_no_summary(store, clock):
    pager, chat = Recorder("pager"), Recorder("chat")
    pager.reports = False
    for name in "abc":
        desk(store, clock, pager, chat).observe(alert(name))
    clock.advance(timedelta(minutes=1))
    desk(store, clock, pager, chat).tick()
    assert told(pager) == ["a is bad", "b is bad", "c is bad"]
    assert told(chat) == ["a is bad", "b is bad, and 1 more"]
    desk(store, clock, pager, chat).recover("b")
    assert pager.told[3][0].opening == pager.told[1][0].dedup_key


def test_each_severity_has_a_message_of_its_own_for_each_has_a_route_of_its_own(store, clock):
    chat = Recorder()
    for name in "abcde":
        desk(store, clock, chat).observe(alert(name, Severity.WARNING if name in "ce" else ERROR))
    clock.advance(timedelta(minutes=1))
    assert desk(store, clock, chat).tick().told == 2
    severities = [(str(a.severity), a.what) for a, _ in chat.told[1:]]
    assert severities == [("ERROR", "b is bad, and 1 more"), ("WARNING", "c is bad, and 1 more")]


def test_who_heard_of_it_hears_that_it_is_over_whatever_severity_it_had_then(store, clock):
    chat, mail, pager = Recorder("chat"), Recorder("mail"), Recorder("pager")
    routes = Routes(
        {Severity.WARNING: ("chat",), ERROR: ("mail",), CRITICAL: ("pager",)},
    )
    there = IncidentDesk(store, Outbox(store, {c.name: c for c in (chat, mail, pager)}, clock, routes=routes), clock)
    for severity in (Severity.WARNING, ERROR, Severity.WARNING):
        there.observe(alert(severity=severity))
        clock.advance(timedelta(minutes=5))
    there.recover("risk")
    assert [told(one) for one in (chat, mail, pager)] == [
        ["risk is bad", "resolved: risk is bad"],
        ["reminded: More: risk is bad", "resolved: risk is bad"],
        [],
    ]
    there.observe(alert(severity=ERROR))
    there.recover("risk")
    assert (len(chat.told), len(mail.told)) == (2, 4)  # this time it was an ERROR alone


def test_two_messages_about_several_have_two_keys(store, clock):
    chat = Recorder()
    for names in ("abc", "def"):
        for name in names:
            desk(store, clock, chat).observe(alert(name))
        clock.advance(timedelta(minutes=1))
        desk(store, clock, chat).tick()
    assert [a.dedup_key for a, _ in chat.told if a.incident is None] == ["incidents_together/1", "incidents_together/2"]


def test_a_silence_holds_for_what_it_names_and_its_end_tells_what_is_open(store, clock):
    chat, there = Recorder(), desk(store, clock)
    there.silences.add("run/*", clock() + timedelta(hours=2), reason="maintenance", by="ana")
    for name in ("run/a", "run/b", "risk"):
        desk(store, clock, chat).observe(alert(name))
    clock.advance(timedelta(hours=1, minutes=59))
    desk(store, clock, chat).tick()
    assert told(chat) == ["risk is bad"]
    clock.advance(timedelta(minutes=1))
    desk(store, clock, chat).tick()
    assert told(chat)[1:] == ["run/a is bad, and 1 more"]


def test_a_silence_can_be_ended_early_and_needs_an_end_to_come_and_a_reason(store, clock):
    chat, there = Recorder(), desk(store, clock)
    silence = there.silences.add("risk", clock() + timedelta(hours=2), reason="known", by="ana")
    desk(store, clock, chat).observe(alert())
    clock.advance(timedelta(minutes=5))
    assert there.silences.end(silence.name, by="ben").until == clock()
    desk(store, clock, chat).tick()
    assert told(chat) == ["risk is bad"]
    with pytest.raises(LookupError, match="no silence"):
        there.silences.end(silence.name, by="ben")
    with pytest.raises(ValueError, match="is over"):
        there.silences.add("risk", clock(), reason="known", by="ana")
    with pytest.raises(ValueError, match="reason"):
        there.silences.add("risk", clock() + timedelta(hours=1), reason=" ", by="ana")
    clock.advance(timedelta(days=31))
    there.silences.add("other", clock() + timedelta(hours=1), reason="known", by="ana")
    assert [silence.pattern for silence in there.silences.all()] == ["other"]  # ended ones are not kept for ever


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [("run/*", ["run/a[1]", "run/b"]), ("run/a[1]", ["run/a[1]"]), ("run/?", ["run/b"]), ("RUN/*", []),
     ("*", ["run/a[1]", "run/b", "risk"])],
)  # fmt: skip
def test_a_pattern_is_a_key_or_matches_some(store, clock, pattern, covered):
    silences = desk(store, clock).silences
    silences.add(pattern, clock() + timedelta(hours=1), reason="r", by="ana")
    assert [key for key in ("run/a[1]", "run/b", "risk") if silences.covering(key)] == covered


def test_the_audit_trail_says_who_acknowledged_and_who_silenced_what_and_why(store, clock):
    there = desk(store, clock, Recorder())
    there.observe(alert())
    there.acknowledge("risk", "ana")
    silence = there.silences.add("risk", clock() + timedelta(hours=1), reason="maintenance", by="ana")
    there.silences.end(silence.name, by="ben")
    records = sorted(store.read("incident_actions"), key=lambda record: record.seq)
    assert [(r.body["action"], r.body["by"]) for r in records] == [
        ("acknowledged", "ana"), ("silenced", "ana"), ("unsilenced", "ben"),
    ]  # fmt: skip
    assert records[0].body["incident"] == "risk"
    assert records[1].body["silence"]["reason"] == "maintenance"


def test_who_acknowledges_by_a_messages_key_or_the_incidents_ends_the_escalation(store, clock):
    chat = Recorder()
    for name in "ab":
        desk(store, clock, chat).observe(alert(name, CRITICAL))
    assert desk(store, clock, chat).acknowledge("a", "ana").acknowledged_by == "ana"
    clock.advance(timedelta(minutes=15))
    desk(store, clock, chat).tick()
    assert told(chat)[2:] == ["escalated: b is bad"]
    assert desk(store, clock, chat).acknowledge(chat.told[2][0].dedup_key, "ben").key == "b"
    with pytest.raises(LookupError, match="no open incident has the key 'c'"):
        desk(store, clock, chat).acknowledge("c", "ana")


def test_a_tick_reads_what_is_open_and_not_what_ever_was(store, clock, monkeypatch):
    chat = Recorder()
    for number in range(30):
        desk(store, clock, chat).observe(alert(f"over/{number}"))
        clock.advance(timedelta(minutes=2))
        desk(store, clock, chat).recover(f"over/{number}")
    desk(store, clock, chat).observe(alert("open"))
    desk(store, clock, chat).tick()  # the first one looks at everything once
    read: list[tuple[str, ...]] = []
    one, whole = store.get_state, store.list_state
    monkeypatch.setattr(store, "get_state", lambda *asked: read.append(asked) or one(*asked))
    monkeypatch.setattr(store, "list_state", lambda *asked: read.append(asked) or whole(*asked))
    desk(store, clock, chat).tick()
    assert {asked for asked in read if asked[0] == STATE} == {(STATE, "open")}
    assert len(read) < 10


def test_a_tick_reads_the_silences_once_however_many_incidents_are_open(store, clock, monkeypatch):
    chat = Recorder()
    for number in range(5):
        desk(store, clock, chat).observe(alert(f"open/{number}"))
    clock.advance(timedelta(minutes=2))
    read: list[str] = []
    one = store.get_state
    monkeypatch.setattr(store, "get_state", lambda collection, key: read.append(collection) or one(collection, key))
    assert desk(store, clock, chat).tick() == Outcome(noted=True, told=1)
    assert read.count("silences") == 1


def test_what_opens_while_another_process_forgets_that_it_was_over_is_told(tmp_path, clock):
    chat = Recorder()
    with SqliteStore(tmp_path / "audit.db") as ticking, Interrupted(tmp_path / "audit.db") as store:
        desk(ticking, clock, chat).observe(alert("b"))
        desk(ticking, clock, chat).recover("b")
        clock.advance(timedelta(hours=2))
        desk(ticking, clock, chat).observe(alert("a"))  # b waits for the others that follow it
        store.before = lambda: desk(ticking, clock, chat).tick()
        desk(store, clock, chat).observe(alert("b"))
        clock.advance(timedelta(minutes=2))
        desk(ticking, clock, chat).tick()
    assert told(chat) == ["b is bad", "resolved: b is bad", "a is bad", "b is bad"]


def test_the_first_to_see_it_tells_it_though_another_process_writes_it_before(tmp_path, clock):
    chat = Recorder()
    with SqliteStore(tmp_path / "audit.db") as other, Interrupted(tmp_path / "audit.db") as store:
        store.before = lambda: desk(other, clock, chat).observe(alert())  # it would wait for others
        desk(store, clock, chat).observe(alert())
    assert told(chat) == ["risk is bad"]


def test_a_damaged_incident_is_told_straight_and_stops_no_other(store, clock):
    chat = Recorder()
    desk(store, clock, chat).observe(alert("a", CRITICAL))
    desk(store, clock, chat).observe(alert("b", CRITICAL))
    document = store.get_state(STATE, "a")
    store.put_state(STATE, "a", {**document.body, "findings": 7}, expected_version=document.version)
    clock.advance(timedelta(minutes=15))
    assert "the incident 'a' is damaged" in str(desk(store, clock, chat).tick().problem)
    assert told(chat)[2:] == ["escalated: b is bad"]
    for _ in range(2):
        desk(store, clock, chat).observe(alert("a", CRITICAL))
    assert [a.dedup_key for a, _ in chat.told[3:]] == ["a/first"]


def test_a_damaged_incident_among_those_told_together_stops_nobody(store, clock, monkeypatch):
    chat = Recorder()
    for name in "abcd":
        desk(store, clock, chat).observe(alert(name))
    clock.advance(timedelta(minutes=2))
    stopped = desk(store, clock, chat)
    monkeypatch.setattr(stopped._outbox, "publish", killed)
    with pytest.raises(SystemExit):  # it has written that it tells b, c and d together
        stopped.tick()
    document = store.get_state(STATE, "b")
    store.put_state(STATE, "b", {**document.body, "findings": 7}, expected_version=document.version)
    assert "the incident 'b' is damaged" in str(desk(store, clock, chat).tick().problem)
    assert told(chat) == ["a is bad", "b is bad, and 2 more"]
    desk(store, clock, chat).recover("c")
    desk(store, clock, chat).tick()
    assert told(chat)[2:] == ["resolved: c is bad"]


WORDED = alert("a", CRITICAL).to_document()


def overwrite(store: SqliteStore, collection: str, key: str, body: dict[str, Any]) -> None:
    document = store.get_state(collection, key)
    store.put_state(collection, key, body, expected_version=document.version if document else 0)


def spoil(folder: Path, collection: str, key: str) -> None:
    """Make it unreadable for the store itself."""
    with sqlite3.connect(folder / "audit.db") as db:
        assert db.execute("UPDATE state SET body = '{' WHERE (collection, key) = (?, ?)", (collection, key)).rowcount


@pytest.mark.parametrize(
    "damage",
    [
        {"alert": None},
        {"alert": {"severity": "ERROR"}},
        {"alert": {**WORDED, "escalation": "x"}},
        {"episodes": 7},
        {"findings": 7},
        {"number": "x", "alert": 7},
    ],
)
def test_a_damaged_message_about_several_is_reported_and_its_incidents_are_told_anew(store, clock, monkeypatch, damage):
    chat = Recorder()
    for name in "abc":
        desk(store, clock, chat).observe(alert(name))
    clock.advance(timedelta(minutes=2))
    stopped = desk(store, clock, chat)
    monkeypatch.setattr(stopped._outbox, "publish", killed)
    with pytest.raises(SystemExit):
        stopped.tick()
    group = store.get_state("incident_grouping", "group")
    assert group
    overwrite(store, "incident_grouping", "group", {**group.body, **damage})
    desk(store, clock, chat).observe(alert("d", CRITICAL))
    outcome = desk(store, clock, chat).tick()
    assert "incident_grouping/group' is damaged" in str(outcome.problem)
    assert sorted(told(chat)) == ["a is bad", "b is bad, and 1 more", "d is bad"]
    assert [a.dedup_key for a, _ in chat.told if a.step is Step.SEVERAL] != ["incidents_together/1"]
    clock.advance(timedelta(minutes=2))
    assert desk(store, clock, chat).tick() == Outcome(noted=True)
    for name in "bc":
        desk(store, clock, chat).recover(name)
    assert told(chat)[3:] == ["resolved: b is bad", "resolved: c is bad"]


def test_where_a_message_about_several_cannot_be_read_at_all_each_is_told_by_itself(store, clock, tmp_path):
    chat = Recorder()
    for names in ("abc", "def"):
        for name in names:
            desk(store, clock, chat).observe(alert(name))
        clock.advance(timedelta(minutes=2))
        outcome = desk(store, clock, chat).tick()
        if names == "abc":
            spoil(tmp_path, "incident_grouping", "group")
    assert "incident_grouping" in str(outcome.problem)
    assert told(chat) == ["a is bad", "b is bad, and 1 more", "d is bad", "e is bad", "f is bad"]


def test_a_damaged_window_keeps_no_incident_from_being_told_and_noted(store, clock, tmp_path):
    chat = Recorder()
    overwrite(store, "incident_grouping", "window", {"until": 7})
    outcome = desk(store, clock, chat).observe(alert("a"))
    assert (outcome.noted, "the window of incidents told together is damaged" in str(outcome.problem)) == (True, True)
    assert desk(store, clock, chat).observe(alert("b")) == Outcome(noted=True)  # it is written anew, and b waits
    assert told(chat) == ["a is bad"]
    spoil(tmp_path, "incident_grouping", "window")
    assert desk(store, clock, chat).observe(alert("c")).noted
    assert told(chat) == ["a is bad", "c is bad"]


@pytest.mark.parametrize(
    "damage",
    [
        None,
        {"episode": "1"},
        {"count": None},
        {"opened_at": "2025-03-01T12:00:00"},
        {"open": "yes"},
        {"opening": 5},
        {"also": [[1]]},
        {"changed_at": None},
        {"alert": {**WORDED, "why": 5}},
        {"alert": {**WORDED, "what": None}},
        {"unsent": [{**WORDED, "escalation": "x"}]},
        {"unsent": [{**WORDED, "also": [[1]]}]},
        {"unsent": [{**WORDED, "link": 5}]},
    ],
)
def test_a_damaged_incident_holds_up_no_other(store, clock, damage):
    chat = Recorder()
    for name in "ab":
        desk(store, clock, chat).observe(alert(name, CRITICAL))
    desk(store, clock, chat).tick()
    clock.advance(timedelta(minutes=15))
    known = store.get_state(STATE, "a")
    assert known
    overwrite(store, STATE, "a", {**known.body, **damage} if damage else {})
    assert "'a' is damaged" in str(desk(store, clock, chat).tick().problem)
    assert told(chat)[2:] == ["escalated: b is bad"]


def test_a_damaged_index_of_incidents_is_done_without(store, clock):
    chat = Recorder()
    desk(store, clock, chat).observe(alert("a", CRITICAL))
    desk(store, clock, chat).tick()
    for shard in store.list_state(INDEX):
        overwrite(store, INDEX, shard.key, {"keys": None})
    clock.advance(timedelta(minutes=15))
    desk(store, clock, chat).tick()
    assert told(chat) == ["a is bad", "escalated: a is bad"]


def test_while_the_silences_are_damaged_people_are_told(store, clock):
    chat = Recorder()
    overwrite(store, "silences", "all", {"silences": [7]})
    assert desk(store, clock, chat).observe(alert()).noted
    assert told(chat) == ["risk is bad"]


@pytest.mark.parametrize(
    "damage",
    [
        {"since": "2025-03-10T12:00:00"},
        {"until": "2099-01-01T00:00:00"},
        {"until": "soon"},
        {"pattern": None},
        {"name": 5},
    ],
)
def test_a_damaged_silence_silences_nothing_and_stops_no_other(store, clock, damage, caplog):
    chat = Recorder()
    there = desk(store, clock, chat)
    there.silences.add("risk", clock() + timedelta(hours=1), reason="drill", by="ana")
    there.silences.add("quiet", clock() + timedelta(hours=1), reason="drill", by="ana")
    document = store.get_state("silences", "all")
    first, second = document.body["silences"]
    overwrite(store, "silences", "all", {"silences": [{**first, **damage}, second]})
    for name in ("risk", "quiet"):
        there.observe(alert(name))
    assert there.tick().noted
    assert told(chat) == ["risk is bad"]
    assert "a silence is damaged and silences nothing" in caplog.text


def test_a_silence_of_a_clock_that_was_ahead_silences_nothing(store, clock):
    chat = Recorder()
    there = desk(store, clock, chat)
    clock.advance(timedelta(days=3))
    there.silences.add("risk", clock() + timedelta(hours=2), reason="drill", by="ana")
    clock.advance(timedelta(days=-3))
    there.observe(alert())
    assert told(chat) == ["risk is bad"]


def test_incidents_told_together_are_published_at_once_so_that_a_dead_channel_is_waited_for_once(store, clock):
    pager = Recorder("pager")
    pager.reports = False
    published: list[int] = []
    there = desk(store, clock, pager)
    several = there._outbox.publish_all
    there._outbox.publish_all = lambda alerts, **named: (  # type: ignore[method-assign]
        published.append(len(alerts)) or several(alerts, **named)
    )
    for name in "abcdef":
        there.observe(alert(name))
    clock.advance(timedelta(minutes=2))
    there.tick()
    assert published == [1, 1, 5]  # the first one, the message about the others, and theirs
    assert sorted(told(pager)) == [f"{name} is bad" for name in "abcdef"]


def test_what_got_worse_after_a_process_died_that_told_it_together_with_others_is_told(tmp_path, clock):
    chat = Recorder()
    with SqliteStore(tmp_path / "audit.db") as store, Interrupted(tmp_path / "audit.db") as mortal:
        for name in "abc":
            desk(store, clock, chat).observe(alert(name, Severity.WARNING))
        clock.advance(timedelta(minutes=1))
        mortal.before = killed  # the message about b and c is told, and none of them knows of it
        with pytest.raises(SystemExit):
            desk(mortal, clock, chat).tick()
        assert told(chat) == ["a is bad", "b is bad, and 1 more"]
        desk(store, clock, chat).observe(alert("b", ERROR))
        desk(store, clock, chat).tick()
        desk(store, clock, chat).tick()
        assert [(str(a.severity), a.what) for a, _ in chat.told[2:]] == [("ERROR", "More: b is bad")]
        assert desk(store, clock).incident("c").told == (Severity.WARNING,)  # type: ignore[union-attr]


def test_what_was_found_after_a_process_died_that_told_it_together_with_others_is_told(tmp_path, clock):
    chat = Recorder()
    with SqliteStore(tmp_path / "audit.db") as store, Interrupted(tmp_path / "audit.db") as mortal:
        for name in "abc":
            desk(store, clock, chat).observe(alert(name), {"rsi": ERROR})
        clock.advance(timedelta(minutes=1))
        mortal.before = killed
        with pytest.raises(SystemExit):
            desk(mortal, clock, chat).tick()
        desk(store, clock, chat).observe(alert("b"), {"rsi": ERROR, "macd": ERROR})
        desk(store, clock, chat).observe(alert("c"), {"rsi": ERROR})
        desk(store, clock, chat).tick()
        desk(store, clock, chat).tick()
        assert told(chat)[2:] == ["reminded: More: b is bad"]


def test_a_page_among_those_told_together_is_told_as_urgent_as_they_were(tmp_path, clock):
    """Else its end would go to the channels of one severity, and its beginning to those of another."""
    pager = Pager("pager")
    with SqliteStore(tmp_path / "audit.db") as store, Interrupted(tmp_path / "audit.db") as mortal:
        for name in "abc":
            desk(store, clock, pager).observe(alert(name, Severity.WARNING))
        clock.advance(timedelta(minutes=1))
        mortal.before = lambda: desk(store, clock, pager).observe(alert("b", ERROR))
        desk(mortal, clock, pager).tick()
        assert [(str(a.severity), told) for (a, _), told in zip(pager.told, told(pager), strict=True)] == [
            ("WARNING", "a is bad"),
            ("WARNING", "b is bad"),
            ("WARNING", "c is bad"),
            ("ERROR", "reminded: More: b is bad"),
        ]


class Pager(Recorder):
    """Each incident is a page of its own."""

    reports = False


class Threads(Recorder):
    """A chat that names its messages, and keeps as an answer to which of them it was sent each."""

    updates = True

    def __init__(self, *errors: Exception | None) -> None:
        super().__init__("chat", *errors)
        self.answered: list[tuple[str, str | None]] = []

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> str:  # type: ignore[override]
        super().send(alert, possible_duplicate=possible_duplicate, opening=opening)
        self.answered.append((alert.dedup_key, opening))
        return f"m-{alert.dedup_key}"


def test_what_is_told_later_of_one_of_several_answers_their_message_and_changes_nothing_in_it(store, clock):
    chat = Threads()
    there = desk(store, clock, chat, policy=Policy())
    for name in "abc":
        there.observe(alert(name))
    clock.advance(timedelta(minutes=1))
    there.tick()
    clock.advance(timedelta(hours=1))
    there.observe(replace(alert("b"), why="above 11 %"))
    there.recover("b")
    together = "incidents_together/1"
    assert chat.answered[1:] == [(together, None), ("b/1/2", None), ("b/1/3", f"m-{together}")]


def test_what_is_told_later_of_one_of_several_waits_until_their_message_was_told(store, clock):
    chat = Threads(None, DeliveryError("HTTP 503"), DeliveryError("HTTP 503"))
    box = Outbox(store, {"chat": chat}, clock, backoff=Backoff(random=lambda: 1.0))
    there = IncidentDesk(store, box, clock, QUIET)
    for name in "abc":
        there.observe(alert(name))
    clock.advance(timedelta(minutes=1))
    there.tick()
    clock.advance(timedelta(seconds=5))
    there.recover("b")
    assert told(chat) == ["a is bad"]  # the message about both is not due, so the end of one is not tried
    clock.advance(timedelta(minutes=1))
    box.drain()
    assert told(chat) == ["a is bad"]
    clock.advance(timedelta(minutes=2))
    box.drain()
    assert told(chat) == ["a is bad", "b is bad, and 1 more", "resolved: b is bad"]


def test_the_page_of_one_of_several_ends_by_its_own_key(store, clock):
    pager, chat = Pager("pager"), Threads()
    for name in "abc":
        desk(store, clock, pager, chat).observe(alert(name))
    clock.advance(timedelta(minutes=1))
    desk(store, clock, pager, chat).tick()
    desk(store, clock, pager, chat).recover("b")
    assert [(a.dedup_key, a.opening) for a, _ in pager.told[1:]] == [
        ("b/1/1", None),
        ("c/1/1", None),
        ("b/1/2", "b/1/1"),
    ]
    desk(store, clock, pager, chat).observe(alert("b"))
    clock.advance(timedelta(minutes=2))
    desk(store, clock, pager, chat).tick()
    desk(store, clock, pager, chat).recover("b")
    assert chat.answered[-1] == ("b/2/2", "m-b/2/1")  # this time it was told by itself


# while the store is away


@pytest.fixture
def main(tmp_path: Path) -> Iterator[UnreliableStore]:
    (tmp_path / "main").mkdir()
    with UnreliableStore(tmp_path / "main") as store:
        yield store


@pytest.fixture
def away(main: UnreliableStore, clock: Clock, tmp_path: Path) -> Callable[[Recorder], IncidentDesk]:
    def away(chat: Recorder) -> IncidentDesk:
        return IncidentDesk(main, backed(main, tmp_path / "local.db", clock, chat), clock, QUIET)

    return away


def test_without_the_store_it_is_told_once_under_its_own_key_and_its_end_when_the_store_is_back(main, away, clock):
    chat = Recorder()
    main.be(DOWN)
    for _ in range(2):
        outcome = away(chat).observe(alert())
        assert (outcome.noted, outcome.problem) == (False, "shared.example: connection refused")
        clock.advance(timedelta(minutes=5))
    away(chat).recover("risk")  # nobody can look up whether it was told
    assert [(a.dedup_key, duplicate) for a, duplicate in chat.told] == [("risk/first", True)]
    main.be(UP)
    away(chat).observe(alert())
    assert len(chat.told) == 1
    away(chat).recover("risk")
    away(chat).tick()
    ((_, _), (over, _)) = chat.told
    assert (over.step, over.opening) == (Step.RESOLVED, "risk/first")


def test_what_was_told_without_the_store_of_an_open_incident_ends_with_it(main, away, clock):
    chat = Recorder()
    away(chat).observe(alert())
    for severity in (ERROR, CRITICAL):
        main.be(DOWN)
        clock.advance(timedelta(minutes=5))
        away(chat).observe(replace(alert(severity=severity), dedup_key=f"risk/{severity}"))
        main.be(UP)
        clock.advance(timedelta(minutes=5))
        away(chat).tick()
    away(chat).observe(replace(alert(severity=CRITICAL), dedup_key="risk/CRITICAL"))
    away(chat).recover("risk")
    away(chat).tick()
    assert told(chat) == ["risk is bad"] * 3 + ["resolved: risk is bad"]
    over = chat.told[-1][0]
    assert (over.opening, over.also, over.told) == ("risk/1/1", ("risk/ERROR", "risk/CRITICAL"), (ERROR, CRITICAL))


def test_what_ended_before_the_store_was_back_is_resolved_then(main, away, clock):
    chat = Recorder()
    main.be(DOWN)
    away(chat).observe(alert())
    main.be(UP)
    clock.advance(timedelta(minutes=5))
    for _ in range(2):
        away(chat).recover("risk")
        away(chat).tick()
    assert told(chat) == ["risk is bad", "resolved: risk is bad"]


def test_a_second_outage_of_the_same_thing_is_told_under_another_key(main, away, clock):
    chat = Recorder()
    for key in ("risk/first", "risk/second"):
        main.be(DOWN)
        away(chat).observe(replace(alert(), dedup_key=key))
        main.be(UP)
        clock.advance(timedelta(minutes=5))
        away(chat).recover("risk")
    assert told(chat) == ["risk is bad", "resolved: risk is bad"] * 2


@pytest.mark.parametrize("writes", range(12))
def test_a_store_that_fails_at_any_write_loses_nothing_and_each_key_is_told_once(main, away, clock, writes):
    chat = Recorder()
    main.writes_left = writes
    away(chat).observe(alert())
    main.writes_left = None
    clock.advance(timedelta(minutes=2))
    for _ in range(2):
        away(chat).observe(alert())
        away(chat).tick()
        away(chat)._outbox.drain()
    assert Counter(told(chat)) == {"risk is bad": 1}
    away(chat).recover("risk")
    assert told(chat)[-1] == "resolved: risk is bad"


@pytest.mark.parametrize("since", [None, "2025-03-01T11:50:00+00:00"])
def test_what_a_drain_carried_into_the_store_before_anybody_looked_ends_too(main, away, clock, since):
    chat, pager_key = Recorder(), "risk/first"
    main.be(DOWN)
    away(chat).observe(replace(alert(), since=since))
    main.be(UP)
    away(chat)._outbox.drain()
    assert away(chat)._outbox.without_store() == ([], [])
    clock.advance(timedelta(minutes=5))
    for _ in range(2):
        away(chat).tick()
        away(chat).recover("risk")
    ((_, _), (over, _)) = chat.told
    assert (over.step, over.opening) == (Step.RESOLVED, pager_key)
    for _ in range(2):
        clock.advance(timedelta(minutes=5))
        away(chat).observe(alert())
        away(chat).recover("risk")
    assert told(chat)[2:] == ["risk is bad", "resolved: risk is bad"] * 2  # adopted once


@pytest.mark.parametrize("since", [None, "2025-03-01T11:50:00+00:00"])
def test_what_was_told_without_the_store_ends_whether_or_not_it_says_since_when(main, away, clock, since):
    chat = Recorder()
    main.be(DOWN)
    away(chat).observe(replace(alert(), since=since))
    main.be(UP)
    clock.advance(timedelta(minutes=5))
    away(chat).recover("risk")
    assert told(chat) == ["risk is bad", "resolved: risk is bad"]
    length = "15 min" if since else "5 min"
    assert f"It lasted {length}, until" in chat.told[1][0].why


def test_a_page_that_one_machine_opened_without_the_store_is_closed_though_another_saw_its_end_before(
    main, away, clock, tmp_path
):
    chat = Recorder()
    away(chat).observe(alert())
    main.be(DOWN)
    clock.advance(timedelta(minutes=5))
    away(chat).observe(replace(alert(severity=CRITICAL), dedup_key="risk/CRITICAL"))
    clock.advance(timedelta(minutes=5))
    with SqliteStore(tmp_path / "main" / "shared.db") as reached:
        desk(reached, clock, chat).recover("risk")
    main.be(UP)
    clock.advance(timedelta(minutes=5))
    for _ in range(2):
        away(chat).recover("risk")
        away(chat).tick()
    assert told(chat) == ["risk is bad"] * 2 + ["resolved: risk is bad"] * 2
    ended, closed = (told for told, _ in chat.told[2:])
    assert (ended.opening, closed.opening, closed.severity) == ("risk/1/1", "risk/CRITICAL", CRITICAL)


@pytest.mark.parametrize("key", ["risk/first", "risk"])
def test_what_was_told_without_the_store_can_be_acknowledged_at_once(main, away, clock, key):
    chat = Recorder()
    main.be(DOWN)
    away(chat).observe(alert(severity=CRITICAL))
    main.be(UP)
    assert away(chat).acknowledge(key, "ana").acknowledged_by == "ana"
    clock.advance(timedelta(minutes=16))
    away(chat).tick()
    assert told(chat) == ["risk is bad"]


@pytest.mark.parametrize("since", ["2025-03-01T10:00:00", "yesterday"])
def test_an_alert_that_says_since_when_in_no_aware_time_is_told_and_keeps_no_other_from_being_told(
    main, away, clock, since
):
    chat = Recorder()
    main.be(DOWN)
    away(chat).observe(replace(alert(), since=since))
    main.be(UP)
    clock.advance(timedelta(minutes=5))
    away(chat).observe(alert("other", CRITICAL))
    assert away(chat).tick() == Outcome(noted=True)
    away(chat).recover("risk")
    away(chat).observe(replace(alert("another", CRITICAL), since=since))
    assert told(chat) == ["risk is bad", "other is bad", "resolved: risk is bad", "another is bad"]
    assert "It lasted 5 min, until" in chat.told[2][0].why


def test_an_incident_without_the_time_of_its_change_keeps_no_other_from_beginning_with_what_was_told_elsewhere(
    main, away, clock
):
    chat = Recorder()
    away(chat).observe(alert("a"))
    away(chat).recover("a")
    main.be(DOWN)
    for name in "ab":
        away(chat).observe(replace(alert(name), dedup_key=f"{name}/without"))
    main.be(UP)
    overwrite(main, STATE, "a", {**main.get_state(STATE, "a").body, "changed_at": None})
    clock.advance(timedelta(minutes=5))
    assert "damaged" in str(away(chat).recover("b").problem)
    assert told(chat)[-1] == "resolved: b is bad"


def test_a_damaged_incident_keeps_no_other_from_beginning_with_what_was_told_without_the_store(main, away, clock):
    chat = Recorder()
    away(chat).observe(alert("a"))
    main.be(DOWN)
    for name in "ab":
        away(chat).observe(replace(alert(name), dedup_key=f"{name}/without"))
    main.be(UP)
    overwrite(main, STATE, "a", {"open": True})
    clock.advance(timedelta(minutes=5))
    assert "the incident 'a' is damaged" in str(away(chat).recover("b").problem)
    assert told(chat)[-1] == "resolved: b is bad"


def test_a_tick_gives_up_at_the_first_write_that_the_store_is_locked_for(main, away, clock):
    chat = Recorder()
    for name in "abcd":
        away(chat).observe(alert(name, CRITICAL))
    away(chat).tick()  # the first one completes the index
    clock.advance(timedelta(minutes=15))
    main.be(READ_ONLY)
    main.asked.clear()
    away(chat).tick()
    assert main.asked.count("put_state") == 1
    main.be(UP)
    away(chat).tick()
    assert sorted(told(chat)[4:]) == [f"escalated: {name} is bad" for name in "abcd"]


def test_with_nothing_to_write_to_the_caller_learns_of_it(main, clock, tmp_path):
    main.be(DOWN)
    (tmp_path / "file").touch()
    box = backed(main, tmp_path / "file" / "local.db", clock, Recorder())
    with pytest.raises(StoreUnavailable, match="local outbox does not work"):
        IncidentDesk(main, box, clock, QUIET).observe(alert())


# what dies in between


def start(folder: Path, task: str, dies_at: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MORTAL, str(folder), task, str(dies_at)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> int:
    errors = process.communicate(timeout=300)[1]
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode


def deliveries(folder: Path) -> list[tuple[str, bool]]:
    file = folder / "delivered"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(line.rpartition(" ")[0], line.endswith("True")) for line in lines]


def once(folder: Path) -> list[str]:
    """The messages that were told, each once, but for those that say that they may be a repeat."""
    told = deliveries(folder)
    assert max(Counter(key for key, duplicate in told if not duplicate).values(), default=0) <= 1
    return list(dict.fromkeys(key for key, _ in told))


class Later:
    """The next process that looks, two minutes on, over the same files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> IncidentDesk:
        self.store = SqliteStore(self.folder / "audit.db")
        clock = Clock()
        clock.time = datetime.now(UTC) + timedelta(minutes=3)
        self.outbox = outbox(self.store, clock, Filing(self.folder))
        return IncidentDesk(self.store, self.outbox, clock, QUIET)

    def __exit__(self, *exc: object) -> None:
        self.store.close()


class Filing(Recorder):
    """A channel that writes down what it is given where the other processes do."""

    def __init__(self, folder: Path) -> None:
        super().__init__("chat")
        self.folder = folder

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> None:
        with (self.folder / "delivered").open("a") as file:
            file.write(f"{alert.dedup_key} {possible_duplicate}\n")


def test_a_process_killed_at_any_write_of_an_opening_loses_nothing(tmp_path: Path):
    deaths = 0
    while True:
        folder = tmp_path / str(deaths)
        folder.mkdir()
        code = finished(start(folder, "observe", deaths + 1))
        with Later(folder) as there:
            there.observe(alert())  # the check that died runs again
            there.tick()
            there._outbox.drain()
            assert once(folder) == ["risk/1/1"], deaths
            there.recover("risk")
            assert once(folder) == ["risk/1/1", "risk/1/2"], deaths
            assert there.unsettled() == []
        if code == 0:
            break
        deaths += 1
    assert deaths > 8  # the index, the window, the incident, the outbox's own, and what was sent


def test_a_process_killed_at_any_write_of_a_recovery_tells_it_by_the_next_tick(tmp_path: Path):
    deaths = 0
    while True:
        folder = tmp_path / str(deaths)
        folder.mkdir()
        assert finished(start(folder, "observe")) == 0
        code = finished(start(folder, "recover", deaths + 1))
        with Later(folder) as there:
            if deaths:  # it died after it was written down
                there.tick()
            else:
                there.recover("risk")
            there._outbox.drain()
            assert once(folder) == ["risk/1/1", "risk/1/2"], deaths
            assert there.unsettled() == []
        if code == 0:
            break
        deaths += 1
    assert deaths > 5


def test_a_process_killed_at_any_write_while_it_tells_several_together_loses_none(tmp_path: Path):
    deaths = 0
    while True:
        folder = tmp_path / str(deaths)
        folder.mkdir()
        with SqliteStore(folder / "audit.db") as store:
            there = desk(store, lambda: datetime.now(UTC), Filing(folder))
            for name in "abc":
                there.observe(alert(name))
        code = finished(start(folder, "tick", deaths + 1))
        with Later(folder) as there:
            there.observe(alert("d"))  # told by itself: the window is over
            there.tick()
            there._outbox.drain()
            assert sorted(once(folder)) == ["a/1/1", "d/1/1", "incidents_together/1"], deaths
            for name in "bc":
                there.recover(name)
            assert sorted(once(folder))[1:] == ["b/1/2", "c/1/2", "d/1/1", "incidents_together/1"], deaths
        if code == 0:
            break
        deaths += 1
    assert deaths > 8


def test_processes_that_see_the_same_incident_at_once_tell_it_once(tmp_path: Path):
    with SqliteStore(tmp_path / "audit.db"):
        processes = [start(tmp_path, "observe") for _ in range(3)]
        assert [finished(process) for process in processes] == [0, 0, 0]
    assert deliveries(tmp_path) == [("risk/1/1", False)]
    with Later(tmp_path) as there:
        (incident,) = there.unsettled()
    assert (incident.count, incident.unsent) == (3, ())
