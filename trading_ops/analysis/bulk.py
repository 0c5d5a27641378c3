"""Which of up to 5,000 symbols look worth buying or selling right now, and which could not be judged, and why?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import islice
from typing import Any

import numpy as np

from trading_ops.analysis.indicators import INDICATORS, panel_indicators
from trading_ops.analysis.panel import CLOSE, OPEN, VOLUME, Panel, read_panel
from trading_ops.analysis.request import PROGRESS_STEPS, Request, require_count
from trading_ops.analysis.rule import BUY, HOLD, PARTS, SELL, judge
from trading_ops.audit.chain import canonical_json
from trading_ops.audit.store import AuditStore, Entry, Receipt
from trading_ops.market.candles import HOUR, CandleSource, Span, split_fresh, why_stale

COLLECTION = "bulk_analyses"
RULE = "analysis.rule 1"  # told in the document; another number for another rule
SHOWN_FAILURES = 20
DECIMALS = 8
PERCENT = {name: f"{name}_pct" for name in ("return_1h", "return_24h", "return_7d", "volatility")}

Progress = Callable[[int, int], None]
Document = dict[str, Any]


class AnalysisFailed(Exception):
    """Not one symbol could be analysed; the message lists why."""


@dataclass(frozen=True)
class Plan:
    """A request as it meets a source: the symbols to read, each with its span, and why others fail already."""

    request: Request
    label: str
    origin: str
    spans: Mapping[str, Span]
    failed: Mapping[str, str]

    @property
    def asked(self) -> int:
        return len(self.spans) + len(self.failed)

    def shares(self, count: int) -> list[dict[str, Span]]:
        """The symbols to read in `count` shares (or as many as there are symbols), for steps of their own."""
        count = max(1, min(count, len(self.spans)))
        return [dict(islice(self.spans.items(), at, None, count)) for at in range(count)]


@dataclass(frozen=True)
class Share:
    """What became of some of the symbols: rows without a rank, in any order, and why others failed."""

    rows: list[dict[str, Any]]
    failed: dict[str, str]


def analyse(source: CandleSource, request: Request, progress: Progress | None = None) -> Document:
    """Read, calculate, judge and rank; the document of `conclude`. `progress` is told (done, of how many) every 10 %.

    Raises InvalidRequest where the source has too many symbols to take them all, AnalysisFailed where all failed,
    CandleError where the source as a whole cannot be used.
    """
    plan = make_plan(source, request)
    return conclude(plan, [analyse_share(source, plan, plan.spans, progress)])


def make_plan(source: CandleSource, request: Request) -> Plan:
    """Which symbols are there and fresh: the last bar within 48 h of the source's newest."""
    spans, unreadable = source.survey()
    symbols = request.symbols if request.symbols is not None else tuple(sorted({*spans, *unreadable}))
    require_count(len(symbols))
    label = source.label
    stale = split_fresh(spans)[1]
    failed = {}
    for symbol in symbols:
        if symbol in unreadable:
            failed[symbol] = unreadable[symbol]
        elif symbol not in spans:
            failed[symbol] = f"unknown: no {label} candles"
        elif symbol in stale:
            failed[symbol] = f"stale: {why_stale(symbol, spans, label)}"
    wanted = {symbol: spans[symbol] for symbol in symbols if symbol not in failed}
    return Plan(request, label, source.origin, wanted, failed)


