"""At which bars does a strategy want to enter, and at which to leave?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Signals = tuple[np.ndarray, np.ndarray]
STOPS = {"stop_loss_pct": (0.01, 99.0), "take_profit_pct": (0.01, 1000.0)}  # optional for every strategy; None is off
NOISE = 1e-10  # of the price: a running sum's rounding, far below any tick, is no crossing


class InvalidParameters(ValueError):
    """A strategy or parameter that cannot be; the message names field, value and what would be right."""


@dataclass(frozen=True)
class Strategy:
    """A rule and its parameters; bounds are inclusive, `ascending` names a pair of which the first must be lower."""

    name: str
    rule: Callable[..., Signals]
    defaults: Mapping[str, float]
    bounds: Mapping[str, tuple[float, float]]
    integers: frozenset[str]
    ascending: tuple[str, str] | None = None


def signals(candles: pd.DataFrame, strategy: str, parameters: Mapping[str, Any] | None = None) -> Signals:
    """(entries, exits): one bool a bar, known at the bar's close and from no later bar.

    `candles` is a sound candle frame (market.candles). Where an indicator is undefined there is no signal.
    Raises InvalidParameters.
    """
    checked = check_parameters(strategy, parameters)
    if candles.empty:
        return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
    rule = STRATEGIES[strategy]
    return rule.rule(candles, **{name: checked[name] for name in rule.defaults})


def check_parameters(strategy: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The strategy's full parameters, defaults filled in, and the stops that are set. Raises InvalidParameters."""
    if strategy not in STRATEGIES:
        raise InvalidParameters(f"strategy {strategy!r} is unknown; there are {', '.join(sorted(STRATEGIES))}")
    rule, given = STRATEGIES[strategy], dict(parameters or {})
    for name in given:
        if name not in rule.bounds and name not in STOPS:
            known = ", ".join([*rule.bounds, *STOPS])
            raise InvalidParameters(f"{strategy}: parameter {name!r} is unknown; there are {known}")
    checked: dict[str, Any] = {
        name: _checked(strategy, name, given.get(name, default), rule.bounds[name], whole=name in rule.integers)
        for name, default in rule.defaults.items()
    }
    checked |= check_stops(strategy, given)
    if rule.ascending:
        low, high = rule.ascending
        if checked[low] >= checked[high]:
            raise InvalidParameters(
                f"{strategy}: {low} is {checked[low]:g} and {high} is {checked[high]:g}; {low} must be below {high}"
            )
    return checked


def check_stops(owner: str, given: Mapping[str, Any]) -> dict[str, float]:
    """Those of stop_loss_pct and take_profit_pct that are set (not None). Raises InvalidParameters."""
    return {name: _checked(owner, name, given[name], STOPS[name]) for name in STOPS if given.get(name) is not None}


def _checked(owner: str, name: str, value: Any, bounds: tuple[float, float], *, whole: bool = False) -> float | int:
    low, high = bounds
    number = isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) and isfinite(value)
    if not number or not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise InvalidParameters(f"{owner}: {name} is {value!r}; {kind} from {low:g} to {high:g} would be right")
    return int(value) if whole else float(value)


def relative_strength(close: np.ndarray, period: int) -> np.ndarray:
    """Wilder's RSI of each bar, 0 to 100: 100 * G / (G + L), G and L the smoothed rises and falls.

    G_t = G_(t-1) + (rise_t - G_(t-1)) / period, starting as the mean of the first `period` changes; L alike.
    NaN for the first `period` bars and until the price has changed at all; only rises give 100.
    Source: Wilder (1978), TA-Lib RSI.
    """
    import talib

    strength = talib.RSI(_scaled(close), period)
    flat = np.diff(close, prepend=close[:1]) == 0
    changed = np.logical_or.accumulate(~flat)
    # TA-Lib answers 0 once G + L fades below 1e-14, but a bar without change leaves RSI where it was.
    lost = changed & flat & (strength == 0)
    lost[: period + 1] = False
    strength = strength[np.maximum.accumulate(np.where(lost, 0, np.arange(len(close))))]
    strength[~changed] = np.nan
    return strength


def _rsi(candles: pd.DataFrame, period: int, oversold: float, overbought: float) -> Signals:
    """Enter when RSI(period) crosses below oversold (previous >= oversold > now), leave when above overbought.

    RSI as in `relative_strength`; undefined for the first `period` bars and before the first price change.
    Source: Wilder, New Concepts in Technical Trading Systems (1978).
    """
    strength = relative_strength(_values(candles, "close"), period)
    return _crossed_below(strength - oversold), _crossed_above(strength - overbought)


