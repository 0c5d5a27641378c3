"""What is one step of learning? A network, its optimiser and the data, on one device. Needs torch."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from trading_ops.training.model import scaled
from trading_ops.training.networks.build import build
from trading_ops.training.samples import Samples
from trading_ops.training.trainer import Plan

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_EVALUATED = 16  # batches at once where no gradients are held


class Learner:
    """A network drawn from the plan's seed, and all bars of `samples` on the device, scaled; windows are views of them.

    `check` is called with each batch's activations in memory. On a GPU the network calculates in bfloat16.
    """

    def __init__(
        self, samples: Samples, scaler: Mapping[str, np.ndarray], plan: Plan, device: str, check: Callable[[], None]
    ) -> None:
        self.device = torch.device(device)
        self._check, self._clip = check, plan.clip
        bars = scaled(samples.features, scaler["scaler.mean"], scaler["scaler.std"])
        self._bars = torch.from_numpy(bars).to(self.device)  # [n, k]
        self._labels = torch.from_numpy(samples.labels).to(self.device)
        self._back = torch.arange(1 - samples.lookback, 1, device=self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            self._network = build(plan.model_type, len(samples.names)).to(self.device)
        self.weights = dict(self._network.named_parameters())
        self._optimiser = torch.optim.AdamW(
            self.weights.values(), plan.learning_rate, weight_decay=plan.weight_decay, fused=True
        )

    def learn(self, rows: np.ndarray, batch: int, after: Callable[[int], None]) -> float:
        """One pass over `rows` in their order; their mean loss while learnt. `after` is told how many rows are done."""
        order, total = torch.from_numpy(rows).to(self.device), torch.zeros((), device=self.device)
        self._network.train()
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            loss = self._loss(part)
            self._check()
            self._optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.weights.values(), self._clip)
            self._optimiser.step()
            total += loss.detach() * len(part)
            after(start + len(part))
        return total.item() / len(order)

    def evaluate(self, rows: np.ndarray, batch: int) -> float:
        """The mean loss of `rows`."""
        order, total = torch.from_numpy(rows).to(self.device), torch.zeros((), device=self.device)
        self._network.eval()
        with torch.inference_mode():
            for part in order.split(batch * _EVALUATED):
                total += self._loss(part) * len(part)
                self._check()
        return total.item() / len(order)

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of the weights, and of their moments once there are any."""
        found = {name: _copied(value.detach()) for name, value in self.weights.items()}
        for name, value in self.weights.items():
            found |= {f"{moment}.{name}": _copied(at) for moment, at in self._optimiser.state[value].items()}
        return found

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Be as when `arrays` were copied."""
        for name, value in self.weights.items():
            with torch.no_grad():
                value.copy_(torch.from_numpy(arrays[name]))
            moments = {at: arrays[f"{at}.{name}"] for at in _MOMENTS if f"{at}.{name}" in arrays}
            self._optimiser.state[value] = {at: torch.tensor(array).to(value) for at, array in moments.items()}
        self._optimiser.zero_grad()

    def release(self) -> None:
        """Give freed memory back: allocators keep it, and a limit on what the process holds would count it."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # of glibc
            trim(0)

    def _loss(self, rows: torch.Tensor) -> torch.Tensor:
        windows = self._bars[rows[:, None] + self._back]  # [B, T, k]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self._network(windows)
        return binary_cross_entropy_with_logits(logits.float(), self._labels[rows])


def lacks_memory(error: BaseException) -> bool:
    """Whether this is an allocator's, of the device or of this machine."""
    said = ("allocate memory", "not enough memory", "out of memory", "bad_alloc")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in said)


def _copied(value: torch.Tensor) -> np.ndarray:
    return np.array(value.cpu().numpy())
