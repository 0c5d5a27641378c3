"""What are people told of a retrain?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from trading_ops.commands import command
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.training.retrain import BY, Trigger

INCIDENT = f"{BY}/all_failed"


def retrain_alert(documents: Sequence[Mapping[str, Any]], trigger: Trigger, link: str | None) -> Alert:
    """All models of one decision: which were deployed and why the others were not. All failed: CRITICAL."""
    counts = {kind: sum(d["outcome"] == kind for d in documents) for kind in ("deployed", "kept", "failed")}
    all_failed = counts["failed"] == len(documents)
    severity = Severity.CRITICAL if all_failed else Severity.WARNING if counts["failed"] else Severity.INFO
    said = f"{counts['deployed']} of {len(documents)} models deployed after a retrain"
    if counts["failed"]:
        said += f", {counts['failed']} failed"
    deployed = [document["name"] for document in documents if document["deployed"] and document["champion"]]
    back = " && ".join(command("models rollback", name, reason="...") for name in deployed)
    return Alert(
        severity=severity,
        dedup_key=f"retrain/{trigger.decision}/{_came_to(documents)}",
        what="Every model failed to retrain; the champions stay" if all_failed else said,
        why="\n".join([f"{trigger.reason} (decision {trigger.decision})", *map(line, documents)]),
        what_to_do="Read the errors, correct their cause and start adaptive_retrain again."
        if all_failed
        else f"Nothing. To go back to the model before: {back}"
        if back
        else "Nothing: the champions stay.",
        numbers={"cost_cpu_s": round(sum(d.get("cost_cpu_s", 0.0) for d in documents), 1), **counts},
        done="" if all_failed else said,
        link=link,
        incident=INCIDENT if all_failed else None,
    )


def _came_to(documents: Sequence[Mapping[str, Any]]) -> str:
    """The outcomes in short: the same are told once, and others of the same decision again."""
    pairs = sorted((document["name"], document["outcome"]) for document in documents)
    return sha256(json.dumps(pairs).encode()).hexdigest()[:12]


def line(document: Mapping[str, Any]) -> str:
    """One model's outcome for people."""
    return f"{document['name']}: {document['outcome']}, {document['why']}"
