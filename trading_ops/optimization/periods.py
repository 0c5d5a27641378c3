"""Which days is the search taught on, which judge it, and which are kept back for the very end?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from math import floor
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

MIN_BLOCK_DAYS = 5  # counted days of a block: fewer have no Sharpe ratio worth the name
LEFT_OUT = -1
_EPOCH = date(1970, 1, 1)


class TooFewDays(ValueError):
    """The candles do not reach for this split; the message says how many days there are and are needed."""


@dataclass(frozen=True)
class Splitting:
    """How the days are split: `train_blocks` + `folds` equal blocks, then the last `final_pct` percent of all days.

    At each block's start `purge_days` are left out of it: positions opened before it are mostly closed by then.
    """

    train_blocks: int = 7
    folds: int = 5
    purge_days: int = 1
    final_pct: float = 20.0

    @property
    def blocks(self) -> int:
        return self.train_blocks + self.folds


@dataclass(frozen=True, eq=False)
class Period:
    """Some of the days in order: `days` as days since 1970, (n,); of a block only the counted ones."""

    days: np.ndarray

    @property
    def first(self) -> date:
        return _EPOCH + timedelta(days=int(self.days[0]))

    @property
    def last(self) -> date:
        return _EPOCH + timedelta(days=int(self.days[-1]))


@dataclass(frozen=True, eq=False)
class Split:
    """The days of a search. `day_blocks`: one int a day of the search, its block or LEFT_OUT.

    `search_days` and `final` cover the candles' whole UTC days; only bars of `search_days` may reach a search.
    """

    splitting: Splitting
    search_days: np.ndarray
    day_blocks: np.ndarray
    final: Period

    def period(self, first_block: int, stop_block: int) -> Period:
        """The counted days of blocks [first, stop)."""
        return Period(self.search_days[(self.day_blocks >= first_block) & (self.day_blocks < stop_block)])

    @property
    def train(self) -> Period:
        return self.period(0, self.splitting.train_blocks)

    @property
    def folds(self) -> list[Period]:
        return [self.period(block, block + 1) for block in range(self.splitting.train_blocks, self.splitting.blocks)]

    @property
    def out_of_sample(self) -> Period:
        return self.period(self.splitting.train_blocks, self.splitting.blocks)


def whole_days(candles: pd.DataFrame) -> pd.DataFrame:
    """The candles without a first day that does not begin at 00:00 and a last one that does not reach 24:00 UTC."""
    hours = bar_hours(candles)
    if not len(hours):
        return candles
    first, stop = -(-hours[0] // 24) * 24, (hours[-1] + 1) // 24 * 24
    return candles.iloc[np.searchsorted(hours, first) : max(np.searchsorted(hours, stop), 0)]


def bar_hours(candles: pd.DataFrame) -> np.ndarray:
    """The bars' opens as whole hours since 1970, (bars,)."""
    return candles.index.as_unit("us").asi8 // 3_600_000_000


def bar_days(candles: pd.DataFrame) -> np.ndarray:
    """The bars' UTC days as days since 1970, (bars,)."""
    return bar_hours(candles) // 24


def split_days(candles: pd.DataFrame, splitting: Splitting = Splitting()) -> Split:
    """Split the UTC days that the candles touch; pass `whole_days(candles)`. Raises TooFewDays.

    A day without any bar is no day here: nothing can be traded on it, and no return is known.
    """
    days = np.unique(bar_days(candles))
    final = final_days(len(days), splitting)
    needed = days_needed(splitting)
    if len(days) < needed:
        raise TooFewDays(
            f"the candles have {len(days)} whole days, and {needed} are needed for {splitting.blocks} blocks of"
            f" {MIN_BLOCK_DAYS} days after {splitting.purge_days} left out each and a final period of"
            f" {splitting.final_pct:g} %; give more days, or fewer train_blocks, folds or purge_days"
        )
    search = days[: len(days) - final]
    numbers = np.concatenate(
        [
            np.where(np.arange(len(part)) < splitting.purge_days, LEFT_OUT, block)
            for block, part in enumerate(np.array_split(search, splitting.blocks))
        ]
    )
    return Split(splitting, search, numbers, Period(days[len(days) - final :]))


def final_days(days: int, splitting: Splitting) -> int:
    """How many of the days are kept back for the end, at least one."""
    return max(1, floor(days * splitting.final_pct / 100 + 0.5))


def days_needed(splitting: Splitting) -> int:
    """The fewest days with which every block has MIN_BLOCK_DAYS counted days, and the final period too."""
    search = splitting.blocks * (splitting.purge_days + MIN_BLOCK_DAYS)
    days = search + MIN_BLOCK_DAYS
    while days - final_days(days, splitting) < search or final_days(days, splitting) < MIN_BLOCK_DAYS:
        days += 1
    return days
