"""Which strategy must be stopped now? One step of the guard: see, judge, stop, confirm, record, tell."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.bot.client import Bot, BotError
from trading_ops.guard import telling
from trading_ops.guard.actions import CONFIRMED, GONE, OBSERVED, STOPPED, WATCHING, Action, request, settled, watching
from trading_ops.guard.deposits import DEPOSITS, with_deposits
from trading_ops.guard.drawdown import PortfolioLimits, PortfolioRisk, describe_account, drawdown, earned, rises
from trading_ops.guard.memory import GuardMemory
from trading_ops.guard.pursuits import Pursuits
from trading_ops.guard.rules import Limits, StrategyRisk, describe
from trading_ops.guard.sight import OF_THE_PAST
from trading_ops.guard.stop import Left, look_again, what_is_left
from trading_ops.guard.telling import Tell, said
from trading_ops.guard.watch import NotJudged, View, Watch

if TYPE_CHECKING:
    from trading_ops.bot.records import Portfolio
    from trading_ops.notifications.alert import Alert

BLIND_AFTER = timedelta(seconds=60)
LATE = timedelta(seconds=30)  # what was seen longer ago is not given out as new
EVIDENCE = 50  # trades that an action records at most
ACCOUNT = "account"
_log = logging.getLogger(__name__)


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
class Sight:
    """What one look at the bot found: a view, or the problem with it. `broken`: the problem is ours, not the bot's."""

    view: View | None = None
    risk: dict[str, Any] | None = None
    problem: str | None = None
    broken: bool = False

    @property
    def is_blind(self) -> bool:
        """Whether nobody knows what the strategies lose now; prices of the past end by their nature."""
        return self.view is None or not (self.view.fresh or self.view.label.startswith(OF_THE_PAST))


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
    pursuits: Pursuits = field(default_factory=Pursuits)
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _look: Future[Sight] | None = None
    _looked_at: datetime | None = None  # when the look ended

    def step(self, within_s: float | None = None) -> Seen:
        """A step that waits at most so long for the bot (None: as long as it takes). A look that hangs goes on beside
        the next steps, which see to all else; the first one after its end has what it found, unless that is old.
        """
        with self._turn:
            actions = self.memory.load()
            look = self._look
            if look is None or (look.done() and self._looked_at and self.watch.now() - self._looked_at > LATE):
                self._look = look = Future[Sight]()
                # a daemon: a bot that hangs must not keep the process from ending
                threading.Thread(target=self._look_into, args=(look, actions), daemon=True).start()
            sight = None
            if wait([look], within_s).done:
                self._look = None
                sight = look.result()
            return _act(self.bot, self.memory, self.watch, self.policy, self.tell, self.pursuits, sight)

    def _look_into(self, done: Future[Sight], actions: Mapping[str, Action]) -> None:
        try:
            sight = _see(self.bot, self.memory, self.watch, self.policy, actions)
            self._looked_at = self.watch.now()
            done.set_result(sight)
        except BaseException as error:  # noqa: BLE001  # raised by `result`
            done.set_exception(error)


def step(
    bot: Bot, memory: GuardMemory, watch: Watch, policy: Policy, tell: Tell, pursuits: Pursuits | None = None
) -> Seen:
    """Read what is new, judge, stop what must be stopped, and tell; the watcher and the sensor both do this.

    Whatever process is killed wherever, the next step of any goes on: an action is written before the bot is told, and
    told and recorded again until that is noted. Only the running day of a bot whose data is fresh starts an action;
    one that was started is followed to its end, whatever comes of the look.
    """
    return _act(
        bot, memory, watch, policy, tell, pursuits or Pursuits(), _see(bot, memory, watch, policy, memory.load())
    )


def _see(bot: Bot, memory: GuardMemory, watch: Watch, policy: Policy, actions: Mapping[str, Action]) -> Sight:
    """Look, and write down what follows from it. `actions`: as they were before; those that changed since are left."""
    watch.unread_since = watch.unread_since or watch.now()
    try:
        view = watch.look(bot, memory.shared, actions, policy.limits_of)
        view = replace(view, account=with_deposits(view.account, memory, watch))
        account = account_risk(memory, view.account, policy)
        risk = {**view.document(policy.limits, policy.own_limits), "portfolio": _figures(account)}
        if view.looked_round:
            _look_again(bot, memory, watch, policy, view, actions)
        if view.fresh:
            _judge(memory, watch, policy, view, account, actions)
    except BotError as error:
        return Sight(problem=str(error), broken=isinstance(error, NotJudged))
    except Exception as error:  # noqa: BLE001  # told, and stops go on
        _log.exception("the guard cannot judge")
        # an error nobody thought of may quote what is secret, so its kind alone is told
        return Sight(problem=f"what the bot answers cannot be judged ({type(error).__name__})", broken=True)
    sight = Sight(view, risk, view.stale)
    if not sight.is_blind:
        watch.unread_since = None
    return sight


