"""`trading-ops optimize`: which parameters would have earned most, with out-of-sample proof?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.terminal import Day, Json, open_services, reported, show, show_json, show_table

if TYPE_CHECKING:
    from trading_ops.optimization.optimise import Optimization
    from trading_ops.optimization.search import Progress

INTERRUPTED = "interrupted; every chunk scored so far is kept, run the same again to go on"


def optimize(
    strategy: Annotated[str | None, typer.Option(help="rsi (default), macd, bollinger or volume.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Default: the first of TRADING_OPS_SYMBOLS.")] = None,
    sets: Annotated[int | None, typer.Option(help="Sets to try at most, 10-100000 (200).")] = None,
    tried: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            help="A parameter's values, once a parameter: period=7,14,21 or oversold=20:40:5 (low:high:step) or"
            " stop_loss_pct=off,2,5. Others are tried over their default values.",
        ),
    ] = None,
    first: Day = None,
    last: Day = None,
    train_blocks: Annotated[int | None, typer.Option(help="Blocks of days that guide the search (7).")] = None,
    folds: Annotated[int | None, typer.Option(help="Blocks of days that judge it (5).")] = None,
    purge_days: Annotated[int | None, typer.Option(help="Days left out at each block's start (1).")] = None,
    final_pct: Annotated[float | None, typer.Option(help="Share of the days kept back for the end (20).")] = None,
    min_trades: Annotated[int | None, typer.Option(help="Trades a set needs to be chosen, and a fold (5).")] = None,
    side: Annotated[str | None, typer.Option(help="long (default) or short.")] = None,
    market: Annotated[str | None, typer.Option(help="spot (default) or futures.")] = None,
    fee_pct: Annotated[float | None, typer.Option(help="Fee in percent of a fill (0.1).")] = None,
    slippage_pct: Annotated[float | None, typer.Option(help="Slippage in percent of a fill (0.05).")] = None,
    funding_pct: Annotated[
        float | None, typer.Option(help="Funding of a future every 8 hours, in percent (0).")
    ] = None,
    latency_bars: Annotated[int | None, typer.Option(help="Bars that a fill comes late (0).")] = None,
    equity_pct: Annotated[float | None, typer.Option(help="Share of the equity an order takes (100).")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the proposals (1).")] = None,
    threads: Annotated[int | None, typer.Option(help="Cores to use; default all.")] = None,
    as_json: Json = False,
) -> None:
    """Search a strategy's parameters, judge them on later days, and look at the last days once.

    Interrupted or killed, the same command goes on where it was.
    """
    from trading_ops.optimization.chunks import ChunkError
    from trading_ops.optimization.optimise import run_optimization
    from trading_ops.optimization.periods import TooFewDays
    from trading_ops.optimization.request import InvalidRequest, parse_request

    given = {name: value for name, value in locals().items() if name in _FIELDS and value is not None}
    services = open_services()
    with reported(InvalidRequest, code=2):
        days = {"first_day": first and str(first.date()), "last_day": last and str(last.date())}
        request = parse_request({**given, **days, "space": _space(tried or ())})
    try:
        with reported(TooFewDays, code=2), reported(ChunkError), _progress(hidden=as_json) as told:
            found = run_optimization(
                request,
                services.candles,
                services.store,
                services.settings.data_dir,
                default_symbol=services.settings.symbols[0],
                told=told,
            )
    except KeyboardInterrupt:
        typer.echo(INTERRUPTED, err=True)
        raise typer.Exit(130) from None
    if as_json:
        show_json(found.document)
    else:
        _show(found)


_FIELDS = frozenset(
    {"strategy", "symbol", "sets", "train_blocks", "folds", "purge_days", "final_pct", "min_trades", "side", "market",
     "fee_pct", "slippage_pct", "funding_pct", "latency_bars", "equity_pct", "seed", "threads"}
)  # fmt: skip


def _space(tried: Sequence[str]) -> dict[str, Any]:
    """The search space of `--try` options; raises InvalidRequest."""
    from trading_ops.optimization.request import InvalidRequest

    space: dict[str, Any] = {}
    for option in tried:
        name, equals, text = option.partition("=")
        try:
            if not equals or name in space:
                raise ValueError
            low, *further = text.split(":")
            if further:
                high, step = further
                space[name] = {"low": float(low), "high": float(high), "step": float(step)}
            else:
                space[name] = [part if part.lower() == "off" else float(part) for part in text.split(",")]
        except ValueError:
            raise InvalidRequest(
                f"--try is {option!r}; name=value,value or name=low:high:step would be right, once a parameter"
            ) from None
    return space


def _show(found: Optimization) -> None:
    from trading_ops.optimization.summary import findings, fold_rows, luck, top_rows

    document = found.document
    names = " ".join(document["space"])
    kind = "the whole grid" if document["method"] == "grid" else f"of {document['space_sets']:,}, by TPE"
    resumed = f", {found.resumed_sets:,} of them from an earlier run" if found.resumed_sets else ""
    show(
        f"{document['strategy']} on {document['symbol']}, {document['candles']} candles:"
        f" {document['sets']:,} sets ({kind}){resumed}"
    )
    _table(f"best sets out of sample ({names})", top_rows(document))
    _table("chosen by the past, fold after fold", fold_rows(document))
    _table("against holding the coin: on the folds, and on the final days", findings(document))
    show(luck(document))
    for sentence in document["verdict"] or ["Nothing speaks against the winner."]:
        show(f"[bold]{sentence}[/bold]")
    if found.picture is not None:
        typer.echo(f"heat map: {found.picture}")
    show("Everything that is recorded: --json")


def _table(title: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        show_table(title, list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])


def _cell(value: Any) -> Any:
    return f"{value:.2f}" if isinstance(value, float) else value


@contextmanager
def _progress(*, hidden: bool) -> Iterator[Callable[[Progress], None]]:
    """A bar on stderr with the best so far, for people only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, disable=hidden or not console.is_terminal) as bar:
        task = bar.add_task("searching", total=None)

        def tell(progress: Progress) -> None:
            best = progress.best_train_sharpe
            text = "searching" if best is None else f"best training Sharpe {best:.2f}"
            bar.update(task, description=text, completed=progress.done, total=progress.total)

        yield tell
