"""Do people hear since when something has stopped, and does its end stay known until the audit store has it?"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.notifications.alert import Severity, Step
from trading_ops.notifications.desk import IncidentDesk
from trading_ops.watchdog.heartbeat import Outage
from trading_ops.watchdog.outages import tell
from trading_ops.watchdog.rules import Finding
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore
from trading_ops_tests.notifications.test_outbox import Clock, Recorder, backed

STOPPED = datetime(2025, 3, 1, 11, 57, tzinfo=UTC)  # three minutes before the clock begins
SILENT = Finding("daemon", Severity.CRITICAL, STOPPED, "Dagster's daemon has not ticked", "", "")


class Interrupted(UnreliableStore):
    """Lets something happen right before an incident is written, once."""

    before: Any = None

    def put_state(self, collection: str, *asked: Any, **named: Any) -> Any:
        if collection == "incidents" and (happens := self.before):
            self.before = None
            happens()
        return super().put_state(collection, *asked, **named)


@pytest.fixture
def main(tmp_path: Path) -> Iterator[Interrupted]:
    with Interrupted(tmp_path) as store:
        yield store


class Notes:
    """What the watchdog remembers."""

    def __init__(self) -> None:
        self.open: Mapping[str, Outage] = {}

    def __call__(self, outages: Mapping[str, Outage]) -> None:
        self.open = dict(outages)


def test_the_message_says_since_when_it_has_stopped_also_without_the_store(main, tmp_path):
    for mode in (UP, DOWN):
        main.be(mode)
        chat, clock = Recorder(), Clock()
        desk = IncidentDesk(main, backed(main, tmp_path / f"{mode}.db", clock, chat), clock)
        tell(desk, {}, [SILENT], [], Notes())
        assert [told.since for told, _ in chat.told] == [STOPPED.isoformat()]


def test_its_end_says_how_long_it_had_stopped(main, tmp_path):
    chat, clock, notes = Recorder(), Clock(), Notes()
    desk = IncidentDesk(main, backed(main, tmp_path / "local.db", clock, chat), clock)
    tell(desk, {}, [SILENT], [], notes)
    clock.advance(timedelta(minutes=7))
    tell(desk, notes.open, [], ["daemon"], notes)
    assert "It lasted 10 min, until 2025-03-01 12:07 UTC" in chat.told[-1][0].why


def test_an_outage_told_without_the_store_ends_when_the_store_is_back(main, tmp_path):
    chat, clock, notes = Recorder(), Clock(), Notes()
    desk = IncidentDesk(main, backed(main, tmp_path / "local.db", clock, chat), clock)
    main.be(DOWN)
    tell(desk, {}, [SILENT], [], notes)
    tell(desk, notes.open, [], ["daemon"], notes)
    assert list(notes.open) == ["daemon"]  # nobody could note its end
    main.be(UP)
    tell(desk, notes.open, [], ["daemon"], notes)
    assert notes.open == {}
    assert [told.step for told, _ in chat.told] == [Step.OPENED, Step.RESOLVED]


def test_an_end_that_is_noted_is_forgotten_though_another_thread_had_to_do_without_the_store(main, tmp_path):
    chat, clock, notes = Recorder(), Clock(), Notes()
    desk = IncidentDesk(main, backed(main, tmp_path / "local.db", clock, chat), clock)
    tell(desk, {}, [SILENT], [], notes)

    def other_thread() -> None:
        main.be(DOWN)
        thread = threading.Thread(target=lambda: desk.recover("something else"))
        thread.start()
        thread.join()
        main.be(UP)

    main.before = other_thread
    tell(desk, notes.open, [], ["daemon"], notes)
    assert notes.open == {}
