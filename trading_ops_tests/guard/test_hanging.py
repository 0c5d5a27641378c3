"""Whatever hangs or breaks while the guard looks or stops: does all else go on, and do people hear of it in time?"""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trading_ops.bot.client import BotUnreachable
from trading_ops.guard.actions import CONFIRMED, ESCALATED, GONE, REQUESTED
from trading_ops.guard.memory import GuardMemory
from trading_ops.guard.switch import Guard
from trading_ops.guard.watch import Watch
from trading_ops_tests.conftest import ROOT
from trading_ops_tests.guard.bots import TradingBot
from trading_ops_tests.guard.test_switch import Room

BLIND = "The guard is blind: the bot cannot be read"


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What hangs in a test goes on at its end."""
    event = threading.Event()
    yield event
    event.set()


def guard_of(room: Room) -> Guard:
    return Guard(room.bot, room.memory, room.watch, room.policy, room.tell)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def breaks(method: str) -> None:
    if method == "portfolio":
        raise KeyError("equity_usdt")


def test_stops_are_driven_on_whatever_breaks_the_look_and_people_are_told(room: Room):
    room.bot.before = lambda method: (_ for _ in ()).throw(BotUnreachable("refused")) if method == "disable" else None
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert room.action()["state"] == REQUESTED
    room.bot.before = breaks
    seen = room.step()
    assert room.action()["state"] == CONFIRMED
    assert (seen.risk, seen.problem) == (None, "what the bot answers cannot be judged (KeyError)")
    assert room.says() == ["rsi is being stopped", "rsi was stopped", BLIND]
    room.bot.before = lambda method: None
    assert room.step().problem is None
    assert [alert.incident for alert in room.over].count("guard/unreadable") == 2  # before, and now


def test_a_try_that_breaks_is_made_again_and_holds_up_no_other(room: Room):
    for name in room.bot.names:
        room.bot.lose(name, 1500.0)
    broken = iter([ValueError("an odd answer")])

    def falter(method: str) -> None:
        if method == "disable" and (error := next(broken, None)):
            raise error

    room.bot.before = falter
    room.step()
    assert sorted(room.action(name)["state"] for name in room.bot.names) == [CONFIRMED, REQUESTED]
    room.step()
    assert [room.action(name)["state"] for name in room.bot.names] == [CONFIRMED, CONFIRMED]


def test_a_stop_that_hangs_delays_neither_another_stop_nor_the_next_step_and_is_escalated(
    room: Room, released: threading.Event
):
    for name in room.bot.names:
        room.bot.lose(name, 1500.0)
    hanging: list[str] = []

    def hang(method: str) -> None:
        if method == "disable" and not hanging:
            hanging.append(threading.current_thread().name)
            released.wait(300)

    room.bot.before = hang
    guard = guard_of(room)
    guard.step()
    states = {name: room.action(name)["state"] for name in room.bot.names}
    assert sorted(states.values()) == [CONFIRMED, REQUESTED]
    (slow,) = [name for name, state in states.items() if state == REQUESTED]
    asked: list[str] = []
    room.bot.before = asked.append
    room.clock.go(31)
    seen = guard.step()
    assert seen.risk is not None
    assert "disable" not in asked  # one try at a time
    assert room.action(slow)["state"] == ESCALATED
    assert f"{slow} could not be stopped" in room.says()
    assert "the bot has not answered yet" in room.told[-1].done
    released.set()
    until(lambda: room.action(slow)["state"] == CONFIRMED)
    guard.step()
    assert f"{slow} was stopped" in room.says()


def test_a_try_that_hangs_too_long_is_left_behind_for_another_one(
    room: Room, released: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("trading_ops.guard.pursuits.PATIENCE_S", 0.1)
    monkeypatch.setattr("trading_ops.guard.pursuits.HANGS_S", 0.1)
    room.bot.lose("rsi", 1500.0)
    hangs = iter([True])
    room.bot.before = lambda method: released.wait(300) if method == "disable" and next(hangs, False) else None
    guard = guard_of(room)
    guard.step()
    assert room.action()["state"] == REQUESTED
    until(lambda: guard.step() and room.action()["state"] == CONFIRMED)
    assert room.bot.switched == [("rsi", False)]


def test_a_process_ends_although_a_stop_and_a_look_hang(tmp_path: Path):
    script = """
import sys, threading
from pathlib import Path
from trading_ops_tests.guard.test_switch import Room
from trading_ops.guard import pursuits
from trading_ops_tests.guard.test_hanging import guard_of
pursuits.PATIENCE_S = 0.1
room = Room(Path(sys.argv[1]))
room.bot.lose("rsi", 1500.0)
room.bot.before = lambda method: threading.Event().wait() if method == "disable" else None
guard = guard_of(room)
guard.step()
room.bot.before = lambda method: threading.Event().wait()
print(guard.step(0.1).problem)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "the bot has not answered since 12:00:00 UTC\n"), done.stderr


def test_a_bot_that_never_answers_is_told_a_minute_after_the_last_good_look(room: Room, released: threading.Event):
    guard = guard_of(room)
    guard.step()
    room.bot.before = lambda method: released.wait(300)
    room.clock.go(1)
    for _ in range(6):
        assert room.says() == []
        guard.step(0.01)
        room.clock.go(10)
    guard.step(0.01)
    assert room.says() == [BLIND]
    assert room.told[-1].since == "2025-03-10T12:00:01+00:00"
    assert room.told[-1].why == "the bot has not answered since 12:00:01 UTC"


