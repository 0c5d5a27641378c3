"""What has happened at the bot since the last look, and how close is each strategy to its limits?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import StoreError
from trading_ops.bot.client import BotError
from trading_ops.guard.actions import Action
from trading_ops.guard.baseline import Baseline, Flows, Morning, read_flows
from trading_ops.guard.ledger import Ledger
from trading_ops.guard.reading import Doubt, Present, Reading
from trading_ops.guard.rules import Limits, StrategyRisk, document, unlisted, with_unseen
from trading_ops.guard.sight import Sight
from trading_ops.guard.unseen import Books, lost_unseen

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore
    from trading_ops.bot.client import Bot, Calendar
    from trading_ops.bot.records import Portfolio, StrategyState

DAY, TICK = timedelta(days=1), timedelta(microseconds=1)
ROUND = timedelta(seconds=15)  # which strategies there are, whether they are enabled, whether the data is fresh
NO_JUDGEMENT = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
_log = logging.getLogger(__name__)


class NotJudged(BotError):
    """The bot answered what nobody thought of."""


@dataclass(frozen=True, slots=True)
class View:
    """The bot as it was seen. `at`: its own clock, never before a trade that was seen; `stale`: why none of it is its
    present and may start something, None: it is. `doubts`: rows that were not believed, as (row, reason); `trouble`:
    what the store holds and cannot be used."""

    at: datetime
    day: date
    stale: str | None
    label: str
    account: Portfolio
    strategies: dict[str, StrategyState]
    risks: dict[str, StrategyRisk]
    doubts: tuple[Doubt, ...]
    incomplete: bool
    looked_round: bool
    trouble: str | None = None

    @property
    def fresh(self) -> bool:
        return self.stale is None

    def document(self, limits: Limits, own_limits: Mapping[str, Limits]) -> dict[str, Any]:
        """The running day's value of `strategy_risk`."""
        known = {name: own_limits[name] for name in own_limits if name in self.risks}
        value = document(str(self.day), self.risks, limits, known, label=self.label, incomplete=self.incomplete)
        return {**value, "as_of": self.at.isoformat()}


