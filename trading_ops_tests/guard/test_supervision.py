"""Real processes: does the guard's watcher come back when it is killed or frozen, and who hears of its silence?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.bot.server import create_app
from trading_ops.watchdog.heartbeat import GuardHeartbeat, Heartbeats
from trading_ops_tests.guard.bots import TradingBot
from trading_ops_tests.servers.bot import serving
from trading_ops_tests.servers.vendors import WEBHOOK_PATH, WEBHOOK_SECRET, VendorServer, webhook
from trading_ops_tests.test_cli import BIN, new_home

UP = """
import sys
from pathlib import Path
import typer
from trading_ops.cli import up
beat, *line = sys.argv[1:]
ui = up.Child("the UI", [sys.executable, "-c", "import time; time.sleep(600)"])
try:
    up.run_together(ui, up.Child("the guard", line, Path(beat), silent_s=5.0), pause_s=0.1)
except typer.Exit as end:
    sys.exit(end.exit_code)
"""


class Home:
    def __init__(self, folder: Path, url: str, people: VendorServer) -> None:
        self.folder, self.beats = folder, Heartbeats(folder / "var" / "heartbeats")
        self.guard: list[Any] = [BIN / "trading-ops", "guard", "watch", "--heartbeat", self.beats.guard_file]
        self.environment = {
            "PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(folder), "DAGSTER_HOME": str(folder),
            "TRADING_OPS_BOT_URL": url, "TRADING_OPS_BOT_SINCE": str(datetime.now(UTC).date() - timedelta(days=3)),
            "TRADING_OPS_WATCHDOG_STALE_S": "15", "NOTIFICATION_CHANNELS": "webhook",
            "WEBHOOK_URL": people.url + WEBHOOK_PATH, "WEBHOOK_SECRET": WEBHOOK_SECRET,
        }  # fmt: skip
        self._people = people

    @contextmanager
    def running(self, line: list[Any]) -> Iterator[subprocess.Popen[bytes]]:
        """A process; neither it nor a guard that it started outlives the block."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(line, cwd=self.folder, env=self.environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(300)
            process.kill()
            process.wait()

    def sees(self, *but: int) -> GuardHeartbeat | None:
        """The heartbeat of a watcher, another than those, that has read the bot."""
        beat = self.beats.guard()
        return beat if beat and beat.seen_at and beat.pid not in but else None

    def told(self) -> list[tuple[str, str]]:
        """What people heard of the guard's watcher."""
        documents = [asked.document for asked in self._people.taken]
        return [(d["level"], d["step"]) for d in documents if d["incident"] == "watchdog/guard"]

    def until(self, true: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + 300
        while not (found := true()):
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)
        return found


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    bot = TradingBot(lambda: datetime.now(UTC))
    with serving(create_app(bot)) as url, VendorServer(webhook) as people:
        yield Home(new_home(tmp_path), url, people)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_watcher_that_was_killed_or_froze_is_started_again(home: Home, number: signal.Signals):
    with home.running([sys.executable, "-c", UP, home.beats.guard_file, *home.guard]) as up:
        first = home.until(home.sees).pid
        os.kill(first, number)
        second = home.until(lambda: home.sees(first)).pid
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        up.terminate()
        assert up.wait(300) == 0
        with pytest.raises(ProcessLookupError):
            os.kill(second, 0)


def test_an_expected_watcher_that_never_looked_is_told_once_and_its_first_look_too(home: Home):
    with home.running([BIN / "trading-ops", "watchdog", "--interval", "0.5", "--expect-guard"]):
        home.until(home.told)
        assert (home.told(), home.beats.guard()) == ([("CRITICAL", "opened")], None)
        with home.running(home.guard):
            home.until(lambda: len(home.told()) > 1)
            assert home.told() == [("CRITICAL", "opened"), ("CRITICAL", "resolved")]


def test_a_frozen_watcher_is_told_once_and_its_return_too(home: Home):
    with home.running(home.guard) as guard, home.running([BIN / "trading-ops", "watchdog", "--interval", "0.5"]):
        home.until(home.sees)
        home.until(home.beats.watchdog)
        guard.send_signal(signal.SIGSTOP)
        home.until(home.told)
        assert home.told() == [("CRITICAL", "opened")]
        guard.send_signal(signal.SIGCONT)
        home.until(lambda: len(home.told()) > 1)
        assert home.told() == [("CRITICAL", "opened"), ("CRITICAL", "resolved")]
