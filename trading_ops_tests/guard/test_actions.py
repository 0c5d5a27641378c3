"""Does an action only ever move on, whoever writes it and in whatever order it is put together?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.guard.actions import (
    CONFIRMED,
    ESCALATED,
    ORDER,
    REQUESTED,
    SENT,
    Action,
    action_id,
    idempotency_key,
    join,
    latencies,
    overdue,
    reached,
    request,
    resumed,
    watching,
)

NOON = datetime(2025, 3, 10, 12, tzinfo=UTC)


def stop(**changes: Any) -> Action:
    return {**request(watching("bot", "rsi"), NOON, rule="daily_loss", why="rsi lost 11 %"), **changes}


@st.composite
def actions(draw: st.DrawFn) -> Action:
    """Any state of one of a few stops of a strategy, as any process may have left it."""
    state = draw(st.sampled_from(ORDER[1:]))
    at = {state: (NOON + timedelta(seconds=draw(st.integers(0, 5)))).isoformat()}
    told = draw(st.sets(st.sampled_from(["stopping", "confirmed", "escalated"])))
    return stop(
        episode=draw(st.integers(1, 2)),
        turn=draw(st.integers(1, 2)),
        state=state,
        at={REQUESTED: NOON.isoformat(), **at},
        told=sorted(told),
        attempt=draw(st.integers(0, 2)),
    )


@given(actions(), actions())
def test_two_documents_are_joined_to_the_same_whichever_comes_first(one: Action, other: Action):
    joined, again = join(one, other), join(other, one)
    assert joined is not None
    assert {**joined, "told": set(joined["told"])} == {**(again or {}), "told": set((again or {})["told"])}


@given(actions(), actions(), actions())
def test_a_join_moves_on_and_a_second_one_changes_nothing(one: Action, other: Action, third: Action):
    def progress(action: Action | None) -> tuple[Any, ...]:
        assert action is not None
        return action["episode"], action["turn"], ORDER.index(action["state"])

    joined = join(one, other)
    assert progress(joined) >= max(progress(one), progress(other))
    assert join(joined, other) == joined
    assert progress(join(joined, third)) == progress(join(one, join(other, third)))


def test_the_earliest_time_of_a_phase_and_all_that_was_told_are_kept():
    early = reached(stop(told=["stopping"]), SENT, NOON + timedelta(seconds=1))
    late = reached(reached(stop(told=["escalated"]), SENT, NOON + timedelta(seconds=2)), CONFIRMED, NOON)
    joined = join(late, early)
    assert joined is not None
    assert (joined["state"], joined["told"]) == (CONFIRMED, ["escalated", "stopping"])
    assert joined["at"][SENT] == (NOON + timedelta(seconds=1)).isoformat()


def test_the_key_is_that_of_the_stop_until_the_bot_answered_and_did_nothing():
    first, again = stop(), stop(attempt=1)
    assert idempotency_key(first) == idempotency_key(reached(first, SENT, NOON))
    assert idempotency_key(first) != idempotency_key(again)
    assert action_id(first) == action_id(again)
    assert action_id(first) != action_id(stop(source="another bot"))


def test_a_resume_begins_an_episode_that_counts_from_then_on():
    facts = {"by": "ana", "reason": "fixed", "at": NOON.isoformat(), "equity_usdt": 8.0, "unrealised_usdt": 0.0}
    action = resumed(stop(resume={**facts, "numbers": {}}), NOON)
    assert (action["episode"], action["turn"], action["since"]) == (2, 0, NOON.isoformat())
    again = request(action, NOON, rule="daily_loss", why="rsi lost 12 %")
    assert (again["since"], again["since_equity_usdt"]) == (NOON.isoformat(), 8.0)
    assert action_id(again) != action_id(stop())


@pytest.mark.parametrize(("seconds", "late"), [(29.9, False), (30.0, True)])
def test_a_stop_is_overdue_after_half_a_minute(seconds: float, late: bool):
    assert overdue(stop(), NOON + timedelta(seconds=seconds)) is late


def test_latencies_count_from_the_newest_trade_and_from_the_request():
    trades = [{"closed_at": (NOON - timedelta(seconds=s)).isoformat()} for s in (9, 2)]
    action = reached(stop(trades=trades), ESCALATED, NOON + timedelta(seconds=30))
    assert latencies(action) == {
        "trade_to_request_s": 2.0,
        "request_to_sent_s": None,
        "request_to_confirmed_s": None,
        "request_to_escalated_s": 30.0,
    }
