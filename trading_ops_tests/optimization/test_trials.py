"""Does every trial count, once, and is a second search's narrowness no excuse?"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trading_ops.audit.store import open_store
from trading_ops.optimization.trials import Trials, count_trials

FINAL = ("2025-01-01", "2025-03-01")
SCOPE = "BTCUSDT/recorded"


def count_of(store, digest, tried, sharpes, final=FINAL, *, scope=SCOPE, strategy="rsi", judged=None) -> Trials:
    return count_trials(store, scope, strategy, digest, tried, sharpes, judged=judged or final[0], final=final)


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path / 'audit.db'}") as opened:
        yield opened


def test_trials_add_up_and_the_same_search_counts_once(store):
    one, two = np.array([0.1, 0.2, np.nan]), np.array([0.0, 0.3])
    assert count_of(store, "a", 3, one).trials == 3
    both = count_of(store, "b", 2, two)
    assert (both.searches, both.trials, both.looks) == (2, 5, 2)
    assert both.variance == pytest.approx(np.var([0.1, 0.2, 0.0, 0.3], ddof=1))
    assert count_of(store, "a", 3, one) == both


def test_a_narrow_search_does_not_hide_the_width_of_an_earlier_one(store):
    wide = np.random.default_rng(0).normal(0.0, 0.1, 500)
    narrow = 0.15 + np.random.default_rng(1).normal(0.0, 0.001, 50)
    count_of(store, "wide", 500, wide)
    both = count_of(store, "narrow", 50, narrow)
    assert both.variance == pytest.approx(np.concatenate([wide, narrow]).var(ddof=1))


def test_other_strategies_symbols_and_simulated_candles_have_counts_of_their_own(store):
    for scope, strategy in (
        (SCOPE, "rsi"),
        ("BTCUSDT/simulated", "rsi"),
        ("BTCUSDTX/recorded", "rsi"),
        (SCOPE, "macd"),
    ):
        assert count_of(store, "a", 7, np.zeros(7), scope=scope, strategy=strategy).trials == 7


@pytest.mark.parametrize(
    ("other", "looks"),
    [(("2025-03-01", "2025-04-01"), 2), (("2025-03-02", "2025-04-01"), 1), (("2024-12-01", "2024-12-31"), 1)],
)
def test_a_look_is_a_search_whose_final_period_shares_a_day(store, other, looks):
    count_of(store, "a", 10, np.zeros(10))
    assert count_of(store, "b", 10, np.zeros(10), other).looks == looks


def test_days_that_another_strategy_or_another_searchs_folds_have_shown_are_no_longer_unseen(store):
    count_of(store, "a", 10, np.zeros(10), ("2025-03-02", "2025-04-01"), strategy="macd", judged="2025-02-01")
    assert count_of(store, "b", 10, np.zeros(10)).looks == 2


def test_searches_that_end_at_the_same_moment_all_count(tmp_path):
    def count(number: int) -> int:
        with open_store(f"sqlite:///{tmp_path / 'audit.db'}") as store:
            return count_of(store, str(number // 2), 10, np.zeros(10)).trials

    count(0)
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(count, range(16)))
    assert max(counts) == 80
    assert count(0) == 80


def test_trials_without_a_sharpe_ratio_count_but_have_no_variance(store):
    found = count_of(store, "a", 4, np.full(4, np.nan))
    assert (found.trials, found.variance) == (4, 0.0)
