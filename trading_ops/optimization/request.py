"""What is to be searched, and is that possible? One validation for the job and the command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from trading_ops.optimization.periods import Splitting

if TYPE_CHECKING:
    from trading_ops.backtesting.orders import Costs, Execution
    from trading_ops.optimization.space import Space

FEWEST_SETS, MOST_SETS = 10, 100_000
MOST_BLOCKS = 16  # C(16, 8) = 12,870 splits of halves


class InvalidRequest(ValueError):
    """A search that cannot be; the message names each field, its value and what would be right."""


class OptimizationRequest(BaseModel):
    """A parameter search; every field has a default, so that a search without any setting is one too."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    strategy: str = Field("rsi", description="rsi, macd, bollinger or volume")
    symbol: str | None = Field(None, description="Such as BTCUSDT; default the first of TRADING_OPS_SYMBOLS")
    sets: int = Field(
        200,
        description=f"Parameter sets to try at most, {FEWEST_SETS}-{MOST_SETS}: the whole grid where it has no more,"
        " else the most promising by Optuna TPE",
    )
    space: dict[str, Any] = Field(
        {},
        description="Values to try of each parameter: a list, {low, high, step}, or one value. A parameter left out is"
        " tried over the strategy's default values; stop_loss_pct and take_profit_pct are off where left out",
    )
    start: str | None = Field(None, description="First UTC day, such as 2025-01-01; default the first day covered")
    end: str | None = Field(
        None, description="UTC day at whose 00:00 it ends, itself left out; default after the last complete day covered"
    )
    train_blocks: int = Field(7, ge=2, le=14, description="Equal blocks of days that guide the search, 2-14")
    folds: int = Field(5, ge=2, le=10, description="Blocks of days after them that judge it, one after another, 2-10")
    purge_days: int = Field(1, ge=0, le=30, description="Days left out at each block's start, 0-30")
    final_pct: float = Field(20.0, ge=5, le=50, description="Share of the days kept back for the very end, 5-50 %")
    min_trades: int = Field(
        5, ge=1, le=1000, description="Trades a set needs to be chosen: in what it is chosen by, and a fold; 1-1000"
    )
    seed: int = Field(1, ge=0, le=2**31 - 1, description="Seed of the proposals: the same seed, the same search")
    side: str = Field("long", description="long, or short (on futures)")
    market: str = Field("spot", description="spot or futures")
    fee_pct: float = Field(0.1, description="Fee in percent of a fill, 0 to below 100")
    slippage_pct: float = Field(0.05, description="Slippage in percent of a fill, 0 to below 100")
    funding_pct: float = Field(
        0.0, description="Funding of a future in percent of its notional, every 8 hours, -5 to 5; 0 on spot"
    )
    lot_step: float | None = Field(None, description="The exchange's step of quantities, above 0; default none")
    min_notional_usdt: float | None = Field(None, description="The exchange's least order in USDT; default none")
    latency_bars: int = Field(0, description="Bars that an order comes late, 0-168")
    equity_pct: float = Field(100.0, description="Share of the equity that an order takes in percent, above 0 to 100")
    threads: int | None = Field(None, ge=1, le=256, description="Cores to use; default all")

    @field_validator("sets")
    @classmethod
    def _enough_sets(cls, value: int) -> int:
        if not FEWEST_SETS <= value <= MOST_SETS:
            raise ValueError(f"sets is {value}; {FEWEST_SETS}-{MOST_SETS} would be right")
        return value

    @field_validator("symbol")
    @classmethod
    def _as_listed(cls, value: str | None) -> str | None:
        return None if value is None else value.strip().upper() or None

    @field_validator("start", "end")
    @classmethod
    def _is_a_day(cls, value: str | None, info: ValidationInfo) -> str | None:
        try:
            return None if value is None else date.fromisoformat(value).isoformat()
        except ValueError:
            raise ValueError(f"{info.field_name} is {value!r}; a UTC day such as 2025-03-01 would be right") from None

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        from trading_ops.backtesting.orders import terms_of

        terms_of(self.costs, self.execution, 1.0)
        self.search_space  # noqa: B018  # raises what is wrong with it
        if self.splitting.blocks % 2 or self.splitting.blocks > MOST_BLOCKS:
            raise ValueError(
                f"train_blocks and folds are {self.splitting.blocks} together; an even number up to {MOST_BLOCKS} would"
                " be right, since the blocks are also compared half against half"
            )
        if self.start and self.end and self.start >= self.end:
            raise ValueError(
                f"start {self.start} is not before end {self.end}, which is left out itself; a later end would be right"
            )
        return self

    @property
    def costs(self) -> Costs:
        from trading_ops.backtesting.orders import Costs  # here, as below: a request is seen by whoever loads the jobs

        return Costs(self.fee_pct, self.slippage_pct, self.lot_step, self.min_notional_usdt, self.funding_pct)

    @property
    def execution(self) -> Execution:
        from trading_ops.backtesting.orders import Execution

        return Execution(self.side, self.market, self.latency_bars, self.equity_pct)  # type: ignore[arg-type]

    @property
    def splitting(self) -> Splitting:
        return Splitting(self.train_blocks, self.folds, self.purge_days, self.final_pct)

    @property
    def search_space(self) -> Space:
        from trading_ops.optimization.space import build_space

        return build_space(self.strategy, self.space)


def parse_request(values: Mapping[str, Any]) -> OptimizationRequest:
    """The request of these values; raises InvalidRequest naming every wrong one."""
    try:
        return OptimizationRequest(**values)
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False):
            field, said = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
            if problem["type"] == "extra_forbidden":
                said = f"{field} is unknown; there are {', '.join(OptimizationRequest.model_fields)}"
            ours = not field or said.startswith(f"{field} ")
            problems.append(said if ours else f"{field} is {problem['input']!r}: {said}")
        raise InvalidRequest("; ".join(problems)) from None
