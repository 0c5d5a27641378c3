"""Does `trading-ops doctor` find what is wrong, say what to do, and hold still when all is well?"""

import json
import os
import stat
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.audit.spool import SpooledStore
from trading_ops.audit.store import Conflict, Entry
from trading_ops.doctor.bot import local_candles
from trading_ops.doctor.diagnosis import Diagnosis, ends_well
from trading_ops.doctor.examine import examine
from trading_ops.doctor.life import guard, heartbeat
from trading_ops.doctor.life import watchdog as watchdog_line
from trading_ops.doctor.machine import disk, permissions
from trading_ops.doctor.records import audit_store, outbox, spool
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.configuration import NEEDS
from trading_ops.watchdog.heartbeat import DaemonHeartbeat, GuardHeartbeat, Heartbeat, Ticker
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore
from trading_ops_tests.conftest import NOON
from trading_ops_tests.servers.bot import Says, ScriptedServer, raw_server, serving
from trading_ops_tests.test_cli import command, new_home

HEALTH = "/api/health"
CHART = "/api/market/chart/BTCUSDT/1h"
NOBODY = "mongodb://someone:geheim@127.0.0.1:9/trail?timeoutMS=200"
FIRST_BAR = NOON.replace(minute=0) - timedelta(days=8)
BARS = [
    {"time": (FIRST_BAR + hour * timedelta(hours=1)).isoformat(), "open": 1, "high": 2, "low": 1, "close": 2,
     "volume": 5}
    for hour in range(8 * 24)
]  # fmt: skip
ANSWERS: dict[str, Any] = {
    HEALTH: {"healthy": True, "now": NOON.isoformat(), "last_candle_at": NOON.isoformat()},
    "/api/strategies": [{"name": "rsi", "enabled": True}, {"name": "macd", "enabled": False}],
    "/api/paper-trading/portfolio": {
        "initial_usdt": 10_000.0, "balance_usdt": 10_000.0, "equity_usdt": 10_000.0, "total_return_pct": 0.0,
        "total_trades": 0, "winning_trades": 0,
    },
    CHART: BARS,
}  # fmt: skip


@pytest.fixture
def watching(make_services):
    """Services of a bot that answers as scripted."""
    scripted = ScriptedServer(ANSWERS)
    with serving(scripted) as address:
        yield make_services(bot_url=address, bot_timeout_s=20.0, symbols=("BTCUSDT",)), scripted


def only(look: Any, services: Any) -> Diagnosis:
    (diagnosis,) = look(services)
    return diagnosis


def found(services: Any) -> dict[str, Diagnosis]:
    diagnoses = list(examine(services))
    assert len({d.subject for d in diagnoses}) == len(diagnoses)
    return {d.subject: d for d in diagnoses}


