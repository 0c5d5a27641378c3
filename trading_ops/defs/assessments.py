"""Should the models be retrained? `gpt4_assessment`, at 03:00 UTC and at once when performance turns critical."""

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from importlib.util import find_spec
from typing import Any

import dagster as dg
from pydantic import Field

from trading_ops.assessments.aftermath import never_begun
from trading_ops.assessments.assessing import Consult, assess, paid_reply, stands
from trading_ops.assessments.evidence import Adviser
from trading_ops.assessments.gathering import Setting, gather
from trading_ops.assessments.message import SHOWN_DAYS, agreement_line, decision_alert, opinion_line
from trading_ops.assessments.past import COLLECTION, retrain_decided_at
from trading_ops.assessments.standing import adviser_on
from trading_ops.audit.store import StoreError
from trading_ops.bot.client import BotError
from trading_ops.defs.accuracy import bars_of
from trading_ops.defs.alerting import Finding, checked_days, conclude, present_day, stored
from trading_ops.defs.partitions import daily_asset, daily_job, daily_schedule, run_days
from trading_ops.defs.presenting import show, table_of
from trading_ops.defs.reporting import report
from trading_ops.notifications.alert import Severity
from trading_ops.services import Services

GROUP = "assessments"
ASSET = "gpt4_assessment"
FIGURES = ("outcome", "action", "rule", "decided_by", "confidence", "cost_usd")
PAGE = 500  # materialisations read at a time
OVER = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)
UNDER_WAY = [status for status in dg.DagsterRunStatus if status not in OVER]
Answer = Callable[
    [str, Sequence[Mapping[str, Any]]], dg.RunRequest | str
]  # of a day and its values: a run, or why none


class AssessmentConfig(dg.Config):
    """Whether GPT-4 is asked in any case."""

    force: bool = Field(False, description="Ask GPT-4 about the newest day though performance is acceptable")


@daily_asset(
    group_name=GROUP,
    metadata={"collection": COLLECTION},
    deps=["closed_trades", "performance_metrics", "model_accuracy"],
)
def gpt4_assessment(
    context: dg.AssetExecutionContext, config: AssessmentConfig, services: dg.ResourceParam[Services]
) -> dict:
    """GPT-4's opinion, what the rules say, and the decision to retrain or not. A recorded decision stands.

    Grain: one document a day. Formula: trading_ops/assessments/decision.py, assessments/rules.py
    """
    days, newest = run_days(context, services), present_day(services)
    known = _of_this_bot(services, days)
    open_days = [
        day for day in days if not stands(known.get(day), present=day == newest, forced=config.force and day == newest)
    ]
    documents = {day: {k: v for k, v in document.items() if k != "source"} for day, document in known.items()}
    if open_days:
        adviser = adviser_on(services.store, services.bot.source, newest) if newest in open_days else Adviser()
        setting = _setting(
            services, newest, adviser, forced=config.force, retraining=_retrain_under_way(context.instance)
        )
        evidence = gather(services.store, bars_of(services), open_days, setting)
        limits = services.retrain_limits
        documents |= {day: assess(evidence[day], _consult(services, day), limits) for day in open_days}
    documents = {day: documents[day] for day in days}
    shown = {day: {**document, **document["decision"], **document["opinion"]} for day, document in documents.items()}
    show(context, shown, FIGURES, formula="trading_ops/assessments/decision.py", **_newest(documents[days[-1]]))
    return documents


def _consult(services: Services, day: str) -> Consult:
    """GPT-4, which is not paid twice for what a killed run has got already."""
    known = partial(paid_reply, services.store, day, services.settings.openai_model)
    return partial(services.adviser.consult, known=known)


def _retrain_under_way(instance: dg.DagsterInstance) -> bool:
    return instance.get_runs_count(dg.RunsFilter(job_name="adaptive_retrain", statuses=UNDER_WAY)) > 0


def _setting(services: Services, newest: str | None, adviser: Adviser, *, forced: bool, retraining: bool) -> Setting:
    bot = services.bot
    return Setting(
        source=bot.source,
        candles=bot.label,
        symbols=services.bot_symbols(),
        first_day=bot.calendar().first_day,
        now=bot.now(),
        present=newest,
        forced=forced,
        links=services.settings.strategy_models,
        trainable=find_spec("torch") is not None,
        retraining=retraining,
        adviser=adviser,
    )


