"""How does an alert get from one store to the channels, each told once?"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict, StoreError, StoreUnavailable
from trading_ops.notifications.alert import Alert
from trading_ops.notifications.backoff import lies_ahead
from trading_ops.notifications.channel import Channel, concerns
from trading_ops.notifications.delivery import (
    DAMAGE,
    DEAD,
    FAILED,
    HISTORY,
    PENDING,
    SENT,
    STATE,
    checked,
    incident_of,
    is_critical,
    quiet_until,
    undelivered,
    unsettled,
)
from trading_ops.notifications.lanes import Lane, side_by_side
from trading_ops.notifications.order import Named, first_told, with_what_comes_first, without_what_is_over
from trading_ops.notifications.pace import Pace
from trading_ops.notifications.progress import change, read
from trading_ops.notifications.rests import Rests
from trading_ops.notifications.sending import Outcome, Send, Sending, Told
from trading_ops.notifications.waiting import dead_letters

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument
    from trading_ops.notifications.backoff import Backoff
    from trading_ops.notifications.routes import Routes
    from trading_ops.notifications.waiting import Waiting

UNCHOSEN = timedelta(days=1)
SHORT_WAIT_S = 5.0  # what is asked for and waited at once

_Incidents = dict[str, str | None]  # of each alert, by key, the incident


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
        note: Callable[[str], None],
        workers: int,
        timeout_s: float,
    ) -> None:
        """`note` is told what is skipped because it is damaged."""
        self._store = store
        self._waiting = waiting
        self._rests = Rests(store, now)
        self._channels = channels
        self._now = now
        self._note = note
        self._workers = workers
        self._timeout_s = timeout_s
        self._change = partial(change, store, now)
        self._sending = Sending(store, self._rests, channels, now, backoff, doubtful=doubtful)

    def publish(self, alerts: Sequence[Alert], told: Told, routes: Routes, until: float) -> list[dict[str, Any]]:
        """Write the alerts and try the channels that `routes` give them, in the order and until when `drain` does.

        `told` gets each channel that is told, and whether as a possible duplicate; who is in it needs nothing. Where
        what is known of an alert is damaged, StoreError names it when the others are told.
        """
        by_key = {alert.dedup_key: alert for alert in alerts}
        record = self._sending.record
        if records := [record(by_key[k], n, d) for k in by_key for n, d in dict(told.get(k, {})).items()]:
            self._store.append(HISTORY, records)
        bodies, damaged = self._known(by_key)
        open_ = [key for key in by_key if key not in damaged and (key not in bodies or unsettled(bodies[key]))]
        names = {key: self._concerned(by_key[key], routes) for key in open_}
        with self._store.together():
            of_incidents = any(by_key[key].incident and key not in bodies for key in open_)
            waiting = Named(self._waiting.named() if of_incidents else ())
            self._waiting.add(*open_)
            for key in open_:
                if key not in bodies:  # else told, or being told, by an earlier run: what is pending is tried below
                    bodies[key] = self._begin(by_key[key], names[key], told.get(key, {}), routes, waiting)
                waiting.add(key)
        wanted: dict[str, _Incidents] = {name: {} for name in self._channels}
        for key in _critical_first({key: bodies[key] for key in open_}):
            for name in names[key]:
                before = with_what_comes_first(self._store, key, bodies[key], [name])
                wanted[name].update(dict.fromkeys(before, by_key[key].incident))
        self._run(wanted, told, until)
        bodies.update(self._settled(dict.fromkeys([*open_, *(key for keys in wanted.values() for key in keys)])))
        if damaged:
            raise StoreError("; ".join(damaged.values()))
        return [dict(bodies[key]) for key in by_key]

    def _known(self, keys: Iterable[str]) -> tuple[dict[str, Mapping[str, Any]], dict[str, str]]:
        """What the store has of these alerts, and why some of that cannot be read."""
        bodies: dict[str, Mapping[str, Any]] = {}
        damaged: dict[str, str] = {}
        for key in keys:
            try:
                if document := self._store.get_state(STATE, key):
                    bodies[key] = checked(document).body
            except StoreUnavailable:
                raise
            except StoreError as error:
                damaged[key] = str(error)
        return bodies, damaged

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

    def drain(self, documents: Iterable[StateDocument], until: float, only: str | None = None) -> int:
        """Try what is due of these alerts, in their order; how many are now sent on all their channels.

        What is critical, and what else is told of its incident, goes before the rest.

        After `until`, a moment of `time.monotonic`, nothing more is begun; `only`: on this channel alone.
        """
        found = {document.key: self._unless_over(document).body for document in documents}
        incidents = {key: incident_of(body, key) for key, body in found.items()}
        bodies = {key: found[key] for key in _critical_first(found)}
        names = [name for name in self._channels if only in (None, name)]
        wanted = {n: {k: incidents[k] for k, body in bodies.items() if n in unsettled(body)} for n in names}
        self._run(wanted, {}, until)
        for key, body in bodies.items():
            self._give_up_on_channels_no_longer_chosen(key, body)
        return sum(not undelivered(body) for body in self._settled(bodies).values())

    def _unless_over(self, document: StateDocument) -> StateDocument:
        """A replay comes out of its order: the end may have been told since."""
        names = [name for name, delivery in document.body["channels"].items() if delivery.get("replayed")]
        return without_what_is_over(self._store, document, names) if names else document

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

        What a channel was told the end of is told there no more: it is superseded by that.
        Raises LookupError for no such alert.
        """

        def chosen(delivery: Mapping[str, Any]) -> bool:
            held = quietly and quiet_until(delivery, self._now())
            return delivery["state"] in (PENDING, FAILED, DEAD) and not held

        names = [name for name in self._channels if only in (None, name)]
        incidents: _Incidents = {}
        for key in keys:
            document = without_what_is_over(self._store, read(self._store, key), names)
            before = with_what_comes_first(self._store, key, document.body, names)
            incidents.update(dict.fromkeys(before, incident_of(document.body, key)))
        self._waiting.add(*incidents)
        for name in names:
            for key in incidents:
                self._change(key, name, PENDING, when=chosen, claim="")
            self._rests.end(name)
        self._waiting.add(*incidents)  # again: a drain that saw one dead in between has forgotten it
        self._run(dict.fromkeys(names, incidents), {})
        return [dict(body) for body in self._settled(incidents).values()]

    def _run(self, wanted: Mapping[str, _Incidents], told: Told, until: float | None = None) -> None:
        """Tell each channel what is `wanted` of it."""
        lanes: list[Lane] = []
        for name, incidents in wanted.items():
            if incidents:
                lanes.append(self._lane(name, Pace(incidents), lanes, told, until))
        side_by_side(lanes, workers=self._workers, timeout_s=self._timeout_s, together=self._store.together)

    def _settled(self, keys: Iterable[str]) -> dict[str, Mapping[str, Any]]:
        documents = [read(self._store, key) for key in keys]
        with self._store.together():
            self._waiting.settle(*documents)
        return {document.key: document.body for document in documents}

    def _sent(self, name: str, key: str, told: Told, *, again: bool = False) -> Send:
        """What becomes of one message; one that cannot be written or computed with is noted, and the next one goes on.

        Once it was sent the error is raised: who publishes must know.
        """
        try:
            return (yield from self._sending.send(name, key, told, again=again))
        except StoreUnavailable:
            raise
        except (StoreError, *DAMAGE, ArithmeticError) as error:
            if name in told.get(key, {}):
                raise
            why = str(error) if isinstance(error, StoreError) else type(error).__name__
            self._note(f"the alert {key!r} waits, for it cannot be sent over {name}: {why}")
            return Outcome()

    def _lane(self, name: str, pace: Pace, lanes: list[Lane], told: Told, until: float | None) -> Lane:
        """A channel's alerts one after the other; the rest is left for later where it hangs or asks for rest."""
        me = object()
        while (key := pace.next(me)) is not None:
            if until is not None and time.monotonic() >= until:
                return
            outcome = yield from self._sent(name, key, told)
            asked = outcome.asked_to_wait_s
            if asked is not None and asked <= SHORT_WAIT_S:
                if not pace.narrow(me):
                    continue
                if until is not None and time.monotonic() + asked >= until:
                    return
                yield partial(time.sleep, asked)
                if until_then := self._rests.until(name):  # other lanes were asked the same a moment later
                    late_s = (until_then - self._now()).total_seconds()
                    yield partial(time.sleep, min(max(late_s, 0.0), SHORT_WAIT_S))
                outcome = yield from self._sent(name, key, told, again=True)
            if outcome.is_away or outcome.asked_to_wait_s is not None:
                pace.stop()
                return
            if outcome.taken and pace.widen():
                lanes.append(self._lane(name, pace, lanes, told, until))


def _critical_first(bodies: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The keys of alerts in their order, but what is critical, and what else is told of its incident, first."""
    critical = {key for key, body in bodies.items() if is_critical(body, key)}
    incidents = {key: incident_of(body, key) for key, body in bodies.items()}
    urgent = {incidents[key] for key in critical} - {None}
    return sorted(bodies, key=lambda key: not (key in critical or incidents[key] in urgent))
