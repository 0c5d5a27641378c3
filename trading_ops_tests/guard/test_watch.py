"""Does the guard see what is there, say what it cannot see, and judge nothing else?"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.audit.store import Entry, StoreError, StoreUnavailable
from trading_ops.bot.client import Calendar
from trading_ops.bot.http import HttpBot
from trading_ops.bot.server import create_app
from trading_ops.guard.actions import CONFIRMED, SENT
from trading_ops.guard.by_hand import preflight, resume
from trading_ops.guard.drawdown import PortfolioLimits
from trading_ops.guard.memory import GUARD_ACTIONS, GUARD_FACTS
from trading_ops.guard.switch import Guard, Policy
from trading_ops.notifications.alert import Severity
from trading_ops.performance.trades import trades_by_day
from trading_ops_tests.fakes import trade
from trading_ops_tests.guard.bots import EQUITY, TradingBot
from trading_ops_tests.guard.test_switch import Room
from trading_ops_tests.servers.bot import serving

NO_PROFIT = {**trade("x", "2025-03-09T12:00:00+00:00"), "pnl_usdt": None}
BLIND = "The guard is blind: the bot shows no fresh data"


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def says(room: Room, **changes: Any) -> None:
    """From now on the bot's account is told like this; what can be called is called with it."""
    portfolio = type(room.bot).portfolio

    def told() -> Any:
        account = portfolio(room.bot)
        return account.model_copy(update={n: v(account) if callable(v) else v for n, v in changes.items()})

    room.bot.portfolio = told  # type: ignore[method-assign]


def malformed(room: Room, **changes: Any) -> None:
    """One more row, whose profit does not follow from its prices."""
    at = room.clock().isoformat()
    room.bot.rows.append({**trade(f"bad-{len(room.bot.rows)}", at), "pnl_usdt": -5000.0, **changes})


def doubts(room: Room) -> str:
    return "\n".join(alert.why for alert in room.told if alert.severity == Severity.ERROR)


def asked(room: Room) -> list[str]:
    methods: list[str] = []
    room.bot.before = methods.append
    return methods


# what contradicts itself


def store_yesterday(room: Room, rows: list[Any]) -> None:
    """As the daily asset does."""
    known, room.bot.rows = room.bot.rows, rows
    document = trades_by_day(room.bot._believed(), ["2025-03-09"], label=room.bot.label)["2025-03-09"]
    room.store.append("closed_trades", [Entry("2025-03-09", "", {**document, "source": room.bot.source})])
    room.bot.rows = known


def test_a_trade_that_is_not_what_is_stored_of_it_is_a_doubt_and_the_guard_goes_on(room: Room):
    at = "2025-03-09T23:55:00+00:00"  # in the overlap that every look reads once more
    store_yesterday(room, [trade("t1", at, -5.0)])
    room.bot.rows.append(trade("t1", at, -7.0))
    room.clock.at = datetime.fromisoformat("2025-03-10T00:02:00+00:00")
    for _ in range(3):
        seen = room.step()
    assert seen.problem is None
    assert "trade t1: closed_at 2025-03-09 23:55:00+00:00, pnl_usdt -7.0, but was read before with" in doubts(room)
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert room.bot.switched == [("rsi", False)]


def test_a_trade_that_changes_at_every_read_is_a_doubt_and_does_not_cost_a_reading_of_the_past_each_time(room: Room):
    room.bot.lose("rsi", 100.0, trade_id="t1")
    room.bot.lose("rsi", 200.0, trade_id="t1")
    reads = 0

    def flip(method: str) -> None:
        nonlocal reads
        reads += method == "equity_history"
        if method == "closed_trades":
            room.bot.rows[:2] = room.bot.rows[1::-1]
            room.bot._known = None

    room.bot.before = flip
    for _ in range(10):
        assert room.step().problem is None
    assert "t1" in doubts(room)
    room.bot.lose("macd", 1500.0)
    room.step()
    assert ("macd", False) in room.bot.switched
    assert reads <= 6


def test_one_trade_of_two_strategies_counts_once(room: Room):
    room.bot.equity = {"rsi": EQUITY, "macd": EQUITY}
    room.bot.lose("rsi", 600.0, trade_id="t1")
    room.step()
    room.bot.rows.clear()
    room.bot.lose("macd", 600.0, trade_id="t1")
    seen = room.step()
    assert seen.risk is not None
    losses = {name: risk["daily_loss_pct"] for name, risk in seen.risk["strategies"].items()}
    assert losses == {"rsi": 0.0, "macd": pytest.approx(6.0, abs=0.1)}


