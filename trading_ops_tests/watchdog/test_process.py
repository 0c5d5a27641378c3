"""Does `trading-ops watchdog`, as a real process, tell of a silent daemon once, also when it is killed meanwhile?"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.services import Services
from trading_ops.watchdog.heartbeat import DaemonHeartbeat, Heartbeat, Heartbeats, Ticker
from trading_ops_tests.conftest import QuietSettings
from trading_ops_tests.servers.vendors import WEBHOOK_PATH, WEBHOOK_SECRET, Answer, VendorServer, webhook
from trading_ops_tests.test_cli import BIN, command, new_home

STALE_S = "2"
QUICK = """
from trading_ops import settings
from trading_ops.cli.main import app
settings.LEAST_STALE_S = 0.0
app()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return new_home(tmp_path)


@pytest.fixture
def people() -> Iterator[VendorServer]:
    with VendorServer(webhook) as server:
        yield server


def environment(people: VendorServer, **more: str) -> dict[str, str]:
    return {
        "NOTIFICATION_CHANNELS": "webhook", "WEBHOOK_URL": people.url + WEBHOOK_PATH, "WEBHOOK_SECRET": WEBHOOK_SECRET,
        "TRADING_OPS_WATCHDOG_STALE_S": STALE_S, **more,
    }  # fmt: skip


@contextmanager
def watching(home: Path, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "DAGSTER_HOME": str(home), **settings}
    with (home / "watchdog.log").open("a") as log:
        process = subprocess.Popen(
            [BIN / "python", "-c", QUICK, "watchdog", "--interval", "0.2"], cwd=home, env=env, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def beat(home: Path, *tickers: Ticker, at: datetime | None = None) -> datetime:
    at = at or datetime.now(UTC)
    Heartbeats(home / "var" / "heartbeats").write(DaemonHeartbeat(at=at, since=at - timedelta(days=1), tickers=tickers))
    return at


def told(people: VendorServer) -> list[tuple[str, str]]:
    return [(asked.document["level"], asked.document["what"]) for asked in people.taken]


def until(true: Callable[[], Any], home: Path) -> None:
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline, (home / "watchdog.log").read_text()
        time.sleep(0.05)


def looks(home: Path, times: int) -> None:
    """Until the watchdog has looked so many times more."""
    heartbeats = Heartbeats(home / "var" / "heartbeats")
    for _ in range(times):
        before = heartbeats.watchdog()
        until(lambda before=before: heartbeats.watchdog() != before, home)


def test_a_silent_daemon_is_told_once_through_kills_and_its_return_too(home, people):
    settings = environment(people)
    last = beat(home)
    what = f"Dagster's daemon has not ticked since {last:%Y-%m-%d %H:%M:%S} UTC"
    with watching(home, **settings) as process:
        until(lambda: people.taken, home)
        looks(home, 3)
        process.kill()
        process.wait()
    assert told(people) == [("CRITICAL", what)]
    with watching(home, **settings) as process:
        looks(home, 15)  # longer than the time it gives a daemon to start
        assert told(people) == [("CRITICAL", what)]
        until(lambda: beat(home) and len(people.taken) > 1, home)
        assert told(people)[1] == ("CRITICAL", what)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=300) == 0


def test_a_schedule_that_does_not_tick_is_told_while_the_audit_store_is_down(home, people):
    now = beat(home, Ticker(name="rare", kind="schedule", running=True, due=datetime.now(UTC) - timedelta(hours=1)))
    nobody = "mongodb://127.0.0.1:9/trail?serverSelectionTimeoutMS=200"
    with watching(home, **environment(people, MONGODB_URI=nobody, TRADING_OPS_WATCHDOG_STALE_S="600")):
        until(lambda: people.taken, home)
        looks(home, 3)
    ((level, what),) = told(people)
    assert level == "ERROR"
    assert what == f"rare has not ticked since it was due at {now - timedelta(hours=1):%Y-%m-%d %H:%M:%S} UTC"


def test_a_damaged_audit_store_on_this_machine_keeps_nobody_from_being_told(home, people):
    beat(home, Ticker(name="rare", kind="schedule", running=True, due=datetime.now(UTC) - timedelta(hours=1)))
    (home / "var" / "audit.db").write_bytes(b"not a database, " * 1_000)
    with watching(home, **environment(people, TRADING_OPS_WATCHDOG_STALE_S="600")):
        until(lambda: people.taken, home)


def test_what_an_ended_process_could_not_deliver_is_sent_while_the_daemon_is_silent(home, people):
    people.faults.append(Answer(503, b"later"))
    settings = QuietSettings(
        data_dir=home / "var", notification_channels=("webhook",), webhook_url=people.url + WEBHOOK_PATH,
        webhook_secret=WEBHOOK_SECRET,
    )  # fmt: skip
    Services(settings).outbox.publish(Alert(Severity.WARNING, "k", "a strategy bleeds", "y", "d"))
    assert told(people) == []
    beat(home, at=datetime.now(UTC) - timedelta(hours=1))
    with watching(home, **environment(people)):
        until(lambda: ("WARNING", "a strategy bleeds") in told(people), home)


