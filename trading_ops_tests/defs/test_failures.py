"""Is a run that failed for good told once, with what really happened to it?"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.events import EngineEventData, JobFailureData, RunFailureReason
from dagster._core.test_utils import create_run_for_test
from dagster._utils.error import SerializableErrorInfo

from trading_ops.audit.store import StoreUnavailable
from trading_ops.definitions import defs
from trading_ops.defs.failures import RETRY_WITHIN, fate_of, incident_of
from trading_ops.defs.notifications import run_failure_alert_sensor
from trading_ops.notifications.desk import IncidentDesk
from trading_ops.notifications.outbox import Outbox
from trading_ops.services import Services
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore
from trading_ops_tests.conftest import NOON, ROOT

KILLED = "Run execution process for 1234 was terminated by signal 9 (SIGKILL)."
RETRIES = {"run_retries": {"enabled": True, "max_retries": 0}}


@pytest.fixture
def instance(request):
    with dg.DagsterInstance.ephemeral(settings=getattr(request, "param", None)) as instance:
        yield instance


with_retries = pytest.mark.parametrize("instance", [RETRIES], indirect=True)


class Sensor:
    """The sensor with the cursor that the daemon would keep for it."""

    def __init__(self, instance: dg.DagsterInstance, services: Services) -> None:
        self.instance, self.services, self.cursor = instance, services, None

    def look(self) -> str:
        """What it says of its tick."""
        context = dg.build_sensor_context(self.instance, self.cursor, resources={"services": self.services})
        said = run_failure_alert_sensor(context).skip_message
        self.cursor = context.cursor
        return said

    def tick(self) -> list[dict[str, Any]]:
        """The alerts so far."""
        self.look()
        return [dict(delivery["alert"]) for delivery in self.services.outbox.deliveries()]


@pytest.fixture
def sensor(instance, services) -> Sensor:
    return Sensor(instance, services)


def started(instance: dg.DagsterInstance, parent: dg.DagsterRun | None = None, **tags: str) -> dg.DagsterRun:
    lineage = {"parent_run_id": parent.run_id, "root_run_id": parent.run_id} if parent else {}
    return create_run_for_test(
        instance, job_name="j", status=dg.DagsterRunStatus.STARTED,
        tags={f"dagster/{name}": value for name, value in {**tags, **lineage}.items()}, **lineage,
    )  # fmt: skip


@dg.op
def divide() -> None:
    try:
        _ = 1 / 0
    except ZeroDivisionError as error:
        raise RuntimeError("the figures make no sense") from error


@dg.job
def failing() -> None:
    divide()


def test_a_failed_step_is_told_with_its_innermost_error_also_when_started_in_a_terminal(instance, sensor):
    assert sensor.tick() == []
    run = failing.execute_in_process(instance=instance, raise_on_error=False).dagster_run
    for _ in range(2):
        (alert,) = sensor.tick()
    assert (alert["severity"], alert["what"]) == ("ERROR", "failing failed")
    assert alert["why"] == "ZeroDivisionError: division by zero"
    assert run.run_id in alert["what_to_do"]


@dg.job
def sometimes() -> None:
    pass


def succeeded(instance: dg.DagsterInstance) -> None:
    sometimes.execute_in_process(instance=instance)


def failed(instance: dg.DagsterInstance, why: str) -> None:
    run = create_run_for_test(instance, job_name="sometimes", status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(run, why)


def test_a_job_that_fails_again_is_one_incident_until_it_succeeds(instance, sensor):
    failed(instance, "the disk is full")
    assert len(sensor.tick()) == 1
    failed(instance, "the disk is full")
    assert len(sensor.tick()) == 1
    failed(instance, "the bot is gone")
    *_, another = sensor.tick()
    assert (another["step"], another["why"]) == ("reminded", "the bot is gone\nSeen 3 times.")
    for _ in range(2):
        succeeded(instance)
    steps = [(alert["incident"], alert["step"]) for alert in sensor.tick()]
    assert steps == [("run/sometimes", step) for step in ("opened", "reminded", "resolved")]


def test_a_job_that_has_succeeded_before_its_failure_was_seen_is_no_open_incident(instance, sensor, services):
    failed(instance, "the disk is full")
    succeeded(instance)
    assert [alert["step"] for alert in sensor.tick()] == ["opened", "resolved"]
    assert services.incidents.unsettled() == []


def test_a_success_that_ended_before_the_failure_ends_no_incident_though_its_run_was_created_later(instance, sensor):
    fails = create_run_for_test(instance, job_name="sometimes", status=dg.DagsterRunStatus.STARTED)
    succeeded(instance)
    instance.report_run_failed(fails, "the disk is full")
    for _ in range(2):
        assert [alert["step"] for alert in sensor.tick()] == ["opened"]
    succeeded(instance)
    assert [alert["step"] for alert in sensor.tick()] == ["opened", "resolved"]


def test_a_success_that_was_seen_while_the_store_was_down_ends_the_incident_when_it_is_back(
    instance, sensor, services, tmp_path
):
    store = UnreliableStore(tmp_path)
    services.__dict__["outbox"] = Outbox(store, services.channels, services.now)
    services.__dict__["incidents"] = IncidentDesk(store, services.outbox, services.now)
    failed(instance, "the disk is full")
    assert len(sensor.tick()) == 1
    succeeded(instance)
    store.be(DOWN)
    assert "the audit store is down" in sensor.look()
    store.be(UP)
    assert [alert["step"] for alert in sensor.tick()] == ["opened", "resolved"]


@pytest.mark.parametrize(
    "tags",
    [
        {"retry_number": "many"},
        {"retry_number": "9" * 5_000},
        {"asset_partition_range_start": "2025-03-01"},
        {"asset_partition_range_start": "monday", "asset_partition_range_end": "friday"},
    ],
    ids=["a retry that is no number", "a number beyond all", "a range without an end", "a range of no days"],
)
def test_a_run_with_tags_that_nobody_can_read_is_told_and_the_next_one_seen(instance, sensor, services, tags):
    instance.report_run_failed(started(instance, **tags), "the disk is full")
    failed(instance, "the bot is away")
    sensor.look()
    known = [(incident.key, incident.alert.why) for incident in services.incidents.unsettled()]
    assert known == [("run/j", "the disk is full"), ("run/sometimes", "the bot is away")]
    assert [alert["what"] for alert in sensor.tick()] == ["j failed"]  # the other one waits for more of its minute


def test_a_damaged_incident_keeps_no_job_from_being_told_to_work_again_and_is_named(instance, sensor, services):
    failed(instance, "the disk is full")
    instance.report_run_failed(started(instance), "the disk is full")
    sensor.look()
    document = services.store.get_state("incidents", "run/j")
    body = {**document.body, "episode": "first"}
    services.store.put_state("incidents", "run/j", body, expected_version=document.version)
    succeeded(instance)
    assert "the incident 'run/j' is damaged" in sensor.look()
    told = [delivery["alert"] for delivery in services.outbox.deliveries()]
    assert [(alert["incident"], alert["step"]) for alert in told] == [
        ("run/sometimes", "opened"),
        ("run/sometimes", "resolved"),
    ]


@dg.asset
def good() -> None:
    pass


@dg.asset
def flaky(context) -> None:
    if "works" not in context.run.tags:
        raise ValueError("it does not work")


def materialise(instance: dg.DagsterInstance, *assets: str, **tags: str) -> None:
    """What the UI's button does with these assets."""
    job = dg.Definitions(assets=[good, flaky], executor=dg.in_process_executor).resolve_implicit_global_asset_job_def()
    selection = [dg.AssetKey(asset) for asset in assets]
    job.execute_in_process(instance=instance, asset_selection=selection, tags=tags, raise_on_error=False)


