"""Which days are there, and what does every daily asset, job and schedule have in common?"""

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from functools import partial
from typing import Any

import dagster as dg

from trading_ops.bot.client import BotUnreachable, Calendar
from trading_ops.defs.resources import SERVICES
from trading_ops.services import Services

Job = Any  # what dg.define_asset_job gives; Dagster does not export its type
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
REREAD_DAYS = 3  # late and corrected trades arrive within these; a night that was missed is made up for by the next
REREAD_RETRY = dg.RetryPolicy(max_retries=3, delay=240)  # over before the newest day's turn at 01:00
# a run that was killed together with its server is failed after half an hour, not shown as started for ever
MAX_RUNTIME, MAX_RUNTIME_S = "dagster/max_runtime", "1800"


def daily_partitions(calendar: Calendar) -> dg.DailyPartitionsDefinition:
    """The complete UTC days the bot can be measured on; open-ended while its candles keep coming."""
    end = None if calendar.live else str(calendar.last_day + timedelta(days=1))
    return dg.DailyPartitionsDefinition(start_date=str(calendar.first_day), end_date=end, timezone="UTC")


_calendar = SERVICES.known_calendar()  # a server that is down must not keep the definitions from loading
DAYS = daily_partitions(_calendar)

daily_asset = partial(
    dg.asset,
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="audit",
)


class NoDaysChosen(dg.Failure):
    """A run over daily assets that was started without days; trying it again helps nobody."""


def run_days(context: dg.AssetExecutionContext, services: Services) -> list[str]:
    """The run's UTC days.

    Raises NoDaysChosen for a run without any, BotUnreachable where the bot does not cover one of them completely
    (yet), and StoreUnavailable where all are past and the audit store is down.
    """
    if not (context.has_partition_key or context.has_partition_key_range):
        raise NoDaysChosen(
            f"{context.run.job_name} was started without days: choose the UTC days to measure (in the UI, or the tags"
            f" {RANGE_START} and {RANGE_END}), or wait for its schedule, which brings them",
            allow_retries=False,
        )
    days, calendar = list(context.partition_keys), services.bot.calendar()
    if not str(calendar.first_day) <= days[0] <= days[-1] <= str(calendar.last_day):
        raise BotUnreachable(
            f"{days[0]} to {days[-1]} cannot be measured: the bot's complete days are {calendar.first_day} to"
            f" {calendar.last_day}; check that its candles keep coming, then run this again"
        )
    if days[-1] < str(calendar.last_day):
        # the past is stored already: what is measured without its snapshots and trades would be spooled over it
        services.store.head("closed_trades")
    return days


def daily_job(
    name: str, *assets: str, checks_of: tuple[str, ...] = (), description: str, tags: Mapping[str, str] | None = None
) -> Job:
    """A job over daily assets, their checks and those of `checks_of`; by default on the newest complete day."""
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*assets) | dg.AssetSelection.checks_for_assets(*checks_of),
        description=f"{description} Without a partition: the newest complete day.",
        # a run's own tags, not the job's: a backfill of the job brings its range instead of the default day
        run_tags={"dagster/partition": str(_calendar.last_day), MAX_RUNTIME: MAX_RUNTIME_S, **(tags or {})},
        tags={MAX_RUNTIME: MAX_RUNTIME_S, **(tags or {})},
    )


def daily_schedule(job: Job, *, hour: int) -> dg.ScheduleDefinition:
    """At `hour` UTC, the day before; its day is the run key, so that a late or repeated tick runs it once."""

    def request(last: date) -> dg.RunRequest:
        return dg.RunRequest(run_key=str(last), partition_key=str(last))

    return _schedule(job, f"0 {hour} * * *", f"At {hour:02}:00 UTC for the day before. {job.description}", request)


def reread_job(name: str, *assets: str, description: str) -> Job:
    """A job over a range of days, which its schedule brings: it has no day of its own to fall back on."""
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*assets),
        description=description,
        tags={MAX_RUNTIME: MAX_RUNTIME_S},
        op_retry_policy=REREAD_RETRY,
    )


def reread_schedule(job: Job, *, cron: str) -> dg.ScheduleDefinition:
    """The days before the newest one that late and corrected trades may still belong to."""

    def request(last: date) -> dg.RunRequest | dg.SkipReason:
        first = max(_calendar.first_day, last - timedelta(days=REREAD_DAYS))
        before = last - timedelta(days=1)
        if before < first:
            return dg.SkipReason(f"{last} is the bot's first day: there is none before it")
        return dg.RunRequest(run_key=f"{last} again", tags={RANGE_START: str(first), RANGE_END: str(before)})

    return _schedule(job, cron, str(job.description), request)


def _schedule(
    job: Job, cron: str, description: str, request: Callable[[date], dg.RunRequest | dg.SkipReason]
) -> dg.ScheduleDefinition:
    """A schedule in UTC whose tick is about the days up to the one before it."""

    @dg.schedule(
        job=job,
        name=f"{job.name}_schedule",
        cron_schedule=cron,
        execution_timezone="UTC",
        description=description,
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        last = context.scheduled_execution_time.date() - timedelta(days=1)
        if not DAYS.has_partition_key(str(last)):
            return dg.SkipReason(f"{last} is not covered by the bot's candles, which end on {_calendar.last_day}")
        return request(last)

    return schedule
