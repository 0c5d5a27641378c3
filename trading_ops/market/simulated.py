"""What would a plausible crypto market look like, when no candles are at hand?"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from trading_ops.market.candles import FIELDS, HOUR, CandleError, Columns, Span, SpannedCandles, frame_of

if TYPE_CHECKING:
    import pandas as pd

ANCHOR = datetime(2024, 1, 1, tzinfo=UTC)  # a Monday, so that block n is the n-th calendar week
BARS = 168
SEED = 20240101


class Regime(NamedTuple):
    """A week's mood: the market's drift (log return a week) and its volatility (a factor)."""

    drift: float
    volatility: float
    next: tuple[float, float, float, float]  # chances of bull, bear, calm, turbulent in the week after


REGIMES = {
    "bull": Regime(0.020, 0.9, (0.75, 0.05, 0.15, 0.05)),
    "bear": Regime(-0.020, 1.1, (0.05, 0.70, 0.15, 0.10)),
    "calm": Regime(0.000, 0.7, (0.15, 0.10, 0.70, 0.05)),
    "turbulent": Regime(-0.005, 1.7, (0.15, 0.20, 0.15, 0.50)),
}


@dataclass(frozen=True)
class Coin:
    """A symbol's character: start price (USDT), beta to the market, own hourly noise, turnover (USDT an hour)."""

    price: float
    beta: float
    noise: float
    turnover: float


COINS = {
    "BTCUSDT": Coin(42_000.0, 1.0, 0.0012, 60e6),
    "ETHUSDT": Coin(2_300.0, 1.2, 0.0020, 30e6),
    "SOLUSDT": Coin(100.0, 1.5, 0.0045, 15e6),
    "XRPUSDT": Coin(0.62, 1.1, 0.0045, 8e6),
    "BNBUSDT": Coin(310.0, 0.8, 0.0028, 6e6),
}
MARKET_NOISE = 0.0052  # a log return's deviation an hour, in a week of volatility 1
SWING = 0.005  # deviation of the swings around the trend, which fade within hours:
FADE = 0.90  # what RSI and Bollinger strategies live on
PULL = 0.03  # a week's pull back to the start price, so that years later prices are still plausible
_FADES = FADE ** np.arange(1, BARS + 1)
_DAY_SHAPE = 1.0 + 0.25 * np.sin((np.arange(BARS) - 9.0) * np.pi / 12.0)  # busiest at 15:00 UTC


