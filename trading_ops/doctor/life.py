"""Do Dagster's daemon and the watchdog give signs of life, and does everything tick?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trading_ops.doctor.diagnosis import Diagnosis
from trading_ops.watchdog.rules import WATCHDOG_SILENT, beats, overdue, shown

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
