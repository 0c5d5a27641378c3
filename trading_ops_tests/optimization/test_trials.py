"""Does every trial count, once, and is a second search's narrowness no excuse?"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trading_ops.audit.store import open_store
from trading_ops.optimization.trials import count_trials

FINAL = ("2025-01-01", "2025-03-01")
SCOPE = "rsi/BTCUSDT/recorded"


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path / 'audit.db'}") as opened:
        yield opened


def test_trials_add_up_and_the_same_search_counts_once(store):
    one, two = np.array([0.1, 0.2, np.nan]), np.array([0.0, 0.3])
    assert count_trials(store, SCOPE, "a", 3, one, FINAL).trials == 3
    both = count_trials(store, SCOPE, "b", 2, two, FINAL)
    assert (both.searches, both.trials, both.looks) == (2, 5, 2)
    assert both.variance == pytest.approx(np.var([0.1, 0.2, 0.0, 0.3], ddof=1))
    assert count_trials(store, SCOPE, "a", 3, one, FINAL) == both


def test_a_narrow_search_does_not_hide_the_width_of_an_earlier_one(store):
    wide = np.random.default_rng(0).normal(0.0, 0.1, 500)
    narrow = 0.15 + np.random.default_rng(1).normal(0.0, 0.001, 50)
    count_trials(store, SCOPE, "wide", 500, wide, FINAL)
    both = count_trials(store, SCOPE, "narrow", 50, narrow, FINAL)
    assert both.variance == pytest.approx(np.concatenate([wide, narrow]).var(ddof=1))


def test_other_strategies_symbols_and_simulated_candles_have_counts_of_their_own(store):
    for scope in (SCOPE, "rsi/BTCUSDT/simulated", "rsi/BTCUSDTX/recorded", "macd/BTCUSDT/recorded"):
        assert count_trials(store, scope, "a", 7, np.zeros(7), FINAL).trials == 7


@pytest.mark.parametrize(
    ("other", "looks"),
    [(("2025-03-01", "2025-04-01"), 2), (("2025-03-02", "2025-04-01"), 1), (("2024-12-01", "2024-12-31"), 1)],
)
def test_a_look_is_a_search_whose_final_period_shares_a_day(store, other, looks):
    count_trials(store, SCOPE, "a", 10, np.zeros(10), FINAL)
    assert count_trials(store, SCOPE, "b", 10, np.zeros(10), other).looks == looks


def test_searches_that_end_at_the_same_moment_all_count(tmp_path):
    def count(number: int) -> int:
        with open_store(f"sqlite:///{tmp_path / 'audit.db'}") as store:
            return count_trials(store, SCOPE, str(number // 2), 10, np.zeros(10), FINAL).trials

    count(0)
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(count, range(16)))
    assert max(counts) == 80
    assert count(0) == 80


def test_trials_without_a_sharpe_ratio_count_but_have_no_variance(store):
    found = count_trials(store, SCOPE, "a", 4, np.full(4, np.nan), FINAL)
    assert (found.trials, found.variance) == (4, 0.0)