def _act(
    bot: Bot,
    memory: GuardMemory,
    watch: Watch,
    policy: Policy,
    tell: Tell,
    pursuits: Pursuits,
    sight: Sight | None,
) -> Seen:
    """Drive every stop on, and tell; `sight` is None while the look hangs."""
    if sight is None:
        sight = Sight(problem=f"the bot has not answered since {watch.unread_since or watch.now():%H:%M:%S} UTC")
    pursuits.drive(bot, memory, watch.now, tell)
    _tell_sight(memory, watch, tell, sight)
    if sight.view is not None and sight.view.fresh:
        _warn(memory, watch, policy, sight.view, tell)
    return Seen(sight.risk, tuple(a for a in memory.all().values() if a["state"] != WATCHING), sight.problem)


def _judge(
    memory: GuardMemory,
    watch: Watch,
    policy: Policy,
    view: View,
    account: PortfolioRisk,
    actions: Mapping[str, Action],
) -> None:
    """Write down a stop for each strategy that crossed a limit and is not stopped yet."""
    seen_at = watch.now()
    for name, risk in view.risks.items():
        action, state = actions.get(name) or watching(memory.source, name), view.strategies.get(name)
        if action["state"] not in (WATCHING, OBSERVED):
            continue  # stopped already
        rule = risk.breach or (account.breach if state is not None and state.enabled else None)
        if rule is None and action["state"] == OBSERVED:
            memory.advance(action, settled(action))
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
                seen_at=seen_at,
            )
            memory.advance(action, stop)


def _figures(risk: StrategyRisk | PortfolioRisk) -> dict[str, Any]:
    """As JSON gives it back: what is stored is compared with what is known."""
    return {**asdict(risk), "warnings": list(risk.warnings)}


def _look_again(
    bot: Bot, memory: GuardMemory, watch: Watch, policy: Policy, view: View, actions: Mapping[str, Action]
) -> None:
    """See that what is stopped stays stopped; the bot is asked once for all of it."""
    enabled = {name for name, state in view.strategies.items() if state.enabled}

    def see(names: Collection[str], left: Left | None) -> None:
        for name in names:
            action, state, last_entry = actions[name], view.strategies.get(name), watch.last_entry(name)
            found = look_again(left, action, state, last_entry, watch.now, observe_only=policy.observe_only)
            if found != action:
                memory.advance(action, found)

    disabled = [name for name, action in actions.items() if action["state"] == CONFIRMED and name not in enabled]
    over = [name for name, action in actions.items() if action["state"] in (CONFIRMED, GONE) and name not in disabled]
    see(over, None)  # what the list alone tells waits for no other answer
    if disabled:
        left = None
        with suppress(BotError):  # that the bot cannot be read is an alert of its own
            left = what_is_left(bot)
        see(disabled, left)


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


def _tell_sight(memory: GuardMemory, watch: Watch, tell: Tell, sight: Sight) -> None:
    """A bot that was not read, or showed no present, is given a minute from the beginning of the first such look."""
    if not sight.is_blind:
        _over(watch, tell, telling.UNREADABLE)
        return
    since = watch.unread_since or watch.now()
    if sight.broken or watch.now() - since >= BLIND_AFTER:
        stale = sight.view is not None
        _once(watch, tell, telling.blind(sight.problem or "", since, memory.source, stale=stale))


def _warn(memory: GuardMemory, watch: Watch, policy: Policy, view: View, tell: Tell) -> None:
    """The soft lane; what is well again is said, too."""
    day = str(view.day)
    if view.doubts:
        _once(watch, tell, telling.doubted(view.doubts, day))
    else:
        _over(watch, tell, telling.DOUBTS)
    if view.trouble:
        _once(watch, tell, telling.impaired(view.trouble, day))
    else:
        _over(watch, tell, telling.IMPAIRED)
    assumed, held_to = memory.known_fact(DEPOSITS), policy.portfolio
    if assumed and assumed["jump"] and (held_to.from_peak_pct, held_to.from_start_pct) != (None, None):
        _once(watch, tell, telling.assumed_flow(assumed, day))
    else:
        _over(watch, tell, telling.FLOW)
    for name, risk in view.risks.items():
        action, state = memory.get(name), view.strategies.get(name)
        trades_on = action["state"] not in STOPPED and (state is None or state.enabled)
        if action["state"] == OBSERVED:
            watch.told[telling.incident_of(name)] = OBSERVED
        elif "at" not in action:  # nothing was done about it, or what was only observed is over
            _over(watch, tell, telling.incident_of(name))
        if trades_on:
            for alert in telling.warnings(name, risk, asdict(policy.limits_of(name)), day):
                _once(watch, tell, alert)
        for rule in telling.SOFT:
            if not trades_on or rule not in risk.warnings:
                _over(watch, tell, telling.warning_of(name, rule))


def _once(watch: Watch, tell: Tell, alert: Alert) -> None:
    """What people hear once is known to the desk that tells them; this spares it the question at every step."""
    assert alert.incident is not None
    if watch.told.get(alert.incident) != alert.dedup_key and said(tell, alert):
        watch.told[alert.incident] = alert.dedup_key


def _over(watch: Watch, tell: Tell, incident: str) -> None:
    """A process that was just started does not know what an earlier one told: it says so once."""
    if watch.told.get(incident, incident) is not None and said(tell, telling.over(incident)):
        watch.told[incident] = None
