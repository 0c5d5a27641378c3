"""What do equity and win rate look like over the measured days?"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trading_ops.performance.verdict import Limits
    from trading_ops.portfolio.equity import DailyEquity

PLOT_DAYS = 90


def performance_plot(daily: DailyEquity, documents: Mapping[str, Mapping[str, Any]], limits: Limits) -> str:
    """Markdown with one embedded PNG: equity as an index, and the seven-day win rate with its limits.

    `documents`: the measured days by day, at least those of the run; the newest 90 days are drawn.
    """
    import pandas as pd
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    shown = daily.equity.iloc[-PLOT_DAYS:]
    days = [day for day in sorted(documents) if pd.Timestamp(day, tz="UTC") in shown.index]
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    for scope in shown:
        column = shown[scope].dropna()
        style = {"color": "black", "linewidth": 2} if scope == "portfolio" else {"linewidth": 1}
        top.plot(column.index, 100 * column / column.iloc[:1].sum(), label=scope, **style)
    for strategy in daily.equity.columns.drop("portfolio"):
        rates = [documents[day]["strategies"].get(strategy, {}).get("win_rate_pct") for day in days]
        values = [float("nan") if rate is None else rate for rate in rates]
        bottom.plot(pd.to_datetime(days, utc=True), values, marker=".", linewidth=1)
    for limit, colour in ((limits.win_rate_target_pct, "green"), (limits.win_rate_critical_pct, "red")):
        bottom.axhline(limit, color=colour, linestyle="--", linewidth=0.8)
    figure.legend(
        *top.get_legend_handles_labels(), loc="outside upper center", ncols=5, fontsize="small", frameon=False
    )
    top.set_ylabel("equity, first day = 100", fontsize="small")
    bottom.set_ylabel("win rate over 7 days, %", fontsize="small")
    bottom.set_ylim(0, 100)
    locator = AutoDateLocator()
    bottom.xaxis.set_major_locator(locator)
    bottom.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=90)
    return f"![equity and win rate](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"
