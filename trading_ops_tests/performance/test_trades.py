"""Does every trade come out under its own UTC day, and none get lost on the way to the store and back?"""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from trading_ops.audit.chain import canonical_json
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry
from trading_ops.bot.client import Calendar
from trading_ops.bot.records import TRADE_FIELDS, ClosedTrades, believe_trades
from trading_ops.performance.trades import Trades, midnight, read_trades, trades_by_day, trailing_trades

DAY = timedelta(days=1)


def row(trade_id: str, closed_at: str, **changes: Any) -> dict[str, Any]:
    """1 coin from 100 to 110 for a fee of 1: 9 USDT, 9 %."""
    good = {
        "trade_id": trade_id, "strategy": "rsi", "symbol": "BTCUSDT", "side": "long", "quantity": 1.0,
        "entry_price": 100.0, "exit_price": 110.0, "opened_at": "2025-01-01T00:00:00Z", "closed_at": closed_at,
        "fee_usdt": 1.0, "pnl_usdt": 9.0, "pnl_pct": 9.0, "close_reason": "signal",
    }  # fmt: skip
    return good | changes


def by_day(rows: list[Any], days: list[str], *, complete: bool = True) -> dict[str, dict[str, Any]]:
    documents = trades_by_day(believe_trades(rows, complete=complete), days, label="simulated")
    return {day: {**document, "source": "simulated"} for day, document in documents.items()}


def read(folder: Path, documents: dict[str, dict[str, Any]], bot: Any, first: date, last: date) -> Trades:
    """`read_trades` from a store that holds the documents."""
    with SqliteStore(folder / f"{uuid.uuid4().hex}.db") as store:
        store.append("closed_trades", [Entry(day, "", document) for day, document in documents.items()])
        return read_trades(store, bot, first, last)


def ids(document: dict[str, Any]) -> list[str]:
    return [trade["trade_id"] for trade in document["trades"]]


class ShelfBot:
    """Has these rows to sell, and remembers the periods it was asked for."""

    def __init__(self, rows: list[dict[str, Any]], label: str = "simulated", complete: bool = True):
        self.complete = complete
        self.label = self.source = label
        self.asked: list[tuple[datetime, datetime]] = []
        self._rows = rows

    def closed_trades(self, start: datetime, end: datetime) -> ClosedTrades:
        self.asked.append((start, end))
        rows = [r for r in self._rows if start <= datetime.fromisoformat(r["closed_at"]) < end]
        return believe_trades(rows, complete=self.complete)


@pytest.mark.parametrize(
    ("closed_at", "day"),
    [
        pytest.param("2026-03-29T23:30:00-05:00", "2026-03-30", id="B134"),
        pytest.param("2026-03-29T23:59:59.999Z", "2026-03-29", id="B135-last millisecond"),
        pytest.param("2026-03-29T23:59:59.999999Z", "2026-03-29", id="B135-last microsecond"),
        pytest.param("2026-03-30T00:00:00Z", "2026-03-30", id="B135-midnight"),
        pytest.param("2026-03-30T01:30:00+02:00", "2026-03-29", id="east of Greenwich"),
        pytest.param("2026-03-29T03:30:00+02:00", "2026-03-29", id="the night of a change to summer time"),
    ],
)
def test_a_trade_belongs_to_the_utc_day_it_was_closed_on(closed_at: str, day: str):
    documents = by_day([row("a", closed_at)], ["2026-03-28", "2026-03-29", "2026-03-30", "2026-03-31"])
    assert [d for d, document in documents.items() if document["total"]] == [day]
    assert ids(documents[day]) == ["a"]


def test_a_day_without_trades_says_so():
    documents = by_day([row("a", "2025-03-02T12:00:00Z")], ["2025-03-01", "2025-03-02"])
    assert documents["2025-03-01"] == {
        "day": "2025-03-01", "candles": "simulated", "outcome": "no_trades", "total": 0, "complete": True,
        "vanished": [], "duplicates_dropped": 0, "quarantined": [], "trades": [], "source": "simulated",
    }  # fmt: skip
    assert documents["2025-03-02"]["outcome"] == "trades"
    assert list(by_day([], ["2025-03-01"])) == ["2025-03-01"]


