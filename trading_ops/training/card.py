"""What is known of a model? Everything its weights do not say."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

MODEL_TYPES = ("lstm", "gru", "transformer")
State = Literal["candidate", "champion", "archived"]


class Card(BaseModel):
    """A trained model. `model_id` is <type>-<symbol>-<first 12 of the hash of data, code, parameters and seed>.

    A prediction made at or after `trained_until` is one the model could not have learnt: by then its last training
    label (and that of its validation part) was realised.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model_id: str
    model_type: str
    symbol: str
    horizon_hours: int = Field(ge=1)
    lookback: int = Field(ge=1)
    features: tuple[str, ...]
    created_at: AwareDatetime
    trained_from: AwareDatetime
    trained_until: AwareDatetime
    candles_until: AwareDatetime  # its hold-out included: its age counts from here
    base_rate: float = Field(ge=0, le=1)  # share of rises among the training labels
    seed: int
    parameters: dict[str, Any]  # of the request: epochs, batch_size, learning_rate, validation_split, days_of_data
    digests: dict[str, str]  # sha256 of data, code, parameters, weights
    candles: str  # recorded | simulated | replayed +N weeks
    metrics: dict[str, Any]  # on the hold-out: Scores of the model, of the baseline, of the base rate
    cost_cpu_s: float = Field(ge=0)
    parent: str | None = None  # the champion it was trained to challenge

    @property
    def name(self) -> str:
        """What it is the model of, such as lstm/BTCUSDT: of these there is one champion."""
        return f"{self.model_type}/{self.symbol}"

    def age_days(self, now: datetime) -> float:
        return (now - self.candles_until).total_seconds() / 86_400
