"""Which closed trades are new, which of all that were read are believed, and what was there at midnight?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.plain import plain
from trading_ops.guard.actions import Action
from trading_ops.guard.baseline import NO_RECORD, Morning, moment, read_morning
from trading_ops.guard.ledger import Contradiction, Ledger
from trading_ops.guard.sanity import impossible
from trading_ops.performance.trades import LOOKBACK_DAYS, midnight, read_trades

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.audit.store import AuditStore
    from trading_ops.bot.client import Bot, Calendar
    from trading_ops.bot.records import Portfolio, StrategyState

DAY = timedelta(days=1)
OVERLAP = timedelta(minutes=15)  # trades that come late by less are seen at once
ANEW = timedelta(hours=1)  # those that come later, and a midnight snapshot that came late, are seen then
READ = ("trade_id", "strategy", "symbol", "quantity", "entry_price", "exit_price", "opened_at", "closed_at", "pnl_usdt",
        "position_id")  # fmt: skip
Doubt = tuple[Any, str]  # a row, and why it is not believed
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Present:
    """The bot at one look. `at`: its own clock; `latest`: nothing can have happened later; `now`: our clock."""

    account: Portfolio
    states: Mapping[str, StrategyState]
    calendar: Calendar
    actions: Mapping[str, Action]
    at: datetime
    latest: datetime
    now: datetime


@dataclass(slots=True)
class Reading:
    """The trades of the running day and of the 90 days before it, folded into a ledger a strategy.

    `doubts`: rows of today that were not believed, `old_doubts`: trades of before that contradict what was read of them
    earlier. `first_day`: the first that was read. `newest`: when the last trade of today that was believed had closed.
    """

    ledgers: dict[str, Ledger] = field(default_factory=dict)
    doubts: dict[str, Doubt] = field(default_factory=dict)
    old_doubts: dict[str, Doubt] = field(default_factory=dict)
    entries: dict[str, datetime] = field(default_factory=dict)  # when the newest closed trade of each was opened
    morning: Morning | None = None
    first_day: date | None = None
    newest: datetime | None = None
    complete: bool = True
    trouble: str | None = None
    _owners: dict[str, str] = field(default_factory=dict)  # the strategy of each trade
    _sinces: dict[str, datetime | None] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)  # trades for which everything was read anew already
    _until: datetime | None = None
    _anew: datetime | None = None

    def read(self, bot: Bot, store: AuditStore, seen: Present) -> Morning:
        """Fold in what is new. The running day is that of the bot's clock or of the last trade believed, whichever is
        later. Raises BotError."""
        sinces = {name: moment(action["since"]) for name, action in seen.actions.items()}
        late = self._anew is None or seen.now - self._anew >= ANEW
        resumed = any(self._sinces.get(name) != since for name, since in sinces.items())
        if late or resumed or self.morning is None or self._running(seen) != self.morning.day:
            self._changed = set()
            self._read_all(bot, store, seen, sinces)
        try:
            morning = self._read_new(bot, seen, final=False)
        except Contradiction:
            self._read_all(bot, store, seen, sinces)
            morning = self._read_new(bot, seen, final=True)
        if self._running(seen) != morning.day:  # a trade of the new day came before the account's clock was there
            self._read_all(bot, store, seen, sinces)
            morning = self._read_new(bot, seen, final=True)
        return morning

    def begin_again(self) -> None:
        """Let the next reading begin with the past."""
        self._anew = None

    def _running(self, seen: Present) -> date:
        return max(seen.at, self.newest or seen.at).date()

    def _read_all(self, bot: Bot, store: AuditStore, seen: Present, sinces: Mapping[str, datetime | None]) -> None:
        """Begin with the trades of the days before today, and with what each strategy was worth at midnight."""
        day = self._running(seen)
        self._anew = None  # what breaks off here is begun again
        self._sinces, self.ledgers, self._owners = dict(sinces), {}, {}
        self.doubts, self.old_doubts, self.complete, self.trouble = {}, {}, True, None
        first = self.first_day = max(seen.calendar.first_day, day - LOOKBACK_DAYS * DAY)
        self.morning = Morning(day, {})
        if first < day:
            past = self._past(bot, store, first, day)
            _, self.old_doubts = self._count(past, midnight(day), lambda _: None, final=True)
            self.morning = read_morning(store, bot, day)
        self.newest = None  # the past does not tell the day
        self._until, self._anew = midnight(day), seen.now

    def _past(self, bot: Bot, store: AuditStore, first: date, day: date) -> pd.DataFrame:
        try:
            return read_trades(store, bot, first, day - DAY).frame
        except NO_RECORD as error:
            self.trouble = f"the trades of past days cannot be read from the audit store, the bot was asked: {error}"
            _log.warning("%s", self.trouble)
            return bot.closed_trades(midnight(first), midnight(day)).frame

    def _read_new(self, bot: Bot, seen: Present, *, final: bool) -> Morning:
        assert self._until is not None
        assert self.morning is not None
        closed = bot.closed_trades(self._until - OVERLAP, seen.latest + DAY)
        for bad in closed.quarantined:
            if bad.closed_at is None or bad.closed_at >= midnight(self.morning.day):
                self.doubts[f"{bad.reason}\n{bad.row}"] = bad.row, bad.reason
        wrong, contradictions = self._count(
            closed.frame, seen.latest, lambda name: self._stood_behind(name, seen), final=final
        )
        self.doubts |= wrong | contradictions
        self.complete = self.complete and closed.complete
        newest = closed.frame["closed_at"].iloc[-1].to_pydatetime() if len(closed.frame) else self._until
        self._until = max(self._until, min(newest, seen.latest))
        return self.morning

    def _count(
        self, frame: pd.DataFrame, latest: datetime, behind: Callable[[str], float | None], *, final: bool
    ) -> tuple[dict[str, Doubt], dict[str, Doubt]]:
        """Fold the trades in. Those that cannot be true, and those that contradict what was read of them before, do not
        count and come back with the reason. Raises Contradiction, once for each trade and not where this is `final`.
        """
        wrong: dict[str, Doubt] = {}
        contradictions: dict[str, Doubt] = {}
        columns = {name: frame[name].tolist() for name in READ}  # far quicker than row by row
        for values in zip(*columns.values(), strict=True):
            trade = dict(zip(columns, values, strict=True))
            closed_at, strategy, trade_id = trade["closed_at"].to_pydatetime(), trade["strategy"], trade["trade_id"]
            if reason := impossible(trade, latest, behind(strategy)):
                wrong[f"{reason}\n{plain(trade)}"] = plain(trade), reason
                continue
            position = trade["position_id"] if isinstance(trade["position_id"], str) else None
            ledger = self.ledgers.setdefault(strategy, Ledger(self._sinces.get(strategy)))
            try:
                if (owner := self._owners.setdefault(trade_id, strategy)) != strategy:
                    raise Contradiction(f"trade {trade_id}: strategy {strategy}, but was read before with {owner}")
                new = ledger.add(trade_id, closed_at, trade["pnl_usdt"], position)
            except Contradiction as error:
                if not final and trade_id not in self._changed:
                    self._changed.add(trade_id)
                    raise
                self._changed.add(trade_id)
                contradictions[f"{error}\n{plain(trade)}"] = plain(trade), str(error)
                continue
            self.newest = max(closed_at, self.newest or closed_at)
            if new:
                entry = trade["opened_at"].to_pydatetime()
                self.entries[strategy] = max(entry, self.entries.get(strategy, entry))
        return wrong, contradictions

    def _stood_behind(self, name: str, seen: Present) -> float | None:
        """The most that the strategy is known to have had, before a trade or after it."""
        assert self.morning is not None
        state = seen.states.get(name)
        baseline = self.morning.baseline(name, state, seen.actions.get(name))
        known = (
            (seen.account.equity_by_strategy or {}).get(name),
            baseline.equity_usdt if baseline.basis != "portfolio" else None,
            state.allocated_usdt if state is not None else None,
            seen.account.initial_by_strategy.get(name),
        )
        return max((usdt for usdt in known if usdt is not None), default=None)
