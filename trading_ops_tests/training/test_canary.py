"""Is a guess taken for a guess, and knowledge that cannot be found out?"""

from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np
import pytest

from trading_ops.market.soundness import check_candles
from trading_ops.training.baseline import fit_logistic
from trading_ops.training.canary import band, leaks, shuffled, shuffled_bars
from trading_ops.training.features import samples_of
from trading_ops_tests.conftest import NOON
from trading_ops_tests.training.markets import walk

HOUR = NOON.replace(minute=0)


@dataclass(frozen=True)
class Said:
    probabilities: np.ndarray
    outcomes: np.ndarray


def said(right: int, count: int = 400) -> Said:
    """Half say up, half of the hours rise; `right` of `count` are called."""
    outcomes = np.tile([1.0, 0.0], count // 2)
    wrong = np.arange(count) >= right
    return Said(np.where(wrong, 1 - outcomes, outcomes) * 0.8 + 0.1, outcomes)


def test_shuffling_keeps_which_labels_are_known_and_how_many_rise():
    labels = np.array([1, np.nan, 0, 1, 1, 0, np.nan, 0, 0, 1], dtype="float32")
    mixed = shuffled(labels, 1)
    assert mixed.dtype == np.float32
    assert np.isnan(mixed).tolist() == np.isnan(labels).tolist()
    assert np.nansum(mixed) == np.nansum(labels) == 4
    assert mixed.tobytes() == shuffled(labels, 1).tobytes() != shuffled(labels, 2).tobytes()
    assert np.isnan(labels[1])  # the original stays
    assert labels[0] == 1


def test_shuffled_labels_say_nothing_of_the_true_ones():
    labels = np.random.default_rng(5).integers(0, 2, 20_000).astype("float32")
    assert np.mean(shuffled(labels, 3) == labels) == pytest.approx(0.5, abs=0.015)


def test_the_band_holds_all_but_a_fortieth_of_all_orders_on_either_side():
    """Of the 720 orders of six outcomes, three of them rises, against four calls "up"."""
    p, y = np.array([0.9, 0.8, 0.7, 0.6, 0.2, 0.1]), np.array([1, 1, 1, 0, 0, 0])
    low, high = band(p, y)
    reached = np.array([np.mean((p > 0.5) == np.array(order)) for order in permutations(y)])
    assert np.mean(reached < low - 1e-12) <= 0.025
    assert np.mean(reached > high + 1e-12) <= 0.025
    assert (low, high) == (pytest.approx(1 / 6), pytest.approx(5 / 6))  # TP is 1, 2 or 3: each has at least a fifth


def test_over_a_month_the_band_is_that_of_a_thrown_coin():
    """720 hours, half and half: 1/2 -+ 1.96 sqrt(1/4 / 720), which is 3.65 points."""
    p, y = np.tile([0.6, 0.6, 0.4, 0.4], 180), np.tile([1.0, 0.0], 360)
    low, high = band(p, y)
    assert low == pytest.approx(0.5 - 0.0365, abs=0.003)
    assert high == pytest.approx(0.5 + 0.0365, abs=0.003)


def test_who_always_says_up_is_right_as_often_as_it_rises():
    assert band(np.full(10, 0.7), np.repeat([1.0, 0.0], [6, 4])) == (0.6, 0.6)
    assert leaks(lambda seed: Said(np.full(10, 0.7), np.repeat([1.0, 0.0], [6, 4]))) is None


def test_two_shuffles_outside_of_three_are_a_leak():
    asked = []

    def scored(seed: int) -> Said:
        asked.append(seed)
        return said({1: 250, 2: 200, 3: 150}[seed])

    reason = leaks(scored)
    assert asked == [1, 2, 3]
    assert reason is not None
    assert "62.5 % (a guess: 45.0 to 55.0 %) and 37.5 %" in reason
    assert "2 of 3 tries" in reason


def test_one_shuffle_outside_is_chance_and_where_two_agree_no_third_is_learnt():
    asked = []

    def scored(seed: int, right: dict[int, int]) -> Said:
        asked.append(seed)
        return said(right[seed])

    assert leaks(lambda seed: scored(seed, {1: 250, 2: 200, 3: 205})) is None
    assert asked == [1, 2, 3]
    asked.clear()
    assert leaks(lambda seed: scored(seed, {1: 200, 2: 210})) is None
    assert asked == [1, 2]
    asked.clear()
    assert "2 of 2 tries" in str(leaks(lambda seed: scored(seed, {1: 250, 2: 260})))
    assert asked == [1, 2]


def test_honest_guesses_are_hardly_ever_called_a_leak():
    random = np.random.default_rng(6)
    found = [
        leaks(lambda seed: Said(random.random(300), random.integers(0, 2, 300).astype("float64"))) for _ in range(200)
    ]
    assert sum(reason is not None for reason in found) <= 5  # 0.7 % are expected at most


def test_nothing_said_has_no_band():
    with pytest.raises(ValueError, match="at least one"):
        band(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match="from 0 to 1"):
        band(np.array([1.5]), np.array([1.0]))


def test_a_shuffled_market_keeps_its_moves_its_times_and_is_sound():
    bars = walk(HOUR, 60, told=0.6)
    mixed = shuffled_bars(bars, 1)
    assert check_candles(mixed, "X").sound
    assert mixed.index.equals(bars.index)
    moves = [np.sort(np.diff(np.log(frame["close"]))) for frame in (bars, mixed)]
    assert moves[0] == pytest.approx(moves[1], abs=1e-12)
    assert mixed["close"].iloc[-1] == pytest.approx(bars["close"].iloc[-1])
    assert sorted(mixed["volume"]) == sorted(bars["volume"])
    back = np.diff(np.log(mixed["close"]))
    assert np.corrcoef(back[1:], back[:-1])[0, 1] == pytest.approx(0.0, abs=0.1)  # it was -0.6


def foretold(seed: int, *, early: bool) -> Said:
    """A logistic regression on a shuffled market, whose last feature is this hour's return, or the next one's."""
    samples = samples_of("X", shuffled_bars(walk(HOUR, 120), seed))
    seen = samples.features.copy()
    if early:
        seen[:-1, 0] = seen[1:, 0]
    samples = replace(samples, features=seen)
    rows = samples.learnable()
    taught, kept = rows[: len(rows) * 2 // 3], rows[len(rows) * 2 // 3 :]
    return Said(fit_logistic(samples, taught).probabilities(samples, kept), samples.labels[kept])


def test_a_feature_that_sees_a_bar_too_early_is_found_in_a_shuffled_market():
    assert leaks(lambda seed: foretold(seed, early=False), "a shuffled market") is None
    assert "taught a shuffled market, it was right in " in str(
        leaks(lambda seed: foretold(seed, early=True), "a shuffled market")
    )
