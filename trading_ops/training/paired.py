"""Is one model's error really smaller than another's on the same hours, or was it luck?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_ops.accuracy.bootstrap import block_draws

POWER = 0.80
_NOTHING = 1e-12  # a gain or standard error below this is rounding


@dataclass(frozen=True, slots=True)
class Comparison:
    """A mean gain and how sure it is. `p_better`, `p_worse`: one-sided, of no gain or less, of no loss or less.

    `minimum_detectable`: the true gain that a test at `alpha` would find in 80 of 100 cases.
    """

    difference: float
    interval: tuple[float, float]
    p_better: float
    p_worse: float
    minimum_detectable: float


def compare(gains: np.ndarray, times_us: np.ndarray, alpha: float) -> Comparison | None:
    """The mean of `gains` [n] (loss of the one less loss of the other) at `times_us` [n], against 0.

    The standard error s comes from circular blocks of seven days of hours (`accuracy.bootstrap`, drawn with one seed).
    In 30 days lie about four of them, too few for the quantiles of drawn means to hold their tails: 7 % of equals pass
    at 5 %. So mean / s is held against Student's t with 3 T / (2 L) degrees of freedom, T the hours and L those of a
    block: as many as a Bartlett window of that width leaves the variance (Priestley 1981, 6.2.4; on few blocks Kiefer
    and Vogelsang 2005). Simulated equals then pass at 4.3 to 5.0 % where 5 % is asked (14 to 180 days of independent
    hours; up to 5.8 % where gains swing for ten hours), and at 0.4 to 1.1 % where 1 % is.
    Interval: 95 %, mean +- t s. Minimum detectable: (t(1 - alpha) + t(0.80)) s.
    None where the hours hold not two blocks. A gain of 0 at every hour is neither better nor worse: p is 1.
    """
    from scipy.special import stdtr, stdtrit

    drawn = block_draws(times_us)
    if drawn is None:
        return None
    means = drawn.means(gains)
    mean, error = float(np.mean(gains)), float(np.nanstd(means))
    degrees = 1.5 * drawn.hours / drawn.block
    half = float(stdtrit(degrees, 0.975)) * error
    if max(error, abs(mean)) <= _NOTHING:
        better = worse = 1.0
    else:
        ratio = mean / max(error, _NOTHING)
        better, worse = float(stdtr(degrees, -ratio)), float(stdtr(degrees, ratio))
    detectable = float(stdtrit(degrees, 1.0 - alpha) + stdtrit(degrees, POWER)) * error
    return Comparison(mean, (mean - half, mean + half), better, worse, detectable)
