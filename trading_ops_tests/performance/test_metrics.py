"""Would a person with a pencil get the same figures and the same verdict?"""

from collections.abc import Sequence
from datetime import date
from math import inf, nan, sqrt

import numpy as np
import pandas as pd
import pytest

from trading_ops.notifications.alert import Severity
from trading_ops.performance.intervals import mean_interval, wilson_interval
from trading_ops.performance.metrics import (
    METRICS,
    BadData,
    Limits,
    PerformanceMetrics,
    daily_returns,
    max_drawdown,
    measure_performance,
    metric_status,
    profit_factor,
    sharpe_ratio,
    sharpe_standard_error,
    win_rate,
    worst_status,
)

YEAR = sqrt(365)
WAVES = np.array([1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 0.0])  # mean 0, deviation 1 with ddof=1
GOOD_EQUITY = 2.1  # the Sharpe ratio of an equity curve that no test below is about


def log(profits_pct: Sequence[float]) -> pd.DataFrame:
    """Closed trades of 1,000 USDT each."""
    return pd.DataFrame({"pnl_usdt": 10 * np.array(profits_pct, float), "pnl_pct": np.array(profits_pct, float)})


def log_of(total: int, wins: int, average_pct: float) -> pd.DataFrame:
    """`wins` equal winners, the rest lose 3 % each, so that the mean is `average_pct`."""
    winner = (average_pct * total + 3 * (total - wins)) / wins
    assert winner > 0
    return log([winner] * wins + [-3.0] * (total - wins))


def curve(values: Sequence[float], first: str = "2025-03-01") -> pd.Series:
    return pd.Series(values, pd.date_range(first, periods=len(values), tz="UTC"), dtype=float)


def curve_of(sharpe: float) -> pd.Series:
    """Eight days of equity whose seven returns have exactly this Sharpe ratio, up to rounding."""
    return curve(10_000 * np.cumprod([1.0, *(0.01 * WAVES + 0.01 * sharpe / YEAR + 1)]))


def measure(total: int, wins: int, average_pct: float, sharpe: float, **options: object) -> PerformanceMetrics:
    return measure_performance(log_of(total, wins, average_pct), curve_of(sharpe), **options)


# formulas


@pytest.mark.parametrize(
    ("returns", "ratio"),
    [
        pytest.param([0.01, -0.01, 0.03], YEAR * 0.01 / 0.02, id="B066 mean over ddof=1 deviation times sqrt(365)"),
        pytest.param([0.02, 0.04], YEAR * 0.03 / (0.02 / sqrt(2)), id="two returns are enough"),
        pytest.param([0.01, nan, -0.01, 0.03], YEAR / 2, id="an unknown day is left out"),
        pytest.param([0.03, -0.03], 0.0, id="no profit is zero, not undefined"),
        pytest.param([-0.01, 0.01, -0.03], -YEAR / 2, id="losing is negative"),
        pytest.param([0.0, 0.0, 0.0, 0.07], YEAR * 0.0175 / 0.035, id="days without trades count"),
        pytest.param([], None, id="no day"),
        pytest.param([0.01], None, id="one day"),
        pytest.param([0.01, nan], None, id="one known day"),
        pytest.param([nan, nan], None, id="no known day"),
        pytest.param([0.0] * 7, None, id="never traded"),
        pytest.param([0.1] * 7, None, id="no deviation, though 0.1 seven times has some in binary"),
        pytest.param([0.01, 0.01 + 1e-13], None, id="deviation under 1e-12"),
    ],
)
def test_sharpe_ratio(returns: list[float], ratio: float | None) -> None:
    assert sharpe_ratio(returns) == (None if ratio is None else pytest.approx(ratio, abs=1e-9))


@pytest.mark.parametrize(
    ("returns", "error"),
    [
        # mean 0: the ratio is 0 and only 1 / (n - 1) is left
        pytest.param([0.01, -0.01], YEAR, id="two days: as large as it gets"),
        pytest.param(list(0.01 * WAVES), YEAR / sqrt(6), id="a week: about 7.8, so the ratio is noise"),
        # mean 1, deviations -1 -1 -1 3: SR 6/12, g3 = 6 / 3^1.5, g4 = 21 / 9
        pytest.param(
            [0.0, 0.0, 0.0, 0.04], YEAR * sqrt((1 + 1 / 8 - 3**-0.5 - 1 / 24) / 3), id="skewness and kurtosis count"
        ),
        pytest.param([0.01], None, id="undefined where the ratio is"),
        pytest.param([0.01, 0.01], None, id="without deviation"),
    ],
)
def test_sharpe_standard_error(returns: list[float], error: float | None) -> None:
    assert sharpe_standard_error(returns) == (None if error is None else pytest.approx(error, rel=1e-9))


