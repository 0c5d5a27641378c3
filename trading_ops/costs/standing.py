"""How much of the LLM budget is left now, and may a call start?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from trading_ops.costs.budget import Limits
from trading_ops.costs.overrides import Override
from trading_ops.costs.spending import Ceilings, Spending, usd


@dataclass(frozen=True, slots=True)
class Period:
    """A UTC day or month, USD: the platform's own calls with what is reserved, the bot's, and the limit in force.

    `left_usd` is what one more call may cost at most, never below 0; a call that may cost more is refused.
    """

    own_usd: float
    bot_usd: float
    spent_usd: float
    limit_usd: float
    left_usd: float


@dataclass(frozen=True, slots=True)
class Standing:
    """`llm_allowed`: a call could start, though one that may cost more than is left is refused.

    Else `refused` says which limit (day, month, hour) is in the way, `why` in words, and `lifts_at` (ISO) until when.
    """

    at: str
    day: Period
    month: Period
    calls_last_hour: int
    calls_an_hour: int | None
    llm_allowed: bool
    refused: str | None
    why: str | None
    lifts_at: str | None
    refusals_today: Mapping[str, int]
    overrides: tuple[Override, ...]

    @classmethod
    def of(
        cls, spending: Spending, now: datetime, ceilings: Ceilings, limits: Limits, overrides: Mapping[str, Override]
    ) -> Standing:
        refusal = spending.refusal(now, 0, ceilings)
        today = now.date()
        return cls(
            at=now.isoformat(),
            day=_period(spending.day_cost(today), ceilings.elsewhere_day, ceilings.day),
            month=_period(spending.month_cost(today), ceilings.elsewhere_month, ceilings.month),
            calls_last_hour=len(spending.recent(now)),
            calls_an_hour=ceilings.calls_an_hour,
            llm_allowed=refusal is None,
            refused=refusal.kind if refusal else None,
            why=str(refusal) if refusal else None,
            lifts_at=refusal.lifts_at.isoformat() if refusal and refusal.lifts_at else None,
            refusals_today=dict(spending.refused.get(str(today), {})),
            overrides=tuple(overrides[period] for period in sorted(overrides)),
        )

    def to_document(self) -> dict[str, Any]:
        return asdict(self)


def _period(own: int, elsewhere: int, limit: int) -> Period:
    left = max(limit - own - elsewhere, 0)
    return Period(usd(own), usd(elsewhere), usd(own + elsewhere), usd(limit), usd(left))
