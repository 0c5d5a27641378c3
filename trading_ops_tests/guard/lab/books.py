"""Strategies whose every hour a test decides, and candles that follow no rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from trading_ops.guard.lab.paths import Bars, Book, Path, Stop
from trading_ops.market.candles import Span, SpannedCandles
from trading_ops_tests.conftest import NOON

START = np.datetime64("2025-03-10T00:00", "us")
HOUR = pd.Timedelta(hours=1)


def hours(count: int) -> Bars:
    return Bars(START + np.arange(count) * np.timedelta64(1, "h"))


def at(hour: int) -> np.datetime64:
    """That many hours after the first bar's open."""
    return START + np.timedelta64(hour, "h")


def hourly(name: str, earned: Sequence[float], bars: Bars, initial: float = 1_000.0) -> Book:
    """Each bar is a trade of its own that opens at the bar's open and closes at its close, for that many USDT."""

    def trade(stops: Sequence[Stop]) -> Path:
        stopped = np.zeros(len(bars), dtype=bool)
        for begin, end in stops:
            stopped |= (bars.opens >= begin) & (bars.opens < end)
        profits = np.where(stopped, 0.0, earned)
        worth = np.concatenate(([initial], initial + np.cumsum(profits)))
        exits = np.flatnonzero(~stopped)
        return Path(worth, np.zeros(len(worth)), exits, profits[exits])

    return Book(name, trade)


def random_walk(rng: np.random.Generator, count: int, deviation: float = 0.012) -> pd.DataFrame:
    """Hourly bars whose price is worth what it will be on average: no strategy can earn or lose on it before costs."""
    close = 100.0 * np.exp(np.cumsum(rng.normal(-(deviation**2) / 2, deviation, count)))
    opened = np.concatenate(([100.0], close[:-1]))
    index = pd.date_range("2024-01-01", periods=count, freq="h", tz="UTC", name="time").as_unit("us")
    high, low = np.maximum(opened, close), np.minimum(opened, close)
    volume = rng.lognormal(0.0, 1.0, count)
    return pd.DataFrame({"open": opened, "high": high, "low": low, "close": close, "volume": volume}, index=index)


class Frames(SpannedCandles):
    """A candle source of given frames, as far as the clock has come."""

    label, origin = "random", "a test"

    def __init__(self, frames: dict[str, pd.DataFrame], now: Callable[[], datetime] = lambda: NOON) -> None:
        super().__init__(now)
        self.frames = frames

    def spans(self) -> dict[str, Span]:
        return {
            symbol: Span(f.index[0].to_pydatetime(), min((f.index[-1] + HOUR).to_pydatetime(), self.now()))
            for symbol, f in self.frames.items()
        }

    def _bars(self, symbol, start, end) -> pd.DataFrame:
        frame = self.frames[symbol]
        return frame[(frame.index >= start) & (frame.index < end)]
