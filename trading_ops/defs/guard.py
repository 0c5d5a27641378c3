"""Is a strategy bleeding? `strategy_risk`, the value that `emergency_strategy_disable` is launched on."""

import json
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Any

import dagster as dg
from pydantic import Field

from trading_ops.bot.client import Bot, BotError
from trading_ops.defs.alerting import Finding, checked_days, conclude, stored
from trading_ops.defs.partitions import MAX_RUNTIME, daily_asset, run_days
from trading_ops.defs.presenting import show, table_of
from trading_ops.guard.actions import PENDING, STOPPED, action_id, latencies
from trading_ops.guard.by_hand import disable, follow
from trading_ops.guard.rules import GUARD_BLIND, describe, judge_days
from trading_ops.guard.switch import Seen
from trading_ops.guard.telling import STOP_BY_HAND
from trading_ops.notifications.alert import Severity
from trading_ops.performance.trades import DAY, read_equity, trailing_trades
from trading_ops.services import Services

PATIENCE_S = 10.0  # for a look: the daemon's sensors wait for each other, and give up one that takes a minute
OBSERVED_EVERY = timedelta(minutes=1)  # at most, while there is no action


@daily_asset(group_name="guard", deps=["closed_trades"])
def strategy_risk(context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]) -> dict:
    """Each strategy's loss on the day, losing streak and recent win rate, and the distance to each limit.

    Grain: one document a day, a row a strategy. Formula: trading_ops/guard/rules.py
    """
    days = run_days(context, services)
    store, bot, policy = services.store, services.bot, services.guard_policy
    daily = read_equity(store, bot, date.fromisoformat(days[0]) - DAY, date.fromisoformat(days[-1]))
    trades = trailing_trades(store, bot, days)
    documents = judge_days(
        trades.frame,
        daily,
        days,
        policy.limits,
        label=bot.label,
        own_limits=policy.own_limits,
        incomplete=trades.incomplete,
        allocated=_allocated(context, bot),
    )
    rows = _rows(documents[days[-1]])
    show(context, documents, ("status",), formula="trading_ops/guard/rules.py", strategies=table_of(rows))
    return documents


@dg.asset_check(asset=strategy_risk)
def risk_within_limits(
    context: dg.AssetCheckExecutionContext, services: dg.ResourceParam[Services]
) -> dg.AssetCheckResult:
    """No strategy has crossed or come near a limit that stops it, and its loss is known."""
    documents = stored(services, "strategy_risk", checked_days(context, services))
    findings = []
    for day, document in documents.items():
        if document["incomplete"]:
            text = "trades are quarantined or missing: losses may be larger"
            findings.append(Finding(day, Severity.WARNING, "incomplete", text))
        for strategy, risk in document["strategies"].items():
            for rule in (risk["breach"], *risk["warnings"]):
                if rule:
                    severity = Severity.CRITICAL if rule in (risk["breach"], GUARD_BLIND) else Severity.WARNING
                    limits = document.get("own_limits", {}).get(strategy, document["limits"])
                    text = f"{strategy}: {describe(rule, risk, limits)}"
                    findings.append(Finding(day, severity, f"{strategy} {rule}", text))
    advice = "Look at the strategy's open positions; `trading-ops strategies disable NAME --reason ...` stops it."
    return conclude(context, services, findings, what_to_do=advice)


def _allocated(context: dg.AssetExecutionContext, bot: Bot) -> dict[str, float | None]:
    """What each strategy was given; it only stands in for an unknown equity, without which the guard is blind."""
    try:
        return {state.name: state.allocated_usdt for state in bot.strategies()}
    except BotError as error:
        context.log.warning(f"allocations are unknown: {error}")
        return {}


def _rows(document: Mapping[str, Any]) -> list[dict]:
    return [
        {
            "strategy": strategy,
            "breach": risk["breach"],
            "warnings": ", ".join(risk["warnings"]) or None,
            "loss today %": risk["daily_loss_pct"],
            "left %": risk["distance"]["daily_loss_pct"],
            "losses in a row": risk["consecutive_losses"],
            "losses left": risk["distance"]["consecutive_losses"],
            "win % of last 20": risk["recent_win_rate_pct"],
        }
        for strategy, risk in document["strategies"].items()
    ]


class Stop(dg.Config):
    """The stop to follow up, or (with a reason) to begin."""

    strategy: str = Field(description="The strategy, as the bot names it.")
    action: str = Field("", description="The recorded action to follow up; the guard's sensor gives it.")
    reason: str = Field("", description="Why it must stop, where a person begins this by hand.")
    dry_run: bool = Field(True, description="Only say what would be done; set to false to act.")
    within_s: float = Field(60.0, gt=0, le=600, description="Seconds to wait for the confirmation.")


