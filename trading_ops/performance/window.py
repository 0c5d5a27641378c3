"""How well did every strategy trade, on every day of a range?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trading_ops.performance.metrics import PerformanceMetrics, measure_window, unit_values
from trading_ops.performance.verdict import Limits, worst_status
from trading_ops.portfolio.equity import (
    PORTFOLIO,
    DailyEquity,
    points_until,
    realised_by_day,
    strategies_of,
    trusted_returns,
)

if TYPE_CHECKING:
    import pandas as pd

WINDOW_DAYS = 7


def measure_days(
    trades: pd.DataFrame,
    daily: DailyEquity,
    days: Sequence[str],
    limits: Limits,
    *,
    label: str,
    incomplete: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """For each UTC day, the metrics over the seven days ending with it, per strategy and for the portfolio.

    `trades`: closed trades that cover every window, ordered by time. `daily`: equity from the first day known up to
    the last asked for. `incomplete`: UTC days with quarantined or missing trades. The result of a day does not depend
    on which other days are asked for.
    """
    import numpy as np
    import pandas as pd

    own = unit_values(daily.comparable(), daily.flows)
    returns = trusted_returns(daily, realised_by_day(trades, daily.equity))
    scopes = {PORTFOLIO: trades, **{name: trades[trades["strategy"] == name] for name in strategies_of(trades, daily)}}
    columns = {
        scope: (frame["closed_at"].to_numpy("datetime64[us]"), frame["pnl_usdt"].to_numpy(float),
                frame["pnl_pct"].to_numpy(float))
        for scope, frame in scopes.items()
    }  # fmt: skip
    measured = {}
    for day in days:
        at = pd.Timestamp(day, tz="UTC")
        end = np.datetime64(day, "us") + np.timedelta64(1, "D")
        found: dict[str, PerformanceMetrics] = {}
        for scope, (closed_at, pnl_usdt, pnl_pct) in columns.items():
            window = slice(*np.searchsorted(closed_at, [end - np.timedelta64(WINDOW_DAYS, "D"), end]))
            found[str(scope)] = measure_window(
                pnl_usdt[window],
                pnl_pct[window],
                points_until(own, scope, at, WINDOW_DAYS + 1),
                points_until(returns, scope, at, WINDOW_DAYS),
                limits,
                returns_90d=points_until(returns, scope, at, 90),
                equity_since_inception=points_until(own, scope, at),
            )
        window_days = {str((at - pd.Timedelta(days=i)).date()) for i in range(WINDOW_DAYS)}
        measured[day] = _document(day, found, label) | {
            "incomplete_days": sorted(window_days.intersection(incomplete)),
            "closed_only_days": sorted(d for d in window_days if daily.rebuilt(PORTFOLIO, pd.Timestamp(d, tz="UTC"))),
        }
        if measured[day]["incomplete_days"]:
            measured[day]["outcome"] = "incomplete"
    return measured


def _document(day: str, found: dict[str, PerformanceMetrics], label: str) -> dict[str, Any]:
    strategies = {scope: metrics for scope, metrics in found.items() if scope != PORTFOLIO}
    trades = found[PORTFOLIO].total_trades
    verdicts = [m.status for m in strategies.values()]
    return {
        "day": day,
        "window_days": WINDOW_DAYS,
        "candles": label,
        "outcome": "no_trades"
        if trades == 0
        else "too_few_trades"
        if set(verdicts) == {"insufficient"}
        else "measured",
        "status": worst_status([v for v in verdicts if v != "insufficient"]),
        "trigger_ai_analysis": any(m.trigger_ai_analysis for m in strategies.values()),
        "portfolio": asdict(found[PORTFOLIO]),
        "strategies": {scope: asdict(metrics) for scope, metrics in strategies.items()},
    }
