"""What does a model see of the market at the close of a bar, and what came of it?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from trading_ops.accuracy.outcomes import HOUR_US, outcomes
from trading_ops.market.soundness import require_sound
from trading_ops.training.samples import LOOKBACK, Samples

if TYPE_CHECKING:
    import pandas as pd

# bars each feature looks back on, its own included; longer ones would make a model blind for longer after an outage
LOOK_BACK = {
    "return_1h": 2, "return_4h": 5, "return_12h": 13, "return_24h": 25,
    "range_1h": 1, "close_in_range": 1, "wick_balance": 1,
    "volatility_24h": 25, "volatility_ratio": 25, "shock": 25,
    "strength_14h": 15, "mean_gap_24h": 24, "close_in_channel_24h": 24,
    "volume_surge": 25, "volume_trend": 24, "volume_flow_12h": 13,
    "hour_sin": 1, "hour_cos": 1, "week_sin": 1, "week_cos": 1,
}  # fmt: skip
FEATURES: tuple[str, ...] = tuple(LOOK_BACK)
WARM_UP: int = max(LOOK_BACK.values())
WEEK_HOURS = 168
_THURSDAY = 72  # 1970-01-01 00:00 UTC is hour 72 of its week


def features(candles: pd.DataFrame) -> pd.DataFrame:
    """The FEATURES of each bar of a sound candle frame, float64, index as `candles`; known at the bar's close.

    r is the log return of an hour, c, h, l the logs of close, high and low, v the volume; t this bar. None has a scale:
    prices in another currency or volumes in another unit give the same. Sums run over the last so many bars.

    return_1h, _4h, _12h, _24h   c[t] - c[t-k], a log return
    range_1h               h - l, a log return
    close_in_range         (close - low) / (high - low) - 1/2, from -1/2 to 1/2; a flat bar 0
    wick_balance           (upper wick - lower wick) / (high - low), from -1 to 1; a flat bar 0
    volatility_24h         s = sqrt(sum r^2 / 24), a log return of an hour
    volatility_ratio       sqrt(sum of 6 r^2 / 6) / s, from 0 to 2; 1 where the price stood still for 24 h
    shock                  r[t] / s, from -sqrt(24) to sqrt(24); 0 where the price stood still for 24 h
    strength_14h           sum r / sum |r| over 14, from -1 to 1 (RSI / 50 - 1, unsmoothed: Cutler); 0 without a move
    mean_gap_24h           c - mean of 24 c, a log return
    close_in_channel_24h   (c - lowest l) / (highest h - lowest l) - 1/2 over 24; 0 where they are equal
    volume_surge           v / (v + mean of the 24 v before t) - 1/2; 0 where nothing was traded
    volume_trend           m6 / (m6 + m24) - 1/2, the means of the last 6 and 24 v; 0 where nothing was traded
    volume_flow_12h        sum v sign(r) / sum v over 12, from -1 to 1; 0 where nothing was traded
    hour_sin, hour_cos     of 2 pi hour / 24, hour the UTC hour that begins at the close
    week_sin, week_cos     of 2 pi hour / 168, hour that of the week from Monday 00:00 UTC that begins at the close

    NaN where not all LOOK_BACK bars are there on consecutive hours, or where a number would not be finite. No window
    has a memory: a row follows from its own WARM_UP bars alone, to the last bit.
    """
    import pandas as pd

    times = candles.index.as_unit("us").asi8
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        columns = {**_prices(candles), **_volumes(candles), **_clock(times)}
    unbroken = {bars: _unbroken(times, bars) for bars in set(LOOK_BACK.values())}
    return pd.DataFrame(
        {
            name: np.where(unbroken[bars] & np.isfinite(columns[name]), columns[name], np.nan)
            for name, bars in LOOK_BACK.items()
        },
        index=candles.index,
    )


def samples_of(symbol: str, candles: pd.DataFrame, *, horizon: int = 1, lookback: int = LOOKBACK) -> Samples:
    """Features and labels of every bar, as a model takes them.

    Raises InvalidCandles for a frame that is not sound, ValueError for a horizon or lookback below 1.
    """
    if lookback < 1:
        raise ValueError(f"lookback is {lookback!r}; a whole number of bars from 1 would be right")
    frame = require_sound(candles, symbol)
    labels = outcomes(frame, horizon).up.to_numpy("float32")
    seen = features(frame).to_numpy("float32")
    return Samples(symbol, FEATURES, frame.index.as_unit("us").asi8.copy(), seen, labels, lookback, horizon)


def _prices(candles: pd.DataFrame) -> dict[str, np.ndarray]:
    opened, high, low, close = (candles[name].to_numpy("float64") for name in ("open", "high", "low", "close"))
    c, h, lo = np.log(close), np.log(high), np.log(low)
    r = c - _earlier(c, 1)
    variance = _sum(r * r, 24) / 24
    volatility = np.sqrt(variance)
    recent = np.sqrt(_sum(r * r, 6) / 6)
    top, bottom = _extreme(h, 24, np.maximum), _extreme(lo, 24, np.minimum)
    wicks = (high - np.maximum(opened, close)) - (np.minimum(opened, close) - low)
    return {
        **{f"return_{k}h": c - _earlier(c, k) for k in (1, 4, 12, 24)},
        "range_1h": h - lo,
        "close_in_range": _share(close - low, high - low, otherwise=0.5) - 0.5,
        "wick_balance": _share(wicks, high - low, otherwise=0.0),
        "volatility_24h": volatility,
        "volatility_ratio": _share(recent, volatility, otherwise=1.0),
        "shock": _share(r, volatility, otherwise=0.0),
        "strength_14h": _share(_sum(r, 14), _sum(np.abs(r), 14), otherwise=0.0),
        "mean_gap_24h": sum(c - _earlier(c, k) for k in range(24)) / 24,
        "close_in_channel_24h": _share(c - bottom, top - bottom, otherwise=0.5) - 0.5,
    }


def _volumes(candles: pd.DataFrame) -> dict[str, np.ndarray]:
    close = candles["close"].to_numpy("float64")
    v = candles["volume"].to_numpy("float64") / 64  # exact, and no sum of 24 overflows
    before, m6, m24 = _earlier(_sum(v, 24), 1) / 24, _sum(v, 6) / 6, _sum(v, 24) / 24
    direction = np.sign(close - _earlier(close, 1))
    return {
        "volume_surge": _share(v, v + before, otherwise=0.5) - 0.5,
        "volume_trend": _share(m6, m6 + m24, otherwise=0.5) - 0.5,
        "volume_flow_12h": _share(_sum(v * direction, 12), _sum(v, 12), otherwise=0.0),
    }


def _clock(times: np.ndarray) -> dict[str, np.ndarray]:
    hour = times // HOUR_US + 1
    angles = 2 * np.pi * np.arange(WEEK_HOURS)
    day, week = hour % 24, (hour + _THURSDAY) % WEEK_HOURS
    return {
        "hour_sin": np.sin(angles / 24)[day],
        "hour_cos": np.cos(angles / 24)[day],
        "week_sin": np.sin(angles / WEEK_HOURS)[week],
        "week_cos": np.cos(angles / WEEK_HOURS)[week],
    }


def _unbroken(times: np.ndarray, bars: int) -> np.ndarray:
    """Whether the last `bars` bars are there and on consecutive hours."""
    return times - _earlier(times.astype("float64"), bars - 1) == (bars - 1) * HOUR_US


def _earlier(values: np.ndarray, bars: int) -> np.ndarray:
    """values[t - bars], NaN for the first ones."""
    return np.concatenate([np.full(min(bars, len(values)), np.nan), values[: max(len(values) - bars, 0)]])


def _sum(values: np.ndarray, bars: int) -> np.ndarray:
    """Sum of the last `bars` values, NaN before; added up anew at each bar, in one order, whatever stands around."""
    total = values.copy()
    for back in range(1, bars):
        total += _earlier(values, back)
    return total


def _extreme(values: np.ndarray, bars: int, choose: np.ufunc) -> np.ndarray:
    best = values.copy()
    for back in range(1, bars):
        choose(best, _earlier(values, back), out=best)
    return best


def _share(part: np.ndarray, whole: np.ndarray, otherwise: float) -> np.ndarray:
    """part / whole; `otherwise` where the whole is 0."""
    return np.where(whole == 0.0, otherwise, part / np.where(whole == 0.0, 1.0, whole))
