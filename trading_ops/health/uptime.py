"""How much of the time was a component up, as far as anybody looked?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from trading_ops.health.rules import Status

SLOT = timedelta(minutes=15)  # what one check stands for
HOUR = timedelta(hours=1)
WINDOWS = {"24 h": timedelta(hours=24), "7 d": timedelta(days=7), "30 d": timedelta(days=30)}
STRIP_HOURS = 24
LEGEND = "🟩 up 🟨 degraded 🟥 down ⬜ unknown; an hour each, its worst check"

Checks = Mapping[datetime, Status]  # how a component was, by the slot in which somebody looked


@dataclass(frozen=True, slots=True)
class Uptime:
    """`pct` of the checks that know: 100 * up / (up + down), None where none does; `known_pct` of all there should be.

    Degraded is up. A check that never ran is unknown, neither up nor down.
    """

    pct: float | None
    known_pct: float

    def __str__(self) -> str:
        """
        >>> str(Uptime(99.5, 100.0)), str(Uptime(100.0, 25.0)), str(Uptime(None, 0.0))
        ('99.50 %', '100.00 % (25 % known)', '-')
        """
        if self.pct is None:
            return "-"
        known = "" if self.known_pct >= 99.95 else f" ({self.known_pct:.2g} % known)"
        return f"{self.pct:.2f} %{known}"


def slot_of(moment: datetime) -> datetime:
    """The quarter of an hour a moment lies in."""
    return moment - (moment - datetime(1970, 1, 1, tzinfo=moment.tzinfo)) % SLOT


def by_slot(looks: Iterable[tuple[datetime, Status]]) -> dict[datetime, Status]:
    """The worst of each slot's looks."""
    found: dict[datetime, Status] = {}
    for moment, status in looks:
        slot = slot_of(moment)
        found[slot] = max(status, found.get(slot, status), key=lambda seen: seen.rank)
    return found


def uptime(checks: Checks, until: datetime, window: timedelta) -> Uptime:
    """The uptime over the window that ends with the slot of `until`, which counts."""
    last = slot_of(until)
    seen = [_is_up(status) for slot, status in checks.items() if last - window < slot <= last]
    up, known = seen.count(True), len(seen) - seen.count(None)
    return Uptime(100 * up / known if known else None, 100 * known / (window // SLOT))


def strip(checks: Checks, until: datetime, hours: int = STRIP_HOURS) -> str:
    """A square an hour, oldest first; the last one ends with the slot of `until`."""
    last = slot_of(until)
    squares = ""
    for back in range(hours - 1, -1, -1):
        end = last - back * HOUR
        slots = [checks[slot] for i in range(4) if (slot := end - i * SLOT) in checks]
        known = [status for status in slots if _is_up(status) is not None]
        worst = max(known, key=lambda status: status.rank, default=Status.UNKNOWN)
        squares += _SQUARES.get(worst, "🟥")
    return squares


def _is_up(status: Status) -> bool | None:
    if status in (Status.UNKNOWN, Status.NOT_CONFIGURED):
        return None
    return status in (Status.HEALTHY, Status.DEGRADED)


_SQUARES = {Status.HEALTHY: "🟩", Status.DEGRADED: "🟨", Status.UNKNOWN: "⬜", Status.NOT_CONFIGURED: "⬜"}
