"""Is every component's state recorded, told and shown, and the account's worth, every quarter of an hour?"""

import json
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from trading_ops.definitions import defs
from trading_ops.defs.health import DUE, equity_snapshots, system_health
from trading_ops.health.telling import incident_of
from trading_ops.services import Services
from trading_ops_tests.conftest import NOON
from trading_ops_tests.fakes import ScriptedBot
from trading_ops_tests.servers.bot import Says, ScriptedServer, Turns, raw_server, serving
from trading_ops_tests.servers.mongod import Mongod
from trading_ops_tests.servers.rabbitmq import queue_of, rabbitmq
from trading_ops_tests.servers.redis import redis_server

ACCOUNT = {
    "as_of": "2025-03-10T00:00:20Z", "initial_usdt": 10_000.0, "balance_usdt": 10_000.0, "equity_usdt": 10_250.0,
    "total_return_pct": 2.5, "total_trades": 4, "winning_trades": 3,
}  # fmt: skip


WELL = {"healthy": True, "now": NOON.isoformat(), "last_candle_at": NOON.isoformat()}


def check(services: Services, bot: Any = None) -> dg.ExecuteInProcessResult:
    """The account alone."""
    if bot is not None:
        services.__dict__["bot"] = bot  # a cached property holds what was put there
    return materialise(services, equity_snapshots)


def materialise(services: Services, *assets: Any, **given: Any) -> dg.ExecuteInProcessResult:
    config = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return dg.materialize(list(assets), resources={"services": services}, run_config=config, **given)


def checked(services: Services, due: str = "2025-03-10T12:30:00+00:00") -> dict[str, Any]:
    """What a check records; the run always succeeds."""
    run = materialise(services, system_health, tags={DUE: due})
    assert run.success
    return services.store.read("health_history")[-1].body


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {name: seen["status"] for name, seen in document["components"].items()}


def told(services: Services) -> list[tuple[str, str]]:
    return [(body["alert"]["severity"], body["alert"]["what"]) for body in services.outbox.deliveries()]


@pytest.fixture
def quiet(make_services):
    """Services without what this machine itself and the candles are like."""
    usual = {"health_timeout_s": 1.0, "health_off": ("disk", "memory", "candles")}
    return lambda **more: make_services(**usual | more)


def test_the_accounts_equity_is_recorded_under_its_quarter_of_an_hour(services):
    assert check(services, ScriptedBot(account=ACCOUNT)).success
    (record,) = services.store.read("equity_snapshots")
    assert (record.partition, record.key) == ("2025-03-10", "00:00")
    assert (record.body["equity_usdt"], record.body["balance_usdt"]) == (10_250.0, 10_000.0)
    assert record.body["source"] == "scripted-1"


def test_the_paper_bots_snapshot_tells_every_strategy(services):
    assert check(services).success
    (record,) = services.store.read("equity_snapshots")
    worth = sum(strategy["equity_usdt"] for strategy in record.body["strategies"].values())
    assert sorted(record.body["strategies"]) == ["bollinger", "macd", "rsi", "volume"]
    assert worth == pytest.approx(record.body["equity_usdt"])
    open_profit = sum(strategy["unrealised_usdt"] for strategy in record.body["strategies"].values())
    assert open_profit == pytest.approx(record.body["equity_usdt"] - record.body["balance_usdt"])


@pytest.mark.parametrize("account", [{}, None, ACCOUNT | {"equity_usdt": float("nan")}], ids=["empty", "null", "NaN"])
def test_an_account_that_is_none_is_told_once_and_recorded_as_nothing(services, account):
    for _ in range(3):
        assert check(services, ScriptedBot(account=account)).success
    assert services.store.read("equity_snapshots") == []
    (told,) = services.outbox.deliveries()
    assert told["alert"]["severity"] == "ERROR"
    assert "Portfolio: " in told["alert"]["why"]


def steps(services: Services) -> list[str]:
    return [delivery["alert"]["step"] for delivery in services.outbox.deliveries()]


def test_each_outage_of_the_bot_is_told_once_and_so_is_its_end_and_the_runs_go_on(services):
    for minute, reachable in enumerate([False, False, True, True, False, False, True]):
        services.now = lambda minute=minute: NOON + timedelta(minutes=15 * minute)
        bot = ScriptedBot(account=ACCOUNT | {"as_of": f"{services.now():%Y-%m-%dT%H:%M:20Z}"}, reachable=reachable)
        assert check(services, bot).success
    assert steps(services) == ["opened", "resolved"] * 2
    first, ended = (delivery["alert"] for delivery in services.outbox.deliveries()[:2])
    assert first["why"] == "connection refused"
    assert ended["why"] == "It lasted 30 min, until 2025-03-10 13:00 UTC, and was seen 2 times."


