"""Which strategy must be stopped now? One step of the guard: see, judge, stop, confirm, record, tell."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import StoreError
from trading_ops.bot.client import Bot, BotError
from trading_ops.guard import telling
from trading_ops.guard.actions import (
    CONFIRMED,
    OBSERVED,
    PENDING,
    RESUMING,
    STOPPED,
    WATCHING,
    Action,
    request,
    resumed,
    settled,
)
from trading_ops.guard.drawdown import PortfolioLimits, PortfolioRisk, describe_account, drawdown, earned, rises
from trading_ops.guard.memory import GuardMemory
from trading_ops.guard.rules import Limits, StrategyRisk, describe
from trading_ops.guard.stop import look_again, pursue
from trading_ops.guard.watch import View, Watch

if TYPE_CHECKING:
    from trading_ops.bot.records import Portfolio
    from trading_ops.notifications.alert import Alert

BLIND_AFTER = timedelta(seconds=60)
PATIENCE_S = 3.0  # a stop that takes longer is told before it is confirmed
EVIDENCE = 50  # trades that an action records at most
ACCOUNT = "account"
_log = logging.getLogger(__name__)
Tell = Callable[["Alert"], object]


@dataclass(frozen=True, slots=True)
class Policy:
    """What the guard holds strategies to; `observe_only`: it tells and records, and does not act."""

    limits: Limits = field(default_factory=Limits)
    own_limits: Mapping[str, Limits] = field(default_factory=dict)
    portfolio: PortfolioLimits = field(default_factory=PortfolioLimits)
    observe_only: bool = False

    def limits_of(self, strategy: str) -> Limits:
        return self.own_limits.get(strategy, self.limits)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a step found. `risk`: the running day's value of `strategy_risk`, None where the bot could not be read;
    `problem`: why not, or why nothing acts; `actions`: those that are open."""

    risk: dict[str, Any] | None
    actions: tuple[Action, ...]
    problem: str | None = None


@dataclass(slots=True)
class Guard:
    """What a process needs to guard a bot, from one step to the next."""

    bot: Bot
    memory: GuardMemory
    watch: Watch
    policy: Policy
    tell: Tell
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _under_way: Future[Seen] | None = None

    def step(self) -> Seen:
        with self._turn:
            return step(self.bot, self.memory, self.watch, self.policy, self.tell)

    def step_within(self, seconds: float) -> Seen | None:
        """A step; None where it is not done by then, because the bot hangs: it goes on, and is what comes next."""
        done = self._under_way or Future()
        if self._under_way is None:
            self._under_way = done
            # a daemon: a bot that hangs must not keep the process from ending
            threading.Thread(target=self._step_into, args=(done,), daemon=True).start()
        if not wait([done], seconds).done:
            return None
        self._under_way = None
        return done.result()

    def _step_into(self, done: Future[Seen]) -> None:
        try:
            done.set_result(self.step())
        except BaseException as error:  # noqa: BLE001  # raised by `result`
            done.set_exception(error)


def step(bot: Bot, memory: GuardMemory, watch: Watch, policy: Policy, tell: Tell) -> Seen:
    """Read what is new, judge, stop what must be stopped, and tell; the watcher and the sensor both call this.

    Whatever process is killed wherever, the next step of any goes on: an action is written before the bot is told, and
    told and recorded again until that is noted. Only the running day of a bot whose data is fresh starts an action;
    one that was started is followed to its end.
    """
    actions, view, risk = memory.load(), None, None
    try:
        view = watch.look(bot, memory.shared, actions, policy.limits_of)
    except BotError as error:
        problem: str | None = str(error)
    else:
        problem = None if view.fresh else f"the bot's data ends at {view.at:%Y-%m-%d %H:%M} UTC: nothing starts"
        account = account_risk(memory, view.account, policy)
        risk = {**view.document(policy.limits, policy.own_limits), "portfolio": _figures(account)}
        if view.looked_round:
            _look_again(bot, memory, watch, policy, view)
        if view.fresh:
            _judge(memory, watch, policy, view, account, actions)
    stop_pending(bot, memory, watch.now, tell)
    _tell_sight(memory, watch, tell, problem if view is None else None)
    if view is not None and view.fresh:
        _warn(memory, watch, policy, view, tell)
    return Seen(risk, tuple(a for a in memory.all().values() if a["state"] != WATCHING), problem)


def _judge(
    memory: GuardMemory,
    watch: Watch,
    policy: Policy,
    view: View,
    account: PortfolioRisk,
    actions: Mapping[str, Action],
) -> None:
    """Write down a stop for each strategy that crossed a limit and is not stopped yet."""
    for name, risk in view.risks.items():
        action, state = memory.get(name), view.strategies.get(name)
        counted_since = actions[name]["since"] if name in actions else None
        if action["state"] not in (WATCHING, OBSERVED) or action["since"] != counted_since:
            continue  # stopped already, or resumed since the look: what was counted is of before
        rule = risk.breach or (account.breach if state is not None and state.enabled else None)
        if rule is None and action["state"] == OBSERVED:
            memory.save(settled(action))
        elif rule is not None and (action["state"] == WATCHING or not policy.observe_only):
            limits = asdict(policy.limits_of(name))
            why = describe(rule, asdict(risk), limits) if risk.breach else describe_account(account, policy.portfolio)
            stop = request(
                action,
                watch.now(),
                rule=rule,
                why=f"{name} {why}",
                observe_only=policy.observe_only,
                numbers={**_figures(risk), "limits": limits, "portfolio": _figures(account)},
                trades=watch.evidence(name, view.day, EVIDENCE),
            )
            memory.save(stop)


