"""With Dagster's real daemon: is a killed run told once, and the killed daemon too?"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from trading_ops.watchdog.heartbeat import DaemonHeartbeat, Heartbeats
from trading_ops_tests.servers.bot import raw_server
from trading_ops_tests.servers.vendors import WEBHOOK_PATH, WEBHOOK_SECRET, VendorServer, webhook
from trading_ops_tests.test_cli import BIN, command, new_home

DAEMON = ["dagster-daemon", "run", "-w", "workspace.yaml"]
WATCHDOG = ["trading-ops", "watchdog", "--interval", "1"]
JOB = "system_health_check"
SENSORS = """
import time
from pathlib import Path
import dagster as dg

@dg.sensor(minimum_interval_seconds=600, default_status=dg.DefaultSensorStatus.RUNNING)
def hangs():
    Path("hanging").touch()
    time.sleep(55)
    Path("over").touch()

@dg.sensor(minimum_interval_seconds=1, default_status=dg.DefaultSensorStatus.RUNNING)
def ticks():
    with open("ticks", "a") as file:
        file.write(".")

@dg.job
def j():
    pass

defs = dg.Definitions(jobs=[j], sensors=[hangs, ticks])
"""
LIMIT = '{"dagster/max_runtime": "20"}'


class Platform:
    """A home whose bot never answers, so that a run waits for it, and whose alerts come in at a receiver."""

    def __init__(self, home: Path, people: VendorServer, bot: str, asked: list[int]) -> None:
        self.home, self.asked, self._people = home, asked, people
        self.settings = {
            "NOTIFICATION_CHANNELS": "webhook", "WEBHOOK_URL": people.url + WEBHOOK_PATH,
            "WEBHOOK_SECRET": WEBHOOK_SECRET, "TRADING_OPS_BOT_URL": bot, "TRADING_OPS_BOT_TIMEOUT_S": "300",
            "TRADING_OPS_WATCHDOG_STALE_S": "40",  # the daemon's own loop takes 5, on a busy machine much more
        }  # fmt: skip

    @contextmanager
    def running(self, line: list[str], **more: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process with all that it starts; none of it outlives the block."""
        env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(self.home), "DAGSTER_HOME": str(self.home)}
        with (self.home / f"{line[0]}.log").open("w") as log:
            process = subprocess.Popen(
                line, cwd=self.home, env={**env, **self.settings, **more}, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            kill(process)

    def launch(self, tags: str = "{}") -> str:
        """A run by the daemon that waits for its bot, as the guard does already; its id."""
        self.until(lambda: self.asked)
        before = len(self.asked)
        run_id = str(uuid.uuid4())
        line = ["dagster", "job", "launch", "-w", "workspace.yaml", "-j", JOB, "--run-id", run_id, "--tags", tags]
        done = command(line, self.home, **self.settings)
        assert done.returncode == 0, done.stderr
        self.until(lambda: len(self.asked) > before)
        return run_id

    def heartbeat(self) -> DaemonHeartbeat | None:
        return Heartbeats(self.home / "var" / "heartbeats").daemon()

    def told(self, beginning: str) -> list[dict[str, Any]]:
        documents = [asked.document for asked in self._people.taken]
        return [document for document in documents if document["dedup_key"].startswith(beginning)]

    def until(self, true: Callable[[], Any], timeout_s: float = 120) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := true()):
            logs = "\n".join(path.read_text()[-3_000:] for path in self.home.glob("*.log"))
            assert time.monotonic() < deadline, logs
            time.sleep(0.1)
        return found


def kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_runs(daemon: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the processes in which this daemon's code server executes runs."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            session = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[3])
            if session == daemon.pid and b"spawn_main" in (folder / "cmdline").read_bytes():
                os.kill(int(folder.name), signal.SIGKILL)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    released = threading.Event()
    with VendorServer(webhook) as people, raw_server(lambda *_: released.wait(120)) as (bot, asked):
        yield Platform(new_home(tmp_path), people, bot, asked)
        released.set()


def test_a_killed_run_is_told_once_and_so_is_the_killed_daemon(platform: Platform) -> None:
    with platform.running(DAEMON) as daemon, ExitStack() as stack:
        first = platform.until(platform.heartbeat)
        stack.enter_context(platform.running(WATCHDOG))  # a busy machine takes longer to load the code than it waits
        names = {ticker.name for ticker in first.tickers if ticker.running}
        assert {f"{JOB}_schedule", "heartbeat_sensor", "run_failure_alert_sensor"} <= names
        run_id, key = platform.launch(), f"run/{JOB}/"
        kill_runs(daemon)
        (failed,) = platform.until(lambda: platform.told(key))
        assert (failed["level"], failed["what"]) == ("ERROR", f"{JOB} failed")
        assert failed["why"].startswith("The run's process died (killed, out of memory?)")
        assert run_id in failed["what_to_do"]
        platform.until(lambda: platform.heartbeat().at > first.at)
        kill(daemon)
        last = platform.heartbeat().at
        (silent,) = platform.until(lambda: platform.told("watchdog/daemon/1/"))
        assert silent["level"] == "CRITICAL"
        assert silent["what"] == f"Dagster's daemon has not ticked since {last:%Y-%m-%d %H:%M:%S} UTC"
        assert len(platform.told(key)) == 1


@pytest.mark.chaos
def test_of_a_run_that_is_killed_at_its_retry_too_only_the_last_failure_is_told(platform: Platform) -> None:
    with platform.running(DAEMON) as daemon:
        platform.until(platform.heartbeat)
        first = platform.launch('{"dagster/max_retries": "1"}')
        before = len(platform.asked)
        kill_runs(daemon)
        platform.until(lambda: len(platform.asked) > before)
        kill_runs(daemon)
        (failed,) = platform.until(lambda: platform.told(f"run/{JOB}/"))
        assert failed["what"] == f"{JOB} failed after 1 retry"
        assert first not in failed["what_to_do"]
        time.sleep(40)  # two ticks of the sensor
        assert len(platform.told(f"run/{JOB}/")) == 1


@pytest.mark.chaos
def test_a_run_that_is_killed_with_its_code_server_is_told_after_its_limit(platform: Platform) -> None:
    with platform.running(DAEMON) as daemon:
        platform.until(platform.heartbeat)
        run_id = platform.launch(LIMIT)
        kill(daemon)
    with platform.running(DAEMON):
        (failed,) = platform.until(lambda: platform.told(f"run/{JOB}/"))
    assert run_id in failed["what_to_do"]
    assert "20 seconds" in failed["why"] or "forcibly marked as failed" in failed["why"]


@pytest.mark.chaos
def test_code_that_cannot_be_loaded_is_a_silent_daemon(platform: Platform) -> None:
    with platform.running(DAEMON, TRADING_OPS_MIN_TRADES="ten"), platform.running(WATCHDOG):
        (silent,) = platform.until(lambda: platform.told("watchdog/daemon/"))
    assert silent["level"] == "CRITICAL"
    assert "can load its code" in silent["what_to_do"]


@pytest.mark.chaos
def test_a_sensor_that_hangs_holds_up_no_other(platform: Platform) -> None:
    (platform.home / "sensors.py").write_text(SENSORS)
    ticks, hanging, over = (platform.home / name for name in ("ticks", "hanging", "over"))
    with platform.running(["dagster-daemon", "run", "-f", "sensors.py"]):
        platform.until(hanging.exists)
        before = len(ticks.read_text()) if ticks.exists() else 0
        platform.until(lambda: ticks.exists() and len(ticks.read_text()) >= before + 2)
        assert not over.exists()
