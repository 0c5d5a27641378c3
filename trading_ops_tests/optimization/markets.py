"""Candles with a known truth: nothing to find, or something planted."""

import numpy as np
import pandas as pd


def random_walk(seed: int, days: int = 365, deviation: float = 0.006) -> pd.DataFrame:
    """Hourly bars of a fair game: each close is the last one times 1 + e, e symmetric around 0."""
    generator = np.random.default_rng(seed)
    close = 100.0 * np.cumprod(1.0 + np.clip(generator.normal(0.0, deviation, days * 24), -0.05, 0.05))
    return bars(close, generator)


def mean_reverting(seed: int, days: int = 365, size: float = 0.03, fade: float = 0.93) -> pd.DataFrame:
    """Hourly bars that swing around a steady price: what falls comes back within a day."""
    generator = np.random.default_rng(seed)
    pushes = generator.normal(0.0, size * np.sqrt(1.0 - fade**2), days * 24)
    swing = np.empty(days * 24)
    swing[0] = pushes[0]
    for i in range(1, len(swing)):
        swing[i] = fade * swing[i - 1] + pushes[i]
    return bars(100.0 * np.exp(swing), generator)


def bars(close: np.ndarray, generator: np.random.Generator) -> pd.DataFrame:
    """A sound candle frame around these closes, from 2024-01-01 on."""
    opened = np.concatenate(([close[0]], close[:-1]))
    wick = np.abs(generator.normal(0.0, 0.001, (2, len(close))))
    index = pd.date_range("2024-01-01", periods=len(close), freq="h", tz="UTC", name="time")
    return pd.DataFrame(
        {
            "open": opened,
            "high": np.maximum(opened, close) * (1.0 + wick[0]),
            "low": np.minimum(opened, close) * (1.0 - wick[1]),
            "close": close,
            "volume": generator.uniform(1.0, 2.0, len(close)),
        },
        index=index,
    )


def corrupted(candles: pd.DataFrame, first: int, stop: int, seed: int = 0) -> pd.DataFrame:
    """The candles with every price and volume from bar `first` to before `stop` made up anew, sound all the same."""
    changed = candles.copy()
    other = random_walk(seed + 1000, days=-(-(stop - first) // 24), deviation=0.02).iloc[: stop - first]
    changed.iloc[first:stop] = other.to_numpy() * 3.7
    return changed