# what cannot be used


@pytest.mark.parametrize(
    ("collection", "partition", "key", "body"),
    [
        pytest.param("closed_trades", "2025-03-09", "", {}, id="no trades"),
        pytest.param("closed_trades", "2025-03-09", "", {"trades": [{"trade_id": "x"}]}, id="half a trade"),
        pytest.param("closed_trades", "2025-03-09", "", {"trades": [NO_PROFIT]}, id="a trade without a profit"),
        pytest.param("equity_snapshots", "2025-03-10", "00:00", {"as_of": "midnight"}, id="a snapshot without a time"),
        pytest.param("equity_snapshots", "2025-03-09", "23:45", {}, id="an empty snapshot"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_used_ends_no_look_and_hides_no_loss(
    room: Room, collection: str, partition: str, key: str, body: dict[str, Any]
):
    whole = {"quarantined": [], "complete": True} if body.get("trades") else {}
    room.store.append(collection, [Entry(partition, key, {**body, **whole, "source": room.bot.source})])
    room.bot.lose("rsi", 1500.0)
    assert room.step().problem is None
    assert room.bot.switched == [("rsi", False)]
    said = [alert.what for alert in room.told if alert.severity == Severity.ERROR]
    if collection == "equity_snapshots":
        assert said == ["The guard reads records that cannot be used, and goes on without them"]


def test_a_damaged_state_document_is_named_and_written_over_by_the_next_write(room: Room):
    key = f"{room.bot.source}/rsi"
    room.store.put_state(GUARD_ACTIONS, key, {"strategy": "rsi", "state": "asleep"}, expected_version=0)
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert "guard_actions trading-bot/rsi is damaged" in (room.memory.problem or "")
    assert (room.action()["state"], room.bot.switched) == (CONFIRMED, [("rsi", False)])
    room.step()
    assert room.memory.problem is None


@pytest.mark.parametrize(
    "damage",
    [
        {"episode": "1"},
        {"told": 5},
        {"trigger": "x", "turn": 2, "told": []},
        {"numbers": None},
        {"at": {"requested": "2025-03-10T12:00:00"}},
        {"unrecorded": [{"strategy": "macd"}]},
    ],
)
def test_a_damaged_document_of_one_strategy_keeps_no_other_from_being_stopped(room: Room, damage: dict[str, Any]):
    room.bot.lose("macd", 1500.0)
    room.step()
    document = room.store.get_state(GUARD_ACTIONS, f"{room.bot.source}/macd")
    assert document is not None
    room.store.put_state(GUARD_ACTIONS, document.key, {**document.body, **damage}, expected_version=document.version)
    room.restart()
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert room.bot.switched == [("macd", False), ("rsi", False)]
    assert room.action()["state"] == CONFIRMED


@pytest.mark.parametrize("damage", [{"start": None}, {"number": "1"}, {"level": True}])
def test_a_damaged_fact_about_the_account_keeps_no_strategy_from_being_stopped(room: Room, damage: dict[str, Any]):
    room.step()
    document = room.store.get_state(GUARD_FACTS, f"{room.bot.source}/account")
    assert document is not None
    room.store.put_state(GUARD_FACTS, document.key, {**document.body, **damage}, expected_version=document.version)
    room.restart()
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert room.bot.switched == [("rsi", False)]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("strategies"), "what the bot answers cannot be judged (KeyError)"),
        (StoreUnavailable("locked"), "the bot's own store: locked"),
        (StoreError("damaged"), "the bot's own store: damaged"),
    ],
)
def test_what_cannot_be_judged_is_told_and_a_pending_stop_is_followed(room: Room, error: Exception, said: str):
    room.bot.deaf = True
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert room.action()["state"] == SENT
    room.bot.deaf = False

    def broken() -> Any:
        raise error

    room.bot.portfolio = broken  # type: ignore[method-assign]
    seen = room.step()
    assert seen.problem == said
    assert room.action()["state"] == CONFIRMED
    room.step(61)
    assert "The guard is blind: the bot cannot be read" in room.says()


# what a loss leaves over


def test_a_trade_that_lost_nearly_everything_is_believed_by_what_stood_behind_it(room: Room):
    room.bot.lose("rsi", 9_800.0)  # 100,000 USDT at ten times the equity, of which 200 are left: 500 times that
    room.step()
    assert doubts(room) == ""
    assert room.bot.switched == [("rsi", False)]
    assert "98.00 %" in room.action()["trigger"]["why"]


