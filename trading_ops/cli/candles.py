"""`trading-ops candles`: hourly candles from an exchange, and are those at hand sound?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.terminal import Json, open_services, reported, show, show_json, show_table

if TYPE_CHECKING:
    from trading_ops.market.download import Download, Progress
    from trading_ops.settings import Settings

app = typer.Typer(help="Hourly candles: from an exchange, and checked.", no_args_is_help=True)

SHOWN_PROBLEMS = 5
Symbols = Annotated[str | None, typer.Option(help="Such as BTCUSDT,ETHUSDT.", show_default=False)]


@app.command()
def download(
    symbols: Symbols = None,
    days: Annotated[int, typer.Option(min=1, help="How far back; older bars in the folder stay.")] = 400,
    folder: Annotated[Path | None, typer.Option(help="Default: TRADING_OPS_CANDLES, else var/candles.")] = None,
    exchange: Annotated[str | None, typer.Option(help="A name of ccxt's. Default: TRADING_OPS_EXCHANGE.")] = None,
    as_json: Json = False,
) -> None:
    """Download complete hourly candles into SYMBOL-1h.parquet files; what is there already is kept and continued."""
    from trading_ops.market.download import days_back, download_candles

    services = open_services()
    settings, now = services.settings, services.now()
    target = folder or settings.candles or settings.data_dir / "candles"
    name = exchange or settings.exchange
    with reported(ValueError, code=2):
        wanted = _symbols(symbols) or settings.symbols
        start = days_back(days, now)
        source = services.exchange(name)
    try:
        with reported(), _progress(hidden=as_json) as progress:
            downloads = download_candles(source, wanted, target, start, services.now, progress)
    except KeyboardInterrupt:
        typer.echo("interrupted; every page fetched so far is kept, run the same again to go on", err=True)
        raise typer.Exit(130) from None
    advice = _settings_to_change(settings, target, [d.symbol for d in downloads if d.bars])
    if as_json:
        show_json({"exchange": name, "folder": str(target), "downloads": [asdict(d) for d in downloads], "set": advice})
    else:
        _show_downloads(f"hourly candles of {name} in {target}", downloads)
        if advice:
            typer.echo("To use these candles, put into .env:")
            for variable, value in advice.items():
                typer.echo(f"{variable}={value}")
    for error in (d.error for d in downloads if d.error):
        typer.echo(error, err=True)
    if not all(d.succeeded for d in downloads):
        raise typer.Exit(1)


@app.command()
def check(
    folder: Annotated[Path | None, typer.Option(help="Default: the candles in use.", show_default=False)] = None,
    symbols: Symbols = None,
    as_json: Json = False,
) -> None:
    """Look for gaps, repeated, unsorted, off-hour and impossible bars, and for files left behind."""
    from trading_ops.market.inspection import inspect_folder, inspect_source

    services = open_services()
    now, configured = services.now(), services.settings.candles
    with reported(ValueError, code=2):
        wanted = _symbols(symbols)
    with reported():
        if (target := folder or configured) is None:
            what = f"{services.candles.label} candles"
            verdicts = inspect_source(services.candles, now, wanted)
        else:
            what = f"candles in {target}"
            # replayed candles are old ones on purpose
            replayed = services.settings.replay and target == configured
            verdicts = inspect_folder(target, now, wanted, current=not replayed)
    fine = all(v.status == "sound" for v in verdicts)
    if as_json:
        show_json({"candles": what, "sound": fine, "symbols": [asdict(v) for v in verdicts]})
    else:
        rows = [
            [v.symbol, v.bars or None, _day(v.first), _day(v.last), v.missing_bars or "none",
             None if v.behind_now_h is None else f"{v.behind_now_h} h", v.status]
            for v in verdicts
        ]  # fmt: skip
        show_table(what, ["symbol", "bars", "first", "last", "missing", "behind", "verdict"], rows)
        for v in verdicts:
            if v.gaps:
                show(f"{v.symbol}: {v.gaps} gap{'s' if v.gaps > 1 else ''}, the longest: {', '.join(v.longest_gaps)}")
            _show_some(v.problems, SHOWN_PROBLEMS)
    if not fine:
        raise typer.Exit(1)


def _symbols(text: str | None) -> tuple[str, ...] | None:
    """The symbols of an option, None where it was not given; raises ValueError for what can be no symbol."""
    if text is None:
        return None
    symbols = tuple(dict.fromkeys(part.strip().upper() for part in text.split(",") if part.strip()))
    if not symbols:
        raise ValueError("--symbols names no symbol; give at least one, such as BTCUSDT,ETHUSDT")
    for symbol in symbols:
        if not symbol.replace("-", "").replace("_", "").isalnum():  # it becomes a file's name
            raise ValueError(f"--symbols {symbol!r}: a symbol has letters, digits, - and _, such as BTCUSDT")
    return symbols


def _settings_to_change(settings: Settings, folder: Path, symbols: list[str]) -> dict[str, str]:
    """What .env must say for these candles to be used, where it does not say so yet."""
    from trading_ops.market.parquet import SUFFIX

    advice = {}
    if symbols and (settings.candles is None or settings.candles.resolve() != folder.resolve()):
        advice["TRADING_OPS_CANDLES"] = str(folder)
        there = [s for s in settings.symbols if (folder / f"{s}{SUFFIX}").exists()] or symbols
        if set(there) != set(settings.symbols):
            advice["TRADING_OPS_SYMBOLS"] = ",".join(there)
    return advice


def _show_downloads(title: str, downloads: list[Download]) -> None:
    rows = [
        [d.symbol, d.bars, _day(d.first), _hour(d.last), d.new_bars, _gaps(d.gaps, d.missing_bars)]
        if d.bars
        else [d.symbol, "none", None, None, None, None]
        for d in downloads
    ]
    show_table(title, ["symbol", "bars", "first", "last (UTC)", "new bars", "gaps"], rows)
    for d in downloads:
        _show_some(d.remarks(), SHOWN_PROBLEMS)


def _show_some(sentences: list[str] | tuple[str, ...], limit: int) -> None:
    from rich.markup import escape

    for sentence in sentences[:limit]:
        show(escape(sentence))
    if len(sentences) > limit:
        show(f"and {len(sentences) - limit} more: --json")


@contextmanager
def _progress(*, hidden: bool) -> Iterator[Progress]:
    """A bar a symbol on stderr, for people only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, disable=hidden or not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def advance(symbol: str, done: int, total: int) -> None:
            if symbol not in tasks:
                tasks[symbol] = bars.add_task(symbol)
            bars.update(tasks[symbol], completed=done, total=total)

        yield advance


def _gaps(gaps: int, missing_bars: int) -> str:
    return f"{gaps} ({missing_bars} bars)" if gaps else "none"


def _day(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d}"


def _hour(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d %H:%M}"
