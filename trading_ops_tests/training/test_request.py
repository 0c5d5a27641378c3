"""Which trainings are refused, and in which words?"""

import pytest

from trading_ops.training.request import InvalidRequest, TrainingRequest


def test_every_field_has_a_default_that_is_right():
    request = TrainingRequest.parse({})
    assert (request.model_type, request.symbols, request.days_of_data) == ("lstm", (), 365)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model_type": "prophet"}, "model_type is 'prophet': lstm, gru, transformer would be right"),
        ({"days_of_data": 6}, "days_of_data is 6: 7-1460 would be right"),
        ({"days_of_data": 1461}, "days_of_data is 1461: 7-1460 would be right"),
        ({"batch_size": 100}, "batch_size is 100: a power of two from 8 to 65536, such as 64, would be right"),
        ({"batch_size": 0}, "batch_size is 0: a power of two from 8 to 65536, such as 8, would be right"),
        ({"batch_size": -64}, "batch_size is -64: a power of two from 8 to 65536, such as 8, would be right"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0: above 0 and at most 1, such as 0.001, would be right"),
        ({"validation_split": 0.6}, "validation_split is 0.6: 0.05-0.5 would be right"),
        ({"epochs": 0}, "epochs is 0: 1-1000 would be right"),
        ({"seed": -1}, "seed is -1: 0-2147483647 would be right"),
        ({"end": "yesterday"}, "end is 'yesterday': a UTC day such as 2025-03-01 would be right"),
        ({"epoch": 3}, "epoch is unknown; there are model_type, symbol"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(wrong: dict, said: str):
    with pytest.raises(InvalidRequest) as refused:
        TrainingRequest.parse(wrong)
    assert str(refused.value).startswith(said)


@pytest.mark.parametrize(
    "wrong", [{"learning_rate": float("nan")}, {"learning_rate": float("inf")}, {"epochs": 2.5}, {"epochs": "30"},
              {"batch_size": None}, {"symbol": None}, {"days_of_data": True}]
)  # fmt: skip
def test_what_is_no_number_or_of_another_type_is_refused_by_name(wrong: dict):
    with pytest.raises(InvalidRequest, match=f"^{next(iter(wrong))} is "):
        TrainingRequest.parse(wrong)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(InvalidRequest, match=r"epochs is 0.*; batch_size is 3"):
        TrainingRequest.parse({"epochs": 0, "batch_size": 3})


def test_symbols_are_read_with_commas_case_and_spaces_and_each_once():
    assert TrainingRequest.parse({"symbol": " btcusdt, ETHUSDT,,BTCUSDT "}).symbols == ("BTCUSDT", "ETHUSDT")


@pytest.mark.parametrize("size", [8 << k for k in range(14)])
def test_every_power_of_two_is_a_batch(size: int):
    assert TrainingRequest.parse({"batch_size": size}).batch_size == size
