"""Is what can be asked taken as it is meant, and anything else refused by field and value?"""

from math import nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.analysis.request import InvalidRequest, make_request


def test_symbols_are_de_duplicated_and_the_doubled_ones_told_B141():
    request = make_request(["ethusdt", "BTCUSDT", " ETHUSDT", "BTCUSDT", "SOLUSDT"])
    assert request.symbols == ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    assert request.doubled == ("BTCUSDT", "ETHUSDT")


def test_an_empty_list_is_bad_input_B141():
    with pytest.raises(InvalidRequest, match="symbols: 0 are asked for; 1 to 5,000 would be right, such as BTCUSDT"):
        make_request([])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"symbols": [f"S{i}" for i in range(5_001)]}, "symbols: 5,001 are asked for; 1 to 5,000 would be right"),
        ({"symbols": "BTCUSDT"}, "symbols is 'BTCUSDT'; a list such as"),
        ({"symbols": ["BTCUSDT", "BTC/USDT"]}, r"symbols\[1\] is 'BTC/USDT'; letters, digits, - and _"),
        ({"symbols": ["../BTCUSDT"]}, r"symbols\[0\] is"),
        ({"symbols": ["BTCUSDT", " "]}, r"symbols\[1\] is ' '"),
        ({"symbols": [None]}, r"symbols\[0\] is None"),
        ({"symbols": ["BTCUSDT"], "all_symbols": True}, "all_symbols is true and symbols names 1; one of the two"),
        ({"lookback_bars": 49}, "lookback_bars is 49; a whole number from 50 to 5,000 would be right"),
        ({"lookback_bars": 5_001}, "lookback_bars is 5001"),
        ({"lookback_bars": 500.0}, "lookback_bars is 500.0; a whole number"),
        ({"lookback_bars": True}, "lookback_bars is True"),
        ({"min_score": 1.01}, "min_score is 1.01; a number from 0 to 1 would be right"),
        ({"min_score": nan}, "min_score is nan"),
        ({"min_score": "0.5"}, "min_score is '0.5'"),
        ({"chunk_size": 0}, "chunk_size is 0; a whole number from 1 to 1,000"),
        ({"threads": 65}, "threads is 65; a whole number from 1 to 64"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_is_refused_by_name_and_value(wrong: dict[str, Any], says: str):
    with pytest.raises(InvalidRequest, match=says) as refusal:
        make_request(**({"symbols": None, "default": ["BTCUSDT"]} | wrong))
    assert isinstance(refusal.value, ValueError)


def test_without_symbols_the_default_is_asked_for_and_all_where_all_are_wanted():
    assert make_request(default=["B", "A"]).symbols == ("A", "B")
    assert make_request(all_symbols=True, default=["A"]).symbols is None
    assert make_request(["5" * 20]).symbols == ("5" * 20,)


@given(count=st.integers(0, 5_000), size=st.none() | st.integers(1, 1_000))
def test_chunks_hold_every_symbol_once_and_at_most_a_tenth_of_them(count: int, size: int | None):
    symbols = [f"S{i}" for i in range(count)]
    chunks = make_request(["A"], chunk_size=size).chunks(symbols)
    assert [symbol for chunk in chunks for symbol in chunk] == symbols
    assert all(len(chunk) <= max(1, -(-count // 10), 1) for chunk in chunks)
    assert size is None or all(len(chunk) <= size for chunk in chunks)
