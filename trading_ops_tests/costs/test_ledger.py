"""Is every call in the ledger before it is sent, and does no call start that could cost too much?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from math import inf, nan
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from trading_ops.audit.spool import SpooledStore
from trading_ops.audit.store import AuditStore, Entry, InvalidRecord, StoreError, StoreUnavailable, open_store
from trading_ops.costs.budget import Limits
from trading_ops.costs.ledger import KEY, STATE, CallRefused, Ledger
from trading_ops.costs.overrides import allow
from trading_ops.costs.usage import COLLECTION, LlmCall
from trading_ops_tests.audit.unreliable import DOWN, READ_ONLY, UP, UnreliableStore
from trading_ops_tests.costs.worlds import NOON, SHA, World

ADDRESSES: dict[str, Callable[[pytest.FixtureRequest, Path], str]] = {
    "sqlite": lambda request, folder: f"sqlite:///{folder}/audit.db",
    "mongodb": lambda request, folder: request.getfixturevalue("mongod").address(f"ledger_{uuid4().hex}"),
}
STATISTICS = {"total_requests": 1, "total_cost_usd": 0.0, "daily_cost_usd": 0.0, "monthly_cost_usd": 0.0}


@pytest.fixture(params=sorted(ADDRESSES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AuditStore]:
    with open_store(ADDRESSES[request.param](request, tmp_path)) as store:
        yield store


@pytest.fixture
def world(store: AuditStore) -> World:
    return World(store)


@pytest.fixture
def file_world(tmp_path: Path) -> Iterator[World]:
    with open_store(f"sqlite:///{tmp_path}/audit.db") as store:
        yield World(store)


def refused(world: World, usd: float = 0.01, **asked: Any) -> CallRefused:
    with pytest.raises(CallRefused) as refusal:
        world.reserve(usd, **asked)
    return refusal.value


def test_a_call_is_in_the_ledger_at_its_bound_before_it_is_sent_and_at_its_cost_afterwards(world: World):
    call = world.reserve(0.5)
    (row,) = world.rows().values()
    assert (row["outcome"], row["cost_usd"], row["charged"], row["tokens"]) == ("reserved", 0.5, "bound", {})
    assert (row["prompt_sha256"], row["purpose"], row["reserved_at"]) == (SHA, "assessment", NOON.isoformat())
    world.clock.wait(seconds=3)
    tokens = {"input": 100_000, "cached_input": 20_000, "output": 10_000, "reasoning": 5_000}
    settled = world.ledger.settle(
        call, outcome="answered", tokens=tokens, latency_s=2.5, detail={"reply": "wait", "served": "plain-1"}
    )
    assert isinstance(settled, LlmCall)
    assert settled.cost_usd == 0.1 + 0.01 + 0.03  # reasoning is billed as output
    (row,) = world.rows().values()
    assert (row["outcome"], row["cost_usd"], row["tokens"], row["charged"]) == ("answered", 0.14, tokens, "tokens")
    assert (row["latency_s"], row["detail"]) == (2.5, {"reply": "wait", "served": "plain-1"})
    assert (row["reserved_at"], row["settled_at"]) == (NOON.isoformat(), (NOON + timedelta(seconds=3)).isoformat())
    assert row["price"]["rates"] == [{"above_input_tokens": -1, "input": "1", "cached_input": "0.5", "output": "2"}]
    assert world.revisions(call.call_id) == [(1, "reserved"), (2, "answered")]
    assert world.ledger.standing().day.spent_usd == 0.14
    world.assert_whole()


def test_a_call_may_cost_exactly_what_is_left_and_not_a_token_more(world: World):
    """B034, B036: exactly at a limit is within it."""
    world.settle(world.reserve(4.0), 4.0)
    refusal = refused(world, 1.000001)
    assert (refusal.kind, refusal.spent, refusal.limit) == ("day", 4.0, 5.0)
    call = world.reserve(1.0)
    assert refused(world, 0.000001).spent == 5.0
    world.settle(call, 0.25)
    world.reserve(0.75)
    world.assert_whole()


def test_a_refusal_says_which_limit_what_is_spent_and_when_the_stop_lifts(file_world: World):
    file_world.reserve(5.0)
    refusal = refused(file_world, 0.01)
    assert refusal.lifts_at == datetime(2025, 3, 11, tzinfo=UTC)
    for told in ("day's LLM budget", "$5.0000", "$5.00", "2025-03-11 00:00 UTC", "costs allow --day"):
        assert told in str(refusal)


def test_B037_the_day_starts_again_at_midnight_utc(world: World):
    world.reserve(5.0)
    world.clock.now = datetime(2025, 3, 10, 23, 59, 59, 999_999, tzinfo=UTC)
    assert refused(world).kind == "day"
    world.clock.now = datetime(2025, 3, 11, tzinfo=UTC)
    world.reserve(5.0)


def test_B038_the_month_stops_until_the_next_utc_calendar_month(file_world: World):
    file_world.clock.now = datetime(2025, 3, 1, tzinfo=UTC)
    for _ in range(20):
        file_world.reserve(5.0)
        file_world.clock.wait(days=1)
    refusal = refused(file_world)
    assert (refusal.kind, refusal.spent, refusal.limit) == ("month", 100.0, 100.0)
    assert refusal.lifts_at == datetime(2025, 4, 1, tzinfo=UTC)
    file_world.clock.now = datetime(2025, 3, 31, 23, 59, 59, tzinfo=UTC)
    assert refused(file_world).kind == "month"
    file_world.clock.now = datetime(2025, 4, 1, tzinfo=UTC)
    file_world.reserve(5.0)
    file_world.assert_whole()


def test_another_time_zone_is_the_same_day(file_world: World):
    file_world.reserve(5.0)
    file_world.clock.now = datetime.fromisoformat("2025-03-11T01:00:00+02:00")  # 23:00 UTC on the 10th
    assert refused(file_world).kind == "day"


def test_a_clock_without_a_time_zone_is_refused(file_world: World):
    file_world.clock.now = datetime(2025, 3, 10)  # noqa: DTZ001
    with pytest.raises(ValueError, match="time zone"):
        file_world.reserve()


def test_B089_a_sixth_call_within_an_hour_is_refused_and_the_hour_slides(world: World):
    world.calls_an_hour = 5
    for outcome in ("answered", "timeout", "malformed", "refused", "answered"):
        world.settle(world.reserve(), 0.0, outcome=outcome)  # every attempt counts, also a failed one
        world.clock.wait(minutes=10)
    refusal = refused(world)
    assert (refusal.kind, refusal.spent, refusal.limit) == ("hour", 5.0, 5.0)
    assert refusal.lifts_at == NOON + timedelta(hours=1)
    assert "2025-03-10 13:30:00 UTC" in str(refusal)
    world.clock.now = NOON + timedelta(hours=1, microseconds=-1)
    assert refused(world).kind == "hour"
    world.clock.now = NOON + timedelta(hours=1)
    world.reserve()
    assert refused(world).lifts_at == NOON + timedelta(hours=1, minutes=10)


def test_what_was_refused_counts_as_no_attempt_and_is_counted_as_refused(file_world: World):
    file_world.calls_an_hour = 1
    file_world.reserve()
    for _ in range(7):
        refused(file_world)
    refused(file_world, 6.0)
    with pytest.raises(CallRefused):
        file_world.reserve(model="unheard-of")
    standing = file_world.ledger.standing()
    assert (standing.calls_last_hour, standing.refusals_today) == (1, {"hour": 7, "day": 1, "price": 1})
    file_world.clock.wait(hours=1)
    file_world.reserve()


def test_no_call_may_start_where_none_is_allowed(file_world: World):
    file_world.calls_an_hour = 0
    assert refused(file_world).kind == "hour"


def test_the_hour_goes_on_over_midnight_and_the_end_of_a_month(file_world: World):
    file_world.calls_an_hour = 2
    file_world.clock.now = datetime(2025, 3, 31, 23, 50, tzinfo=UTC)
    file_world.reserve()
    file_world.reserve()
    file_world.clock.wait(minutes=30)
    assert refused(file_world).kind == "hour"
    file_world.clock.wait(minutes=30)
    file_world.reserve()


def test_a_clock_that_was_wrong_makes_the_budget_forget_nothing_and_blocks_nobody_for_ever(file_world: World):
    file_world.calls_an_hour = 2
    file_world.reserve(4.0)
    file_world.clock.now = NOON + timedelta(days=4_000)
    file_world.reserve(1.0)
    file_world.clock.now = NOON + timedelta(minutes=5)
    assert refused(file_world).kind == "hour"  # the one from the future is taken as of now
    assert refused(file_world, 1.01).kind == "day"
    file_world.clock.wait(hours=1, minutes=1)
    file_world.reserve(1.0)
    file_world.assert_whole()


def test_a_model_nobody_knows_the_price_of_is_refused_with_what_to_do(file_world: World):
    refusal = refused(file_world, model="unheard-of")
    assert (refusal.kind, refusal.lifts_at) == ("price", None)
    assert "unheard-of" in str(refusal)
    assert "TRADING_OPS_LLM_PRICES" in str(refusal)
    assert file_world.rows() == {}


def test_a_free_model_needs_no_budget_but_counts(file_world: World):
    file_world.reserve(5.0)
    file_world.settle(file_world.reserve(10.0, model="free"), 10.0)
    assert file_world.ledger.standing().day.spent_usd == 5.0
    assert file_world.ledger.standing().calls_last_hour == 2


def test_unknown_use_is_charged_the_bound_and_a_call_never_settled_stays_at_it(world: World):
    world.settle(world.reserve(2.0), None, outcome="timeout")
    world.reserve(2.0)  # its caller is killed
    world.clock.wait(hours=9)
    assert refused(world, 1.01).spent == 4.0
    outcomes = sorted((row["outcome"], row["cost_usd"], row["charged"]) for row in world.rows().values())
    assert outcomes == [("reserved", 2.0, "bound"), ("timeout", 2.0, "bound")]
    world.assert_whole()


def test_more_than_was_reserved_is_recorded_and_counted_as_it_is(world: World):
    world.settle(world.reserve(1.0), 7.0)
    assert refused(world, 0.0, model="free").spent == 7.0
    world.assert_whole()


def test_settling_twice_changes_nothing_and_with_another_content_is_an_error(world: World):
    call = world.reserve(1.0)
    first = world.settle(call, 0.5, detail={"reply": "wait"})
    world.clock.wait(minutes=1)
    assert world.settle(call, 0.5, detail={"reply": "wait"}) == first
    for changes in ({"usd": 0.6}, {"usd": None}, {"usd": 0.5, "outcome": "timeout"}, {"usd": 0.5, "latency_s": 1.0}):
        with pytest.raises(ValueError, match=f"{call.call_id} was settled before as 'answered'"):
            world.settle(call, **({"detail": {"reply": "wait"}} | changes))
    assert world.revisions(call.call_id) == [(1, "reserved"), (2, "answered")]
    assert world.ledger.standing().day.spent_usd == 0.5
    world.assert_whole()


def test_a_call_is_counted_on_the_day_it_was_reserved(file_world: World):
    file_world.clock.now = datetime(2025, 3, 31, 23, 59, tzinfo=UTC)
    call = file_world.reserve(4.0)
    file_world.clock.wait(minutes=5)
    file_world.settle(call, 1.0)
    (record,) = file_world.store.read(COLLECTION)
    assert record.partition == "2025-03-31"
    standing = file_world.ledger.standing()
    assert (standing.day.spent_usd, standing.month.spent_usd) == (0.0, 0.0)
    file_world.assert_whole()


def test_a_call_of_another_store_is_not_settled_here(file_world: World, tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/other.db") as other:
        call = World(other).reserve(1.0)
        with pytest.raises(StoreError, match="another store"):
            file_world.settle(call, 1.0)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"purpose": " "}, "purpose is ' '"),
        ({"model": ""}, "model is ''"),
        ({"prompt_sha256": "abc"}, "prompt_sha256 is 'abc'"),
        ({"most_tokens": {"input": 5}}, "most_tokens has no output"),
        ({"most_tokens": {}}, "no input and no output"),
        ({"most_tokens": {"input": -1, "output": 0}}, "tokens.input is -1"),
        ({"most_tokens": {"input": 1.5, "output": 0}}, "tokens.input is 1.5"),
        ({"most_tokens": {"input": True, "output": 0}}, "tokens.input is True"),
        ({"most_tokens": {"input": 1, "output": nan}}, "tokens.output is nan"),
        ({"most_tokens": {"input": 1, "output": 1, "audio": 1}}, "tokens.audio is no class"),
    ],
)
def test_a_reservation_that_makes_no_sense_is_refused_by_name(file_world: World, asked: dict[str, Any], said: str):
    good = {"purpose": "p", "model": "plain", "prompt_sha256": SHA, "most_tokens": {"input": 1, "output": 1}}
    with pytest.raises(ValueError, match=said):
        file_world.ledger.reserve(**(good | asked))
    assert file_world.rows() == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"outcome": ""}, "outcome is ''"),
        ({"outcome": "reserved"}, "an open call"),
        ({"tokens": {"input": -1}}, "tokens.input is -1"),
        ({"tokens": {"input": None}}, "tokens.input is None"),
        ({"tokens": {"images": 1}}, "tokens.images"),
        ({"latency_s": nan}, "latency_s"),
        ({"latency_s": inf}, "latency_s"),
        ({"latency_s": -1.0}, "latency_s"),
    ],
)
def test_a_settlement_that_makes_no_sense_leaves_the_call_at_its_bound(file_world: World, changes, said: str):
    call = file_world.reserve(1.0)
    with pytest.raises(ValueError, match=said):
        file_world.settle(call, 0.5, **changes)
    assert file_world.ledger.standing().day.spent_usd == 1.0
    file_world.assert_whole()


def test_a_detail_that_cannot_be_recorded_is_told_before_anything_is_written(file_world: World):
    call = file_world.reserve(1.0)
    with pytest.raises(InvalidRecord, match="logprob"):
        file_world.settle(call, 0.5, detail={"logprob": nan})
    file_world.settle(call, 0.5, detail={"logprob": None})


def test_the_bots_own_spend_of_today_and_of_this_month_counts(world: World):
    def told(day: float, month: float, recorded_at: datetime, partition: str) -> None:
        body = STATISTICS | {"daily_cost_usd": day, "monthly_cost_usd": month}
        world.store.append("bot_usage", [Entry(partition, "", body)], recorded_at=recorded_at)

    told(4.9, 60.0, NOON - timedelta(days=2), "2025-03-07")
    told(4.5, 95.0, NOON - timedelta(hours=3), "2025-03-09")
    world.store.append("bot_usage", [Entry("2025-03-10", "", {"error": "away"})], recorded_at=NOON)
    refusal = refused(world, 0.6)
    assert (refusal.kind, refusal.spent) == ("day", 4.5)
    assert "the bot's $4.5000 among it" in str(refusal)
    world.clock.wait(days=1)
    assert refused(world, 5.01).spent == 95.0  # of the month; the day's was another day's
    world.reserve(5.0)
    world.clock.now = datetime(2025, 4, 1, tzinfo=UTC)
    world.reserve(5.0)


def test_the_bots_spend_counts_though_a_clock_was_ahead_when_it_was_told_before(world: World):
    for partition, recorded_at in (("2025-03-08", NOON + timedelta(days=900)), ("2025-03-09", NOON)):
        body = STATISTICS | {"daily_cost_usd": 4.5, "monthly_cost_usd": 50.0}
        world.store.append("bot_usage", [Entry(partition, "", body)], recorded_at=recorded_at)
    assert refused(world, 0.6).spent == 4.5


def test_a_record_of_the_bots_spend_that_is_none_lets_no_call_start(file_world: World):
    file_world.store.append("bot_usage", [Entry("2025-03-09", "", {"daily_cost_usd": "3"})])
    with pytest.raises(StoreError, match="bot_usage, record 1"):
        file_world.reserve()


def test_an_operators_word_lifts_the_stop_of_its_period_alone_up_to_a_new_limit(world: World):
    """B037, B038: a recorded override."""
    world.reserve(5.0)
    assert refused(world).kind == "day"
    word = allow(world.store, NOON, "day", 6.0, reason="release", by="ann", limits=Limits())
    assert word.until == "2025-03-11T00:00:00+00:00"
    world.reserve(1.0)
    refusal = refused(world)
    assert (refusal.kind, refusal.limit) == ("day", 6.0)
    allow(world.store, NOON, "day", 6.5, reason="more", by="ann", limits=Limits())
    world.reserve(0.5)
    world.clock.wait(days=1)
    assert refused(world, 5.01).limit == 5.0


def test_a_months_override_leaves_the_day_alone_and_ends_with_the_month(file_world: World):
    limits = Limits(day_critical_usd=5.0, month_critical_usd=6.0)
    file_world.limits = limits
    file_world.reserve(5.0)
    file_world.clock.wait(days=1)
    assert refused(file_world, 2.0).kind == "month"
    allow(file_world.store, file_world.clock(), "month", 20.0, reason="retrain week", by="ann", limits=limits)
    file_world.reserve(5.0)
    assert refused(file_world).kind == "day"
    file_world.clock.now = datetime(2025, 4, 1, tzinfo=UTC)
    file_world.reserve(5.0)
    file_world.clock.wait(days=1)
    assert refused(file_world, 2.0).limit == 6.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"period": "week"}, "period is 'week'"),
        ({"up_to_usd": 5.0}, "allows nothing"),
        ({"up_to_usd": nan}, "allows nothing"),
        ({"up_to_usd": inf}, "allows nothing"),
        ({"reason": " "}, "reason is empty"),
        ({"by": ""}, "by is empty"),
    ],
)
def test_a_word_that_says_nothing_is_refused(file_world: World, changes: dict[str, Any], said: str):
    good = {"period": "day", "up_to_usd": 6.0, "reason": "release", "by": "ann", "limits": Limits()}
    with pytest.raises(ValueError, match=said):
        allow(file_world.store, NOON, **(good | changes))


@pytest.mark.parametrize("mode", [DOWN, READ_ONLY])
def test_no_call_starts_while_the_audit_store_is_down_and_nothing_is_spooled(tmp_path: Path, mode: str):
    shared = UnreliableStore(tmp_path)
    with SpooledStore(shared, tmp_path / "spool.db", retry_after_s=0.0) as store:
        world = World(store)
        open_call = world.reserve(1.0)
        shared.be(mode)
        for action in (world.reserve, lambda: world.settle(open_call, 0.5)):
            with pytest.raises(StoreUnavailable):
                action()
        assert store.backlog().waiting == 0
        shared.be(UP)
        world.settle(open_call, 0.5)
        world.reserve(4.5)
        assert refused(world).spent == 5.0
        world.assert_whole()


@pytest.mark.parametrize("writes", range(4))
def test_what_is_lost_while_the_store_goes_down_is_counted_at_its_bound_and_written_by_the_next(
    tmp_path: Path, writes: int
):
    """A write in each place: the state, the history, the state again."""
    shared = UnreliableStore(tmp_path)
    with SpooledStore(shared, tmp_path / "spool.db", retry_after_s=0.0) as store:
        world = World(store)
        world.settle(world.reserve(0.5), 0.5)
        shared.writes_left = writes
        if writes < 3:
            with pytest.raises(StoreUnavailable):
                world.reserve(1.0)
        else:
            world.reserve(1.0)
        shared.writes_left = None
        assert store.backlog().waiting == 0
        world.reserve(0.25)
        assert sorted(row["cost_usd"] for row in world.rows().values()) == [0.25, 0.5] + [1.0] * (writes > 0)
        world.assert_whole()


@pytest.mark.parametrize("writes", range(4))
def test_a_settlement_that_was_cut_off_is_finished_by_the_next_call_or_by_itself(tmp_path: Path, writes: int):
    for again in (True, False):
        (tmp_path / str(again)).mkdir()
        shared = UnreliableStore(tmp_path / str(again))
        world = World(shared)
        call = world.reserve(1.0)
        shared.writes_left = writes
        if writes < 3:
            with pytest.raises(StoreUnavailable):
                world.settle(call, 0.5)
        else:
            world.settle(call, 0.5)
        shared.writes_left = None
        if again:
            world.settle(call, 0.5)
        world.reserve(0.25)
        settled = again or writes > 0
        assert sorted(row["cost_usd"] for row in world.rows().values()) == [0.25, 0.5 if settled else 1.0]
        world.assert_whole()


def test_a_repair_that_comes_late_overtakes_no_settlement(tmp_path: Path):
    """Its writer is alive and settles between the other's look and write."""
    shared = UnreliableStore(tmp_path)
    world, slow = World(shared), World(UnreliableStore(tmp_path))
    shared.writes_left = 2  # the row is in the history, and still in the document
    with pytest.raises(StoreUnavailable):
        world.reserve(1.0)
    shared.writes_left = None
    (key,), (pending,) = zip(*world.ledger.spending().pending.items(), strict=True)
    settled = {**pending.row, "outcome": "answered", "cost_usd": 0.5}
    shared.append(COLLECTION, [Entry(pending.day, key, settled)], revision=2)
    _, spending = slow.ledger._load()
    assert spending.pending[key].revision == 1
    with pytest.raises(StoreError, match="no place for revision 1 after 2"):
        slow.ledger._write(pending.day, key, 1, pending.row)
    assert world.revisions(key) == [(1, "reserved"), (2, "answered")]


