"""What does the models' accuracy look like over the measured days?"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

PLOT_DAYS = 90


def accuracy_plot(documents: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Markdown with one embedded PNG: accuracy over seven days of each model and of all, with the 90-day interval.

    `documents`: the measured days by day; the newest 90 are drawn. None where no model has a figure in them.
    """
    import pandas as pd
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    days = sorted(documents)[-PLOT_DAYS:]
    at = pd.to_datetime(days, utc=True)
    pooled = [documents[day]["pooled"] or {} for day in days]
    if all(figures.get("accuracy_7d") is None for figures in pooled):
        return None
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.subplots()
    for name in sorted({name for day in days for name in documents[day]["models"]}):
        rows = [documents[day]["models"].get(name, {}) for day in days]
        axes.plot(at, _percent([row.get("accuracy_7d") for row in rows]), linewidth=1, alpha=0.7, label=name)
    axes.plot(at, _percent([f.get("accuracy_7d") for f in pooled]), color="black", linewidth=2, label="all, 7 days")
    low, high = (_percent([(f.get("interval_90d") or (None, None))[end] for f in pooled]) for end in (0, 1))
    axes.fill_between(at, low, high, color="black", alpha=0.12, label="all, 90 days: 95 % interval")
    axes.axhline(50, color="grey", linestyle="--", linewidth=0.8)
    axes.set_ylabel("accuracy, %", fontsize="small")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, fontsize="small",
                  frameon=False)  # fmt: skip
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    axes.grid(alpha=0.3)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=90)
    return f"![accuracy](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"


def _percent(shares: list[float | None]) -> list[float]:
    return [float("nan") if share is None else 100 * share for share in shares]
