"""Are the scores those of the textbooks, and undefined where they are?"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.accuracy.scoring import (
    accuracy,
    brier,
    brier_skill,
    calibration_error,
    f1,
    pesaran_timmermann,
    reliability,
    score,
)

P = [0.9, 0.6, 0.4, 0.2, 0.5]
Y = [1, 0, 1, 0, 1]  # right: 0.9 and 0.2; one half calls no rise
pairs = st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60)


def test_five_predictions_are_scored_as_by_hand():
    scores = score(P, Y, reference=0.5)
    assert (scores.n, scores.accuracy, scores.base_rate) == (5, 0.4, 0.6)
    assert scores.brier == pytest.approx((0.01 + 0.36 + 0.36 + 0.04 + 0.25) / 5)
    assert scores.f1 == pytest.approx(2 * 1 / (2 * 1 + 1 + 2))  # one rise called, one called in vain, two missed
    assert scores.skill == pytest.approx(1 - scores.brier / 0.25)
    assert scores.interval == pytest.approx((0.1176, 0.7693), abs=1e-4)  # Wilson's for 2 of 5


def test_without_predictions_nothing_is_defined():
    assert score([], []) is None
    assert (accuracy([], []), brier([], []), f1([], []), pesaran_timmermann([], [])) == (None,) * 4
    assert brier_skill([], [], 0.5) is None
    assert calibration_error([], []) is None


def test_what_one_kind_of_outcome_cannot_say_is_none():
    falls = score([0.1, 0.2], [0, 0], reference=0.0)
    assert (falls.f1, falls.skill, falls.ece, falls.pt_p_value) == (None, None, None, None)
    assert falls.accuracy == 1.0


def test_skill_is_undefined_without_a_reference_and_zero_for_the_reference_itself():
    assert score(P, Y).skill is None
    assert score([0.6] * 5, Y, reference=0.6).skill == pytest.approx(0.0)


def test_calibration_error_is_the_weighted_distance_between_what_was_said_and_what_happened():
    p, y = [0.3] * 10 + [0.8] * 10, [1] * 4 + [0] * 6 + [1] * 6 + [0] * 4  # 0.4 of 0.3, 0.6 of 0.8
    assert calibration_error(p, y) == pytest.approx(0.5 * 0.1 + 0.5 * 0.2)
    count, said, rose = reliability(p, y)
    assert (count.tolist(), said.tolist(), rose.tolist()) == ([10, 10], pytest.approx([0.3, 0.8]), [0.4, 0.6])


def test_bins_of_different_probabilities_hold_about_the_same_mass():
    count, said, _ = reliability(np.linspace(0.01, 0.99, 1_000), np.zeros(1_000))
    assert count.tolist() == [100] * 10
    assert (np.diff(said) > 0).all()


def test_pesaran_timmermann_by_hand():
    # 60 of 100 right, half of the calls and of the outcomes rises: PT = 0.1 / sqrt(0.25 / 100 - 0.25 / 100^2)
    p, y = [0.9] * 50 + [0.1] * 50, [1] * 30 + [0] * 20 + [1] * 20 + [0] * 30
    statistic = 0.1 / math.sqrt(0.25 / 100 - 0.25 / 100**2)
    assert pesaran_timmermann(p, y) == pytest.approx(0.5 * math.erfc(statistic / math.sqrt(2)))
    assert pesaran_timmermann([0.9] * 100, y) is None  # always the same call


@pytest.mark.parametrize(
    ("p", "y", "why"),
    [
        ([0.5, 1.2], [1, 0], r"probability_up\[1\] is 1.2; from 0 to 1"),
        ([math.nan], [1], r"probability_up\[0\] is nan"),
        ([math.inf], [1], r"probability_up\[0\] is inf"),
        ([0.5, 0.5], [1, math.nan], r"up\[1\] is nan; 1 or 0"),
        ([0.5], [0.3], r"up\[0\] is 0.3"),
        ([0.5, 0.5], [1], r"\(2,\) probabilities and \(1,\) outcomes"),
        ([[0.5]], [[1]], "one outcome a probability"),
    ],
)
def test_what_is_no_prediction_or_no_outcome_is_refused(p, y, why):
    with pytest.raises(ValueError, match=why):
        score(p, y)


def test_a_reference_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match=r"reference is 52"):
        score(P, Y, reference=52)


@given(pairs)
def test_scores_agree_with_plain_loops(rows):
    p, y = [p for p, _ in rows], [y for _, y in rows]
    scores = score(p, y, reference=0.5)
    hits = [(a > 0.5) == (b == 1) for a, b in rows]
    tp = sum(a > 0.5 and b == 1 for a, b in rows)
    wrong = sum((a > 0.5) != (b == 1) for a, b in rows)
    assert scores.accuracy == pytest.approx(sum(hits) / len(hits))
    assert scores.brier == pytest.approx(sum((a - b) ** 2 for a, b in rows) / len(rows))
    assert scores.f1 == (pytest.approx(2 * tp / (2 * tp + wrong)) if tp + wrong else None)
    assert scores.skill == pytest.approx(1 - scores.brier / 0.25)


@given(pairs, st.randoms(use_true_random=False))
def test_scores_are_within_their_bounds_and_do_not_depend_on_the_order(rows, random):
    shuffled = random.sample(rows, len(rows))
    one, other = (score([p for p, _ in r], [y for _, y in r], reference=0.4) for r in (rows, shuffled))
    for field in ("accuracy", "brier", "f1", "base_rate", "ece", "pt_p_value"):
        value = getattr(one, field)
        assert value is None or 0.0 <= value <= 1.0
        assert value == pytest.approx(getattr(other, field))
    assert one.interval[0] <= one.accuracy <= one.interval[1]


@given(pairs)
def test_forecasts_that_were_perfect_score_perfectly(rows):
    y = [y for _, y in rows]
    scores = score(y, y)
    assert (scores.accuracy, scores.brier) == (1.0, 0.0)
    assert scores.ece in (None, 0.0)
