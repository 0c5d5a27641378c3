"""Does the rule say what its docstring says, and nothing where it knows nothing?"""

from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.analysis.rule import judge

NAMES = ("rsi", "macd_histogram", "bollinger_position", "bollinger_deviation", "volume_ratio", "body")
NOTHING = {"rsi": 50.0, "macd_histogram": 0.0, "bollinger_position": 0.0, "bollinger_deviation": 1.0,
           "volume_ratio": 1.0, "body": 0.0}  # fmt: skip
anything = st.floats(-1e6, 1e6) | st.just(nan)


def judged(**changes: float) -> tuple[str, float, dict[str, float]]:
    values = NOTHING | changes
    found = judge(*(np.array([values[name]]) for name in NAMES))
    parts = {name: float(part[0]) for name, part in found.parts.items()}
    return str(found.signal[0]), float(found.score[0]), parts


@pytest.mark.parametrize(
    ("changes", "signal", "score"),
    [
        ({}, "HOLD", 0.0),
        ({"rsi": 30.0}, "BUY", 0.25),
        ({"rsi": 10.0}, "BUY", 0.25),
        ({"rsi": 30.01}, "HOLD", 0.249875),
        ({"rsi": 70.0}, "SELL", 0.25),
        ({"rsi": 100.0, "bollinger_position": 3.0}, "SELL", 0.5),
        ({"bollinger_position": -1.0}, "BUY", 0.25),
        ({"macd_histogram": 0.125, "bollinger_position": -0.5}, "BUY", 0.25),
        ({"macd_histogram": -9.0, "rsi": 70.0}, "SELL", 0.5),
        ({"volume_ratio": 2.0, "body": 0.1}, "BUY", 0.25),
        ({"volume_ratio": 2.0, "body": -0.1}, "SELL", 0.25),
        ({"volume_ratio": 0.2, "body": 5.0}, "HOLD", 0.0),
        ({"rsi": 30.0, "bollinger_position": 1.0}, "HOLD", 0.0),
        ({"rsi": 0.0, "bollinger_position": -2.0, "macd_histogram": 1.0, "volume_ratio": 9.0, "body": 1.0}, "BUY", 1.0),
        (dict.fromkeys(NAMES, nan), "HOLD", 0.0),
        ({"rsi": nan, "bollinger_position": -1.0}, "BUY", 0.25),
    ],
    ids=str,
)
def test_by_hand(changes: dict[str, float], signal: str, score: float):
    found = judged(**changes)
    assert found[:2] == (signal, pytest.approx(score, abs=1e-6))


def test_without_bands_macd_has_no_opinion_either():
    _, _, parts = judged(bollinger_position=nan, bollinger_deviation=1e-9, macd_histogram=5.0)
    assert np.isnan(parts["macd"])
    assert np.isnan(parts["bollinger"])


@given(st.fixed_dictionaries(dict.fromkeys(NAMES, anything)))
def test_the_score_lies_between_0_and_1_and_agrees_with_the_signal(values: dict[str, float]):
    signal, score, parts = judged(**values)
    assert 0.0 <= score <= 1.0
    assert (signal == "HOLD") == (score < 0.25)
    assert all(np.isnan(part) or -1.0 <= part <= 1.0 for part in parts.values())


@given(st.floats(0, 100), st.floats(-3, 3), st.floats(-1, 1), st.floats(0, 5), st.floats(-1, 1))
def test_the_mirrored_market_gives_the_opposite_signal(rsi: float, band: float, macd: float, ratio: float, body: float):
    opposite = {"BUY": "SELL", "SELL": "BUY", "HOLD": "HOLD"}
    here = judged(rsi=rsi, bollinger_position=band, macd_histogram=macd, volume_ratio=ratio, body=body)
    there = judged(rsi=100.0 - rsi, bollinger_position=-band, macd_histogram=-macd, volume_ratio=ratio, body=-body)
    assert here[1] == pytest.approx(there[1], abs=2e-6)
    if abs(here[1] - 0.25) > 1e-5:
        assert opposite[here[0]] == there[0]