def test_a_budget_without_a_document_is_made_of_the_ledgers_rows(file_world: World):
    """A store that was copied without its state, or rows of before there were reservations."""
    old = {"model": "gpt-4o", "tokens": {"input": 10}, "cost_usd": 3.0}
    hand = old | {"reserved_at": (NOON - timedelta(minutes=5)).isoformat(), "cost_usd": 1.5}
    rows = [Entry("2025-02-28", "a", old), Entry("2025-03-01", "b", old), Entry("2025-03-10", "c", hand)]
    file_world.store.append(COLLECTION, rows)
    file_world.calls_an_hour = 2
    standing = file_world.ledger.standing()
    assert (standing.day.spent_usd, standing.month.spent_usd, standing.calls_last_hour) == (1.5, 4.5, 1)
    assert refused(file_world, 3.51).spent == 1.5
    file_world.reserve(3.5)
    assert refused(file_world).kind == "day"


@pytest.mark.parametrize("row", [{"model": "plain", "cost_usd": "nothing"}, {}])
def test_a_damaged_row_lets_no_call_start_where_the_sums_are_made_of_rows(file_world: World, row: dict[str, Any]):
    file_world.store.append(COLLECTION, [Entry("2025-03-10", "20250310T110000-1", row)])
    with pytest.raises(StoreError, match="llm_calls: a row is damaged"):
        file_world.reserve(0.01)


