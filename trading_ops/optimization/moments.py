"""What is kept of each parameter set's daily returns: sums over blocks of days, enough for a Sharpe ratio over any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trading_ops.performance.metrics import DAYS_PER_YEAR

ROUNDING = 1e-13  # of the sum of squares: a variance below this is what rounding left of none


@dataclass(frozen=True, eq=False)
class Moments:
    """N parameter sets, B blocks of days. `days`: (B,); the others (N, B), over the days of each block.

    `returns`: sums of daily equity returns, `squares`: sums of their squares, `trades`: trades closed.
    """

    days: np.ndarray
    returns: np.ndarray
    squares: np.ndarray
    trades: np.ndarray

    def __len__(self) -> int:
        return len(self.returns)

    @property
    def blocks(self) -> int:
        return len(self.days)


def join(parts: Sequence[Moments]) -> Moments:
    """The sets of all parts, in order; the parts are about the same blocks."""
    return Moments(
        parts[0].days,
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("returns", "squares", "trades")),
    )


def sharpe_per_day(days: np.ndarray | float, returns: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Sharpe ratio a day from n days, the sum S of their returns and the sum Q of squares, elementwise.

    mean / deviation with mean = S / n, deviation = sqrt((Q - S^2 / n) / (n - 1)). NaN below two days or without
    deviation, as `performance.metrics.sharpe_ratio`, of which this is the unannualised value.

    >>> sharpe_per_day(3, np.array([0.03]), np.array([0.0011]))  # 1 %, -1 %, 3 %: mean 1 %, deviation 2 %
    array([0.5])
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = returns / days
        left = squares - returns * mean
        sharpe = mean / np.sqrt(left / (np.asarray(days) - 1))
        return np.where((left > ROUNDING * squares) & (np.asarray(days) >= 2), sharpe, np.nan)


def sharpe_over(moments: Moments, blocks: slice | Sequence[int]) -> np.ndarray:
    """Each set's annualised Sharpe ratio over the days of these blocks together, (N,); NaN where undefined."""
    days = moments.days[blocks].sum()
    returns, squares = moments.returns[:, blocks].sum(axis=1), moments.squares[:, blocks].sum(axis=1)
    return sharpe_per_day(days, returns, squares) * np.sqrt(DAYS_PER_YEAR)
