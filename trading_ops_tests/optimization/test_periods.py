"""Are days split as said: equal blocks, purged starts, and a final period that no search sees?"""

from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.optimization.periods import (
    LEFT_OUT,
    MIN_BLOCK_DAYS,
    Splitting,
    TooFewDays,
    days_needed,
    split_days,
    whole_days,
)


def hours(start: str, count: int) -> pd.DataFrame:
    index = pd.date_range(start, periods=count, freq="h", tz="UTC", name="time")
    return pd.DataFrame(dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0), index=index)


def test_a_hundred_days_by_hand():
    # 20 days at the end; 80 in 4 blocks of 20, the first day of each left out
    split = split_days(hours("2025-01-01", 2400), Splitting(train_blocks=2, folds=2))
    assert split.day_blocks.tolist() == [n for block in range(4) for n in [LEFT_OUT] + [block] * 19]
    assert (split.train.first, split.train.last) == (date(2025, 1, 2), date(2025, 2, 9))
    assert [fold.first for fold in split.folds] == [date(2025, 2, 11), date(2025, 3, 3)]
    assert (split.final.first, split.final.last) == (date(2025, 3, 22), date(2025, 4, 10))


def test_purged_days_belong_to_no_block():
    split = split_days(hours("2025-01-01", 24 * 200), Splitting(3, 3, purge_days=4, final_pct=10))
    for fold in [split.train, *split.folds]:
        assert len(fold.days)
    starts = np.flatnonzero(np.diff(split.day_blocks, prepend=-2) != 0)
    assert split.day_blocks[:4].tolist() == [LEFT_OUT] * 4
    for block in range(1, 6):
        first = int(np.flatnonzero(split.day_blocks == block)[0])
        assert (split.day_blocks[first - 4 : first] == LEFT_OUT).all()
        assert split.day_blocks[first - 5] == block - 1
    assert len(starts) == 12


def test_a_day_without_bars_is_no_day():
    candles = hours("2025-01-01", 2400)
    holed = candles[(candles.index < "2025-02-01") | (candles.index >= "2025-02-04")]
    assert len(split_days(holed).search_days) + len(split_days(holed).final.days) == 97


@pytest.mark.parametrize(
    ("start", "count", "first", "last"),
    [
        ("2025-01-01 00:00", 48, "2025-01-01 00:00", "2025-01-02 23:00"),
        ("2025-01-01 07:00", 24 * 3, "2025-01-02 00:00", "2025-01-03 23:00"),
        ("2025-01-01 00:00", 71, "2025-01-01 00:00", "2025-01-02 23:00"),
    ],
)
def test_days_that_the_candles_only_touch_are_left_off(start, count, first, last):
    whole = whole_days(hours(start, count))
    assert (str(whole.index[0])[:16], str(whole.index[-1])[:16]) == (first, last)


def test_candles_without_a_whole_day_have_none():
    assert len(whole_days(hours("2025-01-01 01:00", 30))) == 0
    assert len(whole_days(hours("2025-01-01", 0))) == 0


def test_too_few_days_are_told_with_those_that_are_needed():
    with pytest.raises(TooFewDays, match="the candles have 60 whole days, and 90 are needed for 12 blocks"):
        split_days(hours("2025-01-01", 24 * 60))
    with pytest.raises(TooFewDays, match="have 0 whole days"):
        split_days(hours("2025-01-01", 0))


@given(st.builds(Splitting, st.integers(2, 10), st.integers(2, 6), st.integers(0, 9), st.floats(5, 50)))
@settings(max_examples=60, deadline=None)
def test_as_many_days_as_are_needed_are_enough_and_one_less_is_not(splitting):
    needed = days_needed(splitting)
    split = split_days(hours("2025-01-01", 24 * needed), splitting)
    sizes = np.bincount(split.day_blocks[split.day_blocks >= 0])
    assert len(sizes) == splitting.blocks
    assert sizes.min() >= MIN_BLOCK_DAYS
    assert sizes.max() - sizes.min() <= 1
    assert len(split.final.days) >= MIN_BLOCK_DAYS
    assert split.search_days[-1] < split.final.days[0]
    with pytest.raises(TooFewDays, match=f"{needed} are needed"):
        split_days(hours("2025-01-01", 24 * (needed - 1)), splitting)
