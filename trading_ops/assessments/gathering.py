"""Where does the evidence come from? The recorded days, the market's bars, and what was decided before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.assessments.conditions import LEAST_BARS, WEEK_BARS, bars_between, market_days
from trading_ops.assessments.evidence import (
    Adviser,
    Breach,
    Day,
    Evidence,
    Market,
    Model,
    TradeGroup,
    digest_of,
)
from trading_ops.assessments.past import COLLECTION, ONE_DAY, WEEK, attempts, long_before, tries, vetoed_since
from trading_ops.audit.store import AuditStore, Record
from trading_ops.bot.client import BotError
from trading_ops.market.candles import CandleError
from trading_ops.market.candles import digest_of as digest_of_bars
from trading_ops.performance.trades import midnight, unusable

if TYPE_CHECKING:
    import pandas as pd

MOST_GROUPS = 30  # of a week's trades; the others are in its figures
REACH_DAYS = 31  # bars back, to count the new ones of a model
Bars = Callable[[str, datetime, datetime], "pd.DataFrame"]  # of a symbol, opening in [start, end)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is asked about, beside the days: the bot, the present, and what the strategies use.

    `present`: the newest complete day while its data is fresh, None otherwise; `now`: the bot's clock. `first_day`: the
    bot's first. `links`: the models of each strategy. `trainable`: whether this installation trains models;
    `retraining`: whether a retrain waits or runs.
    """

    source: str
    candles: str
    symbols: tuple[str, ...]
    first_day: date
    now: datetime
    present: str | None
    forced: bool = False
    links: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    trainable: bool = True
    retraining: bool = False
    adviser: Adviser = field(default_factory=Adviser)


def gather(store: AuditStore, bars: Bars, days: Sequence[str], setting: Setting) -> dict[str, Evidence]:
    """The evidence of each day, oldest first. Nothing recorded of later days is part of it.

    Raises StoreUnavailable. Bars that cannot be had are named as missing.
    """
    first, last = date.fromisoformat(days[0]) - (WEEK - 1) * ONE_DAY, date.fromisoformat(days[-1])
    records = {
        name: _by_day(store.read(name, first=str(first), last=str(last), key=""), setting, usable)
        for name, usable in INPUTS.items()
    }
    frames, unreadable = _bars(bars, setting.symbols, midnight(days[0]), midnight(last) + ONE_DAY)
    markets = {symbol: market_days(symbol, frame, days) for symbol, frame in frames.items()}
    opens = {symbol: frame.index.as_unit("us").asi8 for symbol, frame in frames.items()}
    decided = _by_day(store.read(COLLECTION, first=long_before(days[0]), key=""), setting, _decides)
    tried = tries(store, days[0], setting.source)
    found = {}
    for day in days:
        window = [str(date.fromisoformat(day) - back * ONE_DAY) for back in reversed(range(WEEK))]
        known = {name: {d: of[d] for d in window if d in of} for name, of in records.items()}
        accuracy = known["model_accuracy_history"][day].body if day in known["model_accuracy_history"] else None
        performance = known["performance_metrics"][day].body if day in known["performance_metrics"] else None
        account = (performance or {}).get("portfolio") or {}
        present = day == setting.present
        as_of = setting.now if present else midnight(day) + ONE_DAY
        market = tuple(of[day] for of in markets.values())
        found[day] = Evidence(
            day=day,
            as_of=as_of,
            present=present,
            forced=setting.forced and present,
            source=setting.source,
            candles=setting.candles,
            days=tuple(_day(d, known) for d in window if date.fromisoformat(d) >= setting.first_day),
            trades=tuple(_groups(known["closed_trades"])),
            breaches=tuple(_breaches(performance)),
            sharpe_ratio_90d=account.get("sharpe_ratio_90d"),
            sharpe_standard_error_90d=account.get("sharpe_standard_error_90d"),
            models=tuple(_models(accuracy, day, opens)),
            market=market,
            links=dict(setting.links),
            trainable=setting.trainable,
            attempts=attempts(tried, as_of, under_way=present and setting.retraining),
            vetoed_since=vetoed_since(decided, day),
            adviser=setting.adviser if present else Adviser(),  # of what came true up to the present
            missing=tuple(_missing(known, window, day, setting, market, unreadable)),
            digests={
                **{name: digest_of({d: r.digest for d, r in of.items()}) for name, of in known.items()},
                **{f"market {symbol}": _bars_digest(frame, day) for symbol, frame in frames.items()},
            },
        )
    return found


