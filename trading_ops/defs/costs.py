"""What do the APIs cost? `api_costs`, at 09:00 UTC."""

from datetime import date
from functools import partial

import dagster as dg

from trading_ops.audit.store import Entry
from trading_ops.costs.findings import cost_findings
from trading_ops.costs.message import PICTURE_DAYS, report_alert
from trading_ops.costs.overrides import in_force
from trading_ops.costs.report import BudgetView, cost_days, month_start, read_bot
from trading_ops.costs.usage import read_usage
from trading_ops.defs.alerting import Finding, checked_days, conclude, present_day, stored
from trading_ops.defs.partitions import daily_asset, daily_job, daily_schedule, run_days
from trading_ops.defs.presenting import show, table_of
from trading_ops.defs.reporting import report
from trading_ops.services import Services


@daily_asset(group_name="costs", metadata={"collection": "api_cost_history"})
def api_costs(context: dg.AssetExecutionContext, services: dg.ResourceParam[Services]) -> dict:
    """Requests, tokens by class and cost by model, the day's and month's spend, the projection and the budget's state.

    Grain: one document a day. Formula: trading_ops/costs/report.py, costs/budget.py
    """
    days, newest = run_days(context, services), str(services.bot.calendar().last_day)
    if newest in days:  # the bot knows only its present: what it says now is recorded under the newest day
        usage = read_bot(services.bot.usage_statistics)
        if "error" not in usage or not stored(services, "bot_usage", [newest]):  # a failure hides no known figure
            services.store.append("bot_usage", [Entry(newest, "", usage)], recorded_at=services.now())
    services.ledger.repair()
    calls = read_usage(services.store, month_start(days[0]), date.fromisoformat(days[-1]))
    view = _budget_view(services, days)
    documents = cost_days(calls, stored(services, "bot_usage", days), days, services.cost_limits, view)
    by_model = [{"model": m, "cost_usd": cost} for m, cost in documents[days[-1]]["cost_by_model_usd"].items()]
    figures = ("requests", "unsettled", "day_usd", "month_usd", "status", "llm_allowed", "stop_lifts_at")
    show(context, documents, figures, formula="trading_ops/costs/report.py", cost_by_model=table_of(by_model))
    return documents


def _budget_view(services: Services, days: list[str]) -> BudgetView:
    """The sums, refusals and overrides; of the day whose figures are the present ones what a call would be told now."""
    newest = present_day(services)
    now = {newest: services.ledger.standing()} if newest in days else {}
    words = {day: in_force(services.store, date.fromisoformat(day)) for day in days}
    return BudgetView(services.ledger.spending(), words, now)


@dg.asset_check(asset=api_costs)
def costs_within_budget(
    context: dg.AssetCheckExecutionContext, services: dg.ResourceParam[Services]
) -> dg.AssetCheckResult:
    """The day's and month's LLM spend is known and within its limits."""
    documents = stored(services, "api_cost_history", checked_days(context, services))
    findings = [Finding(*found) for document in documents.values() for found in cost_findings(document)]
    advice = (
        "See which model and purpose spends (trading-ops costs); above the critical limit no LLM call starts until the"
        " period ends, or an operator allows it (trading-ops costs allow)."
    )
    verdict = conclude(context, services, findings, what_to_do=advice)
    report(context, services, "api_cost_history", PICTURE_DAYS, partial(report_alert, limits=services.cost_limits))
    return verdict


daily_api_cost_report = daily_job(
    "daily_api_cost_report",
    "api_costs",
    description="LLM spend of the day and month against the budget. Daily at 09:00 UTC.",
)

defs = dg.Definitions(
    assets=[api_costs],
    asset_checks=[costs_within_budget],
    jobs=[daily_api_cost_report],
    schedules=[daily_schedule(daily_api_cost_report, hour=9)],
)
