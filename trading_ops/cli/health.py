"""`trading-ops health`: is everything up that the bot and this platform live on?"""

from __future__ import annotations

import typer

from trading_ops.cli.terminal import Json, open_services, reported, show, show_json

COLOURS = {"healthy": "green", "degraded": "yellow", "unknown": "yellow", "not configured": "dim"}


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
        from rich.markup import escape
        from rich.table import Table

        table = Table("component", "status", *spans["engine"], "found")
        for verdict in verdicts:
            status = f"[{COLOURS.get(verdict.status, 'red')}]{verdict.status}[/]"
            table.add_row(verdict.label, status, *spans[verdict.component].values(), escape(verdict.found))
        show(table)
        show(f"overall: {document['overall']}")
    if document["overall"] == "critical":
        raise typer.Exit(1)
