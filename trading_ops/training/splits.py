"""Which windows teach a model, which tell it when to stop, and which are kept from it?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops.training.request import HOLDOUT_DAYS
from trading_ops.training.samples import Samples

FEWEST_TRAIN = 32  # windows; fewer teach nothing
FEWEST_VALIDATION = 16


class TooFewRows(ValueError):
    """The period does not reach for this split; the message says how many windows there are and are needed."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows of some samples, int64, ascending; every row of `train` lies before every row of `validation`."""

    train: np.ndarray
    validation: np.ndarray


def holdout_start(end: datetime, days: int = HOLDOUT_DAYS) -> datetime:
    """When the days begin that are kept from every training: `days` before `end`, the close of the newest bar.

    Raises ValueError for a naive `end` or `days` below 1.
    """
    if end.tzinfo is None:
        raise ValueError(f"end is {end}, without a time zone; in UTC, such as {end}+00:00, would be right")
    if days < 1:
        raise ValueError(f"days is {days!r}; a whole number from 1 would be right")
    return end - timedelta(days=days)


def split(
    samples: Samples, start: datetime, end: datetime, validation_split: float, *, embargo_hours: int | None = None
) -> Split:
    """The windows decided from `start` on; of those the newest `validation_split` share are for validation.

    `end`: where the hold-out begins. Every label is realised one horizon before it. Purged and embargoed: every label
    of the training part is realised `embargo_hours` (the horizon, where not given) before the first bar of the first
    validation window opens. Raises TooFewRows, and ValueError for a share outside (0, 1).
    """
    if not 0.0 < validation_split < 1.0:
        raise ValueError(f"validation_split is {validation_split!r}; above 0 and below 1, such as 0.2, would be right")
    rows = samples.learnable(start, end - timedelta(hours=samples.horizon))
    newest = max(1, round(len(rows) * validation_split))
    return _parted(samples, rows, len(rows) - newest, len(rows), _embargo(samples, embargo_hours))


def walk_forward(
    samples: Samples,
    folds: int,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    embargo_hours: int | None = None,
) -> list[Split]:
    """`folds` splits in the order of time: the windows in folds + 1 equal parts, each but the first validates once.

    A fold learns from everything before it, purged and embargoed as in `split`; `end` as there. Raises TooFewRows,
    and ValueError for fewer than one fold.
    """
    if folds < 1:
        raise ValueError(f"folds is {folds!r}; a whole number from 1 would be right")
    rows = samples.learnable(start, None if end is None else end - timedelta(hours=samples.horizon))
    edges = np.linspace(0, len(rows), folds + 2).round().astype("int64")
    embargo = _embargo(samples, embargo_hours)
    return [_parted(samples, rows, int(edges[k]), int(edges[k + 1]), embargo) for k in range(1, folds + 1)]


def _embargo(samples: Samples, hours: int | None) -> int:
    if hours is not None and hours < 0:
        raise ValueError(f"embargo_hours is {hours!r}; 0 or more would be right")
    return samples.horizon if hours is None else hours


def _parted(samples: Samples, rows: np.ndarray, first: int, stop: int, embargo_hours: int) -> Split:
    """rows[first:stop] for validation, and those before it whose labels are realised early enough for training."""
    validation, earlier = rows[first:stop], rows[:first]
    train = earlier
    if len(validation):
        opens = samples.times[validation[0] - samples.lookback + 1]
        realised = samples.times[earlier] + (1 + samples.horizon) * HOUR_US
        train = earlier[realised <= opens - embargo_hours * HOUR_US]
    if len(train) < FEWEST_TRAIN or len(validation) < FEWEST_VALIDATION:
        raise TooFewRows(
            f"{samples.symbol}: of {len(rows)} windows with a known outcome {len(train)} are left to learn from and"
            f" {len(validation)} for validation ({len(earlier) - len(train)} too near to it are left out);"
            f" {FEWEST_TRAIN} and {FEWEST_VALIDATION} are the fewest: choose a longer period"
        )
    return Split(train, validation)
