"""How much of the best result is luck, given how many were tried?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import e, sqrt
from statistics import NormalDist

import numpy as np

from trading_ops.optimization.moments import ROUNDING, Moments
from trading_ops.performance.metrics import DAYS_PER_YEAR

EULER_MASCHERONI = 0.5772156649015329
_NORMAL = NormalDist()


def expected_best_sharpe(trials: int, variance: float) -> float:
    """The Sharpe ratio that the best of `trials` without any skill is expected to show.

    sqrt(V) * ((1 - g) * z(1 - 1/N) + g * z(1 - 1/(N e))), g Euler-Mascheroni's constant, z the normal quantile, V the
    variance of the trials' Sharpe ratios; in V's unit. One trial is no choice: 0.
    Source: Bailey and Lopez de Prado, The Deflated Sharpe Ratio (2014), eq. 1.

    >>> round(expected_best_sharpe(100, 1 / (2 * 250)), 4)  # the paper's example: V = 1/2 a year, 250 days a year
    0.1132
    """
    if trials <= 1:
        return 0.0
    high, higher = _NORMAL.inv_cdf(1 - 1 / trials), _NORMAL.inv_cdf(1 - 1 / (trials * e))
    return sqrt(variance) * ((1 - EULER_MASCHERONI) * high + EULER_MASCHERONI * higher)


def probabilistic_sharpe(sharpe: float, benchmark: float, days: int, skewness: float, kurtosis: float) -> float | None:
    """Probability that the true Sharpe ratio exceeds `benchmark`; both a day, kurtosis raw (3 is normal).

    Phi((SR - SR*) sqrt(n - 1) / sqrt(1 - g3 SR + (g4 - 1)/4 SR^2)); None below two days or where the root is none.
    Source: Bailey and Lopez de Prado, The Sharpe Ratio Efficient Frontier (2012).

    >>> probabilistic_sharpe(0.1, 0.1, 365, 0.0, 3.0)  # as good as the benchmark: even odds
    0.5
    """
    spread = 1 - skewness * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if days < 2 or spread <= 0:
        return None
    return _NORMAL.cdf((sharpe - benchmark) * sqrt(days - 1) / sqrt(spread))


def deflated_sharpe(
    sharpe: float, trials: int, variance: float, days: int, skewness: float, kurtosis: float
) -> float | None:
    """Probability that the best of `trials` has skill: `probabilistic_sharpe` over `expected_best_sharpe`.

    Figures a day. Source: Bailey and Lopez de Prado, The Deflated Sharpe Ratio (2014), eq. 2.

    >>> round(deflated_sharpe(2.5 / sqrt(250), 100, 1 / (2 * 250), 1250, -3.0, 10.0), 4)  # the paper's example
    0.9004
    """
    return probabilistic_sharpe(sharpe, expected_best_sharpe(trials, variance), days, skewness, kurtosis)


@dataclass(frozen=True)
class Overfitting:
    """What CSCV found. `probability`: of overfitting (PBO), the share of splits in which the set that was best in one
    half is at or below the median of the other; `probability_of_loss`: that it lost there; Sharpe ratios are annualised
    means over the splits of that best set. `splits`: those in which some set could be chosen.
    """

    probability: float
    probability_of_loss: float
    best_in_sample_sharpe: float
    its_out_of_sample_sharpe: float
    splits: int


def probability_of_overfitting(moments: Moments, min_trades: int = 1) -> Overfitting | None:
    """Combinatorially symmetric cross-validation: every half of the blocks chooses the best set, the other half judges.

    In a half only sets with `min_trades` trades can be chosen. A set that earned nothing all the time (no deviation)
    counts as Sharpe 0 where it is judged; ties count half. None where there are fewer than two sets or nothing can be
    chosen. Source: Bailey, Borwein, Lopez de Prado, Zhu, The Probability of Backtest Overfitting (2015).
    """
    if moments.blocks % 2:
        raise ValueError(f"there are {moments.blocks} blocks; an even number would be right, to be split in halves")
    if len(moments) < 2:
        return None
    from trading_ops.optimization.halves import judge_halves

    halves = _halves(moments.blocks)
    out = np.empty((2 * len(halves), 3))
    sums = (moments.days, moments.returns, moments.squares, moments.trades)
    judge_halves(
        *(np.ascontiguousarray(array, dtype=float) for array in sums), halves, float(min_trades), ROUNDING, out
    )
    rank, inside, outside = out[~np.isnan(out[:, 0])].T
    if not len(rank):
        return None
    year = sqrt(DAYS_PER_YEAR)
    return Overfitting(
        probability=float(np.mean(rank <= 0.5)),
        probability_of_loss=float(np.mean(outside < 0)),
        best_in_sample_sharpe=float(inside.mean() * year),
        its_out_of_sample_sharpe=float(outside.mean() * year),
        splits=len(rank),
    )


def _halves(blocks: int) -> np.ndarray:
    """Every split in halves once, as a row of booleans: the half with block 0."""
    members = np.array([(0, *rest) for rest in combinations(range(1, blocks), blocks // 2 - 1)])
    halves = np.zeros((len(members), blocks), dtype=bool)
    np.put_along_axis(halves, members, values=True, axis=1)
    return halves
