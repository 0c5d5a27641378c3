"""Predictions and bars of a market whose outcomes a test decides."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops.accuracy.predictions import COLUMNS

DAY = "2025-03-09"


def us(moment: str) -> int:
    return int(np.datetime64(moment, "us").astype("int64"))


def bars(up: Sequence[Any], first: str = f"{DAY}T00") -> pd.DataFrame:
    """Bars of which each next one closes higher (1), lower (0) or where it was (None); one more than outcomes."""
    moves = [{1: 1.0, 0: -1.0, None: 0.0}[u] for u in up]
    close = 1_000.0 + np.concatenate([[0.0], np.cumsum(moves)])
    index = pd.date_range(pd.Timestamp(first, tz="UTC"), periods=len(close), freq="h", name="time").as_unit("us")
    frame = dict.fromkeys(("open", "high", "low", "close"), close)
    return pd.DataFrame({**frame, "volume": np.ones(len(close))}, index=index)


def said(
    probabilities: Sequence[float],
    first_close: str = f"{DAY}T01",
    *,
    name: str = "lstm/BTCUSDT",
    model_id: str = "m1",
    role: str = "champion",
    against: str = "",
    horizon: int = 1,
    reconstructed: bool = False,
    base_rate: float = 0.5,
) -> pd.DataFrame:
    """A prediction an hour from the first close on."""
    n = len(probabilities)
    frame = pd.DataFrame(
        {
            "name": [name] * n,
            "model_id": [model_id] * n,
            "symbol": [name.partition("/")[2]] * n,
            "role": [role] * n,
            "against": [against] * n,
            "decided_us": us(first_close) + np.arange(n) * HOUR_US,
            "horizon_hours": [horizon] * n,
            "probability_up": np.asarray(probabilities, float),
            "base_rate": [base_rate] * n,
            "reconstructed": [reconstructed] * n,
        }
    )
    return frame.astype(COLUMNS)
