"""What is told of a search: each choice, how it did where it was not chosen, and what that proves."""

from __future__ import annotations

from dataclasses import asdict
from math import isnan, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.market.candles import digest_of
from trading_ops.optimization.figures import Traded, hold, return_figures, shape_of, trade_set
from trading_ops.optimization.identity import what_bears
from trading_ops.optimization.overfitting import deflated_sharpe, expected_best_sharpe, probability_of_overfitting
from trading_ops.optimization.periods import Period, Split, bar_days
from trading_ops.optimization.request import OptimizationRequest
from trading_ops.optimization.search import GRID, Found
from trading_ops.optimization.surface import sensitivity
from trading_ops.optimization.trials import Trials
from trading_ops.optimization.verdict import judge
from trading_ops.optimization.walk_forward import rank_sets, walk_forward
from trading_ops.performance.metrics import DAYS_PER_YEAR, sharpe_ratio

if TYPE_CHECKING:
    import pandas as pd

SHOWN_SETS = 10
NO_GRID = (
    "not computed: a search that was guided chose its own sets by the training blocks, so that halves of the blocks are"
    " no longer alike; give a space of at most `sets` sets"
)
TOO_FEW_TRADES = "not computed: no set traded enough in half of the blocks to be chosen"


def report(
    request: OptimizationRequest,
    candles: pd.DataFrame,
    seen: pd.DataFrame,
    split: Split,
    found: Found,
    sharpe: np.ndarray,
    trials: Trials,
) -> dict[str, Any]:
    """The document of a search, of plain values; None is undefined. `seen`: the candles without the final period.

    `sharpe`: (n,) the sets' annualised Sharpe ratio over all folds. Figures of a period are those of its counted days.
    """
    judging = _Judging(request, seen, split, found)
    ranking = rank_sets(found.moments, request.train_blocks, request.min_trades)
    overfitting, why_not = _overfitting(request, found)
    judged = split.out_of_sample.days
    winner = int(ranking[0]) if len(ranking) else None
    document = {
        "request": what_bears(request),
        "space": {
            name: [None if isnan(v) else v for v in values] for name, values in request.search_space.values.items()
        },
        "space_sets": request.search_space.size,
        "method": found.method,
        "sets": len(found.places),
        "periods": {
            "search": _told(Period(split.search_days)),
            "train": _told(split.train),
            "folds": [_told(fold) for fold in split.folds],
            "final": _told(split.final),
        },
        "trials": {
            "this_search": len(found.places),
            "total": trials.trials,
            "searches": trials.searches,
            "sharpe_deviation": sqrt(trials.variance * DAYS_PER_YEAR),
        },
        **judging.walk(),
        "buy_and_hold": hold(seen, request.costs, request.execution, int(judged[0])).figures(judged),
        "top": [{"rank": place + 1, **judging.row(int(chosen))} for place, chosen in enumerate(ranking[:SHOWN_SETS])],
        **judging.luck(winner, trials),
        "overfitting": overfitting,
        "overfitting_note": why_not,
        "sensitivity": sensitivity(request.search_space, found.places, sharpe),
        "final": _final(request, candles, split, None if winner is None else judging.parameters(winner), trials),
    }
    return {**document, "verdict": judge(document, request.min_trades)}


class _Judging:
    """Backtests of the few sets that are told of, each traded once over the days of the search."""

    def __init__(self, request: OptimizationRequest, seen: pd.DataFrame, split: Split, found: Found) -> None:
        self._request, self._seen, self._split, self._found = request, seen, split, found
        self._traded: dict[int, Traded] = {}

    def parameters(self, chosen: int) -> dict[str, Any]:
        return self._request.search_space.parameters(self._found.places[chosen])

    def traded(self, chosen: int) -> Traded:
        if chosen not in self._traded:
            request = self._request
            self._traded[chosen] = trade_set(
                self._seen, request.strategy, self.parameters(chosen), request.costs, request.execution
            )
        return self._traded[chosen]

    def row(self, chosen: int) -> dict[str, Any]:
        """One set, on the training days and on those of all folds."""
        traded = self.traded(chosen)
        return {
            "parameters": self.parameters(chosen),
            "in_sample": traded.figures(self._split.train.days),
            "out_of_sample": traded.figures(self._split.out_of_sample.days),
        }

    def walk(self) -> dict[str, Any]:
        """The walk-forward's folds, and their days one after another: what the search would have earned.

        Each fold is a cut from the chosen set's unbroken run: changing the set costs nothing, and a position that was
        open before the fold is in it.
        """
        steps = walk_forward(self._found.moments, self._request.train_blocks, self._request.min_trades)
        parts, folds, trades, wins = [], [], 0, 0
        for step, fold in zip(steps, self._split.folds, strict=True):
            told: dict[str, Any] = _told(fold) | {"parameters": None, "sharpe_before": step.sharpe_before}
            returns = np.zeros(len(fold.days))  # nothing is traded where nothing could be chosen
            if step.chosen is not None:
                traded = self.traded(step.chosen)
                returns, closed = traded.returns(fold.days), traded.trades(fold.days)
                trades, wins = trades + len(closed), wins + int((closed["pnl_usdt"] > 0).sum())
                told["parameters"] = self.parameters(step.chosen)
            figures = return_figures(returns)
            folds.append(told | {name: figures[name] for name in ("sharpe_ratio", "total_return_pct")})
            parts.append(returns)
        whole = return_figures(np.concatenate(parts))
        whole |= {"total_trades": trades, "win_rate_pct": 100.0 * wins / trades if trades else None}
        return {"walk_forward": {**whole, "folds": folds}}

    def luck(self, winner: int | None, trials: Trials) -> dict[str, Any]:
        """The deflated Sharpe ratio of the winner after all trials, over all folds."""
        expected = expected_best_sharpe(trials.trials, trials.variance)
        told: dict[str, Any] = {"deflated_sharpe": None, "expected_best_sharpe": expected * sqrt(DAYS_PER_YEAR)}
        if winner is None:
            return told
        returns = self.traded(winner).returns(self._split.out_of_sample.days)
        if (best := sharpe_ratio(returns)) is not None:
            told["deflated_sharpe"] = deflated_sharpe(
                best / sqrt(DAYS_PER_YEAR), trials.trials, trials.variance, len(returns), *shape_of(returns)
            )
        return told


def _final(
    request: OptimizationRequest, candles: pd.DataFrame, split: Split, winner: dict[str, Any] | None, trials: Trials
) -> dict[str, Any]:
    """The winner alone on the days that this search has not seen, entered from their first on with warm indicators."""
    first, days = int(split.final.days[0]), split.final.days
    traded = None
    if winner is not None:
        traded = trade_set(candles, request.strategy, winner, request.costs, request.execution, first_day=first)
    return {
        **_told(split.final),
        "looks": trials.looks,
        "candles_digest": digest_of(candles[bar_days(candles) >= first]),
        "parameters": winner,
        "winner": None if traded is None else traded.figures(days),
        "buy_and_hold": hold(candles, request.costs, request.execution, first).figures(days),
    }


def _overfitting(request: OptimizationRequest, found: Found) -> tuple[dict[str, Any] | None, str | None]:
    if found.method != GRID:
        return None, NO_GRID
    result = probability_of_overfitting(found.moments, request.min_trades)
    return (None, TOO_FEW_TRADES) if result is None else (asdict(result), None)


def _told(period: Period) -> dict[str, Any]:
    return {"first": str(period.first), "last": str(period.last), "days": len(period.days)}
