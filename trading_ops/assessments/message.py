"""What are people told of the day's decision?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trading_ops.commands import command
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.text import one_line

SHOWN_DAYS = 30
SAYS = {"retrain": "models are retrained", "wait": "no retrain", "optimize_parameters": "parameters, not models"}
SHOWN_ACTIONS = 3


def decision_alert(documents: Mapping[str, Mapping[str, Any]], days: Sequence[str]) -> Alert:
    """The decision of the last of `days`, both opinions, and how often they agreed on the days."""
    document = documents[days[-1]]
    decision, opinion = document["decision"], document["opinion"]
    decided = [other for other in documents.values() if isinstance(other.get("decision"), dict)]
    return Alert(
        severity=Severity.INFO,
        dedup_key=f"report/gpt4_assessment/{document['decision_id']}",
        what=f"Decision for {days[-1]}: {SAYS[decision['action']]} ({document['candles']} candles)",
        why="\n".join((
            f"{_said(decision['why'])} (decided by {_said(decision['decided_by'])},"
            f" decision {document['decision_id']})",
            f"rules alone: {decision['rules_alone']}",
            opinion_line(opinion),
            agreement_line([other for other in decided if other.get("source") == document["source"]]),
            *decision["notes"],
        )),
        what_to_do=_what_to_do(document),
        day=days[-1],
        numbers={
            "confidence": opinion["confidence"],
            "cost_usd": document["cost_usd"],
            "models": ", ".join(decision["models"]) or "none",
        },
    )  # fmt: skip


def opinion_line(opinion: Mapping[str, Any]) -> str:
    """GPT-4's opinion in one line: its words are quoted, as data, and no command can be among them."""
    if opinion["unavailable"]:
        return f"GPT-4: no opinion ({_said(opinion['unavailable'])})"
    said = f"GPT-4: {opinion['recommendation']}, confidence {opinion['confidence']:.2f}, urgency {opinion['urgency']}"
    return f"{said}: {_quoted(opinion['reasoning'])}" if opinion["reasoning"] else said


def agreement_line(documents: Sequence[Mapping[str, Any]]) -> str:
    """How often GPT-4 and the rules said the same of a retrain."""
    agreed = [document["decision"].get("agreed") for document in documents]
    known = [one for one in agreed if one is not None]
    days = f"{len(agreed)} day{'' if len(agreed) == 1 else 's'}"
    if not known:
        return f"agreement of GPT-4 and the rules: not known, no opinion in {days}"
    return f"agreement of GPT-4 and the rules: {sum(known)} of {len(known)} opinions in {days}"


def _said(text: str) -> str:
    """In one line, without the marks that make a command of a text."""
    return one_line(text).replace("`", "'")


def _quoted(text: str) -> str:
    return f'"{_said(text)}"'


def _what_to_do(document: Mapping[str, Any]) -> str:
    decision, opinion = document["decision"], document["opinion"]
    why = command("decisions why", document["day"])
    if decision["action"] == "retrain":
        return f"Nothing: adaptive_retrain compares new models with the champions and keeps the better. {why}"
    if decision["action"] == "optimize_parameters":
        suggested = "; ".join(map(_quoted, opinion["suggested_actions"][:SHOWN_ACTIONS]))
        return f"Look at the strategies' parameters, which nothing changes by itself. Suggested: {suggested}. {why}"
    return f"Nothing. {why}"
