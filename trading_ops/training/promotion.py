"""Does the challenger take the champion's place? Judged on hours that neither learnt from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trading_ops.accuracy.scoring import accuracy
from trading_ops.training.paired import Comparison, compare

ALPHA = 0.05
STALE_DAYS = 30.0
FEWEST = 100  # outcomes; on fewer nothing is promoted
_ROUNDING = 1e-12


class InvalidPredictions(ValueError):
    """Predictions and outcomes that do not fit together, or are none; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the challenger is promoted, and why or why not, with every number it rests on; None where undefined.

    `difference`: the champion's Brier score less the challenger's, above 0 where the challenger is better, with its
    95 % `interval`; `p_value`: one-sided, of the challenger being no better; `p_value_worse`: of it being no worse;
    `alpha`: 5 % divided by `looks`; `minimum_detectable_effect`: the true difference that would be found with a power
    of 80 %. `skill_over_base_rate`: 1 - Brier / Brier of always saying `base_rate`, the share of rises in the
    training window. `n`: outcomes, over `hours`; `void` of them left out.
    """

    promote: bool
    reason: str
    n: int
    void: int
    hours: int
    looks: int
    alpha: float
    base_rate: float
    champion_age_days: float | None
    brier_challenger: float | None = None
    brier_champion: float | None = None
    brier_base_rate: float | None = None
    skill_over_base_rate: float | None = None
    accuracy_challenger: float | None = None
    accuracy_champion: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    p_value_worse: float | None = None
    minimum_detectable_effect: float | None = None

    @property
    def document(self) -> dict[str, Any]:
        """The verdict as it is stored: plain values, as JSON takes them."""
        return {**asdict(self), "interval": None if self.interval is None else list(self.interval)}


def judge(
    challenger: np.ndarray,
    champion: np.ndarray | None,
    outcomes: np.ndarray,
    times_us: np.ndarray,
    *,
    base_rate: float,
    looks: int,
    champion_age_days: float | None,
    stale_after_days: float = STALE_DAYS,
) -> Verdict:
    """Judge the probabilities of a rise [n] that two models gave at `times_us` [n], against `outcomes` [n].

    Outcomes are 1, 0 or NaN (void: left out). The challenger is promoted where its Brier score is at most that of
    always saying `base_rate`, and besides there is no champion; or the champion is at most `stale_after_days` old, and
    the paired difference is above 0 at 5 % / `looks`, one-sided (`paired.compare`); or the champion is older, and the
    challenger not worse at 5 %, one-sided: more looks make it harder to be better, but not to be worse. An age that is
    not known is that of a young champion. Nothing is promoted on fewer than FEWEST outcomes, nor over a champion on
    hours that hold not two blocks of seven days.

    `champion_age_days`: since its candles ended, not since its last training label, a hold-out earlier.
    Raises InvalidPredictions for unequal lengths, a probability outside [0, 1] or NaN, an hour that is there twice.
    """
    if looks < 1:
        raise InvalidPredictions(f"looks is {looks!r}; a whole number from 1, this look included, would be right")
    if not 0.0 <= base_rate <= 1.0:
        raise InvalidPredictions(f"base_rate is {base_rate!r}; a share from 0 to 1 would be right")
    if champion_age_days is not None and not np.isfinite(champion_age_days):
        raise InvalidPredictions(f"champion_age_days is {champion_age_days!r}; a number of days would be right")
    times = np.asarray(times_us)
    ours = _probabilities("challenger", challenger, len(times))
    theirs = None if champion is None else _probabilities("champion", champion, len(times))
    up = _outcomes(outcomes, times)
    known = np.isfinite(up)
    ours, up, times = ours[known], up[known], times[known].astype("int64")
    theirs = None if theirs is None else theirs[known]

    figures: dict[str, Any] = {
        "n": len(up),
        "void": int((~known).sum()),
        "hours": int((times.max() - times.min()) // 3_600_000_000 + 1) if len(times) else 0,
        "looks": looks,
        "alpha": ALPHA / looks,
        "base_rate": base_rate,
        "champion_age_days": champion_age_days if champion is not None else None,
    }
    if len(up) < FEWEST:
        return Verdict(False, f"too few outcomes to judge by: {len(up)} of at least {FEWEST}", **figures)
    brier, constant = float(np.mean((ours - up) ** 2)), float(np.mean((base_rate - up) ** 2))
    figures |= {
        "brier_challenger": brier,
        "brier_base_rate": constant,
        "skill_over_base_rate": 1.0 - brier / constant if constant > 0.0 else None,
        "accuracy_challenger": accuracy(ours, up),
    }
    found = None
    if theirs is not None:
        gains = (theirs - up) ** 2 - (ours - up) ** 2
        found = compare(gains, times, ALPHA / looks)
        figures |= {"brier_champion": float(np.mean((theirs - up) ** 2)), "accuracy_champion": accuracy(theirs, up)}
    if found is not None:
        figures |= {
            "difference": found.difference,
            "interval": found.interval,
            "p_value": found.p_better,
            "p_value_worse": found.p_worse,
            "minimum_detectable_effect": found.minimum_detectable,
        }
    if brier > constant + _ROUNDING:
        return Verdict(
            False,
            f"worse than always saying {base_rate:.3f}, the training window's share of rises: Brier {brier:.5f} against"
            f" {constant:.5f} over {len(up)} hours",
            **figures,
        )
    if theirs is None:
        reason = f"no champion, and not worse than the base rate: Brier {brier:.5f} against {constant:.5f}"
        return Verdict(True, f"{reason} over {len(up)} hours", **figures)
    if found is None:
        reason = f"{figures['hours']} hours are too few to compare it with the champion; two weeks are the fewest"
        return Verdict(False, reason, **figures)
    stale = champion_age_days if champion_age_days is not None and champion_age_days > stale_after_days else None
    return Verdict(*_compared(found, brier, figures["brier_champion"], ALPHA / looks, looks, stale), **figures)


def _compared(
    found: Comparison, ours: float, theirs: float, alpha: float, looks: int, stale_days: float | None
) -> tuple[bool, str]:
    numbers = f"Brier {ours:.5f} against {theirs:.5f}, difference {found.difference:+.5f}"
    if stale_days is not None:
        aged = f"the champion is {stale_days:.0f} days old"
        if found.p_worse <= ALPHA:
            return False, f"{aged}, but the challenger is worse: {numbers}, p {found.p_worse:.3g} of {ALPHA}"
        return True, f"{aged}, and the challenger not significantly worse: {numbers}, p {found.p_worse:.3g}"
    limit = f"{alpha:.3g}" + (f" (5 % by {looks} looks)" if looks > 1 else "")
    if found.p_better <= alpha:
        return True, f"better than the champion: {numbers}, p {found.p_better:.3g} of {limit}"
    return False, (
        f"not shown to be better than the champion: {numbers}, p {found.p_better:.3g} above {limit}; a true difference"
        f" of {found.minimum_detectable:.5f} would be found in 80 of 100 cases"
    )


def _probabilities(whose: str, values: np.ndarray, count: int) -> np.ndarray:
    p = np.asarray(values, "float64")
    if p.shape != (count,):
        raise InvalidPredictions(
            f"{whose} has the shape {p.shape} for {count} times; one probability a time would be right"
        )
    wrong = ~((p >= 0.0) & (p <= 1.0))
    if wrong.any():
        raise InvalidPredictions(
            f"{whose}[{wrong.argmax()}] is {p[wrong][0]}; a probability from 0 to 1 would be right"
        )
    return p


def _outcomes(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    up = np.asarray(values, "float64")
    if times.ndim != 1 or up.shape != times.shape:
        raise InvalidPredictions(
            f"outcomes have the shape {up.shape}, times {times.shape}; one outcome a time would be right"
        )
    if len(times) and not np.issubdtype(times.dtype, np.integer):
        raise InvalidPredictions(f"times_us are {times.dtype}; int64 microseconds since 1970 UTC would be right")
    wrong = np.isfinite(up) & (up != 0.0) & (up != 1.0) | np.isinf(up)
    if wrong.any():
        raise InvalidPredictions(f"outcomes[{wrong.argmax()}] is {up[wrong][0]}; 1, 0 or NaN for void would be right")
    order = np.sort(times)
    twice = order[1:][order[1:] == order[:-1]]
    if len(twice):
        raise InvalidPredictions(f"times_us has {twice[0]} twice; one prediction an hour would be right")
    return up