def test_it_pings_an_address_outside_while_all_is_well_and_survives_that_nobody_is_there(home, people):
    with VendorServer(lambda asked: Answer(200, b"OK")) as outside:
        outside.faults.extend([Answer(500, b"no"), Answer(reset=True)])
        with watching(home, **environment(people, WATCHDOG_PING_URL=outside.url + "/GEHEIM-ping")):
            looks(home, 3)
            assert outside.asked == []  # that a daemon has time to start does not mean that it runs
            until(lambda: beat(home) and len(outside.taken) >= 3, home)
            until(lambda: people.taken, home)  # nobody beats any more
            pinged = len(outside.taken)
            looks(home, 3)
            assert len(outside.taken) == pinged
    assert {asked.path for asked in outside.taken} == {"/GEHEIM-ping"}
    log = (home / "watchdog.log").read_text()
    assert "the ping was not taken: HTTP 500" in log
    assert "GEHEIM" not in log


def test_a_second_watchdog_waits_for_the_first_to_go(home, people):
    beat(home)
    settings = environment(people, TRADING_OPS_WATCHDOG_STALE_S="600")
    with watching(home, **settings) as first:
        looks(home, 1)
        with watching(home, **settings):
            until(lambda: "another watchdog watches" in (home / "watchdog.log").read_text(), home)
            first.kill()
            first.wait()
            looks(home, 2)


def test_the_help_names_the_variable_that_is_the_default(home):
    said = command(["trading-ops", "watchdog", "--help"], home, COLUMNS="160").stdout
    assert "[default: (TRADING_OPS_WATCHDOG_INTERVAL_S)]" in said


def test_a_heartbeat_that_cannot_be_read_is_no_daemon_that_never_ran(home):
    beat(home)
    (home / "var" / "heartbeats" / "daemon.json").write_text("{")
    done = command(["trading-ops", "watchdog", "--once"], home, COLUMNS="160")
    assert done.returncode == 1
    assert "CRITICAL Dagster's daemon has not ticked: " in done.stdout
    assert "never ran" not in done.stdout


def test_a_look_shows_a_table_and_a_document_and_exits_by_what_it_found(home):
    nothing = command(["trading-ops", "watchdog", "--once"], home)
    assert nothing.returncode == 1
    assert nothing.stdout.splitlines() == [
        "Dagster's daemon never ran here. There is no heartbeat.", "  Start it: make ui",
    ]  # fmt: skip
    (silent,) = json.loads(command(["trading-ops", "watchdog", "--once", "--json"], home).stdout)["findings"]
    assert (silent["name"], silent["what"], silent["since"]) == ("daemon", "Dagster's daemon never ran here", None)
    both = command(["trading-ops", "watchdog", "--once", "--json", "--expect-guard"], home)
    assert [(f["name"], f["since"]) for f in json.loads(both.stdout)["findings"]] == [("daemon", None), ("guard", None)]
    hour = timedelta(hours=1)
    stopped = Ticker(name="a_stopped_one", kind="sensor", running=False, due=datetime.now(UTC) - hour)
    beat(home, stopped, Ticker(name="a_good_one", kind="schedule", running=True, due=datetime.now(UTC) + hour))
    well = command(["trading-ops", "watchdog", "--once"], home)
    assert well.returncode == 0, well
    assert "everything ticks" in well.stdout
    assert [("stopped" in line, "ok" in line) for line in well.stdout.splitlines() if "_one" in line] == [
        (True, False),
        (False, True),
    ]
    beat(home, Ticker(name="a_late_one", kind="schedule", running=True, due=datetime.now(UTC) - hour))
    late = command(["trading-ops", "watchdog", "--once", "--json"], home)
    assert late.returncode == 1
    document = json.loads(late.stdout)
    assert [finding["name"] for finding in document["findings"]] == ["schedule/a_late_one"]
    assert document["heartbeat"]["tickers"][0]["name"] == "a_late_one"
    assert not (home / "var" / "audit.db").exists()  # a look tells nobody


def test_it_does_without_dagster_and_says_what_it_cannot_do(home):
    code = "import sys; sys.argv = ['trading-ops', 'watchdog', '--once']\nfrom trading_ops.cli.main import app\n" \
           "try: app()\nfinally: print([m for m in sys.modules if m.split('.')[0] == 'dagster'])"  # fmt: skip
    assert command(["python", "-c", code], home).stdout.endswith("[]\n")
    assert command(["trading-ops", "watchdog", "--json"], home).returncode == 2


def test_its_own_sign_of_life_says_since_when_it_watches(home, people):
    beat(home)
    with watching(home, **environment(people, TRADING_OPS_WATCHDOG_STALE_S="600")):
        looks(home, 3)
        life = Heartbeats(home / "var" / "heartbeats").watchdog()
    assert isinstance(life, Heartbeat)
    assert life.since < life.at
    assert life.open == {}
