"""How does an alert get from one store to the channels, each told once?"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict, Entry, StoreError, StoreUnavailable
from trading_ops.notifications.alert import Alert
from trading_ops.notifications.backoff import believed
from trading_ops.notifications.channel import Channel, DeliveryError, concerns
from trading_ops.notifications.delivery import (
    CARRIED,
    DEAD,
    FAILED,
    HISTORY,
    PENDING,
    SENDING,
    SENT,
    STATE,
    history_key,
    quiet_until,
    undelivered,
    unknown_alert,
    unsettled,
)
from trading_ops.notifications.lanes import Lane, TookTooLong, side_by_side
from trading_ops.notifications.pace import Pace
from trading_ops.notifications.rests import Rests, lies_ahead
from trading_ops.notifications.waiting import dead_letters

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument
    from trading_ops.notifications.backoff import Backoff
    from trading_ops.notifications.routes import Routes
    from trading_ops.notifications.waiting import Waiting

CLAIM = timedelta(minutes=1)  # how long a process may take to send before another may take over
SHORT_WAIT_S = 5.0  # what is asked for and waited at once

Told = dict[str, dict[str, bool]]  # of each alert the channels that were told, and whether as a possible duplicate
_Send = Generator[Callable[[], object], Exception | None, Exception | None]


class Courier:
    """Takes alerts from `store` to `channels`; `doubtful` where nobody can look up whether they were told before.

    The write-ahead of each channel: `pending`, then `sending`, then `sent`, `failed` or `dead`. Channels are tried side
    by side; the store is only touched by the caller's thread. A channel that asked for rest gets nothing before it is
    over, from any process. Raises StoreError.
    """

    def __init__(
        self,
        store: AuditStore,
        waiting: Waiting,
        channels: Mapping[str, Channel],
        now: Callable[[], datetime],
        backoff: Backoff,
        *,
        doubtful: bool,
        workers: int,
        timeout_s: float,
    ) -> None:
        self._store = store
        self._waiting = waiting
        self._rests = Rests(store, now)
        self._channels = channels
        self._now = now
        self._backoff = backoff
        self._doubtful = doubtful
        self._workers = workers
        self._timeout_s = timeout_s

    def publish(self, alerts: Sequence[Alert], told: Told, routes: Routes, until: float) -> list[dict[str, Any]]:
        """Write the alerts and try the channels that `routes` give them, until then (see `drain`); the deliveries.

        `told` gets each channel that is told, and whether as a possible duplicate; who is in it needs nothing.
        """
        by_key = {alert.dedup_key: alert for alert in alerts}
        self._remember([self._record(by_key[k], n, d) for k in by_key for n, d in told.get(k, {}).items()])
        known = {key: self._store.get_state(STATE, key) for key in by_key}
        bodies: dict[str, Mapping[str, Any]] = {key: document.body for key, document in known.items() if document}
        open_ = [key for key in by_key if key not in bodies or unsettled(bodies[key])]
        names = {key: self._concerned(alert, routes) for key, alert in by_key.items()}
        with self._store.together():
            self._waiting.add(*open_)
            for key in open_:
                now = self._now()
                quiet = routes.quiet_until(by_key[key], now)
                new = {"state": PENDING, "attempts": 0, **({"quiet_until": quiet.isoformat()} if quiet else {})}
                done = told.get(key, {})
                body = {
                    "alert": by_key[key].to_document(),
                    "created_at": now.isoformat(),
                    "channels": {name: {**new, "state": SENT} if name in done else new for name in names[key]},
                }
                with suppress(Conflict):  # told, or being told, by an earlier run: what is still pending is tried below
                    self._store.put_state(STATE, key, body, expected_version=0)
                bodies.setdefault(key, body)
        wanted = {name: {key: bodies[key] for key in open_ if name in names[key]} for name in self._channels}
        self._run(wanted, told, until)
        bodies.update(self._settled(open_))
        return [dict(bodies[key]) for key in by_key]

    def _concerned(self, alert: Alert, routes: Routes) -> list[str]:
        return [name for name in routes.channels_of(alert, self._channels) if concerns(self._channels[name], alert)]

    def drain(self, documents: Iterable[StateDocument], until: float) -> int:
        """Try what is due of these alerts, in their order; how many are now sent on all their channels.

        After `until`, a moment of `time.monotonic`, nothing more is begun.
        """
        bodies = {document.key: document.body for document in documents}
        wanted = {n: {k: body for k, body in bodies.items() if n in unsettled(body)} for n in self._channels}
        self._run(wanted, {}, until)
        return sum(not undelivered(body) for body in self._settled(bodies).values())

    def retry(self, keys: Sequence[str], only: str | None = None, *, quietly: bool = False) -> list[dict[str, Any]]:
        """Try what waits, failed or was given up, now and from the beginning; `quietly`: but not in quiet hours.

        Raises LookupError for no such alert.
        """

        def chosen(delivery: Mapping[str, Any]) -> bool:
            held = quietly and quiet_until(delivery, self._now())
            return delivery["state"] in (PENDING, FAILED, DEAD) and not held

        bodies = {key: self._read(key).body for key in keys}
        self._waiting.add(*bodies)
        names = [name for name in self._channels if only in (None, name)]
        for name in names:
            for key in bodies:
                self._change(key, name, PENDING, when=chosen, claim="")
            self._rests.end(name)
        self._waiting.add(*bodies)  # again: a drain that saw one dead in between has forgotten it
        self._run(dict.fromkeys(names, bodies), {})
        return [dict(body) for body in self._settled(bodies).values()]

    def _run(
        self, wanted: Mapping[str, Mapping[str, Mapping[str, Any]]], told: Told, until: float | None = None
    ) -> None:
        """Tell each channel what is `wanted` of it, by key."""
        lanes: list[Lane] = []
        for name, bodies in wanted.items():
            if bodies:
                lanes.append(self._lane(name, Pace(bodies), lanes, told, until))
        side_by_side(lanes, workers=self._workers, timeout_s=self._timeout_s, together=self._store.together)

    def _settled(self, keys: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        documents = [self._read(key) for key in keys]
        with self._store.together():
            self._waiting.settle(*documents)
        return {document.key: document.body for document in documents}

    def _lane(self, name: str, pace: Pace, lanes: list[Lane], told: Told, until: float | None) -> Lane:
        """A channel's alerts one after the other; the rest is left for later where it hangs or asks for rest."""
        me = object()
        while (key := pace.next(me)) is not None:
            if until is not None and time.monotonic() >= until:
                return
            error = yield from self._send(name, key, told)
            asked = _asked_to_wait(error)
            if asked is not None and asked <= SHORT_WAIT_S:
                if not pace.narrow(me):
                    continue
                if until is not None and time.monotonic() + asked >= until:
                    return
                yield partial(time.sleep, asked)
                if until_then := self._rests.until(name):  # other lanes were asked the same a moment later
                    late_s = (until_then - self._now()).total_seconds()
                    yield partial(time.sleep, min(max(late_s, 0.0), SHORT_WAIT_S))
                error = yield from self._send(name, key, told, again=True)
            if isinstance(error, TookTooLong) or _asked_to_wait(error) is not None:
                pace.stop()
                return
            if error is None and pace.widen():
                lanes.append(self._lane(name, pace, lanes, told, until))

    def _send(self, name: str, key: str, told: Told, *, again: bool = False) -> _Send:
        """Claim a delivery, yield the call that sends it, and note what became of it; why it failed, if it did.

        `again`: the moment that the channel asked for is over; it is the same attempt, before its pause is.
        """
        channel, claim = self._channels[name], uuid.uuid4().hex
        allowed = partial(self._may_send, name, again=again)
        document = self._change(key, name, SENDING, when=allowed, claim=claim, attempt=not again)
        if document is None:
            return None
        before = document.body["channels"][name]
        attempts = before["attempts"] + (not again)
        try:
            alert = Alert.from_document(document.body["alert"])
        except (LookupError, TypeError, ValueError, AttributeError) as wrong:
            unreadable = DeliveryError(f"the stored alert cannot be read ({type(wrong).__name__})", permanent=True)
            self._note_failure(key, name, claim, attempts, unreadable)
            return unreadable
        doubt = self._doubtful or before["state"] == SENDING or bool(before.get("in_doubt"))
        duplicate = doubt and not getattr(channel, "deduplicates", False)
        opening = self._opening(alert, name)
        handles: list[str | None] = []
        error = yield lambda: handles.append(channel.send(alert, possible_duplicate=duplicate, opening=opening))
        if error is not None:
            self._note_failure(key, name, claim, attempts, error)
            return error
        told.setdefault(key, {})[name] = duplicate
        self._remember([self._record(alert, name, duplicate)])
        self._change(key, name, SENT, when=lambda delivery: True, claim=claim, handle=handles[0])
        return None

    def _opening(self, alert: Alert, name: str) -> str | None:
        """What the channel calls the message that opened the alert's incident, None where that is not known."""
        if alert.opening is None:
            return None
        try:
            document = self._store.get_state(STATE, alert.opening)
        except StoreUnavailable:
            raise
        except StoreError:  # it is damaged: the alert is told by itself
            return None
        return document.body["channels"].get(name, {}).get("handle") if document else None

    def _may_send(self, name: str, delivery: Mapping[str, Any], *, again: bool) -> bool:
        """Whether nobody has sent it, nobody is at it, and it is due."""
        state = delivery["state"]
        if state == SENDING:
            return self._now() - datetime.fromisoformat(delivery["at"]) >= CLAIM
        if state in (SENT, DEAD):
            return False
        if self._rests.until(name):
            return False
        if quiet_until(delivery, self._now()):
            return False
        next_at = delivery.get("next_at")
        return again or not next_at or not lies_ahead(datetime.fromisoformat(next_at), self._now())

    def _note_failure(self, key: str, name: str, claim: str, attempts: int, error: Exception) -> None:
        def ours(delivery: Mapping[str, Any]) -> bool:
            return delivery["claim"] == claim  # who took over after a minute has the last word

        # of an error that no channel describes only the type is kept: its text may hold a secret
        known = isinstance(error, DeliveryError | TookTooLong)
        reason = str(error) if known else type(error).__name__
        asked = _asked_to_wait(error)
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

    def _record(self, alert: Alert, name: str, possible_duplicate: bool) -> Entry:
        body = {"channel": name, "alert": alert.to_document(), "possible_duplicate": possible_duplicate}
        return Entry(self._now().date().isoformat(), history_key(alert.dedup_key, name), body)

    def _remember(self, entries: Sequence[Entry]) -> None:
        if entries:
            self._store.append(HISTORY, entries)

    def _change(
        self,
        key: str,
        name: str,
        state: str,
        *,
        when: Callable[[Mapping[str, Any]], bool],
        claim: str,
        error: str | None = None,
        wait_s: float = 0.0,
        in_doubt: bool = False,
        attempt: bool = True,
        handle: str | None = None,
    ) -> StateDocument | None:
        """Compare-and-set one channel's state where `when` allows it; as it was before, None where not allowed."""
        while True:
            document = self._read(key)
            before = document.body["channels"].get(name)
            if before is None or not when(before):
                return None
            now = self._now()
            after = {**before, "state": state, "at": now.isoformat(), "claim": claim, "error": error}
            after["attempts"] = 0 if state == PENDING else before["attempts"] + (state == SENDING and attempt)
            if state == PENDING:
                after.pop("quiet_until", None)  # a person wants it told now
            after["next_at"] = (now + timedelta(seconds=wait_s)).isoformat() if state == FAILED else None
            if handle is not None:
                after["handle"] = handle
            after["in_doubt"] = in_doubt or bool(before.get("in_doubt"))
            body = {**document.body, "channels": {**document.body["channels"], name: after}}
            body.pop(CARRIED, None)  # there is news to carry
            with suppress(Conflict):  # another channel of this alert moved on in between: look again
                self._store.put_state(STATE, key, body, expected_version=document.version)
                return document

    def _read(self, key: str) -> StateDocument:
        document = self._store.get_state(STATE, key)
        if document is None:
            raise unknown_alert(key)
        return document


def _asked_to_wait(error: Exception | None) -> float | None:
    return error.retry_after_s if isinstance(error, DeliveryError) else None
