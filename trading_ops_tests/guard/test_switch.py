"""Does a step of the guard stop what bleeds, exactly once, and never say more than it knows?"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import AuditStore, StoreUnavailable
from trading_ops.bot.client import BotError, BotUnreachable
from trading_ops.bot.records import OpenOrder
from trading_ops.guard.actions import CONFIRMED, ESCALATED, OBSERVED, REQUESTED, SENT
from trading_ops.guard.by_hand import preflight, resume
from trading_ops.guard.drawdown import PortfolioLimits
from trading_ops.guard.memory import GUARD_ACTIONS, STRATEGY_ACTIONS, GuardMemory
from trading_ops.guard.rules import Limits
from trading_ops.guard.switch import Guard, Policy, Seen, step
from trading_ops.guard.watch import Watch
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops_tests.fakes import trade
from trading_ops_tests.guard.bots import Clock, TradingBot


@dataclass
class Room:
    """A guard, its bot and its stores. A restart forgets all that is not on the disk."""

    folder: Path
    policy: Policy = field(default_factory=Policy)
    clock: Clock = field(default_factory=Clock)
    told: list[Alert] = field(default_factory=list)
    over: list[Alert] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bot = TradingBot(self.clock)
        self.store = SqliteStore(self.folder / "audit.db")
        self.local = SqliteStore(self.folder / "guard.db")
        self.shared: AuditStore = self.store
        self.restart()

    def restart(self) -> None:
        self.watch = Watch(self.clock)
        self.memory = GuardMemory(self.shared, lambda: self.local, self.bot.source)

    def step(self, seconds: float = 1.0) -> Seen:
        self.clock.go(seconds)
        return step(self.bot, self.memory, self.watch, self.policy, self.tell)

    def tell(self, alert: Alert) -> None:
        (self.over if alert.step is Step.RESOLVED else self.told).append(alert)

    def action(self, strategy: str = "rsi") -> dict[str, Any]:
        document = self.store.get_state(GUARD_ACTIONS, f"{self.bot.source}/{strategy}")
        assert document is not None
        return document.body

    def says(self, severity: Severity = Severity.CRITICAL) -> list[str]:
        return list(dict.fromkeys(alert.what for alert in self.told if alert.severity == severity))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


@pytest.mark.parametrize(
    ("losses", "stopped"),
    [
        pytest.param([1000.0], False, id="B093 exactly 10.0 % warns"),
        pytest.param([1001.0], True, id="B093 10.01 % stops"),
        pytest.param([1.0] * 10, False, id="B094 ten losses warn"),
        pytest.param([1.0] * 11, True, id="B094 eleven stop"),
        pytest.param([*[1.0] * 10, 0.0], False, id="B096 a zero is no loss"),
        pytest.param([*[1.0] * 5, 0.0, *[1.0] * 6], True, id="B096 nor does it break the streak"),
        pytest.param([*[1.0] * 10, -1.0, *[1.0] * 9], False, id="B095 a low win rate only warns"),
    ],
)
def test_a_strategy_is_stopped_above_a_hard_limit_only(room: Room, losses: list[float], stopped: bool):
    for number, loss in enumerate(losses):
        room.bot.lose("rsi", loss, minutes_ago=len(losses) - number)
    room.step()
    assert room.bot.switched == ([("rsi", False)] if stopped else [])
    assert room.says() == (["rsi was stopped"] if stopped else [])
    if not stopped:
        assert {said.split(":")[0] for said in room.says(Severity.WARNING)} == {"rsi comes near a limit"}


def test_a_breach_is_stopped_confirmed_recorded_and_told_in_one_step_B097(room: Room):
    room.step()
    room.bot.enter("rsi")
    room.clock.go(5)
    room.bot.lose("rsi", 1500.0)
    room.step()
    action = room.action()
    assert (action["state"], action["trigger"]["rule"], action["open_positions"]) == (CONFIRMED, "daily_loss", 1)
    assert len(room.bot.positions) == 1  # its exit is the bot's
    (alert,) = room.told
    assert (alert.severity, alert.incident) == (Severity.CRITICAL, "guard/rsi")
    assert "15.00 %" in alert.why
    assert alert.done == "rsi disabled, confirmed after 0.0 s; 1 open position keeps its exits."
    assert "trading-ops strategies resume rsi" in alert.what_to_do
    (record,) = room.store.read(STRATEGY_ACTIONS)
    assert record.partition == "2025-03-10"
    assert record.body["numbers"]["daily_loss_pct"] == 15.0
    assert [t["trade_id"] for t in record.body["trades"]] == ["rsi-0"]
    assert record.body["latency"] == {
        "trade_to_request_s": 1.0,
        "request_to_sent_s": 0.0,
        "request_to_confirmed_s": 0.0,
        "request_to_escalated_s": None,
    }


def test_a_breach_that_goes_on_is_one_action_also_after_restarts_B099(room: Room):
    room.bot.lose("rsi", 1500.0)
    for _ in range(4):
        room.step(20)
        room.restart()
        room.bot.lose("rsi", 100.0)  # exits of open positions
    assert room.bot.switched == [("rsi", False)]
    assert len(room.store.read(STRATEGY_ACTIONS, all_revisions=True)) == 1
    assert {alert.dedup_key for alert in room.told if alert.severity == Severity.CRITICAL} == {room.told[0].dedup_key}


def test_nobody_resumes_but_a_person_B097(room: Room):
    room.bot.lose("rsi", 1500.0)
    room.step()
    for _ in range(3):
        room.step(24 * 3600)
        room.restart()
    assert room.bot.switched == [("rsi", False)]


def test_a_bot_that_says_yes_and_does_nothing_is_escalated_and_never_reported_as_stopped_B098(room: Room):
    room.bot.deaf = True
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert room.action()["state"] == SENT
    for _ in range(40):
        room.step()
    assert room.action()["state"] == ESCALATED
    assert room.says() == ["rsi is being stopped", "rsi could not be stopped"]
    assert "Stop rsi by hand" in room.told[-1].what_to_do
    assert "is not confirmed to be disabled" in room.told[-1].done
    assert not any("was stopped" in alert.what or "confirmed after" in alert.done for alert in room.told)
    room.bot.deaf = False
    room.step()
    assert room.action()["state"] == CONFIRMED
    assert room.bot.switched == [("rsi", False)]
    assert room.says()[-1] == "rsi was stopped"


def test_a_bot_that_cannot_be_told_is_tried_again_until_it_is_confirmed_B098(room: Room):
    room.bot.lose("rsi", 1500.0)
    refusals = iter([BotUnreachable("refused"), BotError("503"), BotUnreachable("timeout")])

    def refuse(method: str) -> None:
        if method == "disable" and (error := next(refusals, None)):
            raise error

    room.bot.before = refuse
    states = []
    for _ in range(4):
        room.step()
        states.append(room.action()["state"])
    assert states == [REQUESTED, SENT, SENT, CONFIRMED]
    assert room.bot.switched == [("rsi", False)]


def test_an_answer_that_was_lost_is_read_back_and_not_told_again_B099(room: Room):
    room.bot.lose("rsi", 1500.0)
    lost = iter([BotUnreachable("the answer was lost")])

    def lose(method: str) -> None:
        if method == "disabled" and (error := next(lost, None)):
            raise error

    room.bot.before = lose
    room.step()
    assert room.action()["state"] == REQUESTED
    room.step()
    assert room.action()["state"] == CONFIRMED
    assert room.bot.switched == [("rsi", False)]


def test_a_strategy_with_an_entry_order_left_is_not_confirmed(room: Room):
    at = room.clock()
    room.bot.orders = [OpenOrder(order_id="o1", strategy="rsi", symbol="BTCUSDT", intent="entry", created_at=at)]
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert room.action()["state"] == SENT
    assert room.action()["why"] == "1 entry orders are left, such as o1 (BTCUSDT)"
    room.bot.orders = [OpenOrder(order_id="o2", strategy="rsi", symbol="BTCUSDT", intent="exit", created_at=at)]
    room.step()
    assert room.action()["state"] == CONFIRMED


def test_an_entry_after_the_stop_is_escalated_once(room: Room):
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert room.action()["state"] == CONFIRMED
    room.bot._states["rsi"] = room.bot._states["rsi"].model_copy(update={"enabled": True})
    room.clock.go(5)
    room.bot.enter("rsi")
    room.bot._states["rsi"] = room.bot._states["rsi"].model_copy(update={"enabled": False})
    room.step(20)
    assert room.says()[-1] == "rsi could not be stopped"
    assert "was opened at 2025-03-10 12:00:06+00:00, after it was stopped" in room.told[-1].done
    room.bot.positions.clear()  # flat again
    for _ in range(3):
        room.step(20)
    assert room.action()["state"] == CONFIRMED
    assert len([a for a in room.told if a.what == "rsi could not be stopped"]) == 1


def test_what_is_enabled_behind_the_guards_back_is_stopped_again(room: Room):
    room.bot.lose("rsi", 1500.0)
    room.step()
    room.bot.switch_elsewhere("rsi", True)
    room.step(20)
    assert room.bot.switched == [("rsi", False), ("rsi", False)]
    assert room.action()["trigger"]["rule"] == "enabled_elsewhere"
    assert "enabled at the bot without a resume" in room.told[-1].why


def test_a_round_asks_once_what_is_left_of_all_that_is_stopped(room: Room):
    for name in room.bot.names:
        room.bot.lose(name, 1500.0)
    room.step()
    assert sorted(name for name, _ in room.bot.switched) == sorted(room.bot.names)
    asked: list[str] = []
    room.bot.before = asked.append
    for _ in range(3):
        room.step(20)
    assert (asked.count("strategies"), asked.count("open_orders"), asked.count("open_positions")) == (3, 3, 3)
    room.bot.before = lambda method: None
    room.bot.switch_elsewhere("macd", True)
    room.bot.enter("macd")
    room.bot.switch_elsewhere("macd", False)
    room.step(20)
    assert (room.action("rsi")["state"], room.action("macd")["state"]) == (CONFIRMED, ESCALATED)
    assert "was opened at" in room.action("macd")["why"]


def test_a_guard_that_observes_tells_and_records_and_does_nothing(room: Room):
    room.policy = Policy(observe_only=True)
    room.bot.lose("rsi", 1500.0)
    room.step()
    room.step()
    assert room.bot.switched == []
    assert (room.action()["state"], room.says()) == (OBSERVED, ["rsi should be stopped"])
    assert len(room.store.read(STRATEGY_ACTIONS)) == 1
    room.policy = Policy()
    room.step()
    assert room.bot.switched == [("rsi", False)]


def test_an_observed_breach_that_is_over_makes_room_for_the_next_one(room: Room):
    room.policy = Policy(observe_only=True)
    room.bot.lose("rsi", 1500.0)
    room.step()
    room.step(24 * 3600)
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert len([a for a in room.told if a.what == "rsi should be stopped"]) == 2


def test_limits_can_be_a_strategys_own(room: Room):
    room.policy = Policy(own_limits={"macd": Limits(daily_loss_pct=20.0)})
    for name in ("rsi", "macd"):
        room.bot.lose(name, 1500.0)
    seen = room.step()
    assert room.bot.switched == [("rsi", False)]
    assert seen.risk is not None
    assert seen.risk["strategies"]["macd"]["distance"]["daily_loss_pct"] == 5.0


def test_an_account_below_its_limit_stops_every_strategy(room: Room):
    room.policy = Policy(portfolio=PortfolioLimits(from_peak_pct=10.0))
    room.bot.lose("rsi", -4000.0, minutes_ago=3 * 24 * 60)
    room.step()
    for name in ("rsi", "macd"):  # 990 of 10,000 are no breach of their own; 1,980 of 24,000 are 8.25 %
        room.bot.lose(name, 990.0)
    room.step()
    assert room.bot.switched == []
    room.clock.go(24 * 3600)
    for name in ("rsi", "macd"):
        room.bot.lose(name, 300.0)
    room.restart()  # the peak is remembered
    room.step()
    assert sorted(room.bot.switched) == [("macd", False), ("rsi", False)]
    assert "10.75 % below its peak" in room.told[-1].why


def test_a_stop_that_hangs_holds_up_no_other(room: Room):
    room.bot = TradingBot(room.clock, names=("a", "b", "c"))
    room.restart()
    for name in room.bot.names:
        room.bot.lose(name, 1500.0)
    others_are_stopped, waited = threading.Event(), []

    def hang(method: str) -> None:
        if method == "disable" and not waited:
            waited.append("began")
            waited.append("went on" if others_are_stopped.wait(300) else "gave up")
        if method == "disabled" and len(room.bot.switched) == 2:
            others_are_stopped.set()

    room.bot.before = hang
    room.step()
    assert waited == ["began", "went on"]
    assert sorted(room.bot.switched) == [("a", False), ("b", False), ("c", False)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"closed_at": "2025-03-10T13:00:00+00:00"}, "it closed at 2025-03-10 13:00:00"),
        ({"exit_price": 1.0, "pnl_usdt": -992.0, "pnl_pct": -99.2}, "the price changed 100-fold"),
        ({"quantity": 1e6, "exit_price": 99.0, "pnl_usdt": -1000002.0, "pnl_pct": -1.000002}, "times the strategy's"),
        ({"pnl_usdt": -5000.0}, "does not follow from prices"),
    ],
)
def test_an_impossible_trade_is_told_and_stops_nobody(room: Room, row: dict[str, Any], reason: str):
    room.bot.equity = {"rsi": 10_000.0, "macd": 10_000.0}  # the account does not say that the money is gone
    room.bot.rows.append({**trade("t1", "2025-03-10T11:59:00+00:00"), **row})
    for _ in range(3):
        seen = room.step()
    assert room.bot.switched == []
    assert seen.risk is not None
    assert seen.risk["incomplete"]
    (alert,) = [a for a in room.told if a.severity == Severity.ERROR]
    assert reason in alert.why


def test_while_a_trade_is_in_doubt_the_equity_guards(room: Room):
    room.bot.at_midnight = {"rsi": 10_000.0, "macd": 10_000.0}
    room.bot.equity = {"rsi": 8_000.0, "macd": 10_000.0}
    room.bot.rows.append({**trade("t1", "2025-03-10T11:59:00+00:00"), "pnl_usdt": -5000.0})
    room.step()
    assert room.bot.switched == [("rsi", False)]
    assert room.action()["numbers"]["basis"] == "equity"


def test_a_bot_unreadable_for_a_minute_is_an_alert_of_its_own_and_so_is_its_return(room: Room):
    def down(method: str) -> None:
        raise BotUnreachable("connection refused")

    room.step()
    room.bot.before = down
    for _ in range(60):
        assert room.step().problem == "connection refused"
    assert room.says() == []
    room.step()
    room.step()
    assert room.says() == ["The guard is blind: the bot cannot be read"]
    assert len([a for a in room.told if a.severity == Severity.CRITICAL]) == 1  # of one outage once
    room.bot.before = lambda method: None
    room.step()
    assert [alert.incident for alert in room.over].count("guard/unreadable") == 2  # at the start, and now
    room.bot.before = down
    room.step()
    room.step(61)
    assert len([a for a in room.told if a.severity == Severity.CRITICAL]) == 2


def test_a_strategy_without_equity_makes_the_guard_blind_and_says_so(room: Room):
    room.bot.equity = {}
    room.bot._states = {n: s.model_copy(update={"allocated_usdt": None}) for n, s in room.bot._states.items()}
    portfolio = room.bot.portfolio
    room.bot.portfolio = lambda: portfolio().model_copy(update={"initial_by_strategy": {}, "initial_usdt": 1e-9})  # type: ignore[method-assign]
    room.bot.lose("rsi", 0.5, minutes_ago=5000)
    room.step()
    assert room.says() == ["The guard is blind for rsi", "The guard is blind for macd"]


def test_only_the_running_day_of_fresh_data_acts(room: Room):
    room.bot.lose("rsi", 1500.0, minutes_ago=24 * 60)  # yesterday's
    room.step()
    assert room.bot.switched == []
    room.bot.live = False
    room.bot.lose("rsi", 1500.0)
    seen = room.step(20)
    assert room.bot.switched == []
    assert seen.problem == "the bot's data ends at 2025-03-10 12:00 UTC: nothing starts"


def test_a_late_trade_counts(room: Room):
    room.step()
    room.bot.lose("rsi", 100.0)
    room.step()
    room.bot.lose("rsi", 950.0, minutes_ago=10)
    room.step()
    assert room.bot.switched == [("rsi", False)]


def test_a_trade_that_changed_is_counted_as_it_is_now(room: Room):
    room.bot.lose("rsi", 100.0, trade_id="t1")
    room.step()
    room.bot.rows.clear()
    room.bot.lose("rsi", 1500.0, trade_id="t1")
    room.step()
    assert room.bot.switched == [("rsi", False)]


class Down:
    """A store that does not work."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def raises(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("the store is down")

        return raises


