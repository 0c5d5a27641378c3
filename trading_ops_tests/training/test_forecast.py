"""Do the quantiles hold what they promise, and does nothing know the future?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.training.forecast import LEVELS, TooFewWindows, forecast

HOUR_US = 3_600_000_000
N = 3000


def market(seed: int = 0, told: float = 0.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times, closes and log-odds of a walk whose next hour follows the log-odds by `told`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 0.3, N)
    moves = 0.004 * (told * logits[:-1] + rng.standard_normal(N - 1))
    times = np.arange(N, dtype="int64") * HOUR_US
    return times, 100 * np.exp(np.concatenate([[0.0], np.cumsum(moves)])), logits


def ahead(times: np.ndarray, close: np.ndarray, logits: np.ndarray, **more: int) -> list:
    return forecast(times, close, logits, **{"unseen_from": int(times[200]), "horizon": 1, "hours": 24, **more})


def test_nine_in_ten_outcomes_lie_between_the_outer_quantiles():
    covered = np.array([[hour.coverage_90 for hour in ahead(*market(seed))] for seed in range(8)])
    assert covered.mean(axis=0) == pytest.approx(np.full(24, 0.90), abs=0.04)


def test_the_quantiles_ascend_and_widen_with_the_hours():
    hours = ahead(*market())
    for hour in hours:
        prices = list(hour.prices.values())
        assert prices == sorted(prices)
        assert len(prices) == len(LEVELS)
    width = [np.log(hour.prices["p95"] / hour.prices["p05"]) for hour in hours]
    assert width[15] / width[0] == pytest.approx(4.0, rel=0.2)  # a walk's deviation grows with the root of time


def test_at_the_models_own_horizon_the_probability_is_its_own():
    times, close, logits = market()
    logits[-1] = np.log(0.58 / 0.42)
    first, second = ahead(times, close, logits, hours=2)
    assert first.probability_up == pytest.approx(0.58)
    assert second.probability_up != pytest.approx(0.58)


def test_log_odds_that_tell_something_move_the_whole_distribution():
    times, close, logits = market(told=1.0)
    logits[-1] = 1.0
    up = ahead(times, close, logits, horizon=2, hours=1)[0]
    logits[-1] = -1.0
    down = ahead(times, close, logits, horizon=2, hours=1)[0]
    assert up.probability_up > 0.65 > 0.35 > down.probability_up
    assert up.prices["p50"] > close[-1] > down.prices["p50"]


def test_log_odds_that_tell_nothing_leave_the_probability_near_a_half():
    times, close, logits = market(seed=3)
    logits[-1] = 1.0
    assert ahead(times, close, logits, horizon=2, hours=1)[0].probability_up == pytest.approx(0.5, abs=0.08)


def test_too_few_unseen_windows_are_said_with_what_is_needed():
    times, close, logits = market()
    with pytest.raises(TooFewWindows, match=r"^99 windows .* 1 h ahead; at least 300 are needed"):
        ahead(times, close, logits, unseen_from=int(times[-100]) + HOUR_US)


def test_a_model_that_cannot_see_the_newest_bar_says_so():
    times, close, logits = market()
    logits[-1] = np.nan
    with pytest.raises(ValueError, match="a bar is missing in its window"):
        ahead(times, close, logits)


def test_what_lies_across_missing_bars_is_no_outcome():
    times, close, logits = market()
    whole = ahead(times, close, logits, hours=1)[0]
    keep = np.ones(N, dtype=bool)
    keep[1000:1005] = False
    cut = ahead(times[keep], close[keep], logits[keep], hours=1)[0]
    assert whole.n - cut.n == 6  # the five bars, and the one before them, whose next hour is missing


@settings(max_examples=15, deadline=None)
@given(factor=st.floats(1e-6, 1e6))
def test_prices_scale_with_the_quote(factor: float):
    times, close, logits = market()
    one, other = (ahead(times, c, logits, hours=1)[0] for c in (close, close * factor))
    assert other.probability_up == one.probability_up
    assert list(other.prices.values()) == pytest.approx([factor * price for price in one.prices.values()], rel=1e-9)
