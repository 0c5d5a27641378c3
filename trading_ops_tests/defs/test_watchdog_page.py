"""What does the daemon write down of what ticks, and does it miss the watchdog?"""

from __future__ import annotations

import os
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.definitions.repository_definition import RepositoryDefinition
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat as DagstersOwn
from dagster._utils.error import SerializableErrorInfo

from trading_ops.definitions import defs
from trading_ops.defs.watchdog import heartbeat_sensor
from trading_ops.services import Services
from trading_ops.watchdog.heartbeat import Heartbeat, Ticker
from trading_ops_tests.conftest import NOON

REPOSITORY: RepositoryDefinition = defs.get_repository_def()
ORIGIN = RemoteRepositoryOrigin(
    ManagedGrpcPythonEnvCodeLocationOrigin(LoadableTargetOrigin(module_name="trading_ops.definitions"), "here"), "r"
)
KINDS = {"schedule": InstigatorType.SCHEDULE, "sensor": InstigatorType.SENSOR}
HEALTH, OUTBOX = "system_health_check_schedule", "outbox_sensor"


@pytest.fixture(scope="module")
def home():
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def instance(home):
    home.schedule_storage.wipe()
    home.wipe_daemon_heartbeats()
    return home


def look(instance: dg.DagsterInstance, services: Services) -> dict[str, Ticker]:
    context = dg.build_sensor_context(instance, repository_def=REPOSITORY, resources={"services": services})
    heartbeat_sensor(context)
    heartbeat = services.heartbeats.daemon()
    assert heartbeat is not None
    assert heartbeat.at == services.now()
    return {ticker.name: ticker for ticker in heartbeat.tickers}


def put(instance: dg.DagsterInstance, kind: str, name: str, *ticks: tuple[float, TickStatus], **state) -> None:
    """A schedule or sensor in the daemon's books; ticks are minutes before noon and how they ended."""
    origin, began = RemoteInstigatorOrigin(ORIGIN, name), state.get("began", NOON - timedelta(days=9)).timestamp()
    data = (
        ScheduleInstigatorData("*/15 * * * *", start_timestamp=began)
        if kind == "schedule"
        else SensorInstigatorData(last_sensor_start_timestamp=began)
    )
    status = state.get("status", InstigatorStatus.DECLARED_IN_CODE)
    booked = instance.add_instigator_state(InstigatorState(origin, KINDS[kind], status, data))
    for minutes, ended in ticks:
        error = SerializableErrorInfo("KeyError: 'a'\n", [], "KeyError") if ended == TickStatus.FAILURE else None
        at = (NOON - timedelta(minutes=minutes)).timestamp()
        instance.create_tick(
            TickData(booked.instigator_origin_id, name, KINDS[kind], ended, at, run_ids=[], error=error,
                     selector_id=booked.selector_id)
        )  # fmt: skip


def test_every_schedule_and_sensor_that_is_declared_is_in_the_heartbeat(instance, services):
    tickers = look(instance, services)
    assert set(tickers) == {s.name for s in [*defs.schedules, *defs.sensors]}
    assert all(ticker.running and ticker.last is None for ticker in tickers.values())
    assert tickers[HEALTH].due == NOON + timedelta(minutes=15)  # noon is 12:30
    assert tickers["daily_performance_analysis_schedule"].due == NOON.replace(hour=1, minute=0) + timedelta(days=1)
    assert tickers[OUTBOX].due == NOON + timedelta(seconds=60)


def test_a_schedule_is_due_by_its_cron_after_its_last_tick_and_a_sensor_after_its_interval(instance, services):
    put(instance, "schedule", HEALTH, (30, TickStatus.SUCCESS), (15, TickStatus.SKIPPED))
    put(instance, "sensor", OUTBOX, (7, TickStatus.SKIPPED), (6, TickStatus.STARTED))
    tickers = look(instance, services)
    health, outbox = tickers[HEALTH], tickers[OUTBOX]
    assert (health.last, health.due) == (NOON - timedelta(minutes=15), NOON)
    assert (outbox.last, outbox.due) == (NOON - timedelta(minutes=6), NOON - timedelta(minutes=5))
    assert (health.failures, outbox.failures) == (0, 0)