def test_the_guard_acts_while_the_shared_store_is_down_and_gives_it_everything_when_it_is_back(room: Room):
    room.shared = Down()  # type: ignore[assignment]
    room.restart()
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert room.bot.switched == [("rsi", False)]
    assert room.says() == ["rsi was stopped"]
    room.step()
    room.restart()  # still down: what is on this machine's disk is enough
    room.step()
    assert room.bot.switched == [("rsi", False)]
    room.shared = room.store
    room.restart()
    room.step()
    assert room.action()["state"] == CONFIRMED
    assert len(room.store.read(STRATEGY_ACTIONS)) == 1
    assert room.bot.switched == [("rsi", False)]


def test_the_guard_acts_though_no_store_works_at_all(room: Room):
    room.shared = room.local = Down()  # type: ignore[assignment]
    room.restart()
    room.bot.lose("rsi", 1500.0)
    room.step()
    room.step()
    assert room.bot.switched == [("rsi", False)]
    assert room.says() == ["rsi was stopped"]


def test_an_alert_that_could_not_be_told_is_told_by_the_next_step(room: Room):
    room.bot.lose("rsi", 1500.0)
    tell, failing = room.tell, [StoreUnavailable("the outbox is down")]

    def falter(alert: Alert) -> None:
        if failing:
            raise failing.pop()
        tell(alert)

    for _ in range(3):
        room.clock.go(1)
        step(room.bot, room.memory, room.watch, room.policy, falter)
    assert room.says() == ["rsi was stopped"]
    assert len(room.told) == 1