def test_a_strategy_that_only_has_an_allocation_is_guarded_by_its_equity_too(room: Room):
    says(room, initial_by_strategy={}, initial_usdt=1e-9)
    room.bot.lose("rsi", 1_500.0, minutes_ago=24 * 60)  # known, and not of today
    room.bot.lose("macd", -10.0, minutes_ago=1)
    malformed(room)
    room.bot.equity = {"rsi": EQUITY - 1_500.0, "macd": EQUITY + 10.0}
    seen = room.step()
    assert seen.risk is not None
    assert seen.risk["strategies"]["rsi"]["equity_basis"] == "allocation"
    assert room.bot.switched == []
    room.bot.equity = {"rsi": EQUITY - 1_500.0 - 1_200.0, "macd": EQUITY + 10.0}
    room.step()
    assert room.bot.switched == [("rsi", False)]
    assert "12.00 %" in room.action()["trigger"]["why"]


# the present


def test_a_snapshot_that_lags_behind_the_trades_hides_none_of_them(room: Room):
    says(room, as_of=lambda a: a.as_of - timedelta(minutes=4))
    room.step()
    room.bot.lose("rsi", 1500.0, minutes_ago=-3)  # the trades' clock is ahead, seven minutes of the snapshot's
    room.step()
    assert doubts(room) == ""
    assert room.bot.switched == [("rsi", False)]


@pytest.mark.parametrize(
    ("apart", "why"),
    [
        (timedelta(minutes=-7), "the bot's account (as_of) is 7 minutes behind its clock: nothing starts"),
        (timedelta(minutes=30), "the bot's account (as_of) is 30 minutes ahead of its clock: nothing starts"),
        (timedelta(hours=-26), "the bot's account (as_of) is 1560 minutes behind its clock: nothing starts"),
        (timedelta(days=365 * 7000), "minutes ahead of its clock: nothing starts"),
    ],
)
def test_an_account_that_is_not_of_now_starts_nothing_and_the_guard_says_it_is_blind(
    room: Room, apart: timedelta, why: str
):
    says(room, as_of=lambda a: a.as_of + apart)
    room.bot.lose("rsi", 1500.0, minutes_ago=max(0, -apart / timedelta(minutes=1)))  # of its running day
    for _ in range(62):
        seen = room.step()
        assert why in (seen.problem or "")
    assert room.bot.switched == []
    assert room.says() == [BLIND]
    assert doubts(room) == ""
    del room.bot.portfolio
    room.step(16)
    assert "guard/unreadable" in [alert.incident for alert in room.over]


def test_an_account_that_stands_still_for_a_minute_blinds_the_guard_at_once(room: Room):
    room.step()
    at = room.clock()
    says(room, as_of=at)
    for _ in range(59):
        assert room.step().problem is None
    room.bot.lose("rsi", 1500.0)
    seen = room.step()
    assert seen.problem == "the bot's account stands still since 2025-03-10 12:00:01 UTC (as_of): nothing starts"
    assert (room.says(), room.bot.switched) == ([BLIND], [])
    del room.bot.portfolio
    room.step()
    assert room.bot.switched == [("rsi", False)]


def test_a_trade_of_the_new_day_begins_it_though_the_account_is_still_of_the_day_before(room: Room):
    room.clock.at = datetime.fromisoformat("2025-03-10T23:59:00+00:00")
    room.bot.lose("rsi", 900.0)
    room.step()
    room.clock.at = datetime.fromisoformat("2025-03-11T00:00:20+00:00")
    says(room, as_of=lambda a: a.as_of - timedelta(minutes=1))
    room.bot.lose("rsi", 200.0)
    seen = room.step(0)
    assert seen.risk is not None
    assert seen.risk["day"] == "2025-03-11"
    assert seen.risk["strategies"]["rsi"]["daily_loss_pct"] == pytest.approx(100 * 200 / 9100)
    assert room.bot.switched == []
    assert room.step().risk["day"] == "2025-03-11"  # type: ignore[index]


@pytest.mark.parametrize(("label", "behind", "acts"), [
    ("live", timedelta(hours=26), False),
    ("live", timedelta(minutes=30), False),
    ("live", timedelta(minutes=2), True),
    ("simulated", timedelta(minutes=50), True),  # it lives by hourly bars, and its clock stands in between
    ("simulated", timedelta(hours=26), False),
])  # fmt: skip
def test_a_bot_whose_own_clock_is_of_yesterday_acts_on_nothing(
    tmp_path: Path, label: str, behind: timedelta, acts: bool
):
    room = Room(tmp_path)
    inner = TradingBot(lambda: room.clock() - behind, label=label)
    inner.lose("rsi", 1500.0)
    with serving(create_app(inner)) as url:
        room.bot = HttpBot(url, now=room.clock)  # type: ignore[assignment]
        room.restart()
        seen = room.step()
    assert inner.switched == ([("rsi", False)] if acts else [])
    assert (seen.problem is None) == acts


