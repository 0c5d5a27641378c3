"""Which model is to be trained on what, and can it be? One validation for the job and the command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from trading_ops.training.card import MODEL_TYPES

FEWEST_BARS = 720  # thirty days: what a symbol needs to be trained on at all
HOLDOUT_DAYS = 30  # the newest days, which no model is trained on: challenger and champion are compared on them

NO_TORCH = "models need PyTorch, which is not installed here: make ml"


class InvalidRequest(ValueError):
    """A training that cannot be; the message names each field, its value and what would be right."""


class TrainingRequest(BaseModel):
    """A training; every field has a default. Light to import: Dagster's page takes its fields from here."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    model_type: str = Field("lstm", description="lstm, gru or transformer")
    symbol: str = Field(
        "", description="Such as BTCUSDT, or several with commas between them; default the first of TRADING_OPS_SYMBOLS"
    )
    days_of_data: int = Field(365, description="Days before the hold-out that it learns from, 7-1460")
    epochs: int = Field(30, description="Passes over the training windows at most, 1-1000; it stops early by itself")
    batch_size: int = Field(256, description="Windows of a step, a power of two, 8-65536")
    learning_rate: float = Field(0.001, description="Step size of the optimiser, above 0 and at most 1")
    validation_split: float = Field(0.2, description="Newest share of the training days that stops it, 0.05-0.5")
    horizon_hours: int = Field(1, description="Hours ahead whose direction is learnt, 1-168")
    holdout_days: int = Field(HOLDOUT_DAYS, description="Newest days kept back to judge it by, 7-365")
    end: str | None = Field(
        None, description="UTC day at whose 00:00 the candles end, itself left out; default after the last complete day"
    )
    seed: int = Field(1, description="Seed of weights and order, 0 to 2^31-1: the same seed, the same model")

    @field_validator("model_type")
    @classmethod
    def _known(cls, value: str) -> str:
        if (name := value.strip().lower()) not in MODEL_TYPES:
            raise ValueError(f"{', '.join(MODEL_TYPES)} would be right")
        return name

    @field_validator("symbol")
    @classmethod
    def _upper(cls, value: str) -> str:
        return ",".join(dict.fromkeys(part.strip().upper() for part in value.split(",") if part.strip()))

    @field_validator("days_of_data", "epochs", "horizon_hours", "holdout_days", "seed")
    @classmethod
    def _within(cls, value: int, info: ValidationInfo) -> int:
        low, high = _BOUNDS[str(info.field_name)]
        if not low <= value <= high:
            raise ValueError(f"{low}-{high} would be right")
        return value

    @field_validator("batch_size")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if not 8 <= value <= 65_536 or value & (value - 1):
            near = 1 << max(3, min(16, round(max(value, 1)).bit_length() - 1))
            raise ValueError(f"a power of two from 8 to 65536, such as {near}, would be right")
        return value

    @field_validator("learning_rate")
    @classmethod
    def _rate(cls, value: float) -> float:
        if not 0 < value <= 1:
            raise ValueError("above 0 and at most 1, such as 0.001, would be right")
        return value

    @field_validator("validation_split")
    @classmethod
    def _share(cls, value: float) -> float:
        if not 0.05 <= value <= 0.5:
            raise ValueError("0.05-0.5 would be right")
        return value

    @field_validator("end")
    @classmethod
    def _day(cls, value: str | None) -> str | None:
        try:
            return None if value is None else date.fromisoformat(value).isoformat()
        except ValueError:
            raise ValueError("a UTC day such as 2025-03-01 would be right") from None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """The request of these values; raises InvalidRequest naming every wrong one."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise InvalidRequest("; ".join(map(_said, error.errors(include_url=False)))) from None

    @property
    def symbols(self) -> tuple[str, ...]:
        """What is named, in order; empty: the default."""
        return tuple(filter(None, self.symbol.split(",")))

    @property
    def end_at(self) -> datetime | None:
        return None if self.end is None else datetime.combine(date.fromisoformat(self.end), time(), UTC)

    @property
    def parameters(self) -> dict[str, Any]:
        """What makes two trainings of the same candles different, seed and days aside."""
        return self.model_dump(exclude={"model_type", "symbol", "seed", "end"})


_BOUNDS = {
    "days_of_data": (7, 1460),
    "epochs": (1, 1000),
    "horizon_hours": (1, 168),
    "holdout_days": (7, 365),
    "seed": (0, 2**31 - 1),
}


def _said(problem: Mapping[str, Any]) -> str:
    field, said = ".".join(map(str, problem["loc"])), problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{field} is unknown; there are {', '.join(TrainingRequest.model_fields)}"
    return f"{field} is {problem['input']!r}: {said}"
