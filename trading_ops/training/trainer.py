"""How does a network learn from samples, so that it can be killed, watched and repeated to the last bit?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from trading_ops.training.card import MODEL_TYPES
from trading_ops.training.samples import Samples

if TYPE_CHECKING:
    from trading_ops.training.splits import Split

SMALLEST_BATCH = 8  # memory for fewer windows than this is not worth waiting for


class TrainingFailed(RuntimeError):
    """A training that ended without a model: diverged, over time or out of memory; the message has the figure."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to train. Raises ValueError naming the field, its value and what would be right.

    `patience`: epochs without a lower validation loss before it stops. `weight_decay` as in AdamW, `clip` the greatest
    norm of a gradient. `threads` of torch on a CPU, where it judges: another number gives other bits. A batch's two
    halves learn in a thread each, to the same bits on one core as on two.
    """

    model_type: str
    epochs: int = 50
    batch_size: int = 64
    learning_rate: float = 1e-3
    seed: int = 0
    patience: int = 10
    weight_decay: float = 0.01
    clip: float = 1.0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.model_type not in MODEL_TYPES:
            raise ValueError(f"model_type is {self.model_type!r}; one of {', '.join(MODEL_TYPES)} would be right")
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0), ("patience", 1), ("threads", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value!r}; a whole number from {least} would be right")
        for name, right in (("learning_rate", "above 0"), ("clip", "above 0"), ("weight_decay", "from 0")):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (value == 0 and right == "above 0"):
                raise ValueError(f"{name} is {value!r}; a number {right} would be right")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a training may use; None for no limit. `seconds` of wall time, resumed ones from their resumption.

    `memory_mb`: MiB that this process holds, with all else in it; a batch that needs more is halved first.
    """

    seconds: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True, slots=True)
class Epoch:
    """Mean log loss (nats) of the training rows while they were learnt, and of the validation rows afterwards."""

    number: int
    train_loss: float
    validation_loss: float


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a training is: `share` of its planned work from 0 to 1 and the last whole epoch, None within the first.

    `note`: what happened that somebody may want to know, such as a checkpoint that was not used.
    """

    share: float
    epochs: int
    last: Epoch | None
    best_epoch: int
    note: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What came of a training: the weights of the epoch with the least validation loss, as `Model` reads them.

    `epochs_run` counts those before a kill too, `resumed_from` is how many they were; `cpu_s` likewise, of all threads
    of the process. `samples_per_s`: training windows learnt a second of wall time, validation included.
    """

    weights: Mapping[str, np.ndarray]
    epochs_run: int
    best_epoch: int
    history: tuple[Epoch, ...]
    stopped: Literal["epochs", "early"]
    batch_size: int
    cpu_s: float
    samples_per_s: float
    resumed_from: int
    device: str
    threads: int
    notes: tuple[str, ...]


def fit(
    samples: Samples,
    split: Split,
    plan: Plan,
    *,
    checkpoint: Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    limits: Limits = Limits(),
    device: str | None = None,
) -> Fitted:
    """Train a network on `split.train`, choose its epoch on `split.validation`.

    The same samples, split, plan and device give the same bytes. `checkpoint`: a file written every 10 epochs and at
    the end, from which a killed training goes on to the very bytes it would have ended in; whoever has stored the
    result deletes it. `progress` is told at least every 5 %. `device`: "cuda" where torch finds one, else "cpu".

    Raises TrainingFailed, ValueError for rows that cannot be learnt from, ModuleNotFoundError without the extra `ml`.
    """
    _require_learnable(samples, split)
    from trading_ops.training.loop import Loop  # torch takes a second

    return Loop(samples, split, plan, checkpoint, progress or (lambda _: None), limits, device).run()


def _require_learnable(samples: Samples, split: Split) -> None:
    decidable = samples.decidable()
    for part, rows in (("training", split.train), ("validation", split.validation)):
        if not len(rows):
            raise ValueError(f"the {part} part of {samples.symbol} has no rows; more bars would be right")
        wrong = rows[
            ~(np.isin(rows, decidable) & np.isfinite(samples.labels[np.clip(rows, 0, len(samples.labels) - 1)]))
        ]
        if len(wrong):
            raise ValueError(
                f"{len(wrong)} rows of the {part} part of {samples.symbol} have no whole window or no label, "
                f"first {wrong[0]}; rows of Samples.learnable() would be right"
            )
