"""`trading-ops audit`: is the audit trail as it was written?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.terminal import Json, fail, open_services, reported, show, show_json, show_table

if TYPE_CHECKING:
    from trading_ops.audit.copy import Progress
    from trading_ops.audit.store import AuditStore, Break, Head
    from trading_ops.services import Services

app = typer.Typer(help="The audit trail.", no_args_is_help=True)


@app.command()
def verify(
    heads: Annotated[
        list[str] | None,
        typer.Option("--head", help="A head noted down earlier, COLLECTION:SEQ:HASH; finds a cut or rewritten tail."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute every record's digest and chain; names the first broken record of each collection."""
    from trading_ops.audit.store import Head

    with reported(ValueError, code=2):
        expected = [_head(text, Head) for text in heads or []]
    with reported():
        store = open_services().store
        broken = store.verify(expected=expected)
        intact, why = _readable_heads(store, broken)
    if as_json:
        show_json({
            "broken": [{"collection": b.collection, "seq": b.seq, "reason": b.reason} for b in broken],
            "heads": [f"{h.collection}:{h.seq}:{h.hash}" for h in intact],
        })  # fmt: skip
    else:
        faults = {b.collection: b for b in broken}
        rows = [[h.collection, h.seq, h.hash[:16], "ok" if h.collection not in faults else "broken"] for h in intact]
        show_table("audit trail", ["collection", "records", "head", "chain"], rows)
        for b in broken:
            show(f"[red]{b.collection} is broken at record {b.seq}: {b.reason}[/red]")
    if why:
        fail(f"the heads cannot be read: {why}", code=1)
    if broken:
        raise typer.Exit(1)


def _readable_heads(store: AuditStore, broken: Sequence[Break]) -> tuple[list[Head], str | None]:
    """The heads; where a break was found it is worth telling even if they cannot be read."""
    from trading_ops.audit.store import StoreError

    try:
        return store.heads(), None
    except StoreError as error:
        if not broken:
            raise
        return [], str(error)


@app.command()
def heads() -> None:
    """Print each collection's head, to be kept elsewhere and given to `audit verify --head`."""
    with reported():
        for head in open_services().store.heads():
            typer.echo(f"{head.collection}:{head.seq}:{head.hash}")


@app.command()
def copy(
    to: Annotated[
        str | None,
        typer.Option(help="Address of the destination, without a password; default: TRADING_OPS_COPY_TO."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Copy the whole audit trail to another store, hashes and all; stop the writers first, repeat to continue."""
    from trading_ops.audit.copy import copy_store
    from trading_ops.audit.store import open_store

    services = open_services()
    address = _destination(services, to)
    try:
        with reported():
            destination = open_store(address)
    except ValueError as error:
        # Its message shows the address, and what is no address may hold a password anywhere.
        fail("the address to copy to is no audit store's; give sqlite:///relative.db, sqlite:////absolute/path.db or"
             " mongodb://host/database" if "@" in address else str(error), code=2)  # fmt: skip
    with reported(), destination:
        _require_nothing_waits(services)
        with _progress() as progress:
            copied = copy_store(services.store, destination, progress=progress)
    same = all(one.same for one in copied)
    if as_json:
        show_json({"copied": [asdict(one) for one in copied], "same": same})
    else:
        rows = [
            [c.collection, c.kind, c.records, c.copied, c.head and c.head.hash[:16], "yes" if c.same else "no"]
            for c in copied
        ]
        show_table("copied", ["collection", "kind", "records", "copied now", "head", "same"], rows)
        for one in copied:
            if one.refused:
                show(f"[red]{one.collection}: newer in the destination, left as it is: {', '.join(one.refused)}[/red]")
    if not same:
        fail("The copy is not the same yet: stop what writes to either store, then copy again.", code=1)
    if not as_json:
        show(_how_to_switch(address))


def _destination(services: Services, to: str | None) -> str:
    """The address to copy to; a password on the command line, which everybody can read, ends with advice."""
    if to is None:
        if services.settings.copy_to is None:
            fail("nowhere to copy to: give --to sqlite:///copy.db, or set TRADING_OPS_COPY_TO", code=2)
        return services.settings.copy_to.get_secret_value()
    # Whatever stands between a colon and an @ may be one, even where slashes or the scheme are mistyped.
    named = re.sub(r"^(mongodb(\+srv)?|sqlite):/*", "", to).rpartition("@")[0]
    if ":" in named or re.search(r"password|token", to.partition("?")[2], re.IGNORECASE):
        fail("--to holds a password, which shows in the list of processes and the shell's history; set the address as"
             " TRADING_OPS_COPY_TO in the environment or .env and leave --to out", code=2)  # fmt: skip
    return to


def _require_nothing_waits(services: Services) -> None:
    """What waits on this machine is not in the store to copy from; after the switch nobody would look for it."""
    spooled = services.spooled_store
    if spooled is None:
        return
    spooled.ship()
    if (backlog := spooled.backlog()).waiting:
        why = backlog.shared_error or "they are being shipped"
        fail(f"{backlog.waiting} entries still wait in {backlog.path} for the store to copy from ({why});"
             " copy when they have arrived", code=1)  # fmt: skip
    if alerts := services.outbox.carry_over():
        fail(f"{alerts} alerts in {services.settings.data_dir / 'outbox.db'} are not in the store to copy from yet,"
             " for somebody tells them just now; copy again in a minute", code=1)  # fmt: skip
    if backlog.refused:
        typer.echo(f"{backlog.refused} entries that the store did not take ({backlog.refusal}) are only in"
                   f" {backlog.path} and are not copied: keep that file", err=True)  # fmt: skip


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal's standard error, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("copying records", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _how_to_switch(address: str) -> str:
    if address.startswith("mongodb"):
        return "To switch over, set MONGODB_URI to that address, clear TRADING_OPS_STORE and restart what runs."
    return f"To switch over, set TRADING_OPS_STORE={address}, clear MONGODB_URI and restart what runs."


def _head(text: str, head: Any) -> Any:
    name, seq, digest = ["", "", *text.rsplit(":", 2)][-3:]
    if not name or not re.fullmatch("0*[1-9][0-9]*", seq, re.ASCII) or not re.fullmatch("[0-9a-fA-F]{64}", digest):
        raise ValueError(
            f"--head {text!r}: COLLECTION:SEQ:HASH is needed, SEQ from 1 and HASH of 64 hex digits, as"
            " `trading-ops audit heads` prints it"
        )
    return head(name, int(seq), digest.lower())
