"""Trainings in processes of their own that are killed, starved of memory, or left alone.

One process has imported torch and forks another for each order, so that an order costs no import.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

import trading_ops
from trading_ops.files import __file__ as FILES
from trading_ops.training.card import MODEL_TYPES
from trading_ops.training.descent import descend
from trading_ops.training.model import packed
from trading_ops.training.networks.build import build
from trading_ops.training.networks.compiled import step_of
from trading_ops.training.splits import Split
from trading_ops.training.trainer import Limits, Plan, fit
from trading_ops_tests.training.drawn import drawn_samples

ROOT = Path(trading_ops.__file__).parents[1]


class Trainings:
    """Orders to the process that forks trainings; each answers when its training has ended, one way or another."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def run(self, folder: Path, plan: dict[str, Any], **order: Any) -> dict[str, Any]:
        """`kill_after_s`, `kill_at_line` (of files.py, counted as they run), `address_mb`, `more_mb`, `samples`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"folder": str(folder), "plan": plan, **order}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def trainings() -> Iterator[Trainings]:
    line = [sys.executable, "-m", "trading_ops_tests.training.forked"]
    with subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Trainings(process)
        assert process.stdin is not None
        process.stdin.close()


def _main() -> None:
    import torch._dynamo  # noqa: F401  # what the first step of an optimiser imports

    import trading_ops.training.loop  # noqa: F401

    for model_type in MODEL_TYPES:
        _compile(model_type)  # before there is anything to kill

    for line in sys.stdin:
        order = json.loads(line)
        began = time.monotonic()
        child = os.fork()
        if not child:
            try:
                _train(order)
            finally:
                os._exit(1)
        if (after := order.get("kill_after_s")) is not None:
            time.sleep(after)
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        answer: dict[str, Any] = {"took_s": time.monotonic() - began, "killed": os.WIFSIGNALED(status)}
        if status == 0:
            answer |= json.loads((Path(order["folder"]) / "said.json").read_text())
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _compile(model_type: str) -> None:
    weights = {name: value.detach().numpy() for name, value in build(model_type, 1).named_parameters()}
    found = {name: value.copy() for name, value in weights.items()}
    step_of(model_type)(weights, np.zeros((1, 2, 1), "float32"), np.zeros(1, "float32"), found)
    descend(*(np.zeros(1, "float32") for _ in range(5)), 1.0, 1e-3, 0.01)


def _train(order: dict[str, Any]) -> None:
    folder = Path(order["folder"])
    folder.mkdir(exist_ok=True)
    samples = drawn_samples(**order.get("samples", {}))
    rows = samples.learnable()
    split = Split(rows[: 3 * len(rows) // 4], rows[3 * len(rows) // 4 :])
    held_mb = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
    if "address_mb" in order:
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + order["address_mb"] * 2**20,) * 2)
    limits = Limits(memory_mb=held_mb + order["more_mb"] if "more_mb" in order else None)
    if "kill_at_line" in order:
        _die_at(order["kill_at_line"])
    found = fit(samples, split, Plan(**order["plan"]), checkpoint=folder / "checkpoint", limits=limits, device="cpu")
    sys.settrace(None)
    (folder / "weights").write_bytes(packed(found.weights))
    said = {"resumed_from": found.resumed_from, "batch_size": found.batch_size, "notes": found.notes}
    (folder / "said.json").write_text(json.dumps(said | {"epochs_run": found.epochs_run}))
    os._exit(0)


def _die_at(line: int) -> None:
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != FILES:
            return None
        left -= event == "line"
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)


if __name__ == "__main__":
    _main()
