"""Does everything tick, as seen from inside the daemon? The heartbeat that the watchdog reads, and the reverse."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorState, InstigatorTick, InstigatorType, TickStatus
from dagster._utils.schedules import schedule_execution_time_iterator

from trading_ops.defs.alerting import root_cause
from trading_ops.defs.resources import SERVICES
from trading_ops.services import Services
from trading_ops.watchdog.heartbeat import Daemon, DaemonHeartbeat, HeartbeatUnreadable, Outage, Ticker, alive_since
from trading_ops.watchdog.outages import tell
from trading_ops.watchdog.rules import watchdog_overdue

# several times within the patience of who reads it; the daemon's own loop takes 5 s
INTERVAL_S = int(max(5, min(60, SERVICES.settings.watchdog_stale_s // 3)))
TICKS = 6  # the newest ones that are looked at: enough to see that failures follow each other


@dg.sensor(
    minimum_interval_seconds=INTERVAL_S,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Writes down that the daemon is alive and what ticks, outside all databases; watches the watchdog.",
)
def heartbeat_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.SkipReason:
    heartbeats, now = services.heartbeats, services.now()
    try:
        previous = heartbeats.daemon()
    except HeartbeatUnreadable as error:
        context.log.warning(f"{error}; it is written anew")
        previous = None
    since = alive_since(previous, now, services.settings.watchdog_stale_s)
    beat = DaemonHeartbeat(
        at=now,
        since=since,
        open=previous.open if previous else {},
        tickers=tuple(_tickers(context, since)),
        daemons=tuple(_daemons(context.instance)),
    )
    heartbeats.write(beat)  # first: telling may take a while, or fail
    _watch_the_watchdog(context, services, beat, now)
    running = sum(ticker.running for ticker in beat.tickers)
    return dg.SkipReason(f"{running} of {len(beat.tickers)} schedules and sensors run, {len(beat.daemons)} daemons")


def _watch_the_watchdog(
    context: dg.SensorEvaluationContext, services: Services, beat: DaemonHeartbeat, now: datetime
) -> None:
    """Tell once when the watchdog, which was there, does not look any more; raises StoreError."""
    why = ""
    try:
        watchdog = services.heartbeats.watchdog()
    except HeartbeatUnreadable as error:  # one that looks writes it anew
        context.log.warning(str(error))
        watchdog, why = services.heartbeats.watchdog_touched(), str(error)
    findings = watchdog_overdue(watchdog, now, alive_since=beat.since, why=why)
    # a file that cannot be read shows no life, however new it is
    looks = set() if why else {n for n, outage in beat.open.items() if watchdog is None or watchdog.at > outage.since}

    def note(outages: Mapping[str, Outage]) -> None:
        if outages != beat.open:
            services.heartbeats.write(beat.model_copy(update={"open": dict(outages)}))

    if findings or looks:
        tell(services.incidents, beat.open, findings, looks, note)


def _tickers(context: dg.SensorEvaluationContext, since: datetime) -> Iterator[Ticker]:
    """Every schedule and sensor of this code, with its newest ticks and when it is due next."""
    repository = context.repository_def
    assert repository is not None, "a sensor is evaluated with its repository"
    states = {(s.instigator_type, s.name): s for s in context.instance.all_instigator_state() if _is_ours(s, context)}
    for schedule in repository.schedule_defs:
        state = states.get((InstigatorType.SCHEDULE, schedule.name))
        running = _runs(state, schedule.default_status == dg.DefaultScheduleStatus.RUNNING)
        ticks = _ticks(context.instance, state)
        began = getattr(state and state.instigator_data, "start_timestamp", None)
        base = max(ticks[0].timestamp if ticks else 0, began or 0) or since.timestamp()
        times = schedule_execution_time_iterator(base, schedule.cron_schedule, schedule.execution_timezone)
        due = next(time for time in times if time.timestamp() > base)
        yield Ticker(name=schedule.name, kind="schedule", running=running, due=due.astimezone(UTC), **_seen(ticks))
    for sensor in repository.sensor_defs:
        state = states.get((InstigatorType.SENSOR, sensor.name))
        running = _runs(state, sensor.default_status == dg.DefaultSensorStatus.RUNNING)
        ticks = _ticks(context.instance, state)
        began = getattr(state and state.instigator_data, "last_sensor_start_timestamp", None)
        base = max(ticks[0].timestamp if ticks else 0, began or 0) or since.timestamp()
        due = _moment(base + (sensor.minimum_interval_seconds or 0))
        yield Ticker(name=sensor.name, kind="sensor", running=running, due=due, **_seen(ticks))


def _is_ours(state: InstigatorState, context: dg.SensorEvaluationContext) -> bool:
    """Whether it is of the code location that is evaluated; a location of another name leaves its own behind."""
    origin = context.code_location_origin
    return origin is None or state.repository_selector.location_name == origin.location_name


def _runs(state: InstigatorState | None, declared: bool) -> bool:
    if state is None or state.status.name == "DECLARED_IN_CODE":
        return declared
    return state.is_running


def _ticks(instance: dg.DagsterInstance, state: InstigatorState | None) -> Sequence[InstigatorTick]:
    """Newest first."""
    return instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=TICKS) if state else []


def _seen(ticks: Sequence[InstigatorTick]) -> dict[str, Any]:
    """When it ticked last, and which failures followed each other up to now."""
    finished = [tick for tick in ticks if tick.status != TickStatus.STARTED]
    failed = []
    for tick in finished:
        if tick.status != TickStatus.FAILURE:
            break
        failed.append(tick)
    error = failed[0].error if failed else None
    return {
        "last": _moment(ticks[0].timestamp) if ticks else None,
        "failures": len(failed),
        "failing_since": _moment(failed[-1].timestamp) if failed else None,
        "error": error and root_cause(error),
    }


def _daemons(instance: dg.DagsterInstance) -> Iterator[Daemon]:
    beats = instance.get_daemon_heartbeats()
    for name in instance.get_required_daemon_types():
        beat = beats.get(name)
        errors = list(beat.errors or []) if beat else []
        yield Daemon(
            name=name,
            last=_moment(beat.timestamp) if beat else None,
            errors=len(errors),
            error=root_cause(errors[0]) if errors else None,
        )


def _moment(timestamp: float) -> datetime:
    return datetime.fromtimestamp(timestamp, UTC)


defs = dg.Definitions(sensors=[heartbeat_sensor])