def _macd(candles: pd.DataFrame, fast: int, slow: int, signal: int) -> Signals:
    """Enter when MACD = EMA(close, fast) - EMA(close, slow) crosses above EMA(MACD, signal), leave when below.

    Each EMA starts as a simple mean. Undefined for the first slow + signal - 2 bars; a flat price never crosses.
    Source: Appel (1979), TA-Lib MACD.
    """
    import talib

    close = _scaled(_values(candles, "close"))
    line, average, _ = talib.MACD(close, fast, slow, signal)
    gap = _quiet(line - average, close)
    return _crossed_above(gap), _crossed_below(gap)


def _bollinger(candles: pd.DataFrame, period: int, deviations: float) -> Signals:
    """Enter when close crosses below mean - deviations * s, leave when it crosses above the mean.

    Mean and population deviation s of the last `period` closes, this one included. Undefined for the first
    period - 1 bars; a flat price (s = 0) never crosses. Source: Bollinger (2001), TA-Lib BBANDS.
    """
    import talib

    close = _scaled(_values(candles, "close"))
    _, middle, lower = talib.BBANDS(close, period, deviations, deviations)
    return _crossed_below(_quiet(close - lower, close)), _crossed_above(_quiet(close - middle, close))


def _volume(candles: pd.DataFrame, period: int, multiplier: float) -> Signals:
    """Enter on a spike that closes above its open; leave on one that closes below, or when close crosses below its SMA.

    Spike: volume > multiplier * mean volume of the previous `period` bars, this one excluded; SMA(close, period).
    Undefined for the first `period` bars, and where nothing was traded in them. Source: Granville (1963).
    """
    import talib

    close, opened, volume = (_values(candles, field) for field in ("close", "open", "volume"))
    usual, most = (_previous(average(volume, period)) for average in (talib.SMA, talib.MAX))
    spike = (most > 0) & (volume > multiplier * usual * (1.0 + NOISE))
    scaled = _scaled(close)
    fell = _crossed_below(_quiet(scaled - talib.SMA(scaled, period), scaled))
    return spike & (close > opened), (spike & (close < opened)) | fell


def _values(candles: pd.DataFrame, field: str) -> np.ndarray:
    return np.ascontiguousarray(candles[field].to_numpy("float64"))


def _scaled(close: np.ndarray) -> np.ndarray:
    """Prices times the power of two (exact) that brings the first near 2^20.

    TA-Lib takes any variance or change below 1e-14 for zero: a coin of 0.00001 USDT would have no bands.
    """
    return np.ldexp(close, 20 - int(np.frexp(close[0])[1]))


def _quiet(gap: np.ndarray, close: np.ndarray) -> np.ndarray:
    return np.where(np.abs(gap) <= NOISE * close, 0.0, gap)


def _previous(values: np.ndarray) -> np.ndarray:
    return np.concatenate(([np.nan], values[:-1]))


def _crossed_below(gap: np.ndarray) -> np.ndarray:
    return (_previous(gap) >= 0) & (gap < 0)


def _crossed_above(gap: np.ndarray) -> np.ndarray:
    return (_previous(gap) <= 0) & (gap > 0)


STRATEGIES: dict[str, Strategy] = {
    rule.name: rule
    for rule in (
        Strategy(
            name="rsi",
            rule=_rsi,
            defaults={"period": 14, "oversold": 30.0, "overbought": 70.0},
            bounds={"period": (2, 1000), "oversold": (1.0, 99.0), "overbought": (1.0, 99.0)},
            integers=frozenset({"period"}),
            ascending=("oversold", "overbought"),
        ),
        Strategy(
            name="macd",
            rule=_macd,
            defaults={"fast": 12, "slow": 26, "signal": 9},
            bounds={"fast": (2, 1000), "slow": (2, 1000), "signal": (1, 1000)},
            integers=frozenset({"fast", "slow", "signal"}),
            ascending=("fast", "slow"),
        ),
        Strategy(
            name="bollinger",
            rule=_bollinger,
            defaults={"period": 20, "deviations": 2.0},
            bounds={"period": (2, 1000), "deviations": (0.1, 10.0)},
            integers=frozenset({"period"}),
        ),
        Strategy(
            name="volume",
            rule=_volume,
            defaults={"period": 20, "multiplier": 2.0},
            bounds={"period": (2, 1000), "multiplier": (0.1, 100.0)},
            integers=frozenset({"period"}),
        ),
    )
}
