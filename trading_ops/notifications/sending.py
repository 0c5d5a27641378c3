"""How is one message sent over one channel, and what becomes of it?"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from trading_ops.audit.plain import plain
from trading_ops.audit.store import Entry, StoreError
from trading_ops.notifications.alert import Alert
from trading_ops.notifications.backoff import believed, clock_was_ahead, lies_ahead
from trading_ops.notifications.channel import Channel, DeliveryError
from trading_ops.notifications.delivery import DEAD, FAILED, HISTORY, SENDING, SENT, alert_of, history_key, quiet_until
from trading_ops.notifications.lanes import TookTooLong, told_of
from trading_ops.notifications.order import comes_first, handle_of_opening
from trading_ops.notifications.progress import change
from trading_ops.notifications.waiting import dead_letters

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore
    from trading_ops.notifications.backoff import Backoff
    from trading_ops.notifications.rests import Rests

CLAIM = timedelta(minutes=1)  # how long a process may take to send before another may take over

Told = dict[str, dict[str, bool]]  # of each alert the channels that were told, and whether as a possible duplicate


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of it: the channel took it, did not (`error`), or it was not its turn."""

    taken: bool = False
    error: Exception | None = None

    @property
    def is_away(self) -> bool:
        """Nobody was there in time."""
        return isinstance(self.error, TookTooLong) or (isinstance(self.error, DeliveryError) and self.error.unanswered)

    @property
    def asked_to_wait_s(self) -> float | None:
        """What the channel wants to be left alone for."""
        return self.error.retry_after_s if isinstance(self.error, DeliveryError) else None


Send = Generator[Callable[[], object], Exception | None, Outcome]


class Sending:
    """Sends what `store` holds; `doubtful` where nobody can look up whether it was told before. Raises StoreError."""

    def __init__(
        self,
        store: AuditStore,
        rests: Rests,
        channels: Mapping[str, Channel],
        now: Callable[[], datetime],
        backoff: Backoff,
        *,
        doubtful: bool,
    ) -> None:
        self._store = store
        self._rests = rests
        self._channels = channels
        self._now = now
        self._backoff = backoff
        self._doubtful = doubtful
        self._change = partial(change, store, now)

    def send(self, name: str, key: str, told: Told, *, again: bool = False) -> Send:
        """Claim a delivery, yield the call that sends it, and note what became of it.

        `again`: the moment that the channel asked for is over; it is the same attempt, before its pause is.
        """
        channel, claim = self._channels[name], uuid.uuid4().hex
        allowed = partial(self._may_send, name, again=again)
        document = self._change(key, name, SENDING, when=allowed, claim=claim, attempt=not again)
        if document is None:
            return Outcome()
        before = document.body["channels"][name]
        attempts = before["attempts"] + (not again)
        try:
            alert = alert_of(document.body, key)
        except StoreError as damaged:
            unreadable = DeliveryError(str(damaged), permanent=True)
            self._note_failure(key, name, claim, attempts, Outcome(error=unreadable))
            return Outcome(error=unreadable)
        doubt = self._doubtful or before["state"] == SENDING or bool(before.get("in_doubt"))
        duplicate = doubt and not channel.deduplicates
        opening = handle_of_opening(self._store, alert, name)
        handles: list[str | None] = []

        def send() -> None:
            handles.append(channel.send(alert, possible_duplicate=duplicate, opening=opening))
            told.setdefault(key, {})[name] = duplicate  # at once: the store may not let us come back to it

        outcome = Outcome(error=(yield send))
        if outcome.error is not None:
            self._note_failure(key, name, claim, attempts, outcome)
            return outcome
        self._store.append(HISTORY, [self.record(alert, name, duplicate)])
        self._change(key, name, SENT, when=lambda delivery: True, claim=claim, handle=plain(handles[0]))
        return Outcome(taken=True)

    def record(self, alert: Alert, name: str, possible_duplicate: bool) -> Entry:
        """What is remembered of a delivery."""
        body = {"channel": name, "alert": alert.to_document(), "possible_duplicate": possible_duplicate}
        return Entry(self._now().date().isoformat(), history_key(alert.dedup_key, name), body)

    def _may_send(self, name: str, delivery: Mapping[str, Any], *, again: bool) -> bool:
        """Whether nobody has sent it, nobody is at it, and it is due."""
        state = delivery["state"]
        if state == SENDING:
            return not lies_ahead(datetime.fromisoformat(delivery["at"]) + CLAIM, self._now(), 2 * CLAIM)
        if state in (SENT, DEAD):
            return False
        if self._rests.until(name) or comes_first(self._store, name, delivery):
            return False
        if delivery.get("quiet_until") and quiet_until(delivery, self._now()):
            return False
        if again or not (next_at := delivery.get("next_at")):
            return True
        now = self._now()
        if "at" in delivery and clock_was_ahead(datetime.fromisoformat(delivery["at"]), now):
            return True
        return not lies_ahead(datetime.fromisoformat(next_at), now)

    def _note_failure(self, key: str, name: str, claim: str, attempts: int, outcome: Outcome) -> None:
        def ours(delivery: Mapping[str, Any]) -> bool:
            return delivery["claim"] == claim  # who took over after a minute has the last word

        error, asked = outcome.error, outcome.asked_to_wait_s
        reason = plain(told_of(error)) if error else ""
        state, wait_s = FAILED, self._backoff.wait_s(attempts, asked)
        if asked is not None:
            self._rests.keep(name, self._now() + timedelta(seconds=believed(asked)))
        if isinstance(error, DeliveryError) and error.permanent:
            state = DEAD
        elif attempts >= self._backoff.most_attempts:
            state, reason = DEAD, f"{reason}; given up after {attempts} attempts"
        if state == DEAD:
            dead_letters(self._store).add(key)  # before it is one, as with what waits
        in_doubt = error.in_doubt if isinstance(error, DeliveryError) else True
        self._change(key, name, state, when=ours, claim=claim, error=reason, wait_s=wait_s, in_doubt=in_doubt)