def test_an_outage_that_lasts_is_reminded_of_once_a_day(services):
    for hours in (0, 6, 24, 30, 48):
        services.now = lambda hours=hours: NOON + timedelta(hours=hours)
        assert check(services, ScriptedBot(reachable=False)).success
    assert steps(services) == ["opened", "reminded", "reminded"]


def test_an_unreachable_bot_is_told_while_the_audit_store_is_down_too(make_services, capsys):
    services = make_services(mongodb_uri="mongodb://127.0.0.1:9/x?timeoutMS=100")
    assert check(services, ScriptedBot(reachable=False)).success
    assert "The bot's equity could not be read" in "".join(capsys.readouterr())


def test_everything_up_is_healthy_and_tells_nothing_B001(make_services, mongod, tmp_path):
    web = ScriptedServer({"/api/health": WELL, "/ai": {}, "/": {}})
    with (
        serving(web) as address,
        redis_server(tmp_path) as redis,
        rabbitmq(tmp_path) as broker,
        queue_of(broker, 3) as queue,
    ):
        services = make_services(
            bot_url=address, ai_service_url=f"{address}/ai", frontend_url=address, redis_url=f"redis://127.0.0.1:{redis}",
            broker_url=f"amqp://guest:guest@{broker}//", health_queues=(queue,),
            mongodb_uri=mongod.address("health_B001", replicaSet="rs0"), symbols=("BTCUSDT",),
            health_disk_warning_pct=100, health_disk_critical_pct=100,
            health_memory_warning_pct=100, health_memory_critical_pct=100, health_off=("candles",),
        )  # fmt: skip
        document = checked(services)
    assert statuses(document) == dict.fromkeys(
        ("engine", "ai_service", "frontend", "document_db", "cache", "broker", "disk", "memory"), "healthy"
    ) | {"candles": "not configured"}
    assert (document["overall"], document["alerts"]) == ("healthy", [])
    assert told(services) == []


def test_an_engine_that_refuses_is_down_and_told_as_critical_B002(quiet):
    services = quiet(bot_url="http://127.0.0.1:9")
    document = checked(services)
    assert (document["overall"], statuses(document)["engine"]) == ("critical", "down")
    ((severity, what),) = told(services)
    assert (severity, what[:15]) == ("CRITICAL", "engine is down:")
    assert document["alerts"] == [what]


def test_a_later_component_never_makes_the_overall_status_better_B003(quiet):
    with serving(ScriptedServer({"/ai": Says("no", 500), "/": {}})) as address:
        services = quiet(bot_url="http://127.0.0.1:9", ai_service_url=f"{address}/ai", frontend_url=address)
        document = checked(services)
    assert statuses(document)["ai_service"] == "unhealthy"
    assert statuses(document)["frontend"] == "healthy"
    assert document["overall"] == "critical"


def test_with_every_component_down_each_is_told_and_the_run_succeeds_B004(make_services, capsys):
    nobody = "http://127.0.0.1:9"
    services = make_services(
        bot_url=nobody, ai_service_url=nobody, frontend_url=nobody, redis_url="redis://127.0.0.1:9",
        broker_url="amqp://127.0.0.1:9//", mongodb_uri="mongodb://127.0.0.1:9/x", health_timeout_s=1.0,
        health_disk_warning_pct=0, health_disk_critical_pct=0,
        health_memory_warning_pct=0, health_memory_critical_pct=0,
    )  # fmt: skip
    document = _spooled(services)
    assert document["overall"] == "critical"
    assert len(document["alerts"]) == 8
    said = "".join(capsys.readouterr())  # the terminal is the channel
    for alert in document["alerts"]:
        assert alert in said, alert


def _spooled(services: Services) -> dict[str, Any]:
    """What waits for the store, which is down."""
    assert materialise(services, system_health, tags={DUE: "2025-03-10T12:30:00+00:00"}).success
    assert services.spooled_store is not None
    assert services.spooled_store.backlog().waiting == 1
    (record,) = services.store.read("health_history", partitions=["2025-03-10"], key="12:30:00")
    return record.body


@pytest.mark.parametrize("fault", ["hangs", "is gone"])
def test_a_document_db_that_is_down_leaves_the_report_here_and_the_others_checked_B019(quiet, tmp_path, fault, capsys):
    with Mongod(tmp_path / "db") as server, serving(ScriptedServer({"/api/health": WELL})) as address:
        services = quiet(mongodb_uri=server.address("x", replicaSet="rs0"), bot_url=address)
        if fault == "hangs":
            with server.frozen():
                document = _spooled(services)
        else:
            server.kill()
            document = _spooled(services)
        assert (statuses(document)["document_db"], statuses(document)["engine"]) == ("down", "healthy")
        assert "document DB is down" in "".join(capsys.readouterr())
        if fault == "is gone":
            server.start()
        services.store.close()
        later = quiet(mongodb_uri=server.address("x", replicaSet="rs0"))  # the next process
        assert later.spooled_store.ship() == 1
        (record,) = later.store.read("health_history")
        assert (record.seq, record.body) == (1, document)
        later.store.close()


