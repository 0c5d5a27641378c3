"""Is each day decided once, by Dagster, over a real store, and does a decision to retrain launch one retrain?"""

import json
from typing import Any

import dagster as dg
import pytest

from trading_ops.assessments.assessing import assess
from trading_ops.assessments.evidence import Adviser
from trading_ops.assessments.past import COLLECTION
from trading_ops.assessments.schema import Assessment
from trading_ops.audit.store import Entry
from trading_ops.bot.client import BotUnreachable, Calendar
from trading_ops.definitions import defs
from trading_ops.defs.assessments import PAGE, adaptive_retrain_sensor, trigger_ai_analysis_sensor
from trading_ops.defs.partitions import RANGE_END, RANGE_START
from trading_ops.defs.resources import AuditIOManager
from trading_ops.services import Services
from trading_ops.training.retrain import Trigger, failed
from trading_ops_tests.assessments.examples import evidence_of, opinion
from trading_ops_tests.assessments.filled_store import (
    DAYS,
    MODEL,
    Scripted,
    decide_on,
    documents,
    record,
    record_all,
)
from trading_ops_tests.conftest import NEWEST
from trading_ops_tests.defs.test_assets import check, error_of, stored, with_bot
from trading_ops_tests.fakes import ScriptedBot
from trading_ops_tests.servers.openai import CHAT, GOOD, KEY, RESPONSES, OpenAiServer, Turn

ASSET = "gpt4_assessment"
WAITS, NO_KEY = opinion("wait", 0.9), Assessment.none("no OPENAI_API_KEY")
RETRAINS = {  # of the recorded days: both strategies earn too little
    "rule": "due",
    "models": [MODEL],
    "action": "retrain",
}


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def services(services: Services) -> Services:
    """The paper bot with two recorded weeks, which are bad enough for a retrain, and nobody to ask."""
    record_all(services.store, source=services.bot.source)
    services.__dict__["adviser"] = Scripted(NO_KEY)
    return services


def advised(services: Services, said: Assessment) -> Scripted:
    services.__dict__["adviser"] = adviser = Scripted(said)
    return adviser


def performs_well(services: Services, *, source: str = "") -> None:
    """The newest day is a good one, also by the rules."""
    body = documents()["performance_metrics"][NEWEST]
    good = {**body, "trigger_ai_analysis": False, "strategies": {}}
    record(services.store, "performance_metrics", {NEWEST: good}, source or services.bot.source)


def decided(
    services: Services,
    *names: str,
    first: str = NEWEST,
    last: str = "",
    force: bool = False,
    instance: Any = None,
    audit: AuditIOManager | None = None,
) -> dg.ExecuteInProcessResult:
    keys = {dg.AssetKey(name) for name in names or (ASSET,)}
    config = {"ops": {ASSET: {"config": {"force": True}}}} if force else {}
    result = (
        dg.Definitions(
            assets=[asset for asset in defs.assets if asset.key in keys],
            asset_checks=[check for check in defs.asset_checks if keys & {key.asset_key for key in check.check_keys}],
            resources={"services": services, "audit": audit or AuditIOManager(services)},
            executor=dg.in_process_executor,
        )
        .resolve_implicit_global_asset_job_def()
        .execute_in_process(
            tags={RANGE_START: first, RANGE_END: last} if last else {"dagster/partition": first},
            instance=instance or dg.DagsterInstance.ephemeral(),
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, **config},
        )
    )
    assert result.success or audit, error_of(result)
    return result


def the(services: Services, day: str = NEWEST) -> dict[str, Any]:
    return stored(services, COLLECTION)[day]


class Sensor:
    """A sensor with the cursor that the daemon would keep for it."""

    def __init__(self, sensor: dg.SensorDefinition, instance: dg.DagsterInstance) -> None:
        self.sensor, self.instance, self.cursor = sensor, instance, None

    def tick(self, services: Services) -> Any:
        context = dg.build_sensor_context(
            self.instance, self.cursor, resources={"services": services}, definitions=defs
        )
        said = self.sensor.evaluate_tick(context)
        self.cursor = said.cursor
        return said

    def skips(self, services: Services) -> str:
        """Why it launches nothing."""
        said = self.tick(services)
        assert said.run_requests == []
        return str(said.skip_message)

    def launches(self, services: Services) -> dg.RunRequest:
        (request,) = self.tick(services).run_requests
        return request


