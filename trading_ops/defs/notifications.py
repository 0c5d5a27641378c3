"""Tell people what no check can tell alone: a finished backfill, and alerts that are still waiting."""

import dagster as dg

from trading_ops.defs.alerting import summarise_backfill
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
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends the alerts that an earlier run could not deliver.",
)
def outbox_sensor(services: dg.ResourceParam[Services]) -> dg.SkipReason:
    return dg.SkipReason(f"{services.outbox.drain()} waiting alerts delivered")


defs = dg.Definitions(sensors=[backfill_summary_sensor, outbox_sensor])
