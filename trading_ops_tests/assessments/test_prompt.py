"""Is GPT-4 told the evidence and nothing else, and does a name the bot gives stay a name, whatever it says?"""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.assessments.assessing import assess
from trading_ops.assessments.decision import decide
from trading_ops.assessments.evidence import Adviser, Evidence, Market, TradeGroup
from trading_ops.assessments.prompt import DIGITS, LONGEST_NAME, PROMPT_VERSION, build_prompt, instructions, sha256_of
from trading_ops.assessments.rules import judge
from trading_ops.audit.store import AuditStore, open_store
from trading_ops_tests.assessments.examples import DAY, attempted, breach_of, evidence_of, model_of, opinion
from trading_ops_tests.assessments.filled_store import (
    DAYS,
    Scripted,
    decide_on,
    documents,
    gathered,
    record,
    record_all,
)
from trading_ops_tests.assessments.injections import INJECTIONS

OBEYS = opinion("retrain", 1.0, "high")


def named(text: str, **changes: Any) -> Evidence:
    """Evidence in which all that the bot names is called this."""
    group = TradeGroup(strategy=text, symbol=text, side=text, close_reason=text, trades=3, wins=1, avg_profit_pct=0.1)
    market = Market(**{**evidence_of().market[0].model_dump(), "symbol": text})
    links = {text: ("lstm/BTCUSDT",)}
    return evidence_of(trades=(group,), breaches=(breach_of(strategy=text),), market=(market,), links=links, **changes)


def told(evidence: Evidence) -> Any:
    return json.loads(build_prompt(evidence).user)["evidence"]


