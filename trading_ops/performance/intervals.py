"""How far may a share or a mean of a few trades be from the truth?"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np

Z_95 = NormalDist().inv_cdf(0.975)
Interval = tuple[float, float] | None


def wilson_interval(wins: int, total: int) -> Interval:
    """95 % interval of a share, as fractions; None without trials. Source: Wilson (1927).

    >>> low, high = wilson_interval(7, 10)
    >>> round(low, 4), round(high, 4)
    (0.3968, 0.8922)
    """
    if total == 0:
        return None
    share, z2 = wins / total, Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * np.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return float(max(centre - half, 0.0)), float(min(centre + half, 1.0))


def mean_interval(values: Any) -> Interval:
    """95 % interval of a mean by Student's t: mean -+ t(n-1) * s / sqrt(n); None below two values."""
    from scipy.special import stdtrit

    sample = np.asarray(values, float)
    if sample.size < 2:
        return None
    half = stdtrit(sample.size - 1, 0.975) * sample.std(ddof=1) / np.sqrt(sample.size)
    return float(sample.mean() - half), float(sample.mean() + half)
