"""What do a strategy's trades say about it now, when a few more have come in?"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction

from trading_ops.guard.rules import RECENT_TRADES, Limits, StrategyRisk, assess

Place = tuple[datetime, str]  # when the last exit was, and its trade


class Contradiction(Exception):
    """A trade that was read before has another content now: only one of them can be true."""


@dataclass(slots=True)
class _Position:
    place: Place
    profit: Fraction


@dataclass(slots=True)
class Ledger:
    """One strategy's trades, folded one at a time, in any order; those before `since` (its resume) do not count.

    A trade closed at the very moment of `since` counts, as a period's first moment does everywhere; a resume's moment
    lies after every trade that its person was shown (`View.at`).

    A trade costs the same however many came before, a verdict as much as the streak is long. Profits are summed
    exactly, so that no order of arrival changes a sum. `risk` equals `rules.judge` on all the trades.
    """

    since: datetime | None = None
    _trades: dict[str, tuple[datetime, float, str | None]] = field(default_factory=dict)
    _positions: dict[str, _Position] = field(default_factory=dict)
    _flat: list[tuple[Place, float]] = field(default_factory=list)  # by place
    _days: dict[date, Fraction] = field(default_factory=lambda: defaultdict(Fraction))
    _days_before: dict[date, Fraction] = field(default_factory=lambda: defaultdict(Fraction))  # of before `since`

    def add(self, trade_id: str, closed_at: datetime, pnl_usdt: float, position_id: str | None) -> bool:
        """Count a trade; False where it does not count (any more). Raises Contradiction where it was another then."""
        content = (closed_at, pnl_usdt, position_id)
        if (known := self._trades.setdefault(trade_id, content)) is not content:
            if known != content:
                raise Contradiction(f"trade {trade_id}: {_said(content)}, but was read before with {_said(known)}")
            return False
        exact, day = Fraction(pnl_usdt), closed_at.astimezone(UTC).date()
        if self.since is not None and closed_at < self.since:
            self._days_before[day] += exact
            return False
        self._days[day] += exact
        # the prefixes keep a position from meeting a trade that happens to carry the same id
        identity = f"t:{trade_id}" if position_id is None else f"p:{position_id}"
        place = (closed_at, trade_id)
        if position := self._positions.get(identity):
            del self._flat[bisect_left(self._flat, (position.place, float(position.profit)))]
            position.place, position.profit = max(position.place, place), position.profit + exact
        else:
            position = self._positions[identity] = _Position(place, exact)
        insort(self._flat, (position.place, float(position.profit)))
        return True

    def risk(
        self,
        day: date,
        equity_at_midnight: float | None,
        limits: Limits = Limits(),
        *,
        unrealised_now: float | None = 0.0,
        unrealised_at_midnight: float | None = 0.0,
        more_usdt: float = 0.0,
    ) -> StrategyRisk:
        """The verdict on the UTC day, as `rules.judge` gives it; `more_usdt`: profit that no trade shows."""
        until = self._until(day)
        return assess(
            limits,
            realised_usdt=float(self._days.get(day, 0)) + more_usdt,
            streak=self._streak(until),
            recent=[profit for _, profit in self._flat[max(0, until - RECENT_TRADES) : until]],
            equity_at_midnight=equity_at_midnight,
            unrealised_now=unrealised_now,
            unrealised_at_midnight=unrealised_at_midnight,
        )

    def realised(self, first: date, last: date, *, before_resume: bool = False) -> float:
        """Net profit of the trades closed on these UTC days, USDT; with those before the resume where asked."""
        counted = [self._days, self._days_before] if before_resume else [self._days]
        return float(sum(pnl for days in counted for day, pnl in days.items() if first <= day <= last))

    def evidence(self, day: date, at_most: int) -> list[dict[str, str | float]]:
        """The newest positions that went flat on the day or belong to the losing streak, oldest first."""
        until, start = self._until(day), self._until(day - timedelta(days=1))
        losses, first = self._streak(until), until
        while losses:
            first -= 1
            losses -= self._flat[first][1] < 0
        shown = self._flat[max(min(first, start), until - at_most) : until]
        return [
            {"trade_id": trade_id, "closed_at": at.isoformat(), "pnl_usdt": profit} for (at, trade_id), profit in shown
        ]

    def _until(self, day: date) -> int:
        end = datetime.combine(day + timedelta(days=1), time(), UTC)
        return bisect_left(self._flat, ((end, ""), float("-inf")))

    def _streak(self, until: int) -> int:
        """Losses since the last win; a zero neither breaks nor extends the streak."""
        losses = 0
        for index in range(until - 1, -1, -1):
            profit = self._flat[index][1]
            if profit > 0:
                break
            losses += profit < 0
        return losses


def _said(content: tuple[datetime, float, str | None]) -> str:
    closed_at, pnl_usdt, position_id = content
    position = "" if position_id is None else f", position_id {position_id}"
    return f"closed_at {closed_at}, pnl_usdt {pnl_usdt}{position}"
