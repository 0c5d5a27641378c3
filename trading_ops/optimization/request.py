"""What is to be searched, and is that possible? One validation for the job and the command."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any, Self

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from trading_ops.backtesting.request import TradingRequest, require_order, require_reachable
from trading_ops.optimization.periods import Splitting

if TYPE_CHECKING:
    from trading_ops.optimization.space import Space

FEWEST_SETS, MOST_SETS = 10, 100_000
MOST_BLOCKS = 16  # C(16, 8) = 12,870 splits of halves


class OptimizationRequest(TradingRequest):
    """A parameter search; every field has a default, so that a search without any setting is one too."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

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
    threads: int | None = Field(None, ge=1, le=256, description="Cores to use; default all")

    @field_validator("sets")
    @classmethod
    def _enough_sets(cls, value: int) -> int:
        if not FEWEST_SETS <= value <= MOST_SETS:
            raise ValueError(f"sets is {value}; {FEWEST_SETS}-{MOST_SETS} would be right")
        return value

    @field_validator("start", "end")
    @classmethod
    def _is_a_day(cls, value: str | None, info: ValidationInfo) -> str | None:
        try:
            return None if value is None else date.fromisoformat(value).isoformat()
        except ValueError:
            raise ValueError(f"{info.field_name} is {value!r}; a UTC day such as 2025-03-01 would be right") from None

    @model_validator(mode="after")
    def _can_be(self) -> Self:
        require_reachable(self.side, self.search_space.values.get("take_profit_pct", ()))
        if self.splitting.blocks % 2 or self.splitting.blocks > MOST_BLOCKS:
            raise ValueError(
                f"train_blocks and folds are {self.splitting.blocks} together; an even number up to {MOST_BLOCKS} would"
                " be right, since the blocks are also compared half against half"
            )
        require_order(self.start, self.end)
        return self

    @property
    def splitting(self) -> Splitting:
        return Splitting(self.train_blocks, self.folds, self.purge_days, self.final_pct)

    @property
    def search_space(self) -> Space:
        from trading_ops.optimization.space import build_space

        return build_space(self.strategy, self.space)
