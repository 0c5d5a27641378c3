"""Are luck's formulas those of the papers, and does cross-validation tell skill from overfitting?"""

from itertools import combinations
from math import sqrt

import numpy as np
import pytest
from scipy.stats import norm

from trading_ops.optimization.moments import Moments
from trading_ops.optimization.overfitting import (
    deflated_sharpe,
    expected_best_sharpe,
    probabilistic_sharpe,
    probability_of_overfitting,
)

YEAR = 250  # the paper's


def of_days(days: np.ndarray, blocks: int, trades: int = 10) -> Moments:
    """Moments of daily returns (sets, days), split into equal blocks."""
    parts = np.array_split(days, blocks, axis=1)
    return Moments(
        np.array([part.shape[1] for part in parts]),
        np.stack([part.sum(axis=1) for part in parts], axis=1),
        np.stack([(part**2).sum(axis=1) for part in parts], axis=1),
        np.full((len(days), blocks), float(trades)),
    )


def test_the_deflated_sharpe_ratio_of_the_papers_example():
    # Bailey and Lopez de Prado (2014): 2.5 a year, 1,250 days, skewness -3, kurtosis 10, 100 trials, variance 1/2
    assert expected_best_sharpe(100, 0.5 / YEAR) == pytest.approx(0.1132, abs=5e-5)
    assert deflated_sharpe(2.5 / sqrt(YEAR), 100, 0.5 / YEAR, 1250, -3.0, 10.0) == pytest.approx(0.9004, abs=5e-5)
    # 46 trials, or 88 and normal returns, would have left it at 0.95
    assert deflated_sharpe(2.5 / sqrt(YEAR), 46, 0.5 / YEAR, 1250, -3.0, 10.0) == pytest.approx(0.95, abs=0.001)
    assert deflated_sharpe(2.5 / sqrt(YEAR), 88, 0.5 / YEAR, 1250, 0.0, 3.0) == pytest.approx(0.95, abs=0.001)


def test_the_expected_best_of_trials_without_skill_is_what_drawing_them_gives():
    generator = np.random.default_rng(3)
    for trials in (10, 100, 1000):
        drawn = generator.standard_normal((4000, trials)).max(axis=1).mean()
        assert expected_best_sharpe(trials, 1.0) == pytest.approx(drawn, rel=0.03)


def test_one_trial_is_no_choice_and_the_benchmark_stays_zero():
    assert expected_best_sharpe(1, 5.0) == 0.0
    assert deflated_sharpe(0.1, 1, 5.0, 400, 0.0, 3.0) == probabilistic_sharpe(0.1, 0.0, 400, 0.0, 3.0)


def test_of_normal_returns_the_probability_follows_from_the_standard_error():
    sharpe, days = 0.08, 500
    error = sqrt((1 + sharpe**2 / 2) / (days - 1))
    assert probabilistic_sharpe(sharpe, 0.0, days, 0.0, 3.0) == pytest.approx(norm.cdf(sharpe / error))


def test_more_trials_and_wider_ones_make_the_same_result_less_convincing():
    by_trials = [deflated_sharpe(0.1, n, 0.002, 700, 0.0, 3.0) for n in (1, 10, 100, 100_000)]
    by_variance = [deflated_sharpe(0.1, 100, v, 700, 0.0, 3.0) for v in (0.0, 0.001, 0.01)]
    for values in (by_trials, by_variance):
        assert values == sorted(values, reverse=True)
        assert values[0] > values[-1]


@pytest.mark.parametrize(("days", "skewness"), [(1, 0.0), (100, 60.0)])
def test_a_probability_that_is_not_defined_is_none(days, skewness):
    assert probabilistic_sharpe(0.1, 0.0, days, skewness, 3.0) is None


def test_two_sets_that_take_turns_are_overfitted_in_every_half_that_tells_them_apart():
    # 4 blocks of 2 days: a earns in blocks 0 and 1, b in 2 and 3; six halves, of which {0,1} and {2,3} choose wrongly
    good, bad = [0.02, 0.01], [-0.02, -0.01]
    moments = of_days(np.array([[*good, *good, *bad, *bad], [*bad, *bad, *good, *good]]), 4)
    found = probability_of_overfitting(moments)
    # in the other four halves both sets are alike, so that the first is chosen and ties with the second: the median
    assert (found.splits, found.probability) == (6, 1.0)
    assert found.probability_of_loss == pytest.approx(2 / 6)


def test_a_set_that_is_always_better_is_not_overfitted():
    generator = np.random.default_rng(0)
    days = generator.normal(0.0, 0.01, (20, 120))
    days[7] += 0.02
    found = probability_of_overfitting(of_days(days, 12))
    assert (found.probability, found.probability_of_loss, found.splits) == (0.0, 0.0, 924)


def test_the_best_of_noise_is_below_the_median_in_half_of_the_splits_on_average():
    found = [
        probability_of_overfitting(of_days(np.random.default_rng(seed).normal(0.0, 0.01, (30, 200)), 8)).probability
        for seed in range(60)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=4 * np.std(found) / sqrt(60))


def plain_pbo(days: np.ndarray, blocks: int) -> float:
    """Bailey et al. (2015), step by step, on the daily returns themselves."""
    parts = np.array_split(days, blocks, axis=1)
    below = []
    for chosen in combinations(range(blocks), blocks // 2):
        inside = np.hstack([parts[i] for i in chosen])
        outside = np.hstack([parts[i] for i in range(blocks) if i not in chosen])
        sharpe = [side.mean(axis=1) / side.std(axis=1, ddof=1) for side in (inside, outside)]
        best = sharpe[0].argmax()
        rank = (sharpe[1] <= sharpe[1][best]).sum() / (len(days) + 1)
        below.append(np.log(rank / (1 - rank)) <= 0)
    return float(np.mean(below))


@pytest.mark.parametrize("seed", range(5))
def test_block_moments_give_what_the_papers_steps_give_on_daily_returns(seed):
    days = np.random.default_rng(seed).normal(0.0002, 0.01, (15, 163))
    assert probability_of_overfitting(of_days(days, 8)).probability == plain_pbo(days, 8)


def test_a_set_that_hardly_trades_is_not_chosen():
    days = np.random.default_rng(1).normal(0.0, 0.01, (5, 80))
    days[2] += 0.05
    moments = of_days(days, 4)
    assert probability_of_overfitting(moments, min_trades=20).probability == 0.0
    moments.trades[2] = 1.0
    assert probability_of_overfitting(moments, min_trades=20).best_in_sample_sharpe < 5


def test_without_a_choice_there_is_no_probability():
    days = np.random.default_rng(1).normal(0.0, 0.01, (5, 80))
    assert probability_of_overfitting(of_days(days[:1], 4)) is None
    assert probability_of_overfitting(of_days(days, 4, trades=0)) is None
    assert probability_of_overfitting(of_days(days * 0.0, 4)) is None
    with pytest.raises(ValueError, match="5 blocks; an even number"):
        probability_of_overfitting(of_days(days, 5))
