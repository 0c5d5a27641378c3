"""`trading-ops audit`: is the audit trail as it was written?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from trading_ops.cli.terminal import Json, open_services, reported, show, show_json, show_table

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
        intact = store.heads()
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
    if broken:
        raise typer.Exit(1)


@app.command()
def heads() -> None:
    """Print each collection's head, to be kept elsewhere and given to `audit verify --head`."""
    with reported():
        for head in open_services().store.heads():
            typer.echo(f"{head.collection}:{head.seq}:{head.hash}")


def _head(text: str, head: Any) -> Any:
    parts = text.split(":")
    if len(parts) != 3 or not parts[1].isdigit():
        raise ValueError(f"--head {text!r}: COLLECTION:SEQ:HASH is needed, as `trading-ops audit heads` prints it")
    return head(parts[0], int(parts[1]), parts[2])