class SimulatedCandles(SpannedCandles):
    """Seeded candles from 2024-01-01 to the current hour.

    Log price = trend (regime's drift + beta x market + own noise, Student t with 4 degrees) + swing (AR(1), 0.9).
    A week is drawn whole, by a generator of (seed, symbol, week), so no bar depends on when it was asked for.
    """

    label = "simulated"

    def __init__(self, now: Callable[[], datetime], symbols: Sequence[str] = tuple(COINS), seed: int = SEED) -> None:
        super().__init__(now)
        if not symbols or len(set(symbols)) != len(symbols):
            raise CandleError(f"simulated symbols {list(symbols)}: name at least one, each once")
        self.origin = f"simulated with seed {seed}"
        market = _Market(seed)
        self._series = {symbol: _Series(symbol, market) for symbol in symbols}
        self._lock = Lock()

    def spans(self) -> dict[str, Span]:
        end = self.now().replace(minute=0, second=0, microsecond=0)
        return dict.fromkeys(self._series, Span(ANCHOR, end)) if end > ANCHOR else {}

    def _bars(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        return frame_of(self._columns(symbol, start, end))

    def _columns(self, symbol: str, start: datetime, end: datetime) -> Columns:
        first = max(0, -((ANCHOR - start) // HOUR))
        stop = max(first, -((ANCHOR - end) // HOUR))
        weeks = range(first // BARS, -(-stop // BARS))
        with self._lock:
            blocks = [self._series[symbol].week(week) for week in weeks]
        values = np.vstack([np.empty((0, len(FIELDS))), *blocks])[first - weeks.start * BARS :][: stop - first]
        hours = np.datetime64(ANCHOR.replace(tzinfo=None), "us") + np.arange(first, stop) * np.timedelta64(1, "h")
        return Columns(hours.astype("int64"), tuple(np.ascontiguousarray(values.T)))


class _Market:
    """The factor all symbols share: per week its regime and 168 log returns."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._weeks: list[tuple[Regime, np.ndarray]] = []

    def week(self, week: int) -> tuple[Regime, np.ndarray]:
        while len(self._weeks) <= week:
            generator = _generator(self.seed, "market", len(self._weeks))
            before = self._weeks[-1][0] if self._weeks else REGIMES["calm"]
            pick = int(np.searchsorted(np.cumsum(before.next), generator.random(), side="right"))
            regime = list(REGIMES.values())[min(pick, len(REGIMES) - 1)]
            returns = MARKET_NOISE * regime.volatility * _DAY_SHAPE * _heavy_tailed(generator)
            self._weeks.append((regime, returns + regime.drift / BARS))
        return self._weeks[week]


class _Series:
    """One symbol's weeks, drawn in order because each starts where the one before ended."""

    def __init__(self, symbol: str, market: _Market) -> None:
        self.symbol, self.market = symbol, market
        self.coin = COINS.get(symbol) or _unlisted(symbol)
        self.decimals = 6 - int(np.ceil(np.log10(self.coin.price)))
        self._trend, self._swing, self._close = np.log(self.coin.price), 0.0, round(self.coin.price, self.decimals)
        self._weeks: list[np.ndarray] = []

    def week(self, week: int) -> np.ndarray:
        """The week's bars: (168, 5), columns FIELDS."""
        while len(self._weeks) <= week:
            self._weeks.append(self._draw(len(self._weeks)))
        return self._weeks[week]

    def _draw(self, week: int) -> np.ndarray:
        generator = _generator(self.market.seed, self.symbol, week)
        regime, factor = self.market.week(week)
        coin, scale = self.coin, regime.volatility * _DAY_SHAPE
        pull = PULL * (np.log(coin.price) - self._trend) / BARS
        trend = self._trend + np.cumsum(coin.beta * factor + coin.noise * scale * _heavy_tailed(generator) + pull)
        pushes = SWING * np.sqrt(1.0 - FADE**2) * regime.volatility * generator.standard_normal(BARS)
        swing = _FADES * (self._swing + np.cumsum(pushes / _FADES))
        self._trend, self._swing = float(trend[-1]), float(swing[-1])

        close = np.round(np.exp(trend + swing), self.decimals)
        opened = np.concatenate(([self._close], close[:-1]))
        self._close = float(close[-1])
        wick = 0.5 * (coin.beta * MARKET_NOISE + coin.noise) * scale
        above, below = np.abs(generator.standard_normal((2, BARS))) * wick
        high = np.round(np.maximum(opened, close) * (1.0 + above), self.decimals)
        low = np.round(np.minimum(opened, close) * np.exp(-below), self.decimals)
        surprise = np.abs(np.log(close / opened)) / (coin.beta * MARKET_NOISE + coin.noise)
        bustle = _DAY_SHAPE * (0.5 + surprise) * np.exp(0.35 * generator.standard_normal(BARS))
        volume = np.round(coin.turnover / close * bustle, 3)
        return np.column_stack((opened, high, low, close, volume))


def _generator(seed: int, name: str, week: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((seed, zlib.crc32(name.encode()), week))))


def _heavy_tailed(generator: np.random.Generator) -> np.ndarray:
    return generator.standard_t(4, BARS) / np.sqrt(2.0)  # Student t with 4 degrees has variance 2


def _unlisted(symbol: str) -> Coin:
    draw = _generator(SEED, f"coin {symbol}", 0)
    return Coin(float(10.0 ** draw.uniform(-1.0, 2.0)), draw.uniform(0.9, 1.5), draw.uniform(0.004, 0.007), 3e6)
