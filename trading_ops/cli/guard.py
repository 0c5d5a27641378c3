"""`trading-ops guard`: who watches the strategies when Dagster does not, and does it pay?"""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trading_ops.cli.lab import lab
from trading_ops.cli.parent import UntilStdinEnds, end_with_stdin
from trading_ops.cli.terminal import open_services, reported

if TYPE_CHECKING:
    from trading_ops.guard.switch import Seen

PATIENCE_S = 10.0  # for a look: while it hangs, stops are driven on and the heartbeat is written
FINISH_S = 5.0  # for what is being sent when it ends; the rest waits in the outbox

app = typer.Typer(help="The guard that stops a bleeding strategy.", no_args_is_help=True)
app.command()(lab)


@app.callback()
def guard() -> None:
    """The guard that stops a bleeding strategy."""


@app.command()
def watch(
    every: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds between two looks.")] = 0.5,
    heartbeat: Annotated[
        Path | None, typer.Option(help="A file that is written anew after each look, for whoever supervises this.")
    ] = None,
    looks: Annotated[int | None, typer.Option(min=1, help="Stop after so many looks; default: never.")] = None,
    drill: Annotated[bool, typer.Option("--drill", help="Mark every message as one of a fire drill.")] = False,
    until_stdin_ends: UntilStdinEnds = False,
) -> None:
    """Look at the bot again and again, and stop what crosses a limit: a process of its own, without Dagster.

    The sensor of Dagster takes the same steps; both together do nothing twice. SIGTERM ends it between two looks. The
    watchdog watches the heartbeat heartbeats/guard.json of the data folder, as `make ui` and compose have it written.
    """
    if until_stdin_ends:
        end_with_stdin()
    services = open_services()
    over = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: over.set())
    with reported():
        guard, teller = services.standing_guard, services.teller
    if drill:
        from trading_ops.drill.marking import as_drill

        guard.tell = as_drill(guard.tell)
    mode = "only observes" if guard.policy.observe_only else "stops what crosses a limit"
    typer.echo(f"The guard {mode}; looking at {services.bot_label} every {every:g} s. Ctrl-C ends it.")
    life, said, unwritten, done = Life(services.now()), "", "", 0
    while not over.is_set():
        seen = guard.step(PATIENCE_S)
        teller.tend()
        line = _line(seen, guard.memory.problem)
        life.goes_on(services.now(), seen)
        done += 1
        if heartbeat is not None and (why := _beat(life, heartbeat)) != unwritten:
            unwritten = why
            typer.echo(f"{why}; the guard goes on" if why else f"{heartbeat}: is written again", err=True)
        if line != said:
            said = line
            typer.echo(f"{life.at:%Y-%m-%d %H:%M:%S} {line}")
        if done == looks:
            break
        over.wait(every)
    teller.finish(FINISH_S)


@dataclass(slots=True)
class Life:
    """What the heartbeat tells of this process, from one look to the next. `seen_at`: when one read the bot last."""

    since: datetime
    at: datetime = field(init=False)
    seen_at: datetime | None = None
    problem: str | None = None
    stopped: dict[str, str] = field(default_factory=dict)

    def goes_on(self, now: datetime, seen: Seen) -> None:
        """After a step."""
        self.at, self.problem = now, seen.problem
        self.stopped = {action["strategy"]: action["state"] for action in seen.actions}
        self.seen_at = now if seen.risk is not None else self.seen_at


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


def _beat(life: Life, path: Path) -> str:
    """What keeps it from being written, which is no reason to stop watching; empty: nothing."""
    from trading_ops.files import FileNotWritten, write_whole
    from trading_ops.watchdog.heartbeat import GuardHeartbeat

    beat = GuardHeartbeat(**asdict(life), pid=os.getpid())
    try:
        write_whole(path, beat.model_dump_json(exclude={"open"}).encode())
    except FileNotWritten as error:
        return str(error)
    return ""
