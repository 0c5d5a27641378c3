"""Does each channel hear of an incident in its order, whatever fails in between?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from pathlib import Path

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.backoff import Backoff
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.desk import IncidentDesk
from trading_ops.notifications.incident import Policy
from trading_ops.notifications.outbox import Outbox
from trading_ops.notifications.routes import QuietHours, Routes
from trading_ops.notifications.sending import CLAIM
from trading_ops.notifications.waiting import Waiting
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore
from trading_ops_tests.notifications.test_outbox import Clock, Recorder, backed

STEADY = Backoff(random=lambda: 1.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "audit.db") as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


def alert(severity: Severity = Severity.ERROR) -> Alert:
    return Alert(severity, "risk/first", "risk is bad", "", "", incident="risk")


def desk(
    store: SqliteStore, clock: Callable[[], datetime], *channels: Recorder, routes: Routes | None = None
) -> tuple[IncidentDesk, Outbox]:
    box = Outbox(store, {channel.name: channel for channel in channels}, clock, backoff=STEADY, routes=routes)
    return IncidentDesk(store, box, clock, Policy()), box


def steps(chat: Recorder) -> list[str]:
    return [str(told.step) for told, _ in chat.told]


def test_the_end_waits_until_the_beginning_was_told(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 503"), DeliveryError("HTTP 503"))
    incidents, box = desk(store, clock, chat)
    incidents.observe(alert())
    clock.advance(timedelta(seconds=5))
    incidents.recover("risk")
    assert (chat.tries, steps(chat)) == (1, [])  # the beginning is not due, so the end is not tried
    clock.advance(timedelta(minutes=1))
    assert (box.drain(), steps(chat)) == (0, [])
    clock.advance(timedelta(minutes=1))
    assert (box.drain(), steps(chat)) == (2, ["opened", "resolved"])


def test_the_end_brings_a_beginning_that_is_due_with_it(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 503"))
    incidents, _ = desk(store, clock, chat)
    incidents.observe(alert())
    clock.advance(timedelta(minutes=1))
    incidents.recover("risk")
    assert steps(chat) == ["opened", "resolved"]


def test_the_end_waits_for_a_beginning_that_a_killed_process_may_have_told(store, clock):
    chat = Recorder()
    incidents, box = desk(store, clock, chat)
    incidents.observe(alert())
    document = store.get_state("outbox", "risk/1/1")
    assert document
    delivery = {**document.body["channels"]["chat"], "state": "sending", "at": clock().isoformat()}
    store.put_state(
        "outbox", "risk/1/1", {**document.body, "channels": {"chat": delivery}}, expected_version=document.version
    )
    Waiting(store).add("risk/1/1")
    chat.told.clear()
    clock.advance(CLAIM / 2)
    incidents.recover("risk")
    assert steps(chat) == []
    clock.advance(CLAIM)
    assert (box.drain(), steps(chat)) == (2, ["opened", "resolved"])


def test_a_channel_where_the_beginning_was_given_up_hears_of_the_end(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 400", permanent=True))
    incidents, _ = desk(store, clock, chat)
    incidents.observe(alert())
    incidents.recover("risk")
    assert steps(chat) == ["resolved"]


def test_a_channel_that_heard_of_the_beginning_waits_for_no_other(store, clock):
    chat, page = Recorder("chat"), Recorder("page", DeliveryError("HTTP 503"))
    incidents, _ = desk(store, clock, chat, page)
    incidents.observe(alert())
    clock.advance(timedelta(seconds=5))
    incidents.recover("risk")
    assert (steps(chat), steps(page)) == (["opened", "resolved"], [])


def test_an_update_that_no_channel_has_shown_is_not_shown_after_what_is_newer(store, clock):
    chat = Recorder("chat")
    chat.updates = True
    incidents, box = desk(store, clock, chat)
    incidents.observe(alert())
    clock.advance(timedelta(minutes=61))
    chat._errors = [DeliveryError("HTTP 503")]
    incidents.observe(replace(alert(), why="12 %, above 10 %"))
    clock.advance(timedelta(seconds=5))
    incidents.recover("risk")
    clock.advance(timedelta(minutes=3))
    assert (box.drain(), box.waiting(), steps(chat)) == (0, 0, ["opened", "resolved"])
    assert box.delivery("risk/1/2")["channels"]["chat"]["superseded_by"] == "risk/1/3"


def test_what_is_urgent_ends_the_night_for_what_came_before_it(store, clock):
    clock.time = datetime(2025, 3, 10, 23, tzinfo=UTC)
    chat = Recorder("chat")
    incidents, _ = desk(store, clock, chat, routes=Routes(quiet_hours=QuietHours(time(22), time(7))))
    incidents.observe(alert(Severity.INFO), {"x": Severity.INFO})
    assert steps(chat) == []
    clock.advance(timedelta(minutes=30))
    incidents.observe(alert(Severity.ERROR), {"x": Severity.ERROR})
    assert steps(chat) == ["opened", "reminded"]


def test_what_is_quiet_itself_waits_for_the_night_in_its_order(store, clock):
    clock.time = datetime(2025, 3, 10, 23, tzinfo=UTC)
    chat = Recorder("chat")
    incidents, box = desk(store, clock, chat, routes=Routes(quiet_hours=QuietHours(time(22), time(7))))
    incidents.observe(alert(Severity.INFO))
    clock.advance(timedelta(minutes=30))
    incidents.recover("risk")
    assert (box.drain(), steps(chat)) == (0, [])
    clock.advance(timedelta(hours=9))
    assert (box.drain(), steps(chat)) == (2, ["opened", "resolved"])


def test_a_clock_that_was_set_back_between_two_messages_stops_neither(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 503"))
    incidents, box = desk(store, clock, chat)
    incidents.observe(alert())
    clock.advance(timedelta(days=-1))
    incidents.recover("risk")  # the pause of the first was that of a wrong clock
    assert box.waiting() == 0
    assert steps(chat) == ["opened", "resolved"]


def test_who_replays_the_end_gets_the_beginning_first(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 503"))
    incidents, box = desk(store, clock, chat)
    incidents.observe(alert())
    incidents.recover("risk")
    box.retry("risk/1/2")
    assert steps(chat) == ["opened", "resolved"]


def test_a_beginning_that_was_not_told_in_an_outage_is_told_before_the_end(clock, tmp_path):
    with UnreliableStore(tmp_path) as main:
        main.be(DOWN)
        chat = Recorder("chat", DeliveryError("HTTP 500"), DeliveryError("HTTP 500"))
        box = backed(main, tmp_path / "local.db", clock, chat)
        incidents = IncidentDesk(main, box, clock, Policy())
        incidents.observe(alert())
        main.be(UP)
        clock.advance(timedelta(seconds=5))
        incidents.recover("risk")
        assert steps(chat) == []
        box.drain()
        assert steps(chat) == ["opened", "resolved"]


def urgent(what: str = "risk is bad") -> Alert:
    return replace(alert(Severity.CRITICAL), what=what)


def rise(incidents: IncidentDesk) -> None:
    """Less urgent than before is what the incident was seen as; now it is CRITICAL."""
    incidents.observe(urgent(), {"x": Severity.CRITICAL})


def test_what_is_more_urgent_makes_a_message_that_pauses_be_tried_at_once(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 503"))
    incidents, _ = desk(store, clock, chat)
    incidents.observe(alert(Severity.WARNING), {"x": Severity.WARNING})
    incidents.observe(alert(Severity.ERROR), {"x": Severity.ERROR})
    assert steps(chat) == ["opened", "reminded"]


def test_a_critical_goes_ahead_of_what_failed_once_more_and_waits_for_no_pause_of_it(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 500"), DeliveryError("HTTP 500"))
    incidents, box = desk(store, clock, chat)
    incidents.observe(alert(Severity.WARNING), {"x": Severity.WARNING})
    clock.advance(timedelta(seconds=1))
    rise(incidents)
    assert [(told.level, told.step) for told, _ in chat.told] == [(Severity.CRITICAL, "reminded")]
    clock.advance(timedelta(minutes=1))
    assert (box.drain(), steps(chat)) == (1, ["reminded", "opened"])


def test_a_critical_waits_neither_for_what_waits_behind_what_failed(store, clock):
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 3)
    incidents, _ = desk(store, clock, chat)
    for severity in (Severity.INFO, Severity.WARNING):
        incidents.observe(alert(severity), {"x": severity})
        clock.advance(timedelta(seconds=1))
    assert chat.tries == 2  # the second message was not tried: the first failed again
    rise(incidents)
    assert [told.level for told, _ in chat.told] == [Severity.CRITICAL]


def test_a_critical_is_held_by_what_is_being_sent_at_this_moment(store, clock):
    late: list[str] = []

    def meanwhile() -> None:
        other, _ = desk(store, clock, chat)
        rise(other)
        late.extend(steps(chat))

    chat = Recorder("chat", during=meanwhile)
    incidents, box = desk(store, clock, chat)
    incidents.observe(alert(Severity.WARNING), {"x": Severity.WARNING})
    assert (late, steps(chat)) == ([], ["opened"])
    assert (box.drain(), steps(chat)) == (1, ["opened", "reminded"])


def test_the_end_of_what_was_critical_waits_for_its_beginning_all_the_same(store, clock):
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 2)
    incidents, box = desk(store, clock, chat)
    incidents.observe(urgent())
    incidents.recover("risk")
    assert (chat.tries, steps(chat)) == (1, [])
    clock.advance(timedelta(minutes=1))
    assert (box.drain(), steps(chat)) == (0, [])
    clock.advance(timedelta(minutes=1))
    assert (box.drain(), steps(chat)) == (2, ["opened", "resolved"])


def test_a_critical_goes_ahead_also_after_it_failed_in_an_outage(clock, tmp_path):
    with UnreliableStore(tmp_path) as main:
        local = tmp_path / "local.db"
        chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 3)
        box = Outbox(
            main,
            {"chat": chat},
            clock,
            backoff=STEADY,
            fallback=lambda: SqliteStore(local),
            fallback_exists=local.exists,
        )
        page = replace(urgent(), dedup_key="risk/second", step=Step.REMINDED)
        box.publish(alert(Severity.WARNING))
        box.publish_all([page], within_s=0.0)
        main.be(DOWN)
        box.publish(page)
        main.be(UP)
        clock.advance(timedelta(seconds=20))  # its pause is over; the first message is tried before it and fails again
        assert (box.drain(), chat.tries, steps(chat)) == (1, 4, ["reminded"])


def test_a_page_that_an_outage_opened_under_a_key_of_its_own_is_told_before_its_end(clock, tmp_path):
    """Else PagerDuty would open a page after it was told the end, and it would never close."""
    with UnreliableStore(tmp_path) as main:
        page = Recorder("page")
        box = backed(main, tmp_path / "local.db", clock, page)
        incidents = IncidentDesk(main, box, clock, Policy())
        incidents.observe(alert())
        main.be(DOWN)
        clock.advance(timedelta(minutes=5))
        page._errors = [DeliveryError("HTTP 503")]
        incidents.observe(replace(urgent(), dedup_key="risk-in-the-outage"))
        main.be(UP)
        incidents.recover("risk")
        assert [told.dedup_key for told, _ in page.told] == ["risk/1/1", "risk-in-the-outage", "risk/1/2"]
        assert page.told[-1][0].also == ("risk-in-the-outage",)


# sent again by hand

REFUSED = DeliveryError("HTTP 401", permanent=True)


def test_a_beginning_that_died_is_not_sent_again_where_the_end_was_told(store, clock):
    chat, mail = Recorder("chat", REFUSED), Recorder("mail", REFUSED, REFUSED)
    incidents, box = desk(store, clock, chat, mail)
    incidents.observe(alert())
    incidents.recover("risk")
    assert (steps(chat), steps(mail)) == (["resolved"], [])
    assert {d["alert"]["dedup_key"] for d in box.retry()} == {"risk/1/1", "risk/1/2"}
    assert (steps(chat), steps(mail)) == (["resolved"], ["opened", "resolved"])
    channels = box.delivery("risk/1/1")["channels"]
    assert (channels["chat"]["superseded_by"], "superseded_by" in channels["mail"]) == ("risk/1/2", False)
    assert (box.dead(), box.waiting()) == (0, 0)


def test_a_beginning_that_fails_again_by_hand_is_not_told_after_an_end_that_did_not(store, clock):
    chat = Recorder("chat", REFUSED, REFUSED, DeliveryError("HTTP 503"))
    incidents, box = desk(store, clock, chat)
    incidents.observe(alert())
    incidents.recover("risk")
    box.retry()
    assert steps(chat) == ["resolved"]
    clock.advance(timedelta(minutes=1))
    assert (box.drain(), steps(chat), box.waiting()) == (1, ["resolved"], 0)


@pytest.mark.parametrize("which", [None, "risk/1/1"])
def test_only_the_episode_that_is_over_is_not_told_again(store, clock, which):
    chat = Recorder("chat", REFUSED, None, REFUSED)
    incidents, box = desk(store, clock, chat)
    incidents.observe(alert())
    incidents.recover("risk")
    clock.advance(timedelta(hours=2))
    incidents.observe(alert())
    box.retry(which)
    assert [told.dedup_key for told, _ in chat.told] == ["risk/1/2", *([] if which else ["risk/2/1"])]
    assert box.dead() == (1 if which else 0)


def test_a_page_that_died_in_an_outage_is_not_sent_again_after_its_end(clock, tmp_path):
    with UnreliableStore(tmp_path) as main:
        page = Recorder("page")
        box = backed(main, tmp_path / "local.db", clock, page)
        incidents = IncidentDesk(main, box, clock, Policy())
        incidents.observe(alert())
        main.be(DOWN)
        clock.advance(timedelta(minutes=5))
        page._errors = [REFUSED]
        incidents.observe(replace(urgent(), dedup_key="risk-in-the-outage"))
        main.be(UP)
        incidents.recover("risk")
        box.retry()
        assert steps(page) == ["opened", "resolved"]
        assert box.delivery("risk-in-the-outage")["channels"]["page"]["superseded_by"] == "risk/1/2"