def test_materialising_an_asset_ends_no_incident_of_another(instance, sensor):
    materialise(instance, "flaky")
    materialise(instance, "good")
    for _ in range(2):
        (opened,) = sensor.tick()
    assert (opened["incident"], opened["step"]) == ("run/__ASSET_JOB/flaky", "opened")
    materialise(instance, "flaky", works="yes")
    materialise(instance, "good")
    assert [alert["step"] for alert in sensor.tick()] == ["opened", "resolved"]


def test_an_incident_names_the_selected_assets_whatever_their_order_and_stays_short():
    def of(*assets: str) -> str:
        selection = frozenset(map(dg.AssetKey, assets))
        return incident_of(dg.DagsterRun(job_name="__ASSET_JOB", run_id="1", asset_selection=selection))

    assert of("b", "a") == of("a", "b") == "run/__ASSET_JOB/a,b"
    many = [f"asset_number_{number:02}" for number in range(40)]
    assert of(*many).startswith("run/__ASSET_JOB/asset_number_00,+39,")
    assert of(*many) != of(*many[:-1], "another")
    assert len(of("x" * 500)) < 120


def killed(instance, run):
    instance.report_engine_event(KILLED, run)
    instance.report_run_failed(run)


def lost(instance, run):
    instance.report_run_failed(run, "Detected run worker status FAILED: 'gone'. Marking run x as failed.")


def too_long(instance, run):
    instance.report_run_canceling(run, "Canceling due to exceeding maximum runtime of 1800 seconds.")
    instance.report_run_failed(run, "Exceeded maximum runtime of 1800 seconds.")
    instance.report_run_canceled(run)  # what its process says last does not hide it


def unloadable(instance, run):
    error = SerializableErrorInfo("ModuleNotFoundError: No module named 'trading_ops'\n", [], "ModuleNotFoundError")
    reason = RunFailureReason.JOB_INITIALIZATION_FAILURE
    instance.report_run_failed(run, "Execution of run failed.", JobFailureData(error=error, failure_reason=reason))


def unlaunched(instance, run):
    error = SerializableErrorInfo("DagsterUserCodeUnreachableError: Could not reach user code server\n", [], "D")
    instance.report_engine_event("Caught an error for run", run, EngineEventData.engine_error(error))
    instance.report_run_failed(run)