def test_two_guards_at_once_are_one(room: Room):
    other = GuardMemory(room.shared, lambda: room.local, room.bot.source), Watch(room.clock)
    room.bot.lose("rsi", 1500.0)
    mine = room.memory.load(), other[0].load()  # both look before either acts
    assert mine == ({}, {})
    room.step()
    step(room.bot, other[0], other[1], room.policy, room.tell)
    assert room.bot.switched == [("rsi", False)]
    assert len(room.store.read(STRATEGY_ACTIONS, all_revisions=True)) == 1
    assert len({alert.dedup_key for alert in room.told}) == 1


def test_a_step_reads_what_is_new_in_two_requests(room: Room):
    asked: list[str] = []
    room.step()
    room.bot.before = asked.append
    room.step()
    assert asked == ["portfolio", "closed_trades"]
    room.step(15)
    assert sorted(asked[2:]) == ["calendar", "closed_trades", "portfolio", "strategies"]


def test_midnight_begins_a_new_count(room: Room):
    room.clock.go((timedelta(hours=12) - timedelta(seconds=10)).total_seconds())
    room.bot.lose("rsi", 900.0)
    room.step()
    room.clock.go(60)
    room.bot.lose("rsi", 900.0)  # 900 of 9,100 are 9.89 %
    seen = room.step()
    assert seen.risk is not None
    assert seen.risk["strategies"]["rsi"]["daily_loss_pct"] == pytest.approx(100 * 900 / 9100)
    assert room.bot.switched == []