@pytest.mark.parametrize(
    ("equity", "fraction"),
    [
        ([100, 120, 90, 130], 0.25),
        pytest.param([100, 80, 120, 90], 0.25, id="the worse of two falls"),
        pytest.param([100, 50, 100, 49], 0.51, id="from the peak, not from the start of the last fall"),
        pytest.param([100, 90], 0.1, id="the first point is the start capital"),
        pytest.param([100, nan, 90, nan], 0.1, id="unknown points are left out"),
        pytest.param([100, 100, 101], 0.0, id="never fell"),
        pytest.param([100], 0.0, id="one point"),
        pytest.param([100, 0], 1.0, id="all is lost"),
        pytest.param([], None, id="no point"),
        pytest.param([nan], None, id="no known point"),
    ],
)
def test_max_drawdown(equity: list[float], fraction: float | None) -> None:
    assert max_drawdown(equity) == (None if fraction is None else pytest.approx(fraction, abs=1e-12))


@pytest.mark.parametrize(
    ("profits", "factor", "rate"),
    [
        ([30, -10, 0], 3.0, 1 / 3),
        pytest.param([30, -10, 0, 5], 3.5, 0.5, id="a zero is no win but counts"),
        pytest.param([-10, -5], 0.0, 0.0, id="only losses"),
        pytest.param([10, 5], None, 1.0, id="no loss: no factor"),
        pytest.param([0, 0], None, 0.0, id="only zeros"),
        pytest.param([], None, None, id="B022 no trade divides by nothing"),
    ],
)
def test_profit_factor_and_win_rate(profits: list[float], factor: float | None, rate: float | None) -> None:
    trades = pd.DataFrame({"pnl_usdt": np.array(profits, float)})
    assert profit_factor(trades) == factor
    assert win_rate(trades) == rate


@pytest.mark.parametrize(
    ("wins", "total", "low", "high"),
    [  # Wilson's own arithmetic: (p + z2/2n -+ z sqrt(pq/n + z2/4n2)) / (1 + z2/n)
        (7, 10, 0.396778, 0.892209),
        (5, 10, 0.236593, 0.763407),
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (1, 1, 0.206549, 1.0),
    ],
)
def test_wilson_interval(wins: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(wins, total) == pytest.approx((low, high), abs=1e-6)


def test_intervals_are_undefined_without_enough_values():
    assert wilson_interval(0, 0) is None
    assert mean_interval([]) is None
    assert mean_interval([2.0]) is None
    assert mean_interval([2.0, 2.0]) == (2.0, 2.0)
    # t(2) = 4.302653, s = 1, n = 3
    assert mean_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 4.302653 / sqrt(3), 2 + 4.302653 / sqrt(3)), abs=1e-6)


# daily returns


def test_a_return_is_equity_over_the_equity_of_the_day_before():
    assert daily_returns(curve([100, 110, 99])) == pytest.approx([0.1, -0.1])
    assert daily_returns(curve([100])).size == 0
    assert daily_returns(pd.Series(dtype=float)).size == 0


def test_a_deposit_is_no_profit_and_a_withdrawal_no_loss():
    flows = pd.Series([50.0, -70.0], pd.to_datetime(["2025-03-02", "2025-03-03"], utc=True))
    # (160 - 50) / 100 and (100 + 70) / 160
    assert daily_returns(curve([100, 160, 100]), flows) == pytest.approx([0.1, 0.0625])
    result = measure_performance(log_of(10, 7, 3.0), curve([100, 160, 100]), flows=flows)
    assert result.sharpe_ratio == pytest.approx(sharpe_ratio([0.1, 0.0625]))


