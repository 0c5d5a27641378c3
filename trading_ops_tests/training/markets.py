"""Candles whose next hour can be foretold, or cannot: what a training must find, and must not."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from trading_ops.market.parquet import write_candles


def walk(end: datetime, days: int, *, told: float = 0.0, seed: int = 1) -> pd.DataFrame:
    """Hourly bars up to `end` whose return is -`told` times the one before, and noise; 0: nothing can be foretold."""
    rng = np.random.default_rng(seed)
    hours = 24 * days
    noise = 0.004 * rng.standard_normal(hours)
    moves = np.empty(hours)
    before = 0.0
    for hour, shock in enumerate(noise):
        before = moves[hour] = shock - told * before
    close = 100 * np.exp(np.cumsum(moves))
    opened = np.concatenate([[100.0], close[:-1]])
    wick = 1 + 0.001 * rng.random(hours)
    index = pd.DatetimeIndex([end - timedelta(hours=hours - hour) for hour in range(hours)], name="time")
    return pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * wick,
            "low": np.minimum(opened, close) / wick,
            "close": close,
            "volume": rng.uniform(10, 100, hours),
        },
        index=index,
    )


def folder_of(folder: Path, **symbols: pd.DataFrame) -> Path:
    """A folder of candle files."""
    folder.mkdir(exist_ok=True)
    for symbol, bars in symbols.items():
        write_candles(folder / f"{symbol}-1h.parquet", bars)
    return folder