def _of_this_bot(services: Services, days: list[str]) -> dict[str, Mapping[str, Any]]:
    """What can be used of it: another program may have written to the collection."""
    source = services.bot.source
    return {
        day: body
        for day, body in stored(services, COLLECTION, days).items()
        if body.get("source") == source and _decides(body)
    }


def _decides(body: Mapping[str, Any]) -> bool:
    return all(isinstance(body.get(part), dict) for part in ("decision", "opinion", "evidence"))


def _newest(document: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
    """The newest day in full: why, both opinions, and the figures it was decided on."""
    decision, evidence = document["decision"], document["evidence"]
    return {
        "why": dg.MetadataValue.text(decision["why"]),
        "gpt4": dg.MetadataValue.text(opinion_line(document["opinion"])),
        "rules_alone": dg.MetadataValue.text(decision["rules_alone"]),
        "models": dg.MetadataValue.text(", ".join(decision["models"]) or "none"),
        "missing": dg.MetadataValue.text("; ".join(evidence["missing"]) or "nothing"),
        "decision_id": dg.MetadataValue.text(document["decision_id"]),
        "days": table_of([{k: v for k, v in day.items() if "interval" not in k} for day in evidence["days"]]),
        "market": table_of(evidence["market"]),
    }


@dg.asset_check(asset=gpt4_assessment)
def opinion_heard(context: dg.AssetCheckExecutionContext, services: dg.ResourceParam[Services]) -> dg.AssetCheckResult:
    """Nothing was missing, GPT-4's opinion was valid and counts where it was asked, and what was decided was begun."""
    documents = _of_this_bot(services, checked_days(context, services))
    findings = []
    for day, document in documents.items():
        opinion, evidence = document["opinion"], document["evidence"]
        if document["outcome"] == "unavailable":
            text = "GPT-4 gave no opinion, the rules decided"
            findings.append(Finding(day, Severity.WARNING, "opinion", text, opinion["unavailable"]))
        for missing in evidence["missing"]:
            text = "an input of the decision is missing, so nothing is retrained"
            findings.append(Finding(day, Severity.WARNING, missing.split(" (")[0], text, missing))
        if (adviser := evidence["adviser"])["standing"] != "deciding":
            findings.append(Finding(day, Severity.WARNING, "adviser", "GPT-4's word does not count", adviser["why"]))
        if evidence["present"] and (lost := _lost(context, services, day)):
            text = f"the retrain decided as {lost} has left no record"
            detail = "It is launched on the day of its decision alone: look for its run, or start it by hand"
            findings.append(Finding(day, Severity.WARNING, "never begun", text, detail))
    advice = "See `trading-ops decisions why`, and `trading-ops costs` where the budget is used up."
    agreement = agreement_line(list(_recent(services, documents).values()))
    verdict = conclude(context, services, findings, what_to_do=advice, metadata={"agreement": agreement})
    report(context, services, COLLECTION, SHOWN_DAYS, decision_alert)
    return verdict


def _lost(context: dg.AssetCheckExecutionContext, services: Services, day: str) -> str | None:
    """A decision of the days before that was never begun, nor waits for its turn."""
    if _retrain_under_way(context.instance):
        return None
    return never_begun(services.store, day, services.bot.source)


def _recent(services: Services, documents: Mapping[str, Any]) -> Mapping[str, Any]:
    if not documents:
        return {}
    last = date.fromisoformat(max(documents))
    return _of_this_bot(services, [str(date.fromordinal(last.toordinal() - back)) for back in range(SHOWN_DAYS)])


gpt4_self_analysis = daily_job(
    "gpt4_self_analysis",
    ASSET,
    description="Asks GPT-4 where performance is poor, decides within the rules, and records why. Daily at 03:00 UTC,"
    " and at once when a metric turns critical.",
    tags={"dagster/max_retries": "3"},
)


@dg.sensor(
    job_name="gpt4_self_analysis",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts the analysis at once, and once a day, when a metric of the newest day is critical.",
)
def trigger_ai_analysis_sensor(
    context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]
) -> dg.SensorResult | dg.SkipReason:
    return _on_value(
        context,
        services,
        "performance_metrics",
        "performance_metrics",
        lambda day, found: analysis_request(day, found[-1]),
    )


def analysis_request(day: str, document: Mapping[str, Any]) -> dg.RunRequest | str:
    """A forced analysis of the day, or why there is none."""
    if not document["trigger_ai_analysis"]:
        return f"{day}: no metric is critical"
    return dg.RunRequest(
        run_key=f"{day} {document['source']}",
        partition_key=day,
        run_config={"ops": {ASSET: {"config": {"force": True}}}},
    )


