"""How does a command read its settings, show what it found, and say what went wrong?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from trading_ops.services import Services

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
Day = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="A UTC day, such as 2025-03-01.")]


def prepare() -> None:
    """Settings and Dagster's home, before anything else is loaded; what is wrong with them exits 2."""
    from trading_ops.settings import InvalidSettings, load_settings, use_dagster_home

    try:
        load_settings()
        use_dagster_home()
    except InvalidSettings as error:
        fail(str(error), code=2)


def open_services() -> Services:
    from trading_ops.services import Services

    prepare()
    return Services()


@contextmanager
def reported(*expected: type[Exception], code: int = 1) -> Iterator[None]:
    """What can go wrong in operation ends in one clear line and an exit code, not in a stack trace."""
    from trading_ops.audit.store import StoreError
    from trading_ops.bot.client import BotError
    from trading_ops.market.candles import CandleError

    try:
        yield
    except (StoreError, BotError, CandleError) as error:
        fail(str(error), code=1)
    except expected as error:
        fail(str(error), code=code)


def fail(message: str, *, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)


def show(message: Any) -> None:
    from rich.console import Console

    Console(highlight=False).print(message)


def show_json(document: Any) -> None:
    typer.echo(json.dumps(document, indent=2, sort_keys=True, default=str))


def show_table(title: str, columns: list[str], rows: list[list[Any]], *, whole: str = "") -> None:
    """A table; cells of the column `whole`, such as ids, are never cut or broken."""
    from rich.table import Table

    from trading_ops.notifications.text import clean

    table = Table(title=title)
    for name in columns:
        table.add_column(name, no_wrap=name == whole, overflow="fold")
    for row in rows:
        cells = ["-" if v is None else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row]
        table.add_row(*(plain(clean(cell)) for cell in cells))
    show(table)


def minute(moment: str) -> str:
    """A moment as ISO tells it, to the minute."""
    return f"{datetime.fromisoformat(moment):%Y-%m-%d %H:%M}"


def show_entry(first: list[str], *more: str) -> None:
    """One of a list: its first line, and what is said of it below; nothing breaks in the middle of a key."""
    typer.echo("  ".join(line(part) for part in first))
    for text in more:
        typer.echo(f"    {line(text)}")


def line(text: str) -> str:
    """A text from outside as one line that no program obeys; only what nobody would read to its end is cut."""
    from trading_ops.notifications.text import fit, one_line

    return fit(one_line(text), 400)


def plain(text: str) -> str:
    """A text from outside that the terminal shows as it is."""
    from rich.markup import escape

    return escape(text)


def user() -> str:
    """Who is at this machine, as it knows them: not what a variable says."""
    import os
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's user need not have a name
        return f"uid {os.getuid()}"
