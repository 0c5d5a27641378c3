"""What would our four strategies have traded on these candles? A whole bot, embedded and deterministic."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import AuditStore, Conflict
from trading_ops.bot.client import BotError, BotUnreachable, Calendar, EquityHistory, UnknownStrategy
from trading_ops.bot.records import (
    TRADE_FIELDS,
    BotHealth,
    ClosedTrades,
    OpenOrder,
    OpenPosition,
    Portfolio,
    StrategyState,
    UsageStatistics,
)
from trading_ops.market.candles import CandleError, CandleSource, Coverage
from trading_ops.market.soundness import check_candles
from trading_ops.paper.ledger import CAPITAL_USDT, PARAMETERS, Ledger, trade_all
from trading_ops.paper.losses import LOSSES, inject, with_losses

if TYPE_CHECKING:
    import pandas as pd

STATE = "paper_bot"
LIVE_WITHIN = timedelta(days=2)


class PaperBot:
    """The four strategies on the symbols of a candle source, each strategy with its own 10,000 USDT.

    Implements `trading_ops.bot.client.Bot`. Its clock stands at the end of the candles. Whether a strategy may open
    positions is kept in the store's state under its source, with the bot's time of each change, so that the past never
    changes.
    """

    def __init__(
        self,
        candles: CandleSource,
        store: Callable[[], AuditStore],
        symbols: Sequence[str],
        now: Callable[[], datetime],
    ) -> None:
        self._candles = candles
        self._open_store = store
        self._wanted = tuple(symbols)
        self._wall_clock = now
        self._cached: tuple[object, Ledger] | None = None

    @property
    def label(self) -> str:
        return self._candles.label

    @property
    def source(self) -> str:
        setup = json.dumps([self._candles.origin, sorted(self._wanted), PARAMETERS, CAPITAL_USDT])
        return f"paper-{hashlib.sha256(setup.encode()).hexdigest()[:12]}"

    @property
    def symbols(self) -> tuple[str, ...]:
        """The wanted symbols that have candles up to the present."""
        present = self._candles.symbols()
        return tuple(symbol for symbol in self._wanted if symbol in present)

    def now(self) -> datetime:
        return self._coverage().end

    def calendar(self) -> Calendar:
        coverage = self._coverage()
        if coverage.first_day is None or coverage.last_day is None:
            raise BotUnreachable(
                f"the {self.label} candles hold no complete UTC day ({coverage.first} to {coverage.end})"
            )
        live = self._wall_clock() - coverage.end < LIVE_WITHIN
        return Calendar(coverage.first_day, coverage.last_day, live, coverage.end)

    def strategies(self) -> list[StrategyState]:
        return [self._state(name) for name in PARAMETERS]

    def closed_trades(self, start: datetime, end: datetime) -> ClosedTrades:
        trades = self._ledger().trades
        inside = ~trades["open_at_end"] & (trades["closed_at"] >= start) & (trades["closed_at"] < end)
        return ClosedTrades(trades.loc[inside, list(TRADE_FIELDS)].reset_index(drop=True))

    def open_positions(self) -> list[OpenPosition]:
        trades = self._ledger().trades
        return [
            OpenPosition(
                position_id=row.position_id,
                strategy=row.strategy,
                symbol=row.symbol,
                side="long",
                quantity=row.quantity,
                entry_price=row.entry_price,
                mark_price=row.exit_price,
                opened_at=row.opened_at.to_pydatetime(),
                unrealised_usdt=row.pnl_usdt,
            )
            for row in trades[trades["open_at_end"]].itertuples()
        ]

    def open_orders(self) -> list[OpenOrder]:
        return list(self._ledger().orders)

    def portfolio(self) -> Portfolio:
        ledger = self._ledger()
        closed = ledger.trades[~ledger.trades["open_at_end"]]
        initial = CAPITAL_USDT * len(PARAMETERS)
        equity = float(ledger.equity.iloc[-1].sum())
        return Portfolio(
            as_of=ledger.until,
            initial_usdt=initial,
            balance_usdt=initial + float(closed["pnl_usdt"].sum()),
            equity_usdt=equity,
            total_return_pct=100 * (equity / initial - 1),
            total_trades=len(closed),
            winning_trades=int((closed["pnl_usdt"] > 0).sum()),
            initial_by_strategy=dict.fromkeys(PARAMETERS, CAPITAL_USDT),
            equity_by_strategy=ledger.equity.iloc[-1].to_dict(),
            unrealised_by_strategy=ledger.unrealised.iloc[-1].to_dict(),
            net_deposits_usdt=0.0,
        )

    def equity_history(self, start: datetime, end: datetime) -> EquityHistory:
        import pandas as pd

        ledger = self._ledger()
        inside = slice(pd.Timestamp(start), pd.Timestamp(end) - pd.Timedelta(1, "us"))
        none = pd.DataFrame(columns=ledger.equity.columns, index=ledger.equity.index[:0], dtype=float)
        return EquityHistory(ledger.equity.loc[inside], ledger.unrealised.loc[inside], none)

    def usage_statistics(self) -> UsageStatistics:
        """Nothing: the paper bot calls no AI service."""
        return UsageStatistics(total_requests=0, total_cost_usd=0.0, daily_cost_usd=0.0, monthly_cost_usd=0.0)

    def health(self) -> BotHealth:
        missing = [symbol for symbol in self._wanted if symbol not in self.symbols]
        problems = [f"{', '.join(missing)} without candles up to the present"] if missing else []
        reports = [check_candles(self._candles.candles(symbol), symbol) for symbol in self.symbols]
        problems += [report.problems[0] for report in reports if not report.sound]
        return BotHealth(
            healthy=not problems and bool(self.symbols),
            detail="; ".join(problems) or f"{len(self.symbols)} symbols on {self.label} candles",
            last_candle_at=self.now() if self.symbols else None,
        )

    def disable_strategy(self, name: str, *, reason: str, idempotency_key: str) -> StrategyState:
        return self._change(name, False, reason, idempotency_key)

    def enable_strategy(self, name: str, *, reason: str, idempotency_key: str) -> StrategyState:
        return self._change(name, True, reason, idempotency_key)

    def lose(self, name: str, losses_usdt: Sequence[float]) -> None:
        """For a fire drill: so many losing trades more close at once, now; a negative loss is a win."""
        self._changes(name)  # refuses an unknown name before anything is written
        at = self.now().astimezone(UTC).isoformat()
        losses = [{"strategy": name, "usdt": usdt, "at": at} for usdt in losses_usdt]
        inject(self._open_store(), STATE, losses)

    def candles(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        try:
            return self._candles.candles(symbol, start, end)
        except CandleError as error:
            raise BotError(str(error)) from error

    def _coverage(self) -> Coverage:
        try:
            symbols = self.symbols
            if symbols:
                return self._candles.coverage(symbols)
            stale = ", ".join(f"{s} (ends {t:%Y-%m-%d})" for s, t in self._candles.stale_symbols().items())
        except CandleError as error:
            raise BotUnreachable(str(error)) from error
        raise BotUnreachable(
            f"none of {', '.join(self._wanted)} has {self.label} candles up to the present"
            + (f"; stale: {stale}" if stale else "")
            + "; set TRADING_OPS_SYMBOLS to symbols that have"
        )

    def _state(self, name: str) -> StrategyState:
        changes = self._changes(name)
        last = changes[-1] if changes else None
        return StrategyState(
            name=name,
            enabled=last is None or last["enabled"],
            allocated_usdt=CAPITAL_USDT,
            reason=last["reason"] if last else None,
            changed_at=datetime.fromisoformat(last["at"]) if last else None,
        )

    def _changes(self, name: str) -> list[dict[str, Any]]:
        if name not in PARAMETERS:
            raise UnknownStrategy(f"strategy {name!r} is unknown; there are {', '.join(PARAMETERS)}")
        document = self._open_store().get_state(STATE, self._key(name))
        return list(document.body["changes"]) if document else []

    def _key(self, name: str) -> str:
        """A stop on other candles or of other symbols is another bot's."""
        return f"{self.source}/{name}"

    def _change(self, name: str, enabled: bool, reason: str, idempotency_key: str) -> StrategyState:
        change = {
            "enabled": enabled,
            "reason": reason,
            "idempotency_key": idempotency_key,
            "at": self.now().astimezone(UTC).isoformat(),
        }
        store, key = self._open_store(), self._key(name)
        self._changes(name)  # refuses an unknown name before anything is written
        while True:
            document = store.get_state(STATE, key)
            changes = list(document.body["changes"]) if document else []
            if known := next((c for c in changes if c["idempotency_key"] == idempotency_key), None):
                if known["enabled"] != enabled:
                    raise BotError(f"idempotency key {idempotency_key!r} was used for another change of {name}")
                return self._state(name)
            try:
                body = {"changes": [*changes, change]}
                store.put_state(STATE, key, body, expected_version=document.version if document else 0)
            except Conflict:
                continue  # another process changed it in between: look again
            return self._state(name)

    def _ledger(self) -> Ledger:
        until = self.now()
        changes = {name: self._changes(name) for name in PARAMETERS}
        key = (until, self.symbols, str(changes))
        if self._cached is None or self._cached[0] != key:
            self._cached = key, self._trade(until, changes)
        injected = self._open_store().get_state(STATE, LOSSES)
        return with_losses(self._cached[1], injected.body["losses"] if injected else (), self._wanted[0])

    def _trade(self, until: datetime, changes: dict[str, list[dict[str, Any]]]) -> Ledger:
        """The ledger of all wanted symbols that have candles; one that ended is traded up to its end."""
        stale = self._candles.stale_symbols()
        ended = [symbol for symbol in self._wanted if symbol in stale]
        candles = {
            symbol: self.candles(symbol, datetime.min.replace(tzinfo=UTC), min(until, stale.get(symbol, until)))
            for symbol in (*self.symbols, *ended)
        }
        return trade_all(candles, changes, until, idle=len(self._wanted) - len(candles), ended=ended)
