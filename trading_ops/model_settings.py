"""Where do models lie, which strategies use them, and what may training them take?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import NoDecode


class ModelSettings(BaseModel):
    """What can be configured about models; the variables have the prefix of all settings."""

    models: Path | None = Field(None, description="Folder of the trained models; default <data_dir>/models")
    model_stale_days: float = Field(
        45.0, gt=0, allow_inf_nan=False, description="Days after which a model says HOLD, from the end of its candles"
    )
    training_max_s: float = Field(7200.0, gt=0, description="Seconds that the training of one model may take")
    training_max_memory_mb: float = Field(4096.0, gt=0, description="Memory in MB that a training process may take")
    strategy_models: Annotated[Mapping[str, tuple[str, ...]], NoDecode] = Field(
        {}, description="The models each strategy uses, such as rsi=lstm/BTCUSDT,gru/ETHUSDT; macd=lstm/SOLUSDT"
    )

    @field_validator("strategy_models", mode="before")
    @classmethod
    def _read_strategy_models(cls, value: object) -> object:
        return _strategy_models(value) if isinstance(value, str) else value


def _strategy_models(text: str) -> dict[str, tuple[str, ...]]:
    """`rsi=lstm/BTCUSDT,gru/ETHUSDT; macd=lstm/SOLUSDT` by strategy; raises ValueError."""
    found: dict[str, tuple[str, ...]] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        strategy, _, listed = (piece.strip() for piece in part.partition("="))
        names = []
        for item in filter(None, map(str.strip, listed.split(","))):
            model_type, slash, symbol = item.partition("/")
            names.append(f"{model_type.lower()}/{symbol.upper()}" if slash and model_type and symbol else "")
        if not strategy or not names or not all(names) or strategy in found:
            raise ValueError(f"{part!r}: a strategy, once, and its models are needed, such as rsi=lstm/BTCUSDT")
        found[strategy] = tuple(dict.fromkeys(names))
    return found