@pytest.mark.parametrize(
    ("happens", "why"),
    [
        (killed, f"The run's process died (killed, out of memory?): {KILLED}"),
        (lost, "The run's process died (killed, out of memory?): Detected run worker status FAILED"),
        (too_long, "Exceeded maximum runtime of 1800 seconds."),
        (unloadable, "ModuleNotFoundError: No module named 'trading_ops'"),
        (unlaunched, "DagsterUserCodeUnreachableError: Could not reach user code server"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_happened_to_a_run_from_outside_is_told_once(instance, sensor, happens, why):
    run = started(instance)
    happens(instance, run)
    for _ in range(2):
        (alert,) = sensor.tick()
    assert alert["link"].endswith(f"/runs/{run.run_id}")
    assert why in alert["why"]


@with_retries
def test_of_a_run_with_retries_only_the_last_failure_is_told(instance, sensor):
    first = started(instance, max_retries="1")
    instance.report_run_failed(first, "the first failure")
    assert instance.get_run_by_id(first.run_id).tags["dagster/will_retry"] == "true"
    assert sensor.tick() == []
    last = started(instance, parent=first, max_retries="1", retry_number="1")
    instance.add_run_tags(first.run_id, {"dagster/auto_retry_run_id": last.run_id})
    instance.report_run_failed(last, "the last failure")
    for _ in range(2):
        (alert,) = sensor.tick()
    assert alert["link"].endswith(f"/runs/{last.run_id}")
    assert (alert["what"], alert["why"]) == ("j failed after 1 retry", "the last failure")
    assert json.loads(sensor.cursor)["waiting"] == {}


@with_retries
def test_a_retry_that_never_came_is_no_silence(instance, sensor, services):
    run = started(instance, max_retries="1")
    instance.report_run_failed(run, "the only failure")
    failed_at = instance.get_run_record_by_id(run.run_id).end_time
    services.now = lambda: NOON.fromtimestamp(failed_at, NOON.tzinfo)
    assert sensor.tick() == []
    services.now = lambda: NOON.fromtimestamp(failed_at, NOON.tzinfo) + RETRY_WITHIN + timedelta(seconds=60)
    (alert,) = sensor.tick()
    assert alert["why"] == "the only failure\nIt was to be retried, but no retry came."


@with_retries
def test_a_retry_that_dagster_gave_up_is_told(instance, sensor):
    run = started(instance, max_retries="1")
    instance.report_run_failed(run)
    assert sensor.tick() == []
    instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})
    assert len(sensor.tick()) == 1


@pytest.mark.parametrize(
    ("retries", "tags", "fate"),
    [
        (False, {"dagster/max_retries": "3"}, "failed"),
        (True, {}, "waits"),  # the tag follows the failure
        (True, {"dagster/will_retry": "false"}, "failed"),
        (True, {"dagster/will_retry": "true"}, "waits"),
        (True, {"dagster/will_retry": "true", "dagster/auto_retry_run_id": "r"}, "retried"),
    ],
)
def test_the_fate_of_a_failed_run_is_in_its_tags(retries, tags, fate):
    assert fate_of(dg.DagsterRun(job_name="j", run_id="1", tags=tags), retries=retries) == fate


def test_an_alert_that_could_not_be_written_is_written_at_the_next_tick(instance, sensor, services, tmp_path):
    store = UnreliableStore(tmp_path)
    services.__dict__["outbox"] = Outbox(store, services.channels, services.now)
    assert sensor.tick() == []
    instance.report_run_failed(started(instance))
    store.be(DOWN)
    with pytest.raises(StoreUnavailable):
        sensor.tick()
    store.be(UP)
    assert len(sensor.tick()) == 1


@with_retries
def test_what_a_tick_had_no_time_to_tell_is_told_by_the_next_ones(instance, sensor, monkeypatch):
    monkeypatch.setattr("trading_ops.defs.notifications.TELLING_S", 0.0)
    retried = started(instance, max_retries="1")
    instance.report_run_failed(retried)
    runs = [create_run_for_test(instance, job_name=f"job_{n}", status=dg.DagsterRunStatus.STARTED) for n in range(3)]
    for run in runs:
        instance.report_run_failed(run)
        instance.add_run_tags(run.run_id, {"dagster/will_retry": "false"})
    for left in (2, 1, 0):
        assert sensor.look() == f"1 failed runs told, {1 + left} wait for their retry or to be told"
        assert set(json.loads(sensor.cursor)["waiting"]) == {retried.run_id, *(run.run_id for run in runs[3 - left :])}
    services = sensor.services
    assert {incident.key for incident in services.incidents.unsettled()} == {"run/job_0", "run/job_1", "run/job_2"}


def test_every_job_has_a_limit_of_its_runtime_and_a_run_without_a_job_too():
    for job in defs.jobs:
        tags = {**defs.resolve_job_def(job.name).tags, **(defs.resolve_job_def(job.name).run_tags or {})}
        assert 0 < int(tags["dagster/max_runtime"]) <= 14_400, job.name
    assert yaml.safe_load((ROOT / "dagster.yaml").read_text())["run_monitoring"]["max_runtime_seconds"] == 14_400
