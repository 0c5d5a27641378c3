"""Does every recorded decision come out the same again, and is each change to one of them found?"""

import copy
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.assessments.assessing import decision_id
from trading_ops.assessments.decision import decide
from trading_ops.assessments.evidence import Evidence
from trading_ops.assessments.replay import Replay, replay
from trading_ops.assessments.schema import Assessment
from trading_ops_tests.assessments.examples import DAY, day_of, evidence_of
from trading_ops_tests.assessments.recorded import answering, recorded, reply, some_document

POOR = evidence_of(days=(day_of(window_win_rate_pct=30.0),))
Change = Callable[[dict[str, Any]], Any]


def asked(*replies: str | None) -> dict[str, Any]:
    return recorded(POOR, answering(*replies))


def changed(document: dict[str, Any], change: Change) -> Replay:
    document = copy.deepcopy(document)
    change(document)
    return replay(document)


def test_recorded_decisions_come_out_identical():
    chance = Random(1)
    documents = [some_document(chance, number) for number in range(300)]
    assert {replay(document).difference for document in documents} == {""}
    assert {document["outcome"] for document in documents} == {"asked", "skipped", "unavailable"}
    assert {document["decision"]["rule"] for document in documents} == {
        "blocked", "model_age", "gpt", "due", "veto", "nothing"
    }  # fmt: skip


def test_what_came_of_it_is_told_with_the_day_and_the_id():
    document = recorded(evidence_of(), answering())
    assert replay(document) == Replay(DAY, document["decision_id"], identical=True)


def put(*path: str | int, value: Any) -> Change:
    """Writes a value at a place."""

    def change(document: Any) -> None:
        for part in path[:-1]:
            document = document[part]
        document[path[-1]] = value

    return change


TAMPERED = {
    "a figure of the evidence": (put("evidence", "days", 0, "wins", value=9), "evidence_digest: recorded '"),
    "a figure and the digest": (
        lambda d: d.update(
            evidence=(other := {**d["evidence"], "missing": ["x"]}),
            evidence_digest=Evidence.model_validate(other).digest,
        ),
        "decision.rule: recorded 'nothing', recomputed 'blocked'",
    ),
    "another day": (put("day", value="2025-03-08"), "day: recorded '2025-03-08', recomputed '2025-03-09'"),
    "other candles": (put("candles", value="recorded"), "candles: recorded 'recorded', recomputed 'simulated'"),
    "evidence of another version": (
        put("evidence", "version", value=2), "evidence.version: recorded 2, this release reads version 1"
    ),
    "evidence that is none": (put("evidence", "days", 0, "trades", value=-1), "evidence.days.0.trades: recorded -1"),
    "a number as a text": (put("evidence", "sharpe_ratio_90d", value="1.5"), "evidence_digest: recorded"),
    "what was asked": (put("prompt", "user", value="{}"), "prompt.sha256 of its texts: recorded"),
    "the instructions": (put("prompt", "system", value="Say retrain."), "prompt.sha256 of its texts: recorded"),
    "the prompt's digest": (put("prompt", "sha256", value="0" * 64), "prompt.sha256 of the evidence: recorded '000"),
    "no prompt": (put("prompt", value=None), "prompt: none recorded, but GPT-4 is asked about this day"),
    "the opinion": (
        put("opinion", "confidence", value=0.5), "opinion.confidence: recorded 0.5, recomputed 0.0"
    ),
    "an opinion that nobody gave": (
        put("opinion", "unavailable", value=None), "opinion: recorded one, but no attempt with a valid reply"
    ),
    "an opinion that is none": (put("opinion", "confidence", value=85), "opinion.confidence: recorded 85: "),
    "the outcome": (put("outcome", value="asked"), "outcome: recorded 'asked', recomputed 'unavailable'"),
    "the action": (put("decision", "action", value="retrain"), "decision.action: recorded 'retrain', recomputed 'wait"),
    "why": (put("decision", "why", value="I want it"), "decision.why: recorded 'I want it', recomputed 'nothing is"),
    "a flag as a number": (put("decision", "due", value=0), "decision.due: recorded 0, recomputed False"),
    "one more field": (put("decision", "by_whom", value="me"), "decision.by_whom: recorded 'me', this release has no"),
    "the id": (put("decision_id", value="2025-03-09-0000000000"), "decision_id: recorded '2025-03-09-0000000000'"),
    "the cost": (put("cost_usd", value=3.5), "cost_usd: recorded 3.5, recomputed 0"),
    "the tokens": (put("tokens", value={"input": 1}), "tokens: recorded {'input': 1}, recomputed {}"),
    "a limit": (put("limits", "min_trades", value=90), "prompt: recorded, but GPT-4 is not asked about this day (not"),
    "an unknown limit": (put("limits", "luck", value=1), "limits.luck: this release has no such limit"),
    "a limit that is none": (put("limits", "confidence", value="high"), "limits.confidence: recorded 'high'"),
    "a day that is none": (put("evidence", "day", value="yesterday"), "evidence_digest: recorded"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), TAMPERED.values(), ids=TAMPERED)
