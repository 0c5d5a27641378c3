"""Does the guard look and stop on while a channel hangs, and is all that it has to say sent in the end?"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trading_ops.audit.late import late
from trading_ops.audit.store import AuditStore, StoreUnavailable
from trading_ops.bot.server import create_app
from trading_ops.guard.switch import Guard
from trading_ops.guard.teller import HANDS, Teller
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.desk import IncidentDesk, Outcome
from trading_ops.notifications.incident import Policy
from trading_ops.notifications.outbox import Outbox
from trading_ops_tests.guard.bots import TradingBot
from trading_ops_tests.guard.test_hanging import until
from trading_ops_tests.guard.test_supervision import Home
from trading_ops_tests.guard.test_switch import Room
from trading_ops_tests.servers.bot import serving
from trading_ops_tests.servers.vendors import Answer, VendorServer, webhook
from trading_ops_tests.test_cli import new_home

LONG_S = 60.0
SOON = """
from functools import partial
from trading_ops.cli.main import app
from trading_ops.guard import teller
from trading_ops.notifications import outbox
teller.Teller = partial(teller.Teller, every_s=0.5)
outbox.Backoff = partial(outbox.Backoff, first_s=0.5)
app()
"""
ONE_BY_ONE = Policy(group_within=timedelta(0))


class Channel:
    """`before` is called with each message, and may hang or raise."""

    name, target = "chat", "a room"
    deduplicates = updates = False
    reports = True

    def __init__(self, before: Callable[[Alert], object] = lambda alert: None) -> None:
        self.before, self.got = before, list[str]()

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> None:
        self.before(alert)
        self.got.append(f"over: {alert.incident}" if alert.step is Step.RESOLVED else alert.what)


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def message(name: str) -> Alert:
    return Alert(Severity.CRITICAL, f"guard/{name}/first", name, "", "Look.", incident=f"guard/{name}")


def teller_of(room: Room, policy: Policy = ONE_BY_ONE, **channels: Channel) -> Teller:
    """It looks at what failed and what is due whenever it is tended."""
    outbox = Outbox(room.store, channels, room.clock, sends=False)
    return Teller(IncidentDesk(room.store, outbox, room.clock, policy), outbox, every_s=0.0)


def guard_of(room: Room, teller: Teller) -> Guard:
    return Guard(room.bot, room.memory, room.watch, room.policy, teller.tell)


def waiting_of(room: Room) -> int:
    return Outbox(room.store, {}).waiting()


def test_a_step_waits_for_no_channel_and_while_one_hangs_the_others_tell(room: Room, released: threading.Event):
    came_back = threading.Event()

    def hang(alert: Alert) -> None:
        released.wait(LONG_S)
        came_back.set()

    hanging, quick = Channel(hang), Channel()
    teller = teller_of(room, hanging=hanging, quick=quick)
    guard = guard_of(room, teller)
    for name in room.bot.names:
        room.bot.lose(name, 1500.0)
        guard.step()
        assert room.bot.switched[-1] == (name, False)
        until(lambda name=name: f"{name} was stopped" in quick.got)
        assert not came_back.is_set()
    assert hanging.got == []
    released.set()
    assert teller.finish(LONG_S)
    assert sorted(hanging.got) == sorted(quick.got) == ["macd was stopped", "rsi was stopped"]


def test_more_messages_than_hands_are_all_sent_in_the_end_and_each_once(room: Room, released: threading.Event):
    channel = Channel(lambda alert: released.wait(LONG_S))
    teller = teller_of(room, chat=channel)
    names = [f"s{number}" for number in range(HANDS + 3)]
    for name in names:
        teller.tell(message(name))
    assert not teller.finish(0.0)
    released.set()
    assert teller.finish(LONG_S)
    assert sorted(channel.got) == names
    assert waiting_of(room) == 0


def test_what_is_told_of_a_stop_keeps_its_order_on_a_slow_channel(room: Room, released: threading.Event):
    channel = Channel(lambda alert: released.wait(LONG_S))
    teller = teller_of(room, chat=channel)
    guard = guard_of(room, teller)
    room.bot.deaf = True
    room.bot.lose("rsi", 1500.0)
    guard.step()
    room.bot.deaf = False
    guard.step()
    assert channel.got == []
    released.set()
    assert teller.finish(LONG_S)
    assert channel.got == ["rsi is being stopped", "More: rsi was stopped"]


def test_a_guard_that_is_alone_sends_again_what_failed_and_tells_what_was_held_to_be_told_together(room: Room):
    fails = iter([DeliveryError("HTTP 503")])

    def falter(alert: Alert) -> None:
        if error := next(fails, None):
            raise error

    channel = Channel(falter)
    teller = teller_of(room, Policy(), chat=channel)
    guard = guard_of(room, teller)
    guard.step()
    room.bot.lose("rsi", 1500.0)
    room.bot.lose("macd", 850.0)
    guard.step()
    assert teller.finish(LONG_S)
    assert channel.got == []  # the stop was refused, and the warning waits for what else begins
    room.clock.go(120)
    guard.step()
    teller.tend()
    assert teller.finish(LONG_S)
    assert sorted(channel.got) == [
        "macd comes near a limit: lost 8.50 % today, the limit is 10 %",
        "rsi was stopped",
    ]


def test_what_breaks_the_sending_keeps_nothing_that_comes_later_from_being_sent(room: Room):
    class Breaks(Outbox):
        broken = True

        def drain(self, within_s: float = 25.0, *, only: str | None = None) -> int:
            if self.broken:
                raise ZeroDivisionError
            return super().drain(within_s, only=only)

    channel = Channel()
    outbox = Breaks(room.store, {"chat": channel}, room.clock, sends=False)
    teller = Teller(IncidentDesk(room.store, outbox, room.clock, ONE_BY_ONE), outbox)
    teller.tell(message("rsi"))
    assert teller.finish(LONG_S)
    assert channel.got == []
    outbox.broken = False
    teller.tell(message("macd"))
    assert teller.finish(LONG_S)
    assert sorted(channel.got) == ["macd", "rsi"]


def test_where_no_thread_can_be_begun_it_is_written_and_sent_once_one_can(room: Room):
    channel = Channel()
    teller = teller_of(room, chat=channel)
    names = [f"s{number}" for number in range(HANDS + 1)]
    before = threading.stack_size(1 << 47)  # more than a process can have
    try:
        for name in names:
            teller.tell(message(name))
    finally:
        threading.stack_size(before)
    assert teller.finish(0.0)
    assert (channel.got, waiting_of(room)) == ([], len(names))
    teller.tend()
    assert teller.finish(LONG_S)
    assert sorted(channel.got) == names


def test_however_many_messages_hang_on_one_channel_the_others_get_the_next(room: Room, released: threading.Event):
    hanging, quick = Channel(lambda alert: released.wait(2 * LONG_S)), Channel()
    channels = {"hanging": hanging, "quick": quick}
    outbox = Outbox(room.store, channels, room.clock, sends=False, send_timeout_s=2 * LONG_S)
    teller = Teller(IncidentDesk(room.store, outbox, room.clock, ONE_BY_ONE), outbox)
    names = [f"s{number}" for number in range(HANDS + 2)]
    for name in names:
        teller.tell(message(name))
        until(lambda name=name: name in quick.got)
    assert hanging.got == []
    released.set()
    assert teller.finish(LONG_S)
    assert sorted(hanging.got) == sorted(quick.got) == names


def test_incidents_that_cannot_be_looked_at_keep_nothing_from_being_sent_again(room: Room):
    class Breaks(IncidentDesk):
        def tick(self) -> Outcome:
            raise ZeroDivisionError

    fails = iter([DeliveryError("HTTP 503")])

    def falter(alert: Alert) -> None:
        if error := next(fails, None):
            raise error

    channel = Channel(falter)
    outbox = Outbox(room.store, {"chat": channel}, room.clock, sends=False)
    teller = Teller(Breaks(room.store, outbox, room.clock, ONE_BY_ONE), outbox, every_s=0.0)
    teller.tell(message("rsi"))
    assert teller.finish(LONG_S)
    assert channel.got == []
    room.clock.go(120)
    teller.tend()
    assert teller.finish(LONG_S)
    assert channel.got == ["rsi"]


def test_what_is_told_without_the_audit_store_is_sent_too(room: Room):
    def away() -> AuditStore:
        raise StoreUnavailable("the store is away")

    channel, there = Channel(), late(away)
    outbox = Outbox(there, {"chat": channel}, room.clock, fallback=lambda: room.local, sends=False)
    teller = Teller(IncidentDesk(there, outbox, room.clock), outbox)
    teller.tell(message("rsi"))
    assert teller.finish(LONG_S)
    assert channel.got == ["rsi"]


def test_the_watcher_alone_sends_again_what_a_channel_refused(tmp_path: Path):
    bot = TradingBot(lambda: datetime.now(UTC))
    with serving(create_app(bot)) as url, VendorServer(webhook) as people:
        home = Home(new_home(tmp_path), url, people)
        people.faults.append(Answer(503, told=False))
        bot.lose("rsi", 1500.0)
        with home.running([sys.executable, "-c", SOON, *home.guard[1:]]):
            home.until(lambda: "rsi was stopped" in [asked.document["what"] for asked in people.taken])
        assert bot.switched == [("rsi", False)]
        assert len(people.asked) >= 2
