"""Which runs failed for good, and what was the error of their own?"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Literal

import dagster as dg
from dagster._core.definitions.assets.job.asset_job import IMPLICIT_ASSET_JOB_NAME
from dagster._core.events import JobFailureData, RunFailureReason

from trading_ops.defs.alerting import days_of, root_cause
from trading_ops.notifications.alert import Alert, Severity

AT_ONCE = 100  # failed runs that one tick looks at, and ended ones
FIRST_LOOK = timedelta(hours=1)  # what failed before the sensor's first tick was seen by who started it
RETRY_WITHIN = timedelta(minutes=10)
RUN = "run/"  # what the incidents of failed runs are called
LISTED = 80  # characters of an incident's name that spell out assets
WILL_RETRY, RETRIED_BY, RETRY_NUMBER = "dagster/will_retry", "dagster/auto_retry_run_id", "dagster/retry_number"
DIED = "The run's process died (killed, out of memory?)"
Fate = Literal["failed", "waits", "retried"]


@dataclass(frozen=True, slots=True)
class Failed:
    """A run that failed for good."""

    run: dg.DagsterRun
    at: float
    retry_never_came: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """How far the failures were looked at, and which failed runs are to be looked at again, with when they failed."""

    after: int | None
    waiting: dict[str, float]

    @classmethod
    def read(cls, cursor: str | None) -> "Seen":
        return cls(**json.loads(cursor)) if cursor else cls(None, {})

    def text(self) -> str:
        return json.dumps({"after": self.after, "waiting": self.waiting})

    def without(self, untold: Iterable[Failed]) -> "Seen":
        """There was no time to tell these."""
        return replace(self, waiting={**self.waiting, **{failed.run.run_id: failed.at for failed in untold}})


def look_for_failures(instance: dg.DagsterInstance, seen: Seen, now: datetime) -> tuple[list[Failed], Seen]:
    """Each run that failed and is not retried, whoever started it, and how far was looked.

    A run that is to be retried is remembered until its retry exists, which then tells for both; where none comes, it
    is told itself.
    """
    failures = instance.fetch_run_status_changes(
        dg.RunStatusChangeRecordsFilter(
            dg.DagsterEventType.RUN_FAILURE,
            after_storage_id=seen.after,
            after_timestamp=(now - FIRST_LOOK).timestamp() if seen.after is None else None,
        ),
        limit=AT_ONCE,
        ascending=True,
    ).records
    candidates = dict(seen.waiting)
    for record in failures:
        candidates.setdefault(record.run_id, record.timestamp)
    failed, waiting = [], {}
    for run_id, failed_at in candidates.items():
        run = instance.get_run_by_id(run_id)
        if run is None:
            continue
        late = now.timestamp() - failed_at > RETRY_WITHIN.total_seconds()
        fate = fate_of(run, retries=instance.run_retries_enabled)
        if fate == "failed" or (fate == "waits" and late):
            failed.append(Failed(run, failed_at, retry_never_came=fate == "waits"))
        elif fate == "waits":
            waiting[run_id] = failed_at
    return failed, Seen(failures[-1].storage_id if failures else seen.after, waiting)


def incident_of(run: dg.DagsterRun) -> str:
    """What a failed run is an incident of, until one like it succeeds: its job, or the assets of a run without one."""
    if not _without_a_job(run.job_name):
        return f"{RUN}{run.job_name}"
    # a check run by itself selects no asset; one beside its asset is told by the asset
    selected = sorted(key.to_user_string() for key in run.asset_selection or run.asset_check_selection or ())
    listed = ",".join(selected)
    if len(listed) > LISTED:
        digest = sha256(listed.encode()).hexdigest()[:8]
        listed = f"{selected[0][:LISTED]},+{len(selected) - 1},{digest}"
    return f"{RUN}{run.job_name}/{listed}" if listed else f"{RUN}{run.job_name}"


def works_again(instance: dg.DagsterInstance, incident: str) -> bool:
    """Whether, of the runs that this incident is about, the one that ended last succeeded."""
    job = incident.removeprefix(RUN).split("/")[0]
    ended = instance.get_run_records(
        dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]),
        limit=AT_ONCE if _without_a_job(job) else 1,
        order_by="end_time",  # not the one that was created last, which may have ended before another failed
    )
    runs = (record.dagster_run for record in ended)
    newest = next((run for run in runs if incident_of(run) == incident), None)
    return newest is not None and newest.status == dg.DagsterRunStatus.SUCCESS


def _without_a_job(job_name: str) -> bool:
    """Whether Dagster made the job itself, one for every selection of assets that somebody materialises."""
    return job_name.startswith(IMPLICIT_ASSET_JOB_NAME)


def fate_of(run: dg.DagsterRun, *, retries: bool) -> Fate:
    """What becomes of a failed run where Dagster retries runs or does not; its tags are written after its failure."""
    if not retries or run.tags.get(WILL_RETRY) == "false":
        return "failed"
    return "retried" if RETRIED_BY in run.tags else "waits"


def failure_alert(instance: dg.DagsterInstance, failed: Failed) -> Alert:
    """The one ERROR about a run that failed for good, with its own error."""
    run = failed.run
    day, retries = _day_of(run), _retries_of(run)
    after = f" after {retries} {'retry' if retries == 1 else 'retries'}" if retries else ""
    why = "\n".join(_reasons(instance, run)) or "no error was recorded"
    return Alert(
        severity=Severity.ERROR,
        incident=incident_of(run),
        dedup_key=f"run_failed/{run.run_id}",
        what=f"{run.job_name} failed{f' for {day}' if day else ''}{after}",
        why=f"{why}\nIt was to be retried, but no retry came." if failed.retry_never_came else why,
        what_to_do=f"See run {run.run_id} in the Dagster UI; when the cause is gone, run it again"
        f"{' for that day' if day else ''}.",
        day=day,
    )


def _day_of(run: dg.DagsterRun) -> str | None:
    """The last day that a run is about; None also where its tags, which anybody may set, say none."""
    with suppress(LookupError, ValueError):
        return next(iter(days_of(run.tags)[-1:]), None)
    return None


def _retries_of(run: dg.DagsterRun) -> int:
    """How often it was tried before; none where its tag is no number."""
    with suppress(ValueError):
        return int(run.tags.get(RETRY_NUMBER, 0))
    return 0


def _reasons(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[str]:
    """Why a run failed: what happened to it from outside, then the errors of its steps."""
    kinds = {dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.ENGINE_EVENT}
    events = [entry.get_dagster_event() for entry in instance.all_logs(run.run_id, of_type=kinds)]
    steps = [root_cause(e.step_failure_data.error) for e in events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    steps = [cause for cause in steps if "DagsterExecutionInterruptedError" not in cause]
    engine = [event for event in events if event.event_type == dg.DagsterEventType.ENGINE_EVENT]
    failure = next((event for event in events if event.event_type == dg.DagsterEventType.RUN_FAILURE), None)
    data = failure.event_specific_data if failure else None
    reason = data.failure_reason if isinstance(data, JobFailureData) else None
    if failure is not None and not (steps and reason == RunFailureReason.STEP_FAILURE):
        yield from _from_outside(failure, engine)
    yield from steps


def _from_outside(failure: dg.DagsterEvent, engine: Sequence[dg.DagsterEvent]) -> Iterator[str]:
    """What failed a run that was not a step's error; `engine`: what Dagster said about it, oldest first."""
    error = getattr(failure.event_specific_data, "error", None)
    died = next((e.message for e in reversed(engine) if "Run execution process" in (e.message or "")), None)
    if error is not None:
        yield root_cause(error)
    elif died is not None:
        yield f"{DIED}: {died}"
    elif "Detected run worker status" in (failure.message or ""):
        yield f"{DIED}: {failure.message}"
    else:
        yield failure.message or "no reason was recorded"
        errors = [getattr(event.event_specific_data, "error", None) for event in engine]
        yield from map(root_cause, list(filter(None, errors))[-1:])
