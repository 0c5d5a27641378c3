"""Does the guard pay? The four strategies on past candles, with each rule and without, at several limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trading_ops.audit.chain import canonical_json, content_digest
from trading_ops.audit.store import AuditStore, Entry, Receipt
from trading_ops.backtesting.preparation import Prepared, prepare
from trading_ops.backtesting.request import BacktestRequest, InvalidRequest
from trading_ops.guard.drawdown import FROM_PEAK, FROM_START, PortfolioLimits
from trading_ops.guard.lab.paths import Bars, Book
from trading_ops.guard.lab.replay import Halt, Replay, net_at_any_hour, replay
from trading_ops.guard.lab.rules import AccountRule, Rule, StrategyRule
from trading_ops.guard.lab.verdict import tally
from trading_ops.guard.rules import Limits
from trading_ops.market.candles import CandleSource, Coverage, digest_of
from trading_ops.paper.ledger import CAPITAL_USDT, PARAMETERS

if TYPE_CHECKING:
    from trading_ops.guard.switch import Policy

COLLECTION = "guard_labs"
DAILY_LOSS, STREAK, AS_SET = "daily_loss", "consecutive_losses", "as_set"
GRID: dict[str, tuple[float, ...]] = {
    DAILY_LOSS: (2, 3, 4, 5, 6, 8, 10, 12, 15, 20),
    STREAK: (4, 5, 6, 7, 8, 10, 12, 15),
    FROM_PEAK: (5, 10, 15, 20, 25, 30),
    FROM_START: (5, 10, 15, 20, 25, 30),
}
NEVER = 10**9  # as a limit
MOST_HALTS = 500  # of a line, listed in a document; the figures are of all of them


@dataclass(frozen=True, slots=True)
class LabRequest:
    """None is the default: all four strategies, TRADING_OPS_SYMBOLS, up to the last complete day they all have.

    `apart`: each strategy on each symbol is guarded as a strategy of its own.
    """

    strategies: tuple[str, ...] | None = None
    symbols: tuple[str, ...] | None = None
    days: int = 365
    end: str | None = None
    resume_after_h: int = 24
    apart: bool = False
    fee_pct: float = 0.1
    slippage_pct: float = 0.05


class Line(NamedTuple):
    """One rule at one limit (None: as it is set); `in_use`: it is the guard's own now."""

    rule: str
    limit: float | None
    in_use: bool