def damage(path: Path) -> Path:
    """A file that is no database any more."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"not a database, " * 1_000)
    path.chmod(0o600)
    return path


def test_a_fresh_folder_is_well(services):
    lines = found(services)
    assert [(d.subject, d.found) for d in lines.values() if d.state != "ok"] == []
    assert ends_well(list(lines.values()))
    assert set(lines) == {
        "versions", "configuration", "permissions", "disk", "audit store", "alerts", "bot", "clocks", "candles",
        "heartbeat", "guard", "watchdog", "who is told", *(f"channel {name}" for name in NEEDS),
    }  # fmt: skip


def test_a_bot_that_answers_is_described(watching):
    services, _ = watching
    diagnosis = found(services)["bot"]
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
    diagnosis = found(services)["bot"]
    assert diagnosis.state == state
    assert said in diagnosis.found
    assert diagnosis.what_to_do


def test_a_bot_that_is_down_is_a_line_and_no_exception(make_services):
    lines = found(make_services(bot_url="http://127.0.0.1:9", bot_timeout_s=1.0))
    assert [d.subject for d in lines.values() if d.state == "failed"] == ["bot"]
    assert "clocks" not in lines
    assert "candles" not in lines


def test_a_bot_that_never_answers_is_asked_one_question_only(make_services):
    with raw_server(lambda connection, _: time.sleep(2)) as (address, connections):
        lines = found(make_services(bot_url=address, bot_timeout_s=0.2))
    assert "no whole answer within 0.2 s" in lines["bot"].found
    assert len(connections) == 3  # the attempts of one request


def test_a_bot_that_hangs_after_its_health_is_not_asked_for_candles(watching):
    services, scripted = watching
    scripted.script["/api/strategies"] = Says("busy", 503)
    lines = found(services)
    assert (lines["bot"].state, lines["clocks"].state) == ("failed", "ok")
    assert "candles" not in lines
    assert CHART not in scripted.paths()


@pytest.mark.parametrize(
    ("label", "seconds", "state"),
    [
        (None, 0, "ok"), (None, -59, "ok"), (None, 61, "failed"), (None, -3_600, "failed"), (None, -86_400, "failed"),
        (None, -9 * 86_400, "failed"),
        ("simulated", 0, "ok"), ("simulated", -3_659, "ok"), ("simulated", -3_661, "failed"),
        ("replayed +3 weeks", 61, "failed"), ("recorded", -9 * 86_400, "ok"),
    ],
)  # fmt: skip
def test_a_clock_that_is_more_than_a_minute_off_fails_and_a_candles_length_later_for_a_bot_on_candles(
    watching, label, seconds, state
):
    services, scripted = watching
    scripted.script[HEALTH] = {
        "healthy": True, "now": (NOON + timedelta(seconds=seconds)).isoformat(), "label": label,
    }  # fmt: skip
    diagnosis = found(services)["clocks"]
    assert diagnosis.state == state, diagnosis
    assert ("NTP" in diagnosis.what_to_do) == (state == "failed")


def test_a_bot_that_does_not_tell_its_clock_is_a_warning(watching):
    services, scripted = watching
    scripted.script[HEALTH] = {"healthy": True}
    diagnosis = found(services)["clocks"]
    assert (diagnosis.state, diagnosis.found) == ("warning", "the bot does not tell its clock")


def test_the_candles_of_a_bot_behind_an_address_are_its_own(watching):
    services, scripted = watching
    lines = found(services)
    assert (lines["candles"].state, lines["candles"].found) == ("ok", "1 symbols of 7 days, the bot's own")
    assert "local candles" not in lines
    for bars, said in ((Says("no", 404), "404"), (BARS[: 5 * 24], "none since 2025-03-07 11:00 UTC")):
        scripted.script[CHART] = bars
        diagnosis = found(services)["candles"]
        assert diagnosis.state == "warning"
        assert diagnosis.found.startswith("the bot lacks candles of BTCUSDT: ")
        assert said in diagnosis.found


def test_a_local_folder_that_the_bot_does_not_use_is_no_failure(make_services, tmp_path):
    with serving(ScriptedServer(ANSWERS)) as address:
        lines = found(make_services(bot_url=address, symbols=("BTCUSDT",), candles=tmp_path / "nowhere"))
    assert (lines["candles"].state, lines["local candles"].state) == ("ok", "warning")
    assert "nowhere" in lines["local candles"].found


# the store and its spool


@pytest.mark.parametrize(("file", "failed"), [("audit.db", ["audit store", "alerts"]), ("paper.db", ["bot"])])
def test_a_damaged_file_is_a_line_and_the_others_are_still_looked_at(services, file, failed):
    path = damage(services.settings.data_dir / file)
    lines = found(services)
    assert [d.subject for d in lines.values() if d.state == "failed"] == failed
    assert f"{path} is damaged" in lines[failed[0]].found
    assert lines[failed[0]].what_to_do
    assert {"candles", "disk"} <= set(lines)


def test_without_a_spool_nobody_is_told_that_nothing_is_lost(services):
    damage(services.settings.data_dir / "audit.db")
    assert "nothing can be recorded" in found(services)["audit store"].what_to_do


def test_a_data_folder_that_is_a_file_is_told_and_no_exception(services):
    services.settings.data_dir.write_text("")
    lines = found(services)
    assert [d.subject for d in lines.values() if d.state == "failed"] == ["permissions", "audit store", "alerts", "bot"]
    assert lines["permissions"].found == f"{services.settings.data_dir} is no folder"


def test_a_store_that_is_down_fails_and_what_waits_is_shown(make_services):
    services = make_services(mongodb_uri=NOBODY)
    services.store.append("costs", [Entry("2025-03-09", str(n), {"n": n}) for n in range(13)])
    lines = found(services)
    assert lines["audit store"].state == "failed"
    assert lines["audit store"].what_to_do == "Until then records wait in the spool; nothing is lost."
    assert lines["spool"].state == "warning"
    assert lines["spool"].found.startswith("13 records wait since 20")
    assert lines["spool"].found.endswith(f" UTC in {services.settings.data_dir / 'spool.db'}")
    assert "geheim" not in str(lines)


def test_a_damaged_spool_fails_and_promises_nothing(make_services):
    services = make_services(mongodb_uri=NOBODY)
    path = damage(services.settings.data_dir / "spool.db")
    lines = found(services)
    assert lines["spool"].state == "failed"
    assert f"{path} is damaged" in lines["spool"].found
    assert "nothing can be recorded" in lines["audit store"].what_to_do


def test_records_that_were_refused_fail_and_what_waited_behind_them_is_shipped(make_services, tmp_path):
    services, shared = make_services(), UnreliableStore(tmp_path)
    spooled = services.__dict__["spooled_store"] = SpooledStore(shared, tmp_path / "spool.db", retry_after_s=0)
    shared.largest = 100
    shared.be(DOWN)
    spooled.append("costs", [Entry("", "huge", {"text": "x" * 200}), Entry("", "small", {})])
    shared.be(UP)
    diagnosis = only(spool, services)
    assert (diagnosis.state, diagnosis.found) == ("failed", f"1 records were refused ({tmp_path / 'spool.db'})")
    assert [record.key for record in shared.read("costs")] == ["small"]


class Contested(UnreliableStore):
    """Somebody else always writes first."""

    def put_state(self, collection: str, key: str, body: Any, *, expected_version: int) -> Any:
        super().put_state(collection, key, {}, expected_version=expected_version)
        return super().put_state(collection, key, body, expected_version=expected_version)


def test_two_doctors_at_once_are_both_well(services, tmp_path):
    services.__dict__["store"] = Contested(tmp_path)
    with pytest.raises(Conflict):
        services.store.put_state("doctor", "other", {}, expected_version=0)
    assert only(audit_store, services).state == "ok"


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
    diagnosis = only(local_candles, make_services(candles=market, symbols=("BTCUSDT", "NOSUCHUSDT")))
    assert diagnosis.state == "failed"
    assert "NOSUCHUSDT" in diagnosis.found


class Deaf:
    name = "deaf"
    deduplicates = updates = False
    reports = True

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> None:
        raise DeliveryError("nobody listens")


def test_alerts_that_wait_are_counted(services):
    services.__dict__["channels"] = {"deaf": Deaf()}
    services.outbox.publish(Alert(Severity.ERROR, "key", "what", "why", "do"))
    diagnosis = only(outbox, services)
    assert (diagnosis.state, diagnosis.found) == ("warning", "1 alert waits for a channel")


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


def test_a_damaged_trail_still_prints_a_document(home):
    damage(home / "var" / "audit.db")
    done = command(["trading-ops", "doctor", "--json"], home)
    assert (done.returncode, done.stderr) == (1, "")
    failed = [line["subject"] for line in json.loads(done.stdout) if line["state"] == "failed"]
    assert failed == ["audit store", "alerts"]


def test_a_wrong_setting_is_bad_input(home):
    done = command(["trading-ops", "doctor"], home, TRADING_OPS_BOT_URL="bot.local")
    assert done.returncode == 2
    assert "TRADING_OPS_BOT_URL" in done.stderr


def test_a_mongodb_address_that_cannot_be_one_is_bad_input_in_one_line(home):
    done = command(["trading-ops", "doctor"], home, MONGODB_URI="mongodb://ops:gehe/im@db/trail")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("MONGODB_URI: ")
    assert done.stderr.count("\n") == 1
    assert "gehe" not in done.stderr


def test_services_that_have_an_address_are_lines_of_their_own(make_services):
    with serving(ScriptedServer({"/": {}})) as address:
        lines = found(make_services(frontend_url=address, broker_url="amqp://ops:geheim@127.0.0.1:9//"))
    assert lines["frontend"].state == "ok"
    broker = lines["message broker"]
    assert (broker.state, "geheim" in repr(broker)) == ("failed", False)
    assert "rabbitmqctl" in broker.what_to_do
    assert "cache" not in lines


HOUR = timedelta(hours=1)


def daemons_beat(services, *tickers: Ticker, age_s: float = 30, watchdog: bool = False) -> dict[str, Diagnosis]:
    """What the doctor says of a daemon whose heartbeat is so old, and of a watchdog that looked now, or none."""
    at = services.now() - timedelta(seconds=age_s)
    services.heartbeats.write(DaemonHeartbeat(at=at, since=at - HOUR, tickers=tickers))
    if watchdog:
        services.heartbeats.write(Heartbeat(at=services.now(), since=at - HOUR))
    return {"heartbeat": only(heartbeat, services), "watchdog": only(watchdog_line, services)}


def ticker(name: str, due: timedelta, *, running: bool = True) -> Ticker:
    return Ticker(name=name, kind="schedule", running=running, due=NOON + due)


def test_a_daemon_and_a_watchdog_that_show_life_are_well(services):
    lines = daemons_beat(services, ticker("a", HOUR), ticker("b", -HOUR, running=False), watchdog=True)
    assert {d.state for d in lines.values()} == {"ok"}
    assert lines["heartbeat"].found == "b stopped; the rest of 2 schedules and sensors ticks"
    assert lines["watchdog"].found == "it watches, and pings nobody outside"


def test_a_schedule_that_does_not_tick_is_told(services):
    line = daemons_beat(services, ticker("a", -HOUR / 2))["heartbeat"]
    assert line.state == "failed"
    assert "a has not ticked since it was due at 2025-03-10 12:00:00 UTC" in line.found
    assert line.what_to_do


def test_a_daemon_that_stopped_is_told_with_since_when(services):
    lines = daemons_beat(services, age_s=600)
    assert lines["heartbeat"] == Diagnosis(
        "heartbeat", "warning", "Dagster's daemon has not ticked since 2025-03-10 12:20:00 UTC", "Start it: make ui"
    )
    assert lines["watchdog"].state == "ok"  # there is nothing to watch


def test_a_daemon_that_nobody_watches_is_told(services):
    line = daemons_beat(services)["watchdog"]
    assert (line.state, line.found) == ("warning", "none runs")
    assert "trading-ops watchdog" in line.what_to_do


@pytest.mark.parametrize(
    ("at_s", "seen_s", "state", "said"),
    [
        (-1, -1, "ok", "its watcher looks; rsi confirmed"),
        (-61, -61, "warning", "its watcher has not looked since 2025-03-10 12:28:59 UTC"),
        (
            -1,
            -200,
            "failed",
            "The guard has not seen the bot since 2025-03-10 12:26:40 UTC: Its watcher runs, but: deaf",
        ),
    ],
)
def test_a_guard_that_is_silent_or_blind_is_told(services, at_s, seen_s, state, said):
    at, seen_at = (NOON + timedelta(seconds=seconds) for seconds in (at_s, seen_s))
    beat = GuardHeartbeat(at=at, since=at - HOUR, pid=1, seen_at=seen_at, problem="deaf", stopped={"rsi": "confirmed"})
    services.heartbeats.guard_file.parent.mkdir(parents=True)
    services.heartbeats.guard_file.write_text(beat.model_dump_json())
    line = only(guard, services)
    assert (line.state, line.found) == (state, said)


def test_a_heartbeat_that_cannot_be_read_is_a_line_and_no_exception(services):
    damage(services.heartbeats.daemon_file)
    assert found(services)["heartbeat"].state == "failed"
