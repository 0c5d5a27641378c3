"""Is a set chosen by the blocks before a fold alone, and are blocks as good as the days they are made of?"""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trading_ops.optimization.moments import Moments, join, sharpe_over
from trading_ops.optimization.walk_forward import rank_sets, train_sharpe, walk_forward
from trading_ops.performance.metrics import sharpe_ratio
from trading_ops_tests.optimization.test_overfitting import of_days

YEAR = sqrt(365)


def matrix(returns: list[list[float]], trades: list[list[int]], squares: float = 0.02) -> Moments:
    """Blocks of two days each; equal sums of squares, so that the larger sum has the larger Sharpe ratio."""
    sums = np.array(returns)
    return Moments(np.full(sums.shape[1], 2), sums, np.full(sums.shape, squares), np.array(trades, dtype=float))


# two training blocks, then three folds
BY_HAND = matrix(
    [[0.10, 0.00, -0.10, 0.00, 0.10], [0.02, 0.04, 0.10, -0.02, 0.00], [0.15, 0.15, 0.15, 0.15, 0.15]],
    [[3, 3, 3, 3, 3], [3, 3, 3, 3, 3], [1, 1, 1, 1, 9]],
)


def test_each_fold_is_traded_with_the_best_set_of_the_blocks_before_it():
    # before fold 2: sums 0.10 and 0.06; before 3: 0.00 and 0.16; before 4: 0.00 and 0.14. The third set has the
    # largest sums, but 2, 3 and 4 trades, below the 5 that are asked
    steps = walk_forward(BY_HAND, 2, min_trades=5)
    assert [(step.block, step.chosen) for step in steps] == [(2, 0), (3, 1), (4, 1)]
    # 4 days, sum 0.10, squares 0.04: mean 0.025, deviation sqrt((0.04 - 0.0025) / 3)
    assert steps[0].sharpe_before == pytest.approx(YEAR * 0.025 / sqrt(0.0375 / 3))


def test_where_no_set_traded_enough_nothing_is_chosen():
    assert [step.chosen for step in walk_forward(BY_HAND, 2, min_trades=8)] == [None, 1, 1]
    assert [step.chosen for step in walk_forward(BY_HAND, 2, min_trades=100)] == [None] * 3


def test_a_lax_rule_chooses_the_set_with_few_trades():
    assert [step.chosen for step in walk_forward(BY_HAND, 2, min_trades=2)] == [2, 2, 2]


def test_sets_are_ranked_by_all_folds_together():
    # sums over the folds: 0.00, 0.08 and 0.45; trades 9, 9 and 11
    assert rank_sets(BY_HAND, 2, min_trades=3).tolist() == [2, 1, 0]
    assert rank_sets(BY_HAND, 2, min_trades=4).tolist() == []


def test_only_training_blocks_guide_a_search():
    guided = train_sharpe(BY_HAND, 2, min_trades=5)
    assert guided[0] == pytest.approx(YEAR * 0.025 / sqrt(0.0375 / 3))
    assert np.isnan(guided[2])


@given(st.integers(0, 2**32 - 1), st.integers(2, 7))
@settings(max_examples=40, deadline=None)
def test_what_happens_in_a_fold_or_later_has_no_part_in_its_choice(seed, fold):
    generator = np.random.default_rng(seed)
    days = generator.normal(0.0, 0.01, (6, 80))
    moments, changed = of_days(days, 8), of_days(days, 8)
    for array in (changed.returns, changed.squares, changed.trades):
        array[:, fold:] = generator.uniform(0.0, 1.0, array[:, fold:].shape)
    before = [step for step in walk_forward(moments, 2, 5) if step.block <= fold]
    assert [step for step in walk_forward(changed, 2, 5) if step.block <= fold] == before


@given(arrays(float, st.tuples(st.integers(1, 4), st.integers(4, 60)), elements=st.floats(-0.2, 0.2)))
@settings(deadline=None)
def test_the_sharpe_ratio_of_blocks_is_that_of_their_days(days):
    moments = of_days(days, 4)
    for blocks in (slice(None), slice(2), [0, 3]):
        parts = np.array_split(days, 4, axis=1)
        chosen = np.hstack([parts[i] for i in np.arange(4)[blocks]])
        for found, returns in zip(sharpe_over(moments, blocks), chosen, strict=True):
            expected = sharpe_ratio(returns)
            if expected is None or returns.std() < 1e-6 * np.abs(returns).max():
                assert np.isnan(found) or expected is None or abs(found) > 1e6  # rounding of no deviation at all
            else:
                assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_set_that_never_trades_has_no_sharpe_ratio():
    assert np.isnan(sharpe_over(of_days(np.zeros((2, 40)), 4), slice(None))).all()


def test_joined_parts_are_the_sets_in_order():
    days = np.random.default_rng(0).normal(size=(5, 40))
    whole, parts = of_days(days, 4), join([of_days(days[:2], 4), of_days(days[2:], 4)])
    assert len(parts) == 5
    for name in ("days", "returns", "squares", "trades"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name))
