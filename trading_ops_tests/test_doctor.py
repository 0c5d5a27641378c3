"""Does `trading-ops doctor` find what is wrong, say what to do, and hold still when all is well?"""

import json
import os
import stat
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.doctor import Diagnosis, bot, candles, clocks, disk, ends_well, examine, outbox, permissions
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.outbox import DeliveryError, Outbox
from trading_ops_tests.conftest import NOON
from trading_ops_tests.servers.bot import Says, ScriptedServer, serving
from trading_ops_tests.test_cli import command, new_home

HEALTH = "/api/health"
ANSWERS: dict[str, Any] = {
    HEALTH: {"healthy": True, "now": NOON.isoformat(), "last_candle_at": NOON.isoformat()},
    "/api/strategies": [{"name": "rsi", "enabled": True}, {"name": "macd", "enabled": False}],
    "/api/paper-trading/portfolio": {
        "initial_usdt": 10_000.0, "balance_usdt": 10_000.0, "equity_usdt": 10_000.0, "total_return_pct": 0.0,
        "total_trades": 0, "winning_trades": 0,
    },
}  # fmt: skip


@pytest.fixture
def watching(make_services):
    """Services of a bot that answers as scripted."""
    scripted = ScriptedServer(ANSWERS)
    with serving(scripted) as address:
        yield make_services(bot_url=address, bot_timeout_s=2.0), scripted


def only(look: Any, services: Any) -> Diagnosis:
    (diagnosis,) = look(services)
    return diagnosis


def test_a_fresh_folder_is_well(services):
    found = list(examine(services))
    assert [(d.subject, d.found) for d in found if d.state == "failed"] == []
    assert ends_well(found)
    assert {d.subject for d in found} == {
        "versions", "configuration", "permissions", "disk", "audit store", "alerts", "bot", "clocks", "candles",
    }  # fmt: skip


def test_a_bot_that_answers_is_described(watching):
    services, _ = watching
    diagnosis = only(bot, services)
    assert diagnosis.state == "ok"
    assert "1 of 2 strategies enabled, days 2024-01-01 to 2025-03-09" in diagnosis.found


@pytest.mark.parametrize(
    ("path", "answer", "state", "said"),
    [
        (HEALTH, Says("no", 401), "failed", "TRADING_OPS_BOT_TOKEN is not set"),
        (HEALTH, {"healthy": False, "detail": "exchange offline"}, "failed", "exchange offline"),
        ("/api/strategies", {"success": False, "error": "locked"}, "failed", "locked"),
        ("/api/paper-trading/portfolio", {}, "failed", "initial_usdt"),
        (HEALTH, {"healthy": True, "now": (NOON - timedelta(days=9)).isoformat()}, "warning", "is in the past"),
    ],
)
def test_a_bot_that_is_not_well_says_why(watching, path, answer, state, said):
    services, scripted = watching
    scripted.script[path] = answer
    diagnosis = only(bot, services)
    assert diagnosis.state == state
    assert said in diagnosis.found
    assert diagnosis.what_to_do


def test_a_bot_that_is_down_is_a_line_and_no_exception(make_services):
    found = list(examine(make_services(bot_url="http://127.0.0.1:9", bot_timeout_s=1.0)))
    assert [d.subject for d in found if d.state == "failed"] == ["bot"]


@pytest.mark.parametrize(("seconds", "state"), [(0, "ok"), (-59, "ok"), (61, "failed"), (-3_600, "failed")])
def test_a_clock_that_is_more_than_a_minute_off_fails(watching, seconds, state):
    services, scripted = watching
    scripted.script[HEALTH] = {"healthy": True, "now": (NOON + timedelta(seconds=seconds)).isoformat()}
    diagnosis = only(clocks, services)
    assert diagnosis.state == state
    assert ("NTP" in diagnosis.what_to_do) == (state == "failed")


def test_a_store_that_is_down_fails_and_what_waits_is_shown(make_services):
    services = make_services(mongodb_uri="mongodb://someone:geheim@127.0.0.1:9/trail?serverSelectionTimeoutMS=200")
    found = {d.subject: d for d in examine(services)}
    assert found["audit store"].state == "failed"
    assert found["spool"].state in ("ok", "warning")
    assert "geheim" not in str(found)


def test_a_file_that_others_may_read_fails_with_the_command_that_helps(services):
    _ = services.store.heads()
    path = services.settings.data_dir / "audit.db"
    path.chmod(0o640)
    diagnosis = only(permissions, services)
    assert diagnosis.state == "failed"
    assert diagnosis.what_to_do == f"chmod 600 {path}"
    path.chmod(0o600)
    assert only(permissions, services).state == "ok"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_cannot_be_written_fails(make_services, tmp_path):
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        assert only(permissions, make_services()).state == "failed"
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_the_room_on_the_disk_is_told(services):
    assert "GiB free" in only(disk, services).found


def test_candles_that_are_missing_are_named(make_services, market):
    diagnosis = only(candles, make_services(candles=market, symbols=("BTCUSDT", "NOSUCHUSDT")))
    assert diagnosis.state == "failed"
    assert "NOSUCHUSDT" in diagnosis.found


class Deaf:
    name = "deaf"

    def send(self, alert: Alert, *, possible_duplicate: bool) -> None:
        raise DeliveryError("nobody listens")


def test_alerts_that_wait_are_counted(services):
    services.__dict__["outbox"] = Outbox(services.store, {"deaf": Deaf()})
    services.outbox.publish(Alert(Severity.ERROR, "key", "what", "why", "do"))
    diagnosis = only(outbox, services)
    assert (diagnosis.state, diagnosis.found) == ("warning", "1 alerts wait for a channel")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return new_home(tmp_path)


def test_the_command_says_a_line_for_each_and_exits_0_when_nothing_failed(home):
    done = command(["trading-ops", "doctor"], home)
    assert (done.returncode, done.stderr) == (0, "")
    for subject in ("versions", "configuration", "permissions", "disk", "audit store", "bot", "candles", "Dagster"):
        assert f" {subject}: " in done.stdout
    assert "no daemon runs" in done.stdout


def test_the_command_exits_1_and_names_a_variable_that_nothing_reads(home):
    done = command(["trading-ops", "doctor", "--json"], home, TRADING_OPS_BOT_ULR="http://127.0.0.1:8900")
    assert done.returncode == 1
    (failed,) = [line for line in json.loads(done.stdout) if line["state"] == "failed"]
    assert (failed["subject"], failed["found"]) == ("configuration", "nothing reads TRADING_OPS_BOT_ULR")


def test_a_wrong_setting_is_bad_input(home):
    done = command(["trading-ops", "doctor"], home, TRADING_OPS_BOT_URL="bot.local")
    assert done.returncode == 2
    assert "TRADING_OPS_BOT_URL" in done.stderr