def test_a_schedule_that_was_started_again_is_due_after_its_start(instance, services):
    put(instance, "schedule", HEALTH, (900, TickStatus.SUCCESS), began=NOON - timedelta(minutes=20))
    assert look(instance, services)[HEALTH].due == NOON - timedelta(minutes=15)


def test_failures_are_counted_back_to_the_last_tick_that_worked(instance, services):
    failed = [(minutes, TickStatus.FAILURE) for minutes in (9, 3, 2, 1)]
    put(instance, "sensor", OUTBOX, failed[0], (5, TickStatus.SKIPPED), *failed[1:], (0, TickStatus.STARTED))
    outbox = look(instance, services)[OUTBOX]
    assert (outbox.failures, outbox.failing_since) == (3, NOON - timedelta(minutes=3))
    assert outbox.error == "KeyError: 'a'"


def test_what_a_person_stopped_does_not_run(instance, services):
    put(instance, "schedule", HEALTH, status=InstigatorStatus.STOPPED)
    assert not look(instance, services)[HEALTH].running


def test_dagsters_own_daemons_are_in_the_heartbeat_with_their_errors(instance, services):
    error = SerializableErrorInfo("OSError: disk full\n", [], "OSError")
    instance.add_daemon_heartbeat(DagstersOwn(NOON.timestamp(), "SENSOR", "id", [error, error]))
    look(instance, services)
    daemons = {daemon.name: daemon for daemon in services.heartbeats.daemon().daemons}
    assert (daemons["SENSOR"].last, daemons["SENSOR"].errors) == (NOON, 2)
    assert daemons["SENSOR"].error == "OSError: disk full"
    assert daemons["SCHEDULER"].last is None


def told(services: Services) -> list[tuple[str, str, str]]:
    alerts = [delivery["alert"] for delivery in services.outbox.deliveries()]
    return [(alert["step"], alert["severity"], alert["what"]) for alert in alerts]


def test_a_watchdog_that_stopped_is_told_once_and_once_that_it_is_back(instance, services):
    def at(minutes: float) -> None:
        services.now = lambda: NOON + timedelta(minutes=minutes)
        look(instance, services)

    services.heartbeats.write(Heartbeat(at=NOON, since=NOON))
    for minute in range(6):
        at(minute)
    assert told(services) == []
    gone = "The watchdog has not looked since 2025-03-10 12:30:00 UTC"
    for minute in (6, 7, 8):
        at(minute)
        assert told(services) == [("opened", "ERROR", gone)]
    services.heartbeats.write(Heartbeat(at=NOON + timedelta(minutes=9), since=NOON))
    for minute in (9, 10):
        at(minute)
        assert told(services)[1:] == [("resolved", "ERROR", gone)]


def test_a_watchdog_that_never_ran_or_whose_file_was_removed_is_not_missed(instance, services):
    for minute in range(0, 20, 2):
        services.now = lambda minute=minute: NOON + timedelta(minutes=minute)
        look(instance, services)
    assert told(services) == []


def test_a_watchdog_whose_file_cannot_be_read_is_missed_from_when_it_was_written(instance, services):
    def at(minutes: float) -> None:
        services.now = lambda: NOON + timedelta(minutes=minutes)
        look(instance, services)

    def written(content: str, minutes: float) -> None:
        services.heartbeats.watchdog_file.write_text(content)
        moment = (NOON + timedelta(minutes=minutes)).timestamp()
        os.utime(services.heartbeats.watchdog_file, (moment, moment))

    at(0)
    written("half of {", 1)
    for minute in range(2, 7):
        at(minute)
    assert told(services) == []
    gone = "The watchdog has not looked since 2025-03-10 12:31:00 UTC"
    for minute in (7, 8):
        at(minute)
        assert told(services) == [("opened", "ERROR", gone)]
    why = services.outbox.deliveries()[0]["alert"]["why"]
    assert "watchdog.json cannot be read: it is no heartbeat" in why
    written("half of [", 9)
    for minute in (9, 10):
        at(minute)
        assert len(told(services)) == 1
    services.heartbeats.write(Heartbeat(at=NOON + timedelta(minutes=11), since=NOON))
    at(11)
    assert told(services)[1:] == [("resolved", "ERROR", gone)]
