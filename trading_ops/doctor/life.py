"""Do Dagster's daemon, the guard and the watchdog give signs of life, and does everything tick?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trading_ops.doctor.diagnosis import Diagnosis
from trading_ops.watchdog.rules import GUARD_SILENT, WATCHDOG_SILENT, beats, guard_overdue, overdue, shown

if TYPE_CHECKING:
    from trading_ops.services import Services

START = "Start it: make ui"


def heartbeat(services: Services) -> Iterator[Diagnosis]:
    """The daemon's last heartbeat, and what it says of schedules and sensors."""
    beat, now, stale_s = services.heartbeats.daemon(), services.now(), services.settings.watchdog_stale_s
    if beat is None:
        yield Diagnosis("heartbeat", "ok", "Dagster's daemon has not run here yet")
        return
    if not beats(beat, now, stale_s):
        yield Diagnosis("heartbeat", "warning", f"Dagster's daemon has not ticked since {shown(beat.at)}", START)
        return
    findings = overdue(beat, now, watching_since=beat.since, stale_s=stale_s)
    stopped = [ticker.name for ticker in beat.tickers if not ticker.running]
    if findings:
        found = "; ".join(f"{finding.what}: {finding.why}" for finding in findings)
        yield Diagnosis("heartbeat", "failed", found, findings[0].what_to_do)
    elif stopped:
        said = f"{', '.join(stopped)} stopped; the rest of {len(beat.tickers)} schedules and sensors ticks"
        yield Diagnosis("heartbeat", "ok", said)
    else:
        yield Diagnosis("heartbeat", "ok", f"all {len(beat.tickers)} schedules and sensors tick")


def guard(services: Services) -> Iterator[Diagnosis]:
    """Whether the guard's watcher looks, and sees the bot."""
    beat, now, stale_s = services.heartbeats.guard(), services.now(), services.settings.watchdog_stale_s
    if beat is None:
        yield Diagnosis("guard", "ok", "no watcher has run here yet; Dagster's sensor guards, while its daemon runs")
    elif not beats(beat, now, GUARD_SILENT.total_seconds()):
        said = f"its watcher has not looked since {shown(beat.at)}"
        yield Diagnosis("guard", "warning", said, f"{START}, which runs it beside the UI")
    elif findings := guard_overdue(beat, now, watching_since=beat.since, stale_s=stale_s):
        yield Diagnosis("guard", "failed", f"{findings[0].what}: {findings[0].why}", findings[0].what_to_do)
    else:
        stopped = "; ".join(f"{name} {state}" for name, state in sorted(beat.stopped.items()))
        yield Diagnosis("guard", "ok", f"its watcher looks; {stopped or 'no strategy is stopped'}")


def watchdog(services: Services) -> Iterator[Diagnosis]:
    """Whether somebody would notice if the daemon stopped."""
    last, beat = services.heartbeats.watchdog(), services.heartbeats.daemon()
    daemon_runs = beats(beat, services.now(), services.settings.watchdog_stale_s)
    pinged = "pings the address outside" if services.settings.watchdog_ping_url else "pings nobody outside"
    if beats(last, services.now(), WATCHDOG_SILENT.total_seconds()):
        yield Diagnosis("watchdog", "ok", f"it watches, and {pinged}")
    elif daemon_runs:
        said = f"it has not looked since {shown(last.at)}" if last else "none runs"
        advice = "Start it, or nobody hears when the daemon stops: trading-ops watchdog"
        yield Diagnosis("watchdog", "warning", said, advice)
    else:
        yield Diagnosis("watchdog", "ok", "none runs, and no daemon to be watched")