def test_a_stored_trade_has_every_field_as_plain_json_in_order():
    later, sooner = row("b", "2025-03-01T02:00:00Z"), row("a", "2025-03-01T01:00:00+00:00", market="spot")
    (document,) = by_day([later, sooner], ["2025-03-01"]).values()
    assert ids(document) == ["a", "b"]
    assert list(document["trades"][0]) == list(TRADE_FIELDS)
    assert document["trades"][0]["closed_at"] == "2025-03-01T01:00:00.000000Z"
    assert (document["trades"][0]["market"], document["trades"][1]["market"]) == ("spot", None)
    canonical_json(document)


def test_a_quarantined_row_is_told_under_its_day_with_its_reason_and_a_timeless_one_under_the_last():
    rows = [row("a", "2025-03-01T01:00:00Z", pnl_usdt=9_000.0), row("b", "yesterday"), "junk"]
    documents = by_day(rows, ["2025-03-01", "2025-03-02"])
    (first,) = documents["2025-03-01"]["quarantined"]
    assert first["row"]["trade_id"] == "a"
    assert "does not follow" in first["reason"]
    assert [q["row"] if isinstance(q["row"], str) else q["row"]["trade_id"]
            for q in documents["2025-03-02"]["quarantined"]] == ["b", "junk"]  # fmt: skip
    canonical_json(documents)


def test_a_list_that_may_be_cut_off_is_incomplete_on_every_day():
    documents = by_day([row("a", "2025-03-02T12:00:00Z")], ["2025-03-01", "2025-03-02"], complete=False)
    assert [document["complete"] for document in documents.values()] == [False, False]


def test_dropped_duplicates_are_counted():
    twice = row("a", "2025-03-01T12:00:00Z")
    (document,) = by_day([twice, dict(twice)], ["2025-03-01"]).values()
    assert (document["total"], document["duplicates_dropped"]) == (1, 1)


def test_the_document_of_a_day_does_not_depend_on_the_range_it_was_read_with():
    """Else every backfill with another range appends a revision of a day that did not change."""
    twice = row("a", "2025-03-01T12:00:00Z")
    alone = by_day([twice, dict(twice)], ["2025-03-01"])
    together = by_day([twice, dict(twice)], ["2025-03-01", "2025-03-02"])
    assert together["2025-03-01"] == alone["2025-03-01"]


def forgetful(known: list[Any], rows: list[Any], days: list[str]) -> dict[str, dict[str, Any]]:
    """The documents of a bot that told `known` before and tells `rows` now."""
    return trades_by_day(believe_trades(rows), days, label="simulated", known=by_day(known, days))


def test_a_trade_the_bot_leaves_out_now_is_kept_in_its_place_and_named():
    first, middle, last = (row(i, f"2025-03-01T1{i}:00:00Z") for i in "012")
    (document,) = forgetful(
        [first, middle, last], [last | {"close_reason": "corrected"}, first], ["2025-03-01"]
    ).values()
    assert ids(document) == ["0", "1", "2"]
    assert [trade["close_reason"] for trade in document["trades"]] == ["signal", "signal", "corrected"]
    assert (document["vanished"], document["total"], document["outcome"]) == (["1"], 3, "incomplete")
    assert document["complete"]  # the list was not cut off: it forgot


def test_a_bot_that_forgot_everything_rewrites_no_day_and_says_the_same_again():
    rows, days = [row("b", "2025-03-01T12:00:00Z"), row("a", "2025-03-01T13:00:00Z")], ["2025-03-01", "2025-03-02"]
    once = forgetful(rows, [], days)
    assert ids(once["2025-03-01"]) == ["b", "a"]
    assert (once["2025-03-01"]["vanished"], once["2025-03-02"]["outcome"]) == (["a", "b"], "no_trades")
    again = trades_by_day(believe_trades([]), days, label="simulated", known=once)
    assert canonical_json(again) == canonical_json(once)
    remembered = trades_by_day(believe_trades(rows), days, label="simulated", known=once)
    assert canonical_json(remembered) == canonical_json(trades_by_day(believe_trades(rows), days, label="simulated"))


