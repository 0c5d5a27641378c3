"""Machine code learns what torch would: the same loss, the same gradients, the same bits each time."""

import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from trading_ops.training.card import MODEL_TYPES
from trading_ops.training.descent import descend
from trading_ops.training.networks.build import build
from trading_ops.training.networks.compiled import Halves, loss_of, step_of, views

RECURRENT = ["lstm", "gru"]  # test_attention.py says what wide weights do to the other
Arrays = dict[str, np.ndarray]


def drawn(
    model_type: str, seed: int, count: int, features: int = 20, bars: int = 48, wide: float = 1.0
) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """Weights `wide` times those a training begins with, windows and labels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(model_type, features)
    random = np.random.default_rng(seed)
    weights = {name: wide * value.detach().numpy() for name, value in network.named_parameters()}
    windows = random.normal(size=(count, bars, features)).clip(-10, 10).astype("float32")
    return weights, windows, (random.random(count) < 0.5).astype("float32")


def by_torch(model_type: str, weights: Arrays, windows: np.ndarray, labels: np.ndarray) -> tuple[float, Arrays]:
    network = build(model_type, windows.shape[2]).double()
    network.load_state_dict({name: torch.from_numpy(value).double() for name, value in weights.items()})
    logits = network(torch.from_numpy(windows).double())
    loss = binary_cross_entropy_with_logits(logits, torch.from_numpy(labels).double(), reduction="sum")
    loss.backward()
    return loss.item(), {name: value.grad.numpy() for name, value in network.named_parameters()}


def stepped(model_type: str, weights: Arrays, windows: np.ndarray, labels: np.ndarray) -> tuple[float, Arrays]:
    step, found = step_of(model_type), {name: np.full_like(value, np.nan) for name, value in weights.items()}
    return step(weights, windows, labels, found), found


def require_close(ours: tuple[float, Arrays], theirs: tuple[float, Arrays], rtol: float = 1e-4) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=rtol, abs=1e-5)
    assert ours[1].keys() == theirs[1].keys()
    for name, value in theirs[1].items():
        np.testing.assert_allclose(
            ours[1][name], value, rtol=rtol, atol=rtol * np.abs(value).max() + 1e-9, err_msg=name
        )


def bits(found: tuple[float, Arrays]) -> bytes:
    return np.float64(found[0]).tobytes() + b"".join(found[1][name].tobytes() for name in sorted(found[1]))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 5, 16, 17, 64])
def test_the_loss_and_its_gradients_are_those_of_torch(model_type: str, seed: int, count: int) -> None:
    given = drawn(model_type, seed, count)
    require_close(stepped(model_type, *given), by_torch(model_type, *given))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize(("features", "bars"), [(1, 48), (4, 12), (7, 1), (16, 3), (31, 5), (48, 2)])
def test_any_number_of_features_and_bars_is_learnt_from(model_type: str, features: int, bars: int) -> None:
    given = drawn(model_type, 4, 9, features, bars)
    require_close(stepped(model_type, *given), by_torch(model_type, *given))


@pytest.mark.parametrize("model_type", RECURRENT)
@pytest.mark.parametrize(("wide", "bars"), [(0.0, 48), (3.0, 48), (30.0, 2), (1e4, 2)])
def test_weights_however_wide_give_what_they_give_in_torch(model_type: str, wide: float, bars: int) -> None:
    """Over few bars where they are widest: there a rounding error grows from bar to bar, torch's as ours."""
    given = drawn(model_type, 5, 17, bars=bars, wide=wide)
    require_close(stepped(model_type, *given), by_torch(model_type, *given), rtol=1e-3)


@pytest.mark.parametrize("model_type", RECURRENT)
@pytest.mark.parametrize("wide", [30.0, 1e4, 1e15])
def test_wide_weights_over_many_bars_give_numbers(model_type: str, wide: float) -> None:
    loss, found = stepped(model_type, *drawn(model_type, 5, 17, wide=wide))
    assert np.isfinite(loss)
    assert all(np.isfinite(value).all() for value in found.values())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_extreme_bars_give_what_they_give_in_torch(model_type: str) -> None:
    weights, windows, labels = drawn(model_type, 6, 20)
    windows[::3], windows[1::3] = 10.0, -10.0
    given = weights, windows, labels
    require_close(stepped(model_type, *given), by_torch(model_type, *given))


