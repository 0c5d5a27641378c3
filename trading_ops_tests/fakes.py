"""A bot whose answers a test writes down; it goes through the same validation as a real one's."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd

from trading_ops.bot.client import BotUnreachable, Calendar, EquityHistory
from trading_ops.bot.records import ClosedTrades, Portfolio, StrategyState, UsageStatistics, believe_trades
from trading_ops.market.candles import HOUR, Span, SpannedCandles

NO_USAGE = {"total_requests": 0, "total_cost_usd": 0.0, "daily_cost_usd": 0.0, "monthly_cost_usd": 0.0}


def trade(
    trade_id: str, closed_at: str, pnl_usdt: float = 10.0, strategy: str = "rsi", **changes: Any
) -> dict[str, Any]:
    """A closed trade of 1,000 USDT notional as a bot sends it, consistent in itself unless changed."""
    closed = datetime.fromisoformat(closed_at)
    row = {
        "trade_id": trade_id,
        "strategy": strategy,
        "symbol": "BTCUSDT",
        "side": "long",
        "quantity": 10.0,
        "entry_price": 100.0,
        "exit_price": 100.0 + (pnl_usdt + 2.0) / 10.0,
        "opened_at": (closed - timedelta(hours=1)).isoformat(),
        "closed_at": closed_at,
        "fee_usdt": 2.0,
        "funding_usdt": 0.0,
        "pnl_usdt": pnl_usdt,
        "pnl_pct": pnl_usdt / 10.0,
        "close_reason": "signal",
    }
    return row | changes


class ScriptedBot:
    """Answers from what it was given: `rows` of trades, `equity` at each day's end, raw portfolio and usage replies."""

    label = "scripted"
    source = "scripted-1"

    def __init__(
        self,
        rows: Sequence[Any] = (),
        *,
        first_day: str = "2025-02-01",
        last_day: str = "2025-03-09",
        equity: Mapping[str, float] | None = None,
        account: Any = None,
        usage: Any = NO_USAGE,
        reachable: bool = True,
        live: bool = True,
    ) -> None:
        self.rows = list(rows)
        self.first_day, self.last_day = date.fromisoformat(first_day), date.fromisoformat(last_day)
        self.equity = dict(equity or {})
        self.account = account
        self.usage = usage
        self.reachable = reachable
        self.live = live

    def now(self) -> datetime:
        return datetime.combine(self.last_day, datetime.min.time(), UTC) + timedelta(days=1, hours=1)

    def calendar(self) -> Calendar:
        return Calendar(self.first_day, self.last_day, live=self.live)

    def closed_trades(self, start: datetime, end: datetime) -> ClosedTrades:
        self._require_reachable()
        everything = believe_trades(self.rows)
        inside = (everything.frame["closed_at"] >= start) & (everything.frame["closed_at"] < end)
        bad = tuple(q for q in everything.quarantined if q.closed_at is None or start <= q.closed_at < end)
        return ClosedTrades(everything.frame[inside].reset_index(drop=True), bad, everything.duplicates)

    def equity_history(self, start: datetime, end: datetime) -> EquityHistory:
        """Every strategy of the trades (or rsi) with the given equity at each day's end; unrealised profit is 0."""
        self._require_reachable()
        strategies = sorted({row["strategy"] for row in self.rows if isinstance(row, dict)} or {"rsi"})
        ends = pd.DatetimeIndex([pd.Timestamp(day, tz="UTC") + pd.Timedelta(days=1) for day in self.equity], tz="UTC")
        equity = pd.DataFrame({s: list(self.equity.values()) for s in strategies}, index=ends, dtype=float).sort_index()
        equity = equity[(equity.index >= start) & (equity.index < end)]
        return EquityHistory(equity, equity * 0.0, equity.iloc[:0])

    def strategies(self) -> list[StrategyState]:
        names = sorted({row["strategy"] for row in self.rows if isinstance(row, dict)} or {"rsi"})
        return [StrategyState(name=name, enabled=True) for name in names]

    def portfolio(self) -> Portfolio:
        self._require_reachable()
        return Portfolio.parse(self.account)

    def usage_statistics(self) -> UsageStatistics:
        self._require_reachable()
        return UsageStatistics.parse(self.usage)

    def _require_reachable(self) -> None:
        if not self.reachable:
            raise BotUnreachable("connection refused")


class ScriptedCandles(SpannedCandles):
    """A candle source that holds these frames, as they are; its clock stands still."""

    label = "scripted"
    origin = "scripted"

    def __init__(self, frames: Mapping[str, pd.DataFrame], now: datetime) -> None:
        super().__init__(lambda: now)
        self.frames = dict(frames)

    def spans(self) -> dict[str, Span]:
        complete = self.now().replace(minute=0, second=0, microsecond=0)
        return {
            symbol: Span(frame.index.min().to_pydatetime(), min(frame.index.max().to_pydatetime() + HOUR, complete))
            for symbol, frame in self.frames.items()
        }

    def _bars(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        frame = self.frames[symbol]
        return frame[(frame.index >= start) & (frame.index < end)]
