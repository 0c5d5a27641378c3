"""What would choosing by the past and trading the next fold have earned, fold after fold?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trading_ops.optimization.moments import Moments, sharpe_over


@dataclass(frozen=True)
class Step:
    """One fold: its block, the set that the blocks before it choose, and that set's Sharpe ratio there.

    `chosen` is None where no set had traded enough to be chosen; nothing is traded in such a fold.
    """

    block: int
    chosen: int | None
    sharpe_before: float | None


def walk_forward(moments: Moments, train_blocks: int, min_trades: int) -> list[Step]:
    """For each block after the training ones: the set with the best Sharpe ratio over all blocks before it.

    Only sets with at least `min_trades` trades in those blocks can be chosen; of equals the first. No figure of the
    fold itself, or of a later one, takes part in its choice.
    """
    steps = []
    for block in range(train_blocks, moments.blocks):
        best = _best(sharpe_over(moments, slice(block)), moments.trades[:, :block].sum(axis=1) >= min_trades)
        steps.append(Step(block, *best))
    return steps


def rank_sets(moments: Moments, train_blocks: int, min_trades: int) -> np.ndarray:
    """The sets by their Sharpe ratio over all folds, the best first; of equals the first.

    Left out: sets without a Sharpe ratio there, or with fewer than `min_trades` trades on average a fold.
    """
    folds = slice(train_blocks, moments.blocks)
    sharpe = sharpe_over(moments, folds)
    trades = moments.trades[:, folds].sum(axis=1)
    eligible = np.flatnonzero(np.isfinite(sharpe) & (trades >= min_trades * (moments.blocks - train_blocks)))
    return eligible[np.argsort(-sharpe[eligible], kind="stable")]


def train_sharpe(moments: Moments, train_blocks: int, min_trades: int) -> np.ndarray:
    """Each set's Sharpe ratio over the training blocks, NaN below `min_trades` trades: all that may guide a search."""
    enough = moments.trades[:, :train_blocks].sum(axis=1) >= min_trades
    return np.where(enough, sharpe_over(moments, slice(train_blocks)), np.nan)


def _best(sharpe: np.ndarray, eligible: np.ndarray) -> tuple[int, float] | tuple[None, None]:
    candidates = np.where(eligible & np.isfinite(sharpe), sharpe, -np.inf)
    best = int(candidates.argmax())
    return (best, float(candidates[best])) if np.isfinite(candidates[best]) else (None, None)