@dataclass(slots=True)
class Watch:
    """One process's memory of what it read; a new one reads the past once, from the store and the bot.

    A look is two requests: the trades since the last one, and the portfolio, which tells the clock and the unrealised
    profits. Every 15 seconds it is two more.
    """

    now: Callable[[], datetime]
    unread_since: datetime | None = None  # since when the bot cannot be read or shows no present, None: it does
    told: dict[str, str | None] = field(default_factory=dict)  # what was told last of an incident, None: it is over
    unexplained_since: datetime | None = None  # since when the balance differs from what the trades explain
    _reading: Reading = field(default_factory=Reading)
    _sight: Sight = field(default_factory=Sight)
    _states: dict[str, StrategyState] = field(default_factory=dict)
    _calendar: Calendar | None = None
    _looked_round: datetime | None = None
    _flows: Flows | None = None  # read where trades are in doubt
    _unlisted: set[str] = field(default_factory=set)

    def look(
        self,
        bot: Bot,
        store: AuditStore,
        actions: Mapping[str, Action],
        limits: Callable[[str], Limits],
    ) -> View:
        """Read what is new, and judge; raises BotError, also where what was read cannot be judged. `limits` gives each
        strategy's."""
        try:
            return self._look(bot, store, actions, limits)
        except StoreError as error:  # of a bot that lives in a store
            self._reading.begin_again()
            raise BotError(f"the bot's own store: {error}") from error
        except NO_JUDGEMENT as error:
            self._reading.begin_again()
            _log.exception("what was read cannot be judged")
            # an error nobody thought of may quote what is secret, so its kind alone is told
            raise NotJudged(f"what the bot answers cannot be judged ({type(error).__name__})") from error

    def _look(
        self, bot: Bot, store: AuditStore, actions: Mapping[str, Action], limits: Callable[[str], Limits]
    ) -> View:
        now = self.now()
        account = bot.portfolio()
        calendar, looks_round = self._calendar, False
        if calendar is None or self._looked_round is None or now - self._looked_round >= ROUND:
            calendar, looks_round = self._look_round(bot, now), True
        as_of, clock, label = account.as_of.astimezone(UTC), (calendar.now or now).astimezone(UTC), bot.label
        stale = self._sight.stale(as_of, calendar, label, now, asked=looks_round)
        if stale is not None and (since := self._sight.since):
            self.unread_since = min(self.unread_since or since, since)
        if abs(as_of - clock) > DAY:
            as_of = clock  # it is stale, and must not lead the reading astray
        seen = Present(account, self._states, calendar, actions, as_of, max(as_of, clock), now)
        morning, reading = self._reading.read(bot, store, seen), self._reading
        if reading.doubts and self._flows is None:
            self._flows = read_flows(store, bot, morning.day, account)
        return View(
            at=as_of if reading.newest is None else max(as_of, reading.newest + TICK),
            day=morning.day,
            stale=stale,
            label=label,
            account=account,
            strategies=dict(self._states),
            risks=self._risks(morning, seen, limits, looked_round=looks_round),
            doubts=(*reading.doubts.values(), *reading.old_doubts.values()),
            incomplete=bool(reading.doubts or reading.old_doubts) or not reading.complete,
            looked_round=looks_round,
            trouble=reading.trouble or morning.trouble,
        )

    def look_round_next(self) -> None:
        """Let the next look ask for the strategies, whenever they were asked for last."""
        self._looked_round = None

    def evidence(self, strategy: str, day: date, at_most: int) -> list[dict[str, str | float]]:
        """The trades a verdict rests on."""
        ledger = self._reading.ledgers.get(strategy)
        return ledger.evidence(day, at_most) if ledger else []

    def last_entry(self, strategy: str) -> datetime | None:
        """When the newest of the closed trades that were read was opened."""
        return self._reading.entries.get(strategy)

    @property
    def day(self) -> date | None:
        """The running day of the last look."""
        return self._reading.morning.day if self._reading.morning is not None else None

    @property
    def first_day(self) -> date | None:
        """The first day whose trades were read."""
        return self._reading.first_day

    def realised_since(self, first: date) -> float:
        """Net profit of all trades that were read and closed from this UTC day on, USDT."""
        return sum(ledger.realised(first, date.max, before_resume=True) for ledger in self._reading.ledgers.values())

    def _look_round(self, bot: Bot, now: datetime) -> Calendar:
        self._states = {state.name: state for state in bot.strategies()}
        self._calendar, self._looked_round, self._flows = bot.calendar(), now, None
        return self._calendar

    def _risks(
        self, morning: Morning, seen: Present, limits: Callable[[str], Limits], *, looked_round: bool
    ) -> dict[str, StrategyRisk]:
        unseen = self._unseen(morning, seen)
        risks = {}
        for name in [*self._states, *(name for name in sorted(self._reading.ledgers) if name not in self._states)]:
            baseline = morning.baseline(name, self._states.get(name), seen.actions.get(name))
            risk = self._risk(name, morning.day, baseline, seen.account, limits(name))
            if name in unseen:
                lost, sure = unseen[name]
                by_equity = self._risk(name, morning.day, baseline, seen.account, limits(name), more_usdt=lost)
                risk = with_unseen(risk, by_equity, sure=sure)
            if name not in self._states:
                risk = self._of_unlisted(name, risk, looked_round=looked_round)
            risks[name] = risk
        self._unlisted.difference_update(self._states)
        return risks

    def _risk(
        self,
        name: str,
        day: date,
        baseline: Baseline,
        account: Portfolio,
        limits: Limits,
        *,
        more_usdt: float = 0.0,
    ) -> StrategyRisk:
        risk = (self._reading.ledgers.get(name) or Ledger()).risk(
            day,
            baseline.equity_usdt,
            limits,
            unrealised_now=(account.unrealised_by_strategy or {}).get(name),
            unrealised_at_midnight=baseline.unrealised_usdt,
            more_usdt=more_usdt,
        )
        return replace(risk, equity_basis=baseline.basis)

    def _of_unlisted(self, name: str, risk: StrategyRisk, *, looked_round: bool) -> StrategyRisk:
        """A strategy that the bot does not list; before that is said, the list is asked for once more."""
        if looked_round:
            self._unlisted.add(name)
        elif name not in self._unlisted:
            self.look_round_next()
            return replace(risk, breach=None, warnings=())
        return unlisted(risk)

    def _unseen(self, morning: Morning, seen: Present) -> dict[str, tuple[float, bool]]:
        """What each strategy lost that its trades do not show, while some of today's are in doubt."""
        if not self._reading.doubts or self._flows is None:
            return {}
        own, marks = seen.account.equity_by_strategy or {}, seen.account.unrealised_by_strategy or {}
        paid_in = self._flows.paid_in(seen.account)
        books = {}
        for name in dict.fromkeys([*self._states, *own]):
            action = seen.actions.get(name)
            baseline = morning.baseline(name, self._states.get(name), action)
            since = action["since"] if action is not None and baseline.basis == "resume" else None
            books[name] = Books(
                equity=own.get(name),
                baseline=baseline.equity_usdt,
                basis=baseline.basis,
                realised=self._realised(name, baseline.basis, morning.day, seen, paid_in),
                unrealised=marks.get(name),
                unrealised_then=baseline.unrealised_usdt,
                paid_in=sum(
                    usdt
                    for at, strategy, usdt in self._flows.noted
                    if strategy == name and (since is None or at >= datetime.fromisoformat(since))
                ),
            )
        return lost_unseen(books, paid_in)

    def _realised(self, name: str, basis: str, day: date, seen: Present, paid_in: float | None) -> float | None:
        """By the strategy's trades since its baseline; None where that or what was paid in since then is not known."""
        ledger, first = self._reading.ledgers.get(name) or Ledger(), self._reading.first_day
        if basis == "allocation":
            whole = first is not None and first == seen.calendar.first_day and seen.account.net_deposits_usdt == 0.0
            return ledger.realised(seen.calendar.first_day, day, before_resume=True) if whole else None
        if basis == "resume" and paid_in != 0.0:
            return None
        return ledger.realised(day, day)
