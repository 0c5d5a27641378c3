"""Does a training killed at any moment end, when it is started again, in the very bytes of one that never was?"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from trading_ops.files import UNFINISHED
from trading_ops.training.card import MODEL_TYPES
from trading_ops_tests.training.forked import Trainings, trainings

PLAN = {"epochs": 25, "batch_size": 64, "seed": 3, "patience": 25}
LINES = 40  # of files.py that the three checkpoints of such a training run


@pytest.fixture(scope="module")
def trained() -> Iterator[Trainings]:
    with trainings() as found:
        yield found


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.chaos)])
def test_a_training_killed_at_random_moments_ends_in_the_same_weights(
    trained: Trainings, tmp_path: Path, model_type: str, kills: int
) -> None:
    plan = {**PLAN, "model_type": model_type}
    whole = trained.run(tmp_path / "whole", plan)
    chance, folder = random.Random(7), tmp_path / "killed"
    killed = [
        trained.run(folder, plan, kill_after_s=chance.uniform(0.0, whole["took_s"]))["killed"] for _ in range(kills)
    ]
    assert any(killed)
    again = trained.run(folder, plan)
    assert again["epochs_run"] == 25
    assert (folder / "weights").read_bytes() == (tmp_path / "whole" / "weights").read_bytes()


@pytest.mark.parametrize(
    "lines",
    [
        [3, *sorted(random.Random(11).sample(range(4, LINES), 3))],
        pytest.param(range(1, LINES), marks=pytest.mark.chaos),
    ],
    ids=["some", "every"],
)
def test_a_training_killed_while_it_writes_a_checkpoint_resumes_from_a_whole_one(
    trained: Trainings, tmp_path: Path, lines: list[int]
) -> None:
    plan = {**PLAN, "model_type": "lstm"}
    trained.run(tmp_path / "whole", plan)
    resumed = set()
    for line in lines:
        folder = tmp_path / str(line)
        assert trained.run(folder, plan, kill_at_line=line)["killed"]
        again = trained.run(folder, plan)
        resumed.add(again["resumed_from"])
        assert not list(folder.glob(f"*{UNFINISHED}"))
        assert (folder / "weights").read_bytes() == (tmp_path / "whole" / "weights").read_bytes()
    assert resumed <= {0, 10, 20, 25}
    assert len(resumed) >= 2


WIDE = {"bars": 4_000, "features": 32, "lookback": 1_000}


@pytest.mark.parametrize("scarce", [{"address_mb": 250}, {"more_mb": 150}], ids=["allocator", "limit"])
def test_a_batch_that_memory_does_not_hold_is_halved_until_it_does(
    trained: Trainings, tmp_path: Path, scarce: dict[str, int]
) -> None:
    plan = {"model_type": "lstm", "epochs": 1, "batch_size": 2_048}
    found = trained.run(tmp_path / "scarce", plan, samples=WIDE, **scarce)
    assert found["batch_size"] < 2_048
    assert "not enough memory for batches of 2048 windows, now 1024" in found["notes"][0]
    trained.run(tmp_path / "small", {**plan, "batch_size": found["batch_size"]}, samples=WIDE)
    assert (tmp_path / "scarce" / "weights").read_bytes() == (tmp_path / "small" / "weights").read_bytes()
