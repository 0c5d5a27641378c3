"""Is what the bot shows its present, so that it may start something?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from trading_ops.guard.sanity import AHEAD

if TYPE_CHECKING:
    from trading_ops.bot.client import Calendar

STILL = timedelta(seconds=60)  # what a snapshot of the account may stand while the clock goes on
BEHIND = timedelta(hours=2)  # what the clock of a bot that lives by hourly bars may be behind
LIVE = "live"
OF_THE_PAST = ("recorded", "replayed")  # prices that end by their nature: nobody trades, and nobody is called


@dataclass(slots=True)
class Sight:
    """How the bot's snapshots of the account (`as_of`) move against its clock, from look to look.

    `since`: since when they are not its present, None: they are. A bot that tells no clock is held to ours.
    """

    since: datetime | None = None
    _as_of: datetime | None = None
    _moved: tuple[datetime, datetime] | None = None  # when `as_of` moved last: by the bot's clock, by ours
    _apart: timedelta = timedelta(0)

    def stale(self, as_of: datetime, calendar: Calendar, label: str, now: datetime, *, asked: bool) -> str | None:
        """Why what is shown may not act; None where it is the bot's present. `asked`: the calendar is of this look.

        The present is: the calendar is live, the bot's clock is ours (within 5 minutes; within 2 hours where its prices
        are not live ones), and `as_of` is within 5 minutes of that clock and moves at least once a minute.
        """
        clock = calendar.now or now
        if as_of != self._as_of or self._moved is None:
            self._as_of, self._moved = as_of, (clock, now)
        if asked or calendar.now is None:  # a clock that was told before has gone on since
            self._apart = as_of - clock
        why, since = None, now
        if not calendar.live:
            why = f"the bot's data ends at {as_of:%Y-%m-%d %H:%M} UTC"
        elif abs(now - clock) > (AHEAD if label == LIVE else BEHIND):
            why = f"the bot's clock is {_distance(clock - now)} ours"
        elif abs(self._apart) > AHEAD:
            why = f"the bot's account (as_of) is {_distance(self._apart)} its clock"
        elif clock - self._moved[0] >= STILL:
            why, since = f"the bot's account stands still since {as_of:%Y-%m-%d %H:%M:%S} UTC (as_of)", self._moved[1]
        self.since = None if why is None else self.since or since
        return None if why is None else f"{why}: nothing starts"


def _distance(apart: timedelta) -> str:
    minutes = round(abs(apart) / timedelta(minutes=1))
    return f"{minutes} minutes {'ahead of' if apart > timedelta(0) else 'behind'}"