def test_a_trade_that_moved_to_another_day_or_is_no_longer_believed_has_not_vanished():
    days = ["2025-03-01", "2025-03-02"]
    known = [row("moved", "2025-03-01T23:59:59Z"), row("spoilt", "2025-03-01T12:00:00Z")]
    documents = forgetful(
        known, [known[0] | {"closed_at": "2025-03-02T00:00:00Z"}, known[1] | {"quantity": -1.0}], days
    )
    assert [ids(documents[day]) for day in days] == [[], ["moved"]]
    assert [documents[day]["vanished"] for day in days] == [[], []]
    assert len(documents["2025-03-01"]["quarantined"]) == 1


def test_a_quarantined_row_whose_id_is_no_text_disturbs_nobody():
    (document,) = forgetful([row("a", "2025-03-01T12:00:00Z")], [{"trade_id": ["a"]}], ["2025-03-01"]).values()
    assert (ids(document), document["vanished"]) == (["a"], ["a"])


def test_a_bad_row_is_reported_whenever_it_was_closed():
    # a time in epoch seconds / 1000, as bots that mistake the unit send it
    strange = row("a", 1_740_787, quantity=-1.0, opened_at=1_740_786)
    documents = by_day([strange], ["2025-03-01", "2025-03-02"])
    assert sum(len(document["quarantined"]) for document in documents.values()) == 1


def test_stored_days_are_read_from_the_store_and_only_the_others_from_the_bot(tmp_path: Path):
    rows = [row(f"t{day}", f"2025-03-0{day}T12:00:00+00:00") for day in range(1, 7)]
    documents = by_day(rows, ["2025-03-01", "2025-03-02", "2025-03-04"])
    documents["2025-03-02"]["trades"][0]["close_reason"] = "from the store"
    bot = ShelfBot(rows)
    frame = read(tmp_path, documents, bot, date(2025, 3, 1), date(2025, 3, 5)).frame
    assert frame["trade_id"].tolist() == ["t1", "t2", "t3", "t4", "t5"]
    assert frame["close_reason"].tolist() == ["signal", "from the store", "signal", "signal", "signal"]
    assert bot.asked == [(midnight("2025-03-03"), midnight("2025-03-05") + DAY)]


def test_a_bot_is_not_asked_where_every_day_is_stored(tmp_path: Path):
    rows = [row("a", "2025-03-01T12:00:00Z")]
    bot = ShelfBot(rows)
    frame = read(tmp_path, by_day(rows, ["2025-03-01", "2025-03-02"]), bot, date(2025, 3, 1), date(2025, 3, 2)).frame
    assert frame["trade_id"].tolist() == ["a"]
    assert bot.asked == []


def test_a_day_stored_from_other_candles_counts_as_not_stored(tmp_path: Path):
    documents = by_day([row("simulated", "2025-03-01T12:00:00Z")], ["2025-03-01"])
    bot = ShelfBot([row("recorded", "2025-03-01T12:00:00+00:00")], label="recorded")
    frame = read(tmp_path, documents, bot, date(2025, 3, 1), date(2025, 3, 1)).frame
    assert frame["trade_id"].tolist() == ["recorded"]


