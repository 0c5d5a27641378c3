"""What do the indicators say at each bar, known at its close and from no later bar?"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

NOISE = 1e-10  # of the price: a running sum's rounding, far below any tick, is no crossing
REMEMBERED = 64  # indicators kept by one `Indicators`; a sweep's sets come sorted, so that neighbours share them


class Indicators:
    """The indicators of one sound candle frame, each computed once for a choice of parameters; float64, one a bar."""

    def __init__(self, candles: pd.DataFrame) -> None:
        values = {name: np.ascontiguousarray(candles[name].to_numpy("float64")) for name in ("open", "close", "volume")}
        self.opened, self.close, self.volume = values["open"], values["close"], values["volume"]
        self.scaled = scaled(self.close)
        self._known: dict[tuple[Any, ...], Any] = {}
        self._lock = Lock()

    def rsi(self, period: int) -> np.ndarray:
        """`relative_strength` of the closes."""
        return self._once(("rsi", period), lambda: relative_strength(self.close, period))

    def macd_gap(self, fast: int, slow: int, signal: int) -> np.ndarray:
        """MACD = EMA(close, fast) - EMA(close, slow), less EMA(MACD, signal); in scaled prices, noise is 0.

        Each EMA starts as a simple mean. NaN for the first slow + signal - 2 bars. Source: Appel (1979), TA-Lib MACD.
        """
        import talib

        def gap() -> np.ndarray:
            line, average, _ = talib.MACD(self.scaled, fast, slow, signal)
            return quiet(line - average, self.scaled)

        return self._once(("macd", fast, slow, signal), gap)

    def mean_gap(self, period: int) -> np.ndarray:
        """close - SMA(close, period), in scaled prices, noise is 0. NaN for the first period - 1 bars."""
        import talib

        return self._once(("mean", period), lambda: quiet(self.scaled - talib.SMA(self.scaled, period), self.scaled))

    def band_gap(self, period: int, deviations: float) -> np.ndarray:
        """close - (mean + deviations * s), s the population deviation of the last `period` closes, this one included.

        In scaled prices, noise is 0; negative deviations for the lower band. NaN for the first period - 1 bars.
        Source: Bollinger (2001), TA-Lib BBANDS.
        """

        def bands() -> tuple[np.ndarray, np.ndarray]:
            import talib

            upper, middle, _ = talib.BBANDS(self.scaled, period, 1.0, 1.0)
            return middle, upper - middle

        middle, deviation = self._once(("bands", period), bands)
        return quiet(self.scaled - (middle + deviations * deviation), self.scaled)

    def volume_spike(self, period: int, multiplier: float) -> np.ndarray:
        """Whether volume > multiplier * mean volume of the previous `period` bars, this one excluded.

        False for the first `period` bars, and where nothing was traded in them.
        """

        def usual() -> tuple[np.ndarray, np.ndarray]:
            import talib

            mean, most = (_previous(average(self.volume, period)) for average in (talib.SMA, talib.MAX))
            return mean * (1.0 + NOISE), most > 0

        mean, traded = self._once(("volume", period), usual)
        return traded & (self.volume > multiplier * mean)

    def _once(self, key: tuple[Any, ...], compute: Callable[[], Any]) -> Any:
        """What was computed for the key; threads share it."""
        found = self._known.get(key)
        if found is None:
            found = compute()
            with self._lock:
                if len(self._known) >= REMEMBERED:
                    del self._known[next(iter(self._known))]
                self._known[key] = found
        return found


def relative_strength(close: np.ndarray, period: int) -> np.ndarray:
    """Wilder's RSI of each bar, 0 to 100: 100 * G / (G + L), G and L the smoothed rises and falls.

    G_t = G_(t-1) + (rise_t - G_(t-1)) / period, starting as the mean of the first `period` changes; L alike.
    NaN for the first `period` bars and until the price has changed at all; only rises give 100.
    Source: Wilder (1978), TA-Lib RSI.
    """
    import talib

    strength = talib.RSI(scaled(close), period)
    flat = np.diff(close, prepend=close[:1]) == 0
    changed = np.logical_or.accumulate(~flat)
    # TA-Lib answers 0 once G + L fades below 1e-14, but a bar without change leaves RSI where it was.
    lost = changed & flat & (strength == 0)
    lost[: period + 1] = False
    strength = strength[np.maximum.accumulate(np.where(lost, 0, np.arange(len(close))))]
    strength[~changed] = np.nan
    return strength


def scaled(close: np.ndarray) -> np.ndarray:
    """Prices times the power of two (exact) that brings the first near 2^20.

    TA-Lib takes any variance or change below 1e-14 for zero: a coin of 0.00001 USDT would have no bands.
    """
    return np.ldexp(close, 20 - int(np.frexp(close[0])[1]))


def quiet(gap: np.ndarray, close: np.ndarray) -> np.ndarray:
    """A gap between two averages of the price; 0 where it is their rounding."""
    return np.where(np.abs(gap) <= NOISE * close, 0.0, gap)


def _previous(values: np.ndarray) -> np.ndarray:
    return np.concatenate(([np.nan], values[:-1]))