def test_a_bot_whose_answers_fail_late_is_blind_from_the_beginning_of_the_first(room: Room):
    def timeout(method: str) -> None:
        room.clock.go(30)
        raise BotUnreachable("no whole answer within 10 s (3 attempts)")

    room.step()
    room.bot.before = timeout
    room.step()
    assert room.says() == []
    room.step()
    assert room.says() == [BLIND]


def test_a_look_that_ended_between_two_steps_is_not_given_out_as_new(room: Room, released: threading.Event):
    guard, hung = guard_of(room), []

    def hang(method: str) -> None:
        if method == "calendar":
            hung.append(method)
            released.wait(300)

    room.bot.before = hang
    assert guard.step(0.01).risk is None
    until(lambda: hung)
    released.set()
    until(lambda: guard._look is not None and guard._look.done())
    room.clock.go(300)
    seen = guard.step()
    assert seen.risk is not None
    assert seen.risk["as_of"] == room.clock().isoformat()


def test_a_look_that_takes_longer_than_each_step_waits_is_the_next_ones(room: Room, released: threading.Event):
    guard, hung = guard_of(room), []

    def hang(method: str) -> None:
        if method == "calendar":
            hung.append(method)
            released.wait(300)

    room.bot.lose("rsi", 900.0)
    room.bot.before = hang
    assert guard.step(0.01).risk is None
    until(lambda: hung)
    released.set()
    until(lambda: guard._look is not None and guard._look.done())
    room.bot.before = lambda method: released.clear() or released.wait(300) if method == "portfolio" else None
    seen = guard.step(0.01)
    assert seen.risk is not None
    assert [alert.what for alert in room.told] == ["rsi comes near a limit: lost 9.00 % today, the limit is 10 %"]
    released.set()


def test_two_threads_take_their_steps_one_after_the_other(room: Room):
    inside: list[int] = []
    most: list[int] = []

    def count(method: str) -> None:
        if method == "portfolio":
            inside.append(1)
            time.sleep(0.01)
            most.append(len(inside))
            inside.pop()

    room.bot.before = count
    guard = guard_of(room)
    threads = [threading.Thread(target=guard.step) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(most) >= 8
    assert set(most) == {1}


def test_the_watcher_says_that_it_is_blind_while_the_bot_accepts_and_never_answers(tmp_path: Path):
    """Over a real socket, with the clock of the guard going faster."""
    from trading_ops.bot.http import HttpBot

    room = Room(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bot = HttpBot(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=5.0)
        memory = GuardMemory(room.store, lambda: room.local, bot.source)
        guard = Guard(bot, memory, Watch(room.clock), room.policy, room.tell)
        guard.step(0.1)
        room.clock.go(59)
        guard.step(0.1)
        assert room.says() == []
        room.clock.go(2)
        guard.step(0.1)
    assert room.says() == [BLIND]


def leaves(bot: TradingBot, name: str) -> Callable[[], None]:
    """The bot loses a strategy; gives back what brings it back."""
    state = bot._states.pop(name)

    def back() -> None:
        bot._states[name] = state

    return back


def test_a_strategy_that_the_bot_no_longer_has_is_told_once_and_closed(room: Room):
    room.bot.lose("rsi", 1500.0)
    room.bot.before = lambda method: (_ for _ in ()).throw(BotUnreachable("refused")) if method == "disable" else None
    room.step()
    room.bot.before = lambda method: None
    back = leaves(room.bot, "rsi")
    room.step()
    asked: list[str] = []
    for _ in range(5):
        room.step(20)
        room.restart()
    assert (room.action()["state"], room.action()["why"]) == (GONE, "the bot does not list rsi")
    room.bot.before = asked.append
    room.step()
    room.step()
    assert not {"disable", "open_orders"} & set(asked)  # nothing is tried any more
    assert [alert.what for alert in {alert.dedup_key: alert for alert in room.told}.values()] == [
        "rsi is being stopped",
        "rsi is not at the bot any more",
    ]
    back()
    room.step(20)
    assert (room.action()["state"], room.bot.switched) == (CONFIRMED, [("rsi", False)])
    assert "rsi is at the bot again" in room.action()["trigger"]["why"]


def test_a_strategy_that_one_list_leaves_out_is_not_gone(room: Room):
    room.bot.deaf = True
    room.bot.lose("rsi", 1500.0)
    room.step()
    room.step(40)
    assert room.action()["state"] == ESCALATED
    back = leaves(room.bot, "rsi")
    room.step()
    assert room.action()["state"] == ESCALATED
    back()
    room.bot.deaf = False
    room.step()
    assert room.action()["state"] == CONFIRMED


def test_an_empty_list_of_a_bot_that_starts_closes_no_stop(room: Room):
    room.bot.lose("rsi", 1500.0)
    room.step()
    room.bot.switch_elsewhere("rsi", True)
    backs = []

    def starts(method: str) -> None:
        if method == "strategies" and not backs and room.action()["state"] != CONFIRMED:
            backs.extend(leaves(room.bot, name) for name in room.bot.names)

    room.bot.before = starts
    room.step(20)  # it looks, asks again in order to stop, and the list is empty
    room.step(40)
    assert room.action()["state"] == ESCALATED
    for back in backs:
        back()
    room.step()
    assert room.action()["state"] == CONFIRMED
