"""What can be done from the terminal? The `trading-ops` command: exit 0 done, 1 failed, 2 bad input."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, datetime
from typing import Annotated, Any

import typer

app = typer.Typer(
    help="Watch, measure and look after a trading bot.", no_args_is_help=True, pretty_exceptions_enable=False
)
audit_app = typer.Typer(help="The audit trail.", no_args_is_help=True)
app.add_typer(audit_app, name="audit")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A UTC day, such as 2025-03-01.")]

# what a person wants to see of a collection at 80 columns
SHOWN = {
    "closed_trades": ["day", "outcome", "total", "complete", "revision", "candles"],
    "performance_metrics": ["day", "outcome", "status", "trigger_ai_analysis", "revision", "candles"],
    "portfolio_reports": ["day", "equity_usdt", "return_pct", "return_since_start_pct", "total_trades", "revision"],
    "api_cost_history": ["day", "requests", "day_usd", "month_usd", "status", "llm_allowed", "revision"],
    "strategy_risk": ["day", "status", "revision", "candles"],
}


@app.command()
def backfill(
    days: Annotated[int | None, typer.Option(min=1, help="The newest N complete days the bot covers.")] = None,
    first: Day = None,
    last: Day = None,
    missing: Annotated[bool, typer.Option(help="Leave out days measured already, but for the last three.")] = False,
    as_json: Json = False,
) -> None:
    """Measure past days in one run: trades, metrics, risk, portfolio, costs. Ends with a table of the newest day."""
    import dagster as dg

    _prepare()
    with _reported():
        from trading_ops.definitions import SERVICES, defs
    from trading_ops.defs.backfill import BackfillError, choose_days, run_backfill
    from trading_ops.performance.summary import performance_of, performance_table

    with _reported(BackfillError, code=2):
        start, end = choose_days(SERVICES, days, _date(first), _date(last), missing=missing)
    with _reported(), dg.DagsterInstance.get() as instance:
        done = run_backfill(defs, SERVICES, instance, start, end, progress=not as_json)
        newest, recent = performance_of(SERVICES.store, done.last)
    if as_json:
        _print_json({"backfill": asdict(done), "performance": newest})
    else:
        _print(done.sentence())
        for error in done.errors:
            typer.echo(error, err=True)
        if newest:
            _print(performance_table(newest, recent))
            _print(
                "Look around: [bold]make ui[/bold], or [bold]trading-ops history performance_metrics --days 7[/bold]"
            )
    if not done.succeeded:
        raise typer.Exit(1)


@app.command()
def history(
    collection: Annotated[str, typer.Argument(help="Such as performance_metrics, api_cost_history, closed_trades.")],
    days: Annotated[int, typer.Option(min=1, help="How far back, by the bot's clock.")] = 30,
    as_json: Json = False,
) -> None:
    """Show the newest revision of each day in a collection of the audit trail, newest first."""
    with _reported(ValueError, code=2):
        rows = _services().history.get_history(collection, days=days)
    if as_json:
        _print_json(rows)
        return
    if not rows:
        _print(f"nothing in {collection} in the last {days} days")
        return
    columns = SHOWN.get(collection) or [c for c in rows[0] if not isinstance(rows[0][c], (dict, list))][:6]
    _print_table(collection, columns, [[row.get(c) for c in columns] for row in rows])
    _print("Everything that is recorded: --json")


@audit_app.command()
def verify(
    heads: Annotated[
        list[str] | None,
        typer.Option("--head", help="A head noted down earlier, COLLECTION:SEQ:HASH; finds a cut or rewritten tail."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute every record's digest and chain; names the first broken record of each collection."""
    from trading_ops.audit.store import Head

    with _reported(ValueError, code=2):
        expected = [_head(text, Head) for text in heads or []]
    with _reported():
        store = _services().store
        broken = store.verify(expected=expected)
        intact = store.heads()
    if as_json:
        _print_json({
            "broken": [{"collection": b.collection, "seq": b.seq, "reason": b.reason} for b in broken],
            "heads": [f"{h.collection}:{h.seq}:{h.hash}" for h in intact],
        })  # fmt: skip
    else:
        faults = {b.collection: b for b in broken}
        rows = [[h.collection, h.seq, h.hash[:16], "ok" if h.collection not in faults else "broken"] for h in intact]
        _print_table("audit trail", ["collection", "records", "head", "chain"], rows)
        for b in broken:
            _print(f"[red]{b.collection} is broken at record {b.seq}: {b.reason}[/red]")
    if broken:
        raise typer.Exit(1)


@audit_app.command()
def heads() -> None:
    """Print each collection's head, to be kept elsewhere and given to `audit verify --head`."""
    with _reported():
        for head in _services().store.heads():
            typer.echo(f"{head.collection}:{head.seq}:{head.hash}")


def _prepare() -> None:
    """Settings and Dagster's home, before anything else is loaded; what is wrong with them exits 2."""
    from trading_ops.settings import InvalidSettings, load_settings, use_dagster_home

    try:
        load_settings()
        use_dagster_home()
    except InvalidSettings as error:
        _fail(str(error), code=2)


def _services() -> Any:
    from trading_ops.services import Services

    _prepare()
    return Services()


@contextmanager
def _reported(*expected: type[Exception], code: int = 1) -> Iterator[None]:
    """What can go wrong in operation ends in one clear line and an exit code, not in a stack trace."""
    from trading_ops.audit.store import StoreError
    from trading_ops.bot.client import BotError
    from trading_ops.market.candles import CandleError

    try:
        yield
    except (StoreError, BotError, CandleError) as error:
        _fail(str(error), code=1)
    except expected as error:
        _fail(str(error), code=code)


def _head(text: str, head: Any) -> Any:
    parts = text.split(":")
    if len(parts) != 3 or not parts[1].isdigit():
        raise ValueError(f"--head {text!r}: COLLECTION:SEQ:HASH is needed, as `trading-ops audit heads` prints it")
    return head(parts[0], int(parts[1]), parts[2])


def _date(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


def _fail(message: str, *, code: int) -> Any:
    typer.echo(message, err=True)
    raise typer.Exit(code)


def _print(message: Any) -> None:
    from rich.console import Console

    Console(highlight=False).print(message)


def _print_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, sort_keys=True, default=str))


def _print_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    from rich.table import Table

    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*["-" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row])
    _print(table)


if __name__ == "__main__":
    app()
