"""Does one damaged document keep anybody from being told of anything else, and is the damage told?"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import AuditStore, StoreError
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.dead_letters import obituary
from trading_ops.notifications.desk import IncidentDesk
from trading_ops.notifications.grouping import GROUPING, WINDOW
from trading_ops.notifications.incident import Policy
from trading_ops.notifications.rests import RESTING
from trading_ops.notifications.waiting import INDEX
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore
from trading_ops_tests.notifications.test_outbox import Clock, Recorder, backed, outbox

Damage = Callable[[Mapping[str, Any]], dict[str, Any]]

NO_ALERT: dict[str, Damage] = {
    "no alert": lambda body: {name: value for name, value in body.items() if name != "alert"},
    "an alert that is none": lambda body: {**body, "alert": None},
    "a text as alert": lambda body: {**body, "alert": "rsi lost 12 %"},
    "an alert without words": lambda body: {**body, "alert": {"severity": "ERROR", "dedup_key": "b"}},
    "words that are none": lambda body: {**body, "alert": {**body["alert"], "why": None}},
    "figures that are none": lambda body: {**body, "alert": {**body["alert"], "numbers": 5}},
    "openings that are none": lambda body: {**body, "alert": {**body["alert"], "also": [[1]]}},
    "an incident that is none": lambda body: {**body, "alert": {**body["alert"], "incident": 5}},
}
END_OF_TIME = "9999-12-31T23:59:59+00:00"
SENDING = {"state": "sending", "attempts": 1}
NO_DELIVERIES: dict[str, Damage] = {
    "no channels": lambda body: {name: value for name, value in body.items() if name != "channels"},
    "channels that are none": lambda body: {**body, "channels": None},
    "a channel without a state": lambda body: {**body, "channels": {"chat": {}}},
    "a send without a time": lambda body: {**body, "channels": {"chat": {"state": "sending", "attempts": 1}}},
    "a time that is none": lambda body: {**body, "created_at": None},
    "a time that is a text": lambda body: {**body, "created_at": "yesterday"},
    "a time that never comes": lambda body: {**body, "created_at": END_OF_TIME},
    "a send at the end of time": lambda body: {**body, "channels": {"chat": {**SENDING, "at": END_OF_TIME}}},
    "no time": lambda body: {name: value for name, value in body.items() if name != "created_at"},
}
EVERY = [pytest.param(damage, id=name) for name, damage in (NO_ALERT | NO_DELIVERIES).items()]


def damaged(store: AuditStore, collection: str, key: str, damage: Damage) -> None:
    document = store.get_state(collection, key)
    assert document
    store.put_state(collection, key, damage(document.body), expected_version=document.version)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def main(tmp_path: Path) -> Iterator[UnreliableStore]:
    (tmp_path / "main").mkdir()
    with UnreliableStore(tmp_path / "main") as store:
        yield store


def alert(key: str, incident: str | None = None) -> Alert:
    return Alert(Severity.ERROR, key, f"{key} is bad", "", "", incident=incident)


def keys(chat: Recorder) -> list[str]:
    return [told.dedup_key for told, _ in chat.told]


class Outage:
    """The alerts a, b and c are written on this machine in an outage, taken by nobody; b is damaged."""

    def __init__(self, main: UnreliableStore, folder: Path, clock: Clock, damage: Damage) -> None:
        main.be(DOWN)
        self.chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 3)
        self.box = backed(main, folder / "local.db", clock, self.chat)
        self.desk = IncidentDesk(main, self.box, clock, Policy())
        for key in "abc":
            self.box.publish(alert(key))
        with SqliteStore(folder / "local.db") as local:
            damaged(local, "outbox", "b", damage)


@pytest.mark.parametrize("damage", EVERY)
def test_in_an_outage_the_other_local_alerts_are_told_and_so_is_what_is_seen(main, tmp_path, clock, damage):
    there = Outage(main, tmp_path, clock, damage)
    there.desk.observe(alert("new", "risk"))
    assert keys(there.chat) == ["new"]
    assert there.box.drain() == 2
    assert keys(there.chat) == ["new", "a", "c"]


@pytest.mark.parametrize("damage", EVERY)
def test_after_an_outage_incidents_begin_and_end_and_the_tick_names_what_is_damaged(main, tmp_path, clock, damage):
    there = Outage(main, tmp_path, clock, damage)
    there.desk.observe(alert("in the outage", "disk"))
    main.be(UP)
    there.desk.observe(alert("unused", "risk"))
    assert there.desk.recover("risk").noted
    assert "the alert 'b' is damaged" in str(there.desk.tick().problem)
    there.desk.recover("disk")
    assert keys(there.chat) == ["in the outage", "risk/1/1", "risk/1/2", "disk/1/1"]


@pytest.mark.parametrize("damage", EVERY)
@pytest.mark.parametrize("by", ["drain", "retry", "publish"])
def test_after_an_outage_the_other_local_alerts_are_told(main, tmp_path, clock, damage, by):
    there = Outage(main, tmp_path, clock, damage)
    main.be(UP)
    if by == "publish":
        there.box.publish_all([alert(key) for key in "abcd"])
        assert set(keys(there.chat)) >= {"a", "c", "d"}
    else:
        getattr(there.box, by)()
        assert keys(there.chat) == ["a", "c"]
        told = f"{there.box.store_error}{there.box._store.list_state('outbox')}"  # what can be tracked is given up
        assert "the alert 'b' is damaged" in told


@pytest.mark.parametrize("damage", [pytest.param(d, id=name) for name, d in NO_DELIVERIES.items()])
def test_an_alert_published_again_is_told_where_what_is_known_of_it_is_damaged(main, tmp_path, clock, damage):
    """And as a possible duplicate, whatever else is published with it."""
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 2)
    box = backed(main, tmp_path / "local.db", clock, chat)
    box.publish_all([alert("a"), alert("b")])
    damaged(main, "outbox", "b", damage)
    box.publish_all([alert(key) for key in "abc"])
    assert sorted(zip(keys(chat), [doubt for _, doubt in chat.told], strict=True)) == [
        ("a", False), ("b", True), ("c", False),
    ]  # fmt: skip
    box.drain()
    assert "the alert 'b' is damaged" in str(box.store_error)
    assert len(chat.told) == 3


@pytest.mark.parametrize("damage", EVERY)
@pytest.mark.parametrize("by", ["drain", "retry"])
def test_one_damaged_alert_in_the_store_keeps_no_other_from_being_told(main, clock, damage, by):
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 3)
    box = outbox(main, clock, chat)
    for key in "abc":
        box.publish(alert(key))
    damaged(main, "outbox", "b", damage)
    getattr(box, by)()
    assert keys(chat) == ["a", "c"]
    assert "the alert 'b' is damaged" in f"{box.store_error}{main.list_state('outbox')}"


@pytest.mark.parametrize("damage", [pytest.param(d, id=name) for name, d in NO_ALERT.items()])
def test_an_alert_that_cannot_be_read_is_given_up_and_counted_among_the_dead(main, clock, damage):
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 2)
    box = outbox(main, clock, chat)
    for key in "ab":
        box.publish(alert(key))
    damaged(main, "outbox", "b", damage)
    assert box.drain() == 1
    told = obituary(box.dead_letters()[0], ["chat"], str(clock().date()))
    assert told
    assert told.what == "1 alert was given up and did not reach everybody"
    assert "the alert 'b' is damaged and cannot be read" in told.why


@pytest.mark.parametrize("damage", [pytest.param(d, id=name) for name, d in NO_DELIVERIES.items()])
def test_who_asks_for_all_alerts_or_a_damaged_one_learns_which_is_damaged(main, clock, damage):
    box = outbox(main, clock, Recorder("chat", DeliveryError("HTTP 500")))
    box.publish(alert("b"))
    damaged(main, "outbox", "b", damage)
    for question in (box.deliveries, box.waiting, box.undelivered, lambda: box.delivery("b"), lambda: box.retry("b")):
        with pytest.raises(StoreError, match="the alert 'b' is damaged"):
            question()


@pytest.mark.parametrize("damage", EVERY)
def test_a_damaged_message_of_an_incident_holds_up_no_later_one(main, clock, damage):
    chat = Recorder("chat", DeliveryError("HTTP 500"))
    incidents = IncidentDesk(main, outbox(main, clock, chat), clock, Policy())
    incidents.observe(alert("unused", "risk"))
    damaged(main, "outbox", "risk/1/1", damage)
    incidents.recover("risk")
    assert keys(chat) == ["risk/1/2"]


def test_an_alert_that_the_store_will_never_take_over_keeps_no_other_from_being_told_nor_its_incident(
    main, tmp_path, clock
):
    chat = Recorder()
    there = IncidentDesk(main, backed(main, tmp_path / "local.db", clock, chat), clock, Policy())
    main.be(DOWN)
    there.observe(replace(alert("in the outage", "disk"), numbers={"full_pct": 99.5}))
    with sqlite3.connect(tmp_path / "local.db") as db:  # as a version wrote it that did not refuse it
        db.execute("UPDATE state SET body = replace(body, '99.5', 'NaN') WHERE collection = 'outbox'")
    main.be(UP)
    clock.advance(timedelta(minutes=5))
    there.observe(replace(alert("more", "disk"), severity=Severity.CRITICAL))
    for _ in range(2):  # the first time as a possible duplicate, for the store does not know that it was told
        there._outbox.publish_all([alert("in the outage", "disk"), alert("a")])
        assert "NaN is not allowed" in str(there._outbox.store_error)
    clock.advance(timedelta(minutes=16))
    there.tick()
    there.recover("disk")
    assert sorted(keys(chat)) == ["a", "disk/1/1", "disk/1/2", "disk/1/3", "in the outage", "in the outage"]


@pytest.mark.parametrize("damage", EVERY)
def test_a_damaged_end_of_an_incident_keeps_nothing_else_from_being_told(main, clock, damage):
    chat = Recorder("chat", DeliveryError("HTTP 500"), None, DeliveryError("HTTP 500"))
    box = outbox(main, clock, chat)
    there = IncidentDesk(main, box, clock, Policy())
    there.observe(alert("unused", "risk"))
    there.recover("risk")
    box.publish(alert("a"))
    damaged(main, "outbox", "risk/1/2", damage)
    box.drain()
    assert keys(chat)[-1] == "a"


@pytest.mark.parametrize("until", [None, 7, "soon", "2025-03-01T12:00:30"])
def test_a_window_that_is_damaged_begins_anew(main, clock, until):
    chat = Recorder()
    incidents = IncidentDesk(main, outbox(main, clock, chat), clock, Policy())
    incidents.observe(alert("unused", "a"))
    damaged(main, GROUPING, WINDOW, lambda body: {"until": until})
    incidents.observe(alert("unused", "b"))
    assert keys(chat) == ["a/1/1", "b/1/1"]


@pytest.mark.parametrize("until", [None, 7, "soon", "2025-03-01T12:00:30"])
def test_a_rest_that_is_damaged_is_over(main, clock, until):
    chat = Recorder("chat", DeliveryError("HTTP 429", retry_after_s=60.0))
    box = outbox(main, clock, chat)
    box.publish(alert("a"))
    damaged(main, RESTING, "chat", lambda body: {"until": until})
    box.publish(alert("b"))
    assert keys(chat) == ["b"]


@pytest.mark.parametrize("damage", [{}, {"keys": None}, {"keys": 5}])
def test_an_index_that_is_damaged_loses_no_alert(main, clock, damage):
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 2)
    box = outbox(main, clock, chat)
    box.publish(alert("a"))
    box.drain()
    for document in main.list_state(INDEX):
        damaged(main, INDEX, document.key, lambda body: damage)
    box.publish(alert("b"))
    assert (box.drain(), box.waiting()) == (1, 0)
    assert sorted(keys(chat)) == ["a", "b"]


def test_a_damaged_incident_stops_no_other(main, clock):
    chat = Recorder()
    incidents = IncidentDesk(main, outbox(main, clock, chat), clock, Policy())
    for name in "ab":
        incidents.observe(replace(alert("unused", name), severity=Severity.CRITICAL))
    damaged(main, "incidents", "a", lambda body: {name: value for name, value in body.items() if name != "open"})
    clock.advance(timedelta(minutes=15))
    problem = incidents.tick().problem
    assert keys(chat)[2:] == ["b/1/2"]
    assert "the incident 'a' is damaged" in str(problem)


@pytest.mark.parametrize("names", [5, "ab", {"a": 1}, [1, "a"]], ids=str)
def test_a_damaged_message_about_several_names_no_incident_that_it_does_not_hold(main, clock, names):
    box = outbox(main, clock, Recorder())
    several = Alert(Severity.ERROR, "together", "a and b are bad", "", "", numbers={}, step=Step.SEVERAL)
    box.publish(several)
    damaged(
        main, "outbox", "together", lambda body: {**body, "alert": {**body["alert"], "numbers": {"incidents": names}}}
    )
    incidents = IncidentDesk(main, box, clock, Policy())
    with pytest.raises(LookupError, match="no open incident has the key 'together'"):
        incidents.acknowledge("together", "ana")
