"""How right were the deployed models, day by day?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.accuracy import joining
from trading_ops.accuracy.bootstrap import DAY_US, difference_draws, interval_of, mean_interval
from trading_ops.accuracy.scoring import accuracy, brier, brier_skill, calibration_error, pesaran_timmermann, score
from trading_ops.performance.intervals import Interval, wilson_interval

if TYPE_CHECKING:
    import pandas as pd

FEW = 12  # outcomes of a day below this say nothing of it
FEW_OF_WEEK = 84  # of a week's 168 hours, for a drop
LONG_DAYS = 90
HOURS_OF_DAY = 24
DRAWS = 1_000
NOT_JOINED = (joining.FLAT, joining.MISSING, joining.UNREALISED, joining.SILENT)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Predictions of one model, or of all, in order of realisation; arrays of one length."""

    realised_us: np.ndarray
    probability: np.ndarray
    up: np.ndarray
    base_rate: np.ndarray
    state: np.ndarray
    reconstructed: np.ndarray
    model_id: np.ndarray
    trained_us: np.ndarray

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Judged:
        columns = ("realised_us", "probability_up", "up", "base_rate", "state", "reconstructed", "model_id",
                   "trained_us")  # fmt: skip
        return cls(*(frame[column].to_numpy() for column in columns))

    def between(self, start_us: int, end_us: int) -> Judged:
        """Those realised in [start, end)."""
        inside = slice(*np.searchsorted(self.realised_us, [start_us, end_us]))
        return self._of(inside)

    def joined(self) -> Judged:
        return self._of(self.state == joining.JOINED)

    def _of(self, rows: slice | np.ndarray) -> Judged:
        return Judged(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def right(self) -> np.ndarray:
        return ((self.probability > 0.5) == (self.up == 1.0)).astype("float64")

    def __len__(self) -> int:
        return len(self.realised_us)


@dataclass(frozen=True, slots=True)
class Deployed:
    """The champion of a name at the end of a day; `trained_us` is when its learning ended."""

    model_id: str
    trained_us: int


def accuracy_days(
    joined: pd.DataFrame, deployed: Mapping[str, Mapping[str, Deployed]], days: Sequence[str], *, label: str
) -> dict[str, dict[str, Any]]:
    """A document a UTC day: of each model the labels realised in [00:00, 24:00), and all of them pooled.

    `joined`: champions' predictions as `join_outcomes` gives them, from 90 days before the first day on. `deployed`:
    by day and name. Figures are fractions, `..._pp` percentage points; None where undefined. Outcome `no_champion`:
    nothing is deployed; `no_predictions`: nothing was predicted yet; `too_few`: fewer than 12 outcomes; `measured`.
    """
    parts = {str(name): Judged.of(frame) for name, frame in joined.groupby("name")}
    whole = Judged.of(joined)
    nobody, documents = whole.between(0, 0), {}
    for day in days:
        start = int(np.datetime64(day, "us").astype("int64"))
        predicted = {name for name, part in parts.items() if len(part.between(start, start + DAY_US))}
        champions = deployed.get(day, {})
        names = sorted(predicted.union(champions))
        models = {name: _row(name, parts.get(name, nobody), champions.get(name), start, len(names)) for name in names}
        found = [row["outcome"] for row in models.values()]
        documents[day] = {
            "day": day,
            "candles": label,
            "outcome": next((o for o in ("measured", "too_few", "no_predictions") if o in found), "no_champion"),
            "models": models,
            "pooled": _figures(whole, start, 1) if names else None,
        }
    return documents


def _row(name: str, part: Judged, champion: Deployed | None, start: int, compared: int) -> dict[str, Any]:
    model_type, _, symbol = name.partition("/")
    end = start + DAY_US
    today = part.between(start, end)
    if champion is None:
        champion = Deployed(str(today.model_id[-1]), int(today.trained_us[-1]))
    figures = _figures(part, start, compared)
    n = figures["n"]
    interval = wilson_interval(round(figures["accuracy"] * n), n) if n else None
    counts = {state: int((today.state == state).sum()) for state in NOT_JOINED}
    return {
        "model_type": model_type,
        "symbol": symbol,
        "model_id": champion.model_id,
        "model_age_days": round((end - champion.trained_us) / DAY_US, 4),
        "outcome": "measured" if n >= FEW else "too_few" if n else "no_predictions",
        "interval": _listed(interval),
        **figures,
        **counts,
        "void": counts[joining.FLAT] + counts[joining.MISSING],
        "unpredicted": HOURS_OF_DAY - len(today),
        "reconstructed": int(today.joined().reconstructed.sum()),
    }


def _figures(part: Judged, start: int, compared: int) -> dict[str, Any]:
    """Of the day, of the seven days up to it, and of the 90 days up to it, these by seven-day blocks of hours.

    Wilson's interval takes each outcome for itself, so a row of one model has one and the pooled row has none:
    symbols move together.
    """
    end = start + DAY_US
    today, long = part.between(start, end).joined(), part.between(end - LONG_DAYS * DAY_US, end).joined()
    day = score(today.probability, today.up, reference=today.base_rate)
    return {
        "n": len(today),
        **{name: getattr(day, name, None) for name in ("accuracy", "brier", "f1", "base_rate", "skill")},
        **_drop(part, end, compared),
        "n_90d": len(long),
        "accuracy_90d": accuracy(long.probability, long.up),
        "interval_90d": _listed(mean_interval(long.right, long.realised_us, draws=DRAWS)),
        "brier_90d": brier(long.probability, long.up),
        "base_rate_90d": float(long.up.mean()) if len(long) else None,
        "skill_90d": brier_skill(long.probability, long.up, long.base_rate),
        "ece_90d": calibration_error(long.probability, long.up),
        "pt_p_value_90d": pesaran_timmermann(long.probability, long.up),
    }


def _drop(part: Judged, end: int, compared: int) -> dict[str, Any]:
    """By how many points the accuracy of the last seven days is below that of the seven before.

    `confirmed`: below at 95 % for all `compared` models at once (Bonferroni); of twenty models one falls by chance.
    """
    week = 7 * DAY_US
    last, before = part.between(end - week, end).joined(), part.between(end - 2 * week, end - week).joined()
    drop, interval, confirmed = None, None, False
    if min(len(np.unique(judged.realised_us)) for judged in (last, before)) >= FEW_OF_WEEK:
        rises = difference_draws((last.right, last.realised_us), (before.right, before.realised_us), draws=DRAWS)
        assert rises is not None  # so many hours of a week span more than two days
        drop, interval = 100 * float(before.right.mean() - last.right.mean()), interval_of(-100 * rises)
        least = drop - NormalDist().inv_cdf(1 - 0.025 / compared) * 100 * float(np.nanstd(rises))
        confirmed = least > 0 and interval is not None and interval[0] > 0
    return {
        "n_7d": len(last),
        "accuracy_7d": accuracy(last.probability, last.up),
        "drop_7d_pp": drop,
        "drop_7d_interval_pp": _listed(interval),
        "drop_7d_confirmed": confirmed,
    }


def _listed(interval: Interval) -> list[float] | None:
    return None if interval is None else list(interval)
