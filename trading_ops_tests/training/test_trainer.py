"""A training learns what is there to learn, ends when it should, says why when it fails, and repeats to the bit."""

import random
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trading_ops.training.card import MODEL_TYPES
from trading_ops.training.learner import Learner
from trading_ops.training.model import Model, scaler
from trading_ops.training.samples import Samples
from trading_ops.training.splits import Split
from trading_ops.training.trainer import Epoch, Fitted, Limits, Plan, Progress, TrainingFailed, fit
from trading_ops_tests.training.drawn import drawn_samples

SAMPLES = drawn_samples()
NOISE = Plan("gru", epochs=12, patience=12, batch_size=64, learning_rate=5e-3, seed=1)


def parts(samples: Samples) -> Split:
    rows = samples.learnable()
    return Split(rows[: 3 * len(rows) // 4], rows[3 * len(rows) // 4 :])


def fitted(samples: Samples = SAMPLES, plan: Plan = NOISE, **more: Any) -> Fitted:
    return fit(samples, parts(samples), plan, device="cpu", **more)


def told(found: Fitted) -> bytes:
    return b"".join(name.encode() + found.weights[name].tobytes() for name in sorted(found.weights))


@pytest.fixture(scope="module")
def whole() -> Fitted:
    return fitted()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_signal_in_the_last_bar_is_learnt(model_type: str) -> None:
    samples = drawn_samples(bars=1_200, signal=0.9)
    found = fitted(samples, Plan(model_type, epochs=12, learning_rate=5e-3, seed=1))
    model = Model(model_type, found.weights, samples.lookback, samples.horizon, samples.names)
    rows = parts(samples).validation
    right = (model.probabilities(samples, rows) > 0.5) == (samples.labels[rows] > 0.5)
    assert right.mean() > 0.85  # 0.95 is all there is
    assert min(epoch.validation_loss for epoch in found.history) < 0.45


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(model_type: str) -> None:
    plan = replace(NOISE, model_type=model_type, epochs=2)
    assert told(fitted(plan=plan)) == told(fitted(plan=plan))
    assert told(fitted(plan=plan)) != told(fitted(plan=replace(plan, seed=2)))


def test_what_a_training_sets_in_torch_is_set_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.random.get_rng_state()
    fitted(plan=replace(NOISE, epochs=1, threads=before[0] + 1))
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before[:2]
    assert torch.equal(torch.random.get_rng_state(), before[2])


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_how_features_lie_in_memory_changes_no_byte_and_no_thread_is_left(model_type: str) -> None:
    plan, before = replace(NOISE, model_type=model_type, epochs=1), threading.active_count()
    by_column = replace(SAMPLES, features=np.asfortranarray(SAMPLES.features))
    assert told(fitted(plan=plan)) == told(fitted(by_column, plan=plan))
    assert threading.active_count() == before


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_torch_learns_in_its_place_what_machine_code_learns(model_type: str) -> None:
    """As it does on a GPU: the same steps downhill, but for rounding."""
    rows = parts(SAMPLES).train[:320]
    scale, plan = scaler(SAMPLES.features[rows]), replace(NOISE, model_type=model_type, learning_rate=1e-3)
    ours, torchs = (Learner(SAMPLES, scale, plan, "cpu", lambda: None) for _ in range(2))
    torchs._halves, began = None, torchs.arrays()
    losses = [learner.learn(rows, 64, lambda _: None) for learner in (ours, torchs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert ours.evaluate(rows, 64) == pytest.approx(torchs.evaluate(rows, 64), rel=1e-4)
    there = torchs.arrays()
    for name, value in ours.arrays().items():
        # of a key's bias the slope is zero: AdamW makes whole steps of torch's rounding errors
        far = 6e-3 if name.endswith("key_value.bias") else 1e-3
        np.testing.assert_allclose(value, there[name], rtol=1e-2, atol=far, err_msg=name)
    assert max(np.abs(there[name] - value).max() for name, value in began.items()) > 4e-3  # five steps of 0.001


def test_features_are_scaled_by_the_training_rows_alone(whole: Fitted) -> None:
    train = SAMPLES.features[parts(SAMPLES).train].astype("float64")
    np.testing.assert_allclose(whole.weights["scaler.mean"], train.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(whole.weights["scaler.std"], train.std(axis=0), rtol=1e-12)


def test_the_weights_are_those_of_the_epoch_with_the_least_validation_loss(whole: Fitted) -> None:
    losses = [epoch.validation_loss for epoch in whole.history]
    assert whole.best_epoch == 1 + losses.index(min(losses))
    assert whole.best_epoch < whole.epochs_run == 12
    shorter = fitted(plan=replace(NOISE, epochs=whole.best_epoch))
    assert told(shorter) == told(whole)
    assert shorter.history == whole.history[: whole.best_epoch]


def test_a_training_ends_early_when_the_validation_loss_falls_no_more(whole: Fitted) -> None:
    patience = 3
    found = fitted(plan=replace(NOISE, epochs=500, patience=patience, learning_rate=0.01))
    assert found.stopped == "early"
    assert found.epochs_run == found.best_epoch + patience
    assert whole.stopped == "epochs"


def test_the_validation_loss_told_is_that_of_the_model(whole: Fitted) -> None:
    model, rows = (
        Model("gru", whole.weights, SAMPLES.lookback, SAMPLES.horizon, SAMPLES.names),
        parts(SAMPLES).validation,
    )
    up, labels = model.probabilities(SAMPLES, rows), SAMPLES.labels[rows]
    loss = -np.mean(labels * np.log(up) + (1 - labels) * np.log(1 - up))
    assert whole.history[whole.best_epoch - 1].validation_loss == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("epochs", [1, 3, 30])
def test_progress_is_told_every_twentieth_and_at_the_end(epochs: int) -> None:
    heard: list[Progress] = []
    fitted(plan=replace(NOISE, epochs=epochs, patience=epochs, batch_size=16), progress=heard.append)
    shares = [0.0, *(progress.share for progress in heard)]
    batches = epochs * -(-len(parts(SAMPLES).train) // 16)
    assert all(0 < later - earlier < 0.05 + 1.0001 / batches for earlier, later in pairwise(shares))
    assert shares[-1] == 1.0
    assert heard[-1].last is not None
    assert heard[-1].last.number == epochs
    assert all(progress.last is None or isinstance(progress.last, Epoch) for progress in heard)


def test_a_training_that_diverges_fails_with_the_epoch_and_the_figure() -> None:
    with pytest.raises(
        TrainingFailed, match=r"epoch 1: the training loss is \S+, not below 10: diverged at learning_rate"
    ):
        fitted(plan=replace(NOISE, learning_rate=1e5))


def test_a_training_over_its_time_fails_with_the_figure() -> None:
    with pytest.raises(TrainingFailed, match=r"epoch 1: \d+\.\d s are over the limit of 0 s"):
        fitted(limits=Limits(seconds=0))


def test_a_training_without_memory_for_the_smallest_batch_fails_with_the_figure() -> None:
    with pytest.raises(TrainingFailed, match=r"memory for batches of 8 windows: \d+ MiB are over the limit of 1 MiB"):
        fitted(limits=Limits(memory_mb=1))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seed": 9}, "of other data, another plan or other code"),
        ({"epochs": 11}, "of other data, another plan or other code"),
        ({"labels": 1}, "of other data, another plan or other code"),
        ({"validation": 1}, "of other data, another plan or other code"),
    ],
)
def test_the_checkpoint_of_another_training_is_not_used_and_that_is_said(
    tmp_path: Path, change: dict[str, int], why: str
) -> None:
    path, samples, split = tmp_path / "checkpoint", SAMPLES, parts(SAMPLES)
    if "labels" in change:
        labels = SAMPLES.labels.copy()
        labels[50] = 1 - labels[50]
        samples = replace(SAMPLES, labels=labels)
    elif "validation" in change:
        split = replace(split, validation=split.validation[1:])
    plan = replace(NOISE, **{name: value for name, value in change.items() if name in ("seed", "epochs")})
    fit(samples, split, plan, checkpoint=path, device="cpu")
    heard: list[Progress] = []
    found = fitted(checkpoint=path, progress=heard.append)
    assert told(found) == told(fitted())
    assert found.resumed_from == 0
    assert why in found.notes[0]
    assert found.notes[0] in [progress.note for progress in heard]


def test_a_damaged_checkpoint_is_not_used_and_that_is_said(tmp_path: Path, whole: Fitted) -> None:
    path = tmp_path / "checkpoint"
    fitted(checkpoint=path)
    good, chance = path.read_bytes(), random.Random(5)
    damaged = [b"", good[:10], good[:-1], good + b"\0"]
    for _ in range(3):
        at = chance.randrange(len(good))
        damaged.append(good[:at] + bytes([good[at] ^ (1 << chance.randrange(8))]) + good[at + 1 :])
    for content in damaged:
        path.write_bytes(content)
        found = fitted(checkpoint=path)
        assert "is damaged and was not used" in found.notes[0]
        assert told(found) == told(whole)
        assert path.read_bytes()[-1_000:] == good[-1_000:]  # and a whole one is in its place


def test_a_training_that_had_ended_is_not_run_again(tmp_path: Path, whole: Fitted) -> None:
    first = fitted(checkpoint=tmp_path / "checkpoint")
    again = fitted(checkpoint=tmp_path / "checkpoint")
    assert told(first) == told(again) == told(whole)
    assert again.resumed_from == again.epochs_run == 12
    assert again.cpu_s == first.cpu_s > 0
    assert again.history == whole.history


def test_a_checkpoint_that_cannot_be_written_is_told_and_ends_no_training(tmp_path: Path, whole: Fitted) -> None:
    (tmp_path / "file").write_text("no folder")
    found = fitted(checkpoint=tmp_path / "file" / "checkpoint")
    assert told(found) == told(whole)
    assert any("no checkpoint" in note for note in found.notes)


@pytest.mark.parametrize(
    ("train", "validation", "said"),
    [
        ([], [100], "the training part of BTCUSDT has no rows"),
        ([100], [], "the validation part of BTCUSDT has no rows"),
        ([3, 100], [200], "1 rows of the training part of BTCUSDT have no whole window or no label, first 3"),
        ([100], [200, 399], "1 rows of the validation part of BTCUSDT have no whole window or no label, first 399"),
        ([100], [5_000], "first 5000"),
    ],
)
def test_rows_that_teach_nothing_are_refused(train: list[int], validation: list[int], said: str) -> None:
    labels = SAMPLES.labels.copy()
    labels[399] = np.nan
    split = Split(np.array(train, "int64"), np.array(validation, "int64"))
    with pytest.raises(ValueError, match=said):
        fit(replace(SAMPLES, labels=labels), split, NOISE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "cnn"}, "model_type is 'cnn'; one of lstm, gru, transformer"),
        ({"epochs": 0}, "epochs is 0; a whole number from 1"),
        ({"batch_size": 2.5}, "batch_size is 2.5; a whole number from 1"),
        ({"seed": -1}, "seed is -1; a whole number from 0"),
        ({"patience": True}, "patience is True"),
        ({"learning_rate": float("nan")}, "learning_rate is nan; a number above 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; a number above 0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1; a number from 0"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(NOISE, **change)