@dg.op
def stop_and_prove(context: dg.OpExecutionContext, config: Stop, services: dg.ResourceParam[Services]) -> None:
    """Follows a stop until it is confirmed at the bot, records it in `strategy_actions` and tells people.

    Without the guard's action it begins a stop for the reason that is given. Fails where it cannot be confirmed.
    """
    guard, name = services.guard, config.strategy
    action = guard.memory.load().get(name) or guard.memory.get(name)
    begun = "at" in action and action_id(action) == config.action
    if not begun and config.action:
        context.log.info(f"{config.action} is over: {name} is at {action_id(action)}, {action['state']}")
        return
    if not begun and not config.reason.strip():
        raise dg.Failure(f"{name}: a stop begun by hand needs a reason", allow_retries=False)
    if config.dry_run:
        context.log.info(f"dry run: {name} ({action['state']}) would be stopped; set dry_run to false to act")
        return
    if begun:
        (action,) = follow(guard, [name], config.within_s)
    else:
        (action,) = disable(guard, [name], reason=config.reason, by="Dagster", within_s=config.within_s)
    context.add_output_metadata({
        "strategy": name,
        "state": action["state"],
        "trigger": action["trigger"]["why"],
        "disabled_at": action.get("disabled_at") or "not known",
        **{name: seconds for name, seconds in latencies(action).items() if seconds is not None},
    })  # fmt: skip
    if action["state"] in PENDING:
        raise dg.Failure(f"NOT confirmed: {action['why']} {STOP_BY_HAND.format(name=name)}", allow_retries=False)
    context.log.info(f"{name}: {action['state']}")


@dg.job(
    tags={MAX_RUNTIME: "900"},
    description="Stops a strategy, proves it from the bot's own list, records it and tells people.",
)
def emergency_strategy_disable() -> None:
    stop_and_prove()


@dg.sensor(
    job_name="emergency_strategy_disable",  # by name: given as a job, Dagster warns of a parameter that is not used
    minimum_interval_seconds=1,  # at each round of the daemon, which takes 5 s; with 5 every other one is left out
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="One step of the guard: judges the running day, stops what bleeds, and has each stop followed up once.",
)
def guard_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.SensorResult:
    guard = services.standing_guard
    seen = guard.step(PATIENCE_S)
    for problem in filter(None, (seen.problem, guard.memory.problem)):
        context.log.warning(problem)
    return answer(seen, json.loads(context.cursor or "{}"), services.now())


def answer(seen: Seen, before: Mapping[str, Any], now: datetime) -> dg.SensorResult:
    """The running day's value where that is worth it, and a run for each stop that had none. `before`: the last cursor.

    What is only observed, or being resumed, is no stop to follow up.
    """
    open_now = {action_id(action): action["strategy"] for action in seen.actions if action["state"] in STOPPED}
    new = {key: name for key, name in open_now.items() if key not in before.get("actions", ())}
    shown, observed = before.get("shown"), []
    if seen.risk is not None and worth_observing(seen.risk, shown, now, new_action=bool(new)):
        shown = {"at": now.isoformat(), **_shown(seen.risk)}
        figures = {"day": seen.risk["day"], "as_of": seen.risk["as_of"], "status": seen.risk["status"]}
        table = table_of(_rows(seen.risk))
        observed.append(dg.AssetObservation(asset_key="strategy_risk", metadata={**figures, "strategies": table}))
    requests = [
        dg.RunRequest(
            run_key=key,
            run_config={"ops": {"stop_and_prove": {"config": {"strategy": name, "action": key, "dry_run": False}}}},
        )
        for key, name in new.items()
    ]
    nothing = seen.problem or f"{len(open_now)} strategies stopped or being stopped; no new one"
    return dg.SensorResult(
        run_requests=requests or None,
        skip_reason=None if requests else dg.SkipReason(nothing),
        asset_events=observed,
        cursor=json.dumps({"shown": shown, "actions": sorted(open_now)}),
    )


def worth_observing(
    risk: Mapping[str, Any], shown: Mapping[str, Any] | None, now: datetime, *, new_action: bool
) -> bool:
    """Whether the value differs enough from the one that was observed last (`shown`, None: none was): in a verdict, or
    by a whole point in a distance, and a minute later at the earliest; always when there is a new action."""
    if shown is None or new_action:
        return True
    if now - datetime.fromisoformat(shown["at"]) < OBSERVED_EVERY:
        return False
    current = _shown(risk)
    if current["verdict"] != shown["verdict"] or current["left"].keys() != shown["left"].keys():
        return True
    pairs = [(left, shown["left"][name]) for name, left in current["left"].items()]
    return any((a is None) != (b is None) or (a is not None and abs(a - b) >= 1.0) for a, b in pairs)


def _shown(risk: Mapping[str, Any]) -> dict[str, Any]:
    """The verdicts, and the distance to each limit: percent points, and losses."""
    strategies = risk["strategies"].items()
    verdicts = [[name, own["breach"], *own["warnings"]] for name, own in strategies]
    left = {f"{name} {rule}": left for name, own in strategies for rule, left in own["distance"].items()}
    return {"verdict": [risk["day"], risk["status"], *verdicts], "left": left}


defs = dg.Definitions(
    assets=[strategy_risk],
    asset_checks=[risk_within_limits],
    jobs=[emergency_strategy_disable],
    sensors=[guard_sensor],
)