def test_read_trades_come_back_as_the_bot_gave_them(tmp_path: Path):
    rows = [row("a", "2025-03-01T12:00:00.123456Z", position_id="p"), row("b", "2025-03-02T23:59:59.999999Z")]
    original = believe_trades(rows).frame
    documents = by_day(rows, ["2025-03-01", "2025-03-02"])
    for known in (documents, {}, {"2025-03-01": documents["2025-03-01"]}):  # all stored, none, one
        frame = read(tmp_path, known, ShelfBot(rows), date(2025, 3, 1), date(2025, 3, 2)).frame
        assert frame.columns.tolist() == list(TRADE_FIELDS)
        assert frame["closed_at"].dtype == original["closed_at"].dtype
        assert frame.astype(object).where(frame.notna(), None).to_dict("records") == original.astype(object).where(
            original.notna(), None
        ).to_dict("records")


def test_days_without_any_trade_give_an_empty_frame_of_the_same_shape(tmp_path: Path):
    frame = read(tmp_path, {}, ShelfBot([]), date(2025, 3, 1), date(2025, 3, 2)).frame
    assert frame.empty
    assert frame.columns.tolist() == list(TRADE_FIELDS)
    assert isinstance(frame["closed_at"].dtype, pd.DatetimeTZDtype)


def test_trailing_trades_are_the_stored_ones_of_90_days_before_and_never_before_the_bots_first(tmp_path: Path):
    rows = [row(day, f"{day}T12:00:00+00:00", opened_at="2024-01-01T00:00:00Z")
            for day in ("2024-12-11", "2024-12-12", "2025-03-11", "2025-03-12", "2025-03-13")]  # fmt: skip

    class Young(ShelfBot):
        first_day = date(2024, 1, 1)

        def calendar(self) -> Calendar:
            return Calendar(self.first_day, date(2025, 3, 13), live=False)

    bot = Young(rows)
    with SqliteStore(tmp_path / "audit.db") as store:
        (stored,) = by_day([rows[2] | {"close_reason": "from the store"}], ["2025-03-11"]).values()
        store.append("closed_trades", [Entry("2025-03-11", "", stored)])
        frame = trailing_trades(store, bot, ["2025-03-12"]).frame  # 90 days before are 2024-12-12
        assert frame["trade_id"].tolist() == ["2024-12-12", "2025-03-11", "2025-03-12"]
        assert frame["close_reason"].tolist() == ["signal", "from the store", "signal"]
        bot.first_day = date(2025, 3, 12)
        assert trailing_trades(store, bot, ["2025-03-12", "2025-03-13"]).frame["trade_id"].tolist() == [
            "2025-03-12", "2025-03-13",
        ]  # fmt: skip


@pytest.mark.parametrize("spoil", ["quarantine", "cut off"])
def test_days_whose_trades_may_not_be_all_are_named_stored_or_not(tmp_path: Path, spoil: str):
    good, bad = row("a", "2025-03-01T12:00:00Z"), row("b", "2025-03-02T12:00:00Z", quantity=-1.0)
    rows, complete = ([good, bad], True) if spoil == "quarantine" else ([good], False)
    days = ["2025-03-01", "2025-03-02"]
    expected = {"2025-03-02"} if spoil == "quarantine" else set(days)
    known = by_day(rows, days, complete=complete)
    period = date(2025, 3, 1), date(2025, 3, 2)
    assert read(tmp_path, known, ShelfBot([]), *period).incomplete == expected
    assert read(tmp_path, {}, ShelfBot(rows, complete=complete), *period).incomplete == expected


def test_a_list_cut_off_on_a_day_without_trades_is_no_day_without_trades():
    assert by_day([], ["2025-03-01"], complete=False)["2025-03-01"]["outcome"] == "incomplete"


def test_while_the_store_is_down_every_day_is_read_from_the_bot(tmp_path: Path):
    store = SqliteStore(tmp_path / "audit.db")
    store.close()
    trades = read_trades(store, ShelfBot([row("a", "2025-03-01T12:00:00Z")]), date(2025, 3, 1), date(2025, 3, 1))
    assert trades.frame["trade_id"].tolist() == ["a"]


def test_midnight_is_utc_of_a_day_or_its_text():
    assert midnight("2025-03-01") == midnight(date(2025, 3, 1)) == datetime(2025, 3, 1, tzinfo=UTC)
