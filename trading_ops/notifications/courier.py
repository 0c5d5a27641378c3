"""How does an alert get from one store to the channels, each told once?"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict, Entry
from trading_ops.notifications.alert import Alert
from trading_ops.notifications.backoff import believed
from trading_ops.notifications.channel import Channel, DeliveryError, concerns
from trading_ops.notifications.delivery import (
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
    unsettled,
)
from trading_ops.notifications.lanes import Lane, TookTooLong, side_by_side, told_of
from trading_ops.notifications.order import (
    AFTER,
    Named,
    comes_first,
    first_told,
    handle_of_opening,
    with_what_comes_first,
)
from trading_ops.notifications.pace import Pace
from trading_ops.notifications.progress import change, read
from trading_ops.notifications.rests import Rests, lies_ahead
from trading_ops.notifications.waiting import dead_letters

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument
    from trading_ops.notifications.backoff import Backoff
    from trading_ops.notifications.routes import Routes
    from trading_ops.notifications.waiting import Waiting

CLAIM = timedelta(minutes=1)  # how long a process may take to send before another may take over
UNCHOSEN = timedelta(days=1)
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
        self._change = partial(change, store, now)

    def publish(self, alerts: Sequence[Alert], told: Told, routes: Routes, until: float) -> list[dict[str, Any]]:
        """Write the alerts and try the channels that `routes` give them, until then (see `drain`); the deliveries.

        `told` gets each channel that is told, and whether as a possible duplicate; who is in it needs nothing.
        """
        by_key = {alert.dedup_key: alert for alert in alerts}
        self._remember([self._record(by_key[k], n, d) for k in by_key for n, d in dict(told.get(k, {})).items()])
        known = {key: self._store.get_state(STATE, key) for key in by_key}
        bodies: dict[str, Mapping[str, Any]] = {key: document.body for key, document in known.items() if document}
        open_ = [key for key in by_key if key not in bodies or unsettled(bodies[key])]
        names = {key: self._concerned(alert, routes) for key, alert in by_key.items()}
        with self._store.together():
            of_incidents = any(by_key[key].incident and key not in bodies for key in open_)
            waiting = Named(self._waiting.named() if of_incidents else ())
            self._waiting.add(*open_)
            for key in open_:
                if key not in bodies:  # else told, or being told, by an earlier run: what is pending is tried below
                    bodies[key] = self._begin(by_key[key], names[key], told.get(key, {}), routes, waiting)
                waiting.add(key)
        wanted: dict[str, dict[str, Mapping[str, Any]]] = {name: {} for name in self._channels}
        for key in open_:
            for name in names[key]:
                before = bodies[key]["channels"].get(name, {}).get(AFTER, [])
                wanted[name].update(dict.fromkeys([*before, key], bodies[key]))  # they are of one incident
        self._run(wanted, told, until)
        bodies.update(self._settled(dict.fromkeys([*open_, *(key for keys in wanted.values() for key in keys)])))
        return [dict(bodies[key]) for key in by_key]

    def _begin(
        self, alert: Alert, names: Sequence[str], done: Collection[str], routes: Routes, waiting: Named
    ) -> dict[str, Any]:
        """Write an alert, and what of its incident each channel is told first; what was `done` is sent already."""
        now = self._now()
        quiet = routes.quiet_until(alert, now)
        before = first_told(self._store, alert, names, waiting, quiet=quiet is not None)
        new = {"state": PENDING, "attempts": 0, **({"quiet_until": quiet.isoformat()} if quiet else {})}
        channels = {name: {**new, **before[name], **({"state": SENT} if name in done else {})} for name in names}
        body = {"alert": alert.to_document(), "created_at": now.isoformat(), "channels": channels}
        with suppress(Conflict):  # another process writes it too
            self._store.put_state(STATE, alert.dedup_key, body, expected_version=0)
        return body

    def _concerned(self, alert: Alert, routes: Routes) -> list[str]:
        return [name for name in routes.channels_of(alert, self._channels) if concerns(self._channels[name], alert)]

    def drain(self, documents: Iterable[StateDocument], until: float) -> int:
        """Try what is due of these alerts, in their order; how many are now sent on all their channels.

        After `until`, a moment of `time.monotonic`, nothing more is begun.
        """
        bodies = {document.key: document.body for document in documents}
        wanted = {n: {k: body for k, body in bodies.items() if n in unsettled(body)} for n in self._channels}
        self._run(wanted, {}, until)
        for key, body in bodies.items():
            self._give_up_on_channels_no_longer_chosen(key, body)
        return sum(not undelivered(body) for body in self._settled(bodies).values())

    def _give_up_on_channels_no_longer_chosen(self, key: str, body: Mapping[str, Any]) -> None:
        """As what fails for a day: until then a channel may be missing by mistake."""
        for name in set(unsettled(body)) - self._channels.keys():
            if lies_ahead(datetime.fromisoformat(body["created_at"]) + UNCHOSEN, self._now(), 2 * UNCHOSEN):
                continue
            dead_letters(self._store).add(key)
            why = "the channel is not configured any more"
            self._change(key, name, DEAD, when=lambda d: d["state"] not in (SENT, DEAD), claim="", error=why)

    def retry(self, keys: Sequence[str], only: str | None = None, *, quietly: bool = False) -> list[dict[str, Any]]:
        """Try what waits, failed or was given up, now and from the beginning; `quietly`: but not in quiet hours.

        Raises LookupError for no such alert.
        """

        def chosen(delivery: Mapping[str, Any]) -> bool:
            held = quietly and quiet_until(delivery, self._now())
            return delivery["state"] in (PENDING, FAILED, DEAD) and not held

        names = [name for name in self._channels if only in (None, name)]
        bodies: dict[str, Mapping[str, Any]] = {}
        for key in keys:
            bodies.update(with_what_comes_first(self._store, read(self._store, key), names))
        self._waiting.add(*bodies)
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
        documents = [read(self._store, key) for key in keys]
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
            if _is_away(error) or _asked_to_wait(error) is not None:
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
        duplicate = doubt and not channel.deduplicates
        opening = handle_of_opening(self._store, alert, name)
        handles: list[str | None] = []

        def send() -> None:
            handles.append(channel.send(alert, possible_duplicate=duplicate, opening=opening))
            told.setdefault(key, {})[name] = duplicate  # at once: the store may not let us come back to it

        error = yield send
        if error is not None:
            self._note_failure(key, name, claim, attempts, error)
            return error
        self._remember([self._record(alert, name, duplicate)])
        self._change(key, name, SENT, when=lambda delivery: True, claim=claim, handle=handles[0])
        return None

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
        next_at = delivery.get("next_at")
        return again or not next_at or not lies_ahead(datetime.fromisoformat(next_at), self._now())

    def _note_failure(self, key: str, name: str, claim: str, attempts: int, error: Exception) -> None:
        def ours(delivery: Mapping[str, Any]) -> bool:
            return delivery["claim"] == claim  # who took over after a minute has the last word

        reason = told_of(error)
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


def _is_away(error: Exception | None) -> bool:
    return isinstance(error, TookTooLong) or (isinstance(error, DeliveryError) and error.unanswered)


def _asked_to_wait(error: Exception | None) -> float | None:
    return error.retry_after_s if isinstance(error, DeliveryError) else None
