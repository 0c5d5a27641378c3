"""`trading-ops health`: is everything up that the bot and this platform live on?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from trading_ops.cli.terminal import Json, open_services, reported, show, show_json

if TYPE_CHECKING:
    from trading_ops.health.rules import Verdict

COLOURS = {"healthy": "green", "degraded": "yellow", "unknown": "yellow"}


def health(as_json: Json = False) -> None:
    """Look at every component now, with its uptime; records and tells nothing. Exits 1 when something is critical."""
    from trading_ops.health.checking import past_of
    from trading_ops.health.components import check_components
    from trading_ops.health.history import document_of
    from trading_ops.health.summary import uptimes

    services = open_services()
    at = services.now()
    with reported(ValueError, code=2):
        verdicts = check_components(services)
    document, past = document_of(verdicts, at), past_of(services, at)
    spans = {name: uptimes(past, name, at) for name in document["components"]}
    if as_json:
        show_json({**document, "uptime": spans})
    else:
        _show(verdicts, spans)
        show(f"overall: {document['overall']}")
    if document["overall"] == "critical":
        raise typer.Exit(1)


def _show(verdicts: Sequence[Verdict], spans: Mapping[str, Mapping[str, str]]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    up = [f"up {name}" for name in next(iter(spans.values()))]
    table = Table("component", "status", *up, "found", box=box.SIMPLE, padding=(0, 1, 0, 0))
    unused = [verdict for verdict in verdicts if verdict.status == "not configured"]
    for verdict in verdicts:
        if verdict not in unused:
            # of how many checks: --json
            figures = [text.partition(" %")[0] for text in spans[verdict.component].values()]
            status = f"[{COLOURS.get(verdict.status, 'red')}]{verdict.status}[/]"
            table.add_row(verdict.label, status, *figures, escape(verdict.found))
    show(table)
    if unused:
        show(f"not configured: {', '.join(f'{v.label} ({v.found})' for v in unused)}")
