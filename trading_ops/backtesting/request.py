"""What is to be traded on past candles, and can it be? One validation for a job and its command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

if TYPE_CHECKING:
    from trading_ops.backtesting.orders import Costs, Execution


MOST_USDT = 1e15


class InvalidRequest(ValueError):
    """A backtest or search that cannot be; the message names each field, its value and what would be right."""


class TradingRequest(BaseModel):
    """A strategy on a symbol, and how its orders are placed and charged; every field has a default.

    Light to import, since Dagster's pages take their fields from here: strategies and costs come with what they need.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    strategy: str = Field("rsi", description="rsi, macd, bollinger or volume")
    symbol: str | None = Field(None, description="Such as BTCUSDT; default the first of TRADING_OPS_SYMBOLS")
    fee_pct: float = Field(0.1, description="Fee in percent of a fill, 0 to below 100")
    slippage_pct: float = Field(0.05, description="Slippage in percent of a fill, 0 to below 100")
    lot_step: float | None = Field(None, description="The exchange's step of quantities, above 0; default none")
    min_notional_usdt: float | None = Field(None, description="The exchange's least order in USDT; default none")
    funding_pct: float = Field(
        0.0, description="Funding of a future in percent of its notional, every 8 hours, -5 to 5; 0 on spot"
    )
    side: str = Field("long", description="long, or short (on futures)")
    market: str = Field("spot", description="spot or futures")
    latency_bars: int = Field(0, description="Bars that an order comes late, 0-168")
    equity_pct: float = Field(100.0, description="Share of the equity that an order takes in percent, 0.01-100")

    @field_validator("symbol")
    @classmethod
    def _upper(cls, value: str | None) -> str | None:
        return None if value is None else value.strip().upper() or None

    @model_validator(mode="after")
    def _orders_can_be(self) -> Self:
        from trading_ops.backtesting.orders import terms_of

        terms_of(self.costs, self.execution, 1.0)
        return self

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """The request of these values; raises InvalidRequest naming every wrong one."""
        try:
            return cls(**values)
        except ValidationError as error:
            problems = []
            for problem in error.errors(include_url=False):
                field, said = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
                if problem["type"] == "extra_forbidden":
                    said = f"{field} is unknown; there are {', '.join(cls.model_fields)}"
                ours = not field or said.startswith(f"{field} ")
                problems.append(said if ours else f"{field} is {problem['input']!r}: {said}")
            raise InvalidRequest("; ".join(problems)) from None

    @property
    def costs(self) -> Costs:
        from trading_ops.backtesting.orders import Costs

        return Costs(self.fee_pct, self.slippage_pct, self.lot_step, self.min_notional_usdt, self.funding_pct)

    @property
    def execution(self) -> Execution:
        from trading_ops.backtesting.orders import Execution

        return Execution(self.side, self.market, self.latency_bars, self.equity_pct)  # type: ignore[arg-type]


def require_reachable(side: str, targets: Iterable[float | None]) -> None:
    """Raises ValueError for a take_profit_pct that no price can reach; None and NaN are off."""
    for target in targets:
        if side == "short" and target is not None and target >= 100:
            raise ValueError(f"take_profit_pct is {target!r} on side 'short'; below 100 would be right: no price is 0")


def require_order(start: date | str | None, end: date | str | None) -> None:
    """Raises ValueError unless the days, of one kind, are in order as far as they are given."""
    if start and end and start >= end:  # type: ignore[operator]
        raise ValueError(f"start {start} is not before end {end}, which is left out itself; a later end would be right")


class BacktestRequest(TradingRequest):
    """A backtest of whole UTC days [start, end)."""

    start: date | None = Field(
        None, description="First UTC day, such as 2025-01-01; default 365 days before the end, or the first day covered"
    )
    end: date | None = Field(
        None, description="UTC day at whose 00:00 it ends, itself left out; default after the last complete day covered"
    )
    parameters: dict[str, Any] = Field(
        {},
        description="The strategy's parameters, such as {period: 14, oversold: 25}, and stop_loss_pct (0.01-99) and"
        " take_profit_pct (0.01-1000), off where left out; see `trading-ops strategies describe`",
    )
    initial_usdt: float = Field(10_000.0, description="Capital at the start in USDT, 0.01 to 1e15")

    @field_validator("start", "end", mode="before")
    @classmethod
    def _day(cls, value: Any, info: ValidationInfo) -> date | None:
        if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
            return value
        try:
            return date.fromisoformat(value)
        except (TypeError, ValueError):
            raise ValueError(f"{info.field_name} is {value!r}; a UTC day such as 2025-03-01 would be right") from None

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        from trading_ops.backtesting.orders import terms_of

        self.checked_parameters()
        terms_of(self.costs, self.execution, self.initial_usdt)
        if self.initial_usdt > MOST_USDT:
            raise ValueError(f"initial_usdt is {self.initial_usdt!r}; {MOST_USDT:.0e} at most would be right")
        require_order(self.start, self.end)
        require_reachable(self.side, [self.parameters.get("take_profit_pct")])
        return self

    def checked_parameters(self) -> dict[str, Any]:
        """The strategy's full parameters, defaults filled in, and the stops that are set."""
        from trading_ops.strategies.signals import check_parameters

        return check_parameters(self.strategy, self.parameters)
