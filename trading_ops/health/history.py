"""What did every check find, and where is it kept?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Entry, StoreError
from trading_ops.health.rules import LABELS, Status, Verdict, worst
from trading_ops.health.uptime import WINDOWS, by_slot

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, Receipt

HISTORY = "health_history"
LONGEST = max(WINDOWS.values())
STATUSES = set(Status)


def document_of(verdicts: Sequence[Verdict], at: datetime) -> dict[str, Any]:
    """A check as it is recorded: the overall status, what is told, and each component."""
    return {
        "at": at.astimezone(UTC).isoformat(),
        "overall": str(worst(verdict.status for verdict in verdicts)),
        "alerts": [verdict.found for verdict in verdicts if verdict.status.severity],
        "components": {v.component: {**asdict(v), "status": str(v.status)} for v in verdicts},
    }


def record_check(store: AuditStore, document: Mapping[str, Any]) -> Receipt:
    """Store a check under its UTC day and time; the same check run again is a revision."""
    (receipt,) = store.append(HISTORY, [Entry(*_place(datetime.fromisoformat(document["at"])), document)])
    return receipt


def was_down(store: AuditStore, at: datetime, component: str) -> bool:
    """Whether the check that was due `at` found the component down; no where there is none, or nobody can say."""
    day, time = _place(at)
    try:
        records = store.read(HISTORY, partitions=[day], key=time)
    except StoreError:
        return False
    return any(record.body["components"][component]["status"] == Status.DOWN for record in records)


def read_checks(store: AuditStore, until: datetime) -> dict[str, dict[datetime, Status]]:
    """How each component was in each quarter of an hour of the last 30 days; raises StoreError."""
    first = until.astimezone(UTC) - LONGEST - timedelta(days=1)
    records = store.read(HISTORY, first=str(first.date()), last=str(until.astimezone(UTC).date()))
    looks: dict[str, list[tuple[datetime, Status]]] = {name: [] for name in LABELS}
    for record in records:
        at = datetime.fromisoformat(record.body["at"])
        for name, seen in record.body["components"].items():
            # what only another version knows is unknown here
            status = Status(seen["status"]) if seen["status"] in STATUSES else Status.UNKNOWN
            looks.setdefault(name, []).append((at, status))
    return {name: by_slot(seen) for name, seen in looks.items()}


def _place(at: datetime) -> tuple[str, str]:
    """The UTC day and time that a check is found under."""
    utc = at.astimezone(UTC)
    return str(utc.date()), f"{utc:%H:%M:%S}"
