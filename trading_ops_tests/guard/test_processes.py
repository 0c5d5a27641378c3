"""Does a guard that is killed at any line, or runs several times at once, stop a strategy exactly once?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.bot.http import HttpBot
from trading_ops.bot.server import create_app
from trading_ops.guard.actions import CONFIRMED
from trading_ops.guard.memory import GUARD_ACTIONS, STRATEGY_ACTIONS
from trading_ops.notifications.outbox import Outbox
from trading_ops_tests.conftest import ROOT
from trading_ops_tests.guard.bots import Clock, TradingBot
from trading_ops_tests.servers.bot import serving

# a process that has everything loaded forks one for each life, so that a life is short and its death a real one
LIVES = """
import json, os, signal, sys, time
from datetime import UTC, datetime
from pathlib import Path
import pandas
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.bot.http import HttpBot
from trading_ops.guard.memory import GuardMemory
from trading_ops.guard.switch import Policy, step
from trading_ops.guard.telling import through
from trading_ops.guard.watch import Watch
from trading_ops.notifications.desk import IncidentDesk
from trading_ops.notifications.outbox import Outbox

EFFECTS = {"put_state", "append", "disable_strategy"}

class Mortal:
    # dies after its n-th effect on the world; the next one is then not begun
    done = 0

    def __init__(self, inner, dies_at):
        self._inner, self._dies_at = inner, dies_at

    def __getattr__(self, name):
        found = getattr(self._inner, name)
        if name not in EFFECTS:
            return found
        def effect(*args, **kwargs):
            result = found(*args, **kwargs)
            self.count()
            return result
        return effect

    def count(self):
        Mortal.done += 1
        if Mortal.done == self._dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

def live(url, folder, now, dies_at, steps=1):
    folder.mkdir(exist_ok=True)
    clock = lambda: now
    bot = Mortal(HttpBot(url, timeout_s=10, now=clock), dies_at)
    store, local = (Mortal(SqliteStore(folder / name), dies_at) for name in ("audit.db", "guard.db"))
    memory, watch = GuardMemory(store, lambda: local, bot.source), Watch(clock)
    tell = through(IncidentDesk(store, Outbox(store, {}, clock), clock))
    for _ in range(steps):
        step(bot, memory, watch, Policy(), tell)

def fork(*args, **kwargs):
    if (child := os.fork()) == 0:
        code = 1
        try:
            live(*args, **kwargs)
            code = 0
        finally:
            os._exit(code)
    return child

def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
KILLED = """
url, folder, now = sys.argv[1], Path(sys.argv[2]), datetime.fromisoformat(sys.argv[3])
for number in range(1, int(sys.argv[4])):
    first = ended(fork(f"{url}/{number}", folder / str(number), now, number))
    then = ended(fork(f"{url}/{number}", folder / str(number), now, 0))
    print(json.dumps([number, first, then]), flush=True)
    if first == 0:
        break
"""
AT_ONCE = """
url, folder, now = sys.argv[1], Path(sys.argv[2]), datetime.fromisoformat(sys.argv[3])
children = [fork(url, folder, now, 0, steps=3) for _ in range(4)]
print(json.dumps([ended(child) for child in children]), flush=True)
"""
MOST = 60


def run(script: str, *args: object) -> list[list[int]]:
    done = subprocess.run(
        [sys.executable, "-c", LIVES + script, *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def told_of(store: SqliteStore) -> list[str]:
    alerts = [delivery["alert"] for delivery in Outbox(store, {}).deliveries()]
    return [alert["what"] for alert in alerts if alert["severity"] == "CRITICAL"]


def bleeding(clock: Clock) -> TradingBot:
    bot = TradingBot(clock)
    bot.lose("rsi", 1500.0)
    return bot


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_guard_killed_after_each_of_its_effects_ends_with_one_confirmed_stop_B099(tmp_path: Path, clock: Clock):
    bots = {str(number): bleeding(clock) for number in range(1, MOST)}
    with serving(Starlette(routes=[Mount(f"/{n}", create_app(bot)) for n, bot in bots.items()])) as url:
        lives = run(KILLED, url, tmp_path, clock().isoformat(), MOST)
        deaths = [first for _, first, _ in lives]
        assert deaths[:-1] == [-9] * (len(deaths) - 1)
        assert deaths[-1] == 0  # it outlived its effects: every one of them was a place to die
        assert len(deaths) > 12
        assert [then for *_, then in lives] == [0] * len(lives)
        for number, _, _ in lives:
            assert bots[str(number)].switched == [("rsi", False)], number
            source = HttpBot(f"{url}/{number}").source
            with SqliteStore(tmp_path / str(number) / "audit.db") as store:
                document = store.get_state(GUARD_ACTIONS, f"{source}/rsi")
                assert document is not None
                assert document.body["state"] == CONFIRMED, number
                assert [r.body["state"] for r in store.read(STRATEGY_ACTIONS)] == [CONFIRMED], number
                assert told_of(store) == ["rsi was stopped"], number


def test_four_guards_at_once_stop_a_strategy_once_B099(tmp_path: Path, clock: Clock):
    bot = bleeding(clock)
    with serving(create_app(bot)) as url:
        assert run(AT_ONCE, url, tmp_path, clock().isoformat()) == [[0, 0, 0, 0]]
    assert bot.switched == [("rsi", False)]
    with SqliteStore(tmp_path / "audit.db") as store:
        assert [record.body["state"] for record in store.read(STRATEGY_ACTIONS)] == [CONFIRMED]
        assert told_of(store) == ["rsi was stopped"]
