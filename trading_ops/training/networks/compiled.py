"""How does a network learn from a batch in machine code, on a CPU, in two threads?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

# Given: the weights by the names of the network's parameters, float32; windows [B, T, k], oldest bar first, float32 and
# C-contiguous; labels [B] float32, 0 or 1; gradients by the same names, to be overwritten with those of the sum of the
# losses. Answered: that sum, of the binary cross-entropies of the log-odds, in float64. A step lets other threads run
# and keeps nothing that two of them would share.
Step = Callable[[dict[str, np.ndarray], np.ndarray, np.ndarray, dict[str, np.ndarray]], float]
Loss = Callable[[dict[str, np.ndarray], np.ndarray, np.ndarray], float]  # the same sum; nothing is learnt


def step_of(model_type: str) -> Step:
    """The loss of a batch and its gradients, for any of MODEL_TYPES."""
    from trading_ops.training.networks import attention, recurrent  # numba takes half a second

    steps: dict[str, Step] = {"lstm": recurrent.lstm, "gru": recurrent.gru, "transformer": attention.step}
    return steps[model_type]


def loss_of(model_type: str) -> Loss:
    """The loss of a batch alone, for any of MODEL_TYPES."""
    from trading_ops.training.networks import attention, recurrent

    losses: dict[str, Loss] = {"lstm": recurrent.lstm, "gru": recurrent.gru, "transformer": attention.loss}
    return losses[model_type]


class Halves:
    """Batches of windows of `bars` [n, k], each ending with its row, calculated in two halves on any number of cores.

    Each half has its own gradients, which are added in their order: which one is ready first changes no bit.
    `weights` are views of what learns, so that they are always those of the moment. `check` is called with each half's
    windows in memory.
    """

    def __init__(
        self,
        bars: np.ndarray,
        labels: np.ndarray,
        lookback: int,
        weights: dict[str, np.ndarray],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._labels, self._weights, self._before, self._check = labels, weights, lookback - 1, check
        self._windows = sliding_window_view(bars, (lookback, bars.shape[1]))[:, 0]  # [n - T + 1, T, k]
        self._parts = np.empty((2, sum(value.size for value in weights.values())), "float32")
        self._gradients = [views(part, weights) for part in self._parts]

    def learn(self, step: Step, rows: np.ndarray, gradient: np.ndarray, second: Executor) -> float:
        """The mean loss of `rows`; `gradient` becomes its gradient, the parameters' one after another."""

        def half(rows: np.ndarray, at: int) -> float:
            if len(rows):
                return step(self._weights, self._read(rows), self._labels[rows], self._gradients[at])
            self._parts[at] = 0.0
            return 0.0

        loss = _both(half, rows, second)
        np.add(self._parts[0], self._parts[1], out=gradient)
        gradient /= len(rows)
        return loss / len(rows)

    def loss(self, loss: Loss, rows: np.ndarray, second: Executor) -> float:
        """The mean loss of `rows`."""

        def half(rows: np.ndarray, _: int) -> float:
            return loss(self._weights, self._read(rows), self._labels[rows]) if len(rows) else 0.0

        return _both(half, rows, second) / len(rows)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        windows = self._windows[rows - self._before]
        self._check()
        return windows


def _both(half: Callable[[np.ndarray, int], float], rows: np.ndarray, second: Executor) -> float:
    """The sum of both halves: `second` runs the other one, so that two cores share the work where there are two."""
    middle = (len(rows) + 1) // 2
    other = second.submit(half, rows[middle:], 1)
    return half(rows[:middle], 0) + other.result()


def views(vector: np.ndarray, like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parts of `vector`, one after another, by the names and in the shapes of `like`."""
    found, start = {}, 0
    for name, value in like.items():
        found[name] = vector[start : start + value.size].reshape(value.shape)
        start += value.size
    return found
