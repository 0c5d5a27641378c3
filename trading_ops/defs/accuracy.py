"""How right are the deployed models? `model_accuracy`, measured at 01:00 UTC, of the `predictions` of every hour."""

from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg

from trading_ops.accuracy.plot import PLOT_DAYS, accuracy_plot
from trading_ops.accuracy.predictions import record_predictions
from trading_ops.accuracy.report import DROP_LIMIT_PP
from trading_ops.audit.store import StoreUnavailable
from trading_ops.defs.alerting import Finding, checked_days, conclude, run_link, stored
from trading_ops.defs.partitions import MAX_RUNTIME, daily_asset, run_days
from trading_ops.defs.presenting import show, table_of
from trading_ops.market.candles import CandleSource
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.services import Services

GROUP = "accuracy"
HISTORY = "model_accuracy_history"
BROKEN = "predictions"  # the incident of a champion that cannot predict
FIGURES = ("outcome", "n", "accuracy", "brier", "base_rate", "accuracy_7d", "drop_7d_pp", "accuracy_90d")
NOBODY = "no champion predicts yet: trading-ops models train, then trading-ops models promote"


@dg.asset(group_name=GROUP, deps=["candles"])
def predictions(context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]) -> dg.MaterializeResult:
    """What each champion, and each that was replaced within 30 days, says of the next hour; written when it is said.

    A stale model, unknown features and late candles give HOLD, with the reason. Grain: a document an hour and model.
    Formula: trading_ops/training/saying.py
    """
    from trading_ops.training.saying import say

    bot, now = services.bot, services.now()
    if not bot.calendar().live:
        return _nothing(context, f"the {bot.label} candles ended at {bot.now():%Y-%m-%d %H:%M} UTC: that is the past")
    said = say(
        services.registry, bars_of(services), now,
        stale_days=services.settings.model_stale_days, label=bot.label, source=bot.source,
    )  # fmt: skip
    receipts = record_predictions(services.store, said.predictions)
    _tell_broken(services, said.broken, now, run_link(services, context.run.run_id))
    if not said.predictions:
        return _nothing(context, "; ".join(said.broken.values()) or NOBODY)
    rows = [
        {"model": p.name, "role": p.role, "rise %": None if p.probability_up is None else 100 * p.probability_up,
         "signal": p.signal, "why": p.reason, "id": p.model_id}
        for p in said.predictions
    ]  # fmt: skip
    spooled = sum(receipt.spooled for receipt in receipts)
    kept = f"{len(receipts)} of {len(rows)} written, the rest was said before"
    decided_at = said.predictions[0].decided_at.isoformat()
    return dg.MaterializeResult(
        metadata={
            "decided_at": decided_at,
            "predictions": table_of(rows),
            "candles": bot.label,
            "audit": f"{spooled} wait in the spool until the audit store is back" if spooled else kept,
        }
    )


def _nothing(context: dg.AssetExecutionContext, why: str) -> dg.MaterializeResult:
    context.log.info(f"nothing is predicted: {why}")
    return dg.MaterializeResult(metadata={"predictions": dg.MetadataValue.text(why)})


def _tell_broken(services: Services, broken: dict[str, str], now: datetime, link: str) -> None:
    """A champion that cannot predict is an incident until it can."""
    if not broken:
        services.incidents.recover(BROKEN)
        return
    services.incidents.observe(
        Alert(
            severity=Severity.ERROR,
            incident=BROKEN,
            dedup_key=f"{BROKEN}/{now.date()}/{'+'.join(sorted(broken))}",
            what=f"{', '.join(sorted(broken))} cannot predict",
            why="\n".join(f"{name}: {why}" for name, why in sorted(broken.items())),
            what_to_do="See `trading-ops models list`; train the model again, or roll it back.",
            day=str(now.date()),
            link=link,
        )
    )


def bars_of(services: Services) -> Any:
    """Where the bars come from that the models are held to: the bot's chart, or the candles the paper bot trades on."""

    def bars(symbol: str, start: datetime, end: datetime) -> Any:
        if services.settings.bot_url is not None:
            return services.bot.candles(symbol, start, end)
        source: CandleSource = services.candles_among([symbol])
        return source.candles(symbol, start, end)

    return bars


@daily_asset(group_name=GROUP, metadata={"collection": HISTORY}, deps=["candles", predictions])
def model_accuracy(context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]) -> dict:
    """Per model and symbol: the day's predictions joined to their realised outcomes only, with base rate and interval.

    Grain: one document a day, a row a model. Formula: trading_ops/accuracy/report.py, accuracy/scoring.py
    """
    from trading_ops.training.measuring import measure_accuracy

    days = run_days(context, services)
    bot, registry = services.bot, services.registry
    documents = measure_accuracy(
        services.store, registry, bars_of(services), days, label=bot.label, source=bot.source
    )  # fmt: skip
    newest = documents[days[-1]]
    extra = {"models": table_of(_rows(newest)), "was_the_retrain_worth_it": table_of(_shadows(newest))}
    if newest["models"] and (picture := accuracy_plot({**_earlier(services, days[-1]), **documents})) is not None:
        extra["accuracy_plot"] = dg.MetadataValue.md(picture)
    shown = {day: {**dict.fromkeys(FIGURES), **(doc["pooled"] or {}), **doc} for day, doc in documents.items()}
    show(context, shown, FIGURES, formula="trading_ops/accuracy/report.py", **extra)
    return documents


