"""What is a strategy's loss on the running day measured against?"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

from trading_ops.audit.store import StoreError
from trading_ops.guard.actions import Action
from trading_ops.performance.trades import midnight, read_equity
from trading_ops.portfolio.equity import PORTFOLIO
from trading_ops.portfolio.snapshots import deposits_told_at, noted_flows

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.audit.store import AuditStore
    from trading_ops.bot.client import Bot
    from trading_ops.bot.records import Portfolio, StrategyState

DAY = timedelta(days=1)
NO_RECORD = (StoreError, LookupError, TypeError, ValueError)  # what a record that is none makes of a formula
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a day's loss is measured against: equity and unrealised profit at its start (or at the resume), in USDT.

    `basis`: equity, closed_only, allocation, portfolio (of the whole account, for want of the strategy's own), resume.
    """

    equity_usdt: float | None
    unrealised_usdt: float | None
    basis: str


@dataclass(frozen=True, slots=True)
class Morning:
    """How things stood at 00:00 UTC of the day. `trouble`: what the store holds and cannot be used, None: nothing."""

    day: date
    baselines: Mapping[str, Baseline]
    trouble: str | None = None

    def baseline(self, name: str, state: StrategyState | None, action: Action | None) -> Baseline:
        """The strategy's own equity, else what it was allocated, else the account's; after a resume that of it."""
        since = moment(action["since"]) if action else None
        if action is not None and since is not None and since.date() == self.day:
            return Baseline(action.get("since_equity_usdt"), action.get("since_unrealised_usdt"), "resume")
        own = self.baselines.get(name)
        if own is not None and own.equity_usdt is not None:
            return own
        unrealised = own.unrealised_usdt if own else None
        if state is not None and state.allocated_usdt:
            return Baseline(state.allocated_usdt, unrealised, "allocation")
        whole = self.baselines.get(PORTFOLIO)
        return Baseline(whole.equity_usdt if whole else None, unrealised, "portfolio")


@dataclass(frozen=True, slots=True)
class Flows:
    """What is known of today's deposits and withdrawals, USDT. `before`: net, from the start to 00:00 UTC, None: not
    known; `noted`: those of single strategies that people noted down, as (when, strategy, amount)."""

    before: float | None
    noted: tuple[tuple[datetime, str, float], ...]

    def paid_in(self, account: Portfolio) -> float | None:
        """Into the account today; None where that is not known."""
        now = account.net_deposits_usdt
        if now is None or self.before is None:
            return 0.0 if now == 0.0 else None  # none at all since the start are none today
        return now - self.before


def read_morning(store: AuditStore, bot: Bot, day: date) -> Morning:
    """Raises BotError. Records that cannot be used are named, and what they would tell is unknown."""
    before, baselines, trouble = midnight(day - DAY), {}, None
    try:
        daily = read_equity(store, bot, day - DAY, day - DAY)
        for name in daily.equity:
            equity, unrealised = (_figure(frame, before, name) for frame in (daily.equity, daily.unrealised))
            basis = "closed_only" if daily.rebuilt(str(name), before) else "equity"
            baselines[str(name)] = Baseline(equity, unrealised, basis)
    except NO_RECORD as error:
        trouble = f"the equity at 00:00 UTC cannot be read from the audit store ({type(error).__name__}: {error})"
        _log.warning("%s", trouble)
    return Morning(day, baselines, trouble)


def read_flows(store: AuditStore, bot: Bot, day: date, account: Portfolio) -> Flows:
    """Raises BotError; what cannot be read from the store is not known."""
    try:
        return Flows(_deposits(store, bot, day, account), tuple(noted_flows(store, bot, day)))
    except NO_RECORD as error:
        _log.warning("today's flows cannot be read from the audit store: %s", error)
        return Flows(None, ())


def moment(text: str | None) -> datetime | None:
    """A time as an action holds it."""
    return None if text is None else datetime.fromisoformat(text)


def _deposits(store: AuditStore, bot: Bot, day: date, account: Portfolio) -> float | None:
    """As a snapshot tells them, else as the flows that the bot itself keeps add up."""
    told = deposits_told_at(store, bot, day)
    if told is not None or not account.net_deposits_usdt:
        return told
    kept = bot.equity_history(midnight(bot.calendar().first_day), midnight(day) + DAY)
    if kept.equity.empty:
        return None
    flows = kept.flows[kept.flows.index < midnight(day)]
    return float((flows[PORTFOLIO] if PORTFOLIO in flows else flows.sum(axis=1)).sum())


def _figure(frame: pd.DataFrame, day: datetime, name: str) -> float | None:
    value = float(frame.at[day, name]) if day in frame.index and name in frame else math.nan
    return value if math.isfinite(value) else None
