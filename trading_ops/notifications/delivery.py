"""What does a store hold about an alert and its way to each channel?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from string import ascii_letters, digits, punctuation
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import StoreError, StoreUnavailable
from trading_ops.notifications.rests import lies_ahead

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

# a document an alert: {alert, created_at, channels: {name: {state, attempts, at, claim, error, next_at, in_doubt,
# handle, quiet_until}}}; `handle` is what the channel calls the message
STATE = "outbox"
HISTORY = "notifications"  # a record a delivery, under `history_key`
CARRIED = "carried_over"  # in a document of the local store: the audit store has taken it over
PENDING, SENDING, SENT, FAILED, DEAD = "pending", "sending", "sent", "failed", "dead"
LONGEST_NIGHT = timedelta(days=1, minutes=1)


def history_key(dedup_key: str, channel: str) -> str:
    """The key of a delivery's record."""
    return f"{dedup_key}/{channel}"


def quiet_until(channel: Mapping[str, Any], now: datetime) -> datetime | None:
    """When the quiet hours are over that a channel's message waits for, None where it waits for none."""
    moment = datetime.fromisoformat(channel["quiet_until"]) if channel.get("quiet_until") else None
    return moment if moment and lies_ahead(moment, now, LONGEST_NIGHT) else None


def unknown_alert(key: str) -> LookupError:
    """There is no such alert."""
    return LookupError(f"no alert has the key {key!r}; trading-ops alerts list shows them")


def undelivered(body: Mapping[str, Any]) -> list[str]:
    """The channels that have not got the alert yet."""
    return [name for name, channel in body["channels"].items() if channel["state"] != SENT]


def unsettled(body: Mapping[str, Any]) -> list[str]:
    """The channels that will be tried again by themselves."""
    return [name for name, channel in body["channels"].items() if channel["state"] not in (SENT, DEAD)]


def given_up(body: Mapping[str, Any]) -> list[str]:
    """The channels that are not tried any more, until somebody says so."""
    return [name for name, channel in body["channels"].items() if channel["state"] == DEAD]


def readable(store: AuditStore, state: str = STATE, prefix: str = "") -> tuple[list[StateDocument], list[str]]:
    """All documents of a collection but the damaged ones, and why those cannot be read; raises StoreUnavailable.

    A store lists all documents under a prefix or none, so the damaged ones are closed in on letter by letter.
    """
    try:
        return store.list_state(state, prefix), []
    except StoreUnavailable:
        raise
    except StoreError as error:
        found: list[StateDocument] = []
        errors: list[str] = []
        for letter in f"{ascii_letters}{digits}{punctuation} ":
            below, wrong = readable(store, state, prefix + letter)
            found, errors = found + below, errors + wrong
        return found, errors or [f"the alert {prefix!r} is damaged and skipped: {error}"]
