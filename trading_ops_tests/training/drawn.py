"""Samples drawn from a seed, for tests of networks and training."""

import numpy as np

from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops.training.samples import Samples


def drawn_samples(
    bars: int = 400, features: int = 4, lookback: int = 12, seed: int = 7, signal: float = 0.0
) -> Samples:
    """Noise; with `signal` above 0 the last bar's first feature tells the label that much, up to always at 1."""
    random = np.random.default_rng(seed)
    values = random.normal(3.0, 2.0, (bars, features)).astype("float32")
    labels = np.where(random.random(bars) < signal, values[:, 0] > 3.0, random.random(bars) < 0.5)
    names = tuple(f"feature_{at}" for at in range(features))
    return Samples("BTCUSDT", names, np.arange(bars) * HOUR_US, values, labels.astype("float32"), lookback)
