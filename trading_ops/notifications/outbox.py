"""How does an alert reach people without being lost or told twice?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import InvalidRecord, StoreError, StoreUnavailable
from trading_ops.notifications.backoff import Backoff
from trading_ops.notifications.channel import Channel
from trading_ops.notifications.courier import Courier, Told
from trading_ops.notifications.dead_letters import is_obituary
from trading_ops.notifications.delivery import (
    STATE,
    checked,
    given_up,
    quiet_until,
    undelivered,
    unknown_alert,
    unsettled,
    whole,
)
from trading_ops.notifications.fallback import Fallback, FallbackError
from trading_ops.notifications.routes import Routes
from trading_ops.notifications.waiting import Waiting, dead_letters

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument
    from trading_ops.notifications.alert import Alert

DRAIN_S = 25.0  # what a drain takes before it begins nothing more: a sensor has a minute
SEND_S = 30.0  # what a channel may take, well below the claim of a minute


class Outbox:
    """Alerts are written here before they are sent, and each dedup key is told once on each channel.

    The write-ahead: state `pending`, then `sending`, then `sent`, `failed` or `dead`. What a killed process left in
    `sending` may have arrived; after a minute it is sent again and marked as a possible duplicate, unless the channel
    recognises repeats. What failed is tried again after a pause (`backoff`); `dead` is what was refused for good or
    failed too often: it is kept, listed and sent again by `retry`. Nothing is ever dropped.

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
        routes: Routes | None = None,
        backoff: Backoff | None = None,
        workers: int = 64,
        send_timeout_s: float = SEND_S,
        sends: bool = True,
    ) -> None:
        """`sends`: False where what is published is only written, for who publishes cannot wait; `drain` sends it."""
        self._store = store
        self._channels = channels
        self._now = now or (lambda: datetime.now(UTC))
        self._fallback = Fallback(fallback, fallback_exists) if fallback else None
        self._routes = routes or Routes()
        self._backoff = backoff or Backoff()
        self._workers, self._send_timeout_s = workers, send_timeout_s
        self._publish_s = DRAIN_S if sends else 0.0
        self._waiting = Waiting(store)
        self._said = threading.local()  # a call that outlived its minute goes on in its thread beside the next

    @property
    def channels(self) -> list[str]:
        """The names of the channels that are chosen."""
        return list(self._channels)

    @property
    def store_error(self) -> str | None:
        """Why this thread's last call had to do without the store; None: it did not."""
        return getattr(self._said, "store_error", None)

    def publish(self, alert: Alert) -> dict[str, Any]:
        """Store the alert, try each channel of its route at once, and return the delivery document.

        What was told before is not sent, an INFO in quiet hours is sent when they are over.
        Raises StoreUnavailable when neither the store nor the fallback can be written.
        """
        return self.publish_all([alert])[0]

    def publish_all(self, alerts: Sequence[Alert], within_s: float | None = None) -> list[dict[str, Any]]:
        """As `publish`, of many: all are stored before any is sent, and what `within_s` does not suffice for waits."""
        within_s = self._publish_s if within_s is None else within_s
        told: Told = {}
        self._said.store_error, until = None, time.monotonic() + within_s
        try:
            doubtful = not self._carry_over_what_is_known_of(alerts)
            return self._courier(doubtful).publish(alerts, told, self._routes, until)
        except InvalidRecord:
            raise
        except StoreError as error:
            if self._fallback is None:
                raise
            self._note(error)
            until = time.monotonic() + within_s  # the store may have taken all of the time
            try:
                return self._local_courier(self._fallback).publish(alerts, told, self._routes, until)
            except StoreError as local:
                raise StoreUnavailable(f"{error}; and the local outbox does not work: {local}") from local

    def drain(self, within_s: float = DRAIN_S, *, only: str | None = None) -> int:
        """Try everything that is due; the number of alerts that are now sent on all their channels.

        After `within_s` nothing more is begun; `only`: on this channel alone. What a damaged or absent store holds
        waits for the next time, and `store_error` says why.
        """
        self._said.store_error, until = None, time.monotonic() + within_s
        delivered, doubtful = 0, False
        if self._fallback:
            try:
                delivered, doubtful = self._drain_local(self._fallback, within_s, only)
            except (StoreError, FallbackError) as error:
                self._note(error)
                doubtful = True
        if time.monotonic() >= until:
            return delivered
        try:
            documents, damaged = self._waiting.documents()
            delivered += self._courier(doubtful).drain(documents, until, only)
            self._note(*damaged)
        except StoreError as error:
            self._note(error)
        return delivered

    def _drain_local(self, fallback: Fallback, within_s: float, only: str | None) -> tuple[int, bool]:
        """Carry over what can be, and try the rest from here, in a time of its own: the store may have taken as long.

        How many are now sent on all their channels, and whether the store may not know what was told of some.
        """
        errors = fallback.carry_over_all(self._store, self._now)
        left, damaged = fallback.uncarried()
        self._note(*errors, *damaged)
        left = [document for document in left if unsettled(document.body)]
        told = self._local_courier(fallback).drain(left, time.monotonic() + within_s, only) if left else 0
        # what was told of those is not known to the store, which may be back for the rest of the drain
        return told, bool(errors or damaged)

    def retry(self, key: str | None = None, channel: str | None = None) -> list[dict[str, Any]]:
        """Send what failed or was given up again, now; the deliveries concerned as they are afterwards.

        Of one alert or of all, on one channel or on all; what only says that others were given up is sent by its key
        alone, and so is what waits for the end of quiet hours. A person asked for it, so no pause is kept. Of all, what
        is damaged is skipped, and `store_error` names it. Raises LookupError for an unknown alert, and StoreError.
        """
        self._said.store_error = None
        _, damaged = self._carry_over(resting=[name for name in self._channels if channel not in (None, name)])
        self._note(*damaged)
        if key is None:
            found = [index.documents() for index in (self._waiting, dead_letters(self._store))]
            self._note(*(reason for _, reasons in found for reason in reasons))
            bodies = {document.key: document.body for documents, _ in found for document in documents}
            keys = [
                key
                for key, body in sorted(bodies.items(), key=lambda one: str(one[1]["created_at"]))
                if any(
                    name in self._channels
                    and channel in (None, name)
                    and not quiet_until(body["channels"][name], self._now())
                    for name in undelivered(body)
                )
                and not is_obituary(body)
            ]
        else:
            keys = [key]
        return self._courier(bool(damaged)).retry(keys, channel, quietly=key is None)

    def carry_over(self) -> int:
        """Give the audit store what was written without it, telling nobody; how many alerts it could not be given.

        Raises StoreError, also where a local alert cannot be read; the others are carried all the same.
        """
        left, damaged = self._carry_over()
        if damaged:
            raise StoreError("; ".join(damaged))
        return left

    def _carry_over(self, resting: Collection[str] | None = None) -> tuple[int, list[str]]:
        """How many alerts are left, and why others cannot be read; of rests only those of `resting`, None: all."""
        if self._fallback is None:
            return 0, []
        try:
            if resting is not None:
                self._fallback.end_rests(self._channels.keys() - set(resting), self._now)
            errors = self._fallback.carry_over_all(self._store, self._now)
            left, damaged = self._fallback.uncarried()
        except FallbackError as error:
            raise StoreError(str(error)) from error
        if errors and isinstance(errors[-1], StoreUnavailable):
            raise errors[-1]
        return len(left), [*damaged, *map(str, errors)]

    def deliveries(self) -> list[dict[str, Any]]:
        """Every alert with the state of each channel, oldest first; also what was not carried over yet.

        Raises StoreError while the store, or a local one, cannot be read: a part would pass for the whole.
        """
        newest = {d.key: dict(checked(d).body) for d in [*self._store.list_state(STATE), *whole(*self._local())]}
        return sorted(newest.values(), key=lambda body: body["created_at"])

    def delivery(self, key: str) -> dict[str, Any]:
        """One alert with the state of each channel; raises LookupError, and StoreError as `deliveries` does."""
        found = [document.body for document in whole(*self._local()) if document.key == key]
        document = self._store.get_state(STATE, key)
        if not found and document is None:
            raise unknown_alert(key)
        return dict(found[0] if found or document is None else checked(document).body)

    def waiting(self) -> int:
        """How many alerts some channel is still to be told of; raises StoreError as `deliveries` does."""
        return sum(bool(unsettled(body)) for body in whole(*self._indexed(self._waiting)))

    def undelivered(self) -> list[dict[str, Any]]:
        """The alerts that some channel has not got, whether chosen or not; raises StoreError as `deliveries` does."""
        known = whole(*self._indexed(self._waiting, dead_letters(self._store)))
        return [body for body in known if undelivered(body)]

    def dead(self) -> int:
        """How many alerts were given up on some channel; raises StoreError as `deliveries` does."""
        return len(whole(*self.dead_letters()))

    def dead_letters(self) -> tuple[list[dict[str, Any]], list[str]]:
        """The alerts that were given up on some channel, oldest first, and why others cannot be read.

        Raises StoreUnavailable.
        """
        bodies, unread = self._indexed(dead_letters(self._store))
        return [body for body in bodies if given_up(body)], unread

    def without_store(self) -> tuple[list[tuple[Alert, datetime]], list[str]]:
        """The alerts that the audit store does not know of yet and when they were told, oldest first.

        And why others cannot be read; raises StoreError.
        """
        try:
            return self._fallback.alerts() if self._fallback else ([], [])
        except FallbackError as error:
            raise StoreError(str(error)) from error

    def _indexed(self, *indices: Waiting) -> tuple[list[dict[str, Any]], list[str]]:
        """The alerts that an index names, and what was not carried over yet, oldest first; why others are not known."""
        local, damaged = self._local()
        found: list[StateDocument] = []
        for index in indices:
            documents, unread = index.documents()
            found, damaged = found + documents, damaged + unread
        newest = {d.key: dict(d.body) for d in [*found, *local]}
        return sorted(newest.values(), key=lambda body: body["created_at"]), damaged

    def _local(self) -> tuple[list[StateDocument], list[str]]:
        try:
            return self._fallback.uncarried() if self._fallback else ([], [])
        except FallbackError as error:
            return [], [str(error)]

    def _note(self, *problems: object) -> None:
        known = self.store_error.split("; ") if self.store_error else []
        said = [part for problem in problems for part in str(problem).split("; ")]
        self._said.store_error = "; ".join(dict.fromkeys([*known, *said])) or None

    def _carry_over_what_is_known_of(self, alerts: Sequence[Alert]) -> bool:
        """Whether the local store could be asked; else nobody knows whether an alert was told from there."""
        if self._fallback is None:
            return True
        try:
            self._fallback.carry_rests(self._store, self._now)
            damaged = self._fallback.carry_over_beside(self._store, alerts)
        except FallbackError as error:
            self._note(error)
            return False
        self._note(*damaged)
        return not damaged

    def _courier(self, doubtful: bool) -> Courier:
        return self._courier_of(self._store, self._waiting, doubtful=doubtful)

    def _local_courier(self, fallback: Fallback) -> Courier:
        return self._courier_of(fallback.store(), fallback.waiting(), doubtful=True)

    def _courier_of(self, store: AuditStore, waiting: Waiting, *, doubtful: bool) -> Courier:
        return Courier(
            store,
            waiting,
            self._channels,
            self._now,
            self._backoff,
            doubtful=doubtful,
            note=self._note,
            workers=self._workers,
            timeout_s=self._send_timeout_s,
        )
