"""Do other people's libraries get the same figures, and do the figures keep their laws?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.audit.chain import canonical_json
from trading_ops.performance.intervals import mean_interval, wilson_interval
from trading_ops.performance.metrics import (
    DAYS_PER_YEAR,
    Limits,
    max_drawdown,
    measure_performance,
    profit_factor,
    sharpe_ratio,
    sharpe_standard_error,
    win_rate,
)
from trading_ops.performance.window import measure_days
from trading_ops.portfolio.equity import PORTFOLIO, DailyEquity

LOGS = 200
STRATEGIES = ("rsi", "macd", "bollinger")
DAYS = pd.date_range("2024-11-01", "2025-03-31", tz="UTC")

quick = settings(max_examples=100, deadline=None)
seeds = st.integers(0, 2**32 - 1)
amounts = st.lists(st.integers(-100_000, 100_000).map(float), max_size=60)
returns = st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=60)
equities = st.lists(st.floats(0.01, 1e9), min_size=1, max_size=60)


def log(seed: int, count: int | None = None) -> pd.DataFrame:
    """A random log: some zeros, skewed profits."""
    random = np.random.default_rng(seed)
    size = int(random.integers(2, 80)) if count is None else count
    pct = np.where(random.random(size) < 0.1, 0.0, random.normal(0.3, 2.0, size) + random.exponential(0.5, size) - 0.5)
    return pd.DataFrame({"pnl_usdt": pct * random.uniform(1, 50, size), "pnl_pct": pct})


def daily(seed: int, count: int = 120) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_t(5, int(random.integers(2, count))) * 0.02 + random.normal(0, 0.005)


@pytest.fixture(scope="module")
def numbers() -> list[int]:
    return list(range(LOGS))


def test_B066_sharpe_ratio_is_empyricals_on_365_days(numbers: list[int]):
    from empyrical import sharpe_ratio as theirs

    for seed in numbers:
        expected = theirs(daily(seed), risk_free=0, annualization=DAYS_PER_YEAR)
        assert sharpe_ratio(daily(seed)) == pytest.approx(expected, rel=1e-9, abs=1e-9), seed


def test_max_drawdown_is_empyricals(numbers: list[int]):
    from empyrical import max_drawdown as theirs

    for seed in numbers:
        equity = 10_000 * np.cumprod([1.0, *(1 + daily(seed))])
        assert max_drawdown(equity) == pytest.approx(-theirs(daily(seed)), abs=1e-9), seed


def test_wilson_interval_is_statsmodels(numbers: list[int]):
    from statsmodels.stats.proportion import proportion_confint

    for seed in numbers:
        trades = log(seed)
        wins = int((trades["pnl_usdt"] > 0).sum())
        expected = proportion_confint(wins, len(trades), alpha=0.05, method="wilson")
        assert wilson_interval(wins, len(trades)) == pytest.approx(expected, abs=1e-9), seed


def test_mean_interval_is_scipys_t(numbers: list[int]):
    from scipy import stats

    for seed in numbers:
        values = log(seed)["pnl_pct"]
        expected = stats.t.interval(0.95, len(values) - 1, loc=values.mean(), scale=stats.sem(values))
        assert mean_interval(values) == pytest.approx(expected, rel=1e-9, abs=1e-9), seed


def test_sharpe_standard_error_is_Los_formula_on_scipys_moments(numbers: list[int]):
    from scipy import stats

    for seed in numbers:
        values = daily(seed)
        ratio = values.mean() / values.std(ddof=1)
        skewness, kurtosis = stats.skew(values), stats.kurtosis(values, fisher=False)
        variance = (1 + ratio**2 / 2 - skewness * ratio + (kurtosis - 3) / 4 * ratio**2) / (len(values) - 1)
        expected = np.sqrt(DAYS_PER_YEAR * variance)
        assert sharpe_standard_error(values) == pytest.approx(expected, rel=1e-9, abs=1e-9), seed


def test_profit_factor_and_win_rate_are_a_plain_loops(numbers: list[int]):
    for seed in numbers:
        trades, won, lost, wins = log(seed), 0.0, 0.0, 0
        for profit in trades["pnl_usdt"]:
            won, lost, wins = won + max(profit, 0.0), lost + max(-profit, 0.0), wins + (profit > 0)
        assert profit_factor(trades) == (pytest.approx(won / lost, rel=1e-9) if lost else None), seed
        assert win_rate(trades) == pytest.approx(wins / len(trades), abs=1e-12), seed


@quick
@given(values=returns, scale=st.floats(0.01, 100))
def test_sharpe_ratio_does_not_depend_on_the_size_of_the_bets(values: list[float], scale: float):
    if np.std(values, ddof=1) < 1e-6:  # near the undefined, rounding decides
        return
    assert sharpe_ratio(np.array(values) * scale) == pytest.approx(sharpe_ratio(values), rel=1e-6, abs=1e-6)


@quick
@given(equity=equities, scale=st.floats(0.01, 100))
def test_drawdown_is_a_share_and_does_not_depend_on_the_size_of_the_account(equity: list[float], scale: float):
    fraction = max_drawdown(equity)
    assert 0.0 <= fraction <= 1.0
    assert max_drawdown(np.array(equity) * scale) == pytest.approx(fraction, abs=1e-9)


@quick
@given(equity=equities)
def test_what_never_falls_has_no_drawdown(equity: list[float]):
    assert max_drawdown(sorted(equity)) == 0.0


@quick
@given(equity=equities, later=equities)
def test_more_days_never_shrink_a_drawdown(equity: list[float], later: list[float]):
    assert max_drawdown(equity + later) >= max_drawdown(equity)


@quick
@given(profits=amounts)
def test_the_win_rate_lies_within_its_interval(profits: list[float]):
    trades = pd.DataFrame({"pnl_usdt": np.array(profits, float)})
    interval, rate = wilson_interval(int((trades["pnl_usdt"] > 0).sum()), len(trades)), win_rate(trades)
    if rate is None:
        assert interval is None
    else:
        assert 0.0 <= interval[0] <= rate + 1e-12
        assert rate - 1e-12 <= interval[1] <= 1.0


@quick
@given(profits=amounts)
def test_a_profit_factor_above_one_is_a_net_profit(profits: list[float]):
    factor = profit_factor(pd.DataFrame({"pnl_usdt": np.array(profits, float)}))
    if factor is None:
        assert min(profits, default=0.0) >= 0.0
    else:
        assert (factor > 1) == (sum(profits) > 0)
        assert (factor < 1) == (sum(profits) < 0)


def numbers_in(value: object, path: str = "") -> dict[str, object]:
    """Every leaf of a metrics object by its path."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in numbers_in(item, f"{path}.{key}").items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, item in enumerate(value) for k, v in numbers_in(item, f"{path}[{i}]").items()}
    return {path: value}


