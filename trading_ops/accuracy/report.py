"""How right were the deployed models, day by day?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.accuracy import joining
from trading_ops.accuracy.bootstrap import DAY_US, difference_draws, interval_of, mean_interval
from trading_ops.accuracy.drift import drifted
from trading_ops.accuracy.scoring import accuracy, brier, brier_skill, calibration_error, pesaran_timmermann, score
from trading_ops.accuracy.shadow import shadow_report
from trading_ops.performance.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd

FEW = 12  # outcomes of a day below this say nothing of it
FEW_OF_WEEK = 84  # of a week's 168 hours, for a drop
LONG_DAYS = 90
HOURS_OF_DAY = 24
DROP_LIMIT_PP = 5.0  # a drop above this warns, where it is confirmed
DRAWS = 1_000
OUTCOMES = ("measured", "too_few", "no_predictions", "no_candles")
NOT_JOINED = (joining.FLAT, joining.MISSING, joining.UNREALISED, joining.SILENT)


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """Predictions of one model, or of all, joined to their outcomes; arrays of one length, in order of realisation."""

    realised_us: np.ndarray
    probability: np.ndarray
    up: np.ndarray
    right: np.ndarray
    base_rate: np.ndarray

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Judged:
        joined = frame[frame["state"] == joining.JOINED]
        p, up = joined["probability_up"].to_numpy(), joined["up"].to_numpy()
        right = ((p > 0.5) == (up == 1.0)).astype("float64")
        columns = (joined["realised_us"].to_numpy(), p, up, right, joined["base_rate"].to_numpy())
        return cls(*map(np.ascontiguousarray, columns))

    def between(self, start_us: int, end_us: int) -> Judged:
        """Those realised in [start, end)."""
        inside = slice(*np.searchsorted(self.realised_us, np.array([start_us, end_us])))
        return Judged(*(getattr(self, field.name)[inside] for field in fields(self)))

    def __len__(self) -> int:
        return len(self.realised_us)


@dataclass(frozen=True, slots=True)
class Deployed:
    """The champion of a name at the end of a day; `candles_us` is the end of its candles, which its age counts from."""

    model_id: str
    candles_us: int


def accuracy_days(
    judged: pd.DataFrame,
    deployed: Mapping[str, Mapping[str, Deployed]],
    days: Sequence[str],
    *,
    label: str,
    unreadable: Mapping[str, str] | None = None,
) -> dict[str, dict[str, Any]]:
    """A document a UTC day: of each model the labels realised in [00:00, 24:00), all of them pooled, and the shadows.

    `judged`: predictions as `join_outcomes` gives them, from 90 days before the first day on. `deployed`: by day and
    name. `unreadable`: why a symbol has no candles. Figures are fractions, `..._pp` percentage points; None where
    undefined. Outcome `no_champion`: nothing is deployed; `no_candles`; `no_predictions`: none was joined to an outcome
    yet; `too_few`: fewer than 12 outcomes; `measured`.
    """
    joined = judged[judged["role"] == "champion"]
    of_pairs = judged["name"].isin(judged.loc[judged["role"] == "shadow", "name"])
    compared = judged[of_pairs]
    of_name = {str(name): Judged.of(frame) for name, frame in joined.groupby("name")}
    whole, nobody = Judged.of(joined), Judged.of(joined.iloc[:0])
    of_day = _by_name_and_day(joined, days)
    documents = {}
    for day in days:
        start = _midnight(day)
        champions, predicted = deployed.get(day, {}), of_day.get(start, {})
        names = sorted({*champions, *predicted})
        models = {}
        for name in names:
            part, today = of_name.get(name, nobody), predicted.get(name, {})
            figures = _figures(part, start, len(names), apart=today.get("horizon_hours", 1) == 1)
            row = _row(name, figures, today, champions.get(name), start + DAY_US)
            if (why := (unreadable or {}).get(row["symbol"])) is not None:
                row |= {"outcome": "no_candles", "error": why}
            models[name] = row
        found = [row["outcome"] for row in models.values()]
        documents[day] = {
            "day": day,
            "candles": label,
            "outcome": next((outcome for outcome in OUTCOMES if outcome in found), "no_champion"),
            "models": models,
            "pooled": _figures(whole, start, 1, apart=False) if names else None,
            "shadows": shadow_report(_between(compared, start + DAY_US - LONG_DAYS * DAY_US, start + DAY_US)),
        }
    return documents


def _midnight(day: str) -> int:
    return int(np.datetime64(day, "us").astype("int64"))


def _between(judged: pd.DataFrame, start_us: int, end_us: int) -> pd.DataFrame:
    return judged.iloc[slice(*np.searchsorted(judged["realised_us"].to_numpy(), np.array([start_us, end_us])))]


def _by_name_and_day(joined: pd.DataFrame, days: Sequence[str]) -> dict[int, dict[str, dict[str, Any]]]:
    """By midnight and name: how many predictions became what, the reconstructed outcomes, and the last model."""
    wanted = joined[joined["realised_us"] >= _midnight(days[0])]
    wanted = wanted.assign(
        midnight=wanted["realised_us"] // DAY_US * DAY_US,
        again=wanted["reconstructed"] & (wanted["state"] == joining.JOINED),
        **{kind: wanted["state"] == kind for kind in NOT_JOINED},
    )
    by_day = wanted.groupby(["midnight", "name"])
    counts = by_day[[*NOT_JOINED, "again"]].sum().astype("int64")
    last = by_day[["model_id", "horizon_hours"]].last()
    rows = last.join(counts).assign(all=by_day.size()).reset_index()
    found: dict[int, dict[str, dict[str, Any]]] = {}
    for row in rows.to_dict("records"):
        found.setdefault(row["midnight"], {})[row["name"]] = row
    return found


def _row(
    name: str, figures: Mapping[str, Any], today: Mapping[str, Any], champion: Deployed | None, end: int
) -> dict[str, Any]:
    """`today`: what `_by_name_and_day` found, nothing where nothing was predicted."""
    model_type, _, symbol = name.partition("/")
    age = None if champion is None else round((end - champion.candles_us) / DAY_US, 4)
    n = figures["n"]
    return {
        "model_type": model_type,
        "symbol": symbol,
        "deployed": champion is not None,
        "model_id": today["model_id"] if champion is None else champion.model_id,
        "model_age_days": age,
        "outcome": "measured" if n >= FEW else "too_few" if n else "no_predictions",
        **figures,
        **{kind: today.get(kind, 0) for kind in NOT_JOINED},
        "void": today.get(joining.FLAT, 0) + today.get(joining.MISSING, 0),
        "unpredicted": HOURS_OF_DAY - today.get("all", 0),
        "reconstructed": today.get("again", 0),
    }


def _figures(part: Judged, start: int, compared: int, *, apart: bool) -> dict[str, Any]:
    """Of the day, of the seven days up to it, and of the 90 days up to it, these by seven-day blocks of hours.

    `apart`: outcomes share neither hours nor a market, as those of one model of one hour's horizon. Wilson's interval
    and Pesaran and Timmermann's test take each outcome for itself, and are None for any others.
    """
    end = start + DAY_US
    today, long = part.between(start, end), part.between(end - LONG_DAYS * DAY_US, end)
    day = score(today.probability, today.up, reference=today.base_rate)
    return {
        "n": len(today),
        **{name: getattr(day, name, None) for name in ("accuracy", "brier", "f1", "base_rate", "skill")},
        "interval": list(day.interval) if day and apart else None,
        **_drop(part, end, compared),
        "drift_7d": drifted(1.0 - long.right, long.realised_us, end - 7 * DAY_US),
        "n_90d": len(long),
        "accuracy_90d": accuracy(long.probability, long.up),
        "interval_90d": _listed(mean_interval(long.right, long.realised_us, draws=DRAWS)),
        "brier_90d": brier(long.probability, long.up),
        "base_rate_90d": float(long.up.mean()) if len(long) else None,
        "skill_90d": brier_skill(long.probability, long.up, long.base_rate),
        "ece_90d": calibration_error(long.probability, long.up),
        "pt_p_value_90d": pesaran_timmermann(long.probability, long.up) if apart else None,
    }


def _drop(part: Judged, end: int, compared: int) -> dict[str, Any]:
    """By how many points the accuracy of the last seven days is below that of the seven before.

    `confirmed`: below at 95 % for all `compared` models at once (Bonferroni); of twenty models one falls by chance.
    """
    week = 7 * DAY_US
    last, before = part.between(end - week, end), part.between(end - 2 * week, end - week)
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
