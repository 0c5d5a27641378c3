"""Does GPT-4's word count only as long as what it is sure of comes true?"""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.assessments.calibration import (
    LEAST,
    Bin,
    Calibration,
    Scored,
    calibrate,
    read_calibration,
    retrain_came_true,
    wait_came_true,
)
from trading_ops.assessments.evidence import Adviser
from trading_ops.assessments.schema import Assessment
from trading_ops.assessments.standing import adviser_on, last_standing, record_standing
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry
from trading_ops_tests.assessments.examples import opinion


def opinions(*said: tuple[float, bool]) -> list[Scored]:
    return [Scored(day(number), "wait", confidence, true) for number, (confidence, true) in enumerate(said)]


def day(number: int) -> str:
    """0 is 1 January."""
    return str(date(2025, 1, 1) + timedelta(days=number))


def test_the_brier_score_and_those_of_saying_the_same_every_day():
    """Losses 0.04, 0.64, 0.36, 0.01; half came true."""
    found = calibrate(opinions((0.8, True), (0.8, False), (0.4, True), (0.1, False)))
    assert found.brier == pytest.approx((0.04 + 0.64 + 0.36 + 0.01) / 4)
    assert (found.base_rate, found.brier_base) == (0.5, 0.25)
    assert found.excess == pytest.approx(0.2625 - 0.25)


def test_the_bins_hold_what_was_said_and_what_came_true():
    found = calibrate(opinions((0.75, True), (0.70, False), (0.95, True), (1.0, True), (0.0, False)))
    low, middle, high = found.bins
    assert (low.low, low.high, low.n, low.mean_confidence, low.share_true) == (0.0, 0.1, 1, 0.0, 0.0)
    assert (middle.low, middle.n, middle.mean_confidence, middle.share_true) == (0.7, 2, pytest.approx(0.725), 0.5)
    assert (high.low, high.high, high.n, high.share_true) == (0.9, 1.0, 2, 1.0)
    assert middle.interval == pytest.approx((0.0945, 0.9055), abs=1e-4)  # Wilson, 1 of 2


STANDINGS = {
    "nothing": ([], "deciding", "0 of 20 opinions scored"),
    "19 that are all wrong": ([(0.9, False)] * 19, "deciding", "19 of 20 opinions scored"),
    "20 that are all wrong": ([(0.9, False)] * 20, "advisory", "Brier score 0.810"),
    "20 that are all right": ([(0.9, True)] * 20, "deciding", "not shown to be worse"),
    # 0.2 * 0.8 is what it scores, and what always saying 0.8 scores
    "80 % of those at 0.8": ([(0.8, True)] * 16 + [(0.8, False)] * 4, "deciding", "has 0.160"),
    # 0.2525 is above 0.25, and so near it that it may be chance
    "half of those at 0.55": ([(0.55, True), (0.55, False)] * 20, "deciding", "Brier score 0.253"),
    "half of those at 0.9": ([(0.9, True), (0.9, False)] * 20, "advisory", "Brier score 0.410"),
    # always saying 0.95 would be better by far, but saying 0.5 worse
    "19 of 20 at 0.6": ([(0.6, True)] * 38 + [(0.6, False)] * 2, "deciding", "Brier score 0.170"),
}


@pytest.mark.parametrize(("said", "standing", "why"), STANDINGS.values(), ids=STANDINGS)
def test_its_word_counts_until_it_is_shown_to_be_worse_than_no_word(said, standing, why):
    adviser = calibrate(opinions(*said)).adviser()
    assert (adviser.standing, adviser.scored) == (standing, len(said))
    assert why in adviser.why


some = st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=60)


