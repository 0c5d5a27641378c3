"""Does a resume that meets a kill, a silent bot or a step of the guard end as one thing or the other, and say so?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.bot.client import BotError, BotUnreachable
from trading_ops.guard.actions import CONFIRMED, OBSERVED, RESUMING, SENT, WATCHING
from trading_ops.guard.by_hand import preflight, resume
from trading_ops.guard.memory import STRATEGY_ACTIONS, GuardMemory
from trading_ops.guard.switch import Guard, Policy, step
from trading_ops.guard.watch import Watch
from trading_ops.notifications.alert import Alert
from trading_ops_tests.guard.test_switch import Room, resumed_by_ana

STOP_AND_RESUME = [("rsi", False), ("rsi", True)]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    """A room whose rsi is stopped."""
    room = Room(tmp_path)
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert room.action()["state"] == CONFIRMED
    return room


class OtherGuard:
    """A guard in another process: with the same stores, and a memory of its own."""

    def __init__(self, room: Room) -> None:
        self.room, self.told = room, list[Alert]()
        self.memory = GuardMemory(room.store, lambda: SqliteStore(room.folder / "other.db"), room.bot.source)
        self.watch = Watch(room.clock)

    def step(self) -> None:
        step(self.room.bot, self.memory, self.watch, self.room.policy, self.told.append)


def at(room: Room, method: str, action: Callable[[], object]) -> None:
    """Do this once, when the bot is asked for that."""
    waiting = [action]

    def before(asked: str) -> None:
        if asked == method and waiting:
            waiting.pop()()

    room.bot.before = before


def killed() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["enable", "enabled"])
def test_a_resume_whose_process_was_killed_leaves_the_strategy_stopped_and_says_so(room: Room, where: str):
    at(room, where, killed)
    with pytest.raises(KeyboardInterrupt):
        resumed_by_ana(room)
    assert room.action()["state"] == RESUMING
    for _ in range(3):
        room.restart()
        room.step(20)
    assert (room.action()["state"], room.action()["trigger"]["rule"]) == (CONFIRMED, "not_resumed")
    assert not room.bot._states["rsi"].enabled
    assert room.told[-1].what == "rsi was stopped"
    assert "rsi lost 15.00 % today" in room.told[-1].why
    assert "its resume by ana was not completed" in room.told[-1].why
    resumed_by_ana(room)  # once more, by a person
    assert (room.action()["state"], room.bot._states["rsi"].enabled) == (WATCHING, True)
    bodies = [record.body for record in room.store.read(STRATEGY_ACTIONS, all_revisions=True)]
    assert [body["trigger"]["by"] for body in bodies if body["state"] == WATCHING] == ["ana"]


@pytest.mark.parametrize("error", [BotError("503"), BotUnreachable("refused")])
def test_a_resume_that_the_bot_refuses_never_becomes_one_later(room: Room, error: BotError):
    def refuse(method: str) -> None:
        if method in ("enable", "strategies") and "enable" in asked:
            raise error
        if method == "enable":
            asked.append(method)
            raise error

    asked: list[str] = []
    room.bot.before = refuse
    with pytest.raises(BotError, match="rsi was not resumed and stays stopped"):
        resumed_by_ana(room)
    room.bot.before = lambda method: None
    room.bot.switch_elsewhere("rsi", True)  # the request arrives late, or somebody else did it
    for _ in range(3):
        room.restart()
        room.step(20)
    assert room.action()["state"] == CONFIRMED
    assert not room.bot._states["rsi"].enabled


def test_a_resume_that_the_bot_does_not_follow_leaves_the_strategy_stopped(room: Room):
    room.bot.deaf = True
    with pytest.raises(BotError, match="not confirmed to be enabled"):
        resumed_by_ana(room)
    room.restart()
    room.step(20)
    assert (room.action()["state"], room.bot.switched) == (CONFIRMED, [("rsi", False)])
    room.bot.deaf = False
    resumed_by_ana(room)
    assert room.action()["state"] == WATCHING


@pytest.mark.parametrize("where", ["portfolio", "strategies", "enable", "enabled"])
def test_a_step_of_another_process_in_the_middle_of_a_resume_changes_nothing(room: Room, where: str):
    other = OtherGuard(room)
    other.step()
    guard = Guard(room.bot, room.memory, room.watch, room.policy, room.tell)
    seen = preflight(guard, "rsi")
    room.clock.go(20)
    at(room, where, other.step)
    action = resume(guard, "rsi", reason="the feed was wrong", by="ana", seen=seen)
    assert action["state"] == WATCHING
    for _ in range(3):
        room.clock.go(20)
        other.step()
        room.step()
    assert room.action()["state"] == WATCHING
    assert room.bot.switched == STOP_AND_RESUME


@pytest.mark.parametrize("where", ["portfolio", "calendar", "open_orders"])
def test_a_step_that_looked_before_a_resume_does_not_stop_it_again(room: Room, where: str):
    other = OtherGuard(room)
    other.step()
    room.clock.go(20)
    at(room, where, lambda: resumed_by_ana(room))
    other.step()  # in its middle the strategy is resumed elsewhere
    for _ in range(3):
        room.clock.go(20)
        other.step()
    assert (room.action()["state"], room.bot.switched) == (WATCHING, STOP_AND_RESUME)


def test_a_step_that_sees_the_strategy_enabled_before_the_resume_is_noted_does_not_stop_it_again(room: Room):
    other = OtherGuard(room)
    other.step()
    room.clock.go(20)
    enabled, goes_on, asked = threading.Event(), threading.Event(), list[str]()
    resuming = threading.Thread(target=resumed_by_ana, args=[room])

    def before(method: str) -> None:
        if threading.current_thread() is resuming:
            if method == "enabled":
                enabled.set()
                goes_on.wait(300)
        elif method == "portfolio":  # the step has read that rsi is stopped
            resuming.start()
            assert enabled.wait(300)
        elif method == "calendar":  # it has read that rsi is enabled
            asked.append(method)
        elif asked and method == "strategies":  # it goes about stopping it
            goes_on.set()
            resuming.join(60)

    room.bot.before = before
    other.step()
    goes_on.set()
    resuming.join(60)
    assert asked
    assert (room.action()["state"], room.bot.switched) == (WATCHING, STOP_AND_RESUME)


def test_a_try_of_the_stop_that_was_on_its_way_cannot_land_after_a_resume(tmp_path: Path):
    room = Room(tmp_path)
    room.bot.lose("rsi", 1500.0)
    on_its_way, lands, landed = threading.Event(), threading.Event(), threading.Event()

    def slow(method: str) -> None:
        if method == "disable" and not on_its_way.is_set():
            on_its_way.set()
            lands.wait(300)
            landed.set()

    room.bot.before = slow
    guard = Guard(room.bot, room.memory, room.watch, Policy(), room.tell)
    hanging = threading.Thread(target=guard.step)
    hanging.start()
    assert on_its_way.wait(300)
    here = Guard(
        room.bot, GuardMemory(room.store, lambda: room.local, room.bot.source), Watch(room.clock), Policy(), room.tell
    )
    room.clock.go(1)
    action = resume(here, "rsi", reason="the feed was wrong", by="ana", seen=preflight(here, "rsi"))
    assert action["state"] == WATCHING
    lands.set()
    assert landed.wait(300)
    hanging.join(60)
    room.clock.go(20)
    guard.step()
    assert room.action()["state"] == WATCHING
    assert room.bot._states["rsi"].enabled


def test_two_people_resume_once(room: Room):
    others = Guard(
        room.bot, GuardMemory(room.store, lambda: room.local, room.bot.source), Watch(room.clock), Policy(), room.tell
    )
    seen = preflight(others, "rsi")
    at(room, "enable", lambda: resume(others, "rsi", reason="me too", by="bob", seen=seen))
    resumed_by_ana(room)
    assert (room.action()["state"], room.action()["episode"]) == (WATCHING, 2)
    assert room.bot.switched == STOP_AND_RESUME


@pytest.mark.parametrize("where", ["enable", "enabled"])
def test_a_resume_that_takes_too_long_is_over_for_everybody(room: Room, where: str):
    other = OtherGuard(room)
    other.step()

    def meanwhile() -> None:
        room.clock.go(31)
        other.step()

    at(room, where, meanwhile)
    with pytest.raises(BotError, match="rsi was not resumed"):
        resumed_by_ana(room)
    room.step(20)
    assert room.action()["state"] in (SENT, CONFIRMED)
    assert not room.bot._states["rsi"].enabled


def test_a_resume_that_fails_where_the_guard_only_observes_stops_nothing(tmp_path: Path):
    room = Room(tmp_path, policy=Policy(observe_only=True))
    room.bot.lose("rsi", 1500.0)
    room.step()
    guard = Guard(room.bot, room.memory, room.watch, room.policy, room.tell)
    seen = preflight(guard, "rsi")
    room.bot.before = lambda method: (_ for _ in ()).throw(BotUnreachable("refused")) if method == "enable" else None
    with pytest.raises(BotError, match="rsi was not resumed; nothing stops it, as the guard only observes: refused"):
        resume(guard, "rsi", reason="it is fine", by="ana", seen=seen)
    room.bot.before = lambda method: None
    room.step(40)
    assert (room.action()["state"], room.bot.switched) == (OBSERVED, [])
