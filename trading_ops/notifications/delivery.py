"""What does a store hold about an alert and its way to each channel?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATE = "outbox"  # a document an alert: {alert, created_at, channels: {name: {state, attempts, at, claim, error}}}
HISTORY = "notifications"  # a record a delivery, under `history_key`
PENDING, SENDING, SENT, FAILED = "pending", "sending", "sent", "failed"


def history_key(dedup_key: str, channel: str) -> str:
    """The key of a delivery's record."""
    return f"{dedup_key}/{channel}"


def undelivered(body: Mapping[str, Any]) -> list[str]:
    """The channels that have not got the alert yet."""
    return [name for name, channel in body["channels"].items() if channel["state"] != SENT]
