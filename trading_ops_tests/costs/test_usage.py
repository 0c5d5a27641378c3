"""Does the ledger add up, and refuse what is no call?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry
from trading_ops.costs.usage import COLLECTION, TOKEN_CLASSES, read_usage, usage_by_day


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "audit.db") as store:
        yield store


def call(cost_usd: Any = 0.25, model: Any = "gpt-4o", **tokens: Any) -> dict[str, Any]:
    return {"model": model, "cost_usd": cost_usd, "tokens": tokens, "prompt_hash": "kept but not added up"}


def test_the_calls_of_a_day_add_up_by_model_and_token_class():
    days = usage_by_day([
        ("2025-03-01", call(0.25, input=100, output=10)),
        ("2025-03-01", call(0.5, model="gpt-4o-mini", input=1, cached_input=7)),
        ("2025-03-01", call(0.25, input=100, audio=3)),
        ("2025-03-02", call(1.0, output=5)),
    ])  # fmt: skip
    first = days["2025-03-01"]
    assert (first.requests, first.cost_usd) == (3, 1.0)
    assert first.cost_by_model == {"gpt-4o": 0.5, "gpt-4o-mini": 0.5}
    assert first.tokens == {"input": 201, "cached_input": 7, "output": 10, "reasoning": 0, "audio": 3}
    assert (days["2025-03-02"].requests, days["2025-03-02"].cost_usd) == (1, 1.0)


def test_every_attempt_counts_as_a_request_even_when_it_was_free():
    usage = usage_by_day([("2025-03-01", call(0.0)), ("2025-03-01", {"model": "gpt-4o", "cost_usd": 0})])["2025-03-01"]
    assert (usage.requests, usage.cost_usd, usage.tokens) == (2, 0.0, dict.fromkeys(TOKEN_CLASSES, 0))


@pytest.mark.parametrize(
    ("row", "field"),
    [
        pytest.param(call(nan), "cost_usd", id="B040 NaN"),
        pytest.param(call(inf), "cost_usd", id="B041 infinite"),
        pytest.param(call(-0.01), "cost_usd", id="negative"),
        pytest.param(call(None), "cost_usd", id="B043 null"),
        pytest.param(call("much"), "cost_usd", id="a word"),
        pytest.param(call(model=""), "model", id="no model"),
        pytest.param(call(input="many"), "tokens.input", id="words for tokens"),
        pytest.param(call(input=1.5), "tokens.input", id="half a token"),
        pytest.param({"model": "gpt-4o"}, "cost_usd", id="no cost"),
    ],
)
def test_a_row_that_is_no_call_is_refused_by_field(row: dict[str, Any], field: str):
    with pytest.raises(ValidationError) as refused:
        usage_by_day([("2025-03-01", row)])
    assert [".".join(map(str, error["loc"])) for error in refused.value.errors()] == [field]


def test_tokens_cannot_be_negative():
    with pytest.raises(ValidationError):
        usage_by_day([("2025-03-01", call(input=-5))])


def test_B043_a_text_is_no_cost():
    with pytest.raises(ValidationError):
        usage_by_day([("2025-03-01", call("3"))])


def test_usage_is_read_from_the_ledger_by_utc_day(store: SqliteStore):
    for n, day in enumerate(["2025-02-28", "2025-03-01", "2025-03-01", "2025-03-31", "2025-04-01"]):
        store.append(COLLECTION, [Entry(day, f"call-{n}", call(0.25, input=1))])
    usage = read_usage(store, date(2025, 3, 1), date(2025, 3, 31))
    assert {day: (u.requests, u.cost_usd) for day, u in usage.items()} == {
        "2025-03-01": (2, 0.5), "2025-03-31": (1, 0.25),
    }  # fmt: skip
    assert read_usage(store, date(2024, 3, 1), date(2024, 3, 31)) == {}


def test_a_call_settled_later_counts_once_with_its_newest_cost(store: SqliteStore):
    store.append(COLLECTION, [Entry("2025-03-01", "call-1", call(5.0))])
    store.append(COLLECTION, [Entry("2025-03-01", "call-1", call(0.25))])
    usage = read_usage(store, date(2025, 3, 1), date(2025, 3, 1))["2025-03-01"]
    assert (usage.requests, usage.cost_usd) == (1, 0.25)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["2025-03-01", "2025-03-02"]), st.integers(0, 400)), max_size=30))
def test_no_call_and_no_cent_is_lost(rows: list[tuple[str, int]]):
    usage = usage_by_day([(day, call(quarters / 4, input=quarters)) for day, quarters in rows])
    assert sum(u.requests for u in usage.values()) == len(rows)
    total = sum(quarters for _, quarters in rows)
    assert sum(u.cost_usd for u in usage.values()) == total / 4
    assert sum(u.tokens["input"] for u in usage.values()) == total
    assert sum(sum(u.cost_by_model.values()) for u in usage.values()) == total / 4
