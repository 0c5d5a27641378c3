"""With Dagster's real daemon: is a killed run told once, and the killed daemon too?"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest

from trading_ops_tests.platform import CODE_SERVER, DAEMON, RUN, Platform, kill, kill_members
from trading_ops_tests.servers.bot import raw_server
from trading_ops_tests.servers.vendors import VendorServer, webhook
from trading_ops_tests.test_cli import command, new_home

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
NO_OTHER = ["dagster", "schedule", "stop", f"{JOB}_schedule", "-w", "workspace.yaml"]  # each quarter of an hour
LAUNCH = ["dagster", "job", "launch", "-w", "workspace.yaml", "-j", JOB]
LIMIT = '{"dagster/max_runtime": "20"}'


class Waiting(Platform):
    """Its bot never answers, so that a run waits for it."""

    def __init__(self, home: Path, people: VendorServer, bot: str) -> None:
        super().__init__(home, people, bot, TRADING_OPS_BOT_TIMEOUT_S="300")

    def launch(self, tags: str = "{}") -> str:
        """A run by the daemon that has begun, and waits for its bot; its id."""
        run_id = str(uuid.uuid4())
        done = command([*LAUNCH, "--run-id", run_id, "--tags", tags], self.home, **self.settings)
        assert done.returncode == 0, done.stderr
        self.until(lambda: self.begun() == [run_id])
        return run_id

    def begun(self) -> list[str]:
        """The runs that are under way."""
        return [run.run_id for run in self.runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))]


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Waiting]:
    released = threading.Event()
    with VendorServer(webhook) as people, raw_server(lambda *_: released.wait(300)) as (bot, _):
        yield Waiting(new_home(tmp_path), people, bot)
        released.set()


def test_a_killed_run_is_told_once_and_so_is_the_killed_daemon(platform: Waiting) -> None:
    assert command(NO_OTHER, platform.home, **platform.settings).returncode == 0
    with platform.running(DAEMON) as daemon, ExitStack() as stack:
        first = platform.until(platform.heartbeat)
        stack.enter_context(platform.running(WATCHDOG))  # a busy machine takes longer to load the code than it waits
        names = {ticker.name for ticker in first.tickers if ticker.running}
        assert {"daily_portfolio_report_schedule", "heartbeat_sensor", "run_failure_alert_sensor"} <= names
        run_id, key = platform.launch(), f"run/{JOB}/"
        kill_members(daemon, RUN)
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
def test_of_a_run_that_is_killed_at_its_retry_too_only_the_last_failure_is_told(platform: Waiting) -> None:
    with platform.running(DAEMON) as daemon:
        platform.until(platform.heartbeat)
        first = platform.launch('{"dagster/max_retries": "1"}')
        kill_members(daemon, RUN)
        platform.until(lambda: platform.begun() not in ([], [first]))
        kill_members(daemon, RUN)
        (failed,) = platform.until(lambda: platform.told(f"run/{JOB}/"))
        assert failed["what"] == f"{JOB} failed after 1 retry"
        assert first not in failed["what_to_do"]
        time.sleep(40)  # two ticks of the sensor
        assert len(platform.told(f"run/{JOB}/")) == 1


@pytest.mark.chaos
def test_a_run_that_is_killed_with_its_code_server_is_told_after_its_limit(platform: Waiting) -> None:
    with platform.running(DAEMON) as daemon:
        platform.until(platform.heartbeat)
        run_id = platform.launch(LIMIT)
        kill(daemon)
    with platform.running(DAEMON):
        (failed,) = platform.until(lambda: platform.told(f"run/{JOB}/"))
    assert run_id in failed["what_to_do"]
    assert "20 seconds" in failed["why"] or "forcibly marked as failed" in failed["why"]


@pytest.mark.chaos
def test_a_run_whose_turn_comes_while_the_code_server_is_dead_waits_for_the_next_one(platform: Waiting) -> None:
    run_id = str(uuid.uuid4())

    def status() -> dg.DagsterRunStatus | None:
        return next((run.status for run in platform.runs(dg.RunsFilter(run_ids=[run_id]))), None)

    with platform.running(DAEMON) as daemon:
        platform.until(platform.heartbeat)
        with platform.running([*LAUNCH, "--run-id", run_id]):
            platform.until(status)
            kill_members(daemon, CODE_SERVER)
            over = (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.FAILURE)
            platform.until(lambda: status() in over)
        assert status() is dg.DagsterRunStatus.STARTED


@pytest.mark.chaos
def test_code_that_cannot_be_loaded_is_a_silent_daemon(platform: Waiting) -> None:
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
