"""A bot that trades as a test tells it, keeps the rules of the interface, and counts what was done to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd

from trading_ops.bot.client import BotError, Calendar, EquityHistory, UnknownStrategy
from trading_ops.bot.records import (
    BotHealth,
    ClosedTrades,
    OpenOrder,
    OpenPosition,
    Portfolio,
    StrategyState,
    UsageStatistics,
    believe_trades,
)
from trading_ops_tests.fakes import NO_USAGE, trade

EQUITY = 10_000.0


@dataclass
class TradingBot:
    """`rows`: closed trades as a bot sends them. `switched`: every change that really happened, as (strategy, enabled).

    `entered`: when each position was opened. `before` is called with a method's name before it answers, and may raise.
    """

    clock: Callable[[], datetime]
    names: tuple[str, ...] = ("rsi", "macd")
    rows: list[Any] = field(default_factory=list)
    before: Callable[[str], None] = lambda method: None
    equity: dict[str, float] | None = None
    at_midnight: dict[str, float] | None = None  # the snapshot it kept, None: it keeps none
    deaf: bool = False  # says 200 to every request and changes nothing
    live: bool = True
    label: str = "scripted"
    source: str = "trading-bot"
    orders: list[OpenOrder] = field(default_factory=list)
    positions: list[OpenPosition] = field(default_factory=list)
    switched: list[tuple[str, bool]] = field(default_factory=list)
    entered: list[tuple[str, datetime]] = field(default_factory=list)
    unrealised: dict[str, float] | None = None

    def __post_init__(self) -> None:
        self._states = {name: StrategyState(name=name, enabled=True, allocated_usdt=EQUITY) for name in self.names}
        self._keys: set[str] = set()
        self._known: tuple[tuple[int, int], ClosedTrades] | None = None
        self._lock = threading.Lock()

    def lose(self, strategy: str, usdt: float, *, minutes_ago: float = 0.0, trade_id: str | None = None) -> None:
        """One more closed trade; a negative loss is a win."""
        at = self.clock() - timedelta(minutes=minutes_ago)
        name = trade_id or f"{strategy}-{len(self.rows)}"
        size = {"quantity": 1000.0, "exit_price": 100.0 + (2.0 - usdt) / 1000.0, "pnl_pct": -usdt / 1000.0}
        self.rows.append(trade(name, at.isoformat(), -usdt, strategy, **size))

    def enter(self, strategy: str) -> bool:
        """Open a position, if the strategy may."""
        with self._lock:  # a switch comes before or after
            if not self._states[strategy].enabled:
                return False
            at = self.clock()
            self.entered.append((strategy, at))
        position = OpenPosition(
            position_id=f"p{len(self.entered)}",
            strategy=strategy,
            symbol="BTCUSDT",
            side="long",
            quantity=1.0,
            entry_price=100.0,
            mark_price=100.0,
            opened_at=at,
            unrealised_usdt=0.0,
        )
        self.positions.append(position)
        return True

    def now(self) -> datetime:
        self.before("now")
        return self.clock()

    def calendar(self) -> Calendar:
        self.before("calendar")
        today = self.clock().date()
        return Calendar(date(2025, 3, 1), today - timedelta(days=1), self.live)

    def strategies(self) -> list[StrategyState]:
        self.before("strategies")
        return list(self._states.values())

    def closed_trades(self, start: datetime, end: datetime) -> ClosedTrades:
        self.before("closed_trades")
        everything = self._believed()
        inside = (everything.frame["closed_at"] >= start) & (everything.frame["closed_at"] < end)
        bad = tuple(q for q in everything.quarantined if q.closed_at is None or start <= q.closed_at < end)
        return ClosedTrades(everything.frame[inside].reset_index(drop=True), bad, everything.duplicates)

    def open_positions(self) -> list[OpenPosition]:
        self.before("open_positions")
        return list(self.positions)

    def open_orders(self) -> list[OpenOrder]:
        self.before("open_orders")
        return list(self.orders)

    def portfolio(self) -> Portfolio:
        self.before("portfolio")
        closed = self._believed().frame
        earned = dict.fromkeys(self.names, 0.0)
        for name, pnl in zip(closed["strategy"].tolist(), closed["pnl_usdt"].tolist(), strict=True):
            earned[name] += pnl
        own = {name: EQUITY + pnl for name, pnl in earned.items()} if self.equity is None else self.equity
        whole = EQUITY * len(self.names) + sum(earned.values())
        return Portfolio(
            as_of=self.clock(),
            initial_usdt=EQUITY * len(self.names),
            balance_usdt=whole,
            equity_usdt=whole,
            total_return_pct=0.0,
            total_trades=len(closed),
            winning_trades=0,
            initial_by_strategy=dict.fromkeys(self.names, EQUITY),
            equity_by_strategy=own,
            unrealised_by_strategy=dict.fromkeys(self.names, 0.0) if self.unrealised is None else self.unrealised,
            net_deposits_usdt=0.0,
        )

    def _believed(self) -> ClosedTrades:
        """The trades as they are now; reading them is what a test spends its time with."""
        identity = (len(self.rows), id(self.rows[-1]) if self.rows else 0)
        if self._known is None or self._known[0] != identity:
            self._known = identity, believe_trades(self.rows)
        return self._known[1]

    def equity_history(self, start: datetime, end: datetime) -> EquityHistory:
        self.before("equity_history")
        midnight = self.clock().replace(hour=0, minute=0, second=0, microsecond=0)
        times = [midnight] if self.at_midnight and start <= midnight < end else []
        equity = pd.DataFrame(
            [self.at_midnight] * len(times),
            index=pd.DatetimeIndex(times, tz="UTC", name="time").as_unit("us"),
            dtype=float,
        )
        return EquityHistory(equity, equity * 0.0, equity.iloc[:0])

    def usage_statistics(self) -> UsageStatistics:
        return UsageStatistics.parse(NO_USAGE)

    def health(self) -> BotHealth:
        self.before("health")
        last = self.clock() if self.live else self.clock() - timedelta(days=9)
        return BotHealth(healthy=True, now=self.clock(), last_candle_at=last, label=self.label)

    def disable_strategy(self, name: str, *, reason: str, idempotency_key: str) -> StrategyState:
        return self._switch(name, False, reason, idempotency_key)

    def enable_strategy(self, name: str, *, reason: str, idempotency_key: str) -> StrategyState:
        return self._switch(name, True, reason, idempotency_key)

    def switch_elsewhere(self, name: str, enabled: bool) -> None:
        """Somebody else's doing."""
        at = self.clock()
        self._states[name] = StrategyState(name=name, enabled=enabled, allocated_usdt=EQUITY, changed_at=at)

    def candles(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        raise BotError("no candles")

    def _switch(self, name: str, enabled: bool, reason: str, key: str) -> StrategyState:
        self.before("enable" if enabled else "disable")
        if name not in self._states:
            raise UnknownStrategy(f"strategy {name!r} is unknown")
        with self._lock:
            if not self.deaf and key not in self._keys:
                self._keys.add(key)
                if self._states[name].enabled != enabled:
                    self.switched.append((name, enabled))
                at = self.clock()
                self._states[name] = StrategyState(
                    name=name, enabled=enabled, allocated_usdt=EQUITY, reason=reason, changed_at=at
                )
        self.before("enabled" if enabled else "disabled")
        if self._states[name].enabled != enabled:
            raise BotError(f"{name} is not confirmed to be {'enabled' if enabled else 'disabled'}")
        return self._states[name]


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self, at: str = "2025-03-10T12:00:00+00:00") -> None:
        self.at = datetime.fromisoformat(at).astimezone(UTC)

    def __call__(self) -> datetime:
        return self.at

    def go(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
