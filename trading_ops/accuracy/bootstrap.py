"""How far may a mean over hours be from the truth, when neighbouring hours and symbols move together?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops.performance.intervals import Interval

DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
DRAWS = 2_000


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Periods drawn anew from blocks of hours; a drawn hour brings the rows of every symbol at it.

    `hour` int64 [n]: each row's hour since the first; `starts` int64 [draws, blocks]: the drawn blocks' first hours;
    `hours`, `block`: of the whole period and of one block.
    """

    hour: np.ndarray
    starts: np.ndarray
    hours: int
    block: int

    def means(self, values: Any) -> np.ndarray:
        """The mean of `values` [n] in each drawn period, float64 [draws]; NaN where a draw has no row.

        The distance of each from the mean of all is widened by sqrt(T / (T - L)), T hours and blocks of L: blocks
        within a period are nearer to its mean than to the truth's. Mean of the draws and of `values` stay apart.
        """
        sample = np.asarray(values, "float64")
        if sample.shape != self.hour.shape:
            raise ValueError(f"{sample.shape} values for {self.hour.shape} times: one value a time would be right")
        sums, counts = self._drawn(sample), self._drawn(np.ones(len(sample)))
        with np.errstate(invalid="ignore"):
            drawn = np.where(counts > 0, sums / counts, np.nan)
        mean = sample.mean() if len(sample) else np.nan
        return mean + (drawn - mean) * np.sqrt(self.hours / (self.hours - self.block))

    def _drawn(self, values: np.ndarray) -> np.ndarray:
        """The sum of `values` over each drawn period, the last block cut so that it is as long as the whole one."""
        hourly = np.bincount(self.hour, weights=values, minlength=self.hours)
        upto = np.concatenate([[0.0], np.cumsum(np.concatenate([hourly, hourly[: self.block]]))])
        blocks = self.starts.shape[1]
        rest = self.hours - (blocks - 1) * self.block
        whole, last = self.starts[:, :-1], self.starts[:, -1]
        return (upto[whole + self.block] - upto[whole]).sum(axis=1) + upto[last + rest] - upto[last]


def block_draws(times_us: Any, *, block_us: int = WEEK_US, draws: int = DRAWS, seed: int = 0) -> Draws | None:
    """Draw whole periods from circular blocks of consecutive hours; None where there are not two blocks of hours.

    `times_us` int64 [n]: microseconds since 1970 UTC, in any order; rows of one hour, of whichever symbol, are drawn
    together. The same seed gives the same draws. Source: Politis and Romano (1992), the circular block bootstrap.
    """
    times = np.asarray(times_us, "int64")
    if block_us < HOUR_US or block_us % HOUR_US or draws < 1:
        raise ValueError(f"block_us is {block_us}, draws {draws}: whole hours, and at least one draw, would be right")
    if not len(times):
        return None
    hour = (times - times.min()) // HOUR_US
    hours, block = int(hour.max()) + 1, block_us // HOUR_US
    if hours < 2 * block:
        return None
    starts = np.random.default_rng(seed).integers(0, hours, (draws, -(-hours // block)))
    return Draws(hour, starts, hours, block)


def mean_interval(
    values: Any, times_us: Any, *, block_us: int = WEEK_US, draws: int = DRAWS, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """Interval of the mean of `values` [n] at `times_us` [n]; None where there are not two blocks of hours."""
    drawn = block_draws(times_us, block_us=block_us, draws=draws, seed=seed)
    return None if drawn is None else interval_of(drawn.means(values), confidence)


def difference_draws(
    later: tuple[Any, Any], earlier: tuple[Any, Any], *, block_us: int = DAY_US, draws: int = DRAWS, seed: int = 0
) -> np.ndarray | None:
    """Drawn mean(later) - mean(earlier), float64 [draws], each (values, times_us) of a period of its own.

    None where one of them has not two blocks of hours. Two weeks hold two blocks of a week, which no interval comes
    from: blocks of a day keep what repeats within a day and what the symbols share, and a week has seven; the hits of
    next-hour predictions hardly depend on each other beyond a day.
    """
    of_later = block_draws(later[1], block_us=block_us, draws=draws, seed=seed)
    of_earlier = block_draws(earlier[1], block_us=block_us, draws=draws, seed=seed + 1)
    if of_later is None or of_earlier is None:
        return None
    return of_later.means(later[0]) - of_earlier.means(earlier[0])


def interval_of(means: np.ndarray, confidence: float = 0.95) -> Interval:
    """The middle `confidence` of drawn means; None where none is known."""
    known = means[np.isfinite(means)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
