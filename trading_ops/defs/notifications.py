"""Tell people what no check can tell alone: a finished backfill, a failed run, alerts that wait."""

import time
from dataclasses import replace

import dagster as dg

from trading_ops.audit.store import StoreError
from trading_ops.defs.alerting import run_link, summarise_backfill
from trading_ops.defs.failures import RUN, Seen, failure_alert, look_for_failures, works_again
from trading_ops.notifications.alert import Severity
from trading_ops.notifications.dead_letters import obituary
from trading_ops.services import Services

TELLING_S = 25.0  # then nothing more is begun: a send may take 30 s, the whole tick a minute


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
    description="Tells once of a run that failed and is not retried, with its own error, and that its job works again.",
)
def run_failure_alert_sensor(
    context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]
) -> dg.SkipReason:
    # Dagster's own run_failure_sensor forgets a run whose alert could not be written; this one comes back to it
    failures, seen = look_for_failures(context.instance, Seen.read(context.cursor), services.now())
    until, told = time.monotonic() + TELLING_S, 0
    for failed in failures:
        if told and time.monotonic() >= until:
            break
        alert = replace(failure_alert(context.instance, failed), link=run_link(services, failed.run.run_id))
        services.incidents.observe(alert, {alert.why: Severity.ERROR})
        told += 1
    seen = seen.without(failures[told:])
    context.update_cursor(seen.text())
    said = f"{told} failed runs told, {len(seen.waiting)} wait for their retry or to be told"
    try:
        found, unread = services.incidents.readable()
    except StoreError as error:  # they are open still when it is back
        return dg.SkipReason(f"{said}; the audit store is down: {error}")
    for key in [incident.key for incident in found if incident.open]:
        if time.monotonic() >= until:
            break
        if key.startswith(RUN) and works_again(context.instance, key):
            services.incidents.recover(key)
    return dg.SkipReason("; ".join([said, *unread]))


def _tell_of_the_dead(context: dg.SensorEvaluationContext, services: Services) -> tuple[str, str | None]:
    """What was given up, told once a day; and why it could not be known or told."""
    said = ""
    unread: list[str] = []
    try:
        letters, unread = services.outbox.dead_letters()
        dead = obituary(letters, services.channels, str(services.now().date()))
        if dead is not None:
            context.log.error(f"{dead.what}: {dead.why}")
            said = f"; {dead.what}"
            services.outbox.publish(dead)
    except StoreError as error:
        unread = [*unread, str(error)]
    return said, "; ".join(unread) or None


@dg.sensor(
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells what is due of incidents, sends what could not be delivered, tells of what was given up.",
)
def outbox_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.SkipReason:
    outbox = services.outbox
    try:
        due = services.incidents.tick()
    finally:  # what fails here is raised when the others were done
        try:
            delivered, problem = outbox.drain(), outbox.store_error
        finally:
            dead, untold = _tell_of_the_dead(context, services)
    said = f"{_count(delivered, 'waiting alert')} delivered"
    said += f"; {_count(due.told, 'message')} about incidents" if due.told else ""
    problem = due.problem or problem or untold
    return dg.SkipReason(said + dead + (f"; left for later: {problem}" if problem else ""))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


defs = dg.Definitions(sensors=[backfill_summary_sensor, run_failure_alert_sensor, outbox_sensor])
