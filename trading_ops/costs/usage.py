"""What did the platform's own LLM calls use and cost, day by day?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from trading_ops.costs.pricing import Price, bound

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore

COLLECTION = "llm_calls"
TOKEN_CLASSES = ("input", "cached_input", "output", "reasoning")
RESERVED = "reserved"  # the outcome of a call that was not settled yet, or never will be


class LlmCall(BaseModel):
    """One row of the ledger, stored under the UTC day of its reservation.

    Tokens by class (input: what was not cached; output: what is visible) and the cost in USD, rounded to a billionth.
    `charged` says whether that is what the `tokens` cost at `price`, or the bound that was reserved (`most_tokens`),
    because the call is open or nobody knows what it used. `price` is a `pricing.Price`, whole, so that a row is priced
    again from itself alone. Times are ISO, UTC.
    """

    model_config = ConfigDict(frozen=True, extra="allow", strict=True)

    model: str = Field(min_length=1)
    tokens: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    cost_usd: float = Field(ge=0, allow_inf_nan=False)
    purpose: str = ""
    prompt_sha256: str = ""
    outcome: str = ""
    price: dict[str, Any] | None = None
    most_tokens: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    charged: str = "tokens"
    reserved_at: str = ""
    settled_at: str | None = None
    latency_s: float | None = Field(None, ge=0, allow_inf_nan=False)
    detail: dict[str, Any] | None = None


@dataclass(slots=True)
class DayUsage:
    """The calls of one UTC day, added up; those `unsettled` count at their bound, those `beyond` cost more than it."""

    requests: int = 0
    unsettled: int = 0
    cost_usd: float = 0.0
    unsettled_usd: float = 0.0
    beyond: int = 0
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TOKEN_CLASSES, 0))
    cost_by_model: dict[str, float] = field(default_factory=dict)


def usage_by_day(calls: Iterable[tuple[str, Mapping[str, object]]]) -> dict[str, DayUsage]:
    """Add up (UTC day, ledger row) pairs; raises pydantic's ValidationError for a row that is no LlmCall."""
    days: dict[str, DayUsage] = {}
    for day, row in calls:
        call, usage = LlmCall.model_validate(row), days.setdefault(day, DayUsage())
        usage.requests += 1
        usage.cost_usd += call.cost_usd
        usage.cost_by_model[call.model] = usage.cost_by_model.get(call.model, 0.0) + call.cost_usd
        if call.outcome == RESERVED:
            usage.unsettled += 1
            usage.unsettled_usd += call.cost_usd
        usage.beyond += _beyond(call)
        for token_class, count in call.tokens.items():
            usage.tokens[token_class] = usage.tokens.get(token_class, 0) + count
    return days


def _beyond(call: LlmCall) -> bool:
    """Whether a call cost more than was reserved for it, as where a server says more than it was let."""
    if not call.price or not call.most_tokens:
        return False
    return call.cost_usd > float(bound(Price.model_validate(call.price), call.most_tokens))


def read_usage(store: AuditStore, first: date, last: date) -> dict[str, DayUsage]:
    """Usage of the days from `first` to `last` that have calls in the ledger."""
    records = store.read(COLLECTION, first=str(first), last=str(last))
    return usage_by_day((record.partition, record.body) for record in records)