def test_a_broker_that_is_down_is_told_without_a_broker_B015(quiet, capsys):
    services = quiet(broker_url="amqp://ops:geheim@127.0.0.1:9/trading")
    document = checked(services)
    assert (statuses(document)["broker"], document["overall"]) == ("down", "critical")
    (delivery,) = services.outbox.deliveries()
    assert [channel["state"] for channel in delivery["channels"].values()] == ["sent"]
    assert "message broker is down" in "".join(capsys.readouterr())
    assert "geheim" not in json.dumps([document, delivery])
    assert document["components"]["broker"]["address"] == "amqp://127.0.0.1:9/trading"
    assert defs.resolve_job_def("system_health_check").executor_def is dg.in_process_executor


@pytest.mark.parametrize(
    ("settings", "status", "what", "severity"),
    [
        pytest.param({"health_disk_warning_pct": 0}, "degraded", "Disk usage high: ", "WARNING", id="B011"),
        (
            {"health_disk_warning_pct": 0, "health_disk_critical_pct": 0},
            "critical",
            "Disk usage critical: ",
            "CRITICAL",
        ),
    ],
)
def test_a_disk_that_fills_is_told_with_its_figure(make_services, settings, status, what, severity):
    services = make_services(health_off=("engine", "memory", "candles"), **{"health_disk_critical_pct": 100} | settings)
    document = checked(services)
    used = document["components"]["disk"]["numbers"]["used_pct"]
    assert document["overall"] == status
    assert told(services) == [(severity, f"{what}{used:g}%")]


def test_a_slow_answer_is_a_warning_B005(quiet):
    with serving(ScriptedServer({"/": {}})) as address:
        services = quiet(
            frontend_url=address, health_slow_s=0.000_001, health_off=("engine", "disk", "memory", "candles")
        )
        document = checked(services)
    seen = document["components"]["frontend"]
    assert (document["overall"], seen["status"]) == ("degraded", "degraded")
    assert told(services) == [("WARNING", f"frontend is slow: {seen['latency_ms']}ms")]


def test_a_failure_that_passes_within_the_check_tells_nobody_B017(quiet):
    with serving(ScriptedServer({"/": Turns(Says("no", 500), {})})) as address:
        services = quiet(frontend_url=address)
        document = checked(services)
    assert (document["overall"], document["components"]["frontend"]["tries"]) == ("healthy", 2)
    assert told(services) == []


def test_a_timeout_counts_after_a_second_one_in_the_same_check_B018(quiet):
    import time

    with raw_server(lambda connection, _: time.sleep(3)) as (address, connections):
        document = checked(quiet(frontend_url=address, health_timeout_s=0.3))
    assert (statuses(document)["frontend"], len(connections)) == ("down", 2)


def test_a_check_is_recorded_under_the_time_it_was_due_and_a_rerun_revises_it(quiet):
    services = quiet()
    for _ in range(2):
        checked(services, "2025-03-10T12:15:00+00:00")
    checked(services, "2025-03-10T12:30:00+00:00")
    keys = [(r.partition, r.key, r.body["at"]) for r in services.store.read("health_history")]
    assert keys == [
        ("2025-03-10", "12:15:00", "2025-03-10T12:15:00+00:00"),
        ("2025-03-10", "12:30:00", "2025-03-10T12:30:00+00:00"),
    ]


def test_a_check_that_a_person_starts_is_recorded_under_the_time_of_its_run(quiet):
    services = quiet()
    with dg.DagsterInstance.ephemeral() as instance:
        run = materialise(services, system_health, instance=instance)
        created = instance.get_run_record_by_id(run.run_id).create_timestamp
    (record,) = services.store.read("health_history")
    assert record.body["at"] == created.isoformat()


def test_the_asset_shows_a_table_and_the_uptime_of_what_was_looked_at(quiet):
    with serving(ScriptedServer({"/": Turns({}, {}, Says("no", 500))})) as address:
        services = quiet(frontend_url=address)
        for hours in (2, 1, 0):
            due = (NOON - timedelta(hours=hours)).isoformat()
            run = materialise(services, system_health, tags={DUE: due})
    (event,) = run.asset_materializations_for_node("system_health")
    rows = {row.data["component"]: row.data for row in event.metadata["components"].records}
    assert (rows["frontend"]["status"], rows["frontend"]["found"]) == ("unhealthy", "frontend is unhealthy: HTTP 500")
    assert rows["cache"] == {
        "component": "cache", "status": "not configured", "ms": "-", "found": "no address",
    }  # fmt: skip
    assert event.metadata["overall"].value == "critical"
    lines = event.metadata["uptime"].value.splitlines()
    (frontend,) = [line for line in lines if line.startswith("| frontend")]
    assert frontend.startswith(f"| frontend | {21 * '⬜'}🟩🟩🟥 | 66.67 % (3.1 % known) | 66.67 % (")


