"""What a model says follows from its weights and a row's window alone, and from nothing else."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.training.card import MODEL_TYPES
from trading_ops.training.model import (
    FURTHEST,
    InvalidModel,
    Model,
    packed,
    scaled,
    scaler,
    sigmoid,
    unpacked,
)
from trading_ops.training.networks.build import build
from trading_ops_tests.training.drawn import drawn_samples

SAMPLES = drawn_samples()


def drawn_model(model_type: str, seed: int = 1) -> Model:
    """Weights three times those a training begins with, so that the answers lie well apart."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(model_type, len(SAMPLES.names))
    weights = {f"net.{name}": 3 * value.numpy() for name, value in network.state_dict().items()}
    return Model(model_type, weights | scaler(SAMPLES.features), SAMPLES.lookback, SAMPLES.horizon, SAMPLES.names)


MODELS = {model_type: drawn_model(model_type) for model_type in MODEL_TYPES}
WHOLE = {name: model.probabilities(SAMPLES, SAMPLES.decidable()) for name, model in MODELS.items()}


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_network_turns_windows_into_one_log_odds_each(model_type: str) -> None:
    network = build(model_type, 16)
    assert network(torch.zeros(5, 48, 16)).shape == (5,)
    assert 4_000 < sum(weights.numel() for weights in network.parameters()) < 30_000


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_bar_of_the_window_bears_on_the_answer(model_type: str) -> None:
    network = build(model_type, 4)
    window = torch.randn(1, 12, 4, requires_grad=True)
    network(window).sum().backward()
    assert window.grad is not None
    assert (window.grad.abs().sum(dim=2) > 0).all()


def test_an_unknown_type_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="'cnn'; one of lstm, gru, transformer"):
        build("cnn", 4)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_answer_is_a_probability_and_differs_from_window_to_window(model_type: str) -> None:
    answers = WHOLE[model_type]
    assert answers.dtype == np.float64
    assert ((answers > 0) & (answers < 1)).all()
    assert len(np.unique(answers)) == len(answers)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_an_answer_is_the_same_to_the_last_bit_whichever_others_are_asked_for(
    model_type: str, data: st.DataObject
) -> None:
    places = data.draw(st.lists(st.integers(0, len(WHOLE[model_type]) - 1), max_size=40))
    rows = SAMPLES.decidable()[places]
    assert MODELS[model_type].probabilities(SAMPLES, rows).tobytes() == WHOLE[model_type][places].tobytes()


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_an_answer_depends_on_no_bar_outside_its_window(model_type: str) -> None:
    row, lookback = 200, SAMPLES.lookback
    features = np.full_like(SAMPLES.features, 1e3)
    features[row - lookback + 1 : row + 1] = SAMPLES.features[row - lookback + 1 : row + 1]
    changed = replace(SAMPLES, features=features)
    answer = MODELS[model_type].probabilities(changed, np.array([row]))
    assert answer[0] == WHOLE[model_type][row - lookback + 1]


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_weights_written_and_read_give_the_same_bytes_and_answers(model_type: str) -> None:
    model = MODELS[model_type].calibrated(0.8, -0.1)
    again = replace(model, weights=unpacked(packed(model.weights)))
    assert packed(again.weights) == packed(model.weights)
    rows = SAMPLES.decidable()
    assert again.probabilities(SAMPLES, rows).tobytes() == model.probabilities(SAMPLES, rows).tobytes()


def test_calibration_bends_the_log_odds_and_nothing_else() -> None:
    model, rows = MODELS["lstm"], SAMPLES.decidable()
    expected = sigmoid(0.5 * model.logits(SAMPLES, rows) - 0.25)
    bent = model.calibrated(0.5, -0.25)
    np.testing.assert_array_equal(bent.probabilities(SAMPLES, rows), expected)
    np.testing.assert_array_equal(bent.logits(SAMPLES, rows), model.logits(SAMPLES, rows))


def test_no_rows_have_no_answers() -> None:
    assert MODELS["gru"].probabilities(SAMPLES, np.empty(0, dtype="int64")).shape == (0,)


def test_asking_draws_nothing_from_the_generator_of_others() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    replace(MODELS["gru"]).probabilities(SAMPLES, SAMPLES.decidable()[:3])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_row_without_a_whole_window_is_refused() -> None:
    features = SAMPLES.features.copy()
    features[100, 2] = np.nan
    with pytest.raises(InvalidModel, match="2 rows of BTCUSDT lack a whole window of known features, first 3"):
        MODELS["gru"].probabilities(replace(SAMPLES, features=features), np.array([3, 105, 300]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"names": ("a", "b", "c", "d")}, "features of BTCUSDT"),
        ({"lookback": 13}, "lookback of BTCUSDT is 13; the model learnt from 12"),
        ({"horizon": 2}, "horizon of BTCUSDT is 2; the model learnt from 1"),
    ],
)
def test_samples_of_another_shape_are_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidModel, match=said):
        MODELS["gru"].probabilities(replace(SAMPLES, **change), np.array([200]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"net.head.bias": None}, r"net.head.bias is missing, not \(1,\)"),
        ({"net.head.bias": np.zeros(2, "float32")}, r"net.head.bias is \(2,\), not \(1,\)"),
        ({"odd": np.zeros(2)}, r"odd is \(2,\), not known"),
        ({"net.head.bias": np.array([np.nan], "float32")}, "net.head.bias has values that are not finite"),
        ({"calibration": np.array([1.0, np.inf])}, "calibration has values that are not finite"),
    ],
)
def test_weights_of_something_else_are_refused(change: dict[str, np.ndarray | None], said: str) -> None:
    model = MODELS["gru"]
    weights = {name: value for name, value in {**model.weights, **change}.items() if value is not None}
    with pytest.raises(InvalidModel, match=said):
        replace(model, weights=weights).probabilities(SAMPLES, np.array([200]))


def test_a_file_that_holds_no_weights_is_refused() -> None:
    with pytest.raises(InvalidModel, match="no file of weights"):
        unpacked(packed({"a": np.zeros(100)})[:-8])


def test_scaling_is_by_the_columns_mean_and_deviation_and_ends_somewhere() -> None:
    fitted = scaler(np.array([[1.0, 5.0], [3.0, 5.0]], "float32"))
    assert fitted["scaler.mean"].tolist() == [2.0, 5.0]
    assert fitted["scaler.std"].tolist() == [1.0, 1.0]
    found = scaled(np.array([[4.0, 1e9], [np.nan, -1e9]], "float32"), **{k[7:]: v for k, v in fitted.items()})
    np.testing.assert_array_equal(found, np.array([[2.0, FURTHEST], [np.nan, -FURTHEST]], "float32"))
