"""Does a model know what it cannot know? Taught shuffled labels, it must guess."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from trading_ops.accuracy.scoring import accuracy

if TYPE_CHECKING:
    import pandas as pd

SEEDS = (1, 2, 3)
TOLERATED = 1  # of the shuffles may lie outside the band: one of three does by chance once in seven times, two hardly


class Guesses(Protocol):
    """What a model said of windows kept from it, float64 [n] from 0 to 1, and what came, [n] 1 or 0."""

    @property
    def probabilities(self) -> np.ndarray: ...

    @property
    def outcomes(self) -> np.ndarray: ...


def shuffled(labels: np.ndarray, seed: int) -> np.ndarray:
    """The known labels in another order; NaN stays where it is, so that the same windows are learnt from."""
    known = np.flatnonzero(np.isfinite(labels))
    mixed = labels.copy()
    mixed[known] = labels[np.random.default_rng(seed).permutation(known)]
    return mixed


def shuffled_bars(candles: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The same bars in another order, each with its move from the close before: a market that tells nothing ahead.

    A feature that has seen a bar too early still foretells it there. The first bar and the times stay.
    """
    import pandas as pd

    prices = candles[["open", "high", "low", "close"]].to_numpy("float64")
    order = np.random.default_rng(seed).permutation(len(candles) - 1) + 1
    moved = np.log(prices[order] / prices[order - 1, 3:])
    start = np.log(prices[0, 3]) + np.concatenate([[0.0], np.cumsum(moved[:, 3])])
    rebuilt = np.vstack([prices[:1], np.exp(start[:-1, None] + moved)])
    rebuilt[:, 1] = rebuilt.max(axis=1)  # what rounding took from the highest and the lowest
    rebuilt[:, 2] = rebuilt.min(axis=1)
    volume = candles["volume"].to_numpy("float64")[np.concatenate([[0], order])]
    columns = dict(zip(("open", "high", "low", "close"), rebuilt.T, strict=True))
    return pd.DataFrame({**columns, "volume": volume}, index=candles.index)


def band(probabilities: np.ndarray, outcomes: np.ndarray) -> tuple[float, float]:
    """The 95 % band of the accuracy of who says "up" as often, and the price rises as often, but at other hours.

    With n hours, K rises and M times "up", TP is hypergeometric (n, K, M) and the accuracy (n - K - M + 2 TP) / n: at
    most 2.5 % lie below and 2.5 % above. Who always says the same has one value, the base rate's. Raises ValueError
    for no pairs, or pairs that are none.

    >>> band(np.array([0.9, 0.9, 0.1, 0.1]), np.array([1, 0, 1, 0]))
    (0.0, 1.0)
    """
    from scipy.stats import hypergeom

    if accuracy(probabilities, outcomes) is None:
        raise ValueError("no prediction has an outcome; at least one would be right")
    n, rises, called = len(outcomes), int(np.sum(outcomes)), int(np.sum(np.asarray(probabilities) > 0.5))
    low, high = hypergeom.ppf([0.025, 0.975], n, rises, called)
    return float((n - rises - called + 2 * low) / n), float((n - rises - called + 2 * high) / n)


def leaks(scored: Callable[[int], Guesses], what: str = "shuffled labels", seeds: Sequence[int] = SEEDS) -> str | None:
    """Why nothing may be promoted; None where the model guesses as it should.

    `scored(seed)`: the guesses of a model taught `what`, shuffled by the seed, on windows kept from it. It leaks when
    the accuracy lies outside the band, above or below, in at least two of three shuffles; it is not asked for a third
    where two agree.
    """
    outside: list[str] = []
    for asked, seed in enumerate(seeds, start=1):
        guesses = scored(seed)
        right, (low, high) = (
            accuracy(guesses.probabilities, guesses.outcomes),
            band(guesses.probabilities, guesses.outcomes),
        )
        if right is not None and not low - 1e-12 <= right <= high + 1e-12:
            outside.append(f"{100 * right:.1f} % (a guess: {100 * low:.1f} to {100 * high:.1f} %)")
        if len(outside) > TOLERATED:
            return (
                f"taught {what}, it was right in {' and '.join(outside)} of {len(guesses.outcomes)} hours, in"
                f" {len(outside)} of {asked} tries: outcomes leak into what it learns from"
            )
        if len(outside) + len(seeds) - asked <= TOLERATED:
            return None
    return None
