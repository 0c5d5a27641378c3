"""`trading-ops analyze`: which of many symbols look worth buying or selling right now?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.terminal import Json, open_services, reported, show, show_json, show_table

if TYPE_CHECKING:
    from trading_ops.analysis.bulk import Progress

COLUMNS = {
    "#": ("rank", "d"), "symbol": ("symbol", ""), "signal": ("signal", ""), "score": ("score", ".3f"),
    "RSI": ("rsi", ".1f"), "band": ("bollinger_position", ".2f"), "volume": ("volume_ratio", ".2f"),
    "24 h %": ("return_24h_pct", ".2f"), "close": ("close", ".6g"),
}  # fmt: skip
SHOWN_FAILURES = 10


def analyze(
    symbols: Annotated[str | None, typer.Option(help="Such as BTCUSDT,ETHUSDT; default TRADING_OPS_SYMBOLS.")] = None,
    all_symbols: Annotated[bool, typer.Option("--all", help="All symbols that the candle source has.")] = False,
    lookback: Annotated[int, typer.Option(help="Hours that the indicators look back.")] = 500,
    min_score: Annotated[float, typer.Option(help="List no symbol with a lower score, 0 to 1.")] = 0.0,
    threads: Annotated[int | None, typer.Option(help="Default: one a processor.", show_default=False)] = None,
    chunk_size: Annotated[int | None, typer.Option(help="Symbols a thread takes at a time, at most.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the table; --json has all.")] = 20,
    as_json: Json = False,
) -> None:
    """Signals for 1 to 5,000 symbols, ranked by score, and kept in the audit trail; the job bulk_analysis does it too.

    Symbols that are unknown, stale, unsound or too young are listed with the reason; all of them: exit 1.
    """
    from trading_ops.analysis.bulk import AnalysisFailed, analyse, record, sentence
    from trading_ops.analysis.request import InvalidRequest, make_request

    services = open_services()
    with reported(InvalidRequest, code=2):
        request = make_request(
            None if symbols is None else [part for part in symbols.split(",") if part.strip()],
            all_symbols=all_symbols,
            default=services.settings.symbols,
            lookback_bars=lookback,
            min_score=min_score,
            chunk_size=chunk_size,
            threads=threads,
        )
    if request.doubled:
        typer.echo(f"named more than once, analysed once: {', '.join(request.doubled)}", err=True)
    with reported(AnalysisFailed), reported(InvalidRequest, code=2), _progress(hidden=as_json) as progress:
        document = analyse(services.candles_among(request.symbols), request, progress)
    if as_json:
        show_json(document)
    else:
        _show(document, top, sentence(document))
    with reported():
        if record(services.store, document).spooled:
            typer.echo("the audit store is down: the result waits on this machine, see trading-ops doctor", err=True)


def _show(document: dict[str, Any], top: int, said: str) -> None:
    rows = [
        [None if row[name] is None else format(row[name], shape) for name, shape in COLUMNS.values()]
        for row in document["rows"][:top]
    ]
    show_table(f"{document['candles']} candles, {document['as_of'][:16]} UTC", list(COLUMNS), rows)
    show(f"{said}. The score says how far the four indicators agree, not how likely they are right.")
    if len(document["rows"]) > top:
        show(f"and {len(document['rows']) - top} more: --top or --json")
    if document["below_min_score"]:
        show(f"{document['below_min_score']} below the least score are not listed")
    from rich.markup import escape

    for failure in document["failed"][:SHOWN_FAILURES]:
        show(escape(f"{failure['symbol']} failed: {failure['reason']}"))
    if len(document["failed"]) > SHOWN_FAILURES:
        show(f"and {len(document['failed']) - SHOWN_FAILURES} more failed: --json")


@contextmanager
def _progress(*, hidden: bool) -> Iterator[Progress]:
    """A bar on stderr, for people only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("analysing"), BarColumn(), MofNCompleteColumn(), TextColumn("symbols"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=hidden or not console.is_terminal) as bar:
        task = bar.add_task("analysing", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
