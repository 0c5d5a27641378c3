"""Tell people what no check can tell alone: a finished backfill, a failed run, alerts that wait."""

import dagster as dg

from trading_ops.audit.store import StoreError
from trading_ops.defs.alerting import summarise_backfill
from trading_ops.defs.failures import Seen, look_for_failures
from trading_ops.notifications.dead_letters import obituary
from trading_ops.services import Services


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells once what a run over past days found.",
)
def backfill_summary_sensor(
    context: dg.RunStatusSensorContext, services: dg.ResourceParam[Services]
) -> dg.SkipReason | None:
    told = summarise_backfill(context.instance, context.dagster_run, services)
    return None if told else dg.SkipReason("the run was about the newest day alone; its checks told what there is")


@dg.sensor(
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells once of a run that failed and is not retried, with its own error.",
)
def run_failure_alert_sensor(
    context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]
) -> dg.SkipReason:
    # Dagster's own run_failure_sensor forgets a run whose alert could not be written; this one comes back to it
    alerts, seen = look_for_failures(context.instance, Seen.read(context.cursor), services.now())
    for alert in alerts:
        services.outbox.publish(alert)
    context.update_cursor(seen.text())
    return dg.SkipReason(f"{len(alerts)} failed runs told, {len(seen.waiting)} wait for their retry")


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends the alerts that an earlier run could not deliver, and tells of those that were given up.",
)
def outbox_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.SkipReason:
    outbox = services.outbox
    said, problem = f"{outbox.drain()} waiting alerts delivered", outbox.store_error
    try:
        dead = obituary(outbox.dead_letters(), services.channels, str(services.now().date()))
        if dead is not None:
            context.log.error(f"{dead.what}: {dead.why}")
            said += f"; {dead.what}"
            outbox.publish(dead)
    except StoreError as error:
        problem = problem or str(error)
    return dg.SkipReason(said + (f"; the audit store is down: {problem}" if problem else ""))


defs = dg.Definitions(sensors=[backfill_summary_sensor, run_failure_alert_sensor, outbox_sensor])
