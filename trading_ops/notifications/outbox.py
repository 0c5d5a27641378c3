"""How does an alert reach people without being lost or told twice?"""

from __future__ import annotations

import uuid
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
        for name, channel in self._channels.items():
            claim = uuid.uuid4().hex
            before = self._change(key, name, SENDING, when=self._may_send, claim=claim)
            if before is not None:
                self._send(key, name, channel, claim, possible_duplicate=before["state"] == SENDING)
        return dict(self._read(key).body)

    def _may_send(self, delivery: Mapping[str, Any]) -> bool:
        """Whether nobody has sent it, and nobody is at it."""
        if delivery["state"] == SENDING:
            return self._now() - datetime.fromisoformat(delivery["at"]) >= CLAIM
        return delivery["state"] != SENT

    def _send(self, key: str, name: str, channel: Channel, claim: str, *, possible_duplicate: bool) -> None:
        def ours(delivery: Mapping[str, Any]) -> bool:
            return delivery["claim"] == claim  # who took over after a minute has the last word

        alert = Alert.from_document(self._read(key).body["alert"])
        try:
            channel.send(alert, possible_duplicate=possible_duplicate)
        except DeliveryError as error:
            self._change(key, name, FAILED, when=ours, claim=claim, error=str(error))
            return
        except Exception as error:  # noqa: BLE001  # kept with the alert, by its type alone: its text may hold a secret
            self._change(key, name, FAILED, when=ours, claim=claim, error=type(error).__name__)
            return
        day = self._now().date().isoformat()
        entry = {"channel": name, "alert": alert.to_document(), "possible_duplicate": possible_duplicate}
        self._store.append(HISTORY, [Entry(day, f"{alert.dedup_key}/{name}", entry)])
        self._change(key, name, SENT, when=lambda delivery: True, claim=claim)

    def _change(
        self,
        key: str,
        name: str,
        state: str,
        *,
        when: Callable[[Mapping[str, Any]], bool],
        claim: str,
        error: str | None = None,
    ) -> Mapping[str, Any] | None:
        """Compare-and-set one channel's state where `when` allows it; what it was before, None where not allowed."""
        while True:
            document = self._read(key)
            before = document.body["channels"].get(name)
            if before is None or not when(before):
                return None
            after = {**before, "state": state, "at": self._now().isoformat(), "claim": claim, "error": error}
            after["attempts"] += state == SENDING
            body = {**document.body, "channels": {**document.body["channels"], name: after}}
            with suppress(Conflict):  # another channel of this alert moved on in between: look again
                self._store.put_state(STATE, key, body, expected_version=document.version)
                return before

    def _read(self, key: str) -> StateDocument:
        document = self._store.get_state(STATE, key)
        if document is None:
            raise LookupError(f"outbox has no alert {key!r}")
        return document


def _undelivered(body: Mapping[str, Any]) -> list[str]:
    return [name for name, channel in body["channels"].items() if channel["state"] != SENT]