def _earlier(services: Services, last: str) -> dict[str, Any]:
    """What is stored of the days that are drawn beside these, of this bot; nothing is known while the store is down."""
    days = [str(date.fromisoformat(last) - timedelta(days=back)) for back in range(PLOT_DAYS)]
    try:
        found = stored(services, HISTORY, days)
    except StoreUnavailable:
        return {}
    return {day: document for day, document in found.items() if document["source"] == services.bot.source}


@dg.asset_check(asset=model_accuracy)
def accuracy_has_not_dropped(
    context: dg.AssetCheckExecutionContext, services: dg.ResourceParam[Services]
) -> dg.AssetCheckResult:
    """No model's accuracy of the last seven days is confirmed to be over 5 points below that of the seven before."""
    findings = []
    for day, document in stored(services, HISTORY, checked_days(context, services)).items():
        for name, row in {**document["models"], "all models": document["pooled"] or {}}.items():
            if row.get("drop_7d_confirmed") and row["drop_7d_pp"] > DROP_LIMIT_PP:
                low, high = row["drop_7d_interval_pp"]
                text = (
                    f"{name}: accuracy over 7 days fell by {row['drop_7d_pp']:.1f} points, more than {DROP_LIMIT_PP:g}"
                )
                detail = f"95 % interval {low:.1f} to {high:.1f}, now {100 * row['accuracy_7d']:.1f} %"
                findings.append(Finding(day, Severity.WARNING, f"{name} accuracy", text, detail))
            if "error" in row:
                text = f"{name}: its outcomes are unknown, because {row['symbol']} has no candles"
                findings.append(Finding(day, Severity.WARNING, f"{name} candles", text, row["error"]))
    advice = "Compare with the base rate and the other models; train the model anew where it alone has lost its skill."
    return conclude(context, services, findings, what_to_do=advice)


@dg.asset_check(asset=model_accuracy)
def models_fresh(context: dg.AssetCheckExecutionContext, services: dg.ResourceParam[Services]) -> dg.AssetCheckResult:
    """No champion is older than TRADING_OPS_MODEL_STALE_DAYS: one that is says HOLD."""
    limit = services.settings.model_stale_days
    findings = [
        Finding(day, Severity.WARNING, f"{name} age",
                f"{name} is {row['model_age_days']:.0f} days old, more than {limit:g}: it predicts HOLD",
                row["model_id"])
        for day, document in stored(services, HISTORY, checked_days(context, services)).items()
        for name, row in document["models"].items()
        if row["deployed"] and row["model_age_days"] > limit
    ]  # fmt: skip
    return conclude(
        context,
        services,
        findings,
        what_to_do="Train it anew: `trading-ops models train`, or the job adaptive_retrain.",
    )


def _rows(document: dict) -> list[dict]:
    columns = {
        "outcome": "outcome", "n": "n", "accuracy": "accuracy", "Brier": "brier", "F1": "f1", "base rate": "base_rate",
        "7 days": "accuracy_7d", "drop, points": "drop_7d_pp", "90 days": "accuracy_90d", "skill, 90 days": "skill_90d",
        "age, days": "model_age_days", "reconstructed": "reconstructed", "void": "void", "id": "model_id",
    }  # fmt: skip
    scopes = {**document["models"], **({"all": document["pooled"]} if document["pooled"] else {})}
    return [
        {
            "model": name,
            **{head: row.get(field) for head, field in columns.items()},
            "95 %": _interval(row.get("interval")),
            "95 %, 90 days": _interval(row.get("interval_90d")),
        }
        for name, row in scopes.items()
    ]


def _shadows(document: dict) -> list[dict]:
    columns = {
        "model": "name", "worth it": "worth_it", "hours": "n", "accuracy gain, points": "accuracy_gain_pp",
        "Brier gain": "brier_gain", "champion": "champion", "instead of": "shadow", "since": "since",
    }  # fmt: skip
    return [
        {
            **{head: row[field] for head, field in columns.items()},
            "95 %, points": _interval(row["accuracy_gain_interval_pp"]),
            "95 %, Brier": _interval(row["brier_gain_interval"]),
        }
        for row in document["shadows"]
    ]


def _interval(interval: list[float] | None) -> str | None:
    return None if interval is None else "{:.3g} to {:.3g}".format(*interval)


record_predictions_job = dg.define_asset_job(
    "record_predictions",
    selection=dg.AssetSelection.assets(predictions),
    description="What the champions say of the next hour, written when it is said. At minute 2 of every hour.",
    tags={MAX_RUNTIME: "600", "dagster/max_retries": "2"},  # an hour that was killed is said by the next try
)


@dg.schedule(
    job=record_predictions_job,
    name="record_predictions_schedule",
    cron_schedule="2 * * * *",
    execution_timezone="UTC",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
def record_predictions_schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """At minute 2 of every hour, when its bar is there; a tick that comes late or twice asks for the same run."""
    return dg.RunRequest(run_key=f"{context.scheduled_execution_time:%Y-%m-%dT%H}")


defs = dg.Definitions(
    assets=[predictions, model_accuracy],
    asset_checks=[accuracy_has_not_dropped, models_fresh],
    jobs=[record_predictions_job],
    schedules=[record_predictions_schedule],
)
