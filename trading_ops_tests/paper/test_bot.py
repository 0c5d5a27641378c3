"""Is the bot to practise on a bot: whole, honest in its books, deterministic, and stopped when told to stop?"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trading_ops.audit.chain import canonical_json
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.backtesting.engine import backtest
from trading_ops.bot.client import Bot, BotError, BotUnreachable, Calendar, UnknownStrategy
from trading_ops.bot.records import BotHealth, believe_trades
from trading_ops.market.parquet import ParquetCandles
from trading_ops.market.simulated import ANCHOR, SimulatedCandles
from trading_ops.paper.bot import STATE, PaperBot
from trading_ops.paper.ledger import CAPITAL_USDT, PARAMETERS, entries_allowed
from trading_ops.performance.trades import trades_by_day

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
ENTERING = datetime(2024, 4, 3, 8, 20, tzinfo=UTC)  # rsi is about to enter ETHUSDT and SOLUSDT
HOLDING = datetime(2024, 4, 3, 10, 20, tzinfo=UTC)  # and holds them here
LATER = datetime(2024, 4, 20, 12, 20, tzinfo=UTC)
FOREVER = (ANCHOR, ANCHOR + timedelta(days=9999))


def hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0)


def paper(store: SqliteStore, now: datetime, symbols: tuple[str, ...] = SYMBOLS) -> PaperBot:
    return PaperBot(SimulatedCandles(lambda: now), lambda: store, symbols, lambda: now)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "audit.db") as store:
        yield store


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaperBot]:
    """A bot at LATER that nobody ever stopped; only to be read."""
    with SqliteStore(tmp_path_factory.mktemp("paper") / "audit.db") as store:
        yield paper(store, LATER)


def trades_of(bot: PaperBot, strategy: str | None = None) -> pd.DataFrame:
    frame = bot.closed_trades(*FOREVER).frame
    return frame if strategy is None else frame[frame["strategy"] == strategy].reset_index(drop=True)


# a bot


PROMISED = [name for name in vars(Bot) if not name.startswith("_")]


@pytest.mark.parametrize("name", PROMISED)
def test_every_method_of_the_protocol_is_there_with_its_parameters(name: str):
    promised, given = getattr(Bot, name), getattr(PaperBot, name)
    assert isinstance(promised, property) == isinstance(given, property)
    if not isinstance(promised, property):
        assert inspect.signature(given).parameters.keys() == inspect.signature(promised).parameters.keys()
        kinds = [[p.kind for p in inspect.signature(f).parameters.values()] for f in (promised, given)]
        assert kinds[0] == kinds[1]


def test_every_question_is_answered(untouched: PaperBot):
    assert len(PROMISED) >= 14
    assert untouched.label == "simulated"
    assert untouched.now() == hour_of(LATER)
    assert untouched.calendar() == Calendar(date(2024, 1, 1), date(2024, 4, 19), live=True)
    assert [s.name for s in untouched.strategies()] == ["rsi", "macd", "bollinger", "volume"]
    assert all(s.enabled and s.allocated_usdt == CAPITAL_USDT and s.changed_at is None for s in untouched.strategies())
    assert untouched.usage_statistics().total_cost_usd == 0.0
    assert untouched.health() == BotHealth(
        healthy=True, detail="3 symbols on simulated candles", last_candle_at=hour_of(LATER)
    )
    bars = untouched.candles("BTCUSDT", hour_of(LATER) - timedelta(hours=5), hour_of(LATER))
    assert len(bars) == 5
    with pytest.raises(BotError, match="DOGEUSDT"):
        untouched.candles("DOGEUSDT", ANCHOR, LATER)


def test_all_four_strategies_trade_every_symbol(untouched: PaperBot):
    counts = trades_of(untouched).groupby(["strategy", "symbol"]).size()
    assert counts.shape == (12,)
    assert counts.min() >= 10


def test_two_bots_are_equal_to_the_last_bit(untouched: PaperBot, store: SqliteStore):
    other = paper(store, LATER)
    pd.testing.assert_frame_equal(trades_of(other), trades_of(untouched), check_exact=True)
    for mine, theirs in zip(
        (untouched.equity_history(*FOREVER).equity, untouched.equity_history(*FOREVER).unrealised),
        (other.equity_history(*FOREVER).equity, other.equity_history(*FOREVER).unrealised),
        strict=True,
    ):
        assert mine.to_numpy().tobytes() == theirs.to_numpy().tobytes()
    for question in ("portfolio", "open_positions", "open_orders", "strategies", "health", "calendar"):
        assert getattr(other, question)() == getattr(untouched, question)()


def test_time_adds_to_the_past_and_changes_nothing_of_it(untouched: PaperBot, store: SqliteStore):
    earlier = paper(store, HOLDING)
    known = untouched.closed_trades(ANCHOR, hour_of(HOLDING)).frame
    pd.testing.assert_frame_equal(trades_of(earlier), known, check_exact=True)
    past = untouched.equity_history(ANCHOR, hour_of(HOLDING) + timedelta(microseconds=1)).equity
    pd.testing.assert_frame_equal(earlier.equity_history(*FOREVER).equity, past, check_exact=True)


def test_every_closed_trade_is_believed(untouched: PaperBot):
    frame = trades_of(untouched)
    closed = believe_trades(frame.to_dict("records"))
    assert (len(closed.frame), closed.quarantined, closed.duplicates) == (len(frame), (), ())
    days = [str(day.date()) for day in pd.date_range(ANCHOR, LATER, freq="D")]
    stored = trades_by_day(untouched.closed_trades(*FOREVER), days, label=untouched.label)
    canonical_json(stored)
    again = believe_trades([row for document in stored.values() for row in document["trades"]])
    assert (len(again.frame), again.quarantined) == (len(frame), ())


def test_B135_a_period_is_half_open(untouched: PaperBot):
    closed_at = trades_of(untouched)["closed_at"].iloc[40].to_pydatetime()
    inside = untouched.closed_trades(closed_at, closed_at + timedelta(hours=1)).frame
    assert (inside["closed_at"] == closed_at).all()
    assert not inside.empty
    assert closed_at not in set(untouched.closed_trades(ANCHOR, closed_at).frame["closed_at"])
    start, end = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC)
    times = untouched.equity_history(start, end).equity.index
    assert (times[0], times[-1], len(times)) == (start, end - timedelta(hours=1), 24)


# its books


def test_the_change_of_equity_is_what_was_realised_plus_the_change_of_what_is_not(untouched: PaperBot):
    """Every hour, every strategy. A trade closed at 10:00 shows in the equity of 11:00, the close of its bar."""
    history = untouched.equity_history(*FOREVER)
    trades = trades_of(untouched)
    realised = trades.pivot_table(
        index=trades["closed_at"] + pd.Timedelta(hours=1), columns="strategy", values="pnl_usdt", aggfunc="sum"
    ).reindex(history.equity.index, columns=history.equity.columns).fillna(0.0)  # fmt: skip
    expected = realised + history.unrealised.diff()
    change = history.equity.diff()
    assert len(change) == (hour_of(LATER) - ANCHOR) // timedelta(hours=1)
    assert np.abs((change - expected).iloc[1:].to_numpy()).max() < 1e-6
    assert (history.equity.iloc[0] == CAPITAL_USDT).all()
    assert history.flows.empty


def test_the_portfolio_agrees_with_equity_trades_and_open_positions(untouched: PaperBot):
    account, trades = untouched.portfolio(), trades_of(untouched)
    last = untouched.equity_history(*FOREVER).equity.iloc[-1]
    unrealised = sum(p.unrealised_usdt for p in untouched.open_positions())
    assert account.as_of == untouched.now() == last.name
    assert account.initial_usdt == 4 * CAPITAL_USDT == sum(account.initial_by_strategy.values())
    assert account.equity_usdt == pytest.approx(last.sum(), abs=1e-6)
    assert account.balance_usdt == pytest.approx(40_000 + trades["pnl_usdt"].sum(), abs=1e-6)
    assert account.equity_usdt == pytest.approx(account.balance_usdt + unrealised, abs=1e-6)
    assert account.total_return_pct == pytest.approx(100 * (account.equity_usdt / 40_000 - 1))
    assert account.total_trades == len(trades)
    assert account.winning_trades == (trades["pnl_usdt"] > 0).sum()


def test_open_positions_are_marked_at_the_last_close_and_are_no_closed_trades(untouched: PaperBot):
    found = untouched.open_positions()
    assert found
    for position in found:
        close = untouched.candles(position.symbol, ANCHOR, LATER)["close"].iloc[-1]
        assert position.mark_price == close
        paid = 0.001 * position.entry_price * position.quantity  # the entry's fee of 0.1 %
        worth = position.quantity * (close - position.entry_price) - paid
        assert position.unrealised_usdt == pytest.approx(worth, abs=1e-6)
    assert not {p.position_id for p in found} & set(trades_of(untouched)["trade_id"])


@pytest.mark.parametrize("strategy", list(PARAMETERS))
def test_its_trades_are_the_backtest_engines_on_the_same_candles(untouched: PaperBot, strategy: str):
    equity = 0.0
    for symbol in SYMBOLS:
        candles = SimulatedCandles(lambda: LATER).candles(symbol)
        result = backtest(candles, strategy, PARAMETERS[strategy], initial_usdt=CAPITAL_USDT / 3)
        expected = result.trades[~result.trades["open_at_end"]].reset_index(drop=True)
        traded = trades_of(untouched, strategy).query("symbol == @symbol").reset_index(drop=True)
        assert traded["closed_at"].tolist() == expected["exit_time"].tolist()
        for ours, theirs in (("opened_at", "entry_time"), ("entry_price", "entry_price"), ("exit_price", "exit_price"),
                             ("quantity", "quantity"), ("pnl_usdt", "pnl_usdt"), ("fee_usdt", "fee_usdt"),
                             ("close_reason", "close_reason")):  # fmt: skip
            assert traded[ours].tolist() == expected[theirs].tolist(), ours
        equity = equity + result.equity
    kept = untouched.equity_history(*FOREVER).equity[strategy]
    assert kept.to_numpy() == pytest.approx(equity.to_numpy(), abs=1e-6)
    assert kept.index.equals(equity.index)


# orders


def orders(bot: PaperBot, intent: str = "entry") -> set[tuple[str, str]]:
    return {(o.strategy, o.symbol) for o in bot.open_orders() if o.intent == intent}


def test_an_open_order_fills_at_the_next_open(untouched: PaperBot, store: SqliteStore):
    waiting = orders(paper(store, ENTERING))
    assert {("rsi", "ETHUSDT"), ("rsi", "SOLUSDT")} <= waiting
    everything = trades_of(untouched)
    opened = everything[everything["opened_at"] == hour_of(ENTERING)]
    assert set(zip(opened["strategy"], opened["symbol"], strict=True)) == waiting


def test_an_exit_order_closes_at_the_next_open(untouched: PaperBot, store: SqliteStore):
    leaving = datetime(2024, 4, 1, 19, 20, tzinfo=UTC)  # rsi leaves BTCUSDT and SOLUSDT
    waiting = orders(paper(store, leaving), "exit")
    assert {("rsi", "BTCUSDT"), ("rsi", "SOLUSDT")} <= waiting
    closed = trades_of(untouched)
    closed = closed[closed["closed_at"] == hour_of(leaving)]
    assert set(zip(closed["strategy"], closed["symbol"], strict=True)) == waiting


# stopped


def test_a_disabled_strategy_keeps_its_past_and_its_exits_and_enters_no_more(untouched: PaperBot, store: SqliteStore):
    stopped_at = hour_of(HOLDING)
    bot = paper(store, HOLDING)
    held = [p for p in bot.open_positions() if p.strategy == "rsi"]
    assert {p.symbol for p in held} == {"ETHUSDT", "SOLUSDT"}
    before = trades_of(bot)
    state = bot.disable_strategy("rsi", reason="lost 12 %", idempotency_key="k1")
    assert (state.enabled, state.reason, state.changed_at) == (False, "lost 12 %", stopped_at)
    pd.testing.assert_frame_equal(trades_of(bot), before, check_exact=True)
    assert [p for p in bot.open_positions() if p.strategy == "rsi"] == held

    after = paper(store, LATER)  # another instance, weeks later
    assert [s.enabled for s in after.strategies()] == [False, True, True, True]
    stopped, free = trades_of(after, "rsi"), trades_of(untouched, "rsi")
    assert (free["opened_at"] >= stopped_at).sum() > 10
    pd.testing.assert_frame_equal(
        stopped, free[free["opened_at"] < stopped_at].reset_index(drop=True), check_exact=True
    )
    assert {p.position_id for p in held} <= set(stopped["trade_id"])  # their exits came
    assert not [p for p in after.open_positions() if p.strategy == "rsi"]
    for other in ("macd", "bollinger", "volume"):
        pd.testing.assert_frame_equal(trades_of(after, other), trades_of(untouched, other), check_exact=True)


def test_a_disable_leaves_no_entry_order_and_nothing_enters_after_it(store: SqliteStore):
    bot = paper(store, ENTERING)
    others = orders(bot) - {("rsi", "ETHUSDT"), ("rsi", "SOLUSDT")}
    bot.disable_strategy("rsi", reason="bleeds", idempotency_key="k1")
    assert orders(bot) == orders(paper(store, ENTERING)) == others
    later = paper(store, ENTERING + timedelta(hours=1))
    assert not [p for p in later.open_positions() if p.strategy == "rsi" and p.opened_at >= hour_of(ENTERING)]


def test_an_exit_order_survives_the_disable(store: SqliteStore):
    bot = paper(store, datetime(2024, 4, 1, 19, 20, tzinfo=UTC))
    waiting = orders(bot, "exit")
    bot.disable_strategy("rsi", reason="bleeds", idempotency_key="k1")
    assert orders(bot, "exit") == waiting


def test_a_resumed_strategy_enters_again_and_the_stop_remains_in_its_past(untouched: PaperBot, store: SqliteStore):
    paper(store, HOLDING).disable_strategy("rsi", reason="bleeds", idempotency_key="k1")
    resumed_at = HOLDING + timedelta(days=4)
    state = paper(store, resumed_at).enable_strategy("rsi", reason="looked at", idempotency_key="k2")
    assert (state.enabled, state.reason, state.changed_at) == (True, "looked at", hour_of(resumed_at))
    opened = trades_of(paper(store, LATER), "rsi")["opened_at"]
    assert not ((opened >= hour_of(HOLDING)) & (opened < hour_of(resumed_at))).any()
    assert (opened >= hour_of(resumed_at)).any()


def test_B099_the_same_idempotency_key_twice_is_one_change(store: SqliteStore):
    first = paper(store, HOLDING).disable_strategy("rsi", reason="bleeds", idempotency_key="k1")
    again = paper(store, LATER).disable_strategy("rsi", reason="bleeds still", idempotency_key="k1")
    assert again == first
    kept = f"{paper(store, LATER).source}/rsi"
    assert store.get_state(STATE, kept).version == 1
    paper(store, LATER).enable_strategy("rsi", reason="looked at", idempotency_key="k2")
    late = paper(store, LATER).disable_strategy("rsi", reason="a repeated message", idempotency_key="k1")
    assert late.enabled
    assert store.get_state(STATE, kept).version == 2


def test_a_change_made_between_look_and_write_is_not_overwritten(store: SqliteStore):
    """The other bot writes while this one reads its clock for the change it is about to make."""
    other = paper(store, HOLDING)

    class Meddled(PaperBot):
        def now(self) -> datetime:
            other.disable_strategy("rsi", reason="theirs", idempotency_key="theirs")
            return super().now()

    bot = Meddled(SimulatedCandles(lambda: HOLDING), lambda: store, SYMBOLS, lambda: HOLDING)
    bot.enable_strategy("rsi", reason="ours", idempotency_key="ours")
    changes = store.get_state(STATE, f"{bot.source}/rsi").body["changes"]
    assert [c["idempotency_key"] for c in changes] == ["theirs", "ours"]


@pytest.mark.parametrize("name", ["grid", "", "RSI", "rsi ", "../rsi"])
def test_an_unknown_strategy_is_refused_listing_those_there_are(store: SqliteStore, name: str):
    bot = paper(store, HOLDING)
    for change in (bot.disable_strategy, bot.enable_strategy):
        with pytest.raises(UnknownStrategy, match="there are rsi, macd, bollinger, volume"):
            change(name, reason="bleeds", idempotency_key="k1")
    assert store.list_state(STATE) == []


def test_a_stop_on_some_candles_or_symbols_is_none_on_others(store: SqliteStore, tmp_path: Path):
    stopped = paper(store, LATER)
    stopped.disable_strategy("rsi", reason="bleeds", idempotency_key="k1")
    other_bars = PaperBot(SimulatedCandles(lambda: LATER, seed=8), lambda: store, SYMBOLS, lambda: LATER)
    fewer = paper(store, LATER, SYMBOLS[:1])
    for bot, enabled in ((stopped, False), (paper(store, LATER), False), (other_bars, True), (fewer, True)):
        assert bot.strategies()[0].enabled is enabled
    # the same key is no repetition for another bot
    assert not other_bars.disable_strategy("rsi", reason="bleeds", idempotency_key="k1").enabled


def test_entries_are_allowed_from_the_change_on_to_the_next():
    times = pd.date_range("2024-04-01T00:00", periods=5, freq="h", tz="UTC")
    changes = [{"enabled": False, "at": "2024-04-01T01:00:00+00:00"}, {"enabled": True, "at": "2024-04-01T03:00:00Z"}]
    assert entries_allowed(times, changes).tolist() == [True, False, False, True, True]
    assert entries_allowed(times, []).all()


# what its candles do to it


def recorded(folder: Path, now: datetime, ends: dict[str, datetime]) -> ParquetCandles:
    """Simulated bars as files, each symbol up to its end."""
    for symbol, end in ends.items():
        bars = SimulatedCandles(lambda: LATER).candles(symbol, ANCHOR, end).rename_axis("ts").reset_index()
        bars.to_parquet(folder / f"{symbol}-1h.parquet")
    return ParquetCandles(folder, lambda: now)


def on_files(folder: Path, store: SqliteStore, now: datetime, **ends: datetime) -> PaperBot:
    return PaperBot(recorded(folder, now, ends), lambda: store, ("BTCUSDT", "ETHUSDT"), lambda: now)


DAY_20, DAY_30 = ANCHOR + timedelta(days=20), ANCHOR + timedelta(days=30)


def test_a_symbol_listed_later_holds_its_share_of_the_capital_until_then(tmp_path: Path, store: SqliteStore):
    source = recorded(tmp_path, DAY_30, {"BTCUSDT": DAY_30, "ETHUSDT": DAY_30})
    late = pd.read_parquet(tmp_path / "ETHUSDT-1h.parquet")
    late[late["ts"] >= DAY_20].to_parquet(tmp_path / "ETHUSDT-1h.parquet")
    bot = PaperBot(source, lambda: store, ("BTCUSDT", "ETHUSDT"), lambda: DAY_30)
    history = bot.equity_history(*FOREVER)
    assert (history.equity.iloc[0] == CAPITAL_USDT).all()
    assert (history.unrealised.iloc[0] == 0.0).all()
    assert bot.calendar().first_day == DAY_20.date()
    trades = trades_of(bot)
    assert trades["opened_at"].groupby(trades["symbol"]).min()["ETHUSDT"] > DAY_20


def test_a_missing_symbol_is_reported_and_the_others_are_traded(store: SqliteStore):
    source = SimulatedCandles(lambda: LATER, symbols=["BTCUSDT"])
    bot = PaperBot(source, lambda: store, SYMBOLS, lambda: LATER)
    assert (bot.health().healthy, bot.symbols) == (False, ("BTCUSDT",))
    assert bot.health().detail == "ETHUSDT, SOLUSDT without candles up to the present"
    assert set(trades_of(bot)["symbol"]) == {"BTCUSDT"}


def test_a_stale_symbol_is_reported_and_no_longer_traded(tmp_path: Path, store: SqliteStore):
    bot = on_files(tmp_path, store, DAY_30, BTCUSDT=DAY_30, ETHUSDT=DAY_20)
    assert (bot.health().healthy, bot.health().detail) == (False, "ETHUSDT without candles up to the present")
    assert bot.now() == DAY_30


def test_unsound_candles_are_reported(tmp_path: Path, store: SqliteStore):
    bot = on_files(tmp_path, store, DAY_30, BTCUSDT=DAY_30, ETHUSDT=DAY_30)
    assert bot.health().healthy
    bars = pd.read_parquet(tmp_path / "ETHUSDT-1h.parquet")
    bars.loc[100, "low"] = -1.0
    bars.to_parquet(tmp_path / "ETHUSDT-1h.parquet")
    assert not bot.health().healthy
    assert "ETHUSDT 2024-01-05 04:00:00+00:00: low is -1" in bot.health().detail


def test_without_any_candle_every_question_names_the_symbols(tmp_path: Path, store: SqliteStore):
    source = SimulatedCandles(lambda: LATER, symbols=["BTCUSDT"])
    bot = PaperBot(source, lambda: store, ["DOGEUSDT"], lambda: LATER)
    assert not bot.health().healthy
    for question in (bot.now, bot.calendar, bot.portfolio, bot.open_positions, bot.open_orders):
        with pytest.raises(BotUnreachable, match="DOGEUSDT"):
            question()
    with pytest.raises(BotUnreachable, match="no such folder"):
        PaperBot(ParquetCandles(tmp_path / "gone", lambda: LATER), lambda: store, SYMBOLS, lambda: LATER).now()


def test_a_recording_that_ended_long_ago_is_not_live(tmp_path: Path, store: SqliteStore):
    ends = {"BTCUSDT": DAY_30, "ETHUSDT": DAY_30}
    assert on_files(tmp_path, store, DAY_30 + timedelta(hours=47), **ends).calendar().live
    old = on_files(tmp_path, store, DAY_30 + timedelta(days=2), **ends)
    assert old.calendar() == Calendar(date(2024, 1, 1), date(2024, 1, 30), live=False)
    assert old.now() == DAY_30


def test_a_symbol_that_goes_stale_changes_nothing_of_the_past(tmp_path: Path, store: SqliteStore):
    """Until day 20 both symbols trade 5,000 USDT a strategy; on day 30 the first days read otherwise."""
    period = ANCHOR, ANCHOR + timedelta(days=15)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    while_fresh = on_files(tmp_path / "a", store, DAY_20, BTCUSDT=DAY_20, ETHUSDT=DAY_20).closed_trades(*period).frame
    once_stale = on_files(tmp_path / "b", store, DAY_30, BTCUSDT=DAY_30, ETHUSDT=DAY_20).closed_trades(*period).frame
    assert len(once_stale) == len(while_fresh)
    assert once_stale["pnl_usdt"].tolist() == while_fresh["pnl_usdt"].tolist()


# a fire drill


def test_losses_for_a_drill_are_trades_that_every_page_of_the_bot_shows(tmp_path: Path):
    with SqliteStore(tmp_path / "audit.db") as store:
        bot, other = paper(store, LATER), paper(store, LATER)  # as the one who injects and the one who is watched
        before, hour = other.portfolio(), hour_of(LATER)
        bot.lose("rsi", [-1.0, 100.0, 100.0])
        after, closed = other.portfolio(), other.closed_trades(*FOREVER).frame
        believed = believe_trades(closed.to_dict("records"))
        assert (len(believed.frame), believed.quarantined) == (len(closed), ())
        newest = trades_of(other, "rsi").tail(3)
        assert newest["pnl_usdt"].tolist() == [1.0, -100.0, -100.0]
        assert set(newest["closed_at"]) == {pd.Timestamp(hour)}
        assert after.total_trades == before.total_trades + 3
        assert after.equity_usdt == pytest.approx(before.equity_usdt - 199.0)
        assert after.equity_by_strategy["rsi"] == pytest.approx(before.equity_by_strategy["rsi"] - 199.0)
        assert after.equity_by_strategy["macd"] == before.equity_by_strategy["macd"]
        history = other.equity_history(hour - timedelta(hours=1), LATER).equity["rsi"]
        assert history.iloc[-1] == after.equity_by_strategy["rsi"]
        with pytest.raises(UnknownStrategy):
            bot.lose("rsy", [1.0])
