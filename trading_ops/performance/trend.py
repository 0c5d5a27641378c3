"""Is a metric getting better or worse from day to day?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SLOPE_LIMIT = 0.5  # points a day
MIN_ROWS = 3


def trend(rows: Sequence[Mapping[str, Any]] | None, metric: str = "win_rate_pct") -> str:
    """improving, declining or stable: the least-squares slope a row against +-0.5.

    `rows`: history rows, newest first, as the history queries return them; rows where the metric is None are left
    out. Fewer than three: insufficient_data; None (the store could not be read): unknown.

    >>> trend([{"win_rate_pct": v} for v in (50, 55, 60, 65)])  # newest first: it fell from 65 to 50
    'declining'
    """
    if rows is None:
        return "unknown"
    values = [float(row[metric]) for row in rows if row.get(metric) is not None][::-1]
    if len(values) < MIN_ROWS:
        return "insufficient_data"
    slope = round(float(np.polyfit(np.arange(len(values)), values, 1)[0]), 9)  # binary dust decides nothing
    if slope < -SLOPE_LIMIT:
        return "declining"
    return "improving" if slope > SLOPE_LIMIT else "stable"
