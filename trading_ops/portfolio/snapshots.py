"""What was the account worth when we looked, and what was paid in or out?"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Entry, StoreUnavailable
from trading_ops.bot.client import BotError, EquityHistory
from trading_ops.portfolio.equity import PORTFOLIO, DailyEquity, at_day_ends, daily_equity, rebuild

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


def deposits_told_at(store: AuditStore, bot: Bot, day: date) -> float | None:
    """Net deposits from the start to 00:00 UTC of the day, as the snapshot nearest to it tells them, within 15 minutes;
    None where none does."""
    midnight = datetime.combine(day, time(), UTC)
    told = [
        (abs(datetime.fromisoformat(row["as_of"]) - midnight), row["net_deposits_usdt"])
        for slot in MIDNIGHT_SLOTS
        for row in _read(store, SNAPSHOTS, bot, day - DAY, day, slot)
    ]
    near = [(apart, amount) for apart, amount in told if apart <= SLOT and amount is not None]
    return min(near)[1] if near else None


def noted_flows(store: AuditStore, bot: Bot, day: date) -> list[tuple[datetime, str, float]]:
    """What people noted as paid into a strategy (or below 0, out of it) on the UTC day: when, which one, USDT."""
    rows = _read(store, FLOWS, bot, day, day)
    return [(datetime.fromisoformat(r["at"]), r["strategy"], r["amount_usdt"]) for r in rows if r["strategy"]]


def read_daily_equity(
    store: AuditStore,
    bot: Bot,
    first_day: date,
    last_day: date,
    closed: Callable[[date, date], tuple[pd.DataFrame, Collection[str]]],
) -> DailyEquity:
    """Each day's end from a snapshot within 15 minutes, else rebuilt from closed trades, else unknown.

    `closed` gives the trades closed from one UTC day to another, and the days of which some may be missing. While the
    store is down every day is rebuilt; what the bot itself keeps is asked first.
    """
    kept = bot.equity_history(*(datetime.combine(day, time(), UTC) for day in (first_day, last_day + 2 * DAY)))
    own = daily_equity(kept, first_day, last_day)
    if not kept.equity.empty and own.equity.notna().all(axis=None):
        return own
    since = min(first_day, bot.calendar().first_day)
    if kept.equity.empty:
        try:
            history = _history(store, bot, since, last_day)
        except StoreUnavailable:
            history = kept
    else:
        history = bot.equity_history(*(datetime.combine(day, time(), UTC) for day in (since, last_day + 2 * DAY)))
    known = daily_equity(history, since, last_day)
    try:
        account = bot.portfolio()
    except BotError:
        return known.since(first_day)  # without a start capital there is nothing to count from
    trades, incomplete = closed(since, last_day)
    return rebuild(known, trades, account, incomplete=incomplete).since(first_day)


def _history(store: AuditStore, bot: Bot, first_day: date, last_day: date) -> EquityHistory:
    """Our own snapshots around midnight and the flows: a column a strategy, and `portfolio` for the whole."""
    import pandas as pd

    taken = [row for slot in MIDNIGHT_SLOTS for row in _read(store, SNAPSHOTS, bot, first_day, last_day + DAY, slot)]
    rows = [
        (row["as_of"], name, worth["equity_usdt"], worth["unrealised_usdt"])
        for row in taken
        for name, worth in {**row["strategies"], PORTFOLIO: _whole(row)}.items()
    ]
    long = pd.DataFrame(rows, columns=["at", "name", "equity", "unrealised"])
    long["at"] = pd.to_datetime(long["at"], utc=True, format="ISO8601")
    equity, unrealised = (
        long.pivot_table(index="at", columns="name", values=value, aggfunc="last", dropna=False).astype(float)
        for value in ("equity", "unrealised")
    )
    told = pd.Series(
        [row["net_deposits_usdt"] for row in taken],
        pd.to_datetime([row["as_of"] for row in taken], utc=True, format="ISO8601"),
        dtype=float,
    )
    days = pd.date_range(first_day, last_day, freq="D", tz="UTC")
    noted = _noted(store, bot, first_day, last_day).reindex(days, fill_value=0.0)
    return EquityHistory(equity, unrealised.reindex_like(equity), _with_told(noted, told))


def _whole(snapshot: Mapping[str, Any]) -> dict[str, float]:
    return {
        "equity_usdt": snapshot["equity_usdt"],
        "unrealised_usdt": snapshot["equity_usdt"] - snapshot["balance_usdt"],
    }


def _noted(store: AuditStore, bot: Bot, first_day: date, last_day: date) -> pd.DataFrame:
    """The flows that people noted down, by UTC day; those of a strategy are the account's, too."""
    import pandas as pd

    rows = [
        (row["at"], name, row["amount_usdt"])
        for row in _read(store, FLOWS, bot, first_day, last_day)
        for name in dict.fromkeys([row["strategy"] or PORTFOLIO, PORTFOLIO])
    ]
    flows = pd.DataFrame(rows, columns=["at", "name", "amount"])
    day = pd.to_datetime(flows["at"], utc=True, format="ISO8601").dt.floor("D")
    noted = flows.pivot_table(index=day, columns="name", values="amount", aggfunc="sum").astype(float).fillna(0.0)
    return noted if PORTFOLIO in noted else noted.assign(**{PORTFOLIO: 0.0})


def _with_told(noted: pd.DataFrame, told: pd.Series) -> pd.DataFrame:
    """The account's flows so that they add up to the total that the bot told, wherever it told one.

    Between two totals the noted flows stay on their days and the rest falls on the later one; what was paid in before
    the first total and not noted falls on the first day.
    """
    totals = at_day_ends(told.to_frame("total"), noted.index)["total"].dropna()
    if totals.empty:
        return noted
    missing = totals - noted[PORTFOLIO].cumsum().reindex(totals.index)
    rest = missing.diff()
    rest.iloc[0] = 0.0
    whole = noted[PORTFOLIO].add(rest, fill_value=0.0)
    whole.iloc[0] += missing.iloc[0]
    return noted.assign(**{PORTFOLIO: whole})


def _read(
    store: AuditStore, collection: str, bot: Bot, first_day: date, last_day: date, key: str | None = None
) -> list[dict[str, Any]]:
    """What is recorded of this bot; every revision, for an earlier snapshot may be nearer to midnight."""
    records = store.read(collection, first=str(first_day), last=str(last_day), key=key, all_revisions=True)
    return [record.body for record in records if record.body["source"] == bot.source]