@quick
@given(seed=seeds, count=st.integers(0, 40))
def test_the_order_of_the_trades_does_not_matter(seed: int, count: int):
    from dataclasses import asdict

    trades = log(seed, count)
    equity = pd.Series(10_000 * np.cumprod(1 + daily(seed, 9)))
    shuffled = trades.sample(frac=1, random_state=seed % 1000)
    before, after = (numbers_in(asdict(measure_performance(frame, equity))) for frame in (trades, shuffled))
    assert list(before) == list(after)
    for path, value in before.items():
        assert after[path] == (pytest.approx(value, rel=1e-9, abs=1e-9) if isinstance(value, float) else value), path


# windows


Shelf = tuple[pd.DataFrame, DailyEquity]


@pytest.fixture(scope="module")
def shelf() -> Callable[[int], Shelf]:
    made: dict[int, Shelf] = {}
    return lambda seed: made.setdefault(seed, book(seed))


def book(seed: int) -> Shelf:
    """Five months of three strategies: trades, equity with unknown days and a jump, marks and deposits."""
    random = np.random.default_rng(seed)
    count = int(random.integers(50, 900))
    hours = np.sort(random.integers(0, len(DAYS) * 24, count))
    pct = random.normal(0.4, 2.0, count)
    trades = pd.DataFrame({
        "strategy": random.choice(STRATEGIES, count),
        "closed_at": (DAYS[0] + pd.to_timedelta(hours, "h")).as_unit("us"),
        "pnl_usdt": np.round(pct * 10, 2),
        "pnl_pct": pct,
    })  # fmt: skip
    earned = trades.pivot_table(index=trades["closed_at"].dt.floor("D"), columns="strategy", values="pnl_usdt",
                                aggfunc="sum").reindex(index=DAYS, columns=list(STRATEGIES)).fillna(0.0)  # fmt: skip
    unrealised = pd.DataFrame(random.normal(0, 20, earned.shape), DAYS, earned.columns)
    flows = earned * 0.0
    flows.loc[DAYS[int(random.integers(len(DAYS)))], "rsi"] = 5_000.0
    equity = 10_000 + (earned + flows).cumsum() + unrealised
    equity.loc[DAYS[int(random.integers(len(DAYS)))] :, "macd"] *= 1.2  # what nothing explains
    equity = equity.mask(random.random(equity.shape) < 0.03)
    for frame in (equity, unrealised, flows):
        frame[PORTFOLIO] = frame.sum(axis=1, skipna=False)
    return trades, DailyEquity(equity, unrealised, flows)


