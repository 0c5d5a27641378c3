"""The fire drill, held for real: does it show what happened, touch nothing of the user's, and fail when it must?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from trading_ops.drill.timeline import APPEARED, DELIVERED, PHASES, timeline
from trading_ops.guard.actions import CONFIRMED, REQUESTED, SEEN, SENT
from trading_ops_tests.servers.vendors import WEBHOOK_PATH, WEBHOOK_SECRET, VendorServer, webhook
from trading_ops_tests.test_cli import BIN, command, new_home

AT = datetime(2025, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return new_home(tmp_path)


@pytest.fixture
def people() -> Iterator[VendorServer]:
    with VendorServer(webhook) as server:
        yield server


def drill(home: Path, *line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """With a bot and a store that must not be touched: nothing listens there."""
    nobody = {"TRADING_OPS_BOT_URL": "http://127.0.0.1:9", "MONGODB_URI": "mongodb://127.0.0.1:9/trail"}
    return command(["trading-ops", "drill", "emergency", *line], home, **nobody, **environment)


def test_a_drill_shows_each_phase_and_touches_nothing_of_the_users(home: Path):
    own = {"TRADING_OPS_GUARD_LIMITS": "macd=consecutive_losses:4", "TRADING_OPS_GUARD_MODE": "observe_only"}
    done = drill(home, "--strategy", "macd", "--json", **own)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["why"] == "macd 5 losses in a row, the limit is 4"
    seconds = [document["seconds"][phase] for phase in PHASES]
    assert seconds == sorted(seconds)
    assert document["channels"] == {"a receiver on this machine": "sent"}
    assert not (home / "var").exists()


def test_a_drill_that_tells_marks_every_message_and_says_that_it_is_over(home: Path, people: VendorServer):
    url = {"NOTIFICATION_CHANNELS": "webhook", "WEBHOOK_URL": people.url + WEBHOOK_PATH}
    done = drill(home, "--loss-pct", "12", "--tell", **url, WEBHOOK_SECRET=WEBHOOK_SECRET)
    assert done.returncode == 0, done.stderr
    assert "fire drill: 1 loss of 12 % for rsi" in done.stdout
    assert "told: webhook: sent" in done.stdout
    told = [asked.document for asked in people.taken]
    assert all(d["what"].startswith("DRILL: ") and d["dedup_key"].startswith("drill/") for d in told)
    about = [(d["level"], d["step"]) for d in told if d["incident"] == "drill/guard/rsi"]
    assert about[0] == ("CRITICAL", "opened")
    assert about[-1][1] == "resolved"


def test_a_drill_whose_alert_reaches_nobody_fails_and_says_so(home: Path):
    url = {"NOTIFICATION_CHANNELS": "webhook", "WEBHOOK_URL": "http://127.0.0.1:9/", "WEBHOOK_SECRET": "key"}
    done = drill(home, "--tell", "--within", "5", **url)
    assert done.returncode == 1
    said = " ".join(done.stdout.split())
    assert "not reached: the alert is delivered" in said
    assert "not reached: the bot is read back" not in said
    assert "Connection refused" in said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--losses", "10"], "--losses 10 stops nothing: more than 10 in a row do"),
        (["--loss-pct", "10"], "--loss-pct 10 stops nothing: more than 10 % does"),
        (["--losses", "11", "--loss-pct", "12"], "give either --losses or --loss-pct"),
        (["--strategy", "rsy"], "strategy 'rsy' is unknown; there are rsi, macd, bollinger, volume"),
    ],
)
def test_a_drill_that_could_stop_nothing_is_not_held(home: Path, line: list[str], said: str):
    done = drill(home, *line)
    assert (done.returncode, said in done.stderr) == (2, True), done


def test_a_drill_that_is_killed_leaves_no_process_behind(home: Path):
    line = [BIN / "trading-ops", "drill", "emergency", "--within", "600", "--tell"]
    env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "DAGSTER_HOME": str(home), "TMPDIR": str(home)}
    channel = {"NOTIFICATION_CHANNELS": "webhook", "WEBHOOK_URL": "http://127.0.0.1:9/", "WEBHOOK_SECRET": "key"}
    with (home / "said").open("wb") as said:
        process = subprocess.Popen(line, cwd=home, env={**env, **channel}, stdout=said, stderr=said)
    try:
        until(lambda: "it watches" in (home / "said").read_text())
        children = psutil.Process(process.pid).children(recursive=True)
        lines = [child.cmdline() for child in children]
        assert [name for name in ("bot", "guard") if any(name in line for line in lines)] == ["bot", "guard"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    gone, alive = psutil.wait_procs(children, timeout=60)
    for child in alive:
        os.kill(child.pid, signal.SIGKILL)
    assert (len(gone), alive) == (len(children), [])


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def action(**reached: float) -> dict[str, Any]:
    return {"at": {phase: (AT + timedelta(seconds=seconds)).isoformat() for phase, seconds in reached.items()}}


def test_the_time_line_counts_from_the_loss_and_from_phase_to_phase():
    whole = timeline(AT, action(seen=0.5, requested=0.5, sent=1.0, confirmed=2.0), [AT + timedelta(seconds=3)])
    assert whole.seconds() == {APPEARED: 0, SEEN: 0.5, REQUESTED: 0.5, SENT: 1, CONFIRMED: 2, DELIVERED: 3}
    assert whole.took() == {SEEN: 0.5, REQUESTED: 0, SENT: 0.5, CONFIRMED: 1, DELIVERED: 1}
    assert whole.missing() == []


def test_an_alert_is_delivered_when_every_channel_has_it():
    done = action(seen=1, requested=1, sent=1, confirmed=1)
    assert timeline(AT, done, [AT, None]).missing() == ["the alert is delivered"]
    assert timeline(AT, done, [AT, AT + timedelta(seconds=9)]).seconds()[DELIVERED] == 9
    assert timeline(AT, None, [None]).missing() == [text for phase, text in PHASES.items() if phase != APPEARED]
