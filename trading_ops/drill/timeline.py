"""How long did each phase of an emergency take, and which one was never reached?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from trading_ops.guard.actions import CONFIRMED, REQUESTED, SEEN, SENT

APPEARED, DELIVERED = "appeared", "delivered"
PHASES = {
    APPEARED: "the loss appears at the bot",
    SEEN: "the guard sees it",
    REQUESTED: "it asks for the stop",
    SENT: "the bot is told",
    CONFIRMED: "the bot is read back: disabled",
    DELIVERED: "the alert is delivered",
}


@dataclass(frozen=True, slots=True)
class Timeline:
    """When each phase was reached, None: never."""

    moments: Mapping[str, datetime | None]

    def seconds(self) -> dict[str, float | None]:
        """Since the loss appeared."""
        began = self.moments[APPEARED]
        assert began is not None
        return {phase: (at - began).total_seconds() if at else None for phase, at in self.moments.items()}

    def took(self) -> dict[str, float | None]:
        """Of each phase after the first, since the one before."""
        since = list(self.seconds().items())
        return {
            phase: None if at is None or before is None else at - before for (_, before), (phase, at) in pairwise(since)
        }

    def missing(self) -> list[str]:
        return [PHASES[phase] for phase, at in self.moments.items() if at is None]


def timeline(appeared: datetime, action: Mapping[str, Any] | None, delivered: Sequence[datetime | None]) -> Timeline:
    """Of the guard's action, None: there is none, and of the moments at which each channel delivered its alert."""
    reached = action.get("at", {}) if action else {}
    told = [at for at in delivered if at is not None]
    moments: dict[str, datetime | None] = {APPEARED: appeared}
    for phase in (SEEN, REQUESTED, SENT, CONFIRMED):
        moments[phase] = datetime.fromisoformat(reached[phase]) if phase in reached else None
    moments[DELIVERED] = max(told) if told and len(told) == len(delivered) else None
    return Timeline(moments)