def up_to(daily_equity: DailyEquity, day: pd.Timestamp) -> DailyEquity:
    return DailyEquity(*(getattr(daily_equity, name).loc[:day] for name in ("equity", "unrealised", "flows")))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 9), last=st.integers(0, len(DAYS) - 1), length=st.integers(1, 12))
def test_B062_a_day_measured_alone_equals_the_day_measured_in_a_range(shelf: Callable, seed: int, last: int, length):
    """From that day's trades and equity only: neither an earlier record nor a later day has a say."""
    trades, daily_equity = shelf(seed)
    measured = DAYS[max(0, last - length + 1) : last + 1]
    names = [str(day.date()) for day in measured]
    together = measure_days(trades, up_to(daily_equity, measured[-1]), names, Limits(), label="simulated")
    assert list(together) == names
    for day, name in zip(measured, names, strict=True):
        end = day + pd.Timedelta(days=1)
        recent = trades[(trades["closed_at"] >= end - pd.Timedelta(days=92)) & (trades["closed_at"] < end)]
        alone = measure_days(recent, up_to(daily_equity, day), [name], Limits(), label="simulated")
        assert canonical_json(alone[name]) == canonical_json(together[name])


def test_a_measured_day_is_measure_performance_over_its_seven_days(shelf: Callable):
    trades, daily_equity = shelf(1)
    clean = DailyEquity(daily_equity.equity.ffill().bfill(), daily_equity.unrealised, daily_equity.flows)
    day = pd.Timestamp("2025-01-20", tz="UTC")
    document = measure_days(trades, clean, ["2025-01-20"], Limits(), label="simulated")["2025-01-20"]
    week = trades[trades["closed_at"].between("2025-01-14T00:00Z", "2025-01-21T00:00Z", inclusive="left")]
    for strategy in STRATEGIES:
        known = clean.equity[strategy][day - pd.Timedelta(days=7) : day]
        figures = measure_performance(week[week["strategy"] == strategy], known, flows=clean.flows[strategy])
        stored = document["strategies"][strategy]
        for name in ("total_trades", "win_rate_pct", "avg_profit_pct", "profit_factor", "total_pnl_usdt"):
            assert stored[name] == getattr(figures, name), (strategy, name)
        assert stored["max_drawdown_pct"] == pytest.approx(figures.max_drawdown_pct, abs=1e-9)
    assert document["portfolio"]["total_trades"] == len(week)


def test_the_90_day_figures_of_a_measured_day_are_of_its_last_90_returns():
    days, random = pd.date_range("2024-11-01", periods=120, tz="UTC"), np.random.default_rng(3)
    profits = np.where(np.arange(120) < 20, 2_000.0, random.normal(5, 50, 120))  # a wild first month
    trades = pd.DataFrame({
        "strategy": "rsi", "closed_at": (days + pd.Timedelta(hours=12)).as_unit("us"), "pnl_usdt": profits,
        "pnl_pct": 0.1,
    })  # fmt: skip
    equity = pd.DataFrame({"rsi": 10_000 + profits.cumsum()}, days)
    equity[PORTFOLIO] = equity["rsi"]
    last = str(days[-1].date())
    document = measure_days(trades, DailyEquity(equity, equity * 0, equity * 0), [last], Limits(), label="x")[last]
    known = (equity["rsi"] / equity["rsi"].shift() - 1)[-90:]
    for scope in (document["portfolio"], document["strategies"]["rsi"]):
        assert scope["sharpe_ratio_90d"] == pytest.approx(sharpe_ratio(known))
        assert scope["sharpe_standard_error_90d"] == pytest.approx(sharpe_standard_error(known))
        assert scope["return_days"] == 7
    assert sharpe_ratio(equity["rsi"].pct_change()) != pytest.approx(sharpe_ratio(known), rel=0.1)


