"""Where may the price be in each of the next hours? From what the champion's forecasts were wrong by, hour by hour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from trading_ops.accuracy.outcomes import HOUR_US

LEVELS = (0.05, 0.25, 0.50, 0.75, 0.95)
VOLATILITY_BARS = 168  # a week of hourly returns
BURN_IN = 100  # windows before the first residual, so that the line through them is not noise
FEWEST = 300  # windows with an outcome; fewer give no honest quantile
RIDGE = 50.0  # windows' worth of doubt that the probability says anything about the size of the move


class TooFewWindows(ValueError):
    """The model has not been used on enough days it never saw; the message says how many are needed."""


@dataclass(frozen=True, slots=True)
class HourAhead:
    """`probability_up` that the close in `hour` hours is above the last one; `prices` by quantile level.

    `n` windows gave the residuals. `coverage_90`: the share of later outcomes that lay between the 5 % and the 95 %
    quantile of the earlier residuals, which should be near 0.9.
    """

    hour: int
    probability_up: float
    prices: dict[str, float]
    n: int
    coverage_90: float

    @property
    def document(self) -> dict[str, Any]:
        return {
            "hour": self.hour,
            "probability_up": round(self.probability_up, 4),
            **{f"price_{level}": round(price, 8) for level, price in self.prices.items()},
            "n": self.n,
            "coverage_90": round(self.coverage_90, 3),
        }


def forecast(
    times: np.ndarray, close: np.ndarray, logits: np.ndarray, *, unseen_from: int, horizon: int, hours: int
) -> list[HourAhead]:
    """The next `hours` hours after the last bar.

    `times` int64 [n] opens in microseconds, `close` float64 [n], `logits` float64 [n], the model's log-odds at each
    bar's close, NaN where it cannot say; the last one must be known. Of the bars decided from `unseen_from`
    (microseconds) on, z_t = log(close[t+h] / close[t]) / (sigma_t sqrt(h)) with sigma_t the deviation of the last 168
    hourly log returns. z is regressed on the log-odds with what was known before t alone (ridge), and what is left
    over, e_t, gives the quantiles: close * exp(sigma sqrt(h) (a + b x + quantile(e))). The probability of a rise is the
    model's own at its horizon, elsewhere the share of a + b x + e above 0. Raises TooFewWindows, and ValueError where
    the last bar's log-odds are unknown.
    """
    if not np.isfinite(logits[-1]):
        raise ValueError("the model cannot say anything at the newest bar: a bar is missing in its window")
    sigma = _volatility(times, close)
    return [_ahead(times, close, logits, sigma, h, unseen_from, horizon) for h in range(1, hours + 1)]


def _ahead(
    times: np.ndarray, close: np.ndarray, logits: np.ndarray, sigma: np.ndarray, h: int, unseen_from: int, horizon: int
) -> HourAhead:
    n = len(close) - h
    scale = sigma[:n] * np.sqrt(h)
    whole = (times[h:] - times[:n] == h * HOUR_US) & np.isfinite(logits[:n]) & (scale > 0)
    rows = np.flatnonzero(whole & (times[:n] + HOUR_US >= unseen_from))
    if len(rows) < FEWEST:
        raise TooFewWindows(
            f"{len(rows)} windows of days the model never saw have an outcome {h} h ahead; at least {FEWEST} are needed"
        )
    x, z = logits[rows], np.log(close[rows + h] / close[rows]) / scale[rows]
    # at row t the outcomes of rows up to t - h are known
    known = np.searchsorted(times[rows], times[rows] - h * HOUR_US, side="right")
    a, b = _lines(x, z)
    left = (z - a[known] - b[known] * x)[known >= BURN_IN]
    early, late = left[: len(left) // 2], left[len(left) // 2 :]
    low, high = np.quantile(early, [LEVELS[0], LEVELS[-1]])
    centre = a[-1] + b[-1] * logits[-1]
    width = sigma[-1] * np.sqrt(h)
    quantiles = np.quantile(left, LEVELS)
    share = float(((centre + left > 0).sum() + 0.5) / (len(left) + 1))
    return HourAhead(
        hour=h,
        probability_up=float(1 / (1 + np.exp(-logits[-1]))) if h == horizon else share,
        prices={f"p{round(100 * q):02}": float(close[-1] * np.exp(width * (centre + e)))
                for q, e in zip(LEVELS, quantiles, strict=True)},
        n=len(left),
        coverage_90=float(((late >= low) & (late <= high)).mean()),
    )  # fmt: skip


def _lines(x: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Intercept and slope of z on x over the first m windows, for m = 0..n; shrunk towards no relation at all."""
    m = np.arange(len(x) + 1)
    sx, sz, sxx, sxz = (np.concatenate([[0.0], np.cumsum(v)]) for v in (x, z, x * x, x * z))
    counted = np.maximum(m, 1)
    spread = sxx - sx * sx / counted
    spread = np.maximum(spread, 0.0)
    doubt = RIDGE * spread / counted
    b = np.divide(sxz - sx * sz / counted, spread + doubt, out=np.zeros(len(m)), where=spread > 1e-12)
    return sz / (counted + RIDGE) - b * sx / counted, b


def _volatility(times: np.ndarray, close: np.ndarray) -> np.ndarray:
    """Deviation of the last 168 hourly log returns at each bar, NaN before; jumps over missing bars are left out."""
    moved = np.concatenate([[np.nan], np.diff(np.log(close))])
    moved[1:][np.diff(times) != HOUR_US] = np.nan
    there = np.isfinite(moved)
    filled = np.where(there, moved, 0.0)
    count, total, squares = (np.concatenate([[0.0], np.cumsum(v)]) for v in (there, filled, filled * filled))
    n = len(close)
    start = np.maximum(np.arange(1, n + 1) - VOLATILITY_BARS, 0)
    k, s, q = (v[1:] - v[start] for v in (count, total, squares))
    enough = k >= VOLATILITY_BARS // 2
    variance = np.divide(q - s * s / np.maximum(k, 1), np.maximum(k - 1, 1))
    return np.where(enough, np.sqrt(np.maximum(variance, 0.0)), np.nan)
