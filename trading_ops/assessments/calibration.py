"""Does what GPT-4 is sure of come true? Its confidence against what followed, and what its word counts for then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from trading_ops.assessments.evidence import Adviser
from trading_ops.assessments.past import COLLECTION, ONE_DAY, RETRAINS, WEEK
from trading_ops.audit.store import AuditStore
from trading_ops.performance.intervals import Interval, wilson_interval

LEAST = 20  # scored opinions, before which nothing is concluded
NO_SKILL = 0.25  # the Brier score of always saying 0.5
BINS = 10
DRAWS = 2000
REACH_DAYS = 365  # opinions before that are of another model and another market
CHOICES = ("retrain", "wait", "optimize_parameters")


@dataclass(frozen=True, slots=True)
class Scored:
    """An opinion and whether it came true: `confidence` is the probability that it does."""

    day: str
    recommendation: str
    confidence: float
    came_true: bool


@dataclass(frozen=True, slots=True)
class Bin:
    """The scored opinions with a confidence in [low, high), the last one with 1: shares are fractions."""

    low: float
    high: float
    n: int
    mean_confidence: float
    share_true: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far GPT-4's confidence came true. `pending`: opinions whose week is not over; `unknown`: nobody can tell.

    `base_rate`: the share that came true; `brier_base`: the Brier score of always saying it. `excess`: by how much the
    Brier score is above the better one of that and 0.25; `excess_at_least`: one-sided 95 % bound of it by a bootstrap.
    All are None without a scored opinion.
    """

    scored: tuple[Scored, ...] = ()
    pending: int = 0
    unknown: int = 0
    brier: float | None = None
    base_rate: float | None = None
    brier_base: float | None = None
    excess: float | None = None
    excess_at_least: float | None = None
    bins: tuple[Bin, ...] = ()

    def adviser(self) -> Adviser:
        """Advisory where its word is shown to be worse than saying the same every day; else its word counts.

        That takes 20 scored opinions, a Brier score above 0.25, which no base rate's exceeds, and a bound above 0.
        """
        n = len(self.scored)
        if n < LEAST or self.brier is None or self.brier_base is None or self.excess_at_least is None:
            return Adviser(why=f"{n} of {LEAST} opinions scored", scored=n, brier=self.brier)
        said = (
            f"{n} opinions scored, Brier score {self.brier:.3f}; always saying the share that came true,"
            f" {self.base_rate:.2f}, has {self.brier_base:.3f}, and saying 0.5 has {NO_SKILL:g}"
        )
        if self.brier > NO_SKILL and self.excess_at_least > 0:
            why = f"{said}: worse by {self.excess_at_least:.3f} at least (one-sided 95 %)"
            return Adviser(standing="advisory", why=why, scored=n, brier=self.brier)
        return Adviser(why=f"{said}: not shown to be worse", scored=n, brier=self.brier)


