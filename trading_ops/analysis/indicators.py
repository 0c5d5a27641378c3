"""What do the strategies' indicators say of many symbols, at every bar?"""

from __future__ import annotations

import numpy as np

from trading_ops.strategies.signals import STRATEGIES

RSI, MACD, BANDS, VOLUME = (STRATEGIES[name].defaults for name in ("rsi", "macd", "bollinger", "volume"))
RETURNS = {"return_1h": 1, "return_24h": 24, "return_7d": 168}  # bars back
VOLATILITY_BARS = 168
FLAT = 1e-6  # of the price: bands narrower than this are a price that stands still, far below a tick's effect

INDICATORS = (
    "rsi", "macd_histogram", "bollinger_position", "bollinger_deviation", "volume_ratio", "volatility", *RETURNS,
)  # fmt: skip
# bars until all four of the rule's indicators are there
NEEDED_BARS = int(max(RSI["period"] + 1, MACD["slow"] + MACD["signal"] - 1, BANDS["period"], VOLUME["period"] + 1))


def panel_indicators(close: np.ndarray, volume: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """All INDICATORS, in this order, as float64 (indicators, symbols, bars), of panels (symbols, bars).

    NaN in `close` is a bar that is not there: indicators are those of the real bars, the next following the one before
    it, as the strategies see them. NaN where undefined. Parameters are the strategies' defaults. `out` is filled and
    given back where it is given: memory that is used again costs half of the time.

    rsi: as `strategies.indicators.relative_strength`. macd_histogram: MACD less its average, in units of the price.
    bollinger_position: (close - mean) / (2 s), so -1 and 1 are the bands; bollinger_deviation: s, in units of the
    price; a flat price (s <= 1e-6 of it) has no position. volume_ratio: volume over the mean of the 20 bars before.
    return_*: close / earlier close - 1, in bars. volatility: sample deviation of the last 168 one-bar returns.
    """
    from trading_ops.analysis import kernel  # here, since numba takes half a second

    if close.shape != volume.shape or close.ndim != 2:
        raise ValueError(f"close is {close.shape} and volume {volume.shape}; both (symbols, bars) would be right")
    if out is None:
        out = np.empty((len(INDICATORS), *close.shape))
    kernel.panel_indicators(
        np.ascontiguousarray(close, dtype="float64"),
        np.ascontiguousarray(volume, dtype="float64"),
        int(RSI["period"]),
        int(MACD["fast"]),
        int(MACD["slow"]),
        int(MACD["signal"]),
        int(BANDS["period"]),
        float(BANDS["deviations"]),
        FLAT,
        int(VOLUME["period"]),
        VOLATILITY_BARS,
        np.array(list(RETURNS.values())),
        out,
    )
    return out
