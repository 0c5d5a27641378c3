"""Tell people what no check can tell alone: a finished backfill, a failed run, alerts that wait."""

import dagster as dg

from trading_ops.audit.store import StoreError
from trading_ops.defs.alerting import days_of, root_cause, run_link, summarise_backfill
from trading_ops.notifications.alert import Alert, Severity
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


@dg.run_failure_sensor(
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells of a run that failed, with its own error.",
)
def run_failure_alert_sensor(context: dg.RunFailureSensorContext, services: dg.ResourceParam[Services]) -> None:
    run = context.dagster_run
    errors = [event.step_failure_data.error for event in context.get_step_failure_events()]
    day = next(iter(days_of(run.tags)[-1:]), None)
    services.outbox.publish(
        Alert(
            severity=Severity.ERROR,
            dedup_key=f"run_failed/{run.run_id}",
            what=f"{run.job_name} failed{f' for {day}' if day else ''}",
            why="\n".join(map(root_cause, errors)) or context.failure_event.message or "no error was recorded",
            what_to_do=f"See run {run.run_id} in the Dagster UI; when the cause is gone, run it again"
            f"{' for that day' if day else ''}.",
            day=day,
            link=run_link(services, run.run_id),
        )
    )


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells what is due of incidents, sends what could not be delivered, tells of what was given up.",
)
def outbox_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.SkipReason:
    outbox, incidents = services.outbox, services.incidents
    due = incidents.tick()
    said = f"{outbox.drain()} waiting alerts delivered" + (f"; {due} messages about incidents" if due else "")
    problem = incidents.store_error or outbox.store_error
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
