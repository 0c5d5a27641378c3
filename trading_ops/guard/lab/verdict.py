"""Did a rule pay, and is that more than luck?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from trading_ops.guard.lab.paths import Bars
from trading_ops.guard.lab.replay import Halt

WEEK = np.timedelta64(7, "D")
LEAST_WEEKS = 10  # in which a stop made a difference; from fewer nothing is concluded
RESAMPLES = 10_000
TOO_FEW, HURTS, HELPS, UNCLEAR = "too few to tell", "hurts", "helps", "not shown to help"
AS_ANY_STOP = "helps, no more than a stop at any hour"


@dataclass(frozen=True, slots=True)
class Tally:
    """What a rule's stops came to, in USDT.

    `weeks`: those with a stop that made a difference. `interval_usdt`: of the net, 95 %. `any_hour_usdt`: what as many
    stops at no particular hour bring. `false_alarms`: the strategy would have made money until the resume.
    `within_at_day_end`: the day would have ended within the limit. `idle`: nothing would have been entered.
    """

    halts: int
    halted_hours: float
    weeks: int
    avoided_usdt: float
    forgone_usdt: float
    net_usdt: float
    interval_usdt: tuple[float, float] | None
    any_hour_usdt: float
    false_alarms: int
    within_at_day_end: int
    idle: int
    verdict: str


def tally(halts: Sequence[Halt], bars: Bars, any_hour: Mapping[str, float]) -> Tally:
    """`any_hour`: each strategy's `net_at_any_hour`."""
    nets = np.array([halt.net_usdt for halt in halts])
    weeks = np.array([int((halt.at - bars.opens[0]) // WEEK) for halt in halts], int)
    per_week = np.bincount(weeks, nets, minlength=int((bars.closes[-1] - bars.opens[0]) // WEEK) + 1)
    chance = sum(
        equity * any_hour[name]
        for halt in halts
        for name, equity in zip(halt.strategies, halt.equity_usdt, strict=True)
    )
    telling = len(np.unique(weeks[nets != 0]))
    interval = total_interval(per_week) if telling >= LEAST_WEEKS else None
    lasted = [(min(halt.resumed_at, bars.closes[-1]) - halt.at) / np.timedelta64(1, "h") for halt in halts]
    return Tally(
        halts=len(halts),
        halted_hours=float(sum(lasted)),
        weeks=telling,
        avoided_usdt=float(nets[nets > 0].sum()),
        forgone_usdt=float(abs(nets[nets < 0].sum())),
        net_usdt=float(nets.sum()),
        interval_usdt=interval,
        any_hour_usdt=float(chance),
        false_alarms=sum(halt.net_usdt < 0 for halt in halts),
        within_at_day_end=sum(halt.within_at_day_end for halt in halts),
        idle=sum(halt.net_usdt == 0 for halt in halts),
        verdict=judge_net(interval, chance),
    )


def total_interval(per_week: np.ndarray) -> tuple[float, float]:
    """95 % interval of a sum, by bootstrap over its weeks: all stops of a week are drawn together, as they came.

    The percentiles 2.5 and 97.5 of 10,000 sums of as many weeks drawn with replacement; the draw is always the same.
    """
    low, high = np.percentile(_draws(len(per_week)) @ per_week, [2.5, 97.5])
    return float(low), float(high)


@lru_cache(maxsize=1)
def _draws(weeks: int) -> np.ndarray:
    """How often each week is drawn in each resample."""
    draw = np.random.default_rng(0).multinomial(weeks, np.full(weeks, 1.0 / weeks), RESAMPLES)
    return draw.astype(float)


def judge_net(interval: tuple[float, float] | None, any_hour: float) -> str:
    """
    >>> judge_net((-90.0, -5.0), 0.0), judge_net((-5.0, 90.0), 0.0), judge_net(None, 0.0)
    ('hurts', 'not shown to help', 'too few to tell')
    >>> judge_net((5.0, 90.0), 0.0), judge_net((5.0, 90.0), 20.0)
    ('helps', 'helps, no more than a stop at any hour')
    """
    if interval is None:
        return TOO_FEW
    low, high = interval
    if high < 0:
        return HURTS
    if low <= 0:
        return UNCLEAR
    return AS_ANY_STOP if any_hour >= low else HELPS