@pytest.mark.parametrize(
    "equity",
    [
        pytest.param(curve([100, nan, 121, 133.1]), id="NaN"),
        pytest.param(curve([100, 110, 121, 133.1]).drop(pd.Timestamp("2025-03-02", tz="UTC")), id="not in the index"),
        pytest.param(curve([100, 0, 121, 133.1]), id="an equity of zero divides nothing"),
        pytest.param(curve([100, -5, 121, 133.1]), id="a negative equity divides nothing"),
    ],
)
def test_a_day_of_unknown_equity_makes_two_returns_unknown_and_is_never_skipped_over(equity: pd.Series):
    assert daily_returns(equity) == pytest.approx([nan, nan, 0.1], nan_ok=True)
    assert measure_performance(log_of(10, 7, 3.0), equity).return_days == 1


@pytest.mark.parametrize(
    "index",
    [
        pytest.param([date(2025, 3, 1), date(2025, 3, 3), date(2025, 3, 4)], id="dates"),
        pytest.param(["2025-03-01", "2025-03-03", "2025-03-04"], id="texts"),
        pytest.param(pd.PeriodIndex(["2025-03-01", "2025-03-03", "2025-03-04"], freq="D"), id="periods"),
    ],
)
def test_a_missing_day_is_unknown_however_the_days_are_written(index: list):
    assert daily_returns(pd.Series([100.0, 121.0, 133.1], index)) == pytest.approx([nan, nan, 0.1], nan_ok=True)


# verdicts


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (70.0, "good"),
        (70.0 - 1e-12, "good"),
        (69.999999, "warning"),
        (55.0, "warning"),
        (55.0 - 1e-12, "warning"),
        (54.999999, "critical"),
        (-1e9, "critical"),
        (None, "unknown"),
    ],
)
def test_a_metric_at_its_limit_is_within_it_and_rounding_dust_changes_nothing(value: float | None, status: str):
    assert metric_status(value, 70.0, 55.0) == status


@pytest.mark.parametrize(
    ("total", "wins", "average", "sharpe", "expected", "status"),
    [
        pytest.param(10, 7, 2.6, 2.1, "good good good", "good", id="B047-B051-B052 exactly at the targets"),
        pytest.param(20, 14, 2.6, 2.1, "good good good", "good", id="B047 twenty trades"),
        pytest.param(10, 7, 3.0, 2.0999999999999, "good good good", "good", id="dust below the target is the target"),
        pytest.param(10, 6, 2.6, 2.1, "warning good good", "warning", id="win rate below target"),
        pytest.param(20, 11, 2.6, 2.1, "warning good good", "warning", id="B049 win rate exactly 55"),
        pytest.param(11, 6, 2.6, 2.1, "critical good good", "critical", id="win rate 54.5"),
        pytest.param(10, 7, 2.59, 2.1, "good warning good", "warning", id="average just below the target"),
        pytest.param(10, 7, 1.5, 2.1, "good warning good", "warning", id="B051 average exactly 1.5"),
        pytest.param(10, 7, 1.49, 2.1, "good critical good", "critical", id="B051-B054 average 1.49"),
        pytest.param(10, 7, 2.6, 2.05, "good good warning", "warning", id="B052 Sharpe 2.05"),
        pytest.param(10, 7, 2.6, 1.0, "good good warning", "warning", id="Sharpe exactly 1.0"),
        pytest.param(10, 7, 2.6, 0.99, "good good critical", "critical", id="Sharpe 0.99"),
        pytest.param(20, 15, 2.5, 2.0, "good warning warning", "warning", id="B055 the worst of the metrics"),
        pytest.param(20, 7, -1.5, 0.5, "critical critical critical", "critical", id="B056 everything bad"),
    ],
)
def test_the_verdict_is_the_worst_of_the_metrics(
    total: int, wins: int, average: float, sharpe: float, expected: str, status: str
):
    result = measure(total, wins, average, sharpe)
    assert result.metric_status == dict(zip(METRICS, expected.split(), strict=True))
    assert result.status == status
    assert result.trigger_ai_analysis == (status == "critical")
    assert [a.metric for a in result.alerts] == [m for m in METRICS if result.metric_status[m] != "good"]
    for alert in result.alerts:
        critical = result.metric_status[alert.metric] == "critical"
        assert alert.severity is (Severity.CRITICAL if critical else Severity.WARNING)
        assert alert.limit == Limits().of(alert.metric)[critical]
        assert alert.value == getattr(result, alert.metric)
        assert alert.interval == result.intervals[alert.metric]


