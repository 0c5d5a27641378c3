"""Buy, sell or hold? A fixed rule over the four strategies' indicators; nothing in it was fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from trading_ops.analysis.indicators import RSI, VOLUME

PARTS = ("rsi", "macd", "bollinger", "volume")
ACTS_AT = 0.25  # of 1: one indicator at its extreme while the others have no opinion, or two half way
MACD_FULL = 0.25  # a histogram of this share of the bands' deviation is a full opinion
DECIMALS = 6
BUY, SELL, HOLD = "BUY", "SELL", "HOLD"


@dataclass(frozen=True, eq=False)
class Judgement:
    """For each symbol the signal, the score in [0, 1], and each of PARTS in [-1, 1], NaN where it has no opinion."""

    signal: np.ndarray
    score: np.ndarray
    parts: Mapping[str, np.ndarray]


def judge(
    rsi: np.ndarray,
    macd_histogram: np.ndarray,
    bollinger_position: np.ndarray,
    bollinger_deviation: np.ndarray,
    volume_ratio: np.ndarray,
    body: np.ndarray,
) -> Judgement:
    """Each symbol's last bar; all arrays (symbols,), NaN where undefined; `body` is close - open of that bar.

    balance = mean of four parts, each in [-1, 1], above 0 for buying; one that is undefined counts as 0.
        rsi: 1 at 30 and below, 0 at 50, -1 at 70 and above, straight in between
        bollinger: 1 at the lower band and below, 0 at the mean, -1 at the upper band and above
        macd: histogram / (0.25 s), from -1 to 1, s the deviation of the bands
        volume: 0 at the usual volume, 1 at twice as much; its sign is the bar's: up buys, down sells
    BUY at balance >= 0.25, SELL at <= -0.25, else HOLD; score = |balance|. The score says how many indicators agree
    and how far, not how likely they are right: it is no probability. Each part reads as its strategy does
    (strategies.signals, whose defaults 30, 70 and twice these are).

    An oversold coin at its lower band that turns up: RSI 30, histogram 0.1 s, on a rising bar of one and a half times
    the usual volume; (1 + 0.4 + 1 + 0.5) / 4 = 0.725.

    >>> found = judge(*(np.array([x]) for x in (30.0, 0.2, -1.0, 2.0, 1.5, 0.7)))
    >>> str(found.signal[0]), float(found.score[0])
    ('BUY', 0.725)
    """
    low, high = RSI["oversold"], RSI["overbought"]
    middle = (low + high) / 2.0
    with np.errstate(invalid="ignore", divide="ignore"):
        busy = np.clip((volume_ratio - 1.0) / (VOLUME["multiplier"] - 1.0), 0.0, 1.0)
        parts = {
            "rsi": np.clip((middle - rsi) / (high - middle), -1.0, 1.0),
            "macd": np.clip(macd_histogram / (MACD_FULL * bollinger_deviation), -1.0, 1.0),
            "bollinger": np.clip(-bollinger_position, -1.0, 1.0),
            "volume": np.sign(body) * busy,
        }
    parts["macd"] = np.where(np.isnan(bollinger_position), np.nan, parts["macd"])  # no bands: nothing to measure by
    total = np.zeros(len(rsi))
    for name in PARTS:
        total = total + np.nan_to_num(parts[name], nan=0.0)
    balance = np.round(total / len(PARTS), DECIMALS)  # rounded before it is compared, so that signal and score agree
    signal = np.where(balance >= ACTS_AT, BUY, np.where(balance <= -ACTS_AT, SELL, HOLD))
    return Judgement(signal, np.abs(balance), parts)
