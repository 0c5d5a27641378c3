"""What happened after a decision? The retrains it led to, and how the bot did in the seven days that followed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from trading_ops.assessments.past import COLLECTION, ONE_DAY, RETRAINS, WEEK, retrain_decided_at
from trading_ops.audit.store import AuditStore, Record

KEPT_OF_A_RETRAIN = ("name", "outcome", "why", "challenger", "champion", "scores", "at")
EARLIER_DAYS = 8  # a retrain is kept under the end of its candles, which may be before the day that decided it


def aftermath(store: AuditStore, day: str, decision_ids: Sequence[str], source: str) -> dict[str, Any]:
    """`retrains`: what came of each model that these decisions had trained anew, of every try the last.

    `days`: the seven after `day`, as far as they are recorded of this bot: the win rate of the seven days ending with
    each, in percent, with its interval and trades, and the share of right predictions of the day. The last of them
    covers exactly what came after the decision. Raises StoreUnavailable.
    """
    first = date.fromisoformat(day)
    retrains = [
        {"decision_id": trigger["decision"], **{name: record.body.get(name) for name in KEPT_OF_A_RETRAIN}}
        for record in store.read(RETRAINS, first=str(first - EARLIER_DAYS * ONE_DAY))
        if isinstance(trigger := record.body.get("trigger"), dict) and trigger.get("decision") in decision_ids
    ]
    after = [str(first + number * ONE_DAY) for number in range(1, WEEK + 1)]
    performance, accuracy = (
        {record.partition: record for record in store.read(name, partitions=after, key="") if _of(record, source)}
        for name in ("performance_metrics", "model_accuracy_history")
    )
    known = [day for day in after if day in performance or day in accuracy]
    return {"retrains": retrains, "days": [_day(day, performance.get(day), accuracy.get(day)) for day in known]}


def never_begun(store: AuditStore, day: str, source: str) -> str | None:
    """The decision of the second day before `day` to retrain that has left nothing in `retrain_history`.

    None: there is none. It was launched on the day before `day` alone, if at all. Raises StoreUnavailable.
    """
    before = str(date.fromisoformat(day) - 2 * ONE_DAY)
    decided = [
        str(record.body.get("decision_id"))
        for record in store.read(COLLECTION, partitions=[before], key="", all_revisions=True)
        if _of(record, source) and retrain_decided_at(record.body) is not None
    ]
    if not decided or aftermath(store, before, decided, source)["retrains"]:
        return None
    return decided[0]


def _of(record: Record, source: str) -> bool:
    return record.body.get("source") == source


def _day(day: str, performance: Record | None, accuracy: Record | None) -> dict[str, Any]:
    account = _part(performance, "portfolio")
    pooled = _part(accuracy, "pooled")
    intervals = account.get("intervals")
    return {
        "day": day,
        "window_trades": account.get("total_trades"),
        "window_win_rate_pct": account.get("win_rate_pct"),
        "window_win_rate_interval_pct": intervals.get("win_rate_pct") if isinstance(intervals, dict) else None,
        "accuracy": pooled.get("accuracy"),
        "accuracy_n": pooled.get("n"),
    }


def _part(record: Record | None, name: str) -> Mapping[str, Any]:
    part = None if record is None else record.body.get(name)
    return part if isinstance(part, dict) else {}