@pytest.fixture
def retrains(instance) -> Sensor:
    return Sensor(adaptive_retrain_sensor, instance)


@pytest.fixture
def analyses(instance) -> Sensor:
    return Sensor(trigger_ai_analysis_sensor, instance)


class Down(ScriptedBot):
    """A bot that does not even tell which days there are."""

    def calendar(self) -> Calendar:
        raise BotUnreachable("connection refused")


# a decision of the day


def test_the_decision_is_stored_with_both_opinions(services):
    adviser = advised(services, WAITS)
    result = decided(services, force=True)
    document = the(services)
    assert (document["outcome"], document["opinion"]["recommendation"], document["source"]) == (
        "asked", "wait", services.bot.source,
    )  # fmt: skip
    decision = document["decision"]
    assert (decision["action"], decision["rule"], decision["rules_alone"]) == ("wait", "veto", "retrain")
    assert (decision["decided_by"], decision["agreed"]) == ("gpt", False)
    ((prompt, purpose),) = adviser.asked
    assert purpose == f"gpt4_assessment/{NEWEST}"
    assert document["prompt"] == {
        "version": prompt.version, "sha256": prompt.sha256, "system": prompt.system, "user": prompt.user,
    }  # fmt: skip
    assert (document["cost_usd"], document["tokens"]) == (0.01, {"prompt": 900})
    assert document["evidence"]["present"]
    assert document["evidence"]["missing"] == []
    (event,) = result.asset_materializations_for_node(ASSET)
    assert event.metadata["decision_id"].value == document["decision_id"]
    assert event.metadata["gpt4"].value == 'GPT-4: wait, confidence 0.90, urgency medium: "because"'
    assert event.metadata["action"].value == "wait"


def test_gpt4_is_not_asked_while_performance_is_acceptable_and_the_rules_decide(services):
    adviser = advised(services, WAITS)
    decided(services)
    document = the(services)
    assert adviser.asked == []
    assert (document["outcome"], document["prompt"], document["attempts"]) == ("skipped", None, [])
    assert "performance acceptable: win rate 58.3 %" in document["opinion"]["unavailable"]
    assert {name: document["decision"][name] for name in RETRAINS} == RETRAINS
    assert document["decision"]["decided_by"].startswith("rules (not asked: performance acceptable")


def test_without_an_opinion_the_rules_decide_and_say_so(services):
    advised(services, NO_KEY)
    decided(services, force=True)
    document = the(services)
    assert document["outcome"] == "unavailable"
    assert {name: document["decision"][name] for name in RETRAINS} == RETRAINS
    assert document["decision"]["decided_by"] == "rules (no OPENAI_API_KEY)"


def test_a_day_decided_again_appends_nothing_and_asks_nobody(services):
    adviser = advised(services, WAITS)
    decided(services, force=True)
    head = services.store.head(COLLECTION)
    for force in (False, True):
        result = decided(services, force=force)
        assert result.asset_materializations_for_node(ASSET)
    assert services.store.head(COLLECTION) == head
    assert len(adviser.asked) == 1


def test_what_is_recorded_stands_when_the_evidence_changes_afterwards(services):
    decided(services)
    before = the(services)
    performs_well(services)
    decided(services)
    assert the(services) == before


def test_a_decision_without_an_input_is_made_again_when_the_input_is_there(services):
    record(services.store, "performance_metrics", {NEWEST: documents()["performance_metrics"][NEWEST]}, "another")
    decided(services)
    assert the(services)["decision"]["rule"] == "blocked"
    record(services.store, "performance_metrics", {NEWEST: documents()["performance_metrics"][NEWEST]},
           services.bot.source)  # fmt: skip
    decided(services)
    assert {name: the(services)["decision"][name] for name in RETRAINS} == RETRAINS


@pytest.mark.parametrize(
    ("first", "forced", "asked"),
    [("skipped", False, 1), ("unavailable", True, 2), ("asked", True, 1)],
)
def test_a_forced_analysis_asks_unless_there_is_an_opinion(services, first, forced, asked):
    adviser = advised(services, NO_KEY if first == "unavailable" else WAITS)
    decided(services, force=forced)
    assert the(services)["outcome"] == first
    adviser.assessment = WAITS
    decided(services, force=True)
    assert (the(services)["outcome"], len(adviser.asked)) == ("asked", asked)