def _by_day(
    records: Sequence[Record], setting: Setting, usable: Callable[[Mapping[str, Any]], bool]
) -> dict[str, Record]:
    """The newest revision of each day's record of this bot, where it can be used."""
    return {
        record.partition: record
        for record in records
        if record.body.get("source") == setting.source and usable(record.body)
    }


OF_A_MODEL = {
    "deployed", "model_age_days", "symbol", "model_id", "n_7d", "accuracy_7d", "drop_7d_pp", "drop_7d_interval_pp",
}  # fmt: skip


def _has_trades(body: Mapping[str, Any]) -> bool:
    return unusable(body) is None and all(trade.keys() >= {"symbol", "side", "pnl_pct"} for trade in body["trades"])


def _has_metrics(body: Mapping[str, Any]) -> bool:
    strategies = body.get("strategies")
    return isinstance(strategies, dict) and all(
        isinstance(metrics, dict) and isinstance(metrics.get("alerts"), list) for metrics in strategies.values()
    )


def _has_models(body: Mapping[str, Any]) -> bool:
    models = body.get("models")
    return isinstance(models, dict) and all(
        isinstance(row, dict) and row.keys() >= OF_A_MODEL for row in models.values()
    )


def _decides(body: Mapping[str, Any]) -> bool:
    return isinstance(body.get("decision"), dict)


# what a decision needs, and whether a record of it can be used: another program may have written to the collection
INPUTS: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "closed_trades": _has_trades,
    "performance_metrics": _has_metrics,
    "model_accuracy_history": _has_models,
}


def _lacking(trades: Mapping[str, Any]) -> str | None:
    """Why not all trades of a recorded day are known, None where they are."""
    if not trades["complete"]:
        return "whose list may be cut off"
    if trades["quarantined"]:
        return f"of which {len(trades['quarantined'])} cannot be right (trading-ops quarantine)"
    return "of which the bot forgot some" if trades.get("vanished") else None


