"""The Transformer's kernel says what torch says, the same on every run."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from trading_ops.training.networks.attention import step
from trading_ops.training.networks.transformer import Transformer

Weights = dict[str, np.ndarray]


def drawn(batch: int, seed: int, features: int = 16, bars: int = 48) -> tuple[Weights, np.ndarray, np.ndarray]:
    """Weights moved off where a training begins, so that no gain is 1 and no shift 0; windows and labels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Transformer(features)
        weights = {
            name: (value + 0.2 * torch.randn_like(value)).numpy() for name, value in network.state_dict().items()
        }
        windows, labels = torch.randn(batch, bars, features), torch.randint(0, 2, (batch,)).float()
    return weights, windows.numpy(), labels.numpy()


def learnt(weights: Weights, windows: np.ndarray, labels: np.ndarray) -> tuple[float, Weights]:
    gradients = {name: np.full_like(value, np.nan) for name, value in weights.items()}
    return step(weights, windows, labels, gradients), gradients


def expected(weights: Weights, windows: np.ndarray, labels: np.ndarray) -> tuple[float, Weights]:
    """Of torch, in twice the digits."""
    network = Transformer(windows.shape[2]).double()
    network.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    said, truth = network(torch.from_numpy(windows).double()), torch.from_numpy(labels).double()
    loss = binary_cross_entropy_with_logits(said, truth, reduction="sum")
    loss.backward()
    slopes = {name: value.grad for name, value in network.named_parameters()}
    return loss.item(), {name: slope.numpy() for name, slope in slopes.items() if slope is not None}


def assert_as_torch(weights: Weights, windows: np.ndarray, labels: np.ndarray) -> None:
    (loss, gradients), (true_loss, true_gradients) = (
        learnt(weights, windows, labels),
        expected(weights, windows, labels),
    )
    assert loss == pytest.approx(true_loss, rel=1e-5, abs=1e-5)
    assert gradients.keys() == true_gradients.keys()
    for name, slope in true_gradients.items():
        nearest = 1e-5 * max(1.0, np.abs(slope).max())
        np.testing.assert_allclose(gradients[name], slope, rtol=1e-4, atol=nearest, err_msg=name)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("batch", [1, 5, 64])
def test_loss_and_gradients_are_those_of_torch(batch: int, seed: int) -> None:
    assert_as_torch(*drawn(batch, seed))


@pytest.mark.parametrize(("features", "bars"), [(1, 1), (3, 7), (13, 50), (16, 47), (20, 96)])
def test_windows_may_have_any_number_of_bars_and_features(features: int, bars: int) -> None:
    assert_as_torch(*drawn(9, 4, features, bars))


@pytest.mark.parametrize("scale", [0.0, 30.0, 1000.0])
def test_windows_may_be_flat_or_wild(scale: float) -> None:
    weights, windows, labels = drawn(10, 5)
    assert_as_torch(weights, (windows * np.float32(scale)), labels)


def test_large_weights_overflow_nothing() -> None:
    weights, windows, labels = drawn(10, 6)
    loss, gradients = learnt({name: 20 * value for name, value in weights.items()}, windows, labels)
    assert np.isfinite(loss)
    assert all(np.isfinite(value).all() for value in gradients.values())


def test_a_window_that_is_not_a_number_makes_the_loss_none() -> None:
    weights, windows, labels = drawn(3, 7)
    windows[1, 20, 3] = np.nan
    assert np.isnan(learnt(weights, windows, labels)[0])


def test_the_same_batch_gives_the_same_bits_also_in_two_threads_at_once() -> None:
    batches = [drawn(64, 8), drawn(61, 9)]
    alone = [learnt(*batch) for batch in batches]
    with ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            for (loss, gradients), (once, before) in zip(
                threads.map(lambda batch: learnt(*batch), batches), alone, strict=True
            ):
                assert loss == once
                assert all(np.array_equal(gradients[name], before[name]) for name in before)


def test_a_batch_is_the_sum_of_its_halves() -> None:
    weights, windows, labels = drawn(64, 10)
    whole, halves = (
        learnt(weights, windows, labels),
        [learnt(weights, windows[x], labels[x]) for x in np.split(np.arange(64), 2)],
    )
    assert whole[0] == pytest.approx(halves[0][0] + halves[1][0])
    for name, slope in whole[1].items():
        np.testing.assert_allclose(halves[0][1][name] + halves[1][1][name], slope, rtol=1e-4, atol=1e-5)


def test_what_is_read_stays_as_it_was() -> None:
    weights, windows, labels = drawn(9, 11)
    before = [value.copy() for value in (*weights.values(), windows, labels)]
    learnt(weights, windows, labels)
    assert all(map(np.array_equal, before, (*weights.values(), windows, labels)))