def resumed_by_ana(room: Room) -> None:
    guard = Guard(room.bot, room.memory, room.watch, room.policy, room.tell)
    resume(guard, "rsi", reason="the feed was wrong", by="ana", seen=preflight(guard, "rsi"))


def test_a_resume_shows_what_changed_and_counts_anew(room: Room):
    for _ in range(11):
        room.bot.lose("rsi", 1.0)
    room.step()
    room.bot.lose("rsi", -5.0)
    room.step()
    guard = Guard(room.bot, room.memory, room.watch, room.policy, room.tell)
    seen = preflight(guard, "rsi")
    assert (seen.state, seen.enabled, seen.concerns) == (CONFIRMED, False, ())
    assert ("consecutive_losses", 11, 0) in seen.changed
    resumed_by_ana(room)
    assert room.bot.switched == [("rsi", False), ("rsi", True)]
    for _ in range(10):
        room.clock.go(1)
        room.bot.lose("rsi", 1.0)
    seen_again = room.step()
    assert seen_again.risk is not None
    assert seen_again.risk["strategies"]["rsi"]["consecutive_losses"] == 10
    assert seen_again.risk["strategies"]["rsi"]["equity_basis"] == "resume"
    assert room.bot.switched == [("rsi", False), ("rsi", True)]
    room.bot.lose("rsi", 1.0)
    room.step()
    assert room.bot.switched[2:] == [("rsi", False)]


