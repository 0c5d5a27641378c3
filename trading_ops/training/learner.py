"""What is one step of learning? A network, its optimiser and the data, on one device. Needs torch."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from trading_ops.training.model import scaled
from trading_ops.training.networks.build import build
from trading_ops.training.networks.compiled import Halves, loss_of, step_of
from trading_ops.training.samples import Samples
from trading_ops.training.trainer import Plan

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")
_EVALUATED = 16  # batches at once where no gradients are held


class Learner:
    """A network drawn from the plan's seed, and all bars of `samples` on the device, scaled; windows are views of them.

    `check` is called with what a batch takes in memory. On a GPU the network calculates, in bfloat16; on a CPU machine
    code in its place. Whatever learns is one vector.
    """

    def __init__(
        self, samples: Samples, scaler: Mapping[str, np.ndarray], plan: Plan, device: str, check: Callable[[], None]
    ) -> None:
        self.device = torch.device(device)
        self._check, self._plan = check, plan
        # bar after bar in memory, as windows are read; features may come column after column
        bars = np.ascontiguousarray(scaled(samples.features, scaler["scaler.mean"], scaler["scaler.std"]))
        self._bars = torch.from_numpy(bars).to(self.device)  # [n, k]
        self._labels = torch.from_numpy(samples.labels).to(self.device)
        self._back = torch.arange(1 - samples.lookback, 1, device=self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(plan.seed)
            self._network = build(plan.model_type, len(samples.names)).to(self.device)
        self.weights = dict(self._network.named_parameters())
        self._sizes = [value.numel() for value in self.weights.values()]
        self._vector = _joined(self.weights, self._sizes)
        self._optimiser = torch.optim.AdamW(
            [self._vector], plan.learning_rate, weight_decay=plan.weight_decay, fused=True
        )  # on a CPU it only holds the moments
        self._halves: Halves | None = None
        if self.device.type == "cpu":
            arrays = {name: value.detach().numpy() for name, value in self.weights.items()}
            self._halves = Halves(bars, samples.labels, samples.lookback, arrays, check)
            self._step, self._loss_alone = step_of(plan.model_type), loss_of(plan.model_type)

    def learn(self, rows: np.ndarray, batch: int, after: Callable[[int], None]) -> float:
        """One pass over `rows` in their order; their mean loss while learnt. `after` is told how many rows are done."""
        total: torch.Tensor | float = 0.0
        gradient = self._vector.grad
        assert gradient is not None
        self._network.train()
        descend = self._descent()
        with ThreadPoolExecutor(1) as second:
            for start in range(0, len(rows), batch):
                part = rows[start : start + batch]
                total += self._learn(part, gradient, second) * len(part)
                descend()
                after(start + len(part))
        return float(total) / len(rows)

    def evaluate(self, rows: np.ndarray, batch: int) -> float:
        """The mean loss of `rows`."""
        total: torch.Tensor | float = 0.0
        self._network.eval()
        with torch.inference_mode(), ThreadPoolExecutor(1) as second:
            for start in range(0, len(rows), batch * _EVALUATED):
                part = rows[start : start + batch * _EVALUATED]
                if self._halves is not None:
                    total += self._halves.loss(self._loss_alone, part, second) * len(part)
                else:
                    total += self._loss(part) * len(part)
                    self._check()
        return float(total) / len(rows)

    def arrays(self) -> dict[str, np.ndarray]:
        """Copies of the weights, and of their moments once there are any."""
        found = {name: _copied(value.detach()) for name, value in self.weights.items()}
        state = self._optimiser.state[self._vector]
        for at in [at for at in _MOMENTS if at in state]:
            parts = [state[at]] * len(self._sizes) if at == "step" else state[at].split(self._sizes)
            for (name, value), part in zip(self.weights.items(), parts, strict=True):
                found[f"{at}.{name}"] = _copied(part.view(() if at == "step" else value.shape))
        return found

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Be as when `arrays` were copied."""
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(torch.from_numpy(arrays[name]))
        state: dict[str, torch.Tensor] = {}
        for at in _MOMENTS:
            parts = [arrays[f"{at}.{name}"] for name in self.weights if f"{at}.{name}" in arrays]
            if parts:
                joined = parts[0] if at == "step" else np.concatenate([part.ravel() for part in parts])
                state[at] = torch.tensor(joined).to(self._vector)
        self._optimiser.state[self._vector] = state

    def release(self) -> None:
        """Give freed memory back: allocators keep it, and a limit on what the process holds would count it."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:  # of glibc
            trim(0)

    def _learn(self, rows: np.ndarray, gradient: torch.Tensor, second: ThreadPoolExecutor) -> torch.Tensor | float:
        """The mean loss of `rows`; `gradient`, the vector's, becomes its gradient."""
        if self._halves is not None:
            return self._halves.learn(self._step, rows, gradient.numpy(), second)
        found = self._loss(rows)
        self._check()
        gradient.zero_()
        found.backward()
        return found.detach()

    def _descent(self) -> Callable[[], None]:
        """What follows the vector's gradient: AdamW, of a gradient no longer than the plan's `clip`."""
        plan, gradient = self._plan, self._vector.grad
        assert gradient is not None
        if self._halves is None:

            def descend() -> None:
                torch.nn.utils.clip_grad_norm_(self._vector, plan.clip)
                self._optimiser.step()

            return descend
        from trading_ops.training import descent  # numba takes half a second

        state = self._optimiser.state[self._vector]
        if not state:
            state |= {at: torch.zeros_like(self._vector, requires_grad=False) for at in ("exp_avg", "exp_avg_sq")}
            state["step"] = torch.zeros(())
        arrays = [
            value.view(-1).numpy() for value in (self._vector.detach(), gradient, *(state[at] for at in _MOMENTS))
        ]
        return partial(descent.descend, *arrays, plan.clip, plan.learning_rate, plan.weight_decay)

    def _loss(self, rows: np.ndarray) -> torch.Tensor:
        places = torch.from_numpy(rows).to(self.device)
        windows = self._bars[places[:, None] + self._back]  # [B, T, k]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self._network(windows)
        return binary_cross_entropy_with_logits(logits.float(), self._labels[places])


def _joined(weights: Mapping[str, torch.nn.Parameter], sizes: list[int]) -> torch.Tensor:
    """One vector that learns: the weights become views of it, their gradients views of its gradient."""
    vector = torch.cat([value.detach().ravel() for value in weights.values()]).requires_grad_()
    vector.grad = torch.zeros_like(vector)
    parts = zip(weights.values(), vector.detach().split(sizes), vector.grad.split(sizes), strict=True)
    for value, part, gradient in parts:
        value.data, value.grad = part.view_as(value), gradient.view_as(value)
    return vector


def lacks_memory(error: BaseException) -> bool:
    """Whether this is an allocator's, of the device or of this machine."""
    said = ("allocate memory", "not enough memory", "out of memory", "bad_alloc", "can't start new thread")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(text in str(error) for text in said)


def _copied(value: torch.Tensor) -> np.ndarray:
    return np.array(value.cpu().numpy())
