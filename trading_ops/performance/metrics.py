"""How well did one strategy trade over a window?

Formulas first, then the verdict. Every formula takes plain arrays or frames and answers None where it is undefined.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.notifications.alert import Severity
from trading_ops.performance.intervals import Z_95, Interval, mean_interval, wilson_interval
from trading_ops.performance.verdict import METRICS, Limits, MetricAlert, confirmed_by, metric_status, worst_status

if TYPE_CHECKING:
    import pandas as pd

DAYS_PER_YEAR = 365  # crypto trades every day of the year
UNDEFINED_DEVIATION = 1e-12


class BadData(ValueError):
    """A trade or an equity point that cannot be true, such as NaN; the message names field, row and value."""


def sharpe_ratio(daily_returns: Any) -> float | None:
    """Annualised Sharpe ratio of daily equity returns, risk-free rate 0.

    sqrt(365) * mean(r) / std(r, ddof=1). Unknown days (NaN) are left out; None below two returns or where the
    deviation is under 1e-12. Source: Sharpe (1994), daily equity returns as in freqtrade#2727.

    >>> round(sharpe_ratio([0.01, -0.01, 0.03]), 6)  # mean 0.01, deviation 0.02: sqrt(365) / 2
    9.552487
    """
    returns = _known(daily_returns)
    per_day = _sharpe_per_day(returns)
    return None if per_day is None else float(per_day * np.sqrt(DAYS_PER_YEAR))


def sharpe_ratios(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """`sharpe_ratio` of many series at once, from each one's mean and deviation (ddof=1); NaN where undefined.

    >>> sharpe_ratios(np.array([0.01, 0.01]), np.array([0.02, 0.0])).round(6)
    array([9.552487,      nan])
    """
    defined = deviation >= UNDEFINED_DEVIATION
    per_day = np.divide(mean, deviation, out=np.full(np.shape(mean), np.nan), where=defined)
    return per_day * np.sqrt(DAYS_PER_YEAR)


def sharpe_standard_error(daily_returns: Any) -> float | None:
    """Standard error of the annualised Sharpe ratio, with skewness g3 and raw kurtosis g4 of the returns.

    sqrt(365) * sqrt((1 + SR^2/2 - g3*SR + (g4 - 3)/4*SR^2) / (n - 1)), SR per day. None where the ratio is.
    Source: Lo (2002), Bailey and Lopez de Prado (2012).
    """
    returns = _known(daily_returns)
    per_day = _sharpe_per_day(returns)
    if per_day is None:
        return None
    centred = returns - returns.mean()
    spread = np.mean(centred**2)
    skewness = np.mean(centred**3) / spread**1.5
    kurtosis = np.mean(centred**4) / spread**2
    variance = (1 + per_day**2 / 2 - skewness * per_day + (kurtosis - 3) / 4 * per_day**2) / (returns.size - 1)
    return float(np.sqrt(DAYS_PER_YEAR * max(variance, 0.0)))


def max_drawdown(equity: Any) -> float | None:
    """Largest fall from a running peak, as a positive fraction: max over t of 1 - E_t / max(E_s, s <= t).

    The first point is the start capital. Unknown points (NaN) are left out; None without any point.

    >>> max_drawdown([100, 120, 90, 130])
    0.25
    """
    points = _known(equity)
    if points.size == 0:
        return None
    peaks = np.maximum.accumulate(points)
    falls = np.divide(peaks - points, peaks, out=np.zeros_like(points), where=peaks > 0)
    return float(np.max(falls))


def profit_factor(trades: pd.DataFrame) -> float | None:
    """Net wins divided by net losses, in money (`pnl_usdt`); None where there is no loss.

    >>> import pandas as pd
    >>> profit_factor(pd.DataFrame({"pnl_usdt": [30.0, -10.0, 0.0]}))
    3.0
    """
    return _profit_factor(trades["pnl_usdt"].to_numpy(float))


def win_rate(trades: pd.DataFrame) -> float | None:
    """Share of trades with a net profit (`pnl_usdt` > 0), a fraction; a zero is no win but counts; None without trades.

    >>> import pandas as pd
    >>> win_rate(pd.DataFrame({"pnl_usdt": [30.0, -10.0, 0.0, 5.0]}))
    0.5
    """
    pnl = trades["pnl_usdt"].to_numpy(float)
    return None if pnl.size == 0 else float(np.count_nonzero(pnl > 0) / pnl.size)


@dataclass(frozen=True, slots=True)
class PerformanceMetrics:
    """What `measure_performance` found; percentages are in percent, undefined is None.

    `status` is good, warning, critical (the worst of the known metrics), unknown (none known) or insufficient (fewer
    trades than a verdict needs). The figures over 90 days and since inception are None where no longer equity is known.
    """

    total_trades: int
    winning_trades: int
    losing_trades: int
    win_rate_pct: float | None
    avg_profit_pct: float | None
    sharpe_ratio: float | None
    sharpe_standard_error: float | None
    profit_factor: float | None
    max_drawdown_pct: float | None
    total_pnl_usdt: float
    return_days: int
    sharpe_ratio_90d: float | None
    sharpe_standard_error_90d: float | None
    max_drawdown_since_inception_pct: float | None
    intervals: dict[str, Interval]
    confirmed: dict[str, bool | None]
    metric_status: dict[str, str]
    status: str
    trigger_ai_analysis: bool
    alerts: tuple[MetricAlert, ...] = field(default=())


def measure_performance(
    trades: pd.DataFrame,
    equity: pd.Series,
    limits: Limits = Limits(),
    *,
    flows: pd.Series | None = None,
    history: pd.Series | None = None,
) -> PerformanceMetrics:
    """Measure one strategy over one window.

    `trades`: the window's closed trades (`pnl_usdt` and `pnl_pct`, net). `equity`: mark-to-market USDT by UTC day,
    E_{D-7}..E_D, NaN where unknown. `flows`: net deposits by UTC day. `history`: the equity since inception, for the
    90-day ratio and the drawdown since inception. Raises BadData for NaN or infinite trades and infinite equity.
    """
    if flows is None:
        flows = equity * 0.0
    returns_90d = np.empty(0) if history is None else daily_returns(history, flows)[-90:]
    since_inception = np.empty(0) if history is None else unit_values(history, flows).to_numpy(float)
    return measure_window(
        trades["pnl_usdt"].to_numpy(float),
        trades["pnl_pct"].to_numpy(float),
        unit_values(equity, flows).to_numpy(float),
        daily_returns(equity, flows),
        limits,
        returns_90d=returns_90d,
        equity_since_inception=since_inception,
    )


def unit_values(equity: Any, flows: Any) -> Any:
    """Equity per unit, as a fund counts it: a flow buys or redeems units at the day's value, and is no drawdown.

    Series or frames of USDT by day; the first day's value is in USDT. Source: unitised net asset value.
    """
    paid = flows.reindex(equity.index, fill_value=0.0)
    bought = (equity / (equity - paid)).where(paid != 0, 1.0).fillna(1.0)
    return equity / bought.cumprod()


def daily_returns(equity: pd.Series, flows: pd.Series | None = None) -> np.ndarray:
    """r_d = (E_d - F_d) / E_{d-1} - 1 for each day after the first, NaN where an equity is unknown or not positive.

    Days missing from the index are unknown, never skipped over. Raises BadData for infinite equity.
    """
    if equity.empty:
        return np.empty(0)
    days, flows = _by_day(equity), None if flows is None else _by_day(flows)
    values = days.to_numpy(float)
    if np.isinf(values).any():
        raise BadData(
            f"equity on {days.index[int(np.argmax(np.isinf(values)))]}: infinite; a finite USDT amount is needed"
        )
    values = np.where(values > 0, values, np.nan)
    deposits = np.zeros(values.size) if flows is None else flows.reindex(days.index, fill_value=0.0).to_numpy(float)
    return (values[1:] - deposits[1:]) / values[:-1] - 1


def measure_window(
    pnl_usdt: np.ndarray,
    pnl_pct: np.ndarray,
    equity: np.ndarray,
    returns: np.ndarray,
    limits: Limits,
    *,
    returns_90d: np.ndarray,
    equity_since_inception: np.ndarray,
) -> PerformanceMetrics:
    """`measure_performance` on plain arrays, so that a year of windows costs no frame each."""
    for name, column in (("pnl_usdt", pnl_usdt), ("pnl_pct", pnl_pct)):
        if not np.isfinite(column).all():
            row = int(np.argmin(np.isfinite(column)))
            raise BadData(f"trades row {row}: {name} is {column[row]}; a finite number is needed")
    total, wins = pnl_usdt.size, int(np.count_nonzero(pnl_usdt > 0))
    sharpe, error = sharpe_ratio(returns), sharpe_standard_error(returns)
    share = wilson_interval(wins, total)
    values = {
        "win_rate_pct": 100.0 * wins / total if total else None,
        "avg_profit_pct": float(pnl_pct.mean()) if total else None,
        "sharpe_ratio": sharpe,
    }
    intervals: dict[str, Interval] = {
        "win_rate_pct": share and (100 * share[0], 100 * share[1]),
        "avg_profit_pct": mean_interval(pnl_pct),
        "sharpe_ratio": None if sharpe is None or error is None else (sharpe - Z_95 * error, sharpe + Z_95 * error),
    }
    enough = total >= limits.min_trades
    status = {m: metric_status(values[m], *limits.of(m)) if enough else "unknown" for m in METRICS}
    confirmed = {m: confirmed_by(status[m], intervals[m], *limits.of(m)) for m in METRICS}
    known = [s for s in status.values() if s != "unknown"]
    return PerformanceMetrics(
        total_trades=total,
        winning_trades=wins,
        losing_trades=int(np.count_nonzero(pnl_usdt < 0)),
        win_rate_pct=values["win_rate_pct"],
        avg_profit_pct=values["avg_profit_pct"],
        sharpe_ratio=sharpe,
        sharpe_standard_error=error,
        profit_factor=_profit_factor(pnl_usdt),
        max_drawdown_pct=_percent(max_drawdown(equity)),
        total_pnl_usdt=float(pnl_usdt.sum()),
        return_days=int(np.count_nonzero(np.isfinite(returns))),
        sharpe_ratio_90d=sharpe_ratio(returns_90d),
        sharpe_standard_error_90d=sharpe_standard_error(returns_90d),
        max_drawdown_since_inception_pct=_percent(max_drawdown(equity_since_inception)),
        intervals=intervals,
        confirmed=confirmed,
        metric_status=status,
        status=worst_status(known) if enough else "insufficient",
        trigger_ai_analysis="critical" in known,
        alerts=tuple(
            MetricAlert(
                metric=m,
                severity=Severity.CRITICAL if status[m] == "critical" else Severity.WARNING,
                value=float(values[m]),  # type: ignore[arg-type]  # a metric with a verdict has a value
                limit=limits.of(m)[status[m] == "critical"],
                interval=intervals[m],
                confirmed=bool(confirmed[m]),
            )
            for m in METRICS
            if status[m] in ("warning", "critical")
        ),
    )


def _by_day(values: pd.Series) -> pd.Series:
    """The series with a row for every UTC day from its first to its last, whatever its index names days by."""
    import pandas as pd

    index = values.index.to_timestamp() if isinstance(values.index, pd.PeriodIndex) else values.index
    return values.set_axis(pd.to_datetime(index, utc=True)).asfreq("D")


def _known(values: Any) -> np.ndarray:
    """The values without the unknown ones (NaN); none at all where one is infinite, so that nothing is defined."""
    points = np.asarray(values, float)
    return points[:0] if np.isinf(points).any() else points[~np.isnan(points)]


def _sharpe_per_day(returns: np.ndarray) -> float | None:
    if returns.size < 2:
        return None
    deviation = returns.std(ddof=1)
    return None if deviation < UNDEFINED_DEVIATION else float(returns.mean() / deviation)


def _profit_factor(pnl_usdt: np.ndarray) -> float | None:
    losses = -pnl_usdt[pnl_usdt < 0].sum()
    return float(pnl_usdt[pnl_usdt > 0].sum() / losses) if losses > 0 else None


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100.0 * fraction
