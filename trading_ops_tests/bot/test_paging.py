"""Do all trades of a period come, each once, from every kind of bot; and is it said where they may not have?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.bot.client import BotError, BotUnreachable
from trading_ops.bot.http import HttpBot
from trading_ops.bot.paging import MAX_LIMIT, Page, _is_usual_cap, read_trades
from trading_ops.bot.records import ClosedTrades
from trading_ops_tests.fakes import trade
from trading_ops_tests.servers.bot import CLOSED, Asked, Says, ScriptedServer, TradeList, Turns, serving

START = datetime(2025, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
Read = Callable[[Any, datetime, datetime], ClosedTrades]
FOREVER = (datetime(2009, 1, 3, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))


def at(minute: float) -> datetime:
    return START + minute * MINUTE


def row(number: int, minute: float | None = None, pnl_usdt: float = 10.0, name: str = "t") -> dict[str, Any]:
    return trade(f"{name}{number}", at(number if minute is None else minute).isoformat(), pnl_usdt)


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """A trade a minute."""
    return [row(number) for number in range(first, first + count)]


@pytest.fixture(scope="module")
def read() -> Iterator[Read]:
    """Reads the trades of a period from a bot that answers by the script given."""
    server = ScriptedServer()
    with serving(server) as url:
        bot = HttpBot(url)

        def read(script: Any, start: datetime, end: datetime) -> ClosedTrades:
            server.script[CLOSED] = script
            return bot.closed_trades(start, end)

        yield read


def ids(closed: ClosedTrades) -> list[str]:
    return closed.frame["trade_id"].tolist()


def counted(closed: ClosedTrades) -> int:
    return len(closed.frame) + len(closed.quarantined) + len(closed.duplicates)


# every kind of bot

ALL = ("has_more", "total")
WHOLE = {
    "since, limit and has_more": {"facts": ALL},
    "since and limit": {},
    "an exclusive since": {"exclusive": True},
    "no limit": {"limit": False},
    "a silent cap of 50": {"cap": 50},
    "a silent cap of 73": {"cap": 73},
    "a silent cap and has_more": {"cap": 500, "facts": ("has_more",)},
    "a silent cap and total": {"cap": 500, "facts": ("total",)},
    "neither, newest first": {"since": False, "limit": False, "newest_first": True},
    "neither, oldest first": {"since": False, "limit": False},
    "limit alone, newest first": {"since": False, "newest_first": True},
    "limit alone, oldest first": {"since": False},
    "limit alone, the newest in ascending order": {"since": False, "keep": "last"},
    "both, newest first": {"newest_first": True},
    "both, the newest in ascending order": {"keep": "last"},
}


@pytest.mark.parametrize("dialect", WHOLE.values(), ids=list(WHOLE))
def test_all_trades_of_a_period_come_once_from_every_kind_of_bot(read: Read, dialect: dict[str, Any]):
    closed = read(TradeList(rows(2_345), **dialect), at(100), at(2_200))
    assert ids(closed) == [f"t{n}" for n in range(100, 2_200)]
    assert (closed.quarantined, closed.duplicates, closed.complete) == ((), (), True)


@pytest.mark.parametrize("dialect", WHOLE.values(), ids=list(WHOLE))
@pytest.mark.parametrize("count", [0, 1, 37])
def test_a_short_list_is_whole_in_every_dialect(read: Read, dialect: dict[str, Any], count: int):
    closed = read(TradeList(rows(count), **dialect), *FOREVER)
    assert (ids(closed), closed.complete) == ([f"t{n}" for n in range(count)], True)


CUT = {
    "the newest 100, newest first": {"since": False, "limit": False, "cap": 100, "newest_first": True},
    "the newest 250 since then, newest first": {"cap": 250, "newest_first": True},
    "the newest 1000 whatever the limit": {"since": False, "cap": 1000, "newest_first": True},
    "the newest 100 in ascending order": {"since": False, "limit": False, "cap": 100, "keep": "last"},
    "the newest 100 since then in ascending order": {"cap": 100, "keep": "last"},
    "the newest 100 since then, whatever the limit": {"cap": 100, "keep": "last", "limit": False},
    "the newest 100 since then, ascending, and has_more": {"cap": 100, "keep": "last", "facts": ("has_more",)},
    "the oldest 500": {"since": False, "limit": False, "cap": 500},
    "an odd number, but has_more": {"since": False, "cap": 73, "facts": ("has_more",), "newest_first": True},
    "an odd number, but total": {"since": False, "cap": 73, "facts": ("total",), "newest_first": True},
    "an odd number of the oldest, but total": {"since": False, "cap": 73, "facts": ("total",)},
}


@pytest.mark.parametrize("dialect", CUT.values(), ids=list(CUT))
def test_a_list_that_may_be_cut_off_is_used_and_reported(read: Read, dialect: dict[str, Any]):
    closed = read(TradeList(rows(1_500), **dialect), at(100), at(1_490))
    assert not closed.complete
    assert len(closed.frame) < 1_390
    assert closed.frame["trade_id"].is_unique


@pytest.mark.parametrize("keep", ["first", "last"], ids=["newest first", "ascending"])
def test_a_capped_list_is_whole_where_it_reaches_back_before_the_period(read: Read, keep: str):
    capped = TradeList(rows(1_500), since=False, limit=False, cap=100, newest_first=keep == "first", keep=keep)
    closed = read(capped, at(1_401), at(1_499))
    assert (len(closed.frame), closed.complete) == (98, True)
    assert capped.pages == [100], "one request is enough"
    assert not read(capped, at(1_399), at(1_499)).complete


@pytest.mark.parametrize("size", [50, 100, 1_000])
def test_a_list_of_a_usual_size_is_whole_only_where_later_pages_bring_more(read: Read, size: int):
    """Else it may be all there is, or the newest of more: since, limit and has_more would tell them apart."""
    for dialect in ({}, {"limit": False}, {"since": False, "limit": False}):
        closed = read(TradeList(rows(size), **dialect), *FOREVER)
        assert (len(closed.frame), closed.complete) == (size, False)
    assert read(TradeList(rows(size), facts=("has_more",)), *FOREVER).complete
    assert read(TradeList(rows(size + 1), cap=size), *FOREVER).complete
    assert read(TradeList(rows(size + 1), cap=size), at(0), at(size - 1)).complete
    assert not read(TradeList(rows(size + 1), cap=size, keep="last"), at(0), at(size - 1)).complete


def test_a_bot_that_promises_more_and_has_none_is_not_believed(read: Read):
    closed = read({"success": True, "has_more": True, "data": rows(3)}, *FOREVER)
    assert (len(closed.frame), closed.complete) == (3, False)
    trades = TradeList(rows(1_500))
    closed = read(lambda asked: {**trades(asked), "has_more": True}, *FOREVER)
    assert (len(closed.frame), closed.complete) == (1_500, False)


@pytest.mark.parametrize("facts", [{"has_more": "yes"}, {"total": "many"}, {"total": True}, {"has_more": None}])
def test_a_fact_that_is_none_is_ignored(read: Read, facts: dict[str, Any]):
    assert read({"success": True, "data": {"trades": rows(3), **facts}}, *FOREVER).complete


def test_B135_the_period_is_half_open(read: Read):
    edges = [row(1, -0.001), row(2, 0), row(3, 1_440 - 1 / 60_000), row(4, 1_440)]
    closed = read(TradeList(edges), at(0), at(1_440))
    assert ids(closed) == ["t2", "t3"]
    assert ids(read(TradeList(edges), at(1_440), at(2_880))) == ["t4"]
    assert ids(read(TradeList(edges), at(5), at(5))) == []


# many trades at one instant


def crowd(count: int, before: int = 10) -> list[dict[str, Any]]:
    return [*rows(before), *(row(n, before + 5, name="crowd") for n in range(count)), *rows(10, first=before + 10)]


@pytest.mark.parametrize("before", [10, 2_200])
@pytest.mark.parametrize("dialect", [{}, {"newest_first": True}, {"facts": ("has_more",)}], ids=str)
def test_an_instant_with_more_trades_than_a_page_is_read_with_a_larger_limit(
    read: Read, dialect: dict[str, Any], before: int
):
    closed = read(TradeList(crowd(2_300, before), **dialect), *FOREVER)
    assert (len(closed.frame), closed.frame["trade_id"].is_unique, closed.complete) == (before + 2_310, True, True)


@pytest.mark.parametrize(
    "refuse",
    [
        lambda trades, asked: trades(Asked(**{**vars(asked), "query": {**asked.query, "limit": "1000"}})),
        lambda trades, asked: trades(asked) if asked.query["limit"] == "1000" else Says({"detail": "too large"}, 422),
    ],
    ids=["silently", "with 422"],
)  # fmt: skip
def test_an_instant_that_no_page_can_hold_is_reported(read: Read, refuse: Any):
    trades = TradeList(crowd(1_300))
    closed = read(lambda asked: refuse(trades, asked), *FOREVER)
    assert not closed.complete
    assert len(closed.frame) == 1_010, "the ten before, and a page of the instant"


def test_the_limit_grows_within_bounds():
    limits = []

    def endless(since: datetime, limit: int) -> Page:
        limits.append(limit)
        return Page(rows(limit // 1_000)[::-1], has_more=True)

    assert not read_trades(endless, *FOREVER).complete
    assert max(limits) == MAX_LIMIT


def test_a_bot_that_fails_in_the_middle_fails_the_reading(read: Read):
    trades = TradeList(rows(2_500))
    with pytest.raises(BotUnreachable, match="503, out of memory"):
        read(Turns(trades, Says({"error": "out of memory"}, 503)), *FOREVER)
    with pytest.raises(BotError, match="400"):
        read(Turns(trades, Says({}, 400)), *FOREVER)


# a bot that goes on trading meanwhile


class Busy:
    """Between two pages: a trade arrives, one that was read is changed, and one moves from ahead to behind."""

    def __init__(self, count: int, until_page: int) -> None:
        self.count, self.until_page = count, until_page

    def __call__(self, trades: TradeList, page: int) -> None:
        if not 0 < page < self.until_page:
            return
        trades.rows.append(row(len(trades.rows), 30_000 + page, name="new"))
        trades.rows[page * 7] = row(page * 7, pnl_usdt=-5.0 - page)
        ahead = self.count - page
        trades.rows[ahead] = row(ahead, minute=page * 9 + 0.5)


def test_twenty_thousand_trades_come_without_loss_or_doubling_while_the_bot_goes_on_trading(read: Read):
    trades = TradeList(rows(20_000), before_page=Busy(20_000, until_page=20))
    closed = read(trades, *FOREVER)
    assert Counter(ids(closed)) == Counter(r["trade_id"] for r in trades.rows)
    assert len(closed.frame) == 20_019
    profits = dict(zip(closed.frame["trade_id"], closed.frame["pnl_usdt"], strict=True))
    assert profits == {r["trade_id"]: r["pnl_usdt"] for r in trades.rows}
    assert (closed.quarantined, closed.duplicates, closed.complete) == ((), (), True)


@pytest.mark.parametrize("facts", [(), ("has_more",), ("total",)])
@pytest.mark.parametrize("times", [1, 20])
@pytest.mark.parametrize("end", [1_300, 1_450, 9_999])
def test_a_trade_that_closes_meanwhile_is_no_proof_that_a_cut_page_holds_the_oldest(
    read: Read, end: int, times: int, facts: tuple[str, ...]
):
    """The newest 100 since then, in ascending order: the next page brings only what closed between the two."""

    def arrive(trades: TradeList, page: int) -> None:
        if 0 < page <= times:
            trades.rows.append(row(1_500 + page))

    closed = read(TradeList(rows(1_500), cap=100, keep="last", facts=facts, before_page=arrive), at(100), at(end))
    assert not closed.complete


@pytest.mark.parametrize("end", [1_300, 1_450])
def test_a_bot_that_keeps_the_oldest_is_read_whole_while_it_goes_on_trading(read: Read, end: int):
    def arrive(trades: TradeList, page: int) -> None:
        trades.rows.append(row(1_500 + page))

    closed = read(TradeList(rows(1_500), cap=100, before_page=arrive), at(100), at(end))
    assert (ids(closed), closed.complete) == ([f"t{n}" for n in range(100, end)], True)


def test_a_bot_that_never_stands_still_is_read_without_loss_and_reported(read: Read):
    trades = TradeList(rows(5_000), before_page=Busy(5_000, until_page=10_000))
    closed = read(trades, at(0), at(4_900))
    assert not closed.complete
    assert closed.frame["trade_id"].is_unique
    assert closed.quarantined == ()
    assert {f"t{n}" for n in range(4_900)} <= set(ids(closed))


def test_versions_that_follow_each_other_are_no_contradiction_even_if_the_bot_never_stands_still(read: Read):
    """The last row of each first page changes with every page; one id stands for two trades all the time."""

    def change(trades: TradeList, page: int) -> None:
        trades.rows[999] = row(999, pnl_usdt=-1.0 - page)

    reused = row(7, minute=1_800, pnl_usdt=55.0)
    trades = TradeList([*rows(1_700), reused], before_page=change)
    closed = read(trades, *FOREVER)
    assert (len(closed.frame), closed.complete) == (1_700, False)
    assert [q.row for q in closed.quarantined] == [reused]
    shown = [-1.0 - page for page in range(len(trades.pages))]
    assert closed.frame["pnl_usdt"].iloc[999] in shown[-3:]


def test_a_trade_that_moves_from_the_unread_to_the_read_part_is_found_by_walking_again(read: Read):
    def move(trades: TradeList, page: int) -> None:
        if page == 1:
            trades.rows[1_800] = row(1_800, minute=3.5)

    trades = TradeList(rows(2_000), before_page=move)
    closed = read(trades, *FOREVER)
    assert len(closed.frame) == 2_000
    assert "t1800" in ids(closed)
    assert closed.complete


def test_a_trade_that_changes_between_two_pages_is_the_later_one_and_no_contradiction(read: Read):
    def change(trades: TradeList, page: int) -> None:
        if page == 1:
            trades.rows[999] = row(999, pnl_usdt=-3.0)  # the last row of the first page and the first of the second

    closed = read(TradeList(rows(1_500), before_page=change), *FOREVER)
    assert closed.frame["pnl_usdt"].iloc[999] == -3.0
    assert (len(closed.frame), closed.quarantined, closed.complete) == (1_500, (), True)


def test_a_trade_that_the_bot_takes_back_is_gone(read: Read):
    def take_back(trades: TradeList, page: int) -> None:
        if page == 1:
            del trades.rows[5]

    closed = read(TradeList(rows(1_500), before_page=take_back), *FOREVER)
    assert (len(closed.frame), closed.complete) == (1_499, True)


def test_fields_of_the_bots_own_may_change_all_the_time(read: Read):
    count = iter(range(10**9))
    trades = TradeList(rows(2_500))

    def restless(asked: Asked) -> Any:
        reply = trades(asked)
        return {**reply, "data": [{**r, "age_s": next(count)} for r in reply["data"]]}

    closed = read(restless, *FOREVER)
    assert (len(closed.frame), closed.duplicates, closed.complete) == (2_500, (), True)


# rows that are not believed


def test_one_id_with_two_contents_on_one_page_is_a_contradiction(read: Read):
    closed = read([row(1), row(1, pnl_usdt=-1.0), row(2)], *FOREVER)
    assert ids(closed) == ["t1", "t2"]
    assert [q.reason for q in closed.quarantined] == [
        "trade_id t1 came twice with different content; the first is kept"
    ]


def test_one_id_for_two_trades_on_different_pages_is_a_contradiction_too_and_no_row_is_lost(read: Read):
    reused = [*rows(2_400), row(7, minute=2_401, pnl_usdt=-1.0)]
    closed = read(TradeList(reused), *FOREVER)
    assert (len(closed.frame), closed.complete) == (2_400, True)
    assert [q.row["pnl_usdt"] for q in closed.quarantined] == [-1.0]


def test_a_repeated_row_is_counted_once_for_each_time_it_is_there(read: Read):
    doubled = [*rows(1_500), row(700), row(700), row(1_499)]
    closed = read(TradeList(doubled), *FOREVER)
    assert (len(closed.frame), len(closed.duplicates)) == (1_500, 3)
    assert closed.complete


JUNK = [None, "a trade", {"trade_id": "x", "closed_at": None}, {**row(1), "closed_at": "2025-03-01T12:00:00"}, {}, {}]


def test_rows_without_a_time_are_kept_and_not_multiplied_by_pages_or_walks(read: Read):
    trades = TradeList(rows(2_500))

    def with_junk(asked: Asked) -> Any:
        reply = trades(asked)
        return {**reply, "data": [*JUNK[:3], *reply["data"], *JUNK[3:]]}

    closed = read(with_junk, *FOREVER)
    assert len(trades.pages) >= 4
    assert len(closed.frame) == 2_500
    assert sorted(str(q.row) for q in closed.quarantined) == sorted(map(str, JUNK))


def test_a_row_that_a_later_page_shows_less_often_is_kept_as_often_as_it_was_there(read: Read):
    trades = TradeList(rows(2_500))

    def with_junk(asked: Asked) -> Any:
        first = asked.query["since"] < "2025"
        return {"data": [None] * (2 if first else 1) + trades(asked)["data"], "success": True}

    assert [q.row for q in read(with_junk, *FOREVER).quarantined] == [None, None]


def test_a_full_page_without_any_time_may_be_cut_off(read: Read):
    closed = read([None] * 1_000, *FOREVER)
    assert (len(closed.quarantined), closed.complete) == (1_000, False)
    closed = read([None] * 1_003, *FOREVER)
    assert (len(closed.quarantined), closed.complete) == (1_003, True)


def test_a_bad_row_belongs_to_its_own_period(read: Read):
    bad = [{**row(1), "quantity": -1.0}, {**row(2), "pnl_usdt": None}, row(3)]
    closed = read(TradeList(bad), at(2), at(10))
    assert [q.row["trade_id"] for q in closed.quarantined] == ["t2"]
    assert counted(closed) == 2


def test_a_thousand_bad_rows_do_not_hide_a_good_one(read: Read):
    closed = read([*({"n": n} for n in range(1_500)), row(1)], *FOREVER)
    assert (len(closed.quarantined), ids(closed)) == (1_500, ["t1"])


# complete is never a lie

dialects = st.fixed_dictionaries({
    "since": st.booleans(), "exclusive": st.booleans(), "limit": st.booleans(), "newest_first": st.booleans(),
    "cap": st.sampled_from([None, 50, 100, 250, 1_000]), "keep": st.sampled_from(["first", "last"]),
    "facts": st.sampled_from([(), ("has_more",), ("total",)]),
})  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(dialects, st.integers(0, 1_100), st.sampled_from([1, 3, 60]), st.integers(-10, 700), st.integers(0, 1_400))
def test_what_is_called_complete_is_complete(
    dialect: dict[str, Any], count: int, crowded: int, first: int, length: int
):
    dialect["keep"] = "first" if dialect["newest_first"] else dialect["keep"]  # nobody sends the oldest backwards
    everything = [row(n, minute=n // crowded) for n in range(count)]
    trades = TradeList(everything, **dialect)

    def ask(since: datetime, limit: int) -> Page:
        reply = trades(Asked("GET", CLOSED, {"since": since.isoformat(), "limit": str(limit)}, {}, b""))
        return Page(reply["data"], reply.get("has_more"), reply.get("total"))

    closed = read_trades(ask, at(first), at(first + length))
    truth = {
        r["trade_id"] for r in everything if at(first) <= datetime.fromisoformat(r["closed_at"]) < at(first + length)
    }
    assert set(ids(closed)) <= truth
    assert len(closed.frame) == len(set(ids(closed)))
    assert (closed.quarantined, closed.duplicates) == ((), ())
    if closed.complete:
        assert set(ids(closed)) == truth
    if dialect["since"] and dialect["keep"] == "first" and not dialect["newest_first"] and not dialect["cap"]:
        opening = sum(datetime.fromisoformat(r["closed_at"]) >= at(first) for r in everything)
        assert closed.complete or _is_usual_cap(opening)
