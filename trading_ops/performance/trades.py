"""Which trades were closed on each UTC day?"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import StoreUnavailable
from trading_ops.bot.records import TRADE_FIELDS, trades_frame
from trading_ops.portfolio.snapshots import read_daily_equity

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.audit.store import AuditStore
    from trading_ops.bot.client import Bot
    from trading_ops.bot.records import ClosedTrades, Quarantined
    from trading_ops.portfolio.equity import DailyEquity

LOOKBACK_DAYS = 90  # what the 90-day Sharpe ratio and a slow losing streak need
DAY = timedelta(days=1)
_NUMBERS = ("quantity", "entry_price", "exit_price", "pnl_usdt")
_log = logging.getLogger(__name__)


def midnight(day: str | date) -> datetime:
    """00:00 UTC of the day."""
    return datetime.combine(date.fromisoformat(day) if isinstance(day, str) else day, time(), UTC)


def trades_by_day(
    closed: ClosedTrades, days: Sequence[str], *, label: str, known: Mapping[str, Mapping[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """The reply split by the UTC day of `closed_at`, one document a day; days without trades are there, and say so.

    A quarantined row is reported under its own day, or under the last one asked for where it has none of these.
    `known`: the same bot's documents of these days as stored. A trade that the bot told then and leaves out now is
    kept as it was, and its id listed in `vanished`: a bot that forgets does not rewrite the past.
    """
    import numpy as np

    frame = closed.frame
    closed_at = frame["closed_at"].to_numpy("datetime64[us]")
    rows = _plain_rows(frame)
    bad: dict[str, list[Quarantined]] = {}
    for quarantined in closed.quarantined:
        bad.setdefault(_day_of(quarantined, days), []).append(quarantined)
    repeated = Counter(str(closed_at.date()) for closed_at in closed.duplicates)
    told = {*frame["trade_id"], *(str(q.row.get("trade_id")) for q in closed.quarantined if isinstance(q.row, dict))}
    documents = {}
    for day in days:
        start = np.datetime64(day, "us")
        lo, hi = np.searchsorted(closed_at, [start, start + np.timedelta64(1, "D")])
        before = (known or {}).get(day, {}).get("trades", [])
        kept = [trade for trade in before if trade["trade_id"] not in told]
        believed = sorted([*rows[lo:hi], *kept], key=lambda trade: (trade["closed_at"], trade["trade_id"]))
        documents[day] = {
            "day": day,
            "candles": label,
            "outcome": "incomplete" if kept or not closed.complete else "trades" if believed else "no_trades",
            "total": len(believed),
            "complete": closed.complete,
            "vanished": sorted(trade["trade_id"] for trade in kept),
            "duplicates_dropped": repeated[day],
            "quarantined": [{"row": q.row, "reason": q.reason} for q in bad.get(day, [])],
            "trades": believed,
        }
    return documents


@dataclass(frozen=True, slots=True)
class Trades:
    """`frame`: columns and order of `ClosedTrades.frame`. `incomplete`: the UTC days whose trades may not be all."""

    frame: pd.DataFrame
    incomplete: frozenset[str]


def trailing_trades(store: AuditStore, bot: Bot, days: Sequence[str]) -> Trades:
    """The trades closed on the days and in the 90 days before them, as far as the bot goes back."""
    first = max(bot.calendar().first_day, date.fromisoformat(days[0]) - LOOKBACK_DAYS * DAY)
    return read_trades(store, bot, first, date.fromisoformat(days[-1]))


def read_trades(store: AuditStore, bot: Bot, first: date, last: date) -> Trades:
    """All trades closed from `first` to `last`, from the stored days; days not stored yet are read from the bot.

    A day stored of another source than the bot's counts as not stored, and so does a record that cannot be used; while
    the store is down none is.
    """
    import pandas as pd

    days = [first + DAY * i for i in range((last - first).days + 1)]
    known = _stored(store, str(first), str(last), bot.source)
    frame = trades_frame([row for document in known.values() for row in document["trades"]])
    incomplete = {
        day
        for day, document in known.items()
        if document["quarantined"] or not document["complete"] or document.get("vanished")
    }
    if missing := {day for day in days if str(day) not in known}:
        fetched = bot.closed_trades(midnight(min(missing)), midnight(max(missing)) + DAY)
        of_missing = fetched.frame[fetched.frame["closed_at"].dt.date.isin(missing)]
        frame = pd.concat([frame, of_missing]).sort_values(["closed_at", "trade_id"], ignore_index=True)
        unsure = {_day_of(bad, [str(day) for day in days]) for bad in fetched.quarantined}
        incomplete |= {str(day) for day in missing if str(day) in unsure or not fetched.complete}
    return Trades(frame, frozenset(incomplete))


def read_equity(store: AuditStore, bot: Bot, first: date, last: date) -> DailyEquity:
    """Each day's equity, rebuilt from the closed trades where no snapshot tells it."""

    def closed(since: date, until: date) -> tuple[pd.DataFrame, frozenset[str]]:
        trades = read_trades(store, bot, since, until)
        return trades.frame, trades.incomplete

    return read_daily_equity(store, bot, first, last, closed)


def _stored(store: AuditStore, first: str, last: str, source: str) -> dict[str, Mapping[str, Any]]:
    try:
        records = store.read("closed_trades", first=first, last=last)
    except StoreUnavailable:
        return {}  # the bot has them, too
    known: dict[str, Mapping[str, Any]] = {}
    for record in records:
        if record.body.get("source") != source:
            continue
        if wrong := unusable(record.body):
            _log.warning(
                "closed_trades of %s: the record cannot be used, the bot is asked: %s", record.partition, wrong
            )
        else:
            known[record.partition] = record.body
    return known


def unusable(document: Mapping[str, Any]) -> str | None:
    """What is wrong with a stored day, None where nothing is."""
    if missing := [name for name in ("trades", "quarantined", "complete") if name not in document]:
        return f"it has no {', '.join(missing)}"
    for name in ("trades", "quarantined"):
        if not isinstance(document[name], list):
            return f"{name} is {document[name]!r:.40}; a list is needed"
    for number, row in enumerate(document["trades"]):
        if not isinstance(row, Mapping) or not row.keys() >= {
            "trade_id",
            "strategy",
            "opened_at",
            "closed_at",
            *_NUMBERS,
        }:
            return f"trades[{number}] lacks fields of a trade"
        for name in _NUMBERS:
            if not isinstance(row[name], (int, float)) or not math.isfinite(row[name]):
                return f"trades[{number}].{name} is {row[name]!r:.40}; a number is needed"
    return None


def _day_of(bad: Quarantined, days: Sequence[str]) -> str:
    day = str(bad.closed_at.date()) if bad.closed_at else days[-1]
    return day if days[0] <= day <= days[-1] else days[-1]


def _plain_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The frame's rows as plain JSON values, times as ISO text in UTC."""
    import numpy as np

    plain = frame.astype({"opened_at": object, "closed_at": object})
    for column in ("opened_at", "closed_at"):
        plain[column] = np.datetime_as_string(frame[column].to_numpy("datetime64[us]"), timezone="UTC")
    plain = plain.astype(object).where(plain.notna(), None)
    return plain[list(TRADE_FIELDS)].to_dict("records")
