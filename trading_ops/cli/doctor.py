"""`trading-ops doctor`: is everything in order, and if not, what has to be done?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

import typer

from trading_ops.cli.terminal import Json, open_services, show, show_json

if TYPE_CHECKING:
    from trading_ops.doctor.diagnosis import Diagnosis

MARKS = {"ok": "[green]ok     [/green]", "warning": "[yellow]warning[/yellow]", "failed": "[red]failed [/red]"}


def doctor(as_json: Json = False) -> None:
    """Look at configuration, connections, clocks, permissions, disk and versions; exits 1 when something failed."""
    from rich.markup import escape

    from trading_ops.doctor.diagnosis import ends_well
    from trading_ops.doctor.examine import examine

    services = open_services()
    found = []
    try:
        for diagnosis in chain(examine(services), _dagster()):
            found.append(diagnosis)
            if not as_json:
                show(f"{MARKS[diagnosis.state]} {diagnosis.subject}: {escape(diagnosis.found)}")
                if diagnosis.what_to_do:
                    show(f"        {escape(diagnosis.what_to_do)}")
    finally:  # a program reads this, also what was found before something nobody thought of
        if as_json:
            show_json([asdict(diagnosis) for diagnosis in found])
    if not ends_well(found):
        raise typer.Exit(1)


def _dagster() -> Iterator[Diagnosis]:
    # imported when its turn comes: the other lines need not wait for Dagster
    from trading_ops.defs.instance import examine_instance

    yield from examine_instance()