@given(some)
def test_every_opinion_is_in_one_bin_and_the_scores_are_within_their_bounds(said):
    found = calibrate(opinions(*said))
    assert sum(one.n for one in found.bins) == len(said)
    assert sum(one.n * one.share_true for one in found.bins) == pytest.approx(sum(true for _, true in said))
    for one in found.bins:
        assert one.low <= one.mean_confidence + 1e-9
        assert one.mean_confidence <= one.high + 1e-9
        assert one.interval is not None
        assert one.interval[0] - 1e-9 <= one.share_true <= one.interval[1] + 1e-9
    if said:
        assert 0 <= found.brier <= 1
        assert found.brier_base <= 0.25
        assert found.excess == pytest.approx(found.brier - found.brier_base)
        assert found.excess_at_least <= found.excess + 0.05
    assert found == calibrate(opinions(*said))
    if found.adviser().standing == "advisory":
        assert len(said) >= LEAST
        assert found.brier > 0.25


@pytest.mark.parametrize(
    ("tries", "came_true"),
    [([], None), (["failed"], None), (["kept"], False), (["failed", "kept"], False), (["kept", "deployed"], True)],
)
def test_a_retrain_was_right_where_a_model_was_deployed(tries, came_true):
    assert retrain_came_true(tries) is came_true


def test_waiting_was_right_where_nothing_is_due_a_week_later():
    assert [wait_came_true(due) for due in (False, True, None)] == [True, False, None]


@pytest.fixture
def store(tmp_path: Path):
    with SqliteStore(tmp_path / "audit.db") as opened:
        yield opened


def decided(store: SqliteStore, number: int, said: Assessment, *, due: Any = False, source: str = "test") -> str:
    decision_id = f"{day(number)}-{'a' * 10}"
    body = {
        "day": day(number), "source": source, "decision_id": decision_id, "decision": {"due": due},
        "opinion": said.model_dump(mode="json"),
    }  # fmt: skip
    store.append("gpt4_analysis_history", [Entry(day(number), "", body)])
    return decision_id


def tried(store: SqliteStore, number: int, decision: str, outcome: str, name: str = "lstm/BTCUSDT") -> None:
    body = {"name": name, "trigger": {"decision": decision}, "outcome": outcome}
    store.append("retrain_history", [Entry(day(number), f"{decision}/{name}", body)])


NONE = Assessment.none("no OPENAI_API_KEY")


def test_an_opinion_is_scored_when_its_week_is_over(store):
    decided(store, 0, opinion("wait", 0.8))
    decided(store, 6, NONE, due=True)
    decided(store, 7, NONE, due=False)
    assert read_calibration(store, "test", day(6)) == Calibration(pending=1)
    assert read_calibration(store, "test", day(7)).scored == (Scored(day(0), "wait", 0.8, True),)


WEEKS = {
    "nothing is due": ("wait", {"due": False}, [], True),
    "a retrain is due": ("optimize_parameters", {"due": True}, [], False),
    "nothing is recorded": ("wait", None, [], None),
    "what is recorded is damaged": ("wait", {"due": "no"}, [], None),
    "another bot's day": ("wait", {"due": False, "source": "another"}, [], None),
    "no retrain": ("retrain", {}, [], None),
    "a retrain of this decision": ("retrain", {}, [(1, 0, "deployed")], True),
    "one whose candles ended before": ("retrain", {}, [(-2, 0, "deployed")], True),
    "one that was kept": ("retrain", {}, [(1, 0, "kept")], False),
    "one that failed": ("retrain", {}, [(1, 0, "failed")], None),
    "one of a week later": ("retrain", {}, [(7, None, "deployed")], True),
    "one after the week": ("retrain", {}, [(8, None, "deployed")], None),
    "one before": ("retrain", {}, [(0, None, "deployed")], None),
    "kept at first, deployed then": ("retrain", {}, [(1, 0, "kept"), (5, None, "deployed")], True),
}