def calibrate(scored: Sequence[Scored], pending: int = 0, unknown: int = 0) -> Calibration:
    """The Brier score, mean of (confidence - 1 or 0)^2, beside those of saying the same every day, and the bins.

    The bootstrap draws runs of seven opinions, with a fixed seed: those of days close together share a part of what
    followed. Sources: Brier (1950); circular blocks, Politis and Romano (1992).

    >>> two = [Scored("2025-03-01", "wait", 0.8, True), Scored("2025-03-02", "wait", 0.6, False)]
    >>> found = calibrate(two)
    >>> round(found.brier, 3), found.base_rate, found.brier_base, round(found.excess, 3)
    (0.2, 0.5, 0.25, -0.05)
    """
    if not scored:
        return Calibration(pending=pending, unknown=unknown)
    said = np.array([one.confidence for one in scored])
    true = np.array([one.came_true for one in scored], dtype=float)
    base = float(true.mean())
    # the share of the whole sample is never worse than 0.5, whose losses are all 0.25
    more = (said - true) ** 2 - (base - true) ** 2
    starts = np.random.default_rng(0).integers(len(more), size=(DRAWS, -(-len(more) // WEEK)))
    drawn = (starts[:, :, None] + np.arange(WEEK)).reshape(DRAWS, -1)[:, : len(more)] % len(more)
    return Calibration(
        scored=tuple(scored),
        pending=pending,
        unknown=unknown,
        brier=float(((said - true) ** 2).mean()),
        base_rate=base,
        brier_base=base * (1 - base),
        excess=float(more.mean()),
        excess_at_least=float(np.quantile(more[drawn].mean(axis=1), 0.05)),
        bins=tuple(_bins(scored)),
    )


def retrain_came_true(tries: Sequence[str]) -> bool | None:
    """Whether a model was deployed, of the outcomes of the retrains of the week after; None where nothing was compared.

    A training that failed says nothing of the opinion.

    >>> retrain_came_true(["kept", "deployed"]), retrain_came_true(["kept", "failed"]), retrain_came_true(["failed"])
    (True, False, None)
    """
    compared = [outcome == "deployed" for outcome in tries if outcome in ("deployed", "kept")]
    return any(compared) if compared else None


def wait_came_true(due_a_week_later: bool | None) -> bool | None:
    """Whether no retrain was due after the week; None where that is not recorded."""
    return None if due_a_week_later is None else not due_a_week_later


def read_calibration(store: AuditStore, source: str, until_day: str) -> Calibration:
    """The calibration of this bot's opinions of a year, by what is recorded up to `until_day`, itself included.

    An opinion of day D is scored once D+7 is not after `until_day`. A retrain belongs to the week after D where it was
    decided on one of D..D+6, or started by a person on one of D+1..D+7. Raises StoreUnavailable.
    """
    last = date.fromisoformat(until_day)
    first = last - REACH_DAYS * ONE_DAY
    records = store.read(COLLECTION, first=str(first), last=until_day, key="", all_revisions=True)
    bodies = [(record.partition, record.body) for record in records if record.body.get("source") == source]
    tries = _tries(store, first, {str(body.get("decision_id")): day for day, body in bodies})
    documents = dict(bodies)  # the newest revision of each day
    scored: list[Scored] = []
    pending = unknown = 0
    for day, body in documents.items():
        opinion = _part(body, "opinion")
        if not opinion or opinion.get("unavailable") is not None:
            continue
        given = date.fromisoformat(day)
        end = given + WEEK * ONE_DAY
        if end > last:
            pending += 1
            continue
        said, confidence = opinion.get("recommendation"), _share(opinion.get("confidence"))
        if said == "retrain":
            came_true = retrain_came_true([outcome for moment, outcome in tries if given < moment <= end])
        else:
            came_true = wait_came_true(_due(documents.get(str(end))))
        if came_true is None or said not in CHOICES or confidence is None:
            unknown += 1
        else:
            scored.append(Scored(day, said, confidence, came_true))
    return calibrate(scored, pending, unknown)


def _tries(store: AuditStore, first: date, decided_on: Mapping[str, str]) -> list[tuple[date, str]]:
    """The day each retrain was launched, and its outcome: the day after the one that decided it, else its own."""
    found = []
    for record in store.read(RETRAINS, first=str(first - (WEEK + 1) * ONE_DAY)):
        day = decided_on.get(str(_part(record.body, "trigger").get("decision")))
        launched = date.fromisoformat(record.partition) if day is None else date.fromisoformat(day) + ONE_DAY
        found.append((launched, str(record.body.get("outcome"))))
    return found


def _bins(scored: Sequence[Scored]) -> list[Bin]:
    found: dict[int, list[Scored]] = {}
    for one in scored:
        found.setdefault(min(int(one.confidence * BINS), BINS - 1), []).append(one)
    return [
        Bin(
            low=place / BINS,
            high=(place + 1) / BINS,
            n=len(members),
            mean_confidence=sum(one.confidence for one in members) / len(members),
            share_true=sum(one.came_true for one in members) / len(members),
            interval=wilson_interval(sum(one.came_true for one in members), len(members)),
        )
        for place, members in sorted(found.items())
    ]


def _due(body: Mapping[str, Any] | None) -> bool | None:
    due = _part(body, "decision").get("due")
    return due if isinstance(due, bool) else None


def _part(body: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    part = None if body is None else body.get(name)
    return part if isinstance(part, dict) else {}


def _share(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and type(value) is not bool and 0 <= value <= 1 else None
