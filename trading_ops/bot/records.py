"""Is what the bot says well-formed, and can it be true?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from trading_ops.audit.plain import plain
from trading_ops.bot.client import BotError

if TYPE_CHECKING:
    import pandas as pd

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Text = Annotated[str, Field(max_length=10_000)]  # a bound makes pydantic look: half a surrogate pair is no text
EARLIEST = datetime(2009, 1, 3, tzinfo=UTC)  # Bitcoin's first block: no crypto trade is older


def _in_utc(moment: datetime) -> datetime:
    try:
        utc = moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("a time beyond the calendar") from None
    if utc < EARLIEST:
        raise ValueError(f"{utc} is before 2009; a time in seconds or milliseconds since 1970, or ISO, is needed")
    return utc


Moment = Annotated[AwareDatetime, Field(strict=False, description="any offset or epoch"), AfterValidator(_in_utc)]


TRADE_FIELDS = (
    "trade_id", "strategy", "symbol", "side", "quantity", "entry_price", "exit_price", "opened_at", "closed_at",
    "fee_usdt", "funding_usdt", "pnl_usdt", "pnl_pct", "close_reason", "market", "position_id",
)  # fmt: skip
PNL_TOLERANCE_USDT = 0.01  # bots round money to cents
PNL_TOLERANCE_PCT = 0.01


class InvalidRecord(BotError):
    """A reply that is not what the interface promises; the message names field, value and what would be right."""


class StrictRecord(BaseModel):
    """What all records have in common: frozen, and read from a payload by `parse`."""

    # strict: "3" is no number and true is no count; a wrong type is reported, never guessed at
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    @classmethod
    def parse(cls, payload: Any) -> Self:
        """The validated record; raises InvalidRecord naming each wrong field and its value."""
        try:
            return cls.model_validate(payload)
        except ValidationError as error:
            raise InvalidRecord(f"{cls.__name__}: {explain(error)}") from None


class ClosedTrade(StrictRecord):
    """One closed trade, net of fees and funding; `pnl_pct` is of the entry notional, in percent."""

    trade_id: Name
    strategy: Name
    symbol: Name
    side: Literal["long", "short"]
    quantity: Positive
    entry_price: Positive
    exit_price: Positive
    opened_at: Moment
    closed_at: Moment
    fee_usdt: NotNegative
    funding_usdt: Annotated[Finite, BeforeValidator(lambda given: 0.0 if given is None else given)] = 0.0
    pnl_usdt: Finite
    pnl_pct: Finite
    close_reason: Annotated[Text, BeforeValidator(lambda given: "" if given is None else given)] = ""
    market: Literal["spot", "futures"] | None = None
    position_id: Text | None = None

    @model_validator(mode="after")
    def _profit_follows(self) -> ClosedTrade:
        if self.closed_at < self.opened_at:
            raise ValueError(f"closed_at {self.closed_at} is before opened_at {self.opened_at}")
        direction = 1 if self.side == "long" else -1
        notional = self.entry_price * self.quantity
        profit = direction * (self.exit_price - self.entry_price) * self.quantity - self.fee_usdt - self.funding_usdt
        if not (math.isfinite(profit) and math.isfinite(notional) and notional > 0):
            raise ValueError(f"quantity {self.quantity} times price {self.entry_price} is no amount of money")
        if abs(profit - self.pnl_usdt) > PNL_TOLERANCE_USDT + 1e-6 * notional:
            raise ValueError(f"pnl_usdt {self.pnl_usdt} does not follow from prices, quantity and costs: {profit:.4f}")
        profit_pct = 100 * profit / notional
        if abs(profit_pct - self.pnl_pct) > PNL_TOLERANCE_PCT + 100 * PNL_TOLERANCE_USDT / notional:
            raise ValueError(f"pnl_pct {self.pnl_pct} is not the profit in percent of entry notional: {profit_pct:.4f}")
        return self


class StrategyState(StrictRecord):
    """A strategy and whether it may open positions."""

    name: Name
    enabled: bool
    allocated_usdt: NotNegative | None = None
    reason: Text | None = None
    changed_at: Moment | None = None


class OpenPosition(StrictRecord):
    position_id: Name
    strategy: Name
    symbol: Name
    side: Literal["long", "short"]
    quantity: Positive
    entry_price: Positive
    mark_price: Positive
    opened_at: Moment
    unrealised_usdt: Finite


class OpenOrder(StrictRecord):
    """An order not filled yet; `intent` tells an entry from an exit."""

    order_id: Name
    strategy: Name
    symbol: Name
    intent: Literal["entry", "exit"]
    created_at: Moment


class Portfolio(StrictRecord):
    """The account now: `balance_usdt` is realised, `equity_usdt` includes open positions at their mark.

    What a bot does not know it leaves out: its strategies' own equity and unrealised profit, and the deposits less
    withdrawals since the start.
    """

    as_of: Moment
    initial_usdt: Positive
    balance_usdt: Finite
    equity_usdt: Finite
    total_return_pct: Finite
    total_trades: Count
    winning_trades: Count
    initial_by_strategy: dict[Name, Positive] = {}
    equity_by_strategy: dict[Name, Finite] | None = None
    unrealised_by_strategy: dict[Name, Finite] | None = None
    net_deposits_usdt: Finite | None = None

    @model_validator(mode="after")
    def _wins_are_trades(self) -> Portfolio:
        if self.winning_trades > self.total_trades:
            raise ValueError(f"winning_trades {self.winning_trades} exceeds total_trades {self.total_trades}")
        return self


class UsageStatistics(StrictRecord):
    """The bot's own AI usage as it reports it: the session's totals, and its estimates for the day and the month."""

    total_requests: Count
    total_cost_usd: NotNegative
    daily_cost_usd: NotNegative
    monthly_cost_usd: NotNegative


class BotHealth(StrictRecord):
    """Whether the bot says it works. `now`: its clock; `label`: what its prices are, where they are not live ones."""

    healthy: bool
    detail: Text = ""
    last_candle_at: Moment | None = None
    now: Moment | None = None
    label: Name | None = None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A row that was not believed: as it came (made safe for JSON), why, and the UTC day it is reported under."""

    row: Any
    reason: str
    closed_at: datetime | None


