"""What does a store hold about an alert and its way to each channel?"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from string import ascii_letters, digits, punctuation
from typing import TYPE_CHECKING, Any, TypeVar

from trading_ops.audit.store import StoreError, StoreUnavailable
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.backoff import lies_ahead

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

# a document an alert: {alert, created_at, channels: {name: {state, attempts, at, claim, error, next_at, in_doubt,
# handle, quiet_until, replayed, superseded_by}}}; `handle` is what the channel calls the message, `replayed` whether a
# person had it sent again, `superseded_by` the key of what the channel was told instead
STATE = "outbox"
HISTORY = "notifications"  # a record a delivery, under `history_key`
CARRIED = "carried_over"  # in a document of the local store: the audit store has taken it over
PENDING, SENDING, SENT, FAILED, DEAD = "pending", "sending", "sent", "failed", "dead"
AFTER = "after"  # in a delivery: the keys that the channel is told first, or that are given up there
AGAIN = "again"  # in that of an end: something may have been told after it, so it is told once more
AHEAD = "goes_ahead"  # beside it: what was tried once more and failed is not waited for
_Found = TypeVar("_Found")
LONGEST_NIGHT = timedelta(days=1, minutes=1)
LAST_YEAR = 9000  # of a moment that can be reckoned with: datetime ends with 9999
DAMAGE = (LookupError, TypeError, ValueError, AttributeError)  # what reading a damaged document raises


def alert_of(body: Mapping[str, Any], key: str) -> Alert:
    """The alert that the document `key` holds; raises StoreError, which names it, where it is damaged."""
    try:
        return Alert.from_document(body["alert"])
    except DAMAGE as error:
        raise StoreError(f"the alert {key!r} is damaged and cannot be read ({type(error).__name__})") from error


def incident_of(body: Mapping[str, Any], key: str) -> str | None:
    """What the alert is about; None also where it cannot be read: then it is told, or given up, by itself."""
    with suppress(StoreError):
        return alert_of(body, key).incident
    return None


def is_critical(body: Mapping[str, Any], key: str) -> bool:
    """Whether nothing may come before it; not where it cannot be read: that is given up."""
    with suppress(StoreError):
        return alert_of(body, key).level is Severity.CRITICAL
    return False


def checked(document: StateDocument) -> StateDocument:
    """The document, if what it says of the deliveries is whole; else raises StoreError, which names it."""
    try:
        moments = [document.body["created_at"]]
        for delivery in document.body["channels"].values():
            if not isinstance(delivery["state"], str) or not isinstance(delivery["attempts"], int):
                raise TypeError
            if not all(isinstance(key, str) for key in delivery.get(AFTER, ())):
                raise TypeError
            moments += [delivery["at"]] if delivery["state"] in (SENDING, DEAD) else []
            moments += [delivery[name] for name in ("at", "next_at", "quiet_until") if delivery.get(name) is not None]
        for moment in map(datetime.fromisoformat, moments):
            if moment.tzinfo is None or moment.year > LAST_YEAR:
                raise ValueError
    except DAMAGE as error:
        raise StoreError(f"the alert {document.key!r} is damaged ({type(error).__name__})") from error
    return document


def told_at(document: StateDocument) -> datetime:
    """When the alert was published; raises StoreError where the document is damaged."""
    return datetime.fromisoformat(checked(document).body["created_at"])


def known(store: AuditStore, key: str) -> StateDocument | None:
    """The alert with this key; None also where it is damaged: it holds up nothing. Raises StoreUnavailable."""
    try:
        document = store.get_state(STATE, key)
        return document and checked(document)
    except StoreUnavailable:
        raise
    except StoreError:
        return None


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


def whole(found: list[_Found], unread: list[str]) -> list[_Found]:
    """All of it; raises StoreError where some could not be read, for a part would pass for the whole."""
    if unread:
        raise StoreError("; ".join(unread))
    return found
