"""At which bar does a rule of the guard fire? The guard's own verdicts, asked only where they can change."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import NamedTuple, Protocol

import numpy as np

from trading_ops.guard.drawdown import PortfolioLimits, PortfolioRisk, below, rises
from trading_ops.guard.lab.paths import Bars, Path
from trading_ops.guard.positions import losing_streaks
from trading_ops.guard.rules import Limits, StrategyRisk, assess

NEAR = 1e-6  # percentage points below a limit from which the guard itself is asked


class Breach(NamedTuple):
    """Seen at the close of `bar`; `figure` and `limit` in the rule's own unit."""

    bar: int
    rule: str
    figure: float
    limit: float


class Rule(Protocol):
    """What may stop these strategies; a rule may remember what it saw, so each replay has one of its own."""

    def first(self, bars: Bars, paths: Sequence[Path], since: int) -> Breach | None:
        """The first breach at a bar from `since` (the first one after a resume) on."""

    def within(self, bars: Bars, paths: Sequence[Path], since: int, bar: int) -> bool:
        """Whether nothing is breached at this bar."""

    def resumed(self, paths: Sequence[Path], since: int) -> None:
        """A person let them trade again before bar `since`."""


class StrategyRule:
    """The daily loss and the losing streak of one strategy."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def first(self, bars: Bars, paths: Sequence[Path], since: int) -> Breach | None:
        (path,) = paths
        for bar in self._candidates(bars, path, since):
            risk = judge_bar(bars, path, int(bar), since, self._limits)
            if risk.breach == "daily_loss":
                return Breach(int(bar), risk.breach, risk.daily_loss_pct or 0.0, self._limits.daily_loss_pct)
            if risk.breach is not None:
                return Breach(int(bar), risk.breach, risk.consecutive_losses, self._limits.consecutive_losses)
        return None

    def within(self, bars: Bars, paths: Sequence[Path], since: int, bar: int) -> bool:
        return judge_bar(bars, paths[0], bar, since, self._limits).breach is None

    def resumed(self, paths: Sequence[Path], since: int) -> None:
        pass

    def _candidates(self, bars: Bars, path: Path, since: int) -> np.ndarray:
        """The bars at which one of the limits may be exceeded."""
        start = path.equity[np.maximum(bars.day_before[since:], since - 1) + 1]
        with np.errstate(divide="ignore", invalid="ignore"):
            loss = 100.0 * (start - path.equity[since + 1 :]) / start
        losing = np.flatnonzero(loss > self._limits.daily_loss_pct - NEAR) + since
        counted = slice(int(np.searchsorted(path.exits, since)), None)
        exits, streaks = path.exits[counted], losing_streaks(path.profits[counted])
        last_of_bar = np.diff(exits, append=len(bars)) > 0
        return np.union1d(losing, exits[last_of_bar & (streaks > self._limits.consecutive_losses)])


def judge_bar(bars: Bars, path: Path, bar: int, since: int, limits: Limits) -> StrategyRisk:
    """The guard's verdict at the close of a bar: trades before `since` do not count, and the day began there."""
    begun = max(int(bars.day_before[bar]), since - 1)
    counted, today, seen = np.searchsorted(path.exits, [since, begun + 1, bar + 1])
    streaks = losing_streaks(path.profits[counted:seen])
    return assess(
        limits,
        realised_usdt=fsum(path.profits[today:seen]),
        streak=int(streaks[-1]) if streaks.size else 0,
        recent=(),
        equity_at_midnight=float(path.equity[begun + 1]),
        unrealised_now=float(path.unrealised[bar + 1]),
        unrealised_at_midnight=float(path.unrealised[begun + 1]),
    )


class AccountRule:
    """The drawdown of all strategies together, from the peak or the start since the last count anew."""

    def __init__(self, limits: PortfolioLimits) -> None:
        self._limits = limits
        self._start = self._level = np.nan
        self._noted = 0  # the bars that the level is of

    def first(self, bars: Bars, paths: Sequence[Path], since: int) -> Breach | None:
        worth = _worth(paths)
        if since == 0:
            self._start = self._level = float(worth[0])
        level = self._levels(worth[since + 1 :])
        asked = np.zeros(len(level), dtype=bool)
        known = ((self._limits.from_peak_pct, level), (self._limits.from_start_pct, self._start))
        for limit, then in known:
            if limit is not None:
                asked |= 100.0 * (then - worth[since + 1 :]) / then > limit - NEAR
        for step in np.flatnonzero(asked):
            risk = self._risk(float(worth[since + 1 + step]), float(level[step]))
            if risk.breach is not None:
                self._level, self._noted = float(level[step]), since + int(step) + 1
                peak = risk.drawdown_from_peak_pct, self._limits.from_peak_pct
                start = risk.drawdown_from_start_pct, self._limits.from_start_pct
                figure, limit = peak if risk.breach.endswith("peak") else start
                return Breach(since + int(step), risk.breach, figure or 0.0, limit or 0.0)
        return None

    def within(self, bars: Bars, paths: Sequence[Path], since: int, bar: int) -> bool:
        worth = _worth(paths)
        return self._risk(float(worth[bar + 1]), self._level).breach is None

    def resumed(self, paths: Sequence[Path], since: int) -> None:
        worth = _worth(paths)
        now, stopped = float(worth[since]), worth[self._noted + 1 : since + 1]
        self._level = float(self._levels(stopped)[-1]) if len(stopped) else self._level
        if self._risk(now, self._level).breach is not None:
            self._level = self._start = now

    def _risk(self, now: float, level: float) -> PortfolioRisk:
        return below(now, 0.0, self._start, level, self._limits)

    def _levels(self, worth: np.ndarray) -> np.ndarray:
        """The peak as the guard notes it, at each bar; only a new high can raise it."""
        before = np.maximum.accumulate(np.concatenate(([self._level], worth[:-1])))
        levels, level = np.full(len(worth), np.nan), self._level
        for bar in np.flatnonzero(worth > before):
            if rises(worth[bar], level):
                levels[bar] = level = max(float(worth[bar]), self._start)
        noted = np.maximum.accumulate(np.where(np.isnan(levels), -np.inf, levels))
        return np.maximum(noted, self._level)


def _worth(paths: Sequence[Path]) -> np.ndarray:
    return np.sum([path.equity for path in paths], axis=0)
