"""Where a space is too large for a grid: which sets should be tried next, given what the training days said?"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from trading_ops.optimization.space import Space

# An estimator's cost grows with the trials it is shown; the best say where to look, the newest what was just seen.
SHOWN_BEST, SHOWN_NEWEST = 100, 100
ASKED = 30  # of a chunk by the estimator, some milliseconds each; the rest are their neighbours and uniform draws
TRIES = 20


def propose(space: Space, tried: np.ndarray, scores: np.ndarray, count: int, seed: int, chunk: int) -> np.ndarray:
    """The next `count` sets, none of them tried, as rows of places; fewer where the space is nearly used up.

    `tried`: rows of places in the order they were tried; `scores`: (n,), higher is better, NaN where a set is worth
    nothing. The answer follows from the arguments alone. Up to ASKED are a tree-structured Parzen estimator's (Optuna
    TPE, multivariate), half of the rest are neighbours of these, the others uniform, so that no corner stays unseen.
    The first chunk, with nothing to learn from, is uniform.
    """
    generator = np.random.default_rng([seed, chunk])
    new = _Fresh(space, tried)
    if np.isfinite(scores).any():
        asked = _asked(space, tried, scores, min(ASKED, count), int(generator.integers(2**31)))
        new.take(asked, count)
        around = asked[generator.integers(0, len(asked), count)]
        new.take(around + generator.integers(-1, 2, around.shape), (len(new.rows) + count) // 2)
    for _ in range(TRIES):
        new.take(space.draw(generator, 2 * count), count)
    return np.array(new.rows, dtype=np.int64).reshape(-1, len(space.shape))


def shown(scores: np.ndarray) -> np.ndarray:
    """The trials an estimator is shown, in order: the SHOWN_BEST and the SHOWN_NEWEST; of equals the earlier."""
    best = np.argsort(np.where(np.isfinite(scores), -scores, np.inf), kind="stable")[:SHOWN_BEST]
    newest = np.arange(max(0, len(scores) - SHOWN_NEWEST), len(scores))
    return np.union1d(best, newest)


class _Fresh:
    """Sets that can be, were not tried and are not in here yet, in the order they came."""

    def __init__(self, space: Space, tried: Collection[np.ndarray] | np.ndarray) -> None:
        self.rows: list[tuple[int, ...]] = []
        self._space = space
        self._known = set(map(tuple, np.asarray(tried).tolist()))

    def take(self, places: np.ndarray, most: int) -> None:
        inside = np.all((places >= 0) & (places < self._space.shape), axis=1)
        places = places[inside]
        for row in map(tuple, places[self._space.possible(places)].tolist()):
            if len(self.rows) >= most:
                return
            if row not in self._known:
                self._known.add(row)
                self.rows.append(row)


def _asked(space: Space, tried: np.ndarray, scores: np.ndarray, count: int, seed: int) -> np.ndarray:
    """What Optuna's TPE proposes, a fresh sampler fed with the shown trials; possibly impossible or tried already."""
    import optuna
    from optuna.distributions import FloatDistribution
    from optuna.trial import TrialState, create_trial

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # floats rounded to places: the estimator is twice as fast on them as on integers
    distributions = {name: FloatDistribution(-0.5, n - 0.5) for name, n in zip(space.names, space.shape, strict=True)}
    sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for i in shown(scores):
        worth = {"value": float(scores[i])} if np.isfinite(scores[i]) else {"state": TrialState.PRUNED}
        params = dict(zip(space.names, map(float, tried[i]), strict=True))
        study.add_trial(create_trial(params=params, distributions=distributions, **worth))  # type: ignore[arg-type]
    trials = [study.ask(distributions) for _ in range(count)]  # type: ignore[arg-type]
    found = np.array([[trial.params[name] for name in space.names] for trial in trials])
    return np.clip(np.floor(found + 0.5).astype(np.int64), 0, np.array(space.shape) - 1)
