"""What does the watchdog do at each look? It reads, judges, tells, sends what waits, and pings who watches it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from trading_ops.audit.store import StoreError
from trading_ops.files import FileNotWritten
from trading_ops.notifications.channel import DeliveryError
from trading_ops.watchdog.heartbeat import (
    DaemonHeartbeat,
    GuardHeartbeat,
    Heartbeat,
    Heartbeats,
    HeartbeatUnreadable,
    Outage,
    alive_since,
)
from trading_ops.watchdog.outages import tell
from trading_ops.watchdog.rules import Finding, beats, ended, guard_ended, guard_overdue, overdue

if TYPE_CHECKING:
    from trading_ops.notifications.desk import IncidentDesk
    from trading_ops.notifications.outbox import Outbox

log = logging.getLogger(__name__)
_Kind = TypeVar("_Kind", bound=Heartbeat)


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found."""

    heartbeat: DaemonHeartbeat | None
    findings: list[Finding]
    guard: GuardHeartbeat | None = None
    guard_why: str = ""  # what keeps the guard's heartbeat from being read


def look(
    heartbeats: Heartbeats,
    now: datetime,
    *,
    watching_since: datetime,
    stale_s: float,
    guard_since: datetime | None = None,
) -> Look:
    """What the heartbeats of the daemon and of the guard's watcher say now; nobody is told.

    `guard_since`: since when a watcher is expected to run, None: none is.
    """
    heartbeat, why = _read(heartbeats.daemon)
    guard, guard_why = _read(heartbeats.guard)
    findings = overdue(heartbeat, now, watching_since=watching_since, stale_s=stale_s, why=why)
    findings += guard_overdue(
        guard, now, watching_since=watching_since, stale_s=stale_s, why=guard_why, expected_since=guard_since
    )
    return Look(heartbeat, findings, guard, guard_why)


def _read(heartbeat: Callable[[], _Kind | None]) -> tuple[_Kind | None, str]:
    """The heartbeat, and what keeps it from being read."""
    try:
        return heartbeat(), ""
    except HeartbeatUnreadable as error:
        return None, f"{error}."


class Watchdog:
    """Looks again and again from a process of its own; what it was told survives in its own heartbeat."""

    def __init__(
        self,
        heartbeats: Heartbeats,
        desk: IncidentDesk,
        outbox: Outbox,
        now: Callable[[], datetime],
        *,
        stale_s: float,
        ping: Callable[[], None] | None = None,
        expect_guard: bool = False,
    ) -> None:
        self._heartbeats, self._desk, self._outbox, self._now = heartbeats, desk, outbox, now
        self._stale_s, self._ping = stale_s, ping
        self._guard_since = now() if expect_guard else None  # not since an earlier process: it may not have known one
        try:
            self._last = heartbeats.watchdog()
        except HeartbeatUnreadable as error:
            log.warning("%s; it is written anew", error)
            self._last = None

    def look(self) -> Look:
        """One look, with everything that follows from it; what cannot be told is tried again at the next one."""
        began = self._now()
        since = alive_since(self._last, began, self._stale_s)
        found = look(
            self._heartbeats, began, watching_since=since, stale_s=self._stale_s, guard_since=self._guard_since
        )
        fresh = found.heartbeat if beats(found.heartbeat, began, self._stale_s) else None
        known = self._last.open if self._last else {}
        over = ended(known, fresh, found.findings) if fresh else set()
        if not found.guard_why:
            over |= guard_ended(known, found.guard, found.findings, expected=self._guard_since is not None)
        try:
            tell(self._desk, known, found.findings, over, lambda outages: self._note(since, outages))
        except StoreError as error:
            log.error("nobody could be told: %s", error)
        if found.findings:  # it may be that nobody else sends what waits, and what is due
            self._desk.tick()
            self._outbox.drain()
        outages = self._last.open if self._last else {}
        if fresh and not outages:
            self._ping_outside()
        self._note(since, outages)  # at the end: telling may take a while
        return found

    def _note(self, since: datetime, outages: Mapping[str, Outage]) -> None:
        self._last = Heartbeat(at=self._now(), since=since, open=outages)
        try:
            self._heartbeats.write(self._last)
        except FileNotWritten as error:  # a full disk is no reason to stop watching
            log.error("%s", error)

    def _ping_outside(self) -> None:
        if self._ping is None:
            return
        try:
            self._ping()
        except DeliveryError as error:
            log.warning("the ping was not taken: %s", error)
