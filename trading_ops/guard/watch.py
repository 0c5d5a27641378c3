"""What has happened at the bot since the last look, and how close is each strategy to its limits?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.plain import plain
from trading_ops.guard.actions import Action
from trading_ops.guard.ledger import Contradiction, Ledger
from trading_ops.guard.rules import Limits, StrategyRisk, document
from trading_ops.guard.sanity import impossible
from trading_ops.performance.trades import LOOKBACK_DAYS, midnight, read_equity, read_trades
from trading_ops.portfolio.equity import PORTFOLIO

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.audit.store import AuditStore
    from trading_ops.bot.client import Bot
    from trading_ops.bot.records import Portfolio, StrategyState

DAY = timedelta(days=1)
OVERLAP = timedelta(minutes=15)  # trades that come late by less are seen at once
ANEW = timedelta(hours=1)  # those that come later, and a midnight snapshot that came late, are seen then
READ = ("trade_id", "strategy", "symbol", "quantity", "entry_price", "exit_price", "opened_at", "closed_at", "pnl_usdt",
        "position_id")  # fmt: skip
ROUND = timedelta(seconds=15)  # which strategies there are, whether they are enabled, whether the data is fresh


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a day's loss is measured against: equity and unrealised profit at its start (or at the resume), in USDT.

    `basis`: equity, closed_only, allocation, portfolio (of the whole account, for want of the strategy's own), resume.
    """

    equity_usdt: float | None
    unrealised_usdt: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class View:
    """The bot as it was seen at `at`, its own clock. `doubts`: rows that were not believed, as (row, reason)."""

    at: datetime
    day: date
    fresh: bool
    label: str
    account: Portfolio
    strategies: dict[str, StrategyState]
    risks: dict[str, StrategyRisk]
    doubts: tuple[tuple[Any, str], ...]
    incomplete: bool
    looked_round: bool

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
    unread_since: datetime | None = None  # since when the bot cannot be read, None: it can
    told: dict[str, str | None] = field(default_factory=dict)  # what was told last of an incident, None: it is over
    _ledgers: dict[str, Ledger] = field(default_factory=dict)
    _baselines: dict[str, Baseline] = field(default_factory=dict)
    _sinces: dict[str, datetime | None] = field(default_factory=dict)
    _states: dict[str, StrategyState] = field(default_factory=dict)
    _doubts: dict[str, tuple[Any, str]] = field(default_factory=dict)
    _entries: dict[str, datetime] = field(default_factory=dict)
    _day: date | None = None
    _read_until: datetime | None = None
    _read_anew: datetime | None = None
    _looked_round: datetime | None = None
    _fresh: bool = False
    _incomplete: bool = False

    def look(
        self,
        bot: Bot,
        store: AuditStore,
        actions: Mapping[str, Action],
        limits: Callable[[str], Limits],
    ) -> View:
        """Read what is new, and judge; raises BotError. `limits` gives each strategy's."""
        now = self.now()
        account = bot.portfolio()
        at = account.as_of.astimezone(UTC)
        day = at.date()
        looks_round = self._looked_round is None or now - self._looked_round >= ROUND
        if looks_round:
            self._states = {state.name: state for state in bot.strategies()}
            self._fresh = bot.calendar().live
            self._looked_round = now
        sinces = {name: _moment(action["since"]) for name, action in actions.items()}
        late = self._read_anew is None or now - self._read_anew >= ANEW
        if late or day != self._day or any(self._sinces.get(name) != since for name, since in sinces.items()):
            self._read_all(bot, store, day, sinces, now)
        try:
            self._read_new(bot, at, account)
        except Contradiction:
            self._read_all(bot, store, day, sinces, now)
            self._read_new(bot, at, account)
        names = [*self._states, *(name for name in sorted(self._ledgers) if name not in self._states)]
        return View(
            at=at,
            day=day,
            fresh=self._fresh,
            label=bot.label,
            account=account,
            strategies=dict(self._states),
            risks={name: self._risk(name, day, account, actions.get(name), limits(name)) for name in names},
            doubts=tuple(self._doubts.values()),
            incomplete=self._incomplete or bool(self._doubts),
            looked_round=looks_round,
        )

    def look_round_next(self) -> None:
        """Let the next look ask for the strategies, whenever they were asked for last."""
        self._looked_round = None

    def evidence(self, strategy: str, day: date, at_most: int) -> list[dict[str, str | float]]:
        """The trades a verdict rests on."""
        return self._ledgers[strategy].evidence(day, at_most) if strategy in self._ledgers else []

    def last_entry(self, strategy: str) -> datetime | None:
        """When the newest of the closed trades that were read was opened."""
        return self._entries.get(strategy)

    def _read_all(
        self, bot: Bot, store: AuditStore, day: date, sinces: Mapping[str, datetime | None], now: datetime
    ) -> None:
        """Begin with the trades of the days before today, and with what each strategy was worth at midnight."""
        self._sinces, self._ledgers, self._doubts, self._incomplete = dict(sinces), {}, {}, False
        self._read_anew = None  # what breaks off here is begun again
        first = max(bot.calendar().first_day, day - LOOKBACK_DAYS * DAY)
        if first < day:
            past = read_trades(store, bot, first, day - DAY)
            self._count(past.frame, midnight(day), {})
            daily = read_equity(store, bot, day - DAY, day - DAY)
            before = midnight(day - DAY)
            self._baselines = {}
            for name in daily.equity:
                equity, unrealised = (_figure(frame, before, name) for frame in (daily.equity, daily.unrealised))
                basis = "closed_only" if daily.rebuilt(str(name), before) else "equity"
                self._baselines[str(name)] = Baseline(equity, unrealised, basis)
        self._day, self._read_until, self._read_anew = day, midnight(day), now

    def _read_new(self, bot: Bot, at: datetime, account: Portfolio) -> None:
        assert self._read_until is not None
        closed = bot.closed_trades(self._read_until - OVERLAP, at + DAY)
        doubts = [
            (bad.row, bad.reason)
            for bad in closed.quarantined
            if bad.closed_at is None or bad.closed_at >= midnight(at.date())
        ]
        doubts += self._count(closed.frame, at, account.equity_by_strategy or {})
        for row, reason in doubts:
            self._doubts[f"{reason}\n{row}"] = row, reason
        self._incomplete = self._incomplete or not closed.complete
        newest = closed.frame["closed_at"].iloc[-1].to_pydatetime() if len(closed.frame) else self._read_until
        self._read_until = max(self._read_until, min(newest, at))

    def _count(
        self, frame: pd.DataFrame, at: datetime, equity: Mapping[str, float]
    ) -> list[tuple[dict[str, Any], str]]:
        """Fold the trades in; those that cannot be true, with the reason, are not counted."""
        doubts = []
        columns = {name: frame[name].tolist() for name in READ}  # far quicker than row by row
        for values in zip(*columns.values(), strict=True):
            trade = dict(zip(columns, values, strict=True))
            closed_at, strategy = trade["closed_at"].to_pydatetime(), trade["strategy"]
            if reason := impossible(trade, at, equity.get(strategy)):
                doubts.append((plain(trade), reason))
                continue
            position = trade["position_id"] if isinstance(trade["position_id"], str) else None
            ledger = self._ledgers.setdefault(strategy, Ledger(self._sinces.get(strategy)))
            if ledger.add(trade["trade_id"], closed_at, trade["pnl_usdt"], position):
                entry = trade["opened_at"].to_pydatetime()
                self._entries[strategy] = max(entry, self._entries.get(strategy, entry))
        return doubts

    def _risk(self, name: str, day: date, account: Portfolio, action: Action | None, limits: Limits) -> StrategyRisk:
        baseline = self._baseline(name, day, action)
        now = (account.unrealised_by_strategy or {}).get(name)
        ledger = self._ledgers.get(name) or Ledger()
        risk = ledger.risk(
            day, baseline.equity_usdt, limits, unrealised_now=now, unrealised_at_midnight=baseline.unrealised_usdt
        )
        own = (account.equity_by_strategy or {}).get(name)
        if self._doubts and own is not None and baseline.equity_usdt and baseline.basis in ("equity", "resume"):
            # trades are missing, so the equity itself is asked: the larger loss counts
            by_equity = ledger.risk(day, baseline.equity_usdt, limits, change_usdt=own - baseline.equity_usdt)
            if (by_equity.daily_loss_pct or 0.0) > (risk.daily_loss_pct or 0.0):
                risk = replace(by_equity, basis="equity")
        return replace(risk, equity_basis=baseline.basis)

    def _baseline(self, name: str, day: date, action: Action | None) -> Baseline:
        since = _moment(action["since"]) if action else None
        if action is not None and since is not None and since.date() == day:
            return Baseline(action.get("since_equity_usdt"), action.get("since_unrealised_usdt"), "resume")
        own = self._baselines.get(name)
        if own is not None and own.equity_usdt is not None:
            return own
        unrealised = own.unrealised_usdt if own else None
        state = self._states.get(name)
        if state is not None and state.allocated_usdt:
            return Baseline(state.allocated_usdt, unrealised, "allocation")
        whole = self._baselines.get(PORTFOLIO)
        return Baseline(whole.equity_usdt if whole else None, unrealised, "portfolio")


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _figure(frame: pd.DataFrame, day: datetime, name: str) -> float | None:
    value = float(frame.at[day, name]) if day in frame.index and name in frame else math.nan
    return value if math.isfinite(value) else None
