"""Which stops would a rule have brought, and what would have been earned without each?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trading_ops.guard.lab.paths import Bars, Book, Path, Stop
from trading_ops.guard.lab.rules import Rule

EVERY = 43  # hours between two of the stops that no rule asked for: each hour of the day comes in turn


@dataclass(frozen=True, slots=True)
class Halt:
    """One stop, from the close of the bar that crossed the limit to its resume.

    `equity_usdt`: of each stopped strategy at the stop. `earned_usdt`: what they earned until the resume, stopped;
    `without_usdt`: what they would have earned, had this stop not been. `within_at_day_end`: without it, the UTC day
    would have ended within the limit. `cut_off`: the bars end before its resume.
    """

    rule: str
    strategies: tuple[str, ...]
    at: np.datetime64
    resumed_at: np.datetime64
    figure: float
    limit: float
    equity_usdt: tuple[float, ...]
    earned_usdt: float
    without_usdt: float
    within_at_day_end: bool
    cut_off: bool

    @property
    def net_usdt(self) -> float:
        """Loss avoided; profit forgone is below 0."""
        return self.earned_usdt - self.without_usdt


@dataclass(frozen=True, slots=True)
class Replay:
    """A rule's stops, oldest first, and what all strategies were worth at the end, with them and without any."""

    halts: tuple[Halt, ...]
    final_usdt: float
    final_without_usdt: float


def replay(books: Sequence[Book], bars: Bars, rule: Rule, resume_after: np.timedelta64) -> Replay:
    """Trade up to the first breach, stop all these strategies, resume them, and so on to the last bar.

    A stop is seen at a bar's close and holds from the next open on: no position is opened until the resume, one that is
    open keeps its exits. What is compared differs in this one stop alone: those before it are on both sides. A stop
    depends on nothing later than itself.
    """
    without = paths = [book.trade(()) for book in books]
    final_without = _worth(paths, len(bars))
    halts: list[Halt] = []
    stops: list[Stop] = []
    since = 0
    while since < len(bars) and (breach := rule.first(bars, paths, since)) is not None:
        at = bars.closes[breach.bar]
        resumed_at = at + resume_after
        stops.append((at, resumed_at))
        without, paths = paths, [book.trade(stops) for book in books]
        stopped, resume = breach.bar + 1, bars.from_moment(resumed_at)
        halts.append(
            Halt(
                rule=breach.rule,
                strategies=tuple(book.name for book in books),
                at=at,
                resumed_at=resumed_at,
                figure=breach.figure,
                limit=breach.limit,
                equity_usdt=tuple(float(path.equity[stopped]) for path in paths),
                earned_usdt=_worth(paths, resume) - _worth(paths, stopped),
                without_usdt=_worth(without, resume) - _worth(without, stopped),
                within_at_day_end=rule.within(bars, without, since, bars.day_end(breach.bar)),
                cut_off=bool(resumed_at > bars.closes[-1]),
            )
        )
        since = resume
        rule.resumed(paths, since)
    return Replay(tuple(halts), _worth(paths, len(bars)), final_without)


def net_at_any_hour(book: Book, bars: Bars, resume_after: np.timedelta64) -> float:
    """What a stop of this length brings at no particular hour, as a share of the equity at its start.

    The mean over one stop every 43 hours of the unstopped strategy. A strategy that loses is well stopped at any hour.
    """
    path, nets = book.trade(()), []
    for bar in range(0, bars.from_moment(bars.closes[-1] - resume_after), EVERY):
        at = bars.closes[bar]
        stopped, resume = bar + 1, bars.from_moment(at + resume_after)
        if path.equity[stopped] > 0:
            other = book.trade([(at, at + resume_after)])
            nets.append((other.equity[resume] - path.equity[resume]) / path.equity[stopped])
    return float(np.mean(nets)) if nets else 0.0


def _worth(paths: Sequence[Path], bars: int) -> float:
    """After so many bars."""
    return float(sum(path.equity[bars] for path in paths))