@pytest.mark.parametrize(("label", "told"), [("recorded", []), ("replayed +9 weeks", []), ("scripted", [BLIND])])
def test_prices_that_end_by_their_nature_call_nobody(room: Room, label: str, told: list[str]):
    room.bot.live, room.bot.label = False, label
    room.step()
    seen = room.step(61)
    assert seen.problem == "the bot's data ends at 2025-03-10 12:01 UTC: nothing starts"
    assert room.says() == told


# what was paid out


def paid_out(room: Room, *, told: bool) -> None:
    """3,000 USDT leave rsi; its own equity shows that, and so does the account's."""
    room.bot.at_midnight = {"rsi": EQUITY, "macd": EQUITY}
    room.bot.equity = {"rsi": EQUITY - 3_000.0, "macd": EQUITY}
    says(room, net_deposits_usdt=-3_000.0 if told else None, equity_usdt=2 * EQUITY - 3_000.0)


def test_a_withdrawal_beside_a_malformed_row_stops_nobody(room: Room):
    malformed(room)
    paid_out(room, told=True)
    for _ in range(3):
        room.step()
    assert room.bot.switched == []
    assert room.says(Severity.WARNING) == []


def test_a_transfer_to_another_strategy_beside_a_malformed_row_stops_nobody(room: Room):
    malformed(room)
    room.bot.at_midnight = {"rsi": EQUITY, "macd": EQUITY}
    room.bot.equity = {"rsi": EQUITY - 3_000.0, "macd": EQUITY + 3_000.0}
    room.step()
    assert room.bot.switched == []


def test_a_fall_of_the_equity_that_may_be_a_withdrawal_warns(room: Room):
    malformed(room)
    paid_out(room, told=False)
    seen = room.step()
    room.step()
    assert room.bot.switched == []
    assert room.says(Severity.WARNING) == ["rsi may have lost more than its trades show"]
    assert seen.risk is not None
    assert seen.risk["strategies"]["rsi"]["daily_loss_pct"] == pytest.approx(30.0)


def test_a_loss_that_the_trades_show_stops_whatever_was_paid_out(room: Room):
    malformed(room)
    paid_out(room, told=False)
    room.bot.lose("rsi", 1100.0)
    room.step()
    assert room.bot.switched == [("rsi", False)]
    assert room.action()["trigger"]["rule"] == "daily_loss"


def test_deposits_of_before_are_those_that_the_snapshot_at_midnight_tells(room: Room):
    room.bot.at_midnight = None
    snapshot = {
        "as_of": "2025-03-10T00:03:00+00:00", "source": room.bot.source, "candles": "scripted",
        "equity_usdt": 2 * EQUITY, "balance_usdt": 2 * EQUITY, "net_deposits_usdt": -3_000.0,
        "strategies": {name: {"equity_usdt": EQUITY, "unrealised_usdt": 0.0} for name in ("rsi", "macd")},
    }  # fmt: skip
    room.store.append("equity_snapshots", [Entry("2025-03-10", "00:00", snapshot)])
    malformed(room)
    paid_out(room, told=True)  # but that was before: what is missing today was lost
    room.step()
    assert room.bot.switched == [("rsi", False)]


def test_what_is_noted_as_paid_out_of_a_strategy_is_no_loss(room: Room):
    malformed(room)
    paid_out(room, told=True)
    room.bot.equity = {"rsi": EQUITY - 3_000.0, "macd": EQUITY - 1_100.0}  # macd lost unseen, rsi was paid out
    flow = {
        "at": "2025-03-10T11:00:00+00:00",
        "amount_usdt": -3_000.0,
        "strategy": "rsi",
        "reason": "",
        "source": room.bot.source,
    }
    room.store.append("equity_flows", [Entry("2025-03-10", "f1", flow)])
    room.step()
    assert room.bot.switched == [("macd", False)]