def run_lab(
    request: LabRequest,
    source: CandleSource,
    symbols: Sequence[str],
    policy: Policy,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The document; the same candles, request and limits give the same. `told`: lines done, and all.

    `symbols`: those of a request without any. Raises InvalidRequest, and CandleError where candles cannot be had.
    """
    from trading_ops.paper.stoppable import Desk, book_of, opens_of

    prepared = _prepare(request, source, symbols)
    opens = np.unique(np.concatenate([opens_of(one)[one.warm_up :] for one in prepared]))
    bars, resume_after = Bars(opens), np.timedelta64(request.resume_after_h, "h")
    share = CAPITAL_USDT if request.apart else CAPITAL_USDT / len({one.request.symbol for one in prepared})
    desks: dict[str, list[Desk]] = {}
    for one in prepared:
        strategy = one.request.strategy
        name = f"{strategy} {one.request.symbol}" if request.apart else strategy
        desks.setdefault(name, []).append(Desk.of(one, share))
    books = [book_of(name, own, bars) for name, own in desks.items()]
    lines = lines_of(policy)
    any_hour = {book.name: net_at_any_hour(book, bars, resume_after) for book in books}
    results = []
    for done, line in enumerate(lines):
        told(done, len(lines))
        replays = [replay(group, bars, rule, resume_after) for group, rule in _trials(line, books, policy)]
        results.append(_line_document(line, replays, bars, any_hour))
    told(len(lines), len(lines))
    asked = {
        "strategies": list(dict.fromkeys(one.request.strategy for one in prepared)),
        "symbols": list(dict.fromkeys(one.request.symbol for one in prepared)),
        "start": str(prepared[0].request.start),
        "end": str(prepared[0].request.end),
        "resume_after_h": request.resume_after_h,
        "apart": request.apart,
        "fee_pct": request.fee_pct,
        "slippage_pct": request.slippage_pct,
        "parameters": {one.request.strategy: one.request.parameters for one in prepared},
        "limits": asdict(policy.limits),
        "own_limits": {name: asdict(own) for name, own in policy.own_limits.items()},
        "portfolio_limits": asdict(policy.portfolio),
    }
    data = {f"{one.request.symbol}": digest_of(one.candles.iloc[one.warm_up :]) for one in prepared}
    return {
        "title": _title(asked, source.label),
        "digest": content_digest(canonical_json({"request": asked, "candles": data})),
        "request": asked,
        "candles": source.label,
        "candles_digests": data,
        "bars": len(bars),
        "capital_usdt": CAPITAL_USDT * len(books),
        "any_hour_pct": {name: 100.0 * share for name, share in any_hour.items()},
        "lines": results,
    }


def keep(store: AuditStore, document: Mapping[str, Any]) -> Receipt:
    """Append the document under its digest; nothing where it is there."""
    (receipt,) = store.append(COLLECTION, [Entry("", str(document["digest"]), document)])
    return receipt


def lines_of(policy: Policy) -> list[Line]:
    """The guard as it is set, then each rule alone over the grid and the limit it has."""
    limits, account = policy.limits, policy.portfolio
    in_use: dict[str, float | None] = {
        DAILY_LOSS: limits.daily_loss_pct,
        STREAK: limits.consecutive_losses,
        FROM_PEAK: account.from_peak_pct,
        FROM_START: account.from_start_pct,
    }
    lines = [Line(AS_SET, None, True)]
    for rule, grid in GRID.items():
        own = in_use[rule]
        lines += [Line(rule, limit, limit == own) for limit in sorted({*grid, *([] if own is None else [own])})]
    return lines


def _trials(line: Line, books: Sequence[Book], policy: Policy) -> Iterator[tuple[Sequence[Book], Rule]]:
    """What is stopped together, by which rule."""
    if line.rule in (FROM_PEAK, FROM_START):
        only = {FROM_PEAK: "from_peak_pct", FROM_START: "from_start_pct"}[line.rule]
        yield books, AccountRule(PortfolioLimits(**{only: line.limit}))
        return
    for book in books:
        if line.limit is None:
            limits = policy.limits_of(book.name.split()[0])
        elif line.rule == DAILY_LOSS:
            limits = Limits(daily_loss_pct=line.limit, consecutive_losses=NEVER)
        else:
            limits = Limits(daily_loss_pct=NEVER, consecutive_losses=int(line.limit))
        yield [book], StrategyRule(limits)


def _line_document(line: Line, replays: Sequence[Replay], bars: Bars, any_hour: Mapping[str, float]) -> dict[str, Any]:
    halts = sorted((halt for one in replays for halt in one.halts), key=lambda halt: halt.at)
    return {
        **line._asdict(),
        **asdict(tally(halts, bars, any_hour)),
        "final_usdt": sum(one.final_usdt for one in replays),
        "final_without_usdt": sum(one.final_without_usdt for one in replays),
        "breaches": [_listed(halt) for halt in halts[-MOST_HALTS:]],
        "breaches_cut": max(0, len(halts) - MOST_HALTS),
    }


def _listed(halt: Halt) -> dict[str, Any]:
    times = {name: f"{getattr(halt, name).astype('datetime64[s]')}+00:00" for name in ("at", "resumed_at")}
    return {**asdict(halt), **times, "net_usdt": halt.net_usdt}


def _prepare(request: LabRequest, source: CandleSource, symbols: Sequence[str]) -> list[Prepared]:
    """Every strategy's bars on every symbol, of the same days."""
    chosen = dict.fromkeys(request.strategies or PARAMETERS)
    wanted = dict.fromkeys(symbol.strip().upper() for symbol in request.symbols or symbols)
    if unknown := [name for name in chosen if name not in PARAMETERS]:
        raise InvalidRequest(f"strategy {unknown[0]!r} is unknown; there are {', '.join(sorted(PARAMETERS))}")
    for name, least in (("days", 2), ("resume_after_h", 1)):
        if getattr(request, name) < least:
            raise InvalidRequest(f"{name} is {getattr(request, name)}; {least} or more would be right")
    asked = BacktestRequest.parse(
        {"end": request.end, "fee_pct": request.fee_pct, "slippage_pct": request.slippage_pct}
    )
    there = {*source.symbols(), *source.stale_symbols()}
    if there.issuperset(wanted):  # or `prepare` says which there are
        asked = _of_common_days(asked, request.days, source.coverage(list(wanted)))
    return [
        prepare(
            asked.model_copy(update={"strategy": strategy, "symbol": symbol, "parameters": PARAMETERS[strategy]}),
            source,
            symbols,
        )
        for strategy in chosen
        for symbol in wanted
    ]


def _of_common_days(asked: BacktestRequest, days: int, coverage: Coverage) -> BacktestRequest:
    """The last `days` that all symbols have; an end that they do not have is left to `prepare`, which says so."""
    first, last = coverage.first_day, coverage.last_day
    if first is None or last is None:
        return asked
    end = asked.end or last + timedelta(days=1)
    start = max(first, end - timedelta(days=days)) if first < end else None
    return asked.model_copy(update={"start": start, "end": end})


def _title(asked: Mapping[str, Any], label: str) -> str:
    return (
        f"{', '.join(asked['strategies'])} on {', '.join(asked['symbols'])}, {asked['start']} to {asked['end']},"
        f" {label} candles"
    )
