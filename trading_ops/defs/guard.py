"""Is a strategy bleeding? `strategy_risk`, the value that stopping a strategy is decided on."""

from datetime import date

import dagster as dg

from trading_ops.bot.client import Bot, BotError
from trading_ops.defs.alerting import Finding, checked_days, conclude, stored
from trading_ops.defs.partitions import daily_asset, run_days
from trading_ops.defs.presenting import show, table_of
from trading_ops.guard.rules import GUARD_BLIND, describe, judge_days
from trading_ops.notifications.alert import Severity
from trading_ops.performance.trades import DAY, read_equity, trailing_trades
from trading_ops.services import Services


@daily_asset(group_name="guard", deps=["closed_trades"])
def strategy_risk(context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]) -> dict:
    """Each strategy's loss on the day, losing streak and recent win rate, and the distance to each limit.

    Grain: one document a day, a row a strategy. Formula: trading_ops/guard/rules.py
    """
    days = run_days(context, services)
    store, bot, limits = services.store, services.bot, services.guard_limits
    daily = read_equity(store, bot, date.fromisoformat(days[0]) - DAY, date.fromisoformat(days[-1]))
    trades = trailing_trades(store, bot, days)
    documents = judge_days(
        trades.frame,
        daily,
        days,
        limits,
        label=bot.label,
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
                    text = f"{strategy}: {describe(rule, risk, document['limits'])}"
                    findings.append(Finding(day, severity, f"{strategy} {rule}", text))
    advice = "Look at the strategy's open positions; disable it at the bot when the loss goes on."
    return conclude(context, services, findings, what_to_do=advice)


def _allocated(context: dg.AssetExecutionContext, bot: Bot) -> dict[str, float | None]:
    """What each strategy was given; it only stands in for an unknown equity, without which the guard is blind."""
    try:
        return {state.name: state.allocated_usdt for state in bot.strategies()}
    except BotError as error:
        context.log.warning(f"allocations are unknown: {error}")
        return {}


def _rows(document: dict) -> list[dict]:
    return [
        {
            "strategy": strategy,
            "breach": risk["breach"],
            "warnings": ", ".join(risk["warnings"]) or None,
            "loss today %": risk["daily_loss_pct"],
            "losses in a row": risk["consecutive_losses"],
            "win % of last 20": risk["recent_win_rate_pct"],
        }
        for strategy, risk in document["strategies"].items()
    ]


defs = dg.Definitions(assets=[strategy_risk], asset_checks=[risk_within_limits])
