"""May one more LLM call start, given what this month's calls cost or may still cost?

Amounts are whole billionths of a dollar, so that sums are exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, TypeVar

from trading_ops.costs.budget import Limits
from trading_ops.costs.usage import LlmCall

HOUR = timedelta(hours=1)
CLOCKS_DIFFER = timedelta(minutes=1)  # those of two machines are not quite the same
# By number, not by age: a clock that is wrong for a moment must not make the budget forget this month.
KEPT_ATTEMPTS = 100
KEPT_DAYS = 70
USD = Decimal(10) ** 9
_Value = TypeVar("_Value")


def nano(usd: float | Decimal) -> int:
    """Billionths of a dollar; binary dust below that is dropped.

    >>> nano(0.1 + 0.2)
    300000000
    """
    return round(Decimal(str(usd)) * USD)


def usd(amount: int) -> float:
    return float(Decimal(amount) / USD)


class CallRefused(Exception):
    """No call may start: `kind` day, month or hour names the limit, price says that no price is known for the model.

    `spent` and `limit` are USD (calls, for an hour); `lifts_at` is when the stop lifts by itself, None for a price.
    """

    def __init__(
        self, kind: str, message: str, *, spent: float = 0.0, limit: float = 0.0, lifts_at: datetime | None = None
    ) -> None:
        super().__init__(message)
        self.kind, self.spent, self.limit, self.lifts_at = kind, spent, limit, lifts_at


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the day and the month may cost, and what they cost besides our own calls (the bot's), billionths of USD."""

    day: int
    month: int
    calls_an_hour: int | None
    elsewhere_day: int = 0
    elsewhere_month: int = 0

    @classmethod
    def of(
        cls, limits: Limits, calls_an_hour: int | None, elsewhere_day_usd: float, elsewhere_month_usd: float
    ) -> Ceilings:
        day, month = nano(limits.day_critical_usd), nano(limits.month_critical_usd)
        return cls(day, month, calls_an_hour, nano(elsewhere_day_usd), nano(elsewhere_month_usd))

    def raised(self, up_to_usd: Mapping[str, float]) -> Ceilings:
        """With what an operator allowed for the `day` or the `month` instead."""
        return replace(self, **{period: nano(amount) for period, amount in up_to_usd.items()})


