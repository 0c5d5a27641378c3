"""Ledgers with a clock that is set by hand, a price that is easy to check, and calls that cost what is asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from trading_ops.audit.store import AuditStore
from trading_ops.costs.budget import Limits
from trading_ops.costs.ledger import Ledger, Reservation
from trading_ops.costs.pricing import Prices, reprice
from trading_ops.costs.spending import nano
from trading_ops.costs.usage import COLLECTION

NOON = datetime(2025, 3, 10, 12, 30, tzinfo=UTC)
SHA = "ab" * 32
# 1 USD for a million tokens of input, 2 for output: 1,000 of input cost a tenth of a cent
PRICES = Prices({"plain": ("1", "0.5", "2"), "free": ("0", "0", "0")})


@dataclass
class Clock:
    now: datetime = NOON

    def __call__(self) -> datetime:
        return self.now

    def wait(self, **time: float) -> None:
        self.now += timedelta(**time)


@dataclass
class World:
    """One store and its clock; `ledger` is what any process would make of them."""

    store: AuditStore
    limits: Limits = field(default_factory=Limits)
    calls_an_hour: int | None = None
    clock: Clock = field(default_factory=Clock)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, self.limits, self.clock, calls_an_hour=self.calls_an_hour, prices=PRICES)

    def reserve(self, usd: float = 0.01, model: str = "plain", purpose: str = "assessment") -> Reservation:
        """A call that may cost this much: one million tokens of input are one dollar."""
        most = {"input": round(usd * 1_000_000), "output": 0}
        return self.ledger.reserve(purpose=purpose, model=model, prompt_sha256=SHA, most_tokens=most)

    def settle(self, reservation: Reservation, usd: float | None = None, **changes: Any) -> Any:
        """With the cost given, or unknown."""
        tokens = None if usd is None else {"input": round(usd * 1_000_000)}
        said: dict[str, Any] = {"outcome": "answered", "tokens": tokens, "latency_s": 0.5, **changes}
        return self.ledger.settle(reservation, **said)

    def rows(self) -> dict[str, dict[str, Any]]:
        """The newest row of every call."""
        return {record.key: record.body for record in self.store.read(COLLECTION)}

    def revisions(self, key: str) -> list[tuple[int, str]]:
        return [(r.revision, r.body["outcome"]) for r in self.store.read(COLLECTION, key=key, all_revisions=True)]

    def assert_whole(self) -> None:
        """The sums, the rows and what the rows' own tokens cost at their own prices agree; no chain is broken."""
        self.ledger.repair()
        spending, days = self.ledger.spending(), {}
        for record in self.store.read(COLLECTION):
            days[record.partition] = days.get(record.partition, 0) + nano(record.body["cost_usd"])
            assert nano(reprice(record.body)) == nano(record.body["cost_usd"]), record.key
            assert record.revision <= 2, record.key
        assert dict(spending.days) == days
        assert spending.pending == {}
        assert self.store.verify() == []
