"""Which parameters would have earned most, proved on days the search did not see? A whole search, from candles on."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.audit.store import AuditStore, Entry, Receipt
from trading_ops.files import write_whole
from trading_ops.market.candles import CandleSource
from trading_ops.market.soundness import require_sound
from trading_ops.optimization.chunks import ChunkFolder, tidy
from trading_ops.optimization.identity import rules_digest, search_digest
from trading_ops.optimization.moments import Moments, sharpe_over
from trading_ops.optimization.periods import Split, bar_days, split_days, whole_days
from trading_ops.optimization.report import report
from trading_ops.optimization.request import OptimizationRequest
from trading_ops.optimization.search import Found, Progress, Score, search
from trading_ops.optimization.surface import Surface, heat_map, surfaces
from trading_ops.optimization.trials import count_trials
from trading_ops.performance.metrics import DAYS_PER_YEAR

if TYPE_CHECKING:
    import pandas as pd

COLLECTION = "optimizations"
FOLDER = "optimizations"


@dataclass(frozen=True, eq=False)
class Optimization:
    """What came of a search: the document that is stored, and the maps of how the parameters bear on it."""

    digest: str
    document: Mapping[str, Any]
    surfaces: list[Surface]
    resumed_sets: int
    picture: Path | None = None  # where the heat map was left

    def heat_map(self) -> bytes | None:
        """A PNG of mean out-of-sample Sharpe ratios over pairs of parameters; None where fewer than two vary."""
        title = f"{self.document['strategy']} on {self.document['symbol']} ({self.document['candles']} candles)"
        return heat_map(self.surfaces, title)


def run_optimization(
    request: OptimizationRequest,
    source: CandleSource,
    store: AuditStore,
    data_dir: Path,
    *,
    default_symbol: str,
    told: Callable[[Progress], None] = lambda progress: None,
) -> Optimization:
    """Search on the source's candles, remember the document, and leave the heat map beside the search's chunks.

    Raises what `optimise` raises, and CandleError where the source has no such candles.
    """
    symbol, folder = request.symbol or default_symbol, data_dir / FOLDER
    candles = read_candles(source, request, symbol)
    found = optimise(request, candles, symbol=symbol, label=source.label, folder=folder, store=store, told=told)
    record(store, found)
    if (image := found.heat_map()) is not None:
        write_whole(picture := folder / found.digest / "heat_map.png", image)
        found = replace(found, picture=picture)
    tidy(folder)
    return found


def read_candles(source: CandleSource, request: OptimizationRequest, symbol: str) -> pd.DataFrame:
    """The whole days of the symbol that the request asks for. Raises CandleError."""
    start, end = (
        None if day is None else datetime.fromisoformat(f"{day}T00:00Z") for day in (request.start, request.end)
    )
    return whole_days(require_sound(source.candles(symbol, start, end), symbol))


def optimise(
    request: OptimizationRequest,
    candles: pd.DataFrame,
    *,
    symbol: str,
    label: str,
    folder: Path,
    store: AuditStore,
    told: Callable[[Progress], None] = lambda progress: None,
) -> Optimization:
    """Search, judge out of sample, and only then look at the final period.

    `candles`: whole days, of a source called `label`. `folder`: where the chunks of searches are kept; a search that
    was killed goes on from there to the same result. The trials are counted in `store`. The document follows from
    request, candles and the trials counted so far. Raises TooFewDays, InvalidCandles, FileNotWritten, StoreUnavailable.
    """
    split = split_days(candles, request.splitting)
    seen = candles.iloc[: np.searchsorted(bar_days(candles), split.final.days[0])]
    digest = search_digest(request, symbol, split, seen)
    found = _search(request, split, seen, ChunkFolder(folder / digest, f"{digest} {rules_digest()}"), told)
    folds = slice(request.train_blocks, split.splitting.blocks)
    sharpe = sharpe_over(found.moments, folds)
    trials = count_trials(
        store,
        f"{symbol}/{'simulated' if label == 'simulated' else 'recorded'}",
        request.strategy,
        f"{digest}-{rules_digest()[:8]}",  # other rules try other sets, or find other figures
        len(found.places),
        sharpe / sqrt(DAYS_PER_YEAR),
        judged=str(split.folds[0].first),
        final=(str(split.final.first), str(split.final.last)),
    )
    about = {"digest": digest, "rules": rules_digest(), "strategy": request.strategy, "symbol": symbol}
    document = {**about, "candles": label, **report(request, candles, seen, split, found, sharpe, trials)}
    maps = surfaces(request.search_space, found.places, sharpe)
    return Optimization(digest, document, maps, found.resumed_sets)


def record(store: AuditStore, optimization: Optimization) -> Receipt:
    """Remember the document; the same one is remembered once."""
    (receipt,) = store.append(COLLECTION, [Entry("", optimization.digest, optimization.document)])
    return receipt


def _search(
    request: OptimizationRequest,
    split: Split,
    seen: pd.DataFrame,
    chunks: ChunkFolder,
    told: Callable[[Progress], None],
) -> Found:
    return search(
        request.search_space,
        request.sets,
        _scoring(request, split, seen),
        chunks,
        days=np.bincount(split.day_blocks[split.day_blocks >= 0]),
        train_blocks=request.train_blocks,
        min_trades=request.min_trades,
        seed=request.seed,
        told=told,
    )


def _scoring(request: OptimizationRequest, split: Split, seen: pd.DataFrame) -> Score:
    from trading_ops.backtesting.scores import score_sets

    costs, execution, threads = request.costs, request.execution, request.threads or os.cpu_count() or 1

    def score(sets: Mapping[str, np.ndarray]) -> Moments:
        scores = score_sets(
            seen, request.strategy, sets, costs, execution=execution, day_blocks=split.day_blocks, threads=threads
        )
        return Moments(scores.block_days, scores.block_returns, scores.block_squares, scores.block_trades)

    return score