@pytest.mark.parametrize(("said", "later", "retrains", "came_true"), WEEKS.values(), ids=WEEKS)
def test_an_opinion_came_true_or_not_or_nobody_can_tell(store, said, later, retrains, came_true):
    decision = decided(store, 0, opinion(said, 0.9))
    if later is not None:
        decided(store, 7, NONE, **later)
    for number, own, outcome in retrains:
        tried(store, number, "ana's" if own is None else decision, outcome, f"lstm/{number}")
    found = read_calibration(store, "test", day(9))
    assert [one.came_true for one in found.scored] == ([] if came_true is None else [came_true])
    assert (found.pending, found.unknown) == (0, int(came_true is None))


def test_damaged_opinions_are_of_those_that_nobody_can_tell(store):
    for number, change in enumerate(({"confidence": "high"}, {"confidence": True}, {"recommendation": 3}, None)):
        said: Any = opinion("wait", 0.9).model_dump(mode="json")
        body = {"source": "test", "opinion": {**said, **change} if change else "none", "decision": {"due": False}}
        store.append("gpt4_analysis_history", [Entry(day(number), "", body)])
        decided(store, number + 7, NONE)
    assert read_calibration(store, "test", day(30)) == Calibration(unknown=3)


def test_only_the_newest_revision_of_a_day_counts(store):
    decided(store, 0, opinion("wait", 0.9))
    decided(store, 0, opinion("wait", 0.6))
    decided(store, 7, NONE)
    assert [one.confidence for one in read_calibration(store, "test", day(7)).scored] == [0.6]


def test_the_standing_is_noted_when_it_changes_and_then_alone(store):
    worse = Adviser(standing="advisory", why="worse", scored=20, brier=0.8)
    better = Adviser(why="not shown to be worse", scored=21, brier=0.2)
    noted = [
        record_standing(store, "test", day(number), adviser)
        for number, adviser in enumerate((Adviser(), worse, worse, worse, better, better, worse, better))
    ]
    assert noted == [False, True, False, False, True, False, True, True]
    records = store.read("adviser_standings", all_revisions=True)
    assert [(r.partition, r.body["before"], r.body["standing"]) for r in records] == [
        (day(1), "deciding", "advisory"), (day(4), "advisory", "deciding"), (day(6), "deciding", "advisory"),
        (day(7), "advisory", "deciding"),
    ]  # fmt: skip
    assert not record_standing(store, "another", day(9), Adviser())


def test_a_standing_that_changes_twice_on_a_day_ends_as_the_last_says(store):
    worse = Adviser(standing="advisory", why="worse")
    assert [record_standing(store, "test", day(0), one) for one in (worse, Adviser(), worse, worse)] == [
        True, True, True, False,
    ]  # fmt: skip
    last = last_standing(store, "test")
    assert last is not None
    assert last.body["standing"] == "advisory"


def test_an_adviser_that_is_sure_and_wrong_for_weeks_is_demoted_and_comes_back_when_it_is_right(store):
    for number in range(200):
        wrong = number < 40
        decided(store, number, opinion("wait", 0.9), due=wrong)
    standings = {number: adviser_on(store, "test", day(number)).standing for number in range(0, 200, 3)}
    assert standings[24] == "deciding"  # of the 24 opinions up to the day before, 17 are a week old
    assert standings[30] == "advisory"
    assert standings[198] == "deciding"
    changes = store.read("adviser_standings")
    assert [record.body["standing"] for record in changes] == ["advisory", "deciding"]
    assert changes[0].partition == day(27)


def test_what_is_recorded_on_the_day_itself_or_later_moves_nothing(store):
    for number in range(40):
        decided(store, number, opinion("wait", 0.9), due=True)
    before = adviser_on(store, "test", day(30))
    for number in range(30, 60):
        decided(store, number, opinion("wait", 0.1), due=False)
    assert adviser_on(store, "test", day(30)) == before


def test_a_bin_without_opinions_is_left_out():
    (only,) = calibrate(opinions((0.65, True))).bins
    assert isinstance(only, Bin)
    assert (only.low, only.high) == (0.6, 0.7)