def _figures(risk: StrategyRisk | PortfolioRisk) -> dict[str, Any]:
    """As JSON gives it back: what is stored is compared with what is known."""
    return {**asdict(risk), "warnings": list(risk.warnings)}


def _look_again(bot: Bot, memory: GuardMemory, watch: Watch, policy: Policy, view: View) -> None:
    """See that what is stopped stays stopped, and finish a resume whose process was killed."""
    for name, action in memory.all().items():
        state = view.strategies.get(name)
        if action["state"] == CONFIRMED:
            found = look_again(bot, action, state, watch.last_entry(name), watch.now, observe_only=policy.observe_only)
            if found != action:
                memory.save(found)
        elif action["state"] == RESUMING and state is not None and state.enabled:
            memory.save(resumed(action, watch.now()))


def stop_pending(bot: Bot, memory: GuardMemory, now: Callable[[], datetime], tell: Tell) -> None:
    """Try every stop that is not confirmed, side by side: one that hangs holds up no other."""
    if pending := [action for action in memory.all().values() if action["state"] in PENDING]:
        with ThreadPoolExecutor(len(pending)) as pool:
            tries = [pool.submit(pursue, bot, action, now, memory.save) for action in pending]
            if wait(tries, PATIENCE_S).not_done:
                finish(memory, tell)
            for one in tries:
                one.result()
    finish(memory, tell)


def finish(memory: GuardMemory, tell: Tell) -> None:
    """Tell and record what was not yet; noted only when it was done, so that a killed process repeats it."""
    for action in memory.all().values():
        if "at" not in action:
            continue
        noted = dict(action)
        if (phase := telling.news(action)) and _said(tell, telling.alert_of(action, phase)):
            noted["told"] = sorted({*action["told"], phase})
        if action["state"] not in action["recorded"] and memory.record(action):
            noted["recorded"] = sorted({*action["recorded"], action["state"]})
        if noted != action:
            memory.save(noted)


def account_risk(memory: GuardMemory, account: Portfolio, policy: Policy) -> PortfolioRisk:
    """The account's drawdowns; its peak is kept, as far as it rose by a thousandth."""
    known, now = memory.fact(ACCOUNT), earned(account)
    if known is None or rises(now, known["level"]):
        start = known["start"] if known else account.initial_usdt
        known = memory.keep(
            ACCOUNT, {"number": known["number"] if known else 1, "level": max(now, start), "start": start}
        )
    return drawdown(account, known["start"], known["level"], policy.portfolio)


def count_account_anew(memory: GuardMemory, account: Portfolio) -> None:
    """After a resume the drawdowns are those since then."""
    known, now = memory.fact(ACCOUNT), earned(account)
    memory.keep(ACCOUNT, {"number": (known["number"] if known else 1) + 1, "level": now, "start": now})


def _tell_sight(memory: GuardMemory, watch: Watch, tell: Tell, why: str | None) -> None:
    """`why` the bot could not be read, None: it could."""
    if why is None:
        watch.unread_since = None
        _over(watch, tell, telling.UNREADABLE)
        return
    watch.unread_since = watch.unread_since or watch.now()
    if watch.now() - watch.unread_since >= BLIND_AFTER:
        _once(watch, tell, telling.unreadable(why, watch.unread_since, memory.source))


def _warn(memory: GuardMemory, watch: Watch, policy: Policy, view: View, tell: Tell) -> None:
    """The soft lane; what is well again is said, too."""
    day = str(view.day)
    if view.doubts:
        _once(watch, tell, telling.doubted(view.doubts, day))
    else:
        _over(watch, tell, telling.DOUBTS)
    for name, risk in view.risks.items():
        state = view.strategies.get(name)
        trades_on = state is not None and state.enabled and memory.get(name)["state"] not in STOPPED
        if trades_on:
            for alert in telling.warnings(name, risk, asdict(policy.limits_of(name)), day):
                _once(watch, tell, alert)
        for rule in telling.SOFT:
            if not trades_on or rule not in risk.warnings:
                _over(watch, tell, telling.warning_of(name, rule))


def _once(watch: Watch, tell: Tell, alert: Alert) -> None:
    """What people hear once is known to the desk that tells them; this spares it the question at every step."""
    assert alert.incident is not None
    if watch.told.get(alert.incident) != alert.dedup_key and _said(tell, alert):
        watch.told[alert.incident] = alert.dedup_key


def _over(watch: Watch, tell: Tell, incident: str) -> None:
    """A process that was just started does not know what an earlier one told: it says so once."""
    if watch.told.get(incident, incident) is not None and _said(tell, telling.over(incident)):
        watch.told[incident] = None


def _said(tell: Tell, alert: Alert) -> bool:
    try:
        tell(alert)
    except StoreError as error:
        level = logging.DEBUG if alert.step == "resolved" else logging.ERROR
        _log.log(level, "%s: not told, tried again: %s", alert.what, error)
        return False
    return True