def test_B056_three_critical_alerts_say_the_value_the_limit_and_how_sure_it_is():
    alerts = measure(20, 7, -1.5, 0.5).alerts
    assert [(a.severity, a.metric, round(a.value, 9), a.limit, a.confirmed) for a in alerts] == [
        (Severity.CRITICAL, "win_rate_pct", 35.0, 55.0, False),
        (Severity.CRITICAL, "avg_profit_pct", -1.5, 1.5, True),
        (Severity.CRITICAL, "sharpe_ratio", 0.5, 1.0, False),
    ]


@pytest.mark.parametrize(
    ("trades", "status", "analysed"),
    [
        pytest.param(log([]), "insufficient", False, id="B059 no trade"),
        pytest.param(log([-3.0] * 9), "insufficient", False, id="B057 nine trades"),
        pytest.param(log([-3.0] * 10), "critical", True, id="B058 ten trades"),
    ],
)
def test_a_verdict_needs_ten_trades(trades: pd.DataFrame, status: str, analysed: bool):
    result = measure_performance(trades, curve_of(-9.0))
    assert result.status == status
    assert result.trigger_ai_analysis == bool(result.alerts) == analysed
    assert (result.metric_status["win_rate_pct"] == "unknown") != analysed
    assert result.sharpe_ratio == pytest.approx(-9.0)  # the figures are told all the same


def test_B059_no_trade_leaves_trade_figures_undefined_and_equity_figures_known():
    result = measure_performance(log([]), curve([100, 120, 90]))
    assert (result.total_trades, result.winning_trades, result.losing_trades, result.total_pnl_usdt) == (0, 0, 0, 0.0)
    assert (result.win_rate_pct, result.avg_profit_pct, result.profit_factor) == (None, None, None)
    assert result.max_drawdown_pct == pytest.approx(25.0)
    assert result.intervals["win_rate_pct"] is None
    assert result.confirmed == dict.fromkeys(METRICS)


def test_counts_and_sums_are_of_the_trades_given():
    trades = log([3.0, -1.0, 0.0, 4.0]).assign(pnl_usdt=[3.0, -1.0, 0.0, 400.0])  # the last was a larger bet
    result = measure_performance(trades, curve_of(GOOD_EQUITY))
    assert (result.total_trades, result.winning_trades, result.losing_trades) == (4, 2, 1)
    assert (result.win_rate_pct, result.avg_profit_pct, result.total_pnl_usdt) == (50.0, 1.5, 402.0)
    assert result.profit_factor == pytest.approx(403.0)


def test_unknown_is_not_bad():
    """Ten fine trades and no equity: the Sharpe ratio is unknown, the verdict good."""
    result = measure_performance(log_of(10, 7, 3.0), curve([nan] * 8))
    assert result.metric_status == {"win_rate_pct": "good", "avg_profit_pct": "good", "sharpe_ratio": "unknown"}
    assert (result.status, result.trigger_ai_analysis, result.alerts) == ("good", False, ())
    assert (result.sharpe_ratio, result.max_drawdown_pct, result.return_days) == (None, None, 0)
    assert worst_status([]) == worst_status(["unknown"]) == "unknown"
    assert worst_status(["warning", "unknown", "critical", "good"]) == "critical"


def test_every_limit_can_be_set():
    own = Limits(90.0, 80.0, 9.0, 8.0, 9.0, 8.0, min_trades=3)
    result = measure(5, 4, 8.5, 8.5, limits=own)
    assert result.metric_status == dict.fromkeys(METRICS, "warning")
    assert [a.limit for a in result.alerts] == [90.0, 9.0, 9.0]
    assert measure(5, 4, 8.5, 8.5, limits=Limits(min_trades=6)).status == "insufficient"


