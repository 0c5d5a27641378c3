"""What was the account worth when we looked, and what was paid in or out?"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Entry, StoreUnavailable
from trading_ops.bot.client import EquityHistory
from trading_ops.bot.records import InvalidRecord
from trading_ops.portfolio.equity import PORTFOLIO, DailyEquity, daily_equity, rebuild

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.audit.store import AuditStore, Receipt
    from trading_ops.bot.client import Bot

SNAPSHOTS, FLOWS = "equity_snapshots", "equity_flows"
DAY, SLOT = timedelta(days=1), timedelta(minutes=15)
MIDNIGHT_SLOTS = ("23:45", "00:00")  # the quarters around 24:00, all that a day's end can be told by


def take_snapshot(bot: Bot) -> dict[str, Any]:
    """The account as the bot says it is now, marked to market, in USDT; raises BotError.

    `strategies`: those whose own equity the bot tells. `net_deposits_usdt` counts from the start, None: not told.
    """
    account = bot.portfolio()
    unrealised = account.unrealised_by_strategy or {}
    own = account.equity_by_strategy or {}
    return {
        "as_of": account.as_of.isoformat(),
        "source": bot.source,
        "candles": bot.label,
        "equity_usdt": account.equity_usdt,
        "balance_usdt": account.balance_usdt,
        "net_deposits_usdt": account.net_deposits_usdt,
        "strategies": {
            name: {"equity_usdt": worth, "unrealised_usdt": unrealised.get(name)} for name, worth in own.items()
        },
    }


def record_snapshot(store: AuditStore, snapshot: dict[str, Any]) -> Receipt:
    """Store a snapshot under its UTC day and quarter of an hour; another one of the same quarter is a revision."""
    as_of = datetime.fromisoformat(snapshot["as_of"]).astimezone(UTC)
    quarter = as_of.replace(minute=as_of.minute // 15 * 15)
    (receipt,) = store.append(SNAPSHOTS, [Entry(str(as_of.date()), f"{quarter:%H:%M}", snapshot)])
    return receipt


def record_flow(
    store: AuditStore, bot: Bot, amount_usdt: float, at: datetime, *, strategy: str | None, reason: str
) -> Receipt:
    """Store a deposit (above 0) or withdrawal (below 0) the bot does not tell of; raises ValueError and BotError.

    A flow of one strategy is one of the whole account too.
    """
    if not abs(amount_usdt) > 0 or amount_usdt - amount_usdt != 0:
        raise ValueError(f"amount {amount_usdt}: give the USDT that came in, or with a minus went out")
    at, now, calendar = at.astimezone(UTC), bot.now(), bot.calendar()
    if not calendar.first_day <= at.date() or at > now:
        raise ValueError(f"time {at}: the bot is measured from {calendar.first_day} to now, {now:%Y-%m-%d %H:%M}")
    known = [state.name for state in bot.strategies()]
    if strategy is not None and strategy not in known:
        raise ValueError(f"strategy {strategy!r} is unknown; there are {', '.join(known)}")
    if not bot.equity_history(now - DAY, now).equity.empty:
        raise ValueError("this bot keeps its own equity and flows; nothing needs to be added")
    if strategy is None and bot.portfolio().net_deposits_usdt is not None:
        raise ValueError("the bot tells the account's deposits itself; name the strategy that this one was for")
    flow = {"at": at.isoformat(), "amount_usdt": amount_usdt, "strategy": strategy, "reason": reason}
    entry = Entry(str(at.date()), uuid.uuid4().hex, {**flow, "source": bot.source})
    (receipt,) = store.append(FLOWS, [entry])
    return receipt


def read_daily_equity(
    store: AuditStore, bot: Bot, first_day: date, last_day: date, closed: Callable[[date, date], pd.DataFrame]
) -> DailyEquity:
    """Each day's end from a snapshot within 15 minutes, else rebuilt from closed trades, else unknown.

    `closed` gives the trades closed from one UTC day to another; it is asked only where a snapshot is missing.
    """
    daily = daily_equity(_history(store, bot, first_day, last_day), first_day, last_day)
    if not daily.equity.empty and len(daily.equity.columns) > 1 and daily.equity.notna().all(axis=None):
        return daily
    try:
        account = bot.portfolio()
    except InvalidRecord:
        return daily  # without a start capital there is nothing to count from: unknown stays unknown
    since = min(first_day, bot.calendar().first_day)
    whole = daily if since == first_day else daily_equity(_history(store, bot, since, last_day), since, last_day)
    return rebuild(whole, closed(since, last_day), account).since(first_day)


def _history(store: AuditStore, bot: Bot, first_day: date, last_day: date) -> EquityHistory:
    """The snapshots the bot itself keeps, else ours: a column a strategy, and `portfolio` for the whole."""
    import pandas as pd

    kept = bot.equity_history(*(datetime.combine(day, time(), UTC) for day in (first_day, last_day + 2 * DAY)))
    if not kept.equity.empty:
        return kept
    rows = [
        (row["as_of"], name, worth["equity_usdt"], worth["unrealised_usdt"])
        for row in _snapshots(store, bot, first_day, last_day + DAY)
        for name, worth in {**row["strategies"], PORTFOLIO: _whole(row)}.items()
    ]
    long = pd.DataFrame(rows, columns=["at", "name", "equity", "unrealised"])
    long["at"] = pd.to_datetime(long["at"], utc=True, format="ISO8601")
    equity, unrealised = (
        long.pivot_table(index="at", columns="name", values=value, aggfunc="last", dropna=False).astype(float)
        for value in ("equity", "unrealised")
    )
    return EquityHistory(equity, unrealised.reindex_like(equity), _flows(store, bot, first_day, last_day))


def _whole(snapshot: dict[str, Any]) -> dict[str, float]:
    return {
        "equity_usdt": snapshot["equity_usdt"],
        "unrealised_usdt": snapshot["equity_usdt"] - snapshot["balance_usdt"],
    }


def _flows(store: AuditStore, bot: Bot, first_day: date, last_day: date) -> pd.DataFrame:
    """What people noted down, and for the whole account what the bot tells, where it does."""
    import pandas as pd

    noted = [
        (row["at"], name, row["amount_usdt"])
        for row in _read(store, FLOWS, bot, first_day, last_day)
        for name in dict.fromkeys([row["strategy"] or PORTFOLIO, PORTFOLIO])
    ]
    told = [
        (row["as_of"], row["net_deposits_usdt"])
        for row in _snapshots(store, bot, first_day - DAY, last_day + DAY)
        if row["net_deposits_usdt"] is not None
    ]
    flows = pd.DataFrame(noted, columns=["at", "name", "amount"])
    flows["at"] = pd.to_datetime(flows["at"], utc=True, format="ISO8601")
    if told:
        at = pd.to_datetime([moment for moment, _ in told], utc=True, format="ISO8601")
        # a snapshot belongs to the day whose end is nearest; a day's flow is what its end has more than the one before
        ends = pd.Series([total for _, total in told], (at - pd.Timedelta(hours=12)).floor("D")).groupby(level=0).last()
        paid = ends.diff().dropna()
        reported = pd.DataFrame({"at": paid.index, "name": PORTFOLIO, "amount": paid.to_numpy()})
        flows = pd.concat([flows[flows["name"] != PORTFOLIO], reported])
    return flows.pivot_table(index="at", columns="name", values="amount", aggfunc="sum").astype(float)


def _snapshots(store: AuditStore, bot: Bot, first_day: date, last_day: date) -> list[dict[str, Any]]:
    rows = [row for slot in MIDNIGHT_SLOTS for row in _read(store, SNAPSHOTS, bot, first_day, last_day, key=slot)]
    return sorted(rows, key=lambda row: datetime.fromisoformat(row["as_of"]))


def _read(
    store: AuditStore, collection: str, bot: Bot, first_day: date, last_day: date, key: str | None = None
) -> Sequence[dict[str, Any]]:
    """What is recorded of this bot. Nothing while the store is down: what is rebuilt without it is marked."""
    try:
        records = store.read(collection, first=str(first_day), last=str(last_day), key=key)
    except StoreUnavailable:
        return []
    return [record.body for record in records if record.body["source"] == bot.source]
