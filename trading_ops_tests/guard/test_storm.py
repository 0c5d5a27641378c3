"""With a real daemon, its runs and a real watcher, any of them killed at any moment: is the guard's promise kept?

Each race is a strategy that bleeds, trades on and tries to enter while it is being stopped. Races overlap, and one
process after the other is killed and started again. The seed decides what is traded and who is killed next, the machine
when that is.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.bot.server import create_app
from trading_ops.guard.actions import CONFIRMED, ORDER, Action, action_id
from trading_ops.guard.memory import GUARD_ACTIONS, STRATEGY_ACTIONS
from trading_ops_tests.guard.bots import EQUITY, TradingBot
from trading_ops_tests.platform import CODE_SERVER, DAEMON, RUN, Platform, Process, kill, members
from trading_ops_tests.servers.bot import serving
from trading_ops_tests.servers.vendors import VendorServer, webhook
from trading_ops_tests.test_cli import new_home

WATCHER = ["trading-ops", "guard", "watch", "--heartbeat", "beat.json"]
OURS = dg.RunsFilter(job_name="emergency_strategy_disable")
KINDS = ("watcher", "run", "code server", "daemon")
LATE_MINUTES = 0.1
PATIENCE_S, LONG_S = 300.0, 2_400.0  # on a busy machine, for a process that starts and for the last of a hundred runs


@dataclass
class Race:
    """One strategy: what it wins and loses until it breaches a limit or does not, and what happens after."""

    name: str
    seed: int
    refused: int = 0  # entries that it tried and the bot did not take
    begins: float | None = None
    traded_at: datetime | None = None  # when it had won and lost all that it was to
    _next: float = 0.0
    _again: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        few = [-self._random.uniform(5, 30) for _ in range(self._random.randrange(4))]
        self.bleeds = self.seed % 6 != 5
        self._after = cycle([-10.0] if self.bleeds else [-30.0, 40.0])
        if not self.bleeds:
            self._script = [*[-95.0] * 8, 40.0]  # near both limits, and beyond none in whatever order it is told
        elif self._random.random() < 0.5:
            self._script = [*few, -0.12 * EQUITY]
        else:
            self._script = [-self._random.uniform(5, 60) for _ in range(11)]

    def trade(self, bot: TradingBot, now: float) -> None:
        """Enter where it may, close what is open, tell some of it late and some of it twice."""
        if self.begins is None or now < max(self.begins, self._next):
            return
        mine = next((position for position in bot.positions if position.strategy == self.name), None)
        slowly = 20 if self.traded_at and not self.bleeds else 1
        self._next = now + slowly * self._random.uniform(0.05, 0.4)
        if self._again and self._random.random() < 0.5:
            bot.rows.append(self._again.pop())
        elif mine is None:
            self.refused += not bot.enter(self.name)
        else:
            bot.positions.remove(mine)
            late = self._random.choice([0.0, 0.0, 0.0, LATE_MINUTES])
            earned = self._script.pop(0) if self._script else next(self._after)
            bot.lose(self.name, -earned, minutes_ago=late)
            if not self._script:
                self.traded_at = self.traded_at or bot.clock()
            if self._random.random() < 0.3:
                self._again.append(bot.rows[-1])


class Storm(Platform):
    """The bot and its traders, the daemon and the watcher, and who kills them."""

    def __init__(self, home: Path, people: VendorServer, bot: TradingBot, url: str) -> None:
        # nobody answers the incidents: when they are told again is not what this is about
        super().__init__(home, people, url, NOTIFICATION_ESCALATE_MINUTES="600")
        self.bot, self.random = bot, random.Random(len(bot.names))
        self.races = [Race(name, number) for number, name in enumerate(bot.names)]
        self.killed: Counter[str] = Counter()
        self._being_stopped = threading.Event()
        bot.before = self._notice
        self._started: list[Process] = []
        self._over = threading.Event()

    @contextmanager
    def blowing(self) -> Iterator[None]:
        """The bot trades; no process outlives the block."""
        trader = threading.Thread(target=self._trade)
        trader.start()
        try:
            self._start_daemon()
            self._start_watcher()
            yield
        finally:
            self._over.set()
            trader.join()
            for process in self._started:
                kill(process)

    def _trade(self) -> None:
        while not self._over.wait(0.03):
            for race in self.races:
                race.trade(self.bot, time.monotonic())

    def _notice(self, method: str) -> None:
        if method in ("disable", "disabled"):  # before and after the effect, of which nobody knows yet
            self._being_stopped.set()
            time.sleep(0.05)

    def _start_daemon(self) -> None:
        self.daemon = self.start(DAEMON)
        self.daemon_since = datetime.now(UTC)
        self._started.append(self.daemon)

    def _start_watcher(self) -> None:
        self.watcher = self.start(WATCHER)
        self._started.append(self.watcher)

    def works(self, kind: str) -> list[int]:
        """The processes of that kind that are there and have come so far that a kill takes something from them."""
        if kind == "watcher":
            with suppress(OSError, ValueError):
                return [self.watcher.pid] * (
                    json.loads((self.home / "beat.json").read_text())["pid"] == self.watcher.pid
                )
            return []
        if kind == "run":
            return [pid for daemon in self._started for pid in members(daemon, RUN)]
        beat = self.heartbeat()
        if beat is None or beat.at < self.daemon_since:
            return []
        # every minute the daemon starts a new code server, and the old one ends
        return [self.daemon.pid] if kind == "daemon" else members(self.daemon, CODE_SERVER)[-1:]

    def strike(self, kind: str) -> None:
        """kill -9 of one process of the kind, every other time while a strategy is stopped; another takes its place."""
        victim = self.random.choice(self.until(lambda: self.works(kind), PATIENCE_S))
        if kind != "run" and self.random.random() < 0.5:
            self._being_stopped.clear()
            self._being_stopped.wait(10)
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:  # it was done
            self.strike(kind)
            return
        self.killed[kind] += 1
        if kind == "watcher":
            self._start_watcher()
        elif kind == "daemon":
            self._start_daemon()  # with a code server; the old one's goes on for a while, and so do its runs

    def begin(self, races: list[Race], within_s: float) -> None:
        for race in races:
            race.begins = time.monotonic() + self.random.uniform(0, within_s)

    def actions(self) -> dict[str, Action]:
        with SqliteStore(self.home / "var" / "audit.db") as store:
            return {document.body["strategy"]: document.body for document in store.list_state(GUARD_ACTIONS)}

    def said_stopped(self) -> Counter[str]:
        """How often people were told that a strategy was stopped, where a receiver keeps the idempotency keys."""
        taken = {asked.headers["idempotency-key"]: asked.document for asked in [*self._people.taken]}
        told = [document for document in taken.values() if document["what"].endswith(" was stopped")]
        assert {document["level"] for document in told} <= {"CRITICAL"}
        return Counter(document["what"].removesuffix(" was stopped") for document in told)


@contextmanager
def blowing(races: int, folder: Path) -> Iterator[Storm]:
    """A storm of so many races; where midnight is near, its bot's clock is an hour and a half behind."""
    now = datetime.now(UTC)
    late = timedelta(minutes=90 if (now + timedelta(minutes=90)).date() > now.date() else 0)
    names = tuple(f"s{number:03}" for number in range(races))
    bot = TradingBot(lambda: datetime.now(UTC) - late, names=names)
    with VendorServer(webhook) as people, serving(create_app(bot)) as url:
        storm = Storm(new_home(folder), people, bot, url)
        with storm.blowing():
            yield storm