@dg.sensor(
    job_name="adaptive_retrain",
    minimum_interval_seconds=15,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Launches adaptive_retrain once for a decision of the newest day to retrain.",
)
def adaptive_retrain_sensor(
    context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]
) -> dg.SensorResult | dg.SkipReason:
    return _on_value(context, services, ASSET, COLLECTION, _retrain_of)


def _retrain_of(day: str, found: Sequence[Mapping[str, Any]]) -> dg.RunRequest | str:
    """What follows from the day's revisions, as far as they are decisions: another program may have written some."""
    decisions = [document for document in found if _decides(document)]
    return retrain_request(day, _decided(decisions)) if decisions else f"{day}: nothing recorded is a decision"


def _decided(revisions: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The day's decision to retrain, though it was decided again since: that one waited for this one; else the last."""
    return next((found for found in revisions if retrain_decided_at(found) is not None), revisions[-1])


def retrain_request(day: str, document: Mapping[str, Any]) -> dg.RunRequest | str:
    """The retrain that was decided, once a day whatever is decided again, or why there is none."""
    decision, decision_id = document["decision"], document["decision_id"]
    if decision["action"] != "retrain":
        return f"{decision_id}: {decision['action']}, {decision['why']}"
    if not document["evidence"]["present"]:
        return f"{decision_id}: decided on a past day, which is recorded and never acted on"
    config = {"models": decision["models"], "decision": decision_id, "reason": decision["why"]}
    return dg.RunRequest(
        run_key=f"{day} {document['source']}", run_config={"ops": {"choose_models": {"config": config}}}
    )


def _on_value(
    context: dg.SensorEvaluationContext, services: Services, asset: str, collection: str, answer: Answer
) -> dg.SensorResult | dg.SkipReason:
    """What `answer` makes of the newest complete day's values, oldest first, when it was materialised since last."""
    cursor, runs = context.cursor, dict[str, str]()  # by day, the run that gave its newest value
    while True:
        filtered = dg.AssetRecordsFilter(dg.AssetKey(asset), after_storage_id=int(cursor) if cursor else None)
        page = context.instance.fetch_materializations(filtered, PAGE, ascending=True)
        if page.records:
            cursor = str(page.records[-1].storage_id)
            runs |= {record.partition_key: record.run_id for record in page.records if record.partition_key}
        if len(page.records) < PAGE:
            break
    if not runs:  # the bot is not asked for nothing
        return dg.SensorResult(skip_reason=dg.SkipReason(f"no new {asset}"), cursor=cursor)
    try:
        newest = present_day(services)
    except BotError as error:  # the cursor stays: what was materialised is looked at when the bot is back
        return dg.SkipReason(f"which day is the present one is unknown: {error}")
    if newest is None:  # the cursor stays: data that is late for an hour may be fresh again before the day is over
        return dg.SkipReason("no day is the present one: the bot's data is old")
    if newest not in runs:
        return dg.SensorResult(skip_reason=dg.SkipReason(f"no new {asset} of {newest}"), cursor=cursor)
    run = context.instance.get_run_by_id(runs[newest])
    if run is not None and not run.is_finished:  # what else it measures is a part of the evidence
        return dg.SkipReason(f"the run that gives {asset} of {newest} is not over yet")
    try:
        found = [r.body for r in services.store.read(collection, partitions=[newest], key="", all_revisions=True)]
    except StoreError as error:
        return dg.SkipReason(f"{asset} of {newest} cannot be read: {error}")
    if not found:  # it waits in the spool: the cursor stays
        return dg.SkipReason(f"{asset} of {newest} is not in the audit store yet")
    if found[-1].get("source") != services.bot.source:
        return dg.SensorResult(skip_reason=dg.SkipReason(f"{asset} of {newest} is another bot's"), cursor=cursor)
    said = answer(newest, [document for document in found if document.get("source") == services.bot.source])
    if isinstance(said, str):
        return dg.SensorResult(skip_reason=dg.SkipReason(said), cursor=cursor)
    return dg.SensorResult(run_requests=[said], cursor=cursor)


defs = dg.Definitions(
    assets=[gpt4_assessment],
    asset_checks=[opinion_heard],
    jobs=[gpt4_self_analysis],
    schedules=[daily_schedule(gpt4_self_analysis, hour=3)],
    sensors=[trigger_ai_analysis_sensor, adaptive_retrain_sensor],
)
