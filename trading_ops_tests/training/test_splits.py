"""Can a label that a model learnt from reach into the windows that judge it?"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops.training.samples import EPOCH, Samples
from trading_ops.training.splits import (
    FEWEST_TRAIN,
    FEWEST_VALIDATION,
    Split,
    TooFewRows,
    holdout_start,
    split,
    walk_forward,
)

START = datetime(2024, 1, 1, tzinfo=UTC)
START_US = (START - EPOCH) // timedelta(microseconds=1)


def samples(hours: int, *, lookback: int = 4, horizon: int = 1, missing: tuple[int, ...] = (), void: float = 0.0):
    """Bars from START on, but for the `missing` hours; a share `void` of the labels is unknown."""
    random = np.random.default_rng(3)
    kept = np.array([hour for hour in range(hours) if hour not in missing], dtype="int64")
    labels = random.integers(0, 2, len(kept)).astype("float32")
    labels[random.random(len(kept)) < void] = np.nan
    labels[len(kept) - horizon :] = np.nan
    features = random.normal(size=(len(kept), 2)).astype("float32")
    return Samples("BTCUSDT", ("a", "b"), START_US + kept * HOUR_US, features, labels, lookback, horizon)


def hours_of(some: Samples, rows: np.ndarray) -> list[int]:
    return ((some.times[rows] - START_US) // HOUR_US).tolist()


def test_between_the_last_label_learnt_and_the_first_window_lies_the_embargo():
    """100 bars, hold-out from hour 90 on. Labels are realised by hour 89, so bars 3..87; a fifth of those 85 is 17.

    The first window that validates, that of bar 71, opens at hour 68. A label of bar b is realised at hour b + 2:
    at 67, an hour before, at the latest.
    """
    found = split(samples(100), START, START + timedelta(hours=90), 0.2)
    assert found.validation.tolist() == list(range(71, 88))
    assert found.train.tolist() == list(range(3, 66))
    found = split(samples(100), START, START + timedelta(hours=90), 0.2, embargo_hours=24)
    assert found.train.tolist() == list(range(3, 43))


def test_a_longer_horizon_widens_every_gap():
    """Labels of bar b are realised at hour b + 6: 5 before the hold-out at 90, so bars 3..79; a fifth of 77 is 15."""
    found = split(samples(100, horizon=5), START, START + timedelta(hours=90), 0.25)
    assert found.validation.tolist() == list(range(61, 80))
    assert found.train.tolist() == list(range(3, 48))  # hour 47 + 6 = 58 - 5


def test_windows_across_a_missing_bar_are_in_no_part():
    some = samples(140, missing=(30, 110))
    found = split(some, START, START + timedelta(hours=139), 0.2)
    assert not set(range(31, 34)) & set(hours_of(some, found.train))
    assert not set(range(111, 114)) & set(hours_of(some, found.validation))


def test_the_first_window_is_decided_at_the_start():
    some = samples(200)
    found = split(some, START + timedelta(hours=20), START + timedelta(hours=150), 0.2)
    assert some.decided_at(int(found.train[0])) == START + timedelta(hours=20)


odd = st.builds(
    samples,
    st.integers(120, 600),
    lookback=st.integers(1, 48),
    horizon=st.integers(1, 24),
    missing=st.lists(st.integers(0, 599), max_size=4).map(tuple),
    void=st.sampled_from([0.0, 0.1, 0.5]),
)


@settings(max_examples=150, deadline=None)
@given(odd, st.floats(0.05, 0.5), st.integers(0, 60), st.integers(0, 48), st.integers(1, 100))
def test_no_label_learnt_is_realised_once_the_first_window_opens(
    some: Samples, share: float, embargo: int, late: int, held: int
):
    start = START + timedelta(hours=late)
    end = some.decided_at(-1) - timedelta(hours=held)
    try:
        found = split(some, start, end, share, embargo_hours=embargo)
    except TooFewRows:
        assume(False)
    check(some, found, embargo, start, end)
    assert len(found.validation) == round(len(some.learnable(start, end - timedelta(hours=some.horizon))) * share)


@settings(max_examples=100, deadline=None)
@given(odd, st.integers(1, 6), st.integers(0, 30), st.integers(1, 60))
def test_every_fold_learns_from_its_past_alone(some: Samples, folds: int, embargo: int, held: int):
    end = some.decided_at(-1) - timedelta(hours=held)
    try:
        found = walk_forward(some, folds, end=end, embargo_hours=embargo)
    except TooFewRows:
        assume(False)
    assert len(found) == folds
    for fold in found:
        check(some, fold, embargo, START, end)
    validated = np.concatenate([fold.validation for fold in found])
    rows = some.learnable(None, end - timedelta(hours=some.horizon))
    assert validated.tolist() == rows[len(rows) - len(validated) :].tolist()
    assert max(sizes := [len(fold.validation) for fold in found]) - min(sizes) <= 1


def check(some: Samples, found: Split, embargo: int, start: datetime, end: datetime) -> None:
    known = set(some.learnable().tolist())
    assert set(found.train.tolist()) | set(found.validation.tolist()) <= known
    first = some.times[found.validation[0] - some.lookback + 1]
    realised = some.times[found.train] + (1 + some.horizon) * HOUR_US
    assert realised.max() <= first - embargo * HOUR_US
    assert some.decided_at(int(found.train[0])) >= start
    last = some.decided_at(int(found.validation[-1])) + timedelta(hours=some.horizon)
    assert last <= end - timedelta(hours=some.horizon)
    assert len(found.train) >= FEWEST_TRAIN
    assert len(found.validation) >= FEWEST_VALIDATION


def test_too_short_a_period_is_refused_with_the_numbers():
    with pytest.raises(TooFewRows, match=r"BTCUSDT: of 45 windows .* 31 are left to learn from and 9 for validation"):
        split(samples(100), START, START + timedelta(hours=50), 0.2)
    with pytest.raises(TooFewRows, match="of 0 windows"):
        split(samples(100), START + timedelta(days=9), START + timedelta(days=99), 0.2)
    with pytest.raises(TooFewRows, match="choose a longer period"):
        walk_forward(samples(100), 5)


def test_senseless_splits_are_refused():
    for share in (0.0, 1.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="validation_split is"):
            split(samples(100), START, START + timedelta(hours=90), share)
    with pytest.raises(ValueError, match="embargo_hours is -1"):
        split(samples(100), START, START + timedelta(hours=90), 0.2, embargo_hours=-1)
    with pytest.raises(ValueError, match="folds is 0"):
        walk_forward(samples(100), 0)


def test_the_holdout_is_the_last_thirty_days():
    assert holdout_start(datetime(2025, 3, 31, tzinfo=UTC)) == datetime(2025, 3, 1, tzinfo=UTC)
    assert holdout_start(datetime(2025, 3, 31, tzinfo=UTC), 7) == datetime(2025, 3, 24, tzinfo=UTC)
    with pytest.raises(ValueError, match="without a time zone"):
        holdout_start(datetime(2025, 3, 31))  # noqa: DTZ001
    with pytest.raises(ValueError, match="days is 0"):
        holdout_start(datetime(2025, 3, 31, tzinfo=UTC), 0)