def settled(storm: Storm, lost: int) -> bool:
    """Whether every run succeeded, or its process is dead and among the `lost`."""
    statuses = Counter(run.status for run in storm.runs(OURS))
    waiting = statuses[dg.DagsterRunStatus.QUEUED] + statuses[dg.DagsterRunStatus.NOT_STARTED]
    others = statuses.total() - statuses[dg.DagsterRunStatus.SUCCESS]
    return not storm.works("run") and not waiting and others <= lost


@pytest.mark.parametrize(("races", "kills"), [(6, 1), pytest.param(100, 10, marks=pytest.mark.chaos)])
def test_races_with_processes_that_are_killed_end_with_one_proven_stop_each(
    tmp_path: Path, races: int, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with blowing(races, tmp_path) as storm:
        order = [kind for _ in range(kills) for kind in storm.random.sample(KINDS, len(KINDS))]
        storm.until(lambda: storm.works("watcher") and storm.works("code server"), PATIENCE_S)
        for number, kind in enumerate(order):
            storm.begin(storm.races[number * races // len(order) : (number + 1) * races // len(order)], within_s=6.0)
            time.sleep(storm.random.uniform(0, 6))
            storm.strike(kind)
        bleeding = {race.name for race in storm.races if race.bleeds}
        storm.until(lambda: all(race.traded_at for race in storm.races), PATIENCE_S)
        storm.until(lambda: {n for n, a in storm.actions().items() if a["state"] == CONFIRMED} >= bleeding, PATIENCE_S)
        storm.until(lambda: storm.said_stopped().keys() >= bleeding, PATIENCE_S)
        keys = {action_id(action) for action in storm.actions().values()}
        storm.until(lambda: {run.tags["dagster/run_key"] for run in storm.runs(OURS)} >= keys, PATIENCE_S)
        lost = sum(storm.killed[kind] for kind in KINDS if kind != "watcher")  # one run each at most
        storm.until(lambda: settled(storm, lost), LONG_S)
    # nothing runs any more
    assert sorted(storm.bot.switched) == sorted((name, False) for name in bleeding)
    assert storm.actions().keys() == bleeding
    assert storm.said_stopped() == Counter(dict.fromkeys(bleeding, 1))
    runs = storm.runs(OURS)
    assert Counter(run.tags["dagster/run_key"] for run in runs) == Counter(dict.fromkeys(keys, 1))
    states = {state.name: state for state in storm.bot.strategies()}
    assert {name for name, state in states.items() if not state.enabled} == bleeding
    assert [(name, at) for name, at in storm.bot.entered if name in bleeding and at > states[name].changed_at] == []
    assert [race.name for race in storm.races if race.bleeds and not race.refused] == []
    history = defaultdict(list)
    with SqliteStore(tmp_path / "var" / "audit.db") as store:
        assert store.verify() == []
        for record in store.read(STRATEGY_ACTIONS):
            history[record.key].append(record.body["state"])
    assert history.keys() == keys
    for key, phases in history.items():
        assert phases == sorted(set(phases), key=ORDER.index), key
        assert phases[-1] == CONFIRMED, key
    assert "Traceback" not in (tmp_path / "trading-ops.log").read_text()
    assert storm.killed == Counter(dict.fromkeys(KINDS, kills))
    ended = Counter(run.status.value for run in runs)
    took = sorted((states[r.name].changed_at - r.traded_at).total_seconds() for r in storm.races if r.bleeds)
    figures = f"{len(took)} of {races} stopped, {took[len(took) // 2]:.1f} s after the breach, at most {took[-1]:.1f}"
    with capsys.disabled():
        sys.stdout.write(f"\n{figures}; killed: {dict(storm.killed)}; runs: {dict(ended)}\n")
