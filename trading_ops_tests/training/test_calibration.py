"""Are log-odds believed as far as the outcomes bear them out, and no further?"""

from math import log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.training.calibration import calibrated, platt, ridge_logit


def drawn(slope: float, count: int, seed: int = 1, intercept: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds with a deviation of 1, and outcomes that follow `slope` times of them."""
    random = np.random.default_rng(seed)
    logits = random.normal(size=count)
    return logits, (random.random(count) < calibrated(logits, slope, intercept)).astype("float32")


def test_without_a_penalty_two_groups_get_the_log_odds_of_their_shares():
    """x = 1: 30 of 40 rise; x = -1: 10 of 40. log-odds log 3 and -log 3, so the slope is log 3 and the intercept 0."""
    x = np.repeat([1.0, -1.0], 40)[:, None]
    y = np.concatenate([np.repeat([1.0, 0.0], [30, 10]), np.repeat([1.0, 0.0], [10, 30])])
    slope, intercept = ridge_logit(x, y, 0.0)
    assert slope[0] == pytest.approx(log(3), abs=1e-7)
    assert intercept == pytest.approx(0.0, abs=1e-7)


def test_at_the_minimum_the_penalty_balances_the_slope():
    """d/dw: sum x (p - y) + l2 w = 0, and for the intercept sum (p - y) = 0."""
    logits, y = drawn(0.5, 500)
    slope, intercept = ridge_logit(logits[:, None], y.astype("float64"), 30.0)
    left = calibrated(logits, slope[0], intercept) - y
    assert (logits @ left) + 30.0 * slope[0] == pytest.approx(0.0, abs=1e-4)
    assert left.sum() == pytest.approx(0.0, abs=1e-4)


def test_overconfident_log_odds_are_taken_back():
    logits, labels = drawn(0.3, 20_000)
    a, b = platt(10.0 * logits + 2.0, labels)  # ten times too loud, and leaning to one side
    assert a == pytest.approx(0.03, rel=0.15)
    assert 2.0 * a + b == pytest.approx(0.0, abs=0.05)


def test_few_windows_hardly_move_it_from_the_base_rate():
    few, many = (platt(*drawn(0.3, count))[0] for count in (50, 20_000))
    assert 0.0 <= few < 0.15 < many


def test_log_odds_that_point_the_wrong_way_leave_the_base_rate():
    logits, labels = drawn(-1.0, 2_000, intercept=0.4)
    a, b = platt(logits, labels)
    share = labels.mean()
    assert a == 0.0
    assert calibrated(logits, a, b) == pytest.approx(np.full(2_000, share), abs=1e-3)


def test_the_same_log_odds_everywhere_or_the_same_outcome_leave_the_base_rate():
    assert platt(np.full(10, 0.7), np.repeat([1, 0], 5)) == (0.0, pytest.approx(0.0, abs=1e-12))
    # eight rises: each counts 9/10, so does their share
    a, b = platt(np.linspace(-1, 1, 8), np.ones(8))
    assert (a, b) == (pytest.approx(0.0, abs=1e-6), pytest.approx(log(9), abs=1e-6))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-3, 3), st.floats(0.01, 100), st.integers(2, 300))
def test_calibration_never_turns_the_order_and_keeps_the_share_of_rises(
    seed: int, slope: float, loud: float, count: int
):
    logits, labels = drawn(slope, count, seed)
    a, b = platt(loud * logits, labels)
    said = calibrated(loud * logits, a, b)
    assert a >= 0.0
    assert ((said > 0) & (said < 1)).all()
    rises = labels.sum()
    share = (rises * (rises + 1) / (rises + 2) + (count - rises) / (count - rises + 2)) / count
    assert said.mean() == pytest.approx(share, abs=1e-5)


def test_senseless_log_odds_and_labels_are_refused():
    with pytest.raises(ValueError, match=r"\(3,\) logits and \(2,\) labels"):
        platt(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="at least one"):
        platt(np.zeros(0), np.zeros(0))
    with pytest.raises(ValueError, match=r"logits\[1\] is inf"):
        platt(np.array([0.0, np.inf]), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"labels\[1\] is nan; 1 or 0"):
        platt(np.array([0.0, 1.0]), np.array([0, np.nan]))
