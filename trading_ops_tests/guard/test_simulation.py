"""Whatever happens to the guard, the bot and the stores, in whatever order: is the guard's promise kept?

A simulated clock, two guards, a bot that loses and trades on, answers that get lost, stores that come and go, restarts
at any call. Each seed is a history; a seed that fails fails again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.audit.store import AuditStore, Conflict, Receipt, StateDocument, StoreUnavailable
from trading_ops.bot.client import BotError, BotUnreachable
from trading_ops.guard.actions import CONFIRMED, RESUMING, STOPPED, WATCHING, Action
from trading_ops.guard.by_hand import NotResumed, preflight, resume
from trading_ops.guard.memory import GuardMemory
from trading_ops.guard.switch import Guard, Policy
from trading_ops.guard.watch import Watch
from trading_ops.notifications.alert import Alert
from trading_ops_tests.guard.bots import EQUITY, Clock, TradingBot

STRATEGY = "rsi"


class Killed(BaseException):
    """The process is gone: nothing of ours may catch this."""


class MemoryStore:
    """State and history of an audit store, in memory; `before` may raise."""

    def __init__(self, before: Any) -> None:
        self.before = before
        self.state: dict[tuple[str, str], StateDocument] = {}
        self.history: dict[tuple[str, str, str], list[Any]] = {}

    def get_state(self, collection: str, key: str) -> StateDocument | None:
        self.before("get_state")
        return self.state.get((collection, key))

    def list_state(self, collection: str, prefix: str = "") -> list[StateDocument]:
        self.before("list_state")
        return [d for (c, key), d in sorted(self.state.items()) if c == collection and key.startswith(prefix)]

    def put_state(self, collection: str, key: str, body: Any, *, expected_version: int) -> StateDocument:
        self.before("put_state")
        known = self.state.get((collection, key))
        if (known.version if known else 0) != expected_version:
            raise Conflict(key)
        document = StateDocument(collection, key, expected_version + 1, dict(body), START())
        self.state[collection, key] = document
        self.before("stored")
        return document

    def append(self, collection: str, entries: Any, *, recorded_at: Any = None) -> list[Receipt]:
        self.before("append")
        for entry in entries:
            bodies = self.history.setdefault((collection, entry.partition, entry.key), [])
            if entry.body not in bodies:
                bodies.append(dict(entry.body))
        self.before("stored")
        return []

    def read(self, collection: str, **_: Any) -> list[Any]:
        self.before("read")
        return []


START = Clock()


class World:
    """One seed's history."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.resume_dies_at: str | None = None
        self.resume_meets_a_step_at: str | None = None
        self.bot = TradingBot(self.clock, names=(STRATEGY,), before=self.bot_falters)
        self.bot.at_midnight = {STRATEGY: EQUITY}
        self.quiet = True
        self.store_is_down = False
        self.store = MemoryStore(self.shared_falters)
        self.local = MemoryStore(self.dies)
        self.told: dict[str, Alert] = {}
        self.bot.lose(STRATEGY, 700.0)  # not far from a limit
        self.guards = [self.new_guard(), self.new_guard()]
        self.resumes = 0
        self.confirmed_at: list[Any] = []

    def new_guard(self) -> Guard:
        shared: AuditStore = self.store  # type: ignore[assignment]
        memory = GuardMemory(shared, lambda: self.local, self.bot.source)  # type: ignore[arg-type,return-value]
        return Guard(self.bot, memory, Watch(self.clock), Policy(), self.tell)

    def chance(self, probability: float) -> bool:
        return not self.quiet and self.random.random() < probability

    def dies(self, where: str) -> None:
        if self.chance(0.004):
            raise Killed(where)

    def shared_falters(self, where: str) -> None:
        self.dies(where)
        if self.store_is_down or self.chance(0.02):
            raise StoreUnavailable(f"the store is down at {where}")

    def bot_falters(self, where: str) -> None:
        if where == self.resume_meets_a_step_at:
            self.resume_meets_a_step_at = None
            # what a process that is killed then enabled after a stop was confirmed is seen by the next look only
            self.clock.go(self.random.choice([0.5, 7.0, 16.0, 16.0 if self.resume_dies_at else 31.0]))
            self.step()
        if where == self.resume_dies_at:
            self.resume_dies_at = None
            raise Killed(where)
        self.dies(where)
        if self.chance(0.4 if where in ("disable", "disabled") else 0.05):
            raise self.random.choice([BotUnreachable, BotError])(f"the bot falters at {where}")

    def tell(self, alert: Alert) -> None:
        self.dies("tell")
        if self.chance(0.1):
            raise StoreUnavailable("the outbox is down")
        self.told[alert.dedup_key] = alert
        self.dies("told")

    def step(self) -> None:
        number = self.random.randrange(2)
        try:
            self.guards[number].step()
        except Killed:
            self.guards[number] = self.new_guard()

    def trade(self) -> None:
        """The bot goes on: it enters where it may, closes what is open, and tells some of it late or twice."""
        if self.random.random() < 0.3:
            self.bot.enter(STRATEGY)
        if self.bot.positions and self.random.random() < 0.4:
            self.bot.positions.pop(0)
            late = self.random.choice([0.0, 0.0, 0.0, 5.0])
            self.bot.lose(STRATEGY, self.random.choice([-50.0, 0.0, 20.0, 120.0, 300.0, 600.0]), minutes_ago=late)
        if self.bot.rows and self.random.random() < 0.2:
            self.bot.rows.append(self.random.choice(self.bot.rows))  # the same event once more

    def action(self) -> Action:
        """What is known of the strategy to a guard that was just started, on a good day."""
        with self.good_day():
            actions = self.new_guard().memory.load()
        return actions.get(STRATEGY, {"state": WATCHING, "episode": 1})

    @contextmanager
    def good_day(self) -> Iterator[None]:
        """Nothing falters for a moment."""
        before = self.quiet, self.store_is_down
        self.quiet, self.store_is_down = True, False
        yield
        self.quiet, self.store_is_down = before

    def check(self) -> None:
        """What must be true at any moment."""
        action = self.action()
        flips = [enabled for _, enabled in self.bot.switched]
        assert flips == [bool(i % 2) for i in range(len(flips))]  # never two effective stops, or resumes, in a row
        assert flips.count(True) == self.resumes, "an automatic resume"
        if action["state"] == CONFIRMED:
            assert not self.bot._states[STRATEGY].enabled, "reported as stopped, and it is not"
            stopped = self.bot._states[STRATEGY].changed_at
            assert stopped is not None
            assert not [at for _, at in self.bot.entered if at > stopped], "a trade was accepted after the stop"
        for alert in self.told.values():
            if alert.what.endswith("was stopped"):
                assert len(flips) > 0

    def resume(self) -> None:
        """A person lets it trade again, and what was entered before is history."""
        with self.good_day():
            guard = self.new_guard()
            self.bot.positions.clear()
            seen = preflight(guard, STRATEGY)
            self.resume_dies_at = self.random.choice([None, None, "enable", "enabled"])
            self.resume_meets_a_step_at = self.random.choice([None, "portfolio", "strategies", "enable", "enabled"])
            with suppress(Killed, NotResumed):
                action = resume(guard, STRATEGY, reason="try again", by="somebody", seen=seen)
                assert action["state"] == WATCHING
                assert self.bot._states[STRATEGY].enabled, "reported as resumed, and it is not"
            self.resume_dies_at = self.resume_meets_a_step_at = None
        self.resumes = [enabled for _, enabled in self.bot.switched].count(True)

    def breached(self) -> bool:
        """Whether what closed since the last resume breaks a limit, counted plainly."""
        action = self.action()
        since = action.get("since") or ""
        rows = {row["trade_id"]: row for row in self.bot.rows if row["closed_at"] >= since}
        ordered = sorted(rows.values(), key=lambda row: (row["closed_at"], row["trade_id"]))
        streak = 0
        for row in ordered:
            streak = 0 if row["pnl_usdt"] > 0 else streak + (row["pnl_usdt"] < 0)
        equity = action.get("since_equity_usdt") or EQUITY
        return streak > 10 or -sum(row["pnl_usdt"] for row in ordered) > 0.1 * equity