def test_an_account_that_tells_no_deposits_takes_a_withdrawal_for_none_of_its_drawdown(room: Room):
    room.policy = Policy(portfolio=PortfolioLimits(from_peak_pct=10.0, from_start_pct=10.0))
    gone = 0.0

    def less(account: Any) -> Any:
        return account.balance_usdt - gone

    says(room, net_deposits_usdt=None, balance_usdt=less, equity_usdt=less)
    room.step()
    gone = 6_000.0  # 30 % of the account
    for _ in range(62):
        seen = room.step()
    assert room.bot.switched == []
    assert seen.risk is not None
    assert seen.risk["portfolio"]["drawdown_from_peak_pct"] == 0.0
    assert room.says(Severity.WARNING) == ["The account fell by 6,000.00 USDT that no trade explains"]
    room.restart()  # it is remembered
    room.bot.lose("rsi", 990.0)
    room.bot.lose("macd", 400.0)  # 1,390 of the 14,000 that are left
    seen = room.step()
    assert seen.risk is not None
    assert seen.risk["portfolio"]["drawdown_from_peak_pct"] == pytest.approx(100 * 1_390 / 14_000)
    assert room.bot.switched == []
    room.bot.lose("macd", 50.0)
    room.step()
    assert sorted(room.bot.switched) == [("macd", False), ("rsi", False)]


def test_a_withdrawal_from_an_account_whose_bot_is_three_days_old_stops_nobody(room: Room):
    room.policy = Policy(portfolio=PortfolioLimits(from_peak_pct=20.0))
    gone = 0.0

    def less(account: Any) -> Any:
        return account.balance_usdt - gone

    says(room, net_deposits_usdt=None, balance_usdt=less, equity_usdt=less)
    room.bot.calendar = lambda: Calendar(date(2025, 3, 8), date(2025, 3, 9), True)  # type: ignore[method-assign]
    room.step()
    room.step(70)
    gone = 6_000.0
    for _ in range(5):
        room.step(20)
    assert room.bot.switched == []
    assert room.says(Severity.WARNING) == ["The account fell by 6,000.00 USDT that no trade explains"]


def test_a_balance_that_moves_before_its_trade_is_listed_is_no_withdrawal(room: Room):
    room.policy = Policy(portfolio=PortfolioLimits(from_peak_pct=4.0))
    early = 0.0

    def less(account: Any) -> Any:
        return account.balance_usdt - early

    says(room, net_deposits_usdt=None, balance_usdt=less, equity_usdt=less)
    room.step()
    early = 900.0
    room.step()
    assert room.bot.switched == []
    early = 0.0
    room.bot.lose("rsi", 900.0)
    room.step()
    assert room.says(Severity.WARNING) == []
    assert sorted(room.bot.switched) == [("macd", False), ("rsi", False)]  # 4.5 % of the account


# before and after


def test_a_trade_of_the_very_moment_of_a_resume_was_seen_and_does_not_count_again(room: Room):
    room.bot.lose("rsi", 1500.0)
    room.step()
    room.bot.lose("rsi", 950.0)  # closes at the moment at which the person looks
    guard = Guard(room.bot, room.memory, room.watch, room.policy, room.tell)
    resume(guard, "rsi", reason="the feed was wrong", by="ana", seen=preflight(guard, "rsi"))
    for _ in range(3):
        seen = room.step()
    assert seen.risk is not None
    assert seen.risk["strategies"]["rsi"]["daily_loss_pct"] == 0.0
    assert room.bot.switched == [("rsi", False), ("rsi", True)]


# who is gone


def test_a_strategy_that_the_bot_does_not_list_is_said_once_and_not_stopped_again_and_again(room: Room):
    room.bot.lose("rsi", 1500.0)
    room.bot._states.pop("rsi")
    for _ in range(40):
        seen = room.step()
    room.restart()
    room.step()
    assert (room.says(), seen.actions) == ([], ())
    assert room.says(Severity.WARNING) == ["rsi lost, and the bot does not list it"]
    assert len({alert.dedup_key for alert in room.told}) == 1
    assert seen.risk is not None
    assert seen.risk["status"] == "warning"


def test_a_strategy_that_is_listed_again_is_stopped(room: Room):
    room.bot.lose("rsi", 1500.0)
    state = room.bot._states.pop("rsi")
    room.step()
    room.bot._states["rsi"] = state
    room.step(16)
    assert room.bot.switched == [("rsi", False)]
    assert "guard/rsi/not_listed" in [alert.incident for alert in room.over]


def test_a_strategy_that_is_new_is_judged_within_two_looks(room: Room):
    room.step()
    room.bot._states["grid"] = room.bot._states["rsi"].model_copy(update={"name": "grid"})
    room.bot.names = (*room.bot.names, "grid")
    room.bot.lose("grid", 1500.0)
    room.step()
    room.step()
    assert room.bot.switched == [("grid", False)]


def test_the_running_day_is_said(room: Room):
    room.step()
    assert (room.watch.day, room.watch.first_day) == (date(2025, 3, 10), date(2025, 3, 1))
