"""What else than the settings decides what a day and a month may cost: an operator's word, and what the bot spends."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from trading_ops.audit.store import AuditStore, Entry, Record, StoreError
from trading_ops.bot.records import UsageStatistics
from trading_ops.costs.budget import Limits
from trading_ops.costs.spending import midnight, next_month

COLLECTION = "cost_overrides"
PERIODS = ("day", "month")


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's word that this one `period` (day or month) may cost `up_to_usd`, until it ends. Times ISO, UTC."""

    period: str
    up_to_usd: float
    reason: str
    by: str
    at: str
    until: str


def allow(
    store: AuditStore, now: datetime, period: str, up_to_usd: float, *, reason: str, by: str, limits: Limits
) -> Override:
    """Record that the period of `now` may cost up to this amount; a later word replaces an earlier one.

    Raises ValueError for an amount that would allow nothing, or without a reason; StoreError where it is not recorded.
    """
    if period not in PERIODS:
        raise ValueError(f"period is {period!r}; give any of {', '.join(PERIODS)}")
    limit = limits.day_critical_usd if period == "day" else limits.month_critical_usd
    if not math.isfinite(up_to_usd) or up_to_usd <= limit:
        raise ValueError(f"up to ${up_to_usd} allows nothing: the {period}'s limit is ${limit:.2f}, give more")
    for name, text in (("reason", reason), ("by", by)):
        if not text.strip():
            raise ValueError(f"{name} is empty; say it for the audit trail")
    until = period_end(period, now.date())
    word = Override(period, float(up_to_usd), reason.strip(), by.strip(), now.isoformat(), until.isoformat())
    store.append(COLLECTION, [Entry(_partition(period, now.date()), period, asdict(word))])
    return word


def in_force(store: AuditStore, day: date) -> dict[str, Override]:
    """The newest word about this day and about its month, by period. Raises StoreError for a record that is none."""
    partitions = {_partition(period, day) for period in PERIODS}
    return {
        record.key: _override(record)
        for record in store.read(COLLECTION, partitions=sorted(partitions))
        if record.partition == _partition(record.key, day)
    }


def _override(record: Record) -> Override:
    try:
        word = Override(**record.body)
        if not math.isfinite(word.up_to_usd):
            raise ValueError(f"up_to_usd is {word.up_to_usd!r}")
    except (TypeError, ValueError) as error:
        raise StoreError(f"{COLLECTION}, record {record.seq}: no operator's word ({error}); run verify()") from error
    return word


def period_end(period: str, day: date) -> datetime:
    """When the day, or its month, is over."""
    return midnight(day + timedelta(days=1)) if period == "day" else next_month(day)


def _partition(period: str, day: date) -> str:
    return str(day if period == "day" else day.replace(day=1))


def bot_spend(store: AuditStore, now: datetime) -> tuple[float, float]:
    """USD that the bot said it spent in this day and this month, 0 where its newest word is of an earlier one.

    Raises StoreError for a record that holds no statistics: what it hides may be beyond a limit.
    """
    told = [record for record in store.read("bot_usage") if "error" not in record.body]
    if not told:
        return 0.0, 0.0
    newest = max(told, key=lambda record: record.seq)  # a clock that was ahead for a moment hides none that follows
    try:
        said = UsageStatistics.model_validate(newest.body)
    except ValidationError as error:
        raise StoreError(f"bot_usage, record {newest.seq}: no usage statistics ({error}); run verify()") from error
    day: Any = newest.recorded_at.date()
    in_month = (day.year, day.month) == (now.year, now.month)
    return said.daily_cost_usd if day == now.date() else 0.0, said.monthly_cost_usd if in_month else 0.0