def test_after_a_resume_the_accounts_drawdown_counts_anew(room: Room):
    room.policy = Policy(portfolio=PortfolioLimits(from_start_pct=5.0))
    room.bot.lose("macd", 990.0, minutes_ago=2 * 24 * 60)
    room.bot.lose("rsi", 990.0)
    room.step()
    assert sorted(room.bot.switched) == [("macd", False), ("rsi", False)]
    resumed_by_ana(room)
    for _ in range(3):
        room.step(20)
    assert room.bot.switched[2:] == [("rsi", True)]


def test_a_guard_that_has_nothing_to_do_writes_nothing(room: Room):
    room.bot.lose("rsi", 1500.0)
    room.step()
    room.step()
    before = [*room.store.list_state(GUARD_ACTIONS), *room.local.list_state(GUARD_ACTIONS)]
    for _ in range(5):
        room.step(20)
    assert [*room.store.list_state(GUARD_ACTIONS), *room.local.list_state(GUARD_ACTIONS)] == before


def test_a_stop_that_the_history_could_not_take_is_recorded_when_it_can_though_another_followed(room: Room):
    """It was enabled elsewhere meanwhile, so its document is another one's by then."""
    down = True

    class Away:
        def __getattr__(self, name: str) -> Any:
            def called(*args: Any, **more: Any) -> Any:
                if down:
                    raise StoreUnavailable("down")
                return getattr(room.store, name)(*args, **more)

            return called

    room.shared = Away()  # type: ignore[assignment]
    room.restart()
    room.bot.lose("rsi", 1500.0)
    room.step()
    room.bot.switch_elsewhere("rsi", True)
    room.step(20)
    down = False
    room.step(20)
    records = room.store.read(STRATEGY_ACTIONS, all_revisions=True)
    assert [(r.body["trigger"]["rule"], r.body["state"]) for r in records] == [
        ("daily_loss", CONFIRMED),
        ("enabled_elsewhere", CONFIRMED),
    ]
    assert "unrecorded" not in room.action()


def test_what_was_only_observed_is_told_to_be_over_when_it_is(room: Room):
    room.policy = Policy(observe_only=True)
    room.bot.lose("rsi", 1500.0)
    room.step()
    assert room.says() == ["rsi should be stopped"]
    room.over.clear()
    room.step(24 * 3600)
    room.step(20)
    assert [alert.incident for alert in room.over].count("guard/rsi") == 1
