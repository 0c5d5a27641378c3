"""What happens epoch by epoch while a network learns? Imported where a training runs: it needs torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import psutil
import torch

from trading_ops.files import FileNotWritten
from trading_ops.training import checkpoint as checkpoints
from trading_ops.training.checkpoint import Kept, NotUsed
from trading_ops.training.learner import Learner, lacks_memory
from trading_ops.training.model import NET, scaler
from trading_ops.training.repeatable import repeatable
from trading_ops.training.samples import Samples
from trading_ops.training.trainer import SMALLEST_BATCH, Epoch, Fitted, Limits, Plan, Progress, TrainingFailed

if TYPE_CHECKING:
    from trading_ops.training.splits import Split

EXPLODED = 10.0  # nats; a coin's log loss is 0.69
TELL_EVERY = 0.05
_BEST = "best."


class Loop:
    """One training, to be run once. Arguments as those of `trainer.fit`."""

    def __init__(
        self,
        samples: Samples,
        split: Split,
        plan: Plan,
        checkpoint: Path | None,
        progress: Callable[[Progress], None],
        limits: Limits,
        device: str | None,
    ) -> None:
        self._plan, self._limits, self._progress, self._checkpoint = plan, limits, progress, checkpoint
        self._device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self._train, self._validation = split.train, split.validation
        self._identity = checkpoints.identity_of(samples, split.train, split.validation, plan, self._device)
        self._scaler = scaler(samples.features[split.train])
        self._learner = Learner(samples, self._scaler, plan, self._device, self._require_within_limits)
        self._kept = Kept((), 0, plan.batch_size, 0.0, self._learner.arrays())
        self._notes: list[str] = []
        self._told = 0.0
        self._process = psutil.Process()

    def run(self) -> Fitted:
        """Raises TrainingFailed."""
        self._began = time.monotonic()
        cpu_began = time.process_time()
        with repeatable(self._plan.threads):
            self._resume()
            resumed_from, cpu_before = len(self._kept.history), self._kept.cpu_s
            while (stopped := self._ended()) is None:
                history, best_epoch, batch, arrays = self._next_epoch()
                cpu_s = cpu_before + time.process_time() - cpu_began
                self._kept = Kept(history, best_epoch, batch, cpu_s, arrays)
                if len(history) % checkpoints.EVERY == 0 or self._ended():
                    self._save()
        took = time.monotonic() - self._began
        kept, done = self._kept, len(self._kept.history)
        self._tell(1.0, end=True)
        return Fitted(
            weights={NET + name: kept.arrays[_BEST + name] for name in self._learner.weights} | self._scaler,
            epochs_run=done,
            best_epoch=kept.best_epoch,
            history=kept.history,
            stopped=stopped,
            batch_size=kept.batch_size,
            cpu_s=kept.cpu_s,
            samples_per_s=(done - resumed_from) * len(self._train) / took,
            resumed_from=resumed_from,
            device=self._device,
            threads=self._plan.threads,
            notes=tuple(self._notes),
        )

    def _ended(self) -> Literal["epochs", "early"] | None:
        done = len(self._kept.history)
        if done - self._kept.best_epoch >= self._plan.patience:
            return "early"
        return "epochs" if done >= self._plan.epochs else None

    def _next_epoch(self) -> tuple[tuple[Epoch, ...], int, int, dict[str, np.ndarray]]:
        """Its history, best epoch, batch size and arrays."""
        history, best_epoch = self._kept.history, self._kept.best_epoch
        epoch, batch = self._with_memory()
        arrays = self._learner.arrays()
        if epoch.validation_loss < min((past.validation_loss for past in history), default=math.inf):
            best_epoch = epoch.number
            best = {_BEST + name: arrays[name] for name in self._learner.weights}
        else:
            best = {name: value for name, value in self._kept.arrays.items() if name.startswith(_BEST)}
        return (*history, epoch), best_epoch, batch, arrays | best

    def _with_memory(self) -> tuple[Epoch, int]:
        """The next epoch and its batch size: halved as often as memory is short, each time from where it began."""
        number, batch = len(self._kept.history) + 1, self._kept.batch_size
        while True:
            try:
                return self._epoch(number, batch), batch
            except (MemoryError, RuntimeError) as error:
                if not lacks_memory(error):
                    raise
                why = str(error).strip().partition("\n")[0]
            if batch // 2 < SMALLEST_BATCH:
                raise TrainingFailed(f"epoch {number}: not enough memory for batches of {batch} windows: {why}")
            batch //= 2
            self._learner.restore(self._kept.arrays)
            self._learner.release()
            self._note(f"epoch {number}: not enough memory for batches of {2 * batch} windows, now {batch}: {why}")

    def _epoch(self, number: int, batch: int) -> Epoch:
        """The order of its rows follows from seed and number alone, so that a resumed training meets the same."""
        order = np.random.default_rng((self._plan.seed, number)).permutation(self._train)

        def after(rows: int) -> None:
            self._tell((number - 1 + rows / len(order)) / self._plan.epochs)

        train_loss = self._sound("training", number, self._learner.learn(order, batch, after))
        return Epoch(
            number, train_loss, self._sound("validation", number, self._learner.evaluate(self._validation, batch))
        )

    def _sound(self, part: str, number: int, loss: float) -> float:
        if loss < EXPLODED:
            return loss
        raise TrainingFailed(
            f"epoch {number}: the {part} loss is {loss:.4g}, not below {EXPLODED:g}: diverged at learning_rate "
            f"{self._plan.learning_rate:g}; a lower one would be right"
        )

    def _require_within_limits(self) -> None:
        limits, took = self._limits, time.monotonic() - self._began
        if limits.seconds is not None and took > limits.seconds:
            number = len(self._kept.history) + 1
            raise TrainingFailed(f"epoch {number}: {took:.1f} s are over the limit of {limits.seconds:g} s")
        if limits.memory_mb is not None and (held := self._process.memory_info().rss / 2**20) > limits.memory_mb:
            raise MemoryError(f"{held:.0f} MiB are over the limit of {limits.memory_mb:g} MiB")

    def _resume(self) -> None:
        if self._checkpoint is None:
            return
        checkpoints.sweep(self._checkpoint)
        try:
            kept = checkpoints.load(self._checkpoint, self._identity)
        except NotUsed as error:
            self._note(f"begins anew: {error}")
            return
        if kept is not None:
            self._kept = kept
            self._learner.restore(kept.arrays)
            self._note(f"goes on after epoch {len(kept.history)}")

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        try:
            checkpoints.save(self._checkpoint, self._identity, self._kept)
        except FileNotWritten as error:  # a training is worth more than its checkpoint
            self._note(f"no checkpoint: {error}")

    def _note(self, text: str) -> None:
        self._notes.append(text)
        self._tell(self._told, text)

    def _tell(self, share: float, note: str | None = None, *, end: bool = False) -> None:
        """Pass it on where it has a note, is the end, or is TELL_EVERY beyond what was told last."""
        if note is None and not end and (share == 1.0 or share - self._told < TELL_EVERY):
            return
        self._told = share
        history = self._kept.history
        self._progress(
            Progress(share, self._plan.epochs, history[-1] if history else None, self._kept.best_epoch, note)
        )