def analyse_share(
    source: CandleSource, plan: Plan, spans: Mapping[str, Span], progress: Progress | None = None
) -> Share:
    """Analyse these symbols of the plan, chunk by chunk, in threads."""
    request = plan.request
    chunks = request.chunks(list(spans))

    def work(chunk: Sequence[str]) -> Share:
        panel, failed = read_panel(source, {symbol: spans[symbol] for symbol in chunk}, request.lookback_bars)
        return Share(rows_of(panel), failed)

    rows: list[dict[str, Any]] = []
    failed: dict[str, str] = {}
    done, told = 0, 0
    with ThreadPoolExecutor(max_workers=min(request.workers, len(chunks) or 1)) as threads:
        for chunk, share in zip(chunks, threads.map(work, chunks), strict=True):
            rows += share.rows
            failed |= share.failed
            done += len(chunk)
            if progress is not None and (tenths := PROGRESS_STEPS * done // len(spans)) > told:
                told = tenths
                progress(done, len(spans))
    return Share(rows, failed)


def rows_of(panel: Panel) -> list[dict[str, Any]]:
    """One row a symbol of the panel, of its last bar; nothing in it depends on the other symbols."""
    if not panel.symbols:
        return []
    close, volume = panel.values[CLOSE], panel.values[VOLUME]
    each, last = np.arange(len(panel.symbols)), panel.last
    latest = dict(zip(INDICATORS, panel_indicators(close, volume)[:, each, last], strict=True))
    price = close[each, last]
    judged = judge(
        latest["rsi"],
        latest["macd_histogram"],
        latest["bollinger_position"],
        latest["bollinger_deviation"],
        latest["volume_ratio"],
        price - panel.values[OPEN][each, last],
    )
    bars = panel.bars
    columns = {
        "symbol": list(panel.symbols),
        "signal": judged.signal.tolist(),
        "score": judged.score.tolist(),
        "probability": [None] * len(each),
        "as_of": [_text(panel.start + (int(at) + 1) * HOUR) for at in last],
        "bars": bars.tolist(),
        "missing_bars": (last + 1 - np.argmax(~np.isnan(close), axis=1) - bars).tolist(),
        "close": price.tolist(),
        "rsi": _figures(latest["rsi"]),
        "macd_histogram_pct": _figures(100.0 * latest["macd_histogram"] / price),
        "bollinger_position": _figures(latest["bollinger_position"]),
        "volume_ratio": _figures(latest["volume_ratio"]),
        **{percent: _figures(100.0 * latest[name]) for name, percent in PERCENT.items()},
    }
    parts = [
        dict(zip(PARTS, values, strict=True))
        for values in zip(*(_figures(judged.parts[p]) for p in PARTS), strict=True)
    ]
    names = list(columns)
    return [
        {**dict(zip(names, values, strict=True)), "parts": part}
        for *values, part in zip(*columns.values(), parts, strict=True)
    ]


def conclude(plan: Plan, shares: Sequence[Share]) -> Document:
    """The document: rows by score, descending, then by symbol; the same for the same candles and request, to the byte.

    `rows` leaves out scores below min_score, which are counted. `failed` is by symbol. Raises AnalysisFailed.
    """
    rows = [row for share in shares for row in share.rows]
    failed = dict(plan.failed)
    for share in shares:
        failed |= share.failed
    if not rows:
        raise AnalysisFailed(_all_failed(failed))
    rows.sort(key=lambda row: (-row["score"], row["symbol"]))
    listed = [row for row in rows if row["score"] >= plan.request.min_score]
    signals = [row["signal"] for row in rows]
    return {
        "as_of": max(row["as_of"] for row in rows),
        "candles": plan.label,
        "rule": RULE,
        "lookback_bars": plan.request.lookback_bars,
        "min_score": plan.request.min_score,
        "asked": plan.asked,
        "analysed": len(rows),
        "signals": {signal: signals.count(signal) for signal in (BUY, SELL, HOLD)},
        "below_min_score": len(rows) - len(listed),
        "rows": [{"rank": rank, **row} for rank, row in enumerate(listed, start=1)],
        "failed": [{"symbol": symbol, "reason": failed[symbol]} for symbol in sorted(failed)],
        "request_digest": _digest(plan),
    }


def record(store: AuditStore, document: Document) -> Receipt:
    """Keep the document: the day is its last bar's, the key its last bar's close and the digest of the request."""
    moment = datetime.fromisoformat(document["as_of"])
    key = f"{moment:%Y-%m-%dT%H:%MZ}-{document['request_digest'][:16]}"
    (receipt,) = store.append(COLLECTION, [Entry(str((moment - HOUR).date()), key, document)])
    return receipt


def sentence(document: Document) -> str:
    """What came out, in one line."""
    counts = ", ".join(f"{count} {signal}" for signal, count in document["signals"].items())
    moment = datetime.fromisoformat(document["as_of"])
    return (
        f"{document['analysed']} of {document['asked']} symbols as of {moment:%Y-%m-%d %H:%M} UTC,"
        f" {document['candles']} candles: {counts}"
    )


def _digest(plan: Plan) -> str:
    """Of what was asked of whom; how fast it was done is no part of it."""
    request = plan.request
    asked = {
        "symbols": sorted({*plan.spans, *plan.failed}),
        "lookback_bars": request.lookback_bars,
        "min_score": request.min_score,
        "rule": RULE,
        "origin": plan.origin,
    }
    return sha256(canonical_json(asked).encode()).hexdigest()


def _all_failed(failed: Mapping[str, str]) -> str:
    lines = [f"{symbol}: {failed[symbol].removeprefix(f'{symbol}: ')}" for symbol in sorted(failed)]
    more = len(lines) - SHOWN_FAILURES
    told = [*lines[:SHOWN_FAILURES], *([f"and {more} more"] if more > 0 else [])]
    return "\n".join([f"all {len(lines)} symbols failed, so there is no result:", *told])


def _figures(values: np.ndarray) -> list[float | None]:
    rounded = (np.round(values, DECIMALS) + 0.0).tolist()  # no -0.0
    return [value if value == value else None for value in rounded]  # NaN is unlike itself


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="minutes")
