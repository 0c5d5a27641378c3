"""How does a symbol's past become a model? Learnt, calibrated, measured on days it never saw, and registered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops.training.card import Card
from trading_ops.training.preparation import Prepared
from trading_ops.training.samples import EPOCH

if TYPE_CHECKING:
    from trading_ops.training.model import Model
    from trading_ops.training.registry import Registry
    from trading_ops.training.samples import Samples
    from trading_ops.training.trainer import Limits, Progress

UNFINISHED = "training"  # folder of checkpoints in the data directory
FOLDS = 4
ABANDONED_S = 3 * 86_400.0


@dataclass(frozen=True, slots=True, eq=False)
class Holdout:
    """The windows of days a model never saw, at `rows` of `samples`: what it said, and what came."""

    samples: Samples
    rows: np.ndarray
    probabilities: np.ndarray

    @property
    def outcomes(self) -> np.ndarray:
        return self.samples.labels[self.rows].astype("float64")

    @property
    def decided_us(self) -> np.ndarray:
        """The closes the windows end with, in microseconds since 1970 UTC."""
        return self.samples.times[self.rows] + HOUR_US


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A model in the registry; `again`: it was there already, made of the same candles, code, parameters and seed."""

    card: Card
    model: Model
    holdout: Holdout
    again: bool


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where a training works and puts what it makes, and how long it may take."""

    registry: Registry
    data_dir: Path
    limits: Limits
    now: Callable[[], datetime]


def train(
    prepared: Prepared,
    workshop: Workshop,
    *,
    parent: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Trained:
    """Train, unless the same model is there, and register it as a candidate.

    Of one name one training runs at a time, on this machine and on all that share the folder of the models: another
    waits. Killed and started again the same day, it goes on from its last checkpoint. Raises TrainingFailed.
    """
    folder, stem = workshop.data_dir / UNFINISHED, prepared.name.replace("/", "-")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(workshop.registry.lock(stem), prepared, progress):
        _sweep(folder, stem, but=prepared.model_id)
        if (known := _known(prepared, workshop.registry)) is not None:
            return known
        checkpoint = folder / f"{prepared.model_id}.checkpoint"
        model, cpu_s = learn(prepared, prepared.samples, workshop.limits, checkpoint=checkpoint, progress=progress)
        # whoever sees the scores may choose by them
        workshop.registry.look(prepared.name, prepared.holdout, prepared.end, key=prepared.model_id)
        card = _card(prepared, model, workshop.now(), cpu_s, parent)
        card = workshop.registry.add(card, model.weights)
        checkpoint.unlink(missing_ok=True)
        return Trained(card, model, holdout_of(prepared, model), again=False)


def _sweep(folder: Path, stem: str, but: str) -> None:
    """Remove the checkpoints of this name that nobody came back to: other candles are another model."""
    for path in folder.glob(f"{escape(stem)}-*.checkpoint"):
        if path.stem != but and time.time() - path.stat().st_mtime > ABANDONED_S:
            path.unlink(missing_ok=True)


@contextmanager
def _alone(lock: Path, prepared: Prepared, progress: Callable[[Progress], None] | None) -> Iterator[None]:
    """One training of a name at a time; the lock of a process that died is free at once."""
    from filelock import FileLock, Timeout

    from trading_ops.training.trainer import Progress

    held = FileLock(lock)
    try:
        held.acquire(timeout=0)
    except Timeout:
        if progress is not None:
            note = f"another training of {prepared.name} runs; this one waits for it"
            progress(Progress(0.0, prepared.request.epochs, None, 0, note))
        held.acquire()
    try:
        yield
    finally:
        held.release()


def learn(
    prepared: Prepared,
    samples: Samples,
    limits: Limits,
    *,
    epochs: int | None = None,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> tuple[Model, float]:
    """A model fitted to these samples (the prepared ones, or with other labels), calibrated on their validation part.

    And its cost in CPU-seconds, those before a kill included.
    """
    from trading_ops.training.calibration import platt
    from trading_ops.training.model import Model
    from trading_ops.training.trainer import Plan, fit

    request, parts = prepared.request, prepared.split
    plan = Plan(request.model_type, epochs or request.epochs, request.batch_size, request.learning_rate, request.seed)
    fitted = fit(samples, parts, plan, checkpoint=checkpoint, progress=progress, limits=limits)
    model = Model(request.model_type, fitted.weights, samples.lookback, samples.horizon, samples.names)
    a, b = platt(model.logits(samples, parts.validation), samples.labels[parts.validation])
    return model.calibrated(a, b), fitted.cpu_s


def holdout_of(prepared: Prepared, model: Model, since: datetime | None = None) -> Holdout:
    """What the model says on the days kept back (from `since` on)."""
    samples = prepared.samples
    rows = samples.learnable(max(prepared.holdout, since or prepared.holdout), prepared.end)
    return Holdout(samples, rows, model.probabilities(samples, rows))


def _known(prepared: Prepared, registry: Registry) -> Trained | None:
    from trading_ops.training.model_files import DamagedModel, UnknownModel

    try:
        card, model = registry.card(prepared.model_id), registry.model(prepared.model_id)
    except (UnknownModel, DamagedModel):  # a damaged one is made again, to the same bytes
        return None
    return Trained(card, model, holdout_of(prepared, model), again=True)


def _card(prepared: Prepared, model: Model, now: datetime, cost_cpu_s: float, parent: str | None) -> Card:
    samples, parts, request = prepared.samples, prepared.split, prepared.request
    learnt = np.concatenate([parts.train, parts.validation])
    ends = samples.times[learnt] + HOUR_US * (1 + samples.horizon)
    base_rate = float(samples.labels[learnt].mean())
    return Card(
        model_id=prepared.model_id,
        model_type=request.model_type,
        symbol=prepared.symbol,
        horizon_hours=samples.horizon,
        lookback=samples.lookback,
        features=samples.names,
        created_at=now,
        trained_from=samples.decided_at(int(learnt.min())),
        trained_until=EPOCH + timedelta(microseconds=int(ends.max())),
        candles_until=prepared.end,
        base_rate=base_rate,
        seed=request.seed,
        parameters=request.parameters,
        digests=prepared.digests,
        candles=prepared.label,
        metrics=measured(prepared, model, base_rate),
        cost_cpu_s=round(cost_cpu_s, 3),
        parent=parent,
    )


def measured(prepared: Prepared, model: Model, base_rate: float) -> dict[str, Any]:
    """Scores on the hold-out: of the model, of the logistic baseline and of the training's share of rises alone.

    `walk_forward`: those of the baseline within the training days, each fold judged after what it learnt from; None
    where they are too few. What it says there and not on the hold-out was luck, or has gone.
    """
    from trading_ops.accuracy.scoring import score
    from trading_ops.training.baseline import fit_logistic

    held, samples = holdout_of(prepared, model), prepared.samples
    logistic = fit_logistic(samples, np.concatenate([prepared.split.train, prepared.split.validation]))
    said = {
        "model": (held.probabilities, held.outcomes),
        "logistic": (logistic.probabilities(samples, held.rows), held.outcomes),
        "base_rate": (np.full(len(held.rows), base_rate), held.outcomes),
        "walk_forward": _walked(prepared),
    }
    found = {name: score(p, y, reference=base_rate) for name, (p, y) in said.items()}
    return {name: None if scores is None else asdict(scores) for name, scores in found.items()}


def _walked(prepared: Prepared) -> tuple[np.ndarray, np.ndarray]:
    """What the logistic baseline said in each fold of the training days, and what came."""
    from trading_ops.training.baseline import fit_logistic
    from trading_ops.training.splits import TooFewRows, walk_forward

    samples = prepared.samples
    try:
        parts = walk_forward(samples, FOLDS, start=prepared.start, end=prepared.holdout)
    except TooFewRows:
        return np.empty(0), np.empty(0)
    said = [fit_logistic(samples, part.train).probabilities(samples, part.validation) for part in parts]
    return np.concatenate(said), samples.labels[np.concatenate([part.validation for part in parts])].astype("float64")