@pytest.mark.parametrize("model_type", RECURRENT)
def test_weights_that_are_no_numbers_are_not_hidden(model_type: str) -> None:
    weights, windows, labels = drawn(model_type, 7, 8)
    for value in weights.values():
        value[:] = np.nan
    loss, found = stepped(model_type, weights, windows, labels)
    assert np.isnan(loss)
    assert all(np.isnan(value).all() for value in found.values())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("count", [1, 17, 64])
def test_the_same_batch_gives_the_same_bits_and_its_loss_alone_too(model_type: str, count: int) -> None:
    given = drawn(model_type, 8, count)
    first, loss = stepped(model_type, *given), loss_of(model_type)
    assert bits(first) == bits(stepped(model_type, *given))
    assert loss(*given) == first[0]


class InTurn(Executor):
    """Runs what is submitted at once, in the thread that submits."""

    def submit(self, work: Callable[..., Any], /, *given: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*given, **more))
        return done


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize("count", [1, 2, 31, 64])
@pytest.mark.parametrize("late", [None, 0, 1], ids=["one thread", "first half late", "second half late"])
def test_halves_give_the_same_bits_whichever_is_ready_first(model_type: str, count: int, late: int | None) -> None:
    step, loss = step_of(model_type), loss_of(model_type)
    random = np.random.default_rng(9)
    bars, labels = random.normal(size=(300, 20)).astype("float32"), (random.random(300) < 0.5).astype("float32")
    rows = random.permutation(np.arange(47, 300))[:count]
    weights, _, _ = drawn(model_type, 9, 1)
    size = sum(value.size for value in weights.values())
    halves, one, other = Halves(bars, labels, 48, weights), np.empty(size, "float32"), np.empty(size, "float32")

    def slow(weights: Arrays, windows: np.ndarray, labels: np.ndarray, gradients: Arrays) -> float:
        at = int(np.shares_memory(gradients["head.bias"], halves._parts[1]))
        if at == late:
            time.sleep(0.02)
        return step(weights, windows, labels, gradients)

    with ThreadPoolExecutor(1) as second:
        told = halves.learn(slow, rows, one, InTurn() if late is None else second)
        assert told == halves.learn(step, rows, other, second)
        assert one.tobytes() == other.tobytes()
        assert told == pytest.approx(halves.loss(loss, rows, second), rel=1e-12)
    windows = np.stack([bars[row - 47 : row + 1] for row in rows])
    total, whole = by_torch(model_type, weights, windows, labels[rows])
    assert told == pytest.approx(total / count, rel=1e-5)
    for name, value in views(one, weights).items():
        np.testing.assert_allclose(value, whole[name] / count, atol=1e-4 * np.abs(whole[name] / count).max())


@pytest.mark.parametrize("clip", [0.5, 1e9])
def test_the_weights_go_where_torch_takes_them(clip: float) -> None:
    random = np.random.default_rng(10)
    weights, rate, decay = random.normal(size=1_000).astype("float32"), 3e-3, 0.05
    theirs = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.AdamW([theirs], rate, weight_decay=decay)
    mean, square, step = np.zeros(1_000, "float32"), np.zeros(1_000, "float32"), np.zeros(1, "float32")
    for size in (1.0, 1e-3, 30.0, 0.0, 1e-12):
        gradient = (size * random.normal(size=1_000)).astype("float32")
        theirs.grad = torch.from_numpy(gradient).double()
        torch.nn.utils.clip_grad_norm_(theirs, clip)
        optimiser.step()
        descend(weights, gradient, mean, square, step, clip, rate, decay)
        np.testing.assert_allclose(weights, theirs.detach().numpy(), rtol=1e-5, atol=1e-6)
    state = optimiser.state[theirs]
    assert step[0] == state["step"].item() == 5
    np.testing.assert_allclose(mean, state["exp_avg"].numpy(), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(square, state["exp_avg_sq"].numpy(), rtol=1e-4, atol=1e-12)
