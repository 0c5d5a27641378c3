"""What does a trained model say of a window?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from trading_ops.training.samples import Samples

if TYPE_CHECKING:
    from torch import nn

NET = "net."
FURTHEST = 10.0  # deviations: a bar further out is taken for this far
THREADS = 1  # networks this small gain nothing from a second one, and lose where it waits for a core
_AT_ONCE = 128  # windows, always: another number or an odd one at the end would round otherwise in the last bits


class InvalidModel(ValueError):
    """Weights that make no model, or samples of another shape than it learnt from; the message says which and why."""


@dataclass(frozen=True, eq=False)
class Model:
    """A trained network with the scaling of its features and its calibration; the same on every machine: CPU, float32.

    `weights`: "net.<parameter>" float32; "scaler.mean", "scaler.std" float64 [k]; "calibration" float64 [2], (a, b) of
    probability = sigmoid(a * logit + b), the identity where not given. Raises InvalidModel at the first use.
    """

    model_type: str
    weights: Mapping[str, np.ndarray]
    lookback: int
    horizon: int
    names: tuple[str, ...]

    def probabilities(self, samples: Samples, rows: np.ndarray) -> np.ndarray:
        """The probability of a rise after each of these decidable rows, float64 [m]; whichever others are asked for.

        Raises InvalidModel for samples of other features, lookback or horizon, and for a row whose window is not whole.
        """
        a, b = self.weights.get("calibration", np.array([1.0, 0.0]))
        return np.asarray(sigmoid(a * self.logits(samples, rows) + b))

    def logits(self, samples: Samples, rows: np.ndarray) -> np.ndarray:
        """Log-odds of a rise before calibration, float64 [m]. Raises as `probabilities`."""
        import torch

        from trading_ops.training.repeatable import repeatable

        self._require_like(samples)
        rows = np.asarray(rows, dtype="int64")
        self._require_decidable(samples, rows)
        network, found = self._network, np.empty(len(rows))
        with torch.inference_mode(), repeatable(THREADS):
            bars = torch.from_numpy(scaled(samples.features, self.weights["scaler.mean"], self.weights["scaler.std"]))
            back = torch.arange(1 - self.lookback, 1)
            for start in range(0, len(rows), _AT_ONCE):
                part = rows[start : start + _AT_ONCE]
                filled = torch.from_numpy(np.pad(part, (0, _AT_ONCE - len(part)), "edge"))
                found[start : start + len(part)] = network(bars[filled[:, None] + back]).numpy()[: len(part)]
        return found

    def calibrated(self, a: float, b: float) -> Model:
        """The same network with another calibration."""
        weights = {**self.weights, "calibration": np.array([a, b], dtype="float64")}
        return Model(self.model_type, weights, self.lookback, self.horizon, self.names)

    @cached_property
    def _network(self) -> nn.Module:
        import torch

        from trading_ops.training.networks.build import build

        with torch.device("meta"):  # no weights are drawn: those of the file take their place
            network = build(self.model_type, len(self.names))
        wanted = {NET + name: tuple(value.shape) for name, value in network.state_dict().items()}
        wanted |= {"scaler.mean": (len(self.names),), "scaler.std": (len(self.names),)}
        if "calibration" in self.weights:
            wanted["calibration"] = (2,)
        shapes = {name: value.shape for name, value in self.weights.items()}
        if shapes != wanted:
            odd = sorted(name for name in shapes.keys() | wanted.keys() if shapes.get(name) != wanted.get(name))
            raise InvalidModel(
                "; ".join(
                    f"{name} is {shapes.get(name, 'missing')}, not {wanted.get(name, 'known')}" for name in odd[:3]
                )
                + f": {len(odd)} arrays are not those of a {self.model_type} of {len(self.names)} features"
            )
        for name, value in self.weights.items():
            if not np.isfinite(value).all():
                raise InvalidModel(f"{name} has values that are not finite; finite weights would be right")
        arrays = {name[len(NET) :]: value for name, value in self.weights.items() if name.startswith(NET)}
        network.load_state_dict(
            {name: torch.tensor(value, dtype=torch.float32) for name, value in arrays.items()}, assign=True
        )
        return network.eval()

    def _require_like(self, samples: Samples) -> None:
        for what, ours, theirs in (
            ("features", self.names, samples.names),
            ("lookback", self.lookback, samples.lookback),
            ("horizon", self.horizon, samples.horizon),
        ):
            if ours != theirs:
                raise InvalidModel(f"{what} of {samples.symbol} is {theirs}; the model learnt from {ours}")

    def _require_decidable(self, samples: Samples, rows: np.ndarray) -> None:
        wrong = rows[~np.isin(rows, samples.decidable())]
        if len(wrong):
            raise InvalidModel(
                f"{len(wrong)} rows of {samples.symbol} lack a whole window of known features, first {wrong[0]}; "
                "rows of Samples.decidable() would be right"
            )


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logit)), without overflow.

    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    shrunk = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1.0, shrunk) / (1.0 + shrunk)


def scaler(features: np.ndarray) -> dict[str, np.ndarray]:
    """Mean and population deviation of each column, float64 [k]; the deviation of a constant one counts as 1."""
    mean, std = features.mean(axis=0, dtype="float64"), features.std(axis=0, dtype="float64")
    return {"scaler.mean": mean, "scaler.std": np.where(std > 1e-12 * np.maximum(1.0, np.abs(mean)), std, 1.0)}


def scaled(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(feature - mean) / std, at most FURTHEST from 0, float32 [n, k]; NaN stays NaN."""
    return np.clip((features - mean) / std, -FURTHEST, FURTHEST).astype("float32")


def packed(weights: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as a safetensors file: the same arrays, the same bytes."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(value) for name, value in weights.items()})


def unpacked(content: bytes) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file. Raises InvalidModel for other bytes."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(content)
    except SafetensorError as error:
        raise InvalidModel(f"no file of weights: {error}") from error
