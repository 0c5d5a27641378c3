"""Do intervals over blocks of hours hold what they promise?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.accuracy.bootstrap import (
    DAY_US,
    WEEK_US,
    block_draws,
    difference_draws,
    interval_of,
    mean_interval,
)
from trading_ops.accuracy.outcomes import HOUR_US

MONTH = np.arange(30 * 24) * HOUR_US + 1_700_000_000_000_000 // HOUR_US * HOUR_US


def plain_means(values, times_us, drawn):
    """Each drawn period hour by hour."""
    hours = (times_us - times_us.min()) // HOUR_US
    means = []
    for starts in drawn.starts:
        taken = [(start + i) % drawn.hours for start in starts for i in range(drawn.block)][: drawn.hours]
        rows = np.concatenate([values[hours == hour] for hour in taken])
        means.append(rows.mean())
    return values.mean() + (np.array(means) - values.mean()) * np.sqrt(drawn.hours / (drawn.hours - drawn.block))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1_000), st.integers(49, 90), st.integers(1, 3))
def test_drawn_means_are_those_of_a_plain_loop(seed, hours, symbols):
    rng = np.random.default_rng(seed)
    times = np.repeat(np.arange(hours) * HOUR_US, symbols)
    kept = rng.random(len(times)) < 0.9  # hours without a label are normal
    kept[[0, -1]] = True
    times, values = times[kept], rng.random(kept.sum())
    drawn = block_draws(times, block_us=DAY_US, draws=5, seed=seed)
    assert drawn.means(values) == pytest.approx(plain_means(values, times, drawn))


def test_the_order_of_rows_and_the_epoch_say_nothing_and_a_seed_says_all():
    rng = np.random.default_rng(3)
    values, order = rng.random(len(MONTH)), rng.permutation(len(MONTH))
    one = mean_interval(values, MONTH, seed=7)
    assert mean_interval(values[order], MONTH[order] + DAY_US, seed=7) == pytest.approx(one)
    assert mean_interval(values, MONTH, seed=8) != one


def test_symbols_that_repeat_each_other_add_no_certainty():
    values = np.random.default_rng(3).random(len(MONTH))
    alone = mean_interval(values, MONTH)
    five = mean_interval(np.tile(values, 5), np.tile(MONTH, 5))
    assert five == pytest.approx(alone)


def test_the_mean_of_a_constant_is_known_exactly():
    assert mean_interval(np.full(len(MONTH), 0.25), MONTH) == pytest.approx((0.25, 0.25))


def test_less_than_two_blocks_of_hours_give_no_interval():
    assert mean_interval(np.ones(335), MONTH[:335]) is None
    assert mean_interval(np.ones(336), MONTH[:336]) == (1.0, 1.0)
    assert mean_interval([], []) is None
    assert difference_draws((np.ones(24), MONTH[:24]), (np.ones(168), MONTH[:168])) is None


@pytest.mark.parametrize("block_us", [0, DAY_US + 1, -WEEK_US])
def test_a_block_that_is_no_whole_hours_is_refused(block_us):
    with pytest.raises(ValueError, match=f"block_us is {block_us}"):
        block_draws(MONTH, block_us=block_us)


def test_values_and_times_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\) values for \(720,\) times"):
        block_draws(MONTH).means([1, 2, 3])


def test_draws_without_any_row_give_no_interval():
    assert interval_of(np.array([np.nan, np.nan])) is None


def test_the_truth_lies_in_most_intervals():
    """300 months and fortnights of coin flips: a nominal 95 % that measures 91 % on four blocks, 94 % on a drop."""
    rng, inside, within = np.random.default_rng(5), 0, 0
    early, late = MONTH[:168], MONTH[168:336]
    for seed in range(300):
        low, high = mean_interval(rng.random(len(MONTH)) < 0.52, MONTH, draws=300, seed=seed)
        inside += low <= 0.52 <= high
        weeks = rng.random((2, 168)) < 0.52
        low, high = interval_of(difference_draws((weeks[1], late), (weeks[0], early), draws=300, seed=seed))
        within += low <= 0.0 <= high
    assert inside / 300 > 0.85
    assert within / 300 > 0.88


def test_hours_that_move_together_widen_the_interval():
    rng = np.random.default_rng(6)
    hourly = (rng.random(720) < 0.5).astype(float)
    daily = np.repeat((rng.random(30) < 0.5).astype(float), 24)
    width = [high - low for low, high in (mean_interval(v, MONTH) for v in (hourly, daily))]
    assert width[1] > 2 * width[0]


def test_a_drop_of_ten_points_in_one_symbol_is_seen_only_with_enough_hours():
    rng = np.random.default_rng(9)
    early, late = MONTH[:168], MONTH[168:336]
    one = interval_of(difference_draws((rng.random(168) < 0.45, late), (rng.random(168) < 0.55, early)))
    assert one[1] - one[0] > 0.15  # 168 coins a week: ten points are within their noise
    twenty = [(rng.random(168 * 20) < share, np.tile(week, 20)) for share, week in ((0.45, late), (0.55, early))]
    low, high = interval_of(difference_draws(*twenty))
    assert high < 0.0
    assert low > -0.2