def test_the_schedule_asks_for_one_check_a_tick():
    schedule = defs.get_repository_def().get_schedule_def("system_health_check_schedule")
    with dg.build_schedule_context(scheduled_execution_time=NOON) as context:
        (request,) = schedule.evaluate_tick(context).run_requests
    assert (request.run_key, request.tags[DUE]) == (NOON.isoformat(), NOON.isoformat())


def test_the_job_checks_first_and_records_the_account_then(quiet, make_services):
    with dg.DagsterInstance.ephemeral() as instance:
        run = materialise(quiet(), system_health, equity_snapshots, instance=instance)
        order = [event.node_name for event in run.get_asset_materialization_events()]
    assert order == ["system_health", "equity_snapshots"]
    job = defs.resolve_job_def("system_health_check")
    assert {key.to_user_string() for key in job.asset_layer.selected_asset_keys} == {
        "system_health", "equity_snapshots",
    }  # fmt: skip


def test_a_bot_that_the_check_found_down_is_not_asked_again_and_told_once(quiet):
    with raw_server(lambda connection, _: connection.close()) as (address, connections):
        services = quiet(bot_url=address)
        assert materialise(services, system_health, equity_snapshots).success
    assert len(connections) == 2  # the check's two looks
    assert [severity for severity, _ in told(services)] == ["CRITICAL"]


def test_a_bot_that_is_up_and_does_not_tell_its_equity_is_told(quiet):
    with serving(ScriptedServer({"/api/health": WELL})) as address:
        services = quiet(bot_url=address)
        result = materialise(services, system_health, equity_snapshots)
    assert result.success
    assert told(services) == [("ERROR", "The bot's equity could not be read")]
    (delivery,) = services.outbox.deliveries()
    assert delivery["alert"]["link"] == f"http://127.0.0.1:3000/runs/{result.run_id}"


def test_an_outage_is_told_once_and_so_is_its_end(quiet):
    down, answers = Says("no", 500), {}
    with serving(ScriptedServer({"/": Turns(*2 * [down], *2 * [down], answers, answers)})) as address:
        services = quiet(frontend_url=address)
        for minutes in (0, 10, 20, 30):
            services.now = lambda minutes=minutes: NOON + timedelta(minutes=minutes)
            checked(services, services.now().isoformat())
    assert steps(services) == ["opened", "resolved"]
    opened, ended = (delivery["alert"] for delivery in services.outbox.deliveries())
    assert (opened["what"], opened["incident"]) == ("frontend is unhealthy: HTTP 500", "health/frontend")
    assert "/runs/" in opened["link"]
    assert "It lasted 20 min" in ended["why"]


def test_a_component_that_gets_worse_is_told_again(make_services):
    for critical_pct in (100, 0):
        services = make_services(
            health_off=("engine", "memory", "candles"), health_disk_warning_pct=0, health_disk_critical_pct=critical_pct
        )
        checked(services)
    assert [severity for severity, _ in told(services)] == ["WARNING", "CRITICAL"]


def test_a_component_that_is_switched_off_is_no_incident_any_more(make_services):
    off = ("engine", "memory", "candles")
    checked(make_services(health_off=off, frontend_url="http://127.0.0.1:9", health_timeout_s=1.0))
    services = make_services(health_off=(*off, "frontend"), frontend_url="http://127.0.0.1:9")
    checked(services)
    assert steps(services) == ["opened", "resolved"]


def test_what_is_found_is_told_and_logged_while_the_audit_store_on_this_machine_is_damaged(quiet, tmp_path, capsys):
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "audit.db").write_bytes(b"not a database, " * 1_000)
    services = quiet(frontend_url="http://127.0.0.1:9")
    with dg.DagsterInstance.ephemeral() as instance:
        run = materialise(services, system_health, instance=instance)
        logged = [entry.user_message for entry in instance.all_logs(run.run_id)]
    assert run.success
    assert "frontend is down" in "".join(capsys.readouterr())
    (report,) = [text for text in logged if text.startswith("not recorded: ")]
    assert json.loads(report.partition("what was found: ")[2])["overall"] == "critical"


def test_each_component_has_an_incident_of_its_own(quiet):
    services = quiet(frontend_url="http://127.0.0.1:9", ai_service_url="http://127.0.0.1:9")
    checked(services)
    incidents = {body["alert"]["incident"] for body in services.outbox.deliveries()}
    assert incidents == {incident_of("frontend"), incident_of("ai_service")}
