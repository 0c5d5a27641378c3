"""What may GPT-4 answer?"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field


class Assessment(BaseModel):
    """One opinion. `unavailable`: why there is none; then it is wait, confidence 0, and nobody's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recommendation: Literal["retrain", "wait", "optimize_parameters"]
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    urgency: Literal["low", "medium", "high"]
    reasoning: str = ""
    suggested_actions: tuple[str, ...] = ()
    estimated_improvement: str | None = None
    unavailable: str | None = None

    @classmethod
    def none(cls, why: str) -> Self:
        """No opinion, and why."""
        return cls(recommendation="wait", confidence=0.0, urgency="low", unavailable=why)
