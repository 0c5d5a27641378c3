"""Does a search killed at any moment end, when it is started again, in the very bytes of one that never was?"""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import trading_ops
from trading_ops.audit.store import open_store
from trading_ops.optimization.trials import STATE

ROOT = Path(trading_ops.__file__).parents[1]
PATIENCE_S = 300

SEARCHER = """
import json, sys
from datetime import UTC, datetime
from pathlib import Path
from trading_ops.audit.store import open_store
from trading_ops.market.simulated import SimulatedCandles
from trading_ops.optimization.optimise import run_optimization
from trading_ops.optimization.request import OptimizationRequest

folder, values = Path(sys.argv[1]), json.loads(sys.argv[2])
source = SimulatedCandles(lambda: datetime(2025, 1, 1, tzinfo=UTC))
with open_store(f"sqlite:///{folder / 'audit.db'}") as store:
    print("ready", flush=True)
    found = run_optimization(OptimizationRequest.parse(values), source, store, folder, default_symbol="BTCUSDT")
print(json.dumps(found.document, sort_keys=True), flush=True)
"""
SPACE = {
    "period": {"low": 5, "high": 30, "step": 1},
    "oversold": {"low": 15, "high": 45, "step": 1},
    "stop_loss_pct": ["off", 2, 5],
}


def searching(folder: Path, values: dict[str, Any]) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", SEARCHER, str(folder), json.dumps(values)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True)


def finish(folder: Path, values: dict[str, Any]) -> tuple[str, float]:
    """The document's text and the seconds from ready to it."""
    with searching(folder, values) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        text = process.stdout.readline()
        assert process.wait(PATIENCE_S) == 0
        return text, time.monotonic() - began


@pytest.mark.parametrize(
    ("values", "kills"),
    [
        ({"space": SPACE, "sets": 400}, 3),
        ({"space": SPACE, "sets": 100_000}, 2),
        pytest.param({"space": SPACE, "sets": 1_000}, 40, marks=pytest.mark.chaos),
        pytest.param({"space": SPACE, "sets": 100_000}, 20, marks=pytest.mark.chaos),
    ],
    ids=["tpe", "grid", "many kills of tpe", "many kills of a grid"],
)
def test_a_search_killed_at_random_moments_ends_in_the_same_bytes_and_counts_its_trials_once(tmp_path, values, kills):
    whole, took = finish(tmp_path / "whole", values)
    chance = random.Random(7)
    folder, kept = tmp_path / "killed", [0]
    for _ in range(kills):
        with searching(folder, values) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == "ready\n"
            time.sleep(chance.uniform(0.0, took))
            victim.kill()
        kept.append(len(list(folder.glob("optimizations/*/*.npz"))))
        assert kept[-1] >= kept[-2]  # what was there stays
    again, _ = finish(folder, values)
    assert again == whole
    with open_store(f"sqlite:///{folder / 'audit.db'}") as store:
        assert store.verify() == []
        (counted,) = store.list_state(STATE)
        (remembered,) = store.read("optimizations", all_revisions=True)
    assert counted.body["trials"] == json.loads(whole)["sets"]
    assert json.dumps(remembered.body, sort_keys=True) + "\n" == whole
