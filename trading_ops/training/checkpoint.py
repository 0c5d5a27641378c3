"""What is kept of a training on disk, so that one that was killed goes on where it was?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from trading_ops.files import UNFINISHED, write_whole
from trading_ops.training.samples import Samples
from trading_ops.training.trainer import Epoch, Plan

EVERY = 10  # epochs
_SEAL = hashlib.sha256().digest_size
_CODE = ("learner.py", "descent.py", "loop.py", "model.py", "networks", "../machine_code.py")
_LIBRARIES = ("torch", "numpy", "numba", "llvmlite")


class NotUsed(ValueError):
    """A checkpoint that is damaged, unreadable or of another training; the message says which."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A training after `len(history)` epochs: `arrays` are its weights, their moments and the best weights so far."""

    history: tuple[Epoch, ...]
    best_epoch: int
    batch_size: int
    cpu_s: float
    arrays: Mapping[str, np.ndarray]


def save(path: Path, identity: str, kept: Kept) -> None:
    """Write it whole or not at all, under a seal. Raises FileNotWritten."""
    from safetensors.numpy import save as packed

    about = {
        "identity": identity,
        "history": json.dumps([[epoch.train_loss, epoch.validation_loss] for epoch in kept.history]),
        "best_epoch": str(kept.best_epoch),
        "batch_size": str(kept.batch_size),
        "cpu_s": repr(kept.cpu_s),
    }
    content = json.dumps(about).encode() + b"\n" + packed(dict(kept.arrays))
    write_whole(path, hashlib.sha256(content).digest() + content)


def load(path: Path, identity: str) -> Kept | None:
    """What `save` wrote for the same identity; None where no file is. Raises NotUsed."""
    from safetensors.numpy import load as unpacked

    try:
        sealed = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotUsed(f"the checkpoint {path} cannot be read: {error.strerror or error}") from error
    content = sealed[_SEAL:]
    if hashlib.sha256(content).digest() != sealed[:_SEAL]:
        raise NotUsed(f"the checkpoint {path} is damaged and was not used")
    header, _, arrays = content.partition(b"\n")
    about = json.loads(header)
    if about["identity"] != identity:
        raise NotUsed(f"the checkpoint {path} is of other data, another plan or other code and was not used")
    losses = enumerate(json.loads(about["history"]), start=1)
    return Kept(
        tuple(Epoch(number, *both) for number, both in losses),
        int(about["best_epoch"]),
        int(about["batch_size"]),
        float(about["cpu_s"]),
        unpacked(arrays),
    )


def sweep(path: Path) -> None:
    """Remove what killed writers of this checkpoint left half-written; only one training may use it at a time."""
    for part in path.parent.glob(f"{path.name}.*{UNFINISHED}"):
        with suppress(FileNotFoundError):
            part.unlink()


def identity_of(samples: Samples, train: np.ndarray, validation: np.ndarray, plan: Plan, device: str) -> str:
    """A hash of all that bears on the bits of a training's weights: data, split, plan, device, code, libraries."""
    about = [samples.symbol, samples.names, samples.lookback, samples.horizon, asdict(plan), device, _code_digest()]
    hasher = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for array in (samples.times, samples.features, samples.labels, train, validation):
        hasher.update(f"{array.dtype.str}{array.shape}".encode())
        hasher.update(np.ascontiguousarray(array).tobytes())
    return hasher.hexdigest()


@cache
def _code_digest() -> str:
    hasher = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in _LIBRARIES).encode())
    for place in _CODE:
        path = Path(__file__).parent / place
        for module in [path] if path.suffix else sorted(path.glob("*.py")):
            hasher.update(module.read_bytes())
    return hasher.hexdigest()
