"""What is the account worth? `portfolio_report`, at 08:00 UTC."""

from datetime import date

import dagster as dg

from trading_ops.audit.store import StoreUnavailable
from trading_ops.defs.alerting import Finding, checked_days, conclude, stored
from trading_ops.defs.partitions import daily_asset, daily_job, daily_schedule, run_days
from trading_ops.defs.presenting import show, table_of
from trading_ops.defs.reporting import Documents, report
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.performance.trades import DAY, read_equity, read_trades
from trading_ops.portfolio.message import PICTURE_DAYS, report_alert
from trading_ops.portfolio.report import report_days
from trading_ops.services import Services


@daily_asset(group_name="portfolio", metadata={"collection": "portfolio_reports"}, deps=["closed_trades"])
def portfolio_report(context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]) -> dict:
    """Balance, equity, flows and returns of the day and since the start, for the account and each strategy.

    Grain: one document a day, a row a strategy. Formula: trading_ops/portfolio/report.py
    """
    days = run_days(context, services)
    first, last = date.fromisoformat(days[0]), date.fromisoformat(days[-1])
    store, bot = services.store, services.bot
    trades = read_trades(store, bot, first, last)
    daily = read_equity(store, bot, min(bot.calendar().first_day, first - DAY), last)
    documents = report_days(trades.frame, daily, bot.portfolio(), days, label=bot.label, incomplete=trades.incomplete)
    show(
        context,
        documents,
        ("equity_usdt", "return_pct", "realised_pnl_usdt"),
        formula="trading_ops/portfolio/report.py",
        strategies=table_of(_rows(documents[days[-1]])),
        audit_heads=dg.MetadataValue.json(_heads(services)),
    )
    return documents


@dg.asset_check(asset=portfolio_report)
def portfolio_accounted(
    context: dg.AssetCheckExecutionContext, services: dg.ResourceParam[Services]
) -> dg.AssetCheckResult:
    """The equity is known, and trades, marks and flows explain its change."""
    documents = stored(services, "portfolio_reports", checked_days(context, services))
    first_day = str(services.bot.calendar().first_day)
    findings = []
    for day, document in documents.items():
        if document["equity_usdt"] is None:
            text = "equity at 24:00 UTC is unknown: no snapshot within 15 minutes, and trades are missing to rebuild it"
            findings.append(Finding(day, Severity.ERROR, "equity", text))
        elif document["equity_basis"] == "closed_only":
            text = "no snapshot within 15 minutes of 24:00 UTC: equity is rebuilt from closed trades, without open ones"
            findings.append(Finding(day, Severity.WARNING, "equity", text))
        elif document["return_pct"] is None and day != first_day:
            text = "the day's return is unknown: equity is missing or unexplained"
            findings.append(Finding(day, Severity.WARNING, "return", text))

    def alert_of(documents: Documents, days: list[str]) -> Alert:
        return report_alert(documents, days, heads=_heads(services))

    verdict = conclude(
        context, services, findings, what_to_do="Compare the bot's balance with its trades and deposits."
    )
    report(context, services, "portfolio_reports", PICTURE_DAYS, alert_of)
    return verdict


def _heads(services: Services) -> list[str]:
    """The audit trail's heads for a person to keep, or why they are not known."""
    try:
        return [f"{head.collection}:{head.seq}:{head.hash}" for head in services.store.heads()]
    except StoreUnavailable as error:
        return [f"unknown: {error}"]


def _rows(document: dict) -> list[dict]:
    columns = {
        "equity USDT": "equity_usdt",
        "return %": "return_pct",
        "since start %": "return_since_start_pct",
        "realised USDT": "realised_pnl_usdt",
        "trades": "total_trades",
        "win %": "win_rate_pct",
    }
    scopes = {**document["strategies"], "portfolio": document}
    return [{"strategy": s, **{head: row[field] for head, field in columns.items()}} for s, row in scopes.items()]


daily_portfolio_report = daily_job(
    "daily_portfolio_report",
    "portfolio_report",
    description="Profit and loss of the day and since the start, per strategy. Daily at 08:00 UTC.",
)

defs = dg.Definitions(
    assets=[portfolio_report],
    asset_checks=[portfolio_accounted],
    jobs=[daily_portfolio_report],
    schedules=[daily_schedule(daily_portfolio_report, hour=8)],
)
