"""Is everything up, and what is the account worth right now? `system_health_check`, every 15 minutes."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from trading_ops.bot.client import BotError
from trading_ops.defs.alerting import run_link
from trading_ops.defs.partitions import MAX_RUNTIME
from trading_ops.defs.presenting import table_of
from trading_ops.health.checking import check
from trading_ops.health.history import was_down
from trading_ops.health.summary import table_rows, uptime_markdown
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.portfolio.snapshots import SNAPSHOTS, record_snapshot, take_snapshot
from trading_ops.services import Services

EQUITY = "equity_snapshot"  # the incident of a bot whose equity cannot be read
DUE = "trading_ops/due"  # the tag of the time that a check's schedule asked for


@dg.asset(group_name="health")
def system_health(context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]) -> dg.MaterializeResult:
    """How bot, AI service, frontend, document DB, cache, broker, disk, memory and candles are, and were for 30 days.

    Grain: one document a check, in `health_history`. Rules: trading_ops/health/rules.py
    """
    at = _due(context)
    done = check(services, at, link=run_link(services, context.run.run_id))
    for found in done.document["alerts"]:
        context.log.warning(found)
    if not done.recorded:
        context.log.error(f"{done.kept}; what was found: {json.dumps(done.document)}")
    return dg.MaterializeResult(
        metadata={
            "overall": done.document["overall"],
            "components": table_of(table_rows(done.verdicts)),
            "uptime": dg.MetadataValue.md(uptime_markdown(done.past, at)),
            "told": len(done.document["alerts"]),
            "audit": done.kept,
        }
    )


def _due(context: dg.AssetExecutionContext) -> datetime:
    """When the check was due; of one that a person started, when that was."""
    if DUE in context.run.tags:
        return datetime.fromisoformat(context.run.tags[DUE])
    record = context.instance.get_run_record_by_id(context.run.run_id)
    assert record is not None  # the run that asks is stored
    return record.create_timestamp.astimezone(UTC)


@dg.asset(group_name="health", deps=[system_health], output_required=False)
def equity_snapshots(
    context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]
) -> Iterator[dg.MaterializeResult]:
    """The account's equity, marked to market, per strategy as far as the bot tells it.

    A bot that is up and cannot be read is an incident until it can; one that the check found down is not asked again.
    The end of a day in it may have to be rebuilt from closed trades. Grain: one document every 15 minutes.
    """
    if was_down(services.store, _due(context), "engine"):
        context.log.error("no snapshot: the engine is down, which the check has told")
        return
    try:
        snapshot = take_snapshot(services.bot)
    except BotError as error:
        day = str(services.now().date())
        services.incidents.observe(
            Alert(
                severity=Severity.ERROR,
                incident=EQUITY,
                dedup_key=f"{EQUITY}/{day}",
                what="The bot's equity could not be read",
                why=str(error),
                what_to_do="See that the bot runs and answers: `trading-ops doctor`. Days without a snapshot near 24:00"
                " UTC are rebuilt from closed trades, without open positions.",
                day=day,
                link=run_link(services, context.run.run_id),
            )
        )
        context.log.error(f"no snapshot: {error}")
        return
    services.incidents.recover(EQUITY)
    receipt = record_snapshot(services.store, snapshot)
    where = "waits in the spool" if receipt.spooled else f"{SNAPSHOTS} record {receipt.seq}"
    yield dg.MaterializeResult(metadata={"equity_usdt": snapshot["equity_usdt"], "as_of": snapshot["as_of"],
                                         "candles": snapshot["candles"], "audit": where})  # fmt: skip


system_health_check = dg.define_asset_job(
    "system_health_check",
    selection=dg.AssetSelection.assets(system_health, equity_snapshots),
    description="Looks at everything the bot lives on, and records what the account is worth. Every 15 minutes.",
    tags={MAX_RUNTIME: "600"},
)


@dg.schedule(
    job=system_health_check,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def system_health_check_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """Every 15 minutes; a tick that comes late or twice asks for the same check."""
    due = context.scheduled_execution_time.astimezone(UTC).isoformat()
    return dg.RunRequest(run_key=due, tags={DUE: due})


defs = dg.Definitions(
    assets=[system_health, equity_snapshots], jobs=[system_health_check], schedules=[system_health_check_schedule]
)