@dataclass(frozen=True, slots=True)
class Pending:
    """A row of the ledger that may not be in the history yet: `revision` 1 reserved, 2 settled."""

    day: str
    revision: int
    row: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Spending:
    """The calls of the newest days: cost by day, when the newest started, refusals by day and kind.

    An open call is in its day's cost with its bound.
    """

    days: Mapping[str, int] = field(default_factory=dict)
    attempts: tuple[datetime, ...] = ()
    refused: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    pending: Mapping[str, Pending] = field(default_factory=dict)

    @classmethod
    def of_rows(cls, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Spending:
        """What the ledger's rows (day, body) say, where nothing else was kept."""
        days: dict[str, int] = {}
        attempts = []
        for day, body in rows:
            call = LlmCall.model_validate(body)
            days[day] = days.get(day, 0) + nano(call.cost_usd)
            attempts += [datetime.fromisoformat(call.reserved_at)] if call.reserved_at else []
        return cls(days, tuple(sorted(attempts)))

    @classmethod
    def from_document(cls, body: Mapping[str, Any]) -> Spending:
        """Raises KeyError, TypeError or ValueError for a document that is none."""
        return cls(
            {day: int(amount) for day, amount in body["days"].items()},
            tuple(map(datetime.fromisoformat, body["attempts"])),
            body["refused"],
            {key: Pending(one["day"], one["revision"], one["row"]) for key, one in body["pending"].items()},
        )

    def to_document(self) -> dict[str, Any]:
        return {
            "days": dict(self.days),
            "attempts": [moment.isoformat() for moment in self.attempts],
            "refused": {day: dict(kinds) for day, kinds in self.refused.items()},
            "pending": {
                key: {"day": one.day, "revision": one.revision, "row": dict(one.row)}
                for key, one in self.pending.items()
            },
        }

    def day_cost(self, day: date) -> int:
        return self.days.get(str(day), 0)

    def month_cost(self, day: date) -> int:
        return sum(amount for other, amount in self.days.items() if other[:7] == str(day)[:7])

    def refusal(self, now: datetime, bound: int, ceilings: Ceilings) -> CallRefused | None:
        """Why a call that may cost `bound` may not start now, None when it may; of several limits the last to lift."""
        today = now.date()
        for period, own, elsewhere, limit, lifts_at in (
            ("month", self.month_cost(today), ceilings.elsewhere_month, ceilings.month, next_month(today)),
            ("day", self.day_cost(today), ceilings.elsewhere_day, ceilings.day, midnight(today + timedelta(days=1))),
        ):
            if own + elsewhere + bound > limit:
                bots = f" (the bot's ${usd(elsewhere):.4f} among it)" if elsewhere else ""
                return CallRefused(
                    period,
                    f"the {period}'s LLM budget: ${usd(own + elsewhere):.4f}{bots} of ${usd(limit):.2f} is spent or"
                    f" reserved and this call may cost ${usd(bound):.4f}; the stop lifts at {lifts_at:%Y-%m-%d %H:%M}"
                    f" UTC, or by `trading-ops costs allow --{period}`",
                    spent=usd(own + elsewhere),
                    limit=usd(limit),
                    lifts_at=lifts_at,
                )
        most, recent = ceilings.calls_an_hour, self.recent(now)
        if most is None or len(recent) < most:
            return None
        lifts_at = recent[-most] + HOUR if most else now + HOUR
        return CallRefused(
            "hour",
            f"{len(recent)} LLM calls started in the last 60 minutes, at most {most} may; the next may start at"
            f" {lifts_at:%Y-%m-%d %H:%M:%S} UTC",
            spent=float(len(recent)),
            limit=float(most),
            lifts_at=lifts_at,
        )

    def recent(self, now: datetime) -> tuple[datetime, ...]:
        """When the calls of the last 60 minutes started; one that a clock which was ahead dates is taken as of now."""
        return tuple(moment for moment in self._dated(now) if moment > now - HOUR)

    def reserved(self, key: str, now: datetime, bound: int, row: Mapping[str, Any], keep: int) -> Spending:
        """With one more call that may cost `bound`."""
        day = str(now.date())
        return replace(
            self,
            days=_newest({**self.days, day: self.days.get(day, 0) + bound}),
            attempts=tuple(sorted((*self._dated(now), now)))[-max(keep, KEPT_ATTEMPTS) :],
            pending={**self.pending, key: Pending(day, 1, row)},
        )

    def settled(self, key: str, day: str, bound: int, cost: int, row: Mapping[str, Any]) -> Spending:
        """With what a call cost in place of its bound; a day that is no longer kept stays forgotten."""
        days = dict(self.days)
        if day in days:
            days[day] += cost - bound
        return replace(self, days=days, pending={**self.pending, key: Pending(day, 2, row)})

    def with_refusal(self, now: datetime, kind: str) -> Spending:
        day = str(now.date())
        kinds = dict(self.refused.get(day, {}))
        kinds[kind] = kinds.get(kind, 0) + 1
        return replace(self, attempts=self._dated(now), refused=_newest({**self.refused, day: kinds}))

    def without(self, written: Mapping[str, int]) -> Spending:
        """Without the rows that are in the history: their keys, and the newest revision that is there."""
        left = {key: one for key, one in self.pending.items() if one.revision > written.get(key, 0)}
        return replace(self, pending=left)

    def _dated(self, now: datetime) -> tuple[datetime, ...]:
        return tuple(sorted(now if moment - now > CLOCKS_DIFFER else moment for moment in self.attempts))


def _newest(days: Mapping[str, _Value]) -> dict[str, _Value]:
    return {day: days[day] for day in sorted(days)[-KEPT_DAYS:]}


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def next_month(day: date) -> datetime:
    """The first moment of the next UTC calendar month."""
    return midnight((day.replace(day=28) + timedelta(days=4)).replace(day=1))
