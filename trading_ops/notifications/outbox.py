"""How does an alert reach people without being lost or told twice?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from trading_ops.audit.store import Conflict, Entry
from trading_ops.notifications.alert import Alert

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

STATE = "outbox"
HISTORY = "notifications"
PENDING, SENDING, SENT, FAILED = "pending", "sending", "sent", "failed"
CLAIM = timedelta(minutes=1)  # how long a process may take to send before another may take over


class Channel(Protocol):
    """One way to reach people; raises DeliveryError with a reason fit to be stored and shown."""

    name: str

    def send(self, alert: Alert, *, possible_duplicate: bool) -> None: ...


class DeliveryError(Exception):
    """A channel did not take the alert; the message says why and holds no secret."""


class Outbox:
    """Alerts are written here before they are sent, and each dedup key is told once on each channel.

    The write-ahead: state `pending`, then `sending`, then `sent` or `failed`. What a killed process left in `sending`
    may have arrived; after a minute it is sent again and marked as a possible duplicate. Nothing is ever dropped.
    """

    def __init__(self, store: AuditStore, channels: Mapping[str, Channel], now: Callable[[], datetime] | None = None):
        self._store = store
        self._channels = channels
        self._now = now or (lambda: datetime.now(UTC))

    def publish(self, alert: Alert) -> dict[str, Any]:
        """Store the alert, try each channel at once, and return the delivery document. Told before: nothing is sent."""
        body = {
            "alert": alert.to_document(),
            "created_at": self._now().isoformat(),
            "channels": {name: {"state": PENDING, "attempts": 0} for name in self._channels},
        }
        with suppress(Conflict):  # told, or being told, by an earlier run: what is still pending is tried again below
            self._store.put_state(STATE, alert.dedup_key, body, expected_version=0)
        return self._deliver(alert.dedup_key)

    def drain(self) -> int:
        """Try everything that is not sent yet; the number of alerts that are now sent on all their channels."""
        waiting = [d.key for d in self._store.list_state(STATE) if _undelivered(d.body)]
        return sum(not _undelivered(self._deliver(key)) for key in waiting)

    def deliveries(self) -> list[dict[str, Any]]:
        """Every alert with the state of each channel, oldest first."""
        documents = [dict(d.body) for d in self._store.list_state(STATE)]
        return sorted(documents, key=lambda body: body["created_at"])

    def _deliver(self, key: str) -> dict[str, Any]:
        document = self._read(key)
        for name in _undelivered(document.body):
            channel = self._channels.get(name)
            if channel is None:
                continue  # configured when the alert was made, not now: it stays pending and is shown as such
            delivery = document.body["channels"][name]
            interrupted = delivery["state"] == SENDING
            if interrupted and self._now() - datetime.fromisoformat(delivery["at"]) < CLAIM:
                continue  # another process is at it
            claimed = self._advance(document, name, SENDING)
            if claimed is None:
                return dict(self._read(key).body)  # another process took it up; it is theirs to finish
            document = self._send(claimed, name, channel, possible_duplicate=interrupted)
        return dict(document.body)

    def _send(self, claimed: StateDocument, name: str, channel: Channel, *, possible_duplicate: bool) -> StateDocument:
        alert = Alert.from_document(claimed.body["alert"])
        try:
            channel.send(alert, possible_duplicate=possible_duplicate)
        except DeliveryError as error:
            return self._advance(claimed, name, FAILED, error=str(error)) or self._read(claimed.key)
        day = self._now().date().isoformat()
        entry = {"channel": name, "alert": alert.to_document(), "possible_duplicate": possible_duplicate}
        self._store.append(HISTORY, [Entry(day, f"{alert.dedup_key}/{name}", entry)])
        return self._advance(claimed, name, SENT) or self._read(claimed.key)

    def _advance(
        self, document: StateDocument, name: str, state: str, error: str | None = None
    ) -> StateDocument | None:
        """Compare-and-set one channel's state; None where another process was first."""
        channel = dict(document.body["channels"][name])
        channel |= {"state": state, "at": self._now().isoformat(), "error": error}
        channel["attempts"] += state == SENDING
        body = {**document.body, "channels": {**document.body["channels"], name: channel}}
        try:
            return self._store.put_state(STATE, document.key, body, expected_version=document.version)
        except Conflict:
            return None

    def _read(self, key: str) -> StateDocument:
        document = self._store.get_state(STATE, key)
        if document is None:
            raise LookupError(f"outbox has no alert {key!r}")
        return document


def _undelivered(body: Mapping[str, Any]) -> list[str]:
    return [name for name, channel in body["channels"].items() if channel["state"] != SENT]
