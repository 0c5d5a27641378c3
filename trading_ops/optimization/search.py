"""Which sets are tried, in which order, and how does a killed search go on?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from trading_ops.optimization.moments import Moments, join
from trading_ops.optimization.proposals import propose
from trading_ops.optimization.space import Space
from trading_ops.optimization.walk_forward import train_sharpe

if TYPE_CHECKING:
    from trading_ops.optimization.chunks import ChunkFolder

GRID, TPE = "grid", "tpe"
FEWEST_GRID_CHUNKS, GRID_CHUNK = 20, (50, 5_000)  # a chunk is what a kill loses, and a step of the progress
TPE_CHUNK, MOST_TPE_CHUNKS = 100, 100  # a larger search has larger chunks: the estimator's time does not grow with it

Score = Callable[[Mapping[str, np.ndarray]], Moments]


@dataclass(frozen=True)
class Progress:
    """How far a search is; the best Sharpe ratio is that of the training days alone, None while there is none."""

    done: int
    total: int
    best_train_sharpe: float | None
    resumed: bool


@dataclass(frozen=True, eq=False)
class Found:
    """Every set that was tried, as rows of places, with its moments, in order."""

    method: str
    places: np.ndarray
    moments: Moments
    resumed_sets: int


def method_for(space: Space, sets: int) -> str:
    """A grid where all sets fit, else TPE."""
    return GRID if space.size <= sets else TPE


def search(
    space: Space,
    sets: int,
    score: Score,
    folder: ChunkFolder,
    *,
    days: np.ndarray,
    train_blocks: int,
    min_trades: int,
    seed: int,
    told: Callable[[Progress], None] = lambda progress: None,
) -> Found:
    """Score `sets` sets of the space, or all there are, chunk by chunk; chunks found in `folder` are not scored again.

    What is tried next follows from the training blocks alone: nothing of a fold reaches a proposal. `days`: (B,).
    """
    method = method_for(space, sets)
    total = min(sets, space.size)
    grid = space.grid() if method == GRID else None
    size = _chunk_size(method, total)
    parts: list[Moments] = []
    places = np.empty((0, len(space.shape)), dtype=np.int64)
    scores = np.empty(0)
    seal, number, resumed = "", 0, 0
    while len(places) < total:
        count = min(size, total - len(places))
        chunk = folder.load(number, seal, days)
        known = chunk is not None
        if chunk is None:
            wanted = (
                grid[len(places) : len(places) + count]
                if grid is not None
                else propose(space, places, scores, count, seed, number)
            )
            if not len(wanted):
                break
            chunk = folder.save(number, seal, wanted, score(space.columns(wanted)))
        parts.append(chunk.moments)
        places = np.concatenate([places, chunk.places])
        scores = np.concatenate([scores, train_sharpe(chunk.moments, train_blocks, min_trades)])
        seal, number, resumed = chunk.seal, number + 1, resumed + known * len(chunk.places)
        best = float(np.nanmax(scores)) if np.isfinite(scores).any() else None
        told(Progress(len(places), total, best, known))
    return Found(method, places, join(parts), resumed)


def _chunk_size(method: str, total: int) -> int:
    if method == GRID:
        return min(max(-(-total // FEWEST_GRID_CHUNKS), GRID_CHUNK[0]), GRID_CHUNK[1])
    return max(TPE_CHUNK, -(-total // MOST_TPE_CHUNKS))
