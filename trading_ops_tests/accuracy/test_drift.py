"""Is a model that lost its skill told from one that has a bad week by chance?"""

import numpy as np
import pytest

from trading_ops.accuracy.drift import LEAST, drifted

HOUR_US = 3_600_000_000
HOURS = 90 * 24
WEEK = 168


def found(*, rate: float, of_last: int, seed: int) -> bool | None:
    draws = np.random.default_rng(seed)
    wrong = (draws.random(HOURS) < 0.48).astype(float)
    wrong[HOURS - of_last :] = draws.random(of_last) < rate
    return drifted(wrong, np.arange(HOURS) * HOUR_US, (HOURS - WEEK) * HOUR_US)


@pytest.mark.parametrize(
    ("rate", "of_last", "least", "most"),
    [(0.48, 0, 0, 4), (0.80, 72, 85, 100), (0.60, WEEK, 30, 70), (0.20, WEEK, 0, 1)],
    ids=["no change is none", "80 % wrong for three days", "60 % wrong for a week", "fewer errors are no drift"],
)
def test_of_a_hundred_models_as_many_drift_as_is_said(rate, of_last, least, most):
    assert least <= sum(bool(found(rate=rate, of_last=of_last, seed=seed)) for seed in range(100)) <= most


def after(days: int, rate: float, seed: int) -> bool | None:
    """So many days after a rise from 48 to 80 %, of which the last five are at `rate`."""
    draws = np.random.default_rng(seed)
    wrong = (draws.random(HOURS) < 0.48).astype(float)
    wrong[HOURS - 24 * days :] = draws.random(24 * days) < 0.80
    wrong[HOURS - 120 :] = draws.random(120) < rate
    return drifted(wrong, np.arange(HOURS) * HOUR_US, (HOURS - WEEK) * HOUR_US)


@pytest.mark.parametrize(
    ("days", "rate", "least", "most"), [(10, 0.80, 95, 100), (12, 0.80, 85, 100), (14, 0.30, 0, 10), (30, 0.80, 0, 5)]
)
def test_a_rise_of_the_week_before_counts_while_errors_stay_as_frequent(days, rate, least, most):
    assert least <= sum(bool(after(days, rate, seed)) for seed in range(100)) <= most


def test_what_drifted_before_is_not_told_again():
    wrong = np.repeat([0.0, 1.0, 0.5], [400, 100, 700])
    wrong[500:] = np.tile([1.0, 1.0, 1.0, 0.0], 175)
    times = np.arange(1_200) * HOUR_US
    assert drifted(wrong, times, 0)
    assert not drifted(wrong, times, 1_100 * HOUR_US)


def test_of_less_than_ten_days_nothing_is_known():
    assert drifted(np.ones(LEAST - 1), np.arange(LEAST - 1) * HOUR_US, 0) is None