def test_a_forced_analysis_asks_again_where_an_input_was_missing(services):
    record(services.store, "performance_metrics", {NEWEST: documents()["performance_metrics"][NEWEST]}, "another")
    adviser = advised(services, WAITS)
    decided(services, force=True)
    assert the(services)["evidence"]["missing"] == [f"performance_metrics of {NEWEST}"]
    record(services.store, "performance_metrics", {NEWEST: documents()["performance_metrics"][NEWEST]},
           services.bot.source)  # fmt: skip
    decided(services, force=True)
    assert (the(services)["evidence"]["missing"], len(adviser.asked)) == ([], 2)


class Killed(AuditIOManager):
    """What is computed is never stored."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        raise RuntimeError("killed")


def test_a_reply_that_a_killed_run_paid_for_is_the_days_opinion(make_services):
    with OpenAiServer(Turn(json.dumps({**GOOD, "recommendation": "wait", "confidence": 0.9}))) as server:
        services = make_services(openai_api_key=KEY, openai_base_url=server.url)
        record_all(services.store, source=services.bot.source)
        assert not decided(services, force=True, audit=Killed(services)).success
        assert stored(services, COLLECTION) == {}
        decided(services, force=True)
        assert len(server.asked) == 1
    document = the(services)
    assert (document["outcome"], document["opinion"]["recommendation"]) == ("asked", "wait")
    (attempt,) = document["attempts"]
    assert (attempt["remembered"], document["cost_usd"]) == (True, 0.0)


def test_a_reply_that_another_model_gave_is_not_taken_for_this_ones(make_services):
    with OpenAiServer() as server:
        services = make_services(openai_api_key=KEY, openai_base_url=server.url)
        record_all(services.store, source=services.bot.source)
        assert not decided(services, force=True, audit=Killed(services)).success
        other = make_services(openai_api_key=KEY, openai_base_url=server.url, openai_model="gpt-4.1")
        decided(other, force=True)
        assert [asked.document["model"] for asked in server.asked] == ["gpt-4.1-mini", "gpt-4.1"]


@pytest.mark.parametrize(("api", "path"), [("chat", CHAT), ("responses", RESPONSES)])
def test_the_interface_that_is_set_is_spoken(make_services, api, path):
    with OpenAiServer() as server:
        services = make_services(openai_api_key=KEY, openai_base_url=server.url, openai_api=api)
        record_all(services.store, source=services.bot.source)
        decided(services, force=True)
        assert [asked.path for asked in server.asked] == [path]
    assert the(services)["outcome"] == "asked"


def test_without_a_key_nobody_is_asked_and_the_check_says_what_is_not_set(make_services):
    services = make_services()
    record_all(services.store, source=services.bot.source)
    result = decided(services, force=True)
    assert the(services)["outcome"] == "unavailable"
    assert {name: the(services)["decision"][name] for name in RETRAINS} == RETRAINS
    assert not check(result, "opinion_heard").passed
    assert "no OPENAI_API_KEY is set" in told(services, "WARNING")[0]["why"]


def test_the_paper_bots_own_day_is_decided_after_it_was_measured(make_services):
    services = make_services()
    advised(services, NO_KEY)
    measured = ("closed_trades", "performance_metrics", "model_accuracy", ASSET)
    decided(services, *measured, first="2025-03-03", last=NEWEST)
    document = the(services)
    assert document["evidence"]["missing"] == []
    assert [day["day"] for day in document["evidence"]["days"]] == [f"2025-03-0{n}" for n in range(3, 10)]
    assert (
        sum(day["trades"] for day in document["evidence"]["days"]) == document["evidence"]["days"][-1]["window_trades"]
    )
    assert {market["symbol"] for market in document["evidence"]["market"]} == set(services.settings.symbols)
    assert {market["bars_7d"] for market in document["evidence"]["market"]} == {168}
    assert document["evidence"]["models"] == []


def test_a_backfill_of_past_days_asks_nobody_and_launches_nothing(services, instance, retrains):
    adviser = advised(services, opinion())
    decided(services, first=DAYS[8], last=DAYS[10], force=True, instance=instance)
    found = stored(services, COLLECTION)
    assert list(found) == DAYS[8:11]
    assert adviser.asked == []
    assert not any(document["evidence"]["present"] for document in found.values())
    assert {document["decision"]["action"] for document in found.values()} == {"retrain"}
    assert retrains.skips(services) == f"no new {ASSET} of {NEWEST}"
    assert services.outbox.deliveries() == []


def test_a_backfill_up_to_the_present_asks_about_the_present_alone(services, instance, retrains):
    adviser = advised(services, opinion())
    decided(services, first=DAYS[8], last=NEWEST, force=True, instance=instance)
    assert [purpose for _, purpose in adviser.asked] == [f"gpt4_assessment/{NEWEST}"]
    forced = {day: document["evidence"]["forced"] for day, document in stored(services, COLLECTION).items()}
    assert [day for day, was in forced.items() if was] == [NEWEST]
    assert retrains.launches(services).run_key == f"{NEWEST} {services.bot.source}"


# what a decision launches


def test_a_decision_to_retrain_launches_one_retrain(services, instance, retrains):
    decided(services, instance=instance)
    document = the(services)
    request = retrains.launches(services)
    assert request.run_key == f"{NEWEST} {services.bot.source}"
    assert request.run_config == {
        "ops": {
            "choose_models": {
                "config": {
                    "models": [MODEL],
                    "decision": document["decision_id"],
                    "reason": document["decision"]["why"],
                }
            }
        }
    }
    assert dg.validate_run_config(defs.resolve_job_def("adaptive_retrain"), request.run_config)
    assert retrains.skips(services) == f"no new {ASSET}"
    decided(services, instance=instance)  # materialised again
    assert retrains.launches(services) == request  # Dagster launches a run key once


def test_a_new_cursor_is_where_the_last_materialisation_was(services, instance, retrains):
    assert retrains.skips(services) == f"no new {ASSET}"
    assert retrains.cursor is None
    decided(services, first=DAYS[8], instance=instance)
    retrains.skips(services)
    cursor = retrains.cursor
    decided(services, instance=instance)
    retrains.launches(services)
    assert int(retrains.cursor) > int(cursor)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (WAITS, "GPT-4 says wait with confidence 0.90, which holds back what is due"),
        (opinion("optimize_parameters", 0.8), "optimize_parameters, GPT-4 says optimize_parameters"),
    ],
)
def test_what_is_no_retrain_says_why_nothing_is_launched(services, instance, retrains, said, why):
    advised(services, said)
    decided(services, force=True, instance=instance)
    reason = retrains.skips(services)
    assert reason.startswith(f"{the(services)['decision_id']}: ")
    assert why in reason


def test_a_quiet_day_launches_nothing(services, instance, retrains):
    performs_well(services)
    decided(services, instance=instance)
    assert retrains.skips(services) == f"{the(services)['decision_id']}: wait, nothing is due"


def test_while_the_bot_is_down_the_cursor_stays_and_the_retrain_is_launched_afterwards(services, instance, retrains):
    decided(services, instance=instance)
    up = services.bot
    with_bot(services, Down())
    assert retrains.skips(services) == "which day is the present one is unknown: connection refused"
    assert retrains.cursor is None
    with_bot(services, up)
    assert retrains.launches(services).run_key == f"{NEWEST} {up.source}"


def test_while_the_store_is_down_the_cursor_stays_and_the_retrain_is_launched_afterwards(
    services, make_services, instance, retrains
):
    decided(services, instance=instance)
    down = with_bot(make_services(mongodb_uri="mongodb://127.0.0.1:9/x?timeoutMS=100"), services.bot)
    assert retrains.skips(down).startswith(f"{ASSET} of {NEWEST} ")
    assert retrains.cursor is None
    assert retrains.launches(services).run_key == f"{NEWEST} {services.bot.source}"


def test_while_the_bots_data_is_late_the_cursor_stays_and_the_retrain_is_launched_afterwards(
    services, instance, retrains
):
    with_bot(services, bot := ScriptedBot())
    record_all(services.store, source=bot.source)
    decided(services, instance=instance)
    bot.live = False
    assert retrains.skips(services) == "no day is the present one: the bot's data is old"
    assert retrains.cursor is None
    bot.live = True
    assert retrains.launches(services).run_key == f"{NEWEST} {bot.source}"


def test_a_bot_whose_data_is_not_fresh_has_no_present_to_act_in(services, instance, retrains):
    with_bot(services, bot := ScriptedBot(live=False))
    record_all(services.store, source=bot.source)
    adviser = advised(services, opinion())
    decided(services, force=True, instance=instance)
    assert (the(services)["decision"]["action"], the(services)["evidence"]["present"]) == ("retrain", False)
    assert retrains.skips(services) == "no day is the present one: the bot's data is old"
    assert adviser.asked == []
    bot.live = True
    instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, partition=NEWEST))
    assert retrains.skips(services).endswith("decided on a past day, which is recorded and never acted on")
    decided(services, instance=instance)
    present = the(services)
    assert present["evidence"]["present"]
    request = retrains.launches(services)
    assert request.run_config["ops"]["choose_models"]["config"]["decision"] == present["decision_id"]


def test_a_decision_of_another_bot_launches_nothing(services, instance, retrains):
    decided(services, instance=instance)
    with_bot(services, ScriptedBot())
    assert retrains.skips(services) == f"{ASSET} of {NEWEST} is another bot's"


def test_a_retrain_that_was_decided_is_launched_though_the_day_was_decided_again_before(services, instance, retrains):
    """The second decision counts the first as an attempt, so that one must be made."""
    decided(services, instance=instance)
    first = the(services)
    advised(services, opinion())
    decided(services, force=True, instance=instance)
    second = the(services)
    assert (first["decision"]["action"], second["decision"]["action"]) == ("retrain", "wait")
    assert "the last retrain was 0.0 h ago" in second["decision"]["why"]
    request = retrains.launches(services)
    assert request.run_config["ops"]["choose_models"]["config"]["decision"] == first["decision_id"]


# what starts an analysis


def test_a_critical_metric_starts_a_forced_analysis_once(services, instance, analyses):
    instance.report_runless_asset_event(dg.AssetMaterialization("performance_metrics", partition=NEWEST))
    request = analyses.launches(services)
    assert (request.run_key, request.partition_key) == (f"{NEWEST} {services.bot.source}", NEWEST)
    assert dg.validate_run_config(defs.resolve_job_def("gpt4_self_analysis"), request.run_config)
    assert request.run_config == {"ops": {ASSET: {"config": {"force": True}}}}
    assert analyses.skips(services) == "no new performance_metrics"
    instance.report_runless_asset_event(dg.AssetMaterialization("performance_metrics", partition=NEWEST))
    assert analyses.launches(services).run_key == request.run_key


def test_no_critical_metric_starts_none(services, instance, analyses):
    performs_well(services)
    instance.report_runless_asset_event(dg.AssetMaterialization("performance_metrics", partition=NEWEST))
    assert analyses.skips(services) == f"{NEWEST}: no metric is critical"


def test_critical_metrics_of_past_days_start_none(services, instance, analyses):
    for day in DAYS[8:11]:
        instance.report_runless_asset_event(dg.AssetMaterialization("performance_metrics", partition=day))
    assert analyses.skips(services) == f"no new performance_metrics of {NEWEST}"


def test_what_is_not_stored_yet_is_looked_at_again(make_services, instance, analyses):
    services = make_services()
    instance.report_runless_asset_event(dg.AssetMaterialization("performance_metrics", partition=NEWEST))
    assert analyses.skips(services) == f"performance_metrics of {NEWEST} is not in the audit store yet"
    record_all(services.store, source=services.bot.source)
    assert analyses.launches(services).partition_key == NEWEST


def test_what_waits_in_the_spool_starts_no_analysis_that_could_not_read_its_evidence(make_services, instance, analyses):
    services = make_services(mongodb_uri="mongodb://127.0.0.1:9/x?timeoutMS=100")
    record_all(services.store, source=services.bot.source)
    assert services.spooled_store.backlog().waiting
    instance.report_runless_asset_event(dg.AssetMaterialization("performance_metrics", partition=NEWEST))
    assert analyses.skips(services).startswith(f"performance_metrics of {NEWEST} cannot be read: ")
    assert analyses.cursor is None


def test_an_analysis_waits_for_the_end_of_the_run_that_measures(services, instance, analyses):
    during = []

    @dg.op(out=dg.Out(dg.Nothing))
    def measure(context: dg.OpExecutionContext):
        yield dg.AssetMaterialization("performance_metrics", partition=NEWEST)
        yield dg.Output(None)

    @dg.op(ins={"after": dg.In(dg.Nothing)})
    def look_meanwhile(context: dg.OpExecutionContext) -> None:
        during.append(analyses.skips(services))

    @dg.job(executor_def=dg.in_process_executor)
    def measuring() -> None:
        look_meanwhile(measure())

    assert measuring.execute_in_process(instance=instance).success
    assert during == [f"the run that gives performance_metrics of {NEWEST} is not over yet"]
    assert analyses.launches(services).partition_key == NEWEST


def test_more_materialisations_than_a_page_are_all_seen(services, instance, analyses):
    for day in (NEWEST, *(DAYS[number % 5] for number in range(PAGE + 1))):
        instance.report_runless_asset_event(dg.AssetMaterialization("performance_metrics", partition=day))
    assert analyses.launches(services).partition_key == NEWEST
    assert analyses.skips(services) == "no new performance_metrics"


# what people are told


def told(services: Services, severity: str) -> list[dict[str, Any]]:
    return [d["alert"] for d in services.outbox.deliveries() if d["alert"]["severity"] == severity]


def test_a_heard_opinion_on_whole_evidence_passes_the_check(services):
    advised(services, WAITS)
    assert check(decided(services, force=True), "opinion_heard").passed
    assert told(services, "WARNING") == []


def test_not_having_been_asked_is_no_fault(services):
    assert check(decided(services), "opinion_heard").passed


def test_an_opinion_that_could_not_be_had_is_told(services):
    result = decided(services, force=True)
    verdict = check(result, "opinion_heard")
    assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.WARN)
    (alert,) = told(services, "WARNING")
    candles = services.bot.label
    assert alert["what"] == f"GPT-4 gave no opinion, the rules decided, {NEWEST} ({candles} candles)"
    assert "no OPENAI_API_KEY" in alert["why"]
    advised(services, WAITS)
    assert check(decided(services, force=True), "opinion_heard").passed


def test_a_missing_input_is_told_by_name(services):
    record(services.store, "closed_trades", {DAYS[-3]: documents()["closed_trades"][DAYS[-3]]}, "another")
    result = decided(services)
    assert not check(result, "opinion_heard").passed
    (alert,) = told(services, "WARNING")
    assert f"closed_trades of {DAYS[-3]}" in alert["why"]
    assert "nothing is retrained" in alert["what"]
    assert the(services)["decision"]["action"] == "wait"


@pytest.mark.parametrize("came", ["nothing", "a record of its retrain"])
def test_a_retrain_that_was_decided_two_days_ago_and_never_begun_is_told(services, came):
    advised(services, WAITS)
    lost = decide_on(services.store, DAYS[-3], opinion(), source=services.bot.source)
    if came == "a record of its retrain":
        failed(services.store, MODEL, Trigger(lost["decision_id"], "why"), "out of memory", services.bot.now())
    assert check(decided(services, force=True), "opinion_heard").passed == (came != "nothing")
    if came == "nothing":
        (alert,) = told(services, "WARNING")
        assert alert["what"].startswith(f"the retrain decided as {lost['decision_id']} has left no record")
        assert "start it by hand" in alert["why"]


def test_an_adviser_whose_word_does_not_count_is_told(services):
    evidence = evidence_of(adviser=Adviser(standing="advisory", why="of 30 answers 9 came true"), forced=True)
    record(services.store, COLLECTION, {NEWEST: assess(evidence, Scripted(opinion()).consult)}, services.bot.source)
    assert not check(decided(services), "opinion_heard").passed
    (alert,) = told(services, "WARNING")
    assert alert["what"].startswith("GPT-4's word does not count, ")
    assert "of 30 answers 9 came true" in alert["why"]


def test_the_decision_is_told_once_with_both_opinions_and_how_often_they_agreed(services):
    advised(services, WAITS)
    for day, agreed in ((DAYS[-3], True), (DAYS[-2], None)):
        record(
            services.store,
            COLLECTION,
            {day: {"decision": {"agreed": agreed}, "opinion": {}, "evidence": {}}},
            services.bot.source,
        )
    for _ in range(2):
        result = decided(services, force=True)
    agreement = "agreement of GPT-4 and the rules: 1 of 2 opinions in 3 days"
    assert check(result, "opinion_heard").metadata["agreement"].value == agreement
    (alert,) = told(services, "INFO")
    assert alert["what"] == f"Decision for {NEWEST}: no retrain ({services.bot.label} candles)"
    assert the(services)["decision_id"] in alert["why"]
    assert alert["why"].splitlines()[1:4] == [
        "rules alone: retrain", 'GPT-4: wait, confidence 0.90, urgency medium: "because"', agreement,
    ]  # fmt: skip
    assert "decisions why" in alert["what_to_do"]


def test_what_gpt4_writes_is_told_in_one_line_and_is_no_command(services):
    forged = opinion("optimize_parameters", 0.9).model_copy(update={
        "reasoning": 'fine"\nagreement of GPT-4 and the rules: 30 of 30\nRun `trading-ops guard resume rsi`',
        "suggested_actions": ["`trading-ops strategies halt --all`\nnow"],
    })  # fmt: skip
    advised(services, forged)
    performs_well(services)
    decided(services, force=True)
    (alert,) = told(services, "INFO")
    (line,) = [line for line in alert["why"].splitlines() if "resume" in line]
    assert line.startswith("GPT-4: optimize_parameters")
    assert "30 of 30" in line
    assert "'trading-ops guard resume rsi'" in line
    assert "'trading-ops strategies halt --all' now" in alert["what_to_do"]
    assert len(alert["what_to_do"].splitlines()) == 1


def test_a_record_of_another_program_keeps_no_retrain_from_being_launched(services, instance, retrains):
    record(services.store, COLLECTION, {NEWEST: {"recommendation": "retrain"}}, services.bot.source)
    instance.report_runless_asset_event(dg.AssetMaterialization(ASSET, partition=NEWEST))
    assert retrains.skips(services) == f"{NEWEST}: nothing recorded is a decision"
    decided(services, instance=instance)
    assert retrains.launches(services).run_key == f"{NEWEST} {services.bot.source}"


def test_a_record_of_another_program_fails_no_check(services):
    record(services.store, COLLECTION, {DAYS[-3]: {"recommendation": "retrain"}}, services.bot.source)
    services.store.append(COLLECTION, [Entry(DAYS[-4], "", {"recommendation": "wait"})])
    services.store.append("retrain_history", [Entry(DAYS[-4], "x", {"model": "lstm", "at": "2025-03-06T01:00:00"})])
    assert check(decided(services), "opinion_heard").passed


def test_a_retrain_that_waits_for_its_turn_is_not_decided_again(services, instance):
    instance.add_run(dg.DagsterRun("adaptive_retrain", status=dg.DagsterRunStatus.STARTED))
    decided(services, instance=instance)
    assert "the last retrain was 0.0 h ago" in the(services)["decision"]["why"]


def test_decisions_of_another_bot_are_no_part_of_the_agreement(services):
    advised(services, WAITS)
    record(services.store, COLLECTION, {DAYS[-2]: {"decision": {"agreed": True}}}, "another")
    result = decided(services, force=True)
    agreement = "agreement of GPT-4 and the rules: 0 of 1 opinions in 1 day"
    assert check(result, "opinion_heard").metadata["agreement"].value == agreement
    assert agreement in told(services, "INFO")[0]["why"]


# its place among the others


def test_it_runs_at_three_for_the_day_before():
    schedule = defs.get_repository_def().get_schedule_def("gpt4_self_analysis_schedule")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 3 * * *", "UTC")


def test_both_sensors_run_from_the_start_and_launch_their_job():
    for sensor, job in (
        (adaptive_retrain_sensor, "adaptive_retrain"),
        (trigger_ai_analysis_sensor, "gpt4_self_analysis"),
    ):
        assert (sensor.job_name, sensor.default_status) == (job, dg.DefaultSensorStatus.RUNNING)
