"""What do equity and win rate look like over the measured days?"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trading_ops.portfolio.equity import DailyEquity

SHOWN_DAYS = 90


def performance_plot(daily: DailyEquity, documents: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown with one embedded PNG: equity since the start of the window as an index, and the seven-day win rate."""
    import pandas as pd
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    shown = daily.equity.iloc[-max(SHOWN_DAYS, len(documents)) :]
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    for scope in shown:
        column = shown[scope].dropna()
        if not column.empty:
            style = {"color": "black", "linewidth": 2} if scope == "portfolio" else {"linewidth": 1}
            top.plot(column.index, 100 * column / column.iloc[0], label=scope, **style)
    top.set_ylabel(f"equity, {shown.index[0]:%Y-%m-%d} = 100")
    top.legend(ncols=5, fontsize="small", frameon=False, loc="upper left")
    days = pd.to_datetime(list(documents), utc=True)
    for strategy in next(iter(documents.values()))["strategies"]:
        rates = [document["strategies"][strategy]["win_rate_pct"] for document in documents.values()]
        bottom.plot(
            days, [float("nan") if rate is None else rate for rate in rates], label=strategy, marker=".", linewidth=1
        )
    bottom.set_ylabel("win rate over 7 days, %")
    bottom.set_ylim(0, 100)
    locator = AutoDateLocator()
    bottom.xaxis.set_major_locator(locator)
    bottom.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=90)
    return f"![equity and win rate](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"