def live_through(seed: int, ticks: int = 24) -> None:
    world = World(seed)
    for tick in range(ticks):
        world.quiet = tick < 1
        world.clock.go(world.random.choice([0.5, 1.0, 2.0, 7.0, 16.0]))
        world.store_is_down = world.store_is_down != world.chance(0.05)
        world.trade()
        world.step()
        world.check()
        if world.action()["state"] in (*STOPPED, RESUMING) and world.random.random() < 0.1:
            world.resume()
    world.quiet, world.store_is_down = True, False
    for guard in (*world.guards, *world.guards):  # on a good day
        world.clock.go(16.0)
        guard.step()
    world.check()
    assert world.action()["state"] in (WATCHING, CONFIRMED), "nothing is left half done"
    assert world.bot._states[STRATEGY].enabled == (world.action()["state"] == WATCHING)
    if world.breached():
        assert world.action()["state"] == CONFIRMED, "a breach without a stop"
    stops = [enabled for _, enabled in world.bot.switched].count(False)
    # one that was resumed before it was confirmed was told as being stopped
    said = {key.rpartition("/")[0] for key, alert in world.told.items() if "stopped" in alert.what}
    assert len(said) >= stops, "a stop that nobody was told of"
    assert world.clock.at - START.at < timedelta(hours=11)  # all of it is one UTC day


@pytest.mark.parametrize("seed", range(0, 200, 50))
def test_fifty_histories_keep_the_guards_promise(seed: int):
    for number in range(seed, seed + 50):
        live_through(number)


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(1000, 11_000, 500))
def test_ten_thousand_histories_keep_the_guards_promise(seed: int):
    for number in range(seed, seed + 500):
        live_through(number)


def test_the_histories_are_eventful(tmp_path: Path):
    """A simulation in which nothing happens proves nothing."""
    stops = resumes = 0
    for seed in range(10):
        world = World(seed)
        for _ in range(60):
            world.quiet = False
            world.clock.go(2.0)
            world.trade()
            world.step()
            if world.action()["state"] == CONFIRMED:
                world.resume()
        stops += len([1 for _, enabled in world.bot.switched if not enabled])
        resumes += world.resumes
    assert stops > 10
    assert resumes > 10