def test_a_change_is_found_and_named(change, said):
    document = recorded(POOR, answering())
    assert replay(document).identical
    found = changed(document, change)
    assert not found.identical
    assert found.difference.startswith(said)


@pytest.mark.parametrize("name", sorted(set(recorded(POOR, answering())) - {"source"}))
def test_a_missing_field_is_named(name):
    found = changed(recorded(POOR, answering()), lambda document: document.pop(name))
    assert (found.identical, found.difference) == (False, f"{name}: missing")


def test_a_prompt_of_another_release_is_noted_and_no_difference():
    found = changed(recorded(POOR, answering()), put("prompt", "version", value="99"))
    assert found.identical
    assert found.notes == ("prompt version 99 is not in this release",)


def test_attempts_where_nobody_was_to_be_asked_are_a_difference():
    found = changed(recorded(evidence_of(), answering()), put("attempts", value=[{"outcome": "ok", "raw": reply()}]))
    assert found.difference.startswith("attempts: recorded, but GPT-4 is not asked about this day (performance")


def test_an_impossible_value_that_all_else_agrees_with_is_told_and_raises_nothing():
    breach = {"strategy": "rsi", "metric": "luck", "value": 1.0, "limit": 2.0, "interval": None, "confirmed": True}
    document = recorded(POOR, answering())
    document["evidence"]["breaches"] = [breach]
    document["evidence_digest"] = Evidence.model_validate(document["evidence"]).digest
    document["prompt"] = None
    document["evidence"]["present"] = False
    document["evidence_digest"] = Evidence.model_validate(document["evidence"]).digest
    document["opinion"] = Assessment.none(
        "not asked: a past day: GPT-4 is asked about the present one alone"
    ).model_dump(mode="json")
    document["outcome"] = "skipped"
    assert replay(document).difference == "cannot be recomputed: KeyError: 'luck'"


def test_the_opinion_is_read_again_from_the_last_valid_reply():
    document = asked(None, "no idea", f"```json\n{reply('retrain', 0.9)}\n```")
    assert replay(document).identical
    said = changed(document, put("attempts", 2, "raw", value=reply("retrain", 0.8)))
    assert said.difference == "opinion.confidence: recorded 0.9, recomputed 0.8"
    said = changed(document, put("attempts", 2, "raw", value="no JSON"))
    assert said.difference.startswith("opinion: the raw reply is none that is valid")
    said = changed(document, put("attempts", 2, "raw", value=None))
    assert said.difference == "attempts: the raw reply is None, a text would be right"
    said = changed(document, put("attempts", 0, "cost_usd", value=1.0))
    assert said.difference == "cost_usd: recorded 0.03, recomputed 1.02"
    said = changed(document, put("attempts", value=[]))
    assert said.difference == "opinion: recorded one, but no attempt with a valid reply"


def test_whoever_changes_the_opinion_must_change_all_that_follows_from_it():
    document = asked(reply("retrain", 0.9))
    assert document["decision"]["action"] == "retrain"
    milder = Assessment.model_validate({**document["opinion"], "confidence": 0.5})
    decision = decide(POOR, milder)

    def change(recorded: dict[str, Any]) -> None:
        recorded["opinion"] = milder.model_dump(mode="json")
        recorded["decision"] = decision.document
        recorded["decision_id"] = decision_id(POOR, milder, decision)

    assert changed(document, change).difference == "opinion.confidence: recorded 0.5, recomputed 0.9"


weather = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.just(1.7976931348623157e308),
        st.text(max_size=5), st.just("\ud800"),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=5), inner, max_size=2)),
    max_leaves=4,
)  # fmt: skip


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for name, part in parts for place in ((*path, name), *places(part, (*path, name)))]


WHOLE = recorded(POOR, answering())
PLACES = places(WHOLE)


@given(st.sampled_from(PLACES), weather)
def test_a_damaged_document_is_a_difference_and_never_an_error(place, value):
    found = changed(WHOLE, put(*place, value=value))
    assert isinstance(found, Replay)
    assert found.identical == (not found.difference)
    assert len(found.difference) < 400


@given(st.dictionaries(st.sampled_from(sorted(WHOLE)), weather))
def test_any_document_at_all_is_replayed(document):
    assert not replay(document).identical
    assert replace(replay(document), difference="").difference == ""
