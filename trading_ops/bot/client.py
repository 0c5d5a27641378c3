"""What can a trading bot be asked, and told?"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.bot.records import (
        BotHealth,
        ClosedTrades,
        OpenOrder,
        OpenPosition,
        Portfolio,
        StrategyState,
        UsageStatistics,
    )


class BotError(Exception):
    """The bot could not answer or its answer cannot be used; the message says which and what to do."""


class BotUnreachable(BotError):
    """No answer at all: refused, timed out, or the source behind the bot is missing."""


class UnknownStrategy(BotError):
    """A strategy name the bot does not have; the message lists those it has."""


class UnknownSymbol(BotError):
    """A symbol the bot has no candles of; the message lists those it has, where it knows them."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """The complete UTC days a bot can be measured on, first to last; `live` while new days keep coming.

    `now`: the bot's clock as it tells it, None where it tells none and runs in our present.
    """

    first_day: date
    last_day: date
    live: bool
    now: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class EquityHistory:
    """Mark-to-market snapshots a bot keeps: wide frames in USDT, a UTC time index, one column a strategy.

    `equity` includes open positions at their mark; `unrealised` is the open positions' profit after their entry
    costs; `flows` are net deposits at their time (empty where there were none).
    """

    equity: pd.DataFrame
    unrealised: pd.DataFrame
    flows: pd.DataFrame


class Bot(Protocol):
    """One trading bot. Times are UTC and periods half-open [start, end). Every method may raise BotError."""

    @property
    def label(self) -> str:
        """What its prices are: live, recorded, simulated, or replayed and by how much; shown with every result."""
        ...

    @property
    def source(self) -> str:
        """Identifies the account its figures are of; what is stored of another source is never mixed with them."""
        ...

    def now(self) -> datetime:
        """The bot's clock; the present of a bot on recorded candles is the end of the recording."""
        ...

    def calendar(self) -> Calendar:
        """The days that exist for this bot."""
        ...

    def strategies(self) -> list[StrategyState]: ...

    def closed_trades(self, start: datetime, end: datetime) -> ClosedTrades:
        """Trades closed in the period: validated rows, quarantined rows with their reason, and whether all came."""
        ...

    def open_positions(self) -> list[OpenPosition]: ...

    def open_orders(self) -> list[OpenOrder]: ...

    def portfolio(self) -> Portfolio:
        """The account as it is now."""
        ...

    def equity_history(self, start: datetime, end: datetime) -> EquityHistory:
        """The snapshots the bot itself keeps for the period; empty frames where it keeps none."""
        ...

    def usage_statistics(self) -> UsageStatistics:
        """What the bot's own AI calls cost, as it reports it now."""
        ...

    def health(self) -> BotHealth: ...

    def disable_strategy(self, name: str, *, reason: str, idempotency_key: str) -> StrategyState:
        """Stop new entries of a strategy; open positions keep their exits. The same key again changes nothing."""
        ...

    def enable_strategy(self, name: str, *, reason: str, idempotency_key: str) -> StrategyState: ...

    def candles(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        """Hourly bars of one of its symbols; a candle frame as `trading_ops.market.candles` describes it."""
        ...
