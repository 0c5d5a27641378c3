"""`trading-ops optimize`: which parameters would have earned most, with out-of-sample proof?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli import orders
from trading_ops.cli.terminal import Json, open_services, reported, show, show_json, show_table

if TYPE_CHECKING:
    from trading_ops.optimization.optimise import Optimization
    from trading_ops.optimization.search import Progress

DAYS = "Days"
INTERRUPTED = "interrupted; every chunk scored so far is kept, run the same again to go on"


def optimize(
    strategy: Annotated[str, typer.Argument(help="rsi, macd, bollinger or volume.")] = "rsi",
    symbol: Annotated[str | None, typer.Argument(help="Default: the first of TRADING_OPS_SYMBOLS.")] = None,
    start: Annotated[str | None, typer.Option(help="First UTC day. Default: all there is.")] = None,
    end: Annotated[str | None, typer.Option(help="UTC day, left out itself. Default: all there is.")] = None,
    sets: Annotated[int, typer.Option(help="Parameter sets to try at most, 10-100000.")] = 200,
    tried: Annotated[
        list[str] | None,
        typer.Option(
            "--try",
            metavar="NAME=VALUES",
            help="A parameter's values, once a parameter: period=7,14,21 or oversold=20:40:5 (low:high:step) or"
            " stop_loss_pct=off,2,5. Others are tried over their default values.",
        ),
    ] = None,
    min_trades: Annotated[int, typer.Option(help="Trades a set needs to be chosen, and a fold.")] = 5,
    train_blocks: Annotated[int, typer.Option(help="Blocks that guide the search, 2-14.", rich_help_panel=DAYS)] = 7,
    folds: Annotated[int, typer.Option(help="Blocks that judge it, 2-10.", rich_help_panel=DAYS)] = 5,
    purge_days: Annotated[int, typer.Option(help="Left out at a block's start, 0-30.", rich_help_panel=DAYS)] = 1,
    final_pct: Annotated[float, typer.Option(help="Kept back for the end, 5-50 %.", rich_help_panel=DAYS)] = 20.0,
    fee: orders.Fee = 0.1,
    slippage: orders.Slippage = 0.05,
    lot_step: orders.LotStep = None,
    min_notional: orders.MinNotional = None,
    funding: orders.Funding = 0.0,
    side: orders.Side = "long",
    market: orders.Market = "spot",
    latency: orders.Latency = 0,
    equity: orders.Equity = 100.0,
    seed: Annotated[int, typer.Option(help="Of the proposals: the same seed, the same search.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Cores to use. Default: all.")] = None,
    as_json: Json = False,
) -> None:
    """Search a strategy's parameters, judge them on later days, and look at the last days once.

    Interrupted or killed, the same command goes on where it was.
    """
    from trading_ops.backtesting.request import InvalidRequest
    from trading_ops.files import FileNotWritten
    from trading_ops.optimization.optimise import run_optimization
    from trading_ops.optimization.periods import TooFewDays
    from trading_ops.optimization.request import OptimizationRequest

    services = open_services()
    with reported(InvalidRequest, code=2):
        request = OptimizationRequest.parse(
            {
                "strategy": strategy, "symbol": symbol, "start": start, "end": end, "sets": sets,
                "space": read_space(tried or ()), "min_trades": min_trades, "train_blocks": train_blocks,
                "folds": folds, "purge_days": purge_days, "final_pct": final_pct, "fee_pct": fee,
                "slippage_pct": slippage, "lot_step": lot_step, "min_notional_usdt": min_notional,
                "funding_pct": funding, "side": side, "market": market, "latency_bars": latency,
                "equity_pct": equity, "seed": seed, "threads": threads,
            }
        )  # fmt: skip
    try:
        with reported(TooFewDays, code=2), reported(FileNotWritten), _progress(hidden=as_json) as told:
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


def read_space(tried: Sequence[str]) -> dict[str, Any]:
    """The search space of `--try` options; raises InvalidRequest."""
    from trading_ops.backtesting.request import InvalidRequest

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
