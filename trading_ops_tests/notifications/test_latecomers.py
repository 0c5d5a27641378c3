"""Is every page closed, and nothing told after its end, when machines hear of each other's messages late?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.desk import IncidentDesk
from trading_ops.notifications.outbox import Outbox
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore
from trading_ops_tests.notifications.test_outbox import Clock, Recorder, backed

BAD = Alert(Severity.CRITICAL, "risk/today", "rsi lost 12 %", "", "", incident="risk")


class Pager(Recorder):
    """A pager as all machines reach it: what is told opens the page of its key, or closes those that it ends."""

    deduplicates = updates = True
    reports = False

    def __init__(self) -> None:
        super().__init__("pager")
        self.open: set[str] = set()
        self.steps: list[Step] = []
        self.away = False

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> None:
        if self.away:
            raise DeliveryError("HTTP 503")
        keys = {alert.opening or alert.dedup_key, *alert.also}
        self.open = self.open - keys if alert.step is Step.RESOLVED else self.open | keys
        self.steps.append(alert.step)


class Machine:
    def __init__(self, main: UnreliableStore, folder: Path, clock: Clock, pager: Pager) -> None:
        self.outbox: Outbox = backed(main, folder, clock, pager)
        self.desk = IncidentDesk(main, self.outbox, clock)

    def tick(self) -> None:
        self.desk.tick()
        self.outbox.drain()


@pytest.fixture
def main(tmp_path: Path) -> Iterator[UnreliableStore]:
    with UnreliableStore(tmp_path) as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pager() -> Pager:
    return Pager()


@pytest.fixture
def machines(main, tmp_path, clock, pager) -> list[Machine]:
    return [Machine(main, tmp_path / f"local{number}.db", clock, pager) for number in range(2)]


def test_what_a_machine_could_not_tell_is_told_no_more_after_the_end(main, clock, pager, machines):
    one, other = machines
    main.be(DOWN)
    pager.away = True
    one.desk.observe(BAD)
    main.be(UP)
    one.desk.observe(BAD)  # the incident knows what it was told by, and that waits on this machine
    pager.away = False
    other.desk.recover("risk")
    clock.advance(timedelta(minutes=2))
    for _ in range(2):
        one.tick()
        other.tick()
    assert (pager.open, pager.steps) == (set(), [Step.RESOLVED])
    assert (one.outbox.waiting(), one.outbox.without_store()) == (0, ([], []))


def test_a_page_that_a_machine_opened_again_without_the_store_is_closed_again(main, clock, pager, machines):
    one, other = machines
    main.be(DOWN)
    one.desk.observe(BAD)
    pager.away = True
    other.desk.observe(BAD)
    main.be(UP)
    one.tick()
    pager.away = False
    clock.advance(timedelta(minutes=5))
    one.desk.recover("risk")
    assert pager.open == set()
    main.be(DOWN)
    clock.advance(timedelta(minutes=5))
    other.tick()  # it cannot know of the end
    assert pager.open == {"risk/today"}
    main.be(UP)
    for _ in range(3):
        clock.advance(timedelta(minutes=1))
        other.tick()
        one.tick()
    assert pager.open == set()
    assert pager.steps == [Step.OPENED, Step.RESOLVED, Step.OPENED, Step.RESOLVED]
    assert one.outbox.waiting() == 0


def test_what_is_wrong_anew_on_the_same_day_is_an_incident_of_its_own_also_from_another_machine(
    main, clock, pager, machines
):
    one, other = machines
    main.be(DOWN)
    one.desk.observe(BAD)
    main.be(UP)
    one.tick()
    one.desk.recover("risk")
    clock.advance(timedelta(hours=2))
    main.be(DOWN)
    other.desk.observe(BAD)
    main.be(UP)
    other.tick()
    assert pager.open == {"risk/today"}
    assert [incident.episode for incident in one.desk.unsettled()] == [2]
    one.desk.recover("risk")
    assert pager.open == set()


def test_the_end_of_what_another_machine_told_is_told_though_the_opening_here_was_held(main, clock, pager, machines):
    one, other = machines
    error = Alert(Severity.ERROR, "risk/today", "rsi lost 9 %", "", "", incident="risk")
    main.be(DOWN)
    one.desk.observe(error)
    main.be(UP)
    clock.advance(timedelta(seconds=5))
    other.desk.observe(Alert(Severity.ERROR, "first/today", "the first", "", "", incident="first"))
    other.desk.observe(error)  # it waits for others for a minute, and is well before that is over
    one.tick()
    clock.advance(timedelta(seconds=5))
    other.desk.recover("risk")
    clock.advance(timedelta(minutes=2))
    other.tick()
    assert pager.open == {"first/1/1"}


def test_an_end_that_was_told_without_the_store_comes_last(main, clock, pager, machines):
    """The store takes the opening and goes away; the page is down; it is the end that is told first."""
    one, other = machines
    pager.away = True
    one.desk.observe(BAD)
    clock.advance(timedelta(minutes=5))
    writes = 0
    while not (opened := one.desk.incident("risk")) or opened.open:  # until the end is written, but not published
        main.writes_left = writes
        other.desk.recover("risk")
        main.writes_left, writes = None, writes + 1
    pager.away = False
    main.be(DOWN)
    other.outbox.publish(opened.unsent[0])
    assert pager.steps == [Step.RESOLVED]
    main.be(UP)
    for _ in range(3):
        clock.advance(timedelta(minutes=1))
        other.tick()
        one.tick()
    assert pager.open == set()
    assert pager.steps == [Step.RESOLVED]
    assert one.outbox.waiting() == 0