@pytest.mark.parametrize(
    ("closed", "outcome", "status"),
    [
        pytest.param(0, "no_trades", "unknown", id="B059 no trades"),
        pytest.param(1, "too_few_trades", "unknown", id="one trade is not none"),
        pytest.param(9, "too_few_trades", "unknown", id="B057 too few"),
        pytest.param(10, "measured", "critical", id="B058 enough"),
    ],
)
def test_no_trades_too_few_trades_and_a_verdict_are_three_outcomes(closed: int, outcome: str, status: str):
    hours = pd.date_range("2025-03-10T01:00", periods=closed, freq="h", tz="UTC", unit="us")
    trades = pd.DataFrame({"strategy": "rsi", "closed_at": hours, "pnl_usdt": -1.0, "pnl_pct": -0.1})
    days = pd.date_range("2025-03-01", "2025-03-10", tz="UTC")
    equity = pd.DataFrame({"rsi": 10_000.0, "macd": 10_000.0, PORTFOLIO: 20_000.0}, days)
    document = measure_days(
        trades, DailyEquity(equity, equity * 0, equity * 0), ["2025-03-10"], Limits(), label="simulated"
    )["2025-03-10"]
    assert (document["outcome"], document["status"]) == (outcome, status)
    assert document["trigger_ai_analysis"] == (status == "critical")
    assert document["strategies"]["macd"]["status"] == "insufficient"
    assert document["strategies"]["rsi"]["total_trades"] == closed


def test_B135_the_window_is_seven_whole_days_half_open():
    moments = ["2025-03-03T23:59:59.999999Z", "2025-03-04T00:00:00Z", "2025-03-10T23:59:59.999999Z",
               "2025-03-11T00:00:00Z"]  # fmt: skip
    closed_at = pd.to_datetime(moments, format="ISO8601").astype("datetime64[us, UTC]")
    trades = pd.DataFrame({"strategy": "rsi", "closed_at": closed_at, "pnl_usdt": [1.0, 2.0, 4.0, 8.0], "pnl_pct": 0.1})
    days = pd.date_range("2025-03-01", "2025-03-10", tz="UTC")
    equity = pd.DataFrame({"rsi": 10_000.0, PORTFOLIO: 10_000.0}, days)
    document = measure_days(trades, DailyEquity(equity, equity * 0, equity * 0), ["2025-03-10"], Limits(), label="x")
    assert document["2025-03-10"]["strategies"]["rsi"]["total_pnl_usdt"] == 6.0


def test_a_strategy_without_any_equity_is_measured_by_its_trades():
    hours = pd.date_range("2025-03-10T01:00", periods=12, freq="h", tz="UTC", unit="us")
    trades = pd.DataFrame({"strategy": "grid", "closed_at": hours, "pnl_usdt": -1.0, "pnl_pct": -0.1})
    days = pd.date_range("2025-03-01", "2025-03-10", tz="UTC")
    equity = pd.DataFrame({"rsi": 10_000.0, PORTFOLIO: 10_000.0}, days)
    document = measure_days(trades, DailyEquity(equity, equity * 0, equity * 0), ["2025-03-10"], Limits(), label="x")
    assert document["2025-03-10"]["strategies"]["grid"]["total_trades"] == 12


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_infinite_snapshot_is_unknown_or_refused_but_never_NaN():
    days = pd.date_range("2025-03-01", "2025-03-10", tz="UTC")
    equity = pd.DataFrame({"rsi": 10_000.0, PORTFOLIO: 10_000.0}, days)
    equity.loc["2025-03-05"] = np.inf
    still = DailyEquity(equity, equity.where(equity < 0, 0.0), equity.where(equity < 0, 0.0))
    trades = pd.DataFrame({"strategy": ["rsi"], "closed_at": days[-1:].as_unit("us"), "pnl_usdt": 1.0, "pnl_pct": 1.0})
    canonical_json(measure_days(trades, still, ["2025-03-10"], Limits(), label="x"))
