"""When is an alert that a channel did not take sent again, and when is it given up?"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

LONGEST_RETRY_AFTER_S = 7 * 86_400.0  # a receiver that asks for more is believed this much
CLOCKS_DIFFER = timedelta(minutes=1)  # those of two machines are not quite the same
LONGEST_PAUSE = timedelta(seconds=LONGEST_RETRY_AFTER_S) + CLOCKS_DIFFER


def believed(retry_after_s: float) -> float:
    """Seconds of rest that a receiver gets when it asks for these.

    >>> believed(60.0), believed(-1.0), believed(1e12)
    (60.0, 0.0, 604800.0)
    """
    return min(max(retry_after_s, 0.0), LONGEST_RETRY_AFTER_S)


def lies_ahead(moment: datetime, now: datetime, most: timedelta = LONGEST_PAUSE) -> bool:
    """Whether it is still to come; what is further ahead than `most` was written by a clock that was wrong."""
    return timedelta(0) < moment - now <= most


def clock_was_ahead(written: datetime, now: datetime) -> bool:
    """Whether who wrote this a while ago had a clock that was ahead: no moment it gave is worth waiting for."""
    return written - now > CLOCKS_DIFFER


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential with full jitter; the defaults give an alert up after about a day.

    The wait after the n-th attempt is uniform in [0, min(longest_s, first_s * 2^(n-1))), and no less than the receiver
    asks for. `random` gives a number in [0, 1).

    >>> [Backoff(random=lambda: 1.0).wait_s(n, None) for n in (1, 2, 3, 7, 200)]
    [15.0, 30.0, 60.0, 900.0, 900.0]
    """

    first_s: float = 15.0
    longest_s: float = 900.0
    most_attempts: int = 200
    random: Callable[[], float] = random.random

    def wait_s(self, attempts: int, retry_after_s: float | None) -> float:
        """Seconds until the next attempt, never less than the receiver asked for."""
        drawn = self.random() * min(self.longest_s, self.first_s * 2.0 ** min(attempts - 1, 30))
        return max(drawn, believed(retry_after_s or 0.0))
