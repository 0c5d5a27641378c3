"""How does an alert reach people without being lost or told twice?"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from trading_ops.audit.store import Conflict, Entry, InvalidRecord, StoreError, StoreUnavailable
from trading_ops.notifications.alert import Alert
from trading_ops.notifications.delivery import (
    CARRIED,
    FAILED,
    HISTORY,
    PENDING,
    SENDING,
    SENT,
    STATE,
    history_key,
    readable,
    undelivered,
)
from trading_ops.notifications.fallback import Fallback, FallbackError

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

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

    While `store` is down, alerts are written to and sent from the `fallback`, a local store that is opened when it is
    needed or `fallback_exists`; every such send is marked as a possible duplicate, for nobody can look up whether the
    alert was told before. All of it is carried over when the store is back, so that nothing is told again.
    """

    def __init__(
        self,
        store: AuditStore,
        channels: Mapping[str, Channel],
        now: Callable[[], datetime] | None = None,
        *,
        fallback: Callable[[], AuditStore] | None = None,
        fallback_exists: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self._channels = channels
        self._now = now or (lambda: datetime.now(UTC))
        self._fallback = Fallback(fallback, fallback_exists) if fallback else None
        self._doubtful = False  # whether every send may be a duplicate
        self.store_error: str | None = None  # why the last call had to do without the store; None: it did not

    def publish(self, alert: Alert) -> dict[str, Any]:
        """Store the alert, try each channel at once, and return the delivery document. Told before: nothing is sent.

        Raises StoreUnavailable when neither the store nor the fallback can be written.
        """
        told: dict[str, bool] = {}
        self.store_error, self._doubtful = None, False
        try:
            self._carry_over_what_is_known_of(alert)
            return self._publish(alert, told)
        except InvalidRecord:
            raise
        except StoreError as error:
            if self._fallback is None:
                raise
            self._note(error)
            try:
                return self._served_from(self._fallback.store())._publish(alert, told)
            except StoreError as local:
                raise StoreUnavailable(f"{error}; and the local outbox does not work: {local}") from local

    def drain(self) -> int:
        """Try everything that is not sent yet; the number of alerts that are now sent on all their channels.

        What a damaged or absent store holds waits for the next time, and `store_error` says why.
        """
        self.store_error, self._doubtful = None, False
        delivered = 0
        if self._fallback:
            try:
                for document in self._fallback.uncarried():
                    try:
                        self._fallback.carry_over(self._store, document)
                    except StoreError as error:
                        self._note(error)
                if self._fallback.uncarried():
                    delivered += self._served_from(self._fallback.store())._drain()
            except (StoreError, FallbackError) as error:
                self._note(error)
        try:
            delivered += self._drain()
        except StoreError as error:
            self._note(error)
        return delivered

    def carry_over(self) -> int:
        """Give the audit store what was written without it, telling nobody; how many alerts it could not be given."""
        if self._fallback is None:
            return 0
        try:
            for document in self._fallback.uncarried():
                self._fallback.carry_over(self._store, document)
            return len(self._fallback.uncarried())
        except FallbackError as error:
            raise StoreError(str(error)) from error

    def deliveries(self) -> list[dict[str, Any]]:
        """Every alert with the state of each channel, oldest first; also what was not carried over yet.

        Raises StoreError while the store, or a local one, cannot be read: a part would pass for the whole.
        """
        try:
            local = self._fallback.uncarried() if self._fallback else []
        except FallbackError as error:
            raise StoreError(str(error)) from error
        newest = {d.key: dict(d.body) for d in [*self._store.list_state(STATE), *local]}
        return sorted(newest.values(), key=lambda body: body["created_at"])

    def waiting(self) -> int:
        """How many alerts some channel has not got yet; raises StoreError as `deliveries` does."""
        return sum(bool(undelivered(body)) for body in self.deliveries())

    def _note(self, error: Exception) -> None:
        known = self.store_error.split("; ") if self.store_error else []
        self.store_error = "; ".join(dict.fromkeys([*known, *str(error).split("; ")]))

    def _carry_over_what_is_known_of(self, alert: Alert) -> None:
        """Where nobody can look up whether the alert was told locally, it is told as a possible duplicate."""
        if self._fallback is None:
            return
        try:
            if known := self._fallback.knows(alert.dedup_key):
                self._fallback.carry_over(self._store, known)
        except FallbackError as error:
            self._note(error)
            self._doubtful = True

    def _served_from(self, fallback: AuditStore) -> Outbox:
        outbox = Outbox(fallback, self._channels, self._now)
        outbox._doubtful = True
        return outbox

    def _publish(self, alert: Alert, told: dict[str, bool]) -> dict[str, Any]:
        """`told` gets each channel that is told, and whether as a possible duplicate; who is in it needs nothing."""
        body = {
            "alert": alert.to_document(),
            "created_at": self._now().isoformat(),
            "channels": {n: {"state": SENT if n in told else PENDING, "attempts": 0} for n in self._channels},
        }
        for name, duplicate in told.items():
            self._remember(alert, name, possible_duplicate=duplicate)
        with suppress(Conflict):  # told, or being told, by an earlier run: what is still pending is tried again below
            self._store.put_state(STATE, alert.dedup_key, body, expected_version=0)
        return self._deliver(alert.dedup_key, told)

    def _drain(self) -> int:
        documents, damaged = readable(self._store)
        waiting = [d.key for d in documents if undelivered(d.body) and not d.body.get(CARRIED)]
        delivered = sum(not undelivered(self._deliver(key, {})) for key in waiting)
        if damaged:
            self._note(StoreError("; ".join(damaged)))
        return delivered

    def _deliver(self, key: str, told: dict[str, bool]) -> dict[str, Any]:
        for name, channel in self._channels.items():
            claim = uuid.uuid4().hex
            before = self._change(key, name, SENDING, when=self._may_send, claim=claim)
            if before is not None:
                duplicate = self._doubtful or before["state"] == SENDING
                self._send(key, name, channel, claim, told, possible_duplicate=duplicate)
        return dict(self._read(key).body)

    def _may_send(self, delivery: Mapping[str, Any]) -> bool:
        """Whether nobody has sent it, and nobody is at it."""
        if delivery["state"] == SENDING:
            return self._now() - datetime.fromisoformat(delivery["at"]) >= CLAIM
        return delivery["state"] != SENT

    def _send(
        self, key: str, name: str, channel: Channel, claim: str, told: dict[str, bool], *, possible_duplicate: bool
    ) -> None:
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
        told[name] = possible_duplicate
        self._remember(alert, name, possible_duplicate=possible_duplicate)
        self._change(key, name, SENT, when=lambda delivery: True, claim=claim)

    def _remember(self, alert: Alert, name: str, *, possible_duplicate: bool) -> None:
        body = {"channel": name, "alert": alert.to_document(), "possible_duplicate": possible_duplicate}
        day = self._now().date().isoformat()
        self._store.append(HISTORY, [Entry(day, history_key(alert.dedup_key, name), body)])

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
            body.pop(CARRIED, None)  # there is news to carry
            with suppress(Conflict):  # another channel of this alert moved on in between: look again
                self._store.put_state(STATE, key, body, expected_version=document.version)
                return before

    def _read(self, key: str) -> StateDocument:
        document = self._store.get_state(STATE, key)
        if document is None:
            raise LookupError(f"outbox has no alert {key!r}")
        return document
