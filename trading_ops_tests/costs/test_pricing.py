"""Is a call priced as the lists of its day say, and a past one to the same billionth of a dollar again?"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from importlib import metadata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.costs.pricing import Price, Prices, Rates, UnknownPrice, bound, check_tokens, reprice, rounded
from trading_ops.llm_settings import LlmSettings
from trading_ops_tests.conftest import ROOT

LIST = ROOT.parent / "shared" / "data" / "llm" / "openai-model-prices.json"
TODAY = datetime(2026, 11, 27, 12, tzinfo=UTC)
# what the other list says otherwise, USD per million of input, cached input and output, and why
KNOWN = {
    # the price of 2023; the name means gpt-3.5-turbo-0125 since, which has our price in the other list too
    "gpt-3.5-turbo": ("1.5", None, "2"),
    # the library names no discount for cached input: charged in full, which is never too little
    "gpt-4o-search-preview": ("2.5", "1.25", "10"),
    "gpt-4o-search-preview-2025-03-11": ("2.5", "1.25", "10"),
    "ft:gpt-4o-mini-2024-07-18": ("0.3", "0.15", "1.2"),
    # the price of before 2025; the other list has ours for o1-mini
    "o1-mini-2024-09-12": ("3", "1.5", "12"),
}


def price(model: str = "plain", *rates: Rates, **changes: Any) -> Price:
    base: dict[str, Any] = {"model": model, "source": "test", "version": "1", "provider": None, "known_as": model}
    given = rates or (Rates(input="1", cached_input="0.25", output="4"),)
    return Price(**(base | {"since": None, "day": "2025-03-10", "rates": given} | changes))


def test_each_class_of_tokens_has_its_price_and_reasoning_is_output():
    tokens = {"input": 1_000_000, "cached_input": 1_000_000, "output": 500_000, "reasoning": 250_000}
    assert price().cost(tokens) == 1 + Decimal("0.25") + 2 + 1
    assert price().cost({}) == 0


def test_a_call_of_today_costs_what_openai_says():
    """gpt-4.1-mini: 0.40, 0.10 and 1.60 USD per million."""
    found = Prices().of("gpt-4.1-mini", TODAY)
    assert found.rates == (Rates(input="0.4", cached_input="0.1", output="1.6"),)
    assert (found.source, found.version, found.provider) == ("genai-prices", metadata.version("genai-prices"), "openai")
    assert found.cost({"input": 3_000, "cached_input": 1_024, "output": 500}) == Decimal("0.0021024")


def test_the_default_model_has_a_price():
    assert Prices().of(LlmSettings().openai_model, TODAY).provider == "openai"


def test_a_price_cut_holds_from_its_day_on():
    """o3 became cheaper on 2025-06-10: 10 and 40 USD before, 2 and 8 since."""
    before = Prices().of("o3", datetime(2025, 6, 9, 23, 59, 59, tzinfo=UTC))
    after = Prices().of("o3", datetime(2025, 6, 10, tzinfo=UTC))
    assert (before.rates[0].input, before.rates[0].output, before.since) == ("10", "40", None)
    assert (after.rates[0].input, after.rates[0].output, after.since) == ("2", "8", "2025-06-10")
    assert (before.day, after.day) == ("2025-06-09", "2025-06-10")


def test_a_long_prompt_costs_more_for_all_of_its_tokens_and_is_reserved_at_that():
    """gpt-5.5: 5 and 30 USD, beyond 272,000 tokens of input 10 and 45."""
    found = Prices().of("gpt-5.5", TODAY)
    assert [rates.above_input_tokens for rates in found.rates] == [-1, 272_000]
    assert found.cost({"input": 272_000, "output": 1_000}) == Decimal("1.36") + Decimal("0.03")
    assert found.cost({"input": 272_001, "output": 1_000}) == Decimal("2.72001") + Decimal("0.045")
    assert found.cost({"input": 1, "cached_input": 272_000}) == Decimal("0.27201")
    assert found.most({"input": 300_000, "output": 1_000}) == Decimal("3") + Decimal("0.045")


def test_a_snapshot_and_an_address_say_which_price_is_meant():
    assert Prices().of("gpt-4o-2024-05-13", TODAY).rates[0].input == "5"
    assert Prices(api_url="https://api.x.ai/v1").of("grok-4", TODAY).provider == "x-ai"
    assert Prices(api_url="https://me.openai.azure.com/openai/v1").of("gpt-4o", TODAY).provider == "azure"
    assert Prices(api_url="http://127.0.0.1:4000/v1").of("gpt-4o", TODAY).provider == "openai"  # a proxy


@pytest.mark.parametrize("model", ["llama3:8b", "gpt-4o-but-mine", "", "../gpt-4o", "gpt-4o\n"])
def test_a_model_of_no_list_has_no_price(model: str):
    with pytest.raises(UnknownPrice, match="TRADING_OPS_LLM_PRICES"):
        Prices().of(model, TODAY)


def test_what_is_not_billed_by_text_has_no_price():
    with pytest.raises(UnknownPrice, match="not billed by tokens of text"):
        Prices().of("text-embedding-3-small", TODAY)


def test_an_own_price_comes_first_and_says_where_it_is_from():
    prices = Prices({"gpt-4o": ("0.15", "0.075", "0.60"), "local": ("0", "0", "0")})
    assert prices.of("gpt-4o", TODAY).cost({"input": 10, "cached_input": 10, "output": 10}) == Decimal("0.00000825")
    assert prices.of("gpt-4o", TODAY).source == "TRADING_OPS_LLM_PRICES"
    assert prices.of("local", TODAY).cost({"input": 10**9, "output": 10**9}) == 0


@pytest.mark.parametrize("figure", ["nan", "inf", "-1", "much", ""])
def test_a_price_that_is_none_is_refused(figure: str):
    with pytest.raises(ValueError, match="is no price"):
        Rates(input="1", cached_input="1", output=figure)


@pytest.mark.parametrize(("tokens", "said"), [({"audio": 1}, "tokens.audio"), ({"input": -1}, "tokens.input is -1")])
def test_a_class_or_a_count_that_is_none_is_named(tokens: dict[str, int], said: str):
    for ask in (check_tokens, price().cost, price().most):
        with pytest.raises(ValueError, match=said):
            ask(tokens)


counts = st.integers(0, 5_000_000)
figures = st.integers(0, 10**9).map(lambda nano: format(Decimal(nano) / 10**6, "f"))
all_rates = st.lists(st.builds(Rates, input=figures, cached_input=figures, output=figures), min_size=1, max_size=3)


@given(rates=all_rates, most_in=counts, most_out=counts, shares=st.tuples(*[st.floats(0, 1)] * 3))
def test_no_call_within_its_tokens_costs_more_than_its_bound(rates, most_in, most_out, shares):
    tiers = [
        one.model_copy(update={"above_input_tokens": at}) for one, at in zip(rates, (-1, 1_000, 900_000), strict=False)
    ]
    found = price("tiered", *tiers)
    sent, reasoned = int(most_in * shares[0]), int(most_out * shares[2])
    cached = int(sent * shares[1])
    tokens = {"input": sent - cached, "cached_input": cached, "output": most_out - reasoned, "reasoning": reasoned}
    assert rounded(found.cost(tokens)) <= bound(found, {"input": most_in, "output": most_out})


@given(
    rates=all_rates,
    tokens=st.fixed_dictionaries(dict.fromkeys(("input", "cached_input", "output", "reasoning"), counts)),
)
def test_a_row_is_priced_again_from_its_own_record_whatever_the_lists_say_by_then(rates, tokens):
    found = price("gone-model", rates[0])
    row = json.loads(json.dumps({
        "price": found.model_dump(mode="json"), "tokens": tokens, "charged": "tokens",
        "cost_usd": float(rounded(found.cost(tokens))),
    }))  # fmt: skip
    assert float(reprice(row)) == row["cost_usd"]
    assert Price.model_validate(row["price"]) == found


def test_a_row_without_a_price_says_so():
    with pytest.raises(ValueError, match="no price"):
        reprice({"model": "gpt-4o", "tokens": {"input": 1}, "cost_usd": 1.0})


def test_another_list_of_prices_agrees_but_for_what_is_known():
    """tokencost's, as it was recorded; each difference with who is right."""
    if not LIST.is_file():
        pytest.skip(f"the recorded price list is not at {LIST}")
    agreeing, different = set(), {}
    for model, entry in json.loads(LIST.read_text()).items():
        if entry.get("mode") not in ("chat", "responses") or "/" in model:
            continue  # "openai/" repeats what is there without it
        rates = Prices().of(model, TODAY).rates[0]
        ours = [Decimal(figure) for figure in (rates.input, rates.cached_input, rates.output)]
        names = ("input_cost_per_token", "cache_read_input_token_cost", "output_cost_per_token")
        theirs = [None if name not in entry else Decimal(str(entry[name])) * 1_000_000 for name in names]
        if all(their in (None, our) for their, our in zip(theirs, ours, strict=True)):
            agreeing.add(model)
        else:
            different[model] = theirs
    assert different == {model: [f and Decimal(f) for f in said] for model, said in KNOWN.items()}
    assert len(agreeing) >= 75
    assert agreeing >= {"gpt-4.1", "gpt-4.1-mini", "gpt-4o", "gpt-4o-mini", "gpt-5", "gpt-5-mini", "o3", "o4-mini"}
