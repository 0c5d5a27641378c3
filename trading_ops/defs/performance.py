"""How well do the strategies trade? `closed_trades` and `performance_metrics`, measured at 01:00 UTC."""

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg

from trading_ops.audit.store import StoreUnavailable
from trading_ops.defs.alerting import Finding, checked_days, conclude, stored
from trading_ops.defs.partitions import (
    daily_asset,
    daily_job,
    daily_schedule,
    reread_job,
    reread_schedule,
    run_days,
)
from trading_ops.defs.presenting import show, table_of
from trading_ops.notifications.alert import Severity
from trading_ops.performance.plot import PLOT_DAYS, performance_plot
from trading_ops.performance.trades import DAY, midnight, read_equity, trades_by_day, trailing_trades
from trading_ops.performance.verdict import METRICS, describe
from trading_ops.performance.window import measure_days
from trading_ops.services import Services

GROUP = "performance"
SHOWN_IDS = 5  # of vanished trades, in an alert


@daily_asset(group_name=GROUP, deps=["candles"])
def closed_trades(context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]) -> dict:
    """The bot's trades closed on one UTC day, validated; what cannot be true is quarantined with its reason.

    Grain: one document a day, its trades as rows. Formula: trading_ops/performance/trades.py, bot/records.py
    """
    days = run_days(context, services)
    closed = services.bot.closed_trades(midnight(days[0]), midnight(days[-1]) + DAY)
    known = _of_this_bot(services, "closed_trades", days)
    documents = trades_by_day(closed, days, label=services.bot.label, known=known)
    shown = ("strategy", "symbol", "closed_at", "pnl_usdt", "pnl_pct", "close_reason")
    rows = [{name: trade[name] for name in shown} for trade in documents[days[-1]]["trades"]]
    formula = "trading_ops/performance/trades.py"
    show(context, documents, ("total", "outcome"), formula=formula, trades_of_the_day=table_of(rows))
    return documents


@dg.asset_check(asset=closed_trades)
def closed_trades_believed(
    context: dg.AssetCheckExecutionContext, services: dg.ResourceParam[Services]
) -> dg.AssetCheckResult:
    """No row was quarantined, and the bot sent the whole list, also of what it told before."""
    documents = stored(services, "closed_trades", checked_days(context, services))
    findings = [
        Finding(
            day, Severity.ERROR, f"row {bad['row']}", "a trade cannot be true", f"{bad['reason']} (row {bad['row']})"
        )
        for day, document in documents.items()
        for bad in document["quarantined"]
    ]
    findings += [
        Finding(day, Severity.ERROR, "list", "the bot's list may be cut off; trades may be missing")
        for day, document in documents.items()
        if not document["complete"]
    ]
    findings += [
        Finding(day, Severity.ERROR, "vanished", f"{len(ids)} trades the bot told before are missing from its list"
                f" ({', '.join(ids[:SHOWN_IDS])}{', ...' if len(ids) > SHOWN_IDS else ''})")
        for day, document in documents.items()
        if (ids := document.get("vanished"))
    ]  # fmt: skip
    return conclude(context, services, findings, what_to_do="Compare the rows with the bot's own trade list.")


@daily_asset(group_name=GROUP, deps=["closed_trades"])
def performance_metrics(context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]) -> dict:
    """Win rate, average profit, Sharpe ratio, profit factor and drawdown over the seven days ending with the day.

    Grain: one document a day, a row a strategy. Formula: trading_ops/performance/metrics.py
    """
    days = run_days(context, services)
    store, bot, limits = services.store, services.bot, services.performance_limits
    trades = trailing_trades(store, bot, days)
    daily = read_equity(store, bot, bot.calendar().first_day, date.fromisoformat(days[-1]))
    documents = measure_days(trades.frame, daily, days, limits, label=bot.label, incomplete=trades.incomplete)
    plotted = [str(day.date()) for day in daily.equity.index[-PLOT_DAYS:]]
    earlier = _of_this_bot(services, "performance_metrics", plotted)
    show(
        context,
        {day: {**document["portfolio"], **document} for day, document in documents.items()},
        ("status", "outcome", "total_trades", *METRICS),
        formula="trading_ops/performance/metrics.py",
        strategies=table_of(_rows(documents[days[-1]])),
        sharpe_note=dg.MetadataValue.text("a 7-day Sharpe ratio is noise (standard error about 7): see the 90-day one"),
        equity_and_win_rate=dg.MetadataValue.md(performance_plot(daily, {**earlier, **documents}, limits)),
    )
    return documents


def _of_this_bot(services: Services, collection: str, days: list[str]) -> dict[str, Mapping[str, Any]]:
    """What is stored of these days and this bot; nothing is known while the store is down."""
    try:
        documents = stored(services, collection, days)
    except StoreUnavailable:
        return {}
    return {day: document for day, document in documents.items() if document["source"] == services.bot.source}


@dg.asset_check(asset=performance_metrics)
def performance_within_limits(
    context: dg.AssetCheckExecutionContext, services: dg.ResourceParam[Services]
) -> dg.AssetCheckResult:
    """No strategy's win rate, average profit or Sharpe ratio is below its target; unconfirmed breaches warn at most."""
    documents = stored(services, "performance_metrics", checked_days(context, services))
    findings = [
        Finding(
            day,
            Severity(alert["severity"]) if alert["confirmed"] else Severity.WARNING,
            f"{strategy} {alert['metric']}",
            f"{strategy}: {describe(alert['metric'], alert['value'], alert['limit'])}"
            + ("" if alert["confirmed"] else ", unconfirmed"),
        )
        for day, document in documents.items()
        for strategy, metrics in document["strategies"].items()
        for alert in metrics["alerts"]
    ]
    advice = "Look at the strategy's trades of the week; retrain or change its parameters when a breach is confirmed."
    return conclude(context, services, findings, what_to_do=advice)


def _rows(document: dict) -> list[dict]:
    columns = {
        "verdict": "status",
        "trades": "total_trades",
        "win %": "win_rate_pct",
        "avg profit %": "avg_profit_pct",
        "Sharpe 90 d": "sharpe_ratio_90d",
        "Sharpe 7 d": "sharpe_ratio",
        "profit factor": "profit_factor",
        "drawdown %": "max_drawdown_pct",
    }
    scopes = {**document["strategies"], "portfolio": document["portfolio"]}
    return [{"strategy": s, **{head: m[field] for head, field in columns.items()}} for s, m in scopes.items()]


daily_performance_analysis = daily_job(
    "daily_performance_analysis",
    "closed_trades",
    "strategy_risk",
    "performance_metrics",
    "model_accuracy",
    checks_of=("candles",),
    description="Reads the day's trades and measures every strategy and model: metrics, verdicts, risk, accuracy. Daily"
    " at 01:00 UTC.",
)

reread_recent_days = reread_job(
    "reread_recent_days",
    "closed_trades",
    "strategy_risk",
    "performance_metrics",
    "portfolio_report",
    description="At 00:45 UTC reads the trades of the three days measured last again: late and corrected ones append a"
    " revision, and what depends on them is measured again. Nothing changed: nothing is appended. Without the bot or"
    " the audit store it is tried again for twelve minutes, and each day's turn comes again the night after.",
)

defs = dg.Definitions(
    assets=[closed_trades, performance_metrics],
    asset_checks=[closed_trades_believed, performance_within_limits],
    jobs=[daily_performance_analysis, reread_recent_days],
    schedules=[
        daily_schedule(daily_performance_analysis, hour=1),
        reread_schedule(reread_recent_days, cron="45 0 * * *"),
    ],
)
