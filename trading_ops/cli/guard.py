"""`trading-ops guard`: who watches the strategies when Dagster does not, and does it pay?"""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.lab import lab
from trading_ops.cli.terminal import fail, open_services, reported

if TYPE_CHECKING:
    from trading_ops.guard.switch import Seen
    from trading_ops.services import Services

app = typer.Typer(help="The guard that stops a bleeding strategy.", no_args_is_help=True)
app.command()(lab)


@app.callback()
def guard() -> None:
    """The guard that stops a bleeding strategy."""


@app.command()
def watch(
    every: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds between two looks.")] = 1.0,
    heartbeat: Annotated[
        Path | None, typer.Option(help="A file that is written anew after each look, for whoever supervises this.")
    ] = None,
    looks: Annotated[int | None, typer.Option(min=1, help="Stop after so many looks; default: never.")] = None,
) -> None:
    """Look at the bot again and again, and stop what crosses a limit: a process of its own, without Dagster.

    The sensor of Dagster takes the same steps; both together do nothing twice. SIGTERM ends it between two looks.
    """
    services = open_services()
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with reported():
        guard = services.guard
    mode = "only observes" if guard.policy.observe_only else "stops what crosses a limit"
    typer.echo(f"The guard {mode}; looking at {services.bot_label} every {every:g} s. Ctrl-C ends it.")
    said = ""
    done = 0
    while not over.is_set():
        seen = guard.step()
        done += 1
        if heartbeat is not None:
            _beat(services, seen, heartbeat)
        if (line := _line(seen, guard.memory.problem)) != said:
            said = line
            typer.echo(f"{services.now():%Y-%m-%d %H:%M:%S} {line}")
        if done == looks:
            break
        over.wait(every)


def _line(seen: Seen, store_problem: str | None) -> str:
    """What there is to say, the same while nothing changes."""
    parts = [f"{action['strategy']} {action['state']}: {action['trigger']['why']}" for action in seen.actions]
    if seen.risk is not None:
        risks = seen.risk["strategies"].items()
        parts += [f"{name} {', '.join(risk['warnings'])}" for name, risk in risks if risk["warnings"]]
        parts = parts or ["every strategy is within its limits"]
    parts += [f"the bot: {seen.problem}"] if seen.problem else []
    parts += [f"the audit store: {store_problem}"] if store_problem else []
    return "; ".join(parts)


def _beat(services: Services, seen: Seen, path: Path) -> None:
    from trading_ops.files import FileNotWritten, write_whole

    beat: dict[str, Any] = {
        "at": services.now().isoformat(),
        "pid": os.getpid(),
        "problem": seen.problem,
        "stopped": {action["strategy"]: action["state"] for action in seen.actions},
    }
    try:
        write_whole(path, json.dumps(beat).encode())
    except FileNotWritten as error:
        fail(str(error), code=2)
