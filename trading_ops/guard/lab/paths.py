"""What did a strategy trade bar by bar, and what would it have traded with stops?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

HOUR = np.timedelta64(1, "h")
DAY = np.timedelta64(1, "D")
Stop = tuple[np.datetime64, np.datetime64]  # no entry fills at an open in [from, until)


@dataclass(frozen=True, eq=False)
class Bars:
    """The hours that are looked at: `opens` of the bars, UTC, ascending; an hour without a bar is not there."""

    opens: np.ndarray

    def __len__(self) -> int:
        return len(self.opens)

    @cached_property
    def closes(self) -> np.ndarray:
        return self.opens + HOUR

    @cached_property
    def days(self) -> np.ndarray:
        """Each bar's UTC day; the bar that closes at 24:00 belongs to the day it ends."""
        return self.opens.astype("datetime64[D]")

    @cached_property
    def day_before(self) -> np.ndarray:
        """For each bar, the last bar of the days before its own; -1 on the first day."""
        return np.searchsorted(self.days, self.days) - 1

    def day_end(self, bar: int) -> int:
        """The last bar of this bar's day."""
        return int(np.searchsorted(self.days, self.days[bar], side="right")) - 1

    def from_moment(self, moment: np.datetime64) -> int:
        """The first bar that opens at or after the moment; their number where none does."""
        return int(np.searchsorted(self.opens, moment))


@dataclass(frozen=True, eq=False, slots=True)
class Path:
    """A strategy's hours. `equity`, `unrealised`: USDT, at each bar's close, the first entry before the first bar.

    `exits`, `profits`: its closed trades in the guard's order (closed_at, id): the bar in which each closed, net USDT.
    """

    equity: np.ndarray
    unrealised: np.ndarray
    exits: np.ndarray
    profits: np.ndarray


@dataclass(frozen=True, eq=False, slots=True)
class Book:
    """A strategy that can be traded again with stops; `trade` depends on nothing else and looks at no later bar."""

    name: str
    trade: Callable[[Sequence[Stop]], Path]