@dataclass(frozen=True, slots=True)
class ClosedTrades:
    """`frame`: the believed trades, TRADE_FIELDS, ordered by (closed_at, trade_id), each trade_id once.

    `duplicates`: when the identical rows that were dropped had closed; `complete` is False where the bot may have cut
    the list off.
    """

    frame: pd.DataFrame
    quarantined: tuple[Quarantined, ...] = ()
    duplicates: tuple[datetime, ...] = ()
    complete: bool = True


def believe_trades(rows: Sequence[Any], *, complete: bool = True) -> ClosedTrades:
    """Validate raw rows; a row that is malformed or cannot be true is quarantined with its reason, never dropped."""
    believed: dict[str, ClosedTrade] = {}
    quarantined: list[Quarantined] = []
    duplicates: list[datetime] = []
    for row in rows:
        try:
            trade = ClosedTrade.model_validate(row)
        except ValidationError as error:
            quarantined.append(Quarantined(plain(row), explain(error), closed_at_of(row)))
            continue
        first = believed.setdefault(trade.trade_id, trade)
        if first is trade:
            continue
        if first == trade:
            duplicates.append(trade.closed_at)
        else:
            reason = f"trade_id {trade.trade_id} came twice with different content; the first is kept"
            quarantined.append(Quarantined(plain(row), reason, trade.closed_at))
    frame = trades_frame([trade.model_dump() for trade in believed.values()])
    return ClosedTrades(frame, tuple(quarantined), tuple(duplicates), complete)


def trades_frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Believed trades (dicts of TRADE_FIELDS, times as datetime or ISO text) as the frame that `ClosedTrades` holds."""
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(TRADE_FIELDS))
    for column in ("opened_at", "closed_at"):
        frame[column] = pd.to_datetime(frame[column], utc=True, format="ISO8601").astype("datetime64[us, UTC]")
    numbers = ("quantity", "entry_price", "exit_price", "fee_usdt", "funding_usdt", "pnl_usdt", "pnl_pct")
    frame = frame.astype(dict.fromkeys(numbers, float))
    return frame.sort_values(["closed_at", "trade_id"], ignore_index=True)


def explain(error: ValidationError) -> str:
    """A validation error as one line a person can act on: `field: value, what would be right`."""
    lines = []
    for problem in error.errors(include_url=False):
        where = ".".join(map(str, problem["loc"]))
        value = "" if problem["type"] in ("missing", "value_error") else f" {problem['input']!r:.80},"
        message = problem["msg"].removeprefix("Value error, ")
        lines.append(f"{where}:{value} {message}" if where else f"{value} {message}".strip())
    return "; ".join(lines)


_moment: TypeAdapter[datetime] = TypeAdapter(Moment)


def closed_at_of(row: Any) -> datetime | None:
    """When a raw row was closed, UTC; None where that cannot be read."""
    try:
        return _moment.validate_python(row["closed_at"])
    except (ValidationError, TypeError, KeyError):
        return None
