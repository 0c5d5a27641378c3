"""What is known and told of a run although the bot is gone by then, and is nobody asked for a run without days?"""

import dagster as dg
import pytest

from trading_ops.audit.store import Entry
from trading_ops.bot.client import BotUnreachable, Calendar
from trading_ops.definitions import defs
from trading_ops.defs.alerting import summarise_backfill
from trading_ops.defs.notifications import backfill_summary_sensor
from trading_ops.defs.partitions import RANGE_END, RANGE_START
from trading_ops.defs.resources import AuditIOManager
from trading_ops.services import Services
from trading_ops_tests.conftest import NEWEST
from trading_ops_tests.fakes import ScriptedBot, trade

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class GoneBot(ScriptedBot):
    """Does not answer any more, not even what its label and days are."""

    def calendar(self) -> Calendar:
        raise BotUnreachable("connection refused")

    @property
    def label(self) -> str:  # type: ignore[override]
        raise BotUnreachable("connection refused")


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def measure(services: Services, instance: dg.DagsterInstance, first: str, last: str) -> dg.ExecuteInProcessResult:
    """One run over `closed_trades` with the bot up, which is gone when it has ended."""
    services.__dict__["bot"] = ScriptedBot([trade("1", f"{first}T10:00:00+00:00")])
    result = (
        dg.Definitions(
            assets=defs.assets,
            resources={"services": services, "audit": AuditIOManager(services)},
            executor=dg.in_process_executor,
        )
        .resolve_implicit_global_asset_job_def()
        .execute_in_process(
            asset_selection=[dg.AssetKey("closed_trades")],
            tags={RANGE_START: first, RANGE_END: last},
            instance=instance,
            run_config=QUIET,
        )
    )
    services.__dict__["bot"] = GoneBot()
    return result


def test_the_summary_is_told_with_what_was_stored_when_the_bot_is_gone_by_then(services, instance):
    result = measure(services, instance, "2025-03-05", "2025-03-07")
    told = summarise_backfill(instance, result.dagster_run, services)
    assert told is not None
    assert told.what == "3 past days measured, 2025-03-05 to 2025-03-07 (scripted candles)"
    assert [d["alert"]["dedup_key"] for d in services.outbox.deliveries()] == [told.dedup_key]


def test_a_run_about_the_newest_day_is_no_past_one_because_the_bot_is_gone(services, instance):
    result = measure(services, instance, NEWEST, NEWEST)
    assert summarise_backfill(instance, result.dagster_run, services) is None
    assert services.outbox.deliveries() == []


def test_a_run_without_days_is_passed_over_without_asking_the_bot(services, instance):
    @dg.job
    def without_days() -> None:
        pass

    result = without_days.execute_in_process(instance=instance, run_config=QUIET)
    services.__dict__["bot"] = None  # whoever asks it fails
    (success,) = [e for e in result.all_events if e.event_type == dg.DagsterEventType.RUN_SUCCESS]
    context = dg.build_run_status_sensor_context(
        "backfill_summary_sensor", success, instance, result.dagster_run, resources={"services": services}
    )
    assert "newest day" in str(backfill_summary_sensor(context).skip_message)


OVER_BUDGET = {  # as a release before recorded it
    "day": NEWEST,
    "error": None, "day_usd": 12.0, "month_usd": 12.0, "platform_month_projected_usd": 12.0, "llm_allowed": False,
    "requests": 1, "tokens": 1, "cost_by_model_usd": {},
    "alerts": [{"period": "day", "spent_usd": 12.0, "limit_usd": 10.0, "severity": "ERROR"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("bot", "told"), [(GoneBot(), []), (ScriptedBot(), ["api_costs/costs_within_budget"])], ids=["gone", "there"]
)
def test_a_check_gives_its_verdict_though_the_bot_is_gone_and_nobody_can_be_told(services, instance, bot, told, capfd):
    services.store.append("api_cost_history", [Entry(NEWEST, "", OVER_BUDGET)])
    services.__dict__["bot"] = bot
    check = dg.AssetCheckKey(dg.AssetKey("api_costs"), "costs_within_budget")
    job = dg.define_asset_job("costs_check", selection=dg.AssetSelection.checks(check))
    result = (
        dg.Definitions(
            jobs=[job], assets=defs.assets, asset_checks=defs.asset_checks,
            resources={"services": services, "audit": AuditIOManager(services)}, executor=dg.in_process_executor,
        )
        .resolve_job_def("costs_check")
        .execute_in_process(instance=instance, tags={"dagster/partition": NEWEST}, raise_on_error=False)
    )  # fmt: skip
    (verdict,) = result.get_asset_check_evaluations()
    assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert verdict.description == "1 of 1 days failed"
    open_ones = [incident.key for incident in services.incidents.unsettled()]
    assert open_ones == told
    assert ("nobody is told what was found" in capfd.readouterr().err) is (not told)
