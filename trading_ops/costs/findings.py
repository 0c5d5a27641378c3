"""What about a day's API costs should not be so?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from trading_ops.notifications.alert import Severity

BUDGET_STOPS = ("day", "month")


class CostFinding(NamedTuple):
    """`about` names the rule; `text` says the figure and its limit, `detail` what follows from it."""

    day: str
    severity: Severity
    about: str
    text: str
    detail: str = ""


def cost_findings(document: Mapping[str, Any]) -> Iterator[CostFinding]:
    """Of one day's document: an unknown spend, one above a limit, calls that were refused, sums that do not add up."""
    day = document["day"]
    if document["error"]:
        yield CostFinding(day, Severity.ERROR, "bot", "the bot's costs are unknown", document["error"])
    for alert in document["alerts"]:
        text = f"${alert['spent_usd']:.2f} this {alert['period']} exceeds ${alert['limit_usd']:.2f}"
        severity = Severity(alert["severity"])
        yield CostFinding(day, severity, alert["period"], text, stop_said(document) if severity == "CRITICAL" else "")
    told = document.get("refusals") or {}  # days recorded by a release before have none of these
    refused = {kind: told[kind] for kind in BUDGET_STOPS if told.get(kind)}
    if refused:
        each = " and ".join(f"{count} by the {kind}'s budget" for kind, count in refused.items())
        total = sum(refused.values())
        text = f"{total} LLM call{'s were' if total > 1 else ' was'} refused"
        yield CostFinding(day, Severity.WARNING, "refused", text, f"{each}; {stop_said(document)}")
    if beyond := document.get("beyond_bound"):
        text = f"{beyond} LLM call{'s' if beyond > 1 else ''} cost more than was reserved"
        advice = (
            "the server says more than it is let, so one call may overshoot a limit: choose another model or server"
        )
        yield CostFinding(day, Severity.ERROR, "bound", text, advice)
    counted = document.get("budget_day_usd")
    if counted is not None and round(counted - document["platform_cost_usd"], 9) != 0:
        text = f"the budget counts ${counted:.6f}, the ledger's rows ${document['platform_cost_usd']:.6f}"
        advice = "rows were added or lost by another hand: see trading-ops audit verify"
        yield CostFinding(day, Severity.ERROR, "ledger", text, advice)


def stop_said(document: Mapping[str, Any]) -> str:
    """Whether LLM calls may start, and until when not."""
    allowed = "; ".join(
        f"{word['by']} allowed up to ${word['up_to_usd']:.2f} this {word['period']}: {word['reason']}"
        for word in document.get("overrides", ())
    )
    if document["llm_allowed"]:
        return allowed or "LLM calls may start"
    until = document.get("stop_lifts_at")
    ends = f"until {datetime.fromisoformat(until):%Y-%m-%d %H:%M} UTC" if until else "until the period ends"
    return f"no LLM call starts {ends}{f' ({allowed})' if allowed else ''}"
