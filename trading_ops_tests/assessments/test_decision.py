"""Does GPT-4 start, hold back and delay only what the rules let it? The whole truth table, and each of its columns."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.assessments.decision import Decision, decide
from trading_ops.assessments.evidence import Adviser, Evidence
from trading_ops.assessments.rules import Limits, judge, skipped, targets
from trading_ops.assessments.schema import Assessment
from trading_ops_tests.assessments.examples import attempted, breach_of, day_of, evidence_of, model_of, opinion

NO_KEY = Assessment.none("no OPENAI_API_KEY")

# what GPT-4 says, and for it the decision in each of the eight cases (allowed, a model is too old, due):
# retrain R, wait -, optimise O. The cases, from left to right: nothing; due; old; old and due; then the same allowed.
TABLE = {
    "sure of retrain": (opinion(), "---- RRRR"),
    "sure of retrain, high urgency": (opinion(urgency="high"), "---- RRRR"),
    "sure of retrain, low urgency": (opinion(urgency="low"), "---- -RRR"),
    "retrain at 0.70 exactly": (opinion(confidence=0.70), "---- -RRR"),
    "retrain at 0.49": (opinion(confidence=0.49), "---- -RRR"),
    "sure of wait": (opinion("wait", 0.90), "---- --RR"),
    "sure of wait, low urgency": (opinion("wait", 0.90, "low"), "---- --RR"),
    "wait at 0.70 exactly": (opinion("wait", 0.70), "---- -RRR"),
    "sure of optimise": (opinion("optimize_parameters", 0.75), "OOOO OORR"),
    "optimise at 0.70 exactly": (opinion("optimize_parameters", 0.70), "---- -RRR"),
    "no opinion": (NO_KEY, "---- -RRR"),
}
# the same where GPT-4's word does not count: as if it had said nothing
ADVISORY = {name: (said, "---- -RRR") for name, (said, _) in TABLE.items()}
# and where it has held back for seven days already: it still starts, and holds back no more
EXPIRED = {name: (said, row.replace("--RR", "-RRR").replace("OORR", "ORRR")) for name, (said, row) in TABLE.items()}
STATES = {
    "": (TABLE, {}),
    "advisory": (ADVISORY, {"adviser": Adviser(standing="advisory", why="badly calibrated")}),
    "veto expired": (EXPIRED, {"vetoed_since": "2025-03-02"}),
}
ROWS = [
    pytest.param(said, row, state, id=f"{name}{', ' * bool(kind)}{kind}")
    for kind, (table, state) in STATES.items()
    for name, (said, row) in table.items()
]


def case(*, allowed: bool, old: bool, due: bool, **state: Any) -> Evidence:
    models = (model_of(age_days=30.1 if old else 30.0, new_bars=720, drop_7d_pp=5.1 if due else 5.0),)
    return evidence_of(models=models, attempts=attempted(None if allowed else 71.9), **state)


@pytest.mark.parametrize(("said", "row", "state"), ROWS)
def test_the_truth_table(said, row, state):
    """B073, B076, B077, B071."""
    cases = itertools.product((False, True), repeat=3)
    found = "".join(
        {"retrain": "R", "wait": "-", "optimize_parameters": "O"}[
            decide(case(allowed=allowed, old=old, due=due, **state), said).action
        ]
        for allowed, old, due in cases
    )
    assert found == row.replace(" ", "")


DUE = {
    "three losing days": {"days": tuple(day_of(back, wins=5) for back in (2, 1, 0))},
    "three losing days with idle ones between": {
        "days": tuple(
            day_of(back, trades=trades, wins=trades // 2) for back, trades in ((6, 4), (4, 0), (3, 2), (0, 10))
        )
    },
    "an accuracy drop of 5.1 points": {"models": (model_of(drop_7d_pp=5.1),)},
    "a confirmed critical metric": {"breaches": (breach_of(),)},
    "drift": {"models": (model_of(drift=True),)},
}
NOT_DUE = {
    "a quiet week": {},
    "two losing days": {"days": (day_of(2, wins=6), day_of(1, wins=5), day_of(0, wins=5))},
    "55 % exactly": {"days": tuple(day_of(back, trades=20, wins=11) for back in (2, 1, 0))},
    "two days with trades": {"days": (day_of(2, trades=0, wins=0), day_of(1, wins=0), day_of(0, wins=0))},
    "a drop of 5 points exactly": {"models": (model_of(drop_7d_pp=5.0),)},
    "a drop of 88 to 80 of 160": {"models": (model_of(drop_7d_pp=100 * (88 / 160 - 80 / 160)),)},
    "an unknown drop": {"models": (model_of(drop_7d_pp=None),)},
    "a critical metric that may be chance": {"breaches": (breach_of(confirmed=False),)},
    "unknown drift": {"models": (model_of(drift=None),)},
}
BLOCKED = {
    "71.9 hours": ({"attempts": attempted(71.9)}, "71.9 h ago"),
    "two in seven days": ({"attempts": attempted(100, 2)}, "2 retrains in the last 7 days"),
    "167 new bars": ({"models": (model_of(new_bars=167),)}, "167 new bars"),
    "a missing input": (
        {"missing": ("performance_metrics of 2025-03-09",)},
        "performance_metrics of 2025-03-09 is missing",
    ),
    "nothing to train with": ({"models": (), "links": {}, "trainable": False}, "not installed"),
}
ALLOWED = {
    "72 hours exactly": {"attempts": attempted(72.0)},
    "one in seven days": {"attempts": attempted(100, 1)},
    "168 new bars exactly": {"models": (model_of(new_bars=168),)},
    "no model yet, but one is named": {"models": (), "trainable": False},
    "no model yet": {"models": (), "links": {}},
    "a linked model without new bars beside another": {
        "models": (model_of(new_bars=72), model_of("gru/ETHUSDT", age_days=45.0, new_bars=1080))
    },
}  # fmt: skip


@pytest.mark.parametrize("changes", DUE.values(), ids=DUE)
def test_a_retrain_is_due_after(changes):
    decision = decide(evidence_of(**changes), NO_KEY)
    assert (decision.due, decision.action, decision.rule) == (True, "retrain", "due")
    assert decision.models == ("lstm/BTCUSDT",)


@pytest.mark.parametrize("changes", NOT_DUE.values(), ids=NOT_DUE)
def test_no_retrain_is_due_after(changes):
    decision = decide(evidence_of(**changes), NO_KEY)
    assert (decision.due, decision.action, decision.rule) == (False, "wait", "nothing")


@pytest.mark.parametrize(("changes", "why"), BLOCKED.values(), ids=BLOCKED)
def test_no_retrain_is_allowed_with(changes, why):
    decision = decide(evidence_of(**changes), opinion())
    assert not decision.allowed
    assert why in decision.why
    assert decision.action == "wait"


@pytest.mark.parametrize("changes", ALLOWED.values(), ids=ALLOWED)
def test_a_retrain_is_allowed_with(changes):
    decision = decide(evidence_of(**changes), opinion())
    by = "rules" if any(model.age_days > 30 for model in evidence_of(**changes).models) else "gpt"
    assert (decision.allowed, decision.action, decision.decided_by) == (True, "retrain", by)


def test_without_a_model_an_lstm_of_each_symbol_is_trained():
    assert decide(evidence_of(models=(), links={}), opinion()).models == ("lstm/BTCUSDT",)


def test_a_veto_holds_for_six_days_after_its_first_and_no_longer():
    due = {"models": (model_of(drift=True),)}
    held = decide(evidence_of(**due, vetoed_since="2025-03-03"), opinion("wait", 0.9))
    over = decide(evidence_of(**due, vetoed_since="2025-03-02"), opinion("wait", 0.9))
    assert (held.action, held.gpt_vetoes, held.rule, held.decided_by) == ("wait", True, "veto", "gpt")
    assert (over.action, over.gpt_vetoes, over.veto_expired, over.decided_by) == ("retrain", False, True, "rules")


@pytest.mark.parametrize(
    ("evidence", "said", "decided_by", "agreed"),
    [
        (evidence_of(), opinion(), "gpt", False),
        (evidence_of(models=(model_of(drift=True),)), opinion(), "rules", True),
        (evidence_of(models=(model_of(drift=True),)), opinion("wait", 0.9), "gpt", False),
        (evidence_of(models=(model_of(drift=True),)), opinion("wait", 0.5), "rules", False),
        (evidence_of(), opinion("wait", 0.9), "rules", True),
        (evidence_of(), NO_KEY, "rules (no OPENAI_API_KEY)", None),
        (evidence_of(adviser=Adviser(standing="advisory", why="x")), opinion(), "rules (GPT-4 is advisory)", False),
        (evidence_of(attempts=attempted(1)), opinion(), "rules", False),
    ],
)
def test_it_is_said_who_decided_and_whether_both_agreed(evidence, said, decided_by, agreed):
    decision = decide(evidence, said)
    assert (decision.decided_by, decision.agreed) == (decided_by, agreed)


def test_only_the_models_in_question_are_trained_anew():
    models = (model_of(), model_of("gru/ETHUSDT", drift=True), model_of("lstm/SOLUSDT", drift=True, new_bars=100))
    assert decide(evidence_of(models=models), NO_KEY).models == ("gru/ETHUSDT",)


def test_a_model_without_new_bars_is_not_trained_anew_whatever_drifts():
    models = (model_of(), model_of("lstm/SOLUSDT", drift=True, new_bars=100))
    decision = decide(evidence_of(models=models), NO_KEY)
    assert (decision.action, decision.rule, decision.models) == ("wait", "blocked", ())
    assert "168 new bars" in decision.why


def test_what_is_due_for_models_without_new_bars_alone_keeps_no_other_from_what_gpt4_says():
    models = (model_of(), model_of("lstm/SOLUSDT", drift=True, new_bars=100))
    evidence = evidence_of(models=models, links={})
    decision = decide(evidence, opinion())
    assert (decision.action, decision.rule, decision.models) == ("retrain", "gpt", ("lstm/BTCUSDT",))
    assert (decision.rules_alone, decision.decided_by, decision.due) == ("wait", "gpt", True)
    alone = decide(evidence, NO_KEY)
    assert (alone.action, alone.rules_alone) == ("wait", "wait")


def test_a_failing_strategy_is_about_the_models_it_uses():
    models = (model_of(), model_of("gru/ETHUSDT"))
    links = {"rsi": ("gru/ETHUSDT",), "macd": ("lstm/BTCUSDT",)}
    decision = decide(evidence_of(models=models, links=links, breaches=(breach_of(),)), NO_KEY)
    assert (decision.models, decision.notes) == (("gru/ETHUSDT",), ())


def test_where_no_model_is_linked_the_decision_says_that_it_may_not_help():
    decision = decide(evidence_of(links={}, breaches=(breach_of(),)), NO_KEY)
    assert decision.action == "retrain"
    assert "may not help" in decision.notes[0]
    unlinked = decide(evidence_of(breaches=(breach_of(strategy="macd"),)), NO_KEY)
    assert unlinked.notes == ("macd names no model it uses (TRADING_OPS_STRATEGY_MODELS): retraining may not help it",)


SKIPPED = {
    "the day was not measured": (
        {"window_trades": None, "window_win_rate_pct": None, "window_sharpe_ratio": None},
        "the metrics of 2025-03-09 are missing",
    ),
    "B087 performance acceptable": ({}, "performance acceptable: win rate 70.0 %, Sharpe 2.20"),
    "B087 exactly at both limits": (
        {"window_win_rate_pct": 55.0, "window_sharpe_ratio": 1.0},
        "performance acceptable: win rate 55.0 %, Sharpe 1.00",
    ),
    "B087 an unknown Sharpe is not bad": ({"window_sharpe_ratio": None}, "performance acceptable: win rate 70.0 %"),
    "B088 nine trades": ({"window_trades": 9, "window_win_rate_pct": 1.0}, "not enough data: 9 closed trades in 7"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "why"), SKIPPED.values(), ids=SKIPPED)
def test_gpt4_is_not_asked(changes, why):
    assert why in str(skipped(evidence_of(days=(day_of(**changes),))))
    assert skipped(evidence_of(days=(day_of(**changes),), forced=True)) is None


@pytest.mark.parametrize("changes", [{"window_win_rate_pct": 54.9}, {"window_sharpe_ratio": 0.99}])
def test_gpt4_is_asked_where_performance_is_poor(changes):
    assert skipped(evidence_of(days=(day_of(**changes),))) is None


def test_gpt4_is_never_asked_about_a_past_day():
    assert "past day" in str(skipped(evidence_of(days=(day_of(window_win_rate_pct=1.0),), present=False, forced=True)))


opinions = st.one_of(
    st.just(NO_KEY),
    st.builds(
        opinion,
        st.sampled_from(["retrain", "wait", "optimize_parameters"]),
        st.floats(0, 1),
        st.sampled_from(["low", "medium", "high"]),
    ),
)
situations = st.builds(
    evidence_of,
    models=st.lists(
        st.builds(
            model_of,
            st.sampled_from(["lstm/BTCUSDT", "gru/ETHUSDT"]),
            age_days=st.floats(0, 60),
            new_bars=st.integers(0, 800),
            drop_7d_pp=st.one_of(st.none(), st.floats(-20, 20)),
            drift=st.sampled_from([None, False, True]),
        ),
        max_size=2,
        unique_by=lambda model: model.name,
    ).map(tuple),
    attempts=st.builds(attempted, st.one_of(st.none(), st.floats(0, 300)), st.integers(1, 3)),
    breaches=st.sampled_from([(), (breach_of(),), (breach_of(confirmed=False),)]),
    missing=st.sampled_from([(), ("the market of BTCUSDT",)]),
    vetoed_since=st.sampled_from([None, "2025-03-08", "2025-03-01"]),
    links=st.sampled_from([{}, {"rsi": ("lstm/BTCUSDT",)}]),
)


@given(situations, opinions)
def test_no_opinion_moves_what_the_rules_do_not_leave_to_it(evidence: Evidence, said: Assessment):
    ruling, decision = judge(evidence), decide(evidence, said)
    if not ruling.allowed:
        assert decision.action != "retrain"
    if decision.action == "retrain":
        assert decision.models
        assert ruling.aged or ruling.due or decision.gpt_says_retrain
    causes = (*ruling.aged, *(() if decision.gpt_vetoes else ruling.due))
    if decision.allowed and targets(evidence, causes, Limits()):
        assert decision.action == "retrain"


@given(situations, opinions)
def test_a_decision_is_the_same_after_a_round_trip_through_json(evidence: Evidence, said: Assessment):
    again = Evidence.model_validate(json.loads(json.dumps(evidence.model_dump(mode="json"))))
    heard = Assessment.model_validate(json.loads(json.dumps(said.model_dump(mode="json"))))
    decision: Decision = decide(again, heard, Limits())
    assert decision == decide(evidence, said)
    assert again.digest == evidence.digest


def test_beside_a_model_that_is_too_old_a_veto_holds_back_what_is_merely_due():
    old = model_of("lstm/BTCUSDT", age_days=31.0, new_bars=744)
    fell = model_of("gru/ETHUSDT", drop_7d_pp=9.0)
    evidence = evidence_of(models=(old, fell), links={"rsi": (old.name, fell.name)})
    assert decide(evidence, opinion("wait", 0.9)).models == (old.name,)
    assert decide(evidence, opinion("wait", 0.7)).models == (fell.name, old.name)
