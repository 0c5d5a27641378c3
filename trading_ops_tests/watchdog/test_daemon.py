"""With Dagster's real daemon: is a killed run told once, and the killed daemon too?"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from trading_ops.watchdog.heartbeat import DaemonHeartbeat, Heartbeats
from trading_ops_tests.servers.bot import raw_server
from trading_ops_tests.servers.vendors import WEBHOOK_PATH, WEBHOOK_SECRET, VendorServer, webhook
from trading_ops_tests.test_cli import BIN, command, new_home

STALE_S = 15  # the daemon's own loop takes 5


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return new_home(tmp_path)


@contextmanager
def group(line: list[str], home: Path, settings: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process with all that it starts; none of it outlives the block."""
    env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "DAGSTER_HOME": str(home), **settings}
    with (home / f"{line[0]}.log").open("w") as log:
        process = subprocess.Popen(line, cwd=home, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def until(true: Callable[[], Any], home: Path, timeout_s: float = 90) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := true()):
        logs = "\n".join(path.read_text()[-3_000:] for path in home.glob("*.log"))
        assert time.monotonic() < deadline, logs
        time.sleep(0.1)
    return found


def runs_of(session: int) -> list[int]:
    """The processes of a session in which Dagster executes runs."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            in_session = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[3])
            if in_session == session and b"spawn_main" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def test_a_killed_run_is_told_once_and_so_is_the_killed_daemon(home: Path) -> None:
    released = threading.Event()
    with VendorServer(webhook) as people, raw_server(lambda *_: released.wait(120)) as (bot, asked):
        settings = {
            "NOTIFICATION_CHANNELS": "webhook", "WEBHOOK_URL": people.url + WEBHOOK_PATH,
            "WEBHOOK_SECRET": WEBHOOK_SECRET, "TRADING_OPS_WATCHDOG_STALE_S": str(STALE_S),
            "TRADING_OPS_BOT_URL": bot, "TRADING_OPS_BOT_TIMEOUT_S": "300",
        }  # fmt: skip

        def told(beginning: str) -> list[dict[str, Any]]:
            documents = [asked.document for asked in people.taken]
            return [document for document in documents if document["dedup_key"].startswith(beginning)]

        def heartbeat() -> DaemonHeartbeat | None:
            return Heartbeats(home / "var" / "heartbeats").daemon()

        with group(["dagster-daemon", "run", "-w", "workspace.yaml"], home, settings) as daemon:
            first = until(heartbeat, home)
            names = {ticker.name for ticker in first.tickers if ticker.running}
            assert {"system_health_check_schedule", "heartbeat_sensor", "run_failure_alert_sensor"} <= names
            with group(["trading-ops", "watchdog", "--interval", "1"], home, settings):
                run_id = str(uuid.uuid4())
                launch = ["dagster", "job", "launch", "-w", "workspace.yaml", "-j", "system_health_check"]
                done = command([*launch, "--run-id", run_id], home, **settings)
                assert done.returncode == 0, done.stderr
                until(lambda: asked, home)  # the run waits for its bot
                for pid in runs_of(daemon.pid):
                    os.kill(pid, signal.SIGKILL)
                (failed,) = until(lambda: told("run/system_health_check/"), home)
                assert (failed["level"], failed["what"]) == ("ERROR", "system_health_check failed")
                assert failed["why"].startswith("The run's process died (killed, out of memory?)")
                assert run_id in failed["what_to_do"]
                until(lambda: heartbeat().at > first.at, home)
                kill(daemon)
                last = heartbeat().at
                (silent,) = until(lambda: told(f"watchdog/daemon/{last.isoformat()}"), home)
                assert silent["level"] == "CRITICAL"
                assert silent["what"] == f"Dagster's daemon has not ticked since {last:%Y-%m-%d %H:%M:%S} UTC"
                assert len(told("run/system_health_check/")) == 1
        released.set()