def shape(value: Any, path: str = "") -> Iterator[str]:
    """The paths of all keys; those of a list's items are the same."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield f"{path}.{name}"
            yield from shape(part, f"{path}.{name}")
    elif isinstance(value, list):
        for part in value:
            yield from shape(part, f"{path}[]")


# the same bytes


def test_the_same_evidence_gives_the_same_bytes():
    evidence = named("rsi")
    prompt = build_prompt(evidence)
    assert prompt == build_prompt(Evidence.model_validate_json(evidence.model_dump_json()))
    assert (prompt.system, prompt.version) == (instructions(PROMPT_VERSION), PROMPT_VERSION)
    assert prompt.sha256 == sha256_of(prompt.system, prompt.user)


def test_the_order_in_which_links_were_configured_changes_nothing():
    links = {"rsi": ("lstm/BTCUSDT",), "macd": ("gru/ETHUSDT",)}
    again = dict(reversed(links.items()))
    assert build_prompt(evidence_of(links=links)) == build_prompt(evidence_of(links=again))


def test_the_digest_is_of_both_messages_and_where_one_ends():
    system, user = "a", "b\u00e9"
    by_hand = bytes(7) + b"\x01a" + bytes(7) + b"\x03b\xc3\xa9"
    assert sha256_of(system, user) == sha256(by_hand).hexdigest()
    assert sha256_of("ab", "c") != sha256_of("a", "bc")


@given(st.text(max_size=50), st.text(max_size=50), st.integers(0, 99), st.characters(codec="utf-8"))
def test_the_digest_changes_with_any_character(system, user, at, character):
    both = system + user
    if not both:
        return
    at %= len(both)
    changed = both[:at] + character + both[at + 1 :]
    again = sha256_of(changed[: len(system)], changed[len(system) :])
    assert (again == sha256_of(system, user)) == (changed == both)


def test_a_version_that_is_not_there_is_refused():
    for version in ("0", "", "../1", "1.txt"):
        with pytest.raises(KeyError, match="this release has no such text"):
            build_prompt(evidence_of(), version)


# what is told

KEYS = {
    "": "breaches candles day days links market models sharpe_ratio_90d sharpe_standard_error_90d trades",
    ".breaches[]": "confirmed interval limit metric strategy value",
    ".days[]": "accuracy accuracy_n day trades win_rate_pct window_avg_profit_interval_pct window_avg_profit_pct"
    " window_sharpe_ratio window_sharpe_standard_error window_trades window_win_rate_interval_pct window_win_rate_pct"
    " wins",
    ".links": "rsi",
    ".market[]": "bars_7d change_24h_pct change_7d_pct symbol volatility_24h_pct volatility_7d_pct volume_ratio",
    ".models[]": "accuracy_7d age_days drift drop_7d_interval_pp drop_7d_pp n_7d name new_bars",
    ".trades[]": "avg_profit_pct close_reason side strategy symbol trades wins",
}


def test_what_is_told_is_listed_here():
    """A new field of the evidence is told to nobody before it is added here."""
    found: dict[str, set[str]] = {}
    for path in shape(told(named("rsi"))):
        place, _, name = path.rpartition(".")
        found.setdefault(place, set()).add(name)
    assert {place: " ".join(sorted(names)) for place, names in found.items()} == KEYS
    assert set(json.loads(build_prompt(named("rsi")).user)) == {"evidence"}


def test_ids_digests_and_what_was_decided_before_are_told_to_nobody():
    planted = [f"planted-{number}" for number in range(7)]
    prompt = build_prompt(
        evidence_of(
            models=(model_of(model_id=planted[0]),),
            source=planted[1],
            digests={planted[2]: planted[3]},
            missing=(planted[4],),
            adviser=Adviser(standing="advisory", why=planted[5]),
            vetoed_since=planted[6],
            attempts=attempted(123.4567),
        )
    )
    for text in (*planted, "planted", "123.4", "missing", "advisory"):
        assert text not in prompt.system + prompt.user, text


def test_no_id_amount_or_earlier_decision_of_the_store_is_told(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/audit.db") as store:
        record_all(store)
        body = documents()["closed_trades"][DAY]
        private = {"trade_id": "planted-1", "position_id": "planted-2", "quantity": 987654.25, "entry_price": 87654.5}
        trades = [{**body["trades"][0], **private, "pnl_usdt": 76543.75, "fee_usdt": 6543.125}]
        record(store, "closed_trades", {DAY: {**body, "trades": [*body["trades"], *trades]}})
        decision = decide_on(store, DAYS[-3], opinion())["decision_id"]
        prompt = build_prompt(gathered(store))
    for text in ("planted", "987654", "87654", "76543", "6543", decision, "usdt"):
        assert text not in prompt.user, text


def test_figures_are_told_with_four_digits():
    (model,) = told(evidence_of(models=(model_of(age_days=12.345678, accuracy_7d=0.523456),)))["models"]
    assert (DIGITS, model["age_days"], model["accuracy_7d"]) == (4, 12.35, 0.5235)


def test_what_is_unknown_is_null():
    (model,) = told(evidence_of(models=(model_of(drop_7d_pp=None, drift=None),)))["models"]
    assert (model["drop_7d_pp"], model["drift"]) == (None, None)


# what the bot calls something


def test_there_are_fifty_different_injections():
    assert len(set(INJECTIONS)) == len(INJECTIONS) == 50


def short(text: str) -> str:
    return f"{text[:30]!r}"


@pytest.mark.parametrize("text", INJECTIONS, ids=short)
def test_a_name_stays_a_name_in_the_prompt(text):
    prompt, plain = build_prompt(named(text)), build_prompt(named("rsi"))
    evidence, cut = json.loads(prompt.user)["evidence"], text[:LONGEST_NAME]
    (group,) = evidence["trades"]
    assert [group[name] for name in ("strategy", "symbol", "side", "close_reason")] == [cut] * 4
    assert [evidence["breaches"][0]["strategy"], evidence["market"][0]["symbol"], *evidence["links"]] == [cut] * 3
    assert prompt.system == plain.system
    assert prompt.user.isascii()
    assert len(prompt.user.split("\n")) == len(plain.user.split("\n")) == len(prompt.user.splitlines())
    # with the name taken back, the document is what it was without it
    assert prompt.user.replace(json.dumps(cut), json.dumps("rsi")) == plain.user


@given(st.text(st.characters(codec="utf-8")))
def test_any_name_stays_a_name_in_the_prompt(text):
    evidence = told(named(text))
    cut = text[:LONGEST_NAME]
    assert {*evidence["trades"][0].values()} == {cut, 3, 1, 0.1}
    changed = {path.replace(f".links.{cut}", ".links.rsi") for path in shape(evidence)}
    assert changed == set(shape(told(named("rsi"))))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AuditStore]:
    with open_store(f"sqlite:///{tmp_path_factory.mktemp('injections')}/audit.db") as store:
        record_all(store)
        yield store


@pytest.mark.parametrize("text", INJECTIONS, ids=short)
def test_a_reply_that_obeys_a_name_does_not_pass_the_rules(store, text):
    body = documents()["closed_trades"][DAY]
    record(store, "closed_trades", {DAY: body})
    plain = gathered(store, forced=True)
    name = {"strategy": text, "symbol": text, "close_reason": text}
    record(store, "closed_trades", {DAY: {**body, "trades": [{**trade, **name} for trade in body["trades"]]}})
    evidence = gathered(store, forced=True)
    assert text in {group.strategy for group in evidence.trades}
    apart = {"trades", "digests"}
    assert evidence.model_dump(exclude=apart) == plain.model_dump(exclude=apart)
    assert judge(evidence) == judge(plain)
    for changes, why in (
        ({"attempts": attempted(71.9)}, "72 h must lie between"),
        ({"attempts": attempted(80.0, 2)}, "at most 2 are allowed"),
        ({"missing": ("the market",)}, "the market is missing"),
    ):
        gpt = Scripted(OBEYS)
        document = assess(evidence.model_copy(update=changes), gpt.consult)
        assert len(gpt.asked) == 1
        assert (document["outcome"], document["decision"]["action"]) == ("asked", "wait")
        assert why in document["decision"]["why"]
        assert document["limits"] == assess(plain, gpt.consult)["limits"]
        assert document["decision"] == decide(plain.model_copy(update=changes), OBEYS).document
    past = assess(evidence.model_copy(update={"present": False}), gpt.consult)
    assert past["outcome"] == "skipped"
