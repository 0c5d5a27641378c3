"""What are people told of the day's API costs?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trading_ops.costs.budget import Limits
from trading_ops.costs.findings import stop_said
from trading_ops.notifications.alert import Alert, Severity

PICTURE_DAYS = 30


def report_alert(documents: Mapping[str, Mapping[str, Any]], days: Sequence[str], *, limits: Limits) -> Alert:
    """The costs of the last of `days` beside their limits, with the costs of all of them as picture."""
    document = documents[days[-1]]
    day_usd, month_usd = document["day_usd"], document["month_usd"]
    spent = f"${day_usd:.2f} on the day, ${month_usd:.2f} this month"
    whose = "the platform's own calls, " if document["error"] else ""
    return Alert(
        severity=Severity.INFO,
        dedup_key=f"report/api_costs/{days[-1]}",
        what=f"API costs on {days[-1]}: {'unknown' if document['error'] else spent}",
        why="\n".join(
            (
                f"{whose}day: ${day_usd:.2f} of ${limits.day_critical_usd:.2f},"
                f" warning above ${limits.day_warning_usd:.2f}",
                f"{whose}month: ${month_usd:.2f} of ${limits.month_critical_usd:.2f}, warning above"
                f" ${limits.month_warning_usd:.2f}, heading for ${document['platform_month_projected_usd']:.2f}"
                " by the platform's own calls",
                *_calls(document),
                *([f"the bot's costs are unknown: {document['error']}"] if document["error"] else []),
            )
        ),
        what_to_do="Nothing."
        if document["llm_allowed"]
        else f"See which model and purpose spends (trading-ops costs): {stop_said(document)}.",
        day=days[-1],
        numbers={
            "day_usd": day_usd,
            "month_usd": month_usd,
            "month_projected_usd": document["platform_month_projected_usd"],
            "requests": document["requests"],
            "unsettled": document.get("unsettled"),
            "refusals": document.get("refusals"),
            "tokens": document["tokens"],
            "cost_by_model_usd": document["cost_by_model_usd"],
        },
        picture={
            "title": f"LLM spend a day, {len(days)} days to {days[-1]}",
            "unit": "USD",
            "days": list(days),
            "series": {"spent": [documents.get(day, {}).get("day_usd") for day in days]},
            "limits": {"warning above": limits.day_warning_usd, "critical above": limits.day_critical_usd},
        },
    )


def _calls(document: Mapping[str, Any]) -> list[str]:
    """What is said of calls that are open or were refused, and of an operator's words, where there are any."""
    said = []
    if document.get("unsettled"):
        said.append(f"{document['unsettled']} calls not settled, counted at most: ${document['unsettled_usd']:.2f}")
    if refusals := document.get("refusals"):
        said.append("refused: " + ", ".join(f"{count} by the {kind}" for kind, count in sorted(refusals.items())))
    if document.get("overrides") and document["llm_allowed"]:
        said.append(stop_said(document))
    return said