@pytest.mark.parametrize("word", [{"period": "day"}, {"up_to_usd": "a lot"}, {"up_to_usd": None}])
def test_a_damaged_word_of_an_operator_lets_no_call_start(file_world: World, word: dict[str, Any]):
    body = {"period": "day", "up_to_usd": 9.0, "reason": "x", "by": "me", "at": "", "until": ""}
    damaged = word if "period" in word else body | word
    file_world.store.append("cost_overrides", [Entry("2025-03-10", "day", damaged)])
    with pytest.raises(StoreError, match="cost_overrides, record 1: no operator's word"):
        file_world.reserve(0.01)


def test_a_damaged_document_lets_no_call_start(file_world: World):
    file_world.store.put_state(STATE, KEY, {"days": {"2025-03-10": "much"}}, expected_version=0)
    with pytest.raises(StoreError, match="'spending' is damaged"):
        file_world.reserve()


def test_the_document_stays_small(file_world: World):
    for _ in range(150):
        file_world.settle(file_world.reserve(0.001), 0.001, detail={"reply": "x" * 1000})
        file_world.clock.wait(hours=20)
    document = file_world.store.get_state(STATE, KEY)
    assert document is not None
    assert len(document.body["days"]) <= 70
    assert len(document.body["attempts"]) <= 100
    assert document.body["pending"] == {}


def test_a_ledger_of_the_settings_knows_their_limits_prices_and_calls(make_services):
    services = make_services(cost_day_critical_usd=1.0, cost_day_warning_usd=0.5, llm_calls_an_hour=1,
                             llm_prices={"mine": ("1", "1", "1")})  # fmt: skip
    ledger: Ledger = services.ledger
    most = {"input": 500_000, "output": 500_000}
    call = ledger.reserve(purpose="assessment", model="mine", prompt_sha256=SHA, most_tokens=most)
    assert call.bound_usd == 1
    for _ in range(2):
        with pytest.raises(CallRefused) as refusal:
            ledger.reserve(purpose="assessment", model="mine", prompt_sha256=SHA, most_tokens=most)
        assert refusal.value.kind == "day"
    ledger.settle(call, outcome="answered", tokens={"input": 1, "output": 0}, latency_s=0.1)
    with pytest.raises(CallRefused, match="at most 1 may"):
        ledger.reserve(purpose="assessment", model="mine", prompt_sha256=SHA, most_tokens={"input": 1, "output": 1})
