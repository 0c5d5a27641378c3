"""What did the platform record over the last days?"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from trading_ops.audit.store import COLLECTIONS, AuditStore, Record


class History:
    """Questions about the last days, each answered by a list of plain dicts, newest first.

    A dict is the record's newest body with its `metrics` lifted to the top level (names already there win), plus
    `partition`, `key`, `revision` and `recorded_at` (ISO), which always are the store's own.
    """

    def __init__(self, store: AuditStore, now: Callable[[], datetime]) -> None:
        """`now` gives the current instant, with its time zone."""
        self._store = store
        self._now = now

    def get_gpt4_analysis_history(self, days: int = 30) -> list[dict[str, Any]]:
        """GPT-4 assessments and the decisions taken on them. Raises as get_history."""
        return self.get_history("gpt4_analysis_history", days)

    def get_performance_metrics_history(self, days: int = 30) -> list[dict[str, Any]]:
        """Daily performance metrics. Raises as get_history."""
        return self.get_history("performance_metrics", days)

    def get_model_accuracy_history(self, model_type: str | None = None, days: int = 30) -> list[dict[str, Any]]:
        """Daily model accuracy: of all models, or the days and rows of `models` of this type. Raises as get_history.

        What is pooled over all models is not part of an answer about one type.
        """
        records = self.get_history("model_accuracy_history", days)
        return records if model_type is None else [kept for record in records if (kept := _of_type(record, model_type))]

    def get_api_cost_history(self, days: int = 30) -> list[dict[str, Any]]:
        """Daily API costs. Raises as get_history."""
        return self.get_history("api_cost_history", days)

    def get_retrain_history(self, days: int = 30) -> list[dict[str, Any]]:
        """Retrains and their outcomes. Raises as get_history."""
        return self.get_history("retrain_history", days)

    def get_history(self, collection: str, days: int = 30) -> list[dict[str, Any]]:
        """The records of a collection whose instant is at most `days` old; exactly `days` is included.

        The instant is the partition's UTC midnight, or `recorded_at` where there is no partition. Raises ValueError
        for days < 1 and for a collection neither known nor stored.
        """
        if days < 1:
            raise ValueError(f"days is {days!r}; give 1 or more")
        if collection not in COLLECTIONS and collection not in (stored := self._store.collections()):
            known = ", ".join(sorted({*COLLECTIONS, *stored}))
            raise ValueError(f"there is no collection {collection!r}; the known ones are {known}")
        since = _before(self._now(), days)
        records = self._store.read(collection, first=since.date().isoformat())
        records += self._store.read(collection, partitions=[""])
        recent = [(instant, record) for record in records if (instant := _instant(record)) >= since]
        recent.sort(key=lambda found: (found[0], found[1].seq), reverse=True)
        return [_flat(record) for _, record in recent]


def _of_type(record: dict[str, Any], model_type: str) -> dict[str, Any] | None:
    """The record with this type's models alone, None where it has none."""
    if not isinstance(models := record.get("models"), dict):
        return record if record.get("model_type") == model_type else None
    kept = {name: row for name, row in models.items() if row.get("model_type") == model_type}
    return {**record, "models": kept, "pooled": None} if kept else None


def _before(now: datetime, days: int) -> datetime:
    if now.tzinfo is None:
        raise ValueError(f"now is {now.isoformat()} without a time zone; give an aware datetime")
    earliest = datetime.min.replace(tzinfo=UTC)
    return now.astimezone(UTC) - timedelta(days=min(days, (now - earliest).days))


def _instant(record: Record) -> datetime:
    return datetime.fromisoformat(record.partition).replace(tzinfo=UTC) if record.partition else record.recorded_at


def _flat(record: Record) -> dict[str, Any]:
    metrics = record.body.get("metrics")
    return {
        **(metrics if isinstance(metrics, dict) else {}),
        **record.body,
        "partition": record.partition,
        "key": record.key,
        "revision": record.revision,
        "recorded_at": record.recorded_at.isoformat(),
    }