@pytest.mark.parametrize(
    ("wins", "confirmed"),
    [
        pytest.param(14, None, id="no breach, nothing to confirm"),
        # Wilson 12/20: 38.7 to 78.1 holds the target 70
        pytest.param(12, False, id="warning, unconfirmed"),
        # 10/20: 29.9 to 70.1 holds 55
        pytest.param(10, False, id="critical, unconfirmed"),
        # 7/20: 18.1 to 56.7 still holds 55
        pytest.param(7, False, id="critical, just unconfirmed"),
        # 6/20: 14.5 to 51.9
        pytest.param(6, True, id="critical, confirmed"),
    ],
)
def test_a_breach_is_confirmed_where_the_interval_excludes_the_limit_crossed(wins: int, confirmed: bool | None):
    result = measure(20, wins, 3.0, GOOD_EQUITY)
    assert result.confirmed["win_rate_pct"] is confirmed
    assert [a.confirmed for a in result.alerts] == ([] if confirmed is None else [confirmed])


def test_a_warning_is_confirmed_against_the_target_and_not_against_the_critical_limit():
    # ten trades of 2.0 +- 0.1: the interval 1.92 to 2.08 excludes 2.6 and not 1.5
    result = measure_performance(log([1.9, 2.1] * 5), curve_of(GOOD_EQUITY))
    assert result.metric_status["avg_profit_pct"] == "warning"
    assert result.confirmed["avg_profit_pct"] is True


def test_a_breach_without_an_interval_is_unconfirmed():
    result = measure_performance(log([-3.0]), curve_of(GOOD_EQUITY), Limits(min_trades=1))
    assert result.intervals["avg_profit_pct"] is None
    assert result.confirmed["avg_profit_pct"] is False


def test_the_sharpe_interval_is_two_standard_errors_wide_so_that_a_week_confirms_little():
    result = measure(10, 7, 3.0, -9.0)
    low, high = result.intervals["sharpe_ratio"]
    assert result.sharpe_standard_error is not None
    assert (high - low) / 2 == pytest.approx(1.959964 * result.sharpe_standard_error, rel=1e-6)
    assert (result.metric_status["sharpe_ratio"], result.confirmed["sharpe_ratio"]) == ("critical", False)


# longer figures


def test_the_90_day_ratio_takes_the_last_90_returns_and_inception_takes_all():
    calm = 0.001 * np.tile(WAVES[:6], 15) + 0.0005  # 90 returns, mean 0.0005, deviation 0.001 * sqrt(90 / 89)
    history = curve(10_000 * np.cumprod([1.0, 1.0, 0.5, 2.5, *(1 + calm)]), "2024-12-01")
    result = measure_performance(log_of(10, 7, 3.0), history[-8:], history=history)
    assert result.sharpe_ratio_90d == pytest.approx(YEAR * 0.5 / sqrt(90 / 89))
    assert result.sharpe_standard_error_90d == pytest.approx(sharpe_standard_error(calm))
    assert result.max_drawdown_since_inception_pct == pytest.approx(50.0)
    assert result.max_drawdown_pct == pytest.approx(100 * max_drawdown(history[-8:]))
    assert result.max_drawdown_pct < 1
    assert result.return_days == 7


def test_without_a_longer_history_the_longer_figures_are_unknown():
    result = measure(10, 7, 3.0, GOOD_EQUITY)
    longer = (result.sharpe_ratio_90d, result.sharpe_standard_error_90d, result.max_drawdown_since_inception_pct)
    assert longer == (None, None, None)


# bad data


@pytest.mark.parametrize("field", ["pnl_usdt", "pnl_pct"])
@pytest.mark.parametrize("value", [nan, inf, -inf])
def test_B067_a_trade_that_is_no_number_is_named_and_never_measured(field: str, value: float):
    trades = log([1.0, 2.0, 3.0])
    trades.loc[1, field] = value
    with pytest.raises(BadData, match=rf"trades row 1: {field} is -?(nan|inf)"):
        measure_performance(trades, curve_of(GOOD_EQUITY))


@pytest.mark.parametrize("value", [inf, -inf])
def test_an_infinite_equity_is_named_with_its_day(value: float):
    broken = curve([100, value, 120])
    with pytest.raises(BadData, match="equity on 2025-03-02"):
        measure_performance(log([1.0]), broken)
    with pytest.raises(BadData, match="equity on 2025-03-02"):
        measure_performance(log([1.0]), curve([100, 101, 102]), history=broken)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_an_infinite_return_has_no_ratio():
    assert sharpe_ratio([0.01, inf]) is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_drawdown_from_nothing_is_not_NaN():
    assert max_drawdown([0.0, 0.0, 10.0]) in (None, 0.0)
