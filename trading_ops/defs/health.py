"""Is everything up, and what is the account worth right now? `system_health_check`, every 15 minutes."""

import dagster as dg

from trading_ops.bot.client import BotError
from trading_ops.defs.partitions import MAX_RUNTIME
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.portfolio.snapshots import SNAPSHOTS, record_snapshot, take_snapshot
from trading_ops.services import Services

EQUITY = "equity_snapshot"  # the incident of a bot whose equity cannot be read


@dg.op(out=dg.Out(dg.Nothing))
def equity_snapshot(context: dg.OpExecutionContext, services: dg.ResourceParam[Services]) -> None:
    """Records the account's equity, marked to market, per strategy as far as the bot tells it.

    A bot that cannot be read is an incident until it can; the end of a day in it may have to be rebuilt from closed
    trades.
    """
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
            )
        )
        context.log.error(f"no snapshot: {error}")
        return
    services.incidents.recover(EQUITY)
    receipt = record_snapshot(services.store, snapshot)
    where = "waits in the spool" if receipt.spooled else f"{SNAPSHOTS} record {receipt.seq}"
    context.log.info(f"equity {snapshot['equity_usdt']:,.2f} USDT as of {snapshot['as_of']}: {where}")


@dg.job(tags={MAX_RUNTIME: "600"})
def system_health_check() -> None:
    """Records what the account is worth, which the end of each day is told by. Every 15 minutes."""
    equity_snapshot()


system_health_check_schedule = dg.ScheduleDefinition(
    name="system_health_check_schedule",
    job=system_health_check,
    cron_schedule="*/15 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

defs = dg.Definitions(jobs=[system_health_check], schedules=[system_health_check_schedule])
