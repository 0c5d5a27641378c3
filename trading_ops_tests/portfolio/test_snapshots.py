"""Is a day's equity what the snapshots, the flows and the trades say, and is what was rebuilt marked so?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.bot.records import believe_trades
from trading_ops.performance.verdict import Limits
from trading_ops.performance.window import measure_days
from trading_ops.portfolio.equity import PORTFOLIO, DailyEquity, realised_by_day, trusted_returns
from trading_ops.portfolio.snapshots import read_daily_equity, record_flow, record_snapshot, take_snapshot
from trading_ops_tests.fakes import ScriptedBot, trade

FIRST, LAST = "2025-03-01", "2025-03-04"
ACCOUNT = {
    "as_of": "2025-03-05T00:00:20Z", "initial_usdt": 20_000.0, "balance_usdt": 20_000.0, "equity_usdt": 20_000.0,
    "total_return_pct": 0.0, "total_trades": 0, "winning_trades": 0,
    "initial_by_strategy": {"rsi": 10_000.0, "macd": 10_000.0},
}  # fmt: skip


@pytest.fixture
def store(tmp_path: Path):
    with SqliteStore(tmp_path / "audit.db") as opened:
        yield opened


def bot_with(rows: Sequence[Any] = (), **account: Any) -> ScriptedBot:
    """A bot that keeps no equity of its own, with 10,000 USDT for rsi and for macd."""
    return ScriptedBot(rows, first_day=FIRST, last_day=LAST, account=ACCOUNT | account)


def snapshot(store: SqliteStore, bot: ScriptedBot, as_of: str, rsi: float, open_profit: float = 0.0, **more: Any):
    """The account as it is with this equity of rsi, of which `open_profit` is not realised."""
    bot.account = ACCOUNT | {
        "as_of": as_of, "equity_usdt": rsi + 10_000.0, "balance_usdt": rsi + 10_000.0 - open_profit,
        "equity_by_strategy": {"rsi": rsi, "macd": 10_000.0},
        "unrealised_by_strategy": {"rsi": open_profit, "macd": 0.0}, **more,
    }  # fmt: skip
    return record_snapshot(store, take_snapshot(bot))


def read(store: SqliteStore, bot: ScriptedBot, first: str = FIRST, last: str = LAST) -> DailyEquity:
    def closed(since: date, until: date) -> tuple[pd.DataFrame, set[str]]:
        found = believe_trades(bot.rows)
        within = found.frame["closed_at"].dt.date
        return found.frame[(within >= since) & (within <= until)], {str(q.closed_at.date()) for q in found.quarantined}

    return read_daily_equity(store, bot, date.fromisoformat(first), date.fromisoformat(last), closed)


def column(daily: DailyEquity, name: str = "rsi") -> list[float]:
    return daily.equity[name].tolist()


def test_a_days_end_is_the_snapshot_around_midnight(store):
    bot = bot_with()
    for as_of, worth in (
        ("2025-03-01T23:50:00Z", 10_001.0),
        ("2025-03-02T00:00:20Z", 10_002.0),  # nearer to the end of the 1st
        ("2025-03-02T12:00:00Z", 10_003.0),
        ("2025-03-02T23:59:00Z", 10_004.0),
        ("2025-03-04T01:14:00+01:00", 10_005.0),  # 00:14 UTC
        ("2025-03-05T00:00:05Z", 10_006.0),
    ):
        snapshot(store, bot, as_of, worth)
    daily = read(store, bot)
    assert column(daily) == [10_002.0, 10_004.0, 10_005.0, 10_006.0]
    assert column(daily, PORTFOLIO) == [20_002.0, 20_004.0, 20_005.0, 20_006.0]
    assert not daily.rebuilt("rsi", pd.Timestamp(FIRST, tz="UTC"))


def test_a_day_without_a_snapshot_is_rebuilt_from_closed_trades_and_marked(store):
    rows = [trade("1", "2025-03-02T10:00:00+00:00", 50.0), trade("2", "2025-03-03T10:00:00+00:00", -20.0)]
    daily = read(store, bot_with(rows))
    assert column(daily) == [10_000.0, 10_050.0, 10_030.0, 10_030.0]
    assert column(daily, "macd") == [10_000.0] * 4
    assert column(daily, PORTFOLIO) == [20_000.0, 20_050.0, 20_030.0, 20_030.0]
    assert daily.closed_only is not None
    assert daily.closed_only.all(axis=None)
    assert daily.unrealised["rsi"].isna().all()


def test_a_snapshot_sets_the_rebuilt_days_right_where_the_bot_forgot_trades(store):
    # the bot remembers only the trade of the 3rd; what it earned before shows in the snapshot of the 2nd
    bot = bot_with([trade("1", "2025-03-03T10:00:00+00:00", 50.0)])
    snapshot(store, bot, "2025-03-03T00:00:10Z", 10_700.0, open_profit=30.0)
    daily = read(store, bot)
    # 670 were realised; 30 are open, so a closed-only day after it counts from 10,670
    assert column(daily) == [10_670.0, 10_700.0, 10_720.0, 10_720.0]
    assert daily.closed_only["rsi"].tolist() == [True, False, True, True]
    assert daily.unrealised["rsi"].tolist() == pytest.approx([nan, 30.0, nan, nan], nan_ok=True)


def test_the_rebuilt_equity_of_a_range_does_not_depend_on_where_the_range_begins(store):
    rows = [trade("1", "2025-03-01T10:00:00+00:00", 50.0), trade("2", "2025-03-03T10:00:00+00:00", -20.0)]
    whole = read(store, bot_with(rows))
    late = read(store, bot_with(rows), first="2025-03-03")
    assert column(late) == column(whole)[2:]


def test_a_strategy_of_unknown_start_and_no_snapshot_is_unknown(store):
    bot = bot_with([trade("1", "2025-03-02T10:00:00+00:00", 50.0, strategy="volume")])
    assert all(value != value for value in column(read(store, bot), "volume"))


def test_a_bot_that_tells_only_the_accounts_equity_has_its_strategies_rebuilt(store):
    bot = bot_with([trade("1", "2025-03-02T10:00:00+00:00", 50.0)])
    bot.account = ACCOUNT | {"as_of": "2025-03-03T00:00:10Z", "equity_usdt": 20_090.0, "balance_usdt": 20_050.0}
    record_snapshot(store, take_snapshot(bot))
    daily = read(store, bot)
    assert column(daily) == [10_000.0, 10_050.0, 10_050.0, 10_050.0]
    assert column(daily, PORTFOLIO) == [20_000.0, 20_090.0, 20_050.0, 20_050.0]
    assert daily.closed_only[PORTFOLIO].tolist() == [True, False, True, True]


def test_snapshots_of_another_account_are_not_mixed_in(store):
    other = bot_with()
    other.source = "another"
    snapshot(store, other, "2025-03-03T00:00:10Z", 99_999.0)
    rows = [trade("1", "2025-03-01T10:00:00+00:00", 50.0)]
    assert column(read(store, bot_with(rows))) == [10_050.0] * 4


def test_a_malformed_account_leaves_unknown_days_unknown(store):
    bot = bot_with()
    snapshot(store, bot, "2025-03-02T00:00:10Z", 10_001.0)
    bot.account = {}
    assert column(read(store, bot)) == pytest.approx([10_001.0, nan, nan, nan], nan_ok=True)


def test_a_second_snapshot_of_a_quarter_of_an_hour_is_a_revision_and_the_same_one_is_not(store):
    bot = bot_with()
    first = snapshot(store, bot, "2025-03-03T10:01:00Z", 10_001.0)
    again = snapshot(store, bot, "2025-03-03T10:01:00Z", 10_001.0)
    later = snapshot(store, bot, "2025-03-03T10:14:59Z", 10_002.0)
    next_one = snapshot(store, bot, "2025-03-03T10:15:00Z", 10_003.0)
    assert [(r.seq, r.revision, r.appended) for r in (first, again, later, next_one)] == [
        (1, 1, True), (1, 1, False), (2, 2, True), (3, 1, True),
    ]  # fmt: skip


def test_a_noted_deposit_is_a_flow_of_its_day_of_the_strategy_and_of_the_account(store):
    bot = bot_with()
    noon = datetime(2025, 3, 2, 12, tzinfo=UTC)
    record_flow(store, bot, 500.0, noon, strategy="rsi", reason="more capital")
    record_flow(store, bot, -200.0, noon, strategy=None, reason="rent")
    daily = read(store, bot)
    assert daily.flows["rsi"].tolist() == [0.0, 500.0, 0.0, 0.0]
    assert daily.flows[PORTFOLIO].tolist() == [0.0, 300.0, 0.0, 0.0]
    assert column(daily) == [10_000.0, 10_500.0, 10_500.0, 10_500.0]


def test_deposits_that_the_bot_tells_are_the_difference_between_two_days_ends(store):
    bot = bot_with()
    for as_of, total in (
        ("2025-03-01T23:59:00Z", 0.0),
        ("2025-03-03T00:00:10Z", 500.0),
        ("2025-03-05T00:00:10Z", 400.0),
    ):
        snapshot(store, bot, as_of, 10_000.0, net_deposits_usdt=total)
    record_flow(store, bot, 500.0, datetime(2025, 3, 2, 12, tzinfo=UTC), strategy="rsi", reason="for rsi")
    daily = read(store, bot)
    assert daily.flows[PORTFOLIO].tolist() == [0.0, 500.0, 0.0, -100.0]  # not 1,000: noted and told are one deposit
    assert daily.flows["rsi"].tolist() == [0.0, 500.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("amount", "at", "strategy", "said"),
    [
        (0.0, "2025-03-02T12:00:00", None, "amount 0.0"),
        (nan, "2025-03-02T12:00:00", None, "amount nan"),
        (float("inf"), "2025-03-02T12:00:00", None, "amount inf"),
        (1.0, "2025-02-28T12:00:00", None, "is measured from 2025-03-01"),
        (1.0, "2025-03-09T12:00:00", None, "is measured from 2025-03-01"),
        (1.0, "2025-03-02T12:00:00", "rsl", "there are rsi"),
    ],
)
def test_a_flow_that_cannot_be_is_refused_with_what_would_be_right(store, amount, at, strategy, said):
    with pytest.raises(ValueError, match=said):
        record_flow(store, bot_with(), amount, datetime.fromisoformat(f"{at}+00:00"), strategy=strategy, reason="x")
    assert store.heads() == []


def test_a_flow_of_the_account_is_refused_where_the_bot_tells_them_itself(store):
    at = datetime(2025, 3, 2, 12, tzinfo=UTC)
    with pytest.raises(ValueError, match="tells the account's deposits itself"):
        record_flow(store, bot_with(net_deposits_usdt=0.0), 1.0, at, strategy=None, reason="x")


def test_a_bot_that_keeps_its_own_equity_needs_no_flow(store):
    bot = ScriptedBot(first_day=FIRST, last_day=LAST, equity={LAST: 10_000.0}, account=ACCOUNT)
    with pytest.raises(ValueError, match="keeps its own equity"):
        record_flow(store, bot, 1.0, datetime(2025, 3, 2, 12, tzinfo=UTC), strategy=None, reason="x")


def test_while_the_store_is_down_every_day_is_rebuilt_and_marked(tmp_path):
    store = SqliteStore(tmp_path / "audit.db")
    bot = bot_with([trade("1", "2025-03-01T10:00:00+00:00", 50.0)])
    snapshot(store, bot, "2025-03-03T00:00:10Z", 10_700.0)
    store.close()
    daily = read(store, bot)
    assert column(daily) == [10_050.0] * 4
    assert daily.closed_only.all(axis=None)


def flat_returns(daily: DailyEquity, bot: ScriptedBot, name: str = PORTFOLIO) -> list[float | None]:
    """The trusted returns in percent."""
    trades = believe_trades(bot.rows).frame
    found = trusted_returns(daily, realised_by_day(trades, daily.equity))[name]
    return [None if value != value else round(100 * value, 9) for value in found]


def test_a_missed_snapshot_is_neither_a_return_nor_a_drawdown(store):
    bot = bot_with()
    for as_of in ("2025-03-02", "2025-03-03", "2025-03-05"):  # 24:00 of the 3rd is missing; the market stands still
        snapshot(store, bot, f"{as_of}T00:00:10Z", 13_000.0, open_profit=3_000.0)
    daily = read(store, bot)
    assert column(daily, PORTFOLIO) == [23_000.0, 23_000.0, 20_000.0, 23_000.0]
    assert flat_returns(daily, bot) == [None, 0.0, None, None]
    assert daily.comparable()[PORTFOLIO].tolist() == pytest.approx([23_000.0] * 4)


def test_a_missed_snapshot_of_an_account_without_open_positions_keeps_its_return(store):
    bot = bot_with([trade("1", "2025-03-03T10:00:00+00:00", 200.0)])
    for as_of, worth in (("2025-03-02", 10_000.0), ("2025-03-03", 10_000.0), ("2025-03-05", 10_200.0)):
        snapshot(store, bot, f"{as_of}T00:00:10Z", worth)
    assert flat_returns(read(store, bot), bot) == [None, 0.0, 1.0, 0.0]


def test_deposits_told_before_the_first_snapshot_are_no_profit(store):
    bot = bot_with()
    for as_of in ("2025-03-02", "2025-03-03", "2025-03-04", "2025-03-05"):
        snapshot(store, bot, f"{as_of}T00:00:10Z", 20_000.0, net_deposits_usdt=10_000.0)
    daily = read(store, bot)
    assert daily.flows[PORTFOLIO].tolist() == [10_000.0, 0.0, 0.0, 0.0]
    assert flat_returns(daily, bot) == [None, 0.0, 0.0, 0.0]


def test_a_noted_deposit_stays_on_its_day_when_the_bot_begins_to_tell_the_total(store):
    bot = bot_with()
    for as_of, worth in (("2025-03-02", 10_000.0), ("2025-03-03", 15_000.0), ("2025-03-04", 15_000.0)):
        snapshot(store, bot, f"{as_of}T00:00:10Z", worth)
    record_flow(store, bot, 5_000.0, datetime(2025, 3, 2, 12, tzinfo=UTC), strategy=None, reason="capital")
    before = read(store, bot).flows[PORTFOLIO].tolist()
    snapshot(store, bot, "2025-03-05T00:00:10Z", 15_500.0, net_deposits_usdt=5_500.0)  # and 500 nobody noted
    assert before == [0.0, 5_000.0, 0.0, 0.0]
    assert read(store, bot).flows[PORTFOLIO].tolist() == [500.0, 5_000.0, 0.0, 0.0]


def test_a_later_look_in_the_same_quarter_does_not_move_the_days_end(store):
    bot = bot_with()
    snapshot(store, bot, "2025-03-03T00:00:10Z", 10_000.0, net_deposits_usdt=0.0)
    snapshot(store, bot, "2025-03-03T00:14:00Z", 9_250.0, open_profit=-900.0, net_deposits_usdt=150.0)
    daily = read(store, bot)
    assert column(daily)[1] == 10_000.0
    assert daily.flows[PORTFOLIO].tolist() == [0.0] * 4  # the deposit after midnight is not of the 2nd


def test_the_account_earns_what_a_strategy_without_equity_of_its_own_earns(store):
    bot = bot_with([trade("1", "2025-03-02T10:00:00+00:00", 500.0, strategy="macd")])
    for as_of, worth in (("2025-03-02", 20_000.0), ("2025-03-03", 20_500.0), ("2025-03-04", 20_500.0)):
        bot.account = ACCOUNT | {
            "as_of": f"{as_of}T00:00:10Z", "equity_usdt": worth, "balance_usdt": worth,
            "equity_by_strategy": {"rsi": 10_000.0}, "unrealised_by_strategy": {"rsi": 0.0},
        }  # fmt: skip
        record_snapshot(store, take_snapshot(bot))
    daily = read(store, bot)
    assert column(daily, "macd") == [10_000.0, 10_500.0, 10_500.0, 10_500.0]
    assert flat_returns(daily, bot)[1] == 2.5


def test_days_before_the_first_sign_of_life_are_unknown_not_flat(store):
    bot = bot_with([trade("1", "2025-03-03T10:00:00+00:00", 50.0)])
    assert column(read(store, bot)) == pytest.approx([nan, 10_000.0, 10_050.0, 10_050.0], nan_ok=True)


def test_what_hangs_on_a_day_with_missing_trades_is_unknown_until_a_snapshot(store):
    rows = [trade("1", "2025-03-01T10:00:00+00:00", 50.0), trade("2", "2025-03-02T10:00:00+00:00") | {"pnl_usdt": -3e3}]
    assert column(read(store, bot_with(rows))) == pytest.approx([10_050.0, nan, nan, nan], nan_ok=True)
    bot = bot_with(rows)
    snapshot(store, bot, "2025-03-04T00:00:10Z", 7_050.0)
    assert column(read(store, bot)) == pytest.approx([nan, 7_050.0, 7_050.0, 7_050.0], nan_ok=True)


def test_the_equity_of_a_bots_first_days_is_measured(store):
    bot = bot_with([trade("1", "2025-03-01T10:00:00+00:00", 50.0)])
    documents = measure_days(believe_trades(bot.rows).frame, read(store, bot), [FIRST], Limits(), label="x")
    assert documents[FIRST]["closed_only_days"] == [FIRST]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-500, 500).map(lambda x: round(x, 2)), min_size=4, max_size=4), st.integers(0, 3))
def test_rebuilding_around_any_snapshot_of_a_flat_account_gives_the_true_equity(profits, known):
    """Without open positions, closed trades tell everything: one snapshot more or less changes nothing."""
    rows = [trade(str(i), f"2025-03-0{i + 1}T10:00:00+00:00", profit) for i, profit in enumerate(profits)]
    truth = [10_000.0 + sum(profits[: i + 1]) for i in range(4)]
    import tempfile

    with tempfile.TemporaryDirectory() as folder, SqliteStore(Path(folder) / "audit.db") as store:
        bot = bot_with(rows)
        snapshot(store, bot, f"2025-03-0{known + 2}T00:00:10Z", truth[known])
        assert column(read(store, bot)) == pytest.approx(truth)