def _bars(
    bars: Bars, symbols: Sequence[str], start: datetime, end: datetime
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Each symbol's bars, as far back before the first day's start as they are to be had, and why others have none."""
    from trading_ops.market.soundness import require_sound

    frames: dict[str, pd.DataFrame] = {}
    unreadable: dict[str, str] = {}
    for symbol in symbols:
        for reach in (REACH_DAYS, WEEK):
            try:
                frames[symbol] = require_sound(bars(symbol, start - reach * ONE_DAY, end), symbol)
                unreadable.pop(symbol, None)
                break
            except (BotError, CandleError) as error:
                unreadable[symbol] = str(error)
    return frames, unreadable


def _day(day: str, known: Mapping[str, Mapping[str, Record]]) -> Day:
    def body(collection: str) -> dict[str, Any]:
        return known[collection][day].body if day in known[collection] else {}

    profits = [trade["pnl_usdt"] for trade in body("closed_trades").get("trades", ())]
    wins = sum(profit > 0 for profit in profits)
    account = body("performance_metrics").get("portfolio") or {}
    intervals = account.get("intervals") or {}
    pooled = body("model_accuracy_history").get("pooled") or {}
    return Day(
        day=day,
        trades=len(profits),
        wins=wins,
        win_rate_pct=100 * wins / len(profits) if profits else None,
        window_trades=account.get("total_trades"),
        window_win_rate_pct=account.get("win_rate_pct"),
        window_win_rate_interval_pct=intervals.get("win_rate_pct"),
        window_avg_profit_pct=account.get("avg_profit_pct"),
        window_avg_profit_interval_pct=intervals.get("avg_profit_pct"),
        window_sharpe_ratio=account.get("sharpe_ratio"),
        window_sharpe_standard_error=account.get("sharpe_standard_error"),
        accuracy=pooled.get("accuracy"),
        accuracy_n=pooled.get("n", 0),
    )


def _groups(of_days: Mapping[str, Record]) -> list[TradeGroup]:
    """The week's trades by strategy, symbol, side and why they were closed; the largest groups first."""
    found: dict[tuple[str, str, str, str], list[float]] = {}
    for record in of_days.values():
        for trade in record.body["trades"]:
            key = (trade["strategy"], trade["symbol"], trade["side"], str(trade.get("close_reason") or ""))
            found.setdefault(key, []).append(trade["pnl_pct"])
    largest = sorted(found.items(), key=lambda group: (-len(group[1]), group[0]))[:MOST_GROUPS]
    return [
        TradeGroup(
            strategy=strategy,
            symbol=symbol,
            side=side,
            close_reason=reason,
            trades=len(profits),
            wins=sum(profit > 0 for profit in profits),
            avg_profit_pct=sum(profits) / len(profits),
        )
        for (strategy, symbol, side, reason), profits in largest
    ]


def _breaches(performance: Mapping[str, Any] | None) -> list[Breach]:
    return [
        Breach(
            strategy=strategy, **{name: alert[name] for name in ("metric", "value", "limit", "interval", "confirmed")}
        )
        for strategy, metrics in ((performance or {}).get("strategies") or {}).items()
        for alert in metrics["alerts"]
        if alert["severity"] == "CRITICAL"
    ]


def _models(accuracy: Mapping[str, Any] | None, day: str, opens: Mapping[str, np.ndarray]) -> list[Model]:
    found = []
    for name, row in sorted(((accuracy or {}).get("models") or {}).items()):
        if not row["deployed"] or row["model_age_days"] is None:
            continue
        hours = round(24 * row["model_age_days"])  # a model's candles end on the hour, its age is rounded
        since = midnight(day) + max(ONE_DAY - timedelta(hours=hours), -REACH_DAYS * ONE_DAY)
        bars = opens.get(row["symbol"])
        found.append(
            Model(
                name=name,
                model_id=row["model_id"],
                age_days=row["model_age_days"],
                # of a symbol whose bars are not read here, as many as there were hours
                new_bars=hours if bars is None else bars_between(bars, since, day),
                n_7d=row["n_7d"],
                accuracy_7d=row["accuracy_7d"],
                drop_7d_pp=row["drop_7d_pp"],
                drop_7d_interval_pp=row["drop_7d_interval_pp"],
                drift=row.get("drift_7d"),
            )
        )
    return found


def _missing(
    known: Mapping[str, Mapping[str, Record]],
    window: Sequence[str],
    day: str,
    setting: Setting,
    market: Sequence[Market],
    unreadable: Mapping[str, str],
) -> list[str]:
    """Which inputs are not there, in words."""
    wanted = [d for d in window if date.fromisoformat(d) >= setting.first_day]
    linked = {name for names in setting.links.values() for name in names}
    found = []
    for name, needed in (("closed_trades", wanted), ("performance_metrics", wanted), ("model_accuracy_history", [day])):
        if absent := [d for d in needed if d not in known[name]]:
            found.append(f"{name} of {', '.join(absent)}")
    for d, record in known["closed_trades"].items():
        if why := _lacking(record.body):
            found.append(f"a part of the trades of {d}, {why},")
    if day in known["model_accuracy_history"]:
        models = known["model_accuracy_history"][day].body["models"]
        found += [
            f"what came of the predictions of {name}"
            for name, row in models.items()
            if "error" in row and (row["symbol"] in setting.symbols or name in linked)
        ]
    found += [f"the market of {symbol} ({why})" for symbol, why in unreadable.items()]
    found += [
        f"the market of {of.symbol} ({of.bars_7d} of {WEEK_BARS} bars of the week)"
        for of in market
        if of.bars_7d < LEAST_BARS
    ]
    if not setting.symbols:
        found.append("the market (the bot names no symbol)")
    return found


def _bars_digest(frame: pd.DataFrame, day: str) -> str:
    """SHA-256 of the week's bars."""
    end = midnight(day) + ONE_DAY
    return digest_of_bars(frame[(frame.index >= end - WEEK * ONE_DAY) & (frame.index < end)])
