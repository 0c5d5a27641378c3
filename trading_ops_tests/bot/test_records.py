"""Is a row believed exactly where it can be true, and never lost where it cannot?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf, nan
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trading_ops.audit.chain import canonical_json
from trading_ops.bot.records import (
    TRADE_FIELDS,
    BotHealth,
    ClosedTrades,
    InvalidRecord,
    OpenOrder,
    OpenPosition,
    StrategyState,
    UsageStatistics,
    believe_trades,
    trades_frame,
)

GOOD = {  # 2 coins from 100 to 110 for a fee of 1 and funding of 0.5: 18.5 USDT, 9.25 % of 200
    "trade_id": "t1", "strategy": "rsi", "symbol": "BTCUSDT", "side": "long", "quantity": 2.0, "entry_price": 100.0,
    "exit_price": 110.0, "opened_at": "2025-03-01T10:00:00Z", "closed_at": "2025-03-01T12:00:00Z", "fee_usdt": 1.0,
    "funding_usdt": 0.5, "pnl_usdt": 18.5, "pnl_pct": 9.25, "close_reason": "signal", "market": "futures",
    "position_id": "p1",
}  # fmt: skip
SHORT = {"side": "short", "exit_price": 90.0}  # the same profit the other way round
OPTIONAL = {"funding_usdt": 0.0, "close_reason": "", "market": None, "position_id": None}
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)


def believe(**changes: Any) -> ClosedTrades:
    return believe_trades([GOOD | changes])


def counted(closed: ClosedTrades) -> int:
    return len(closed.frame) + len(closed.quarantined) + len(closed.duplicates)


def test_a_good_row_is_believed_field_by_field():
    closed = believe_trades([GOOD], complete=False)
    (trade,) = closed.frame.to_dict("records")
    assert trade == GOOD | {"opened_at": pd.Timestamp(GOOD["opened_at"]), "closed_at": pd.Timestamp(GOOD["closed_at"])}
    assert (closed.quarantined, closed.duplicates, closed.complete) == ((), (), False)
    assert closed.frame.columns.tolist() == list(TRADE_FIELDS)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(SHORT, id="a short"),
        pytest.param({"pnl_usdt": -21.5, "pnl_pct": -10.75, "exit_price": 90.0}, id="B029 a loss keeps its sign"),
        pytest.param({"funding_usdt": -0.5, "pnl_usdt": 19.5, "pnl_pct": 9.75}, id="funding received"),
        pytest.param({"exit_price": 100.75, "pnl_usdt": 0.0, "pnl_pct": 0.0}, id="a profit of exactly zero"),
        pytest.param({"quantity": 2, "entry_price": 100, "exit_price": 110}, id="whole numbers are numbers"),
        pytest.param({"pnl_usdt": 18.49, "pnl_pct": 9.245}, id="rounded to a cent"),
        pytest.param({"pnl_pct": 9.26}, id="a percentage rounded to hundredths"),
        pytest.param({"closed_at": GOOD["opened_at"]}, id="opened and closed at once"),
        pytest.param({"market": None, "position_id": None}, id="nulls where a field may be unknown"),
        pytest.param({"leverage": 10, "note": {"any": "thing"}}, id="fields of the bot's own are ignored"),
        pytest.param({"fee_usdt": 0, "funding_usdt": 0, "pnl_usdt": 20, "pnl_pct": 10}, id="no costs"),
    ],
)
def test_what_can_be_true_is_believed(changes: dict[str, Any]):
    closed = believe(**changes)
    assert closed.quarantined == ()
    assert closed.frame["pnl_usdt"].tolist() == [changes.get("pnl_usdt", 18.5)]


@pytest.mark.parametrize("field", list(OPTIONAL))
def test_a_field_that_may_be_missing_has_its_default(field: str):
    row = {k: v for k, v in GOOD.items() if k != field}
    if field == "funding_usdt":
        row |= {"pnl_usdt": 19.0, "pnl_pct": 9.5}
    (value,) = believe_trades([row]).frame[field].tolist()
    assert value == OPTIONAL[field] or value != value


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        *[pytest.param({f: v}, f"{f}: ", id=f"{f} {v!r}") for v in (nan, inf, -inf, None, "3", True, [], {})
          for f in ("quantity", "entry_price", "exit_price", "fee_usdt", "pnl_usdt", "pnl_pct")],
        *[pytest.param({"funding_usdt": v}, "funding_usdt: ", id=f"funding_usdt {v!r}")
          for v in (nan, inf, "3", True, [])],
        *[pytest.param({f: v}, f"{f}: ", id=f"{f} {v!r}") for v in (0.0, -1.0)
          for f in ("quantity", "entry_price", "exit_price")],
        pytest.param({"fee_usdt": -0.01}, "fee_usdt: ", id="a negative fee"),
        *[pytest.param({f: v}, f"{f}: ", id=f"{f} {v!r:.9}") for v in (None, "", 7, b"x", "x" * 201, ["rsi"])
          for f in ("trade_id", "strategy", "symbol")],
        *[pytest.param({"side": v}, "side: ", id=f"side {v!r}") for v in ("LONG", "buy", "", None, 1)],
        *[pytest.param({"market": v}, "market: ", id=f"market {v!r}") for v in ("margin", "", 1)],
        pytest.param({"position_id": 7}, "position_id: ", id="a number for a position"),
        pytest.param({"closed_at": "2025-03-01T09:59:59Z"}, "before opened_at", id="closed before it was opened"),
        pytest.param({"pnl_usdt": 19.5, "pnl_pct": 9.75}, "pnl_usdt 19.5 does not follow", id="the fee left out"),
        pytest.param({"pnl_usdt": 18.47, "pnl_pct": 9.235}, "does not follow", id="three cents off"),
        pytest.param({"pnl_usdt": -18.5, "pnl_pct": -9.25}, "does not follow", id="the sign turned round"),
        pytest.param({"side": "short"}, "does not follow", id="the wrong side"),
        pytest.param({"pnl_pct": 92.5}, "pnl_pct 92.5 is not", id="a percentage of the margin, not of the notional"),
        pytest.param({"pnl_pct": 0.0925}, "pnl_pct 0.0925 is not", id="a fraction for a percentage"),
    ],
)  # fmt: skip
def test_what_cannot_be_true_is_quarantined_with_its_reason(changes: dict[str, Any], named: str):
    closed = believe(**changes)
    assert (len(closed.frame), counted(closed)) == (0, 1)
    (quarantined,) = closed.quarantined
    assert named in quarantined.reason
    assert "\n" not in quarantined.reason
    assert quarantined.closed_at is not None
    canonical_json(quarantined.row)


@pytest.mark.parametrize("field", sorted(set(GOOD) - set(OPTIONAL)))
def test_a_missing_field_is_named(field: str):
    closed = believe_trades([{k: v for k, v in GOOD.items() if k != field}])
    assert [q.reason for q in closed.quarantined] == [f"{field}: Field required"]


@pytest.mark.parametrize(
    "junk",
    [
        None, 0, 3.5, nan, True, "", "a trade", b"bytes", [], [GOOD], {}, {"data": [GOOD]},
        {"success": True, "data": [GOOD]}, {"success": False, "error": "down"}, {1: 2}, object(), NOON,
    ],
    ids=lambda junk: f"{type(junk).__name__} {junk!r:.20}",
)  # fmt: skip
def test_wrapped_or_other_junk_is_quarantined_and_the_good_row_beside_it_believed(junk: Any):
    closed = believe_trades([junk, GOOD, junk])
    assert closed.frame["trade_id"].tolist() == ["t1"]
    assert len(closed.quarantined) == 2
    canonical_json([q.row for q in closed.quarantined])


# times


@pytest.mark.parametrize(
    "written",
    [
        "2025-03-01T12:00:00Z",
        "2025-03-01T12:00:00+00:00",
        "2025-03-01T12:00:00.000Z",
        "2025-03-01 12:00:00Z",
        "2025-03-01T07:00:00-05:00",
        "2025-03-01T17:45:00+05:45",
        "2025-03-02T00:00:00+12:00",
        pytest.param(1_740_830_400_000, id="epoch milliseconds"),
        pytest.param(1_740_830_400_000.0, id="epoch milliseconds as a float"),
        pytest.param(NOON, id="a datetime"),
    ],
)
def test_B134_any_offset_and_epoch_milliseconds_are_one_instant_in_utc(written: Any):
    closed = believe(closed_at=written)
    assert closed.quarantined == ()
    assert closed.frame["closed_at"].tolist() == [pd.Timestamp(NOON)]
    assert str(closed.frame["closed_at"].dtype) == "datetime64[us, UTC]"


@pytest.mark.parametrize(
    "written",
    ["2025-03-01T12:00:00", "2025-03-01", "yesterday", "", "NaT", None, True, nan, inf, 10**30, [], {},
     pytest.param(datetime(2025, 3, 1, 12), id="a naive datetime")],  # noqa: DTZ001
)  # fmt: skip
@pytest.mark.parametrize("field", ["opened_at", "closed_at"])
def test_a_time_without_zone_or_sense_is_quarantined_not_guessed_at(field: str, written: Any):
    (quarantined,) = believe(**{field: written}).quarantined
    assert quarantined.reason.startswith(f"{field}: ")
    assert quarantined.closed_at == (None if field == "closed_at" else NOON)


def test_a_row_is_reported_under_its_utc_day_even_when_it_is_not_believed():
    (quarantined,) = believe(quantity=-1.0, closed_at="2026-03-29T23:30:00-05:00").quarantined
    assert quarantined.closed_at == datetime(2026, 3, 30, 4, 30, tzinfo=UTC)


# duplicates


def test_an_identical_row_is_dropped_and_counted():
    later = GOOD | {"closed_at": "2025-03-01T13:00:00+01:00"}  # the same instant in other words
    closed = believe_trades([GOOD, dict(GOOD), later, GOOD | {"note": "other"}])
    assert (len(closed.frame), len(closed.duplicates), closed.quarantined) == (1, 3, ())


def test_a_second_row_with_the_same_id_and_other_content_is_quarantined_and_the_first_kept():
    other = GOOD | {"exit_price": 120.0, "pnl_usdt": 38.5, "pnl_pct": 19.25}
    closed = believe_trades([GOOD, other, other])
    assert closed.frame["pnl_usdt"].tolist() == [18.5]
    assert [q.reason for q in closed.quarantined] == [
        "trade_id t1 came twice with different content; the first is kept"
    ] * 2
    assert closed.quarantined[0].closed_at == NOON


def test_a_quarantined_row_does_not_hold_the_place_of_a_good_one_with_its_id():
    closed = believe_trades([GOOD | {"quantity": -1.0}, GOOD])
    assert (len(closed.frame), len(closed.quarantined), closed.duplicates) == (1, 1, ())


def test_believed_trades_are_ordered_by_time_and_id():
    rows = [GOOD | {"trade_id": i, "closed_at": at} for i, at in
            (("c", "2025-03-01T12:00:00Z"), ("b", "2025-03-01T14:00:00Z"), ("a", "2025-03-01T12:00:00Z"))]  # fmt: skip
    assert believe_trades(rows).frame["trade_id"].tolist() == ["a", "c", "b"]
    assert believe_trades([]).frame.columns.tolist() == list(TRADE_FIELDS)


def test_a_stored_frame_comes_back_from_iso_text():
    stored = [GOOD | {"closed_at": "2025-03-01T12:00:00.123456Z"}]
    frame = trades_frame(stored)
    assert frame["closed_at"].tolist() == [pd.Timestamp(stored[0]["closed_at"])]
    for column in ("opened_at", "closed_at", "pnl_usdt", "quantity"):
        assert trades_frame([])[column].dtype == frame[column].dtype


# anything at all


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
json_like = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip
moments = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.timezones()).map(  # noqa: DTZ001
    datetime.isoformat
) | st.integers(0, 4_102_444_800_000)
almost = st.fixed_dictionaries(
    {},
    optional={
        "trade_id": st.sampled_from(["t1", "t2", "", 3]),
        "side": st.sampled_from(["long", "short", "up"]),
        "closed_at": moments | scalars,
        "opened_at": moments | scalars,
        "quantity": st.floats(1e-9, 1e9) | scalars,
        "exit_price": st.floats(1e-9, 1e9) | scalars,
        "pnl_usdt": st.floats() | scalars,
        "market": json_like,
    },
).map(lambda changes: GOOD | changes)


@settings(max_examples=150, deadline=None)
@given(st.lists(json_like | almost | st.just(GOOD), max_size=8))
@example([{"success": True, "data": [GOOD]}, GOOD, GOOD, GOOD | {"fee_usdt": 2.0}])
def test_believing_never_fails_and_loses_no_row(rows: list[Any]):
    closed = believe_trades(rows)
    assert counted(closed) == len(rows)
    assert closed.frame["trade_id"].is_unique
    assert closed.frame["closed_at"].is_monotonic_increasing
    for quarantined in closed.quarantined:
        assert quarantined.reason
        assert "\n" not in quarantined.reason
        canonical_json({"row": quarantined.row, "reason": quarantined.reason})


def test_a_notional_too_small_to_be_written_does_not_break_the_list():
    dust = {"quantity": 1e-200, "entry_price": 1e-200, "exit_price": 1e-200, "fee_usdt": 0.0, "funding_usdt": 0.0}
    assert len(believe(**dust, pnl_usdt=0.0, pnl_pct=0.0).quarantined) == 1


def test_a_notional_too_large_to_be_written_is_not_believed():
    vast = {"quantity": 1e300, "entry_price": 1e300, "exit_price": 1e299, "fee_usdt": 0.0, "funding_usdt": 0.0}
    assert len(believe(**vast, pnl_usdt=7.0, pnl_pct=0.0).quarantined) == 1


@pytest.mark.parametrize(
    "changes",
    [{"opened_at": "0001-01-01T00:00:00+05:00"}, {"closed_at": "9999-12-31T23:59:59-05:00"}],
    ids=["the first year", "the last year"],
)
def test_a_time_at_the_end_of_the_calendar_does_not_break_the_list(changes: dict[str, str]):
    assert len(believe(**changes).quarantined) == 1


def nested(levels: int) -> list[Any]:
    return [nested(levels - 1)] if levels else []


@pytest.mark.parametrize("row", [{"trade_id": "\ud800"}, {"\udfff": 1}, nested(150)], ids=["text", "key", "depth"])
def test_a_quarantined_row_can_always_be_stored(row: Any):
    (quarantined,) = believe_trades([row]).quarantined
    canonical_json(quarantined.row)


@pytest.mark.parametrize("field", ["close_reason", "funding_usdt"])
def test_an_optional_field_may_be_null(field: str):
    changes = {field: None} | ({"pnl_usdt": 19.0, "pnl_pct": 9.5} if field == "funding_usdt" else {})
    assert believe(**changes).quarantined == ()


def test_a_small_trade_rounded_to_cents_is_believed():
    """0.0001 BTC from 50,000 to 50,698 less 0.0349 fee: 0.0349 USDT, told as 0.03 USDT and 0.70 %."""
    small = {"quantity": 0.0001, "entry_price": 50_000.0, "exit_price": 50_698.0, "fee_usdt": 0.0349}
    assert believe(**small, funding_usdt=0.0, pnl_usdt=0.03, pnl_pct=0.70).quarantined == ()


# the other records


@pytest.mark.parametrize(
    ("record", "payload"),
    [
        (StrategyState, {"name": "rsi", "enabled": "yes"}),
        (StrategyState, {"name": "", "enabled": True}),
        (StrategyState, {"name": "rsi", "enabled": True, "allocated_usdt": -1.0}),
        (OpenPosition, {"position_id": "p", "strategy": "rsi", "symbol": "B", "side": "long", "quantity": 1.0,
                        "entry_price": 1.0, "mark_price": nan, "opened_at": NOON, "unrealised_usdt": 0.0}),
        (OpenOrder, {"order_id": "o", "strategy": "rsi", "symbol": "B", "intent": "ENTRY", "created_at": NOON}),
        (OpenOrder, {"order_id": "o", "strategy": "rsi", "symbol": "B", "intent": "entry",
                     "created_at": "2025-03-01T12:00:00"}),
        (UsageStatistics, {}),
        (BotHealth, {"healthy": 1, "detail": ""}),
        (BotHealth, "fine"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_is_refused_by_its_name(record: type, payload: Any):
    with pytest.raises(InvalidRecord, match=f"^{record.__name__}: "):
        record.parse(payload)


def test_records_are_read_with_their_times_in_utc():
    east = NOON.astimezone(datetime.fromisoformat("2025-03-01T00:00+05:45").tzinfo)
    order = OpenOrder.parse({"order_id": "o", "strategy": "rsi", "symbol": "B", "intent": "exit", "created_at": east})
    assert (order.created_at, order.created_at.utcoffset()) == (NOON, timedelta(0))
    assert StrategyState.parse({"name": "rsi", "enabled": False}).changed_at is None
