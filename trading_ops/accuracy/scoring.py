"""How right are probabilities of a rise, given what happened?"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from trading_ops.performance.intervals import wilson_interval

BINS = 10


@dataclass(frozen=True, slots=True)
class Scores:
    """Predictions joined to their outcomes, all as fractions; undefined is None.

    `base_rate`: share of rises among the outcomes; `skill`: over always saying the reference base rate; `ece`: expected
    calibration error; `interval`: Wilson's 95 % of the accuracy; `pt_p_value`: Pesaran and Timmermann's test.
    """

    n: int
    accuracy: float
    interval: tuple[float, float]
    brier: float
    f1: float | None
    base_rate: float
    skill: float | None
    ece: float | None
    pt_p_value: float | None


def score(probability_up: Any, up: Any, *, reference: Any = None) -> Scores | None:
    """Every figure of n predictions, None where n is 0; `up` is 1 or 0, void outcomes are left out before.

    `reference`: the base rate of the training window, one or one a pair, which the skill is over; None leaves it
    undefined. Raises ValueError for a probability outside [0, 1], an outcome that is neither 1 nor 0, or arrays of
    unequal length.
    """
    p, y = _pairs(probability_up, up)
    if not len(p):
        return None
    right = int(((p > 0.5) == (y == 1.0)).sum())
    interval = wilson_interval(right, len(p))
    assert interval is not None  # there is at least one pair
    return Scores(
        n=len(p),
        accuracy=right / len(p),
        interval=interval,
        brier=float(np.mean((p - y) ** 2)),
        f1=f1(p, y),
        base_rate=float(y.mean()),
        skill=None if reference is None else brier_skill(p, y, reference),
        ece=calibration_error(p, y),
        pt_p_value=pesaran_timmermann(p, y),
    )


def accuracy(probability_up: Any, up: Any) -> float | None:
    """Share of the outcomes that were called: a rise is called by p > 0.5, a fall by any other. None without pairs.

    >>> accuracy([0.6, 0.4, 0.7, 0.5], [1, 0, 0, 0])
    0.75
    """
    p, y = _pairs(probability_up, up)
    return float(np.mean((p > 0.5) == (y == 1.0))) if len(p) else None


def brier(probability_up: Any, up: Any) -> float | None:
    """mean (p - y)^2, 0 at best, 0.25 for always saying one half; None without pairs. Source: Brier (1950).

    >>> round(brier([0.6, 0.4], [1, 1]), 4)
    0.26
    """
    p, y = _pairs(probability_up, up)
    return float(np.mean((p - y) ** 2)) if len(p) else None


def brier_skill(probability_up: Any, up: Any, reference: Any) -> float | None:
    """1 - Brier / Brier of saying `reference`, one or one a pair: above 0 better; None without pairs or where it is 0.

    >>> round(brier_skill([0.8, 0.2], [1, 0], 0.5), 4)
    0.84
    """
    p, y = _pairs(probability_up, up)
    q = np.broadcast_to(np.asarray(reference, "float64"), p.shape)
    if len(outside := q[~((q >= 0.0) & (q <= 1.0))]):
        raise ValueError(f"reference is {outside[0]:g}; a share from 0 to 1 would be right")
    of_reference = float(np.mean((q - y) ** 2)) if len(p) else 0.0
    return 1.0 - float(np.mean((p - y) ** 2)) / of_reference if of_reference > 0.0 else None


def f1(probability_up: Any, up: Any) -> float | None:
    """2 TP / (2 TP + FP + FN) of "up"; None where nothing rose and nothing was called to rise.

    >>> f1([0.6, 0.4, 0.7], [1, 1, 0])
    0.5
    """
    p, y = _pairs(probability_up, up)
    called, rose = p > 0.5, y == 1.0
    of_either = int(called.sum()) + int(rose.sum())
    return 2 * int((called & rose).sum()) / of_either if of_either else None


def reliability(probability_up: Any, up: Any, bins: int = BINS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each bin of about equal mass, in ascending order: pairs in it, mean p, share of rises.

    Equal probabilities share a bin, so that the order of the rows says nothing; empty bins are left out.
    """
    p, y = _pairs(probability_up, up)
    if not len(p):
        return np.zeros(0, "int64"), np.zeros(0), np.zeros(0)
    order = np.argsort(p)
    p, y = p[order], y[order]
    first = np.flatnonzero(np.concatenate([[True], p[1:] != p[:-1]]))  # of those that are equal
    where = np.repeat(first, np.diff(first, append=len(p))) * bins // len(p)
    count = np.bincount(where, minlength=bins)
    there = count > 0
    count = count[there]
    said, rose = (np.bincount(where, weights=values, minlength=bins)[there] / count for values in (p, y))
    return count, said, rose


def calibration_error(probability_up: Any, up: Any, bins: int = BINS) -> float | None:
    """Expected calibration error: sum over bins of n_b / n * abs(share of rises - mean p); None below `bins` pairs.

    >>> calibration_error([0.75] * 12, [1] * 6 + [0] * 6)
    0.25
    """
    count, said, rose = reliability(probability_up, up, bins)
    n = int(count.sum())
    return float((count * np.abs(rose - said)).sum() / n) if n >= bins else None


def pesaran_timmermann(probability_up: Any, up: Any) -> float | None:
    """One-sided p-value: were as many directions called if calls and outcomes were independent? None if undefined.

    PT = (A - A*) / sqrt(V(A) - V(A*)) with A the accuracy, u and v the shares of rises called and seen,
    A* = u v + (1-u)(1-v), V(A) = A* (1-A*) / n,
    V(A*) = ((2v-1)^2 u(1-u) + (2u-1)^2 v(1-v)) / n + 4 u v (1-u)(1-v) / n^2. Source: Pesaran and Timmermann (1992).
    """
    p, y = _pairs(probability_up, up)
    n = len(p)
    if not n:
        return None
    called, rose = p > 0.5, y == 1.0
    u, v = float(called.mean()), float(rose.mean())
    by_chance = u * v + (1 - u) * (1 - v)
    spread = (2 * v - 1) ** 2 * u * (1 - u) + (2 * u - 1) ** 2 * v * (1 - v)
    variance = by_chance * (1 - by_chance) / n - spread / n - 4 * u * v * (1 - u) * (1 - v) / n**2
    if variance <= 1e-15:  # always the same call, or always the same outcome
        return None
    return 1.0 - NormalDist().cdf((float((called == rose).mean()) - by_chance) / variance**0.5)


def _pairs(probability_up: Any, up: Any) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(probability_up, "float64"), np.asarray(up, "float64")
    if p.ndim != 1 or p.shape != y.shape:
        raise ValueError(f"{p.shape} probabilities and {y.shape} outcomes: one outcome a probability would be right")
    outside = ~((p >= 0.0) & (p <= 1.0))
    if outside.any():
        raise ValueError(f"probability_up[{outside.argmax()}] is {p[outside][0]}; from 0 to 1 would be right")
    neither = (y != 0.0) & (y != 1.0)
    if neither.any():
        raise ValueError(f"up[{neither.argmax()}] is {y[neither][0]}; 1 or 0 would be right: void ones are left out")
    return p, y
