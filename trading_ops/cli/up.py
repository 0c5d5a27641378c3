"""`trading-ops up`: how do the UI, Dagster's daemon, the guard and the watchdog run together on one machine?"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from trading_ops.cli.terminal import open_services

PAUSE_S = 5.0  # before what ended is started again
SETTLED_S = 60.0  # a UI that ends before this cannot start: its port is taken, its code does not load
PATIENCE_S = 20.0  # for an orderly end
POLL_S = 0.2
SILENT_S = 30.0  # without a heartbeat: a process that froze is started again
STARTS_WITHIN_S = 120.0  # up to its first heartbeat, on a busy machine
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Child:
    """A process with everything that it starts, in a group of its own: one signal reaches all of it once.

    `heartbeat`: a file that it writes anew while it is well, None: it writes none.
    """

    name: str
    line: list[str]
    heartbeat: Path | None = None
    silent_s: float = SILENT_S
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    ended: float = 0.0
    _last: tuple[int | None, float] = (None, 0.0)  # when the heartbeat was written, and when that was noticed

    def start(self) -> None:
        self.process = subprocess.Popen(self.line, process_group=0)
        self.started = time.monotonic()
        self._last = self._written(), self.started + STARTS_WITHIN_S

    def froze(self) -> bool:
        """Whether its heartbeat has stopped, by a clock that nobody sets and that stands still while we do."""
        if self.heartbeat is None or self.process is None:
            return False
        if (written := self._written()) != self._last[0]:
            self._last = written, time.monotonic()
        return time.monotonic() - self._last[1] > self.silent_s

    def _written(self) -> int | None:
        with suppress(OSError):
            return self.heartbeat.stat().st_mtime_ns if self.heartbeat else None
        return None

    def exit_code(self) -> int | None:
        """How it ended by itself; None: it runs, or waits to be started again."""
        return self.process.poll() if self.process else None

    def end_at_once(self) -> None:
        """Kill it with all that it started."""
        if self.process:
            self.send(signal.SIGKILL)
            self.process.wait()

    def forget(self) -> None:
        """It has ended; what it may have left behind would fight with the next one."""
        self.send(signal.SIGKILL)
        self.process, self.ended = None, time.monotonic()

    def send(self, number: int) -> None:
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def lasted_s(self) -> float:
        return time.monotonic() - self.started if self.process else 0.0


def up(
    host: Annotated[str, typer.Option(help="Address of the UI; everybody who reaches it may do everything.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the UI.")] = 3000,
) -> None:
    """Run the Dagster UI with its schedules and sensors, and the guard and the watchdog beside it; Ctrl-C ends all.

    What ends by itself or freezes is started again, except a UI that cannot start.
    """
    beat = open_services().heartbeats.guard_file
    here = Path(sys.executable).parent
    dg, own = (shutil.which(name, path=str(here)) or name for name in ("dg", "trading-ops"))
    ui = Child("the UI", [dg, "dev", "--host", host, "--port", str(port)])
    guard = Child("the guard", [own, "guard", "watch", "--heartbeat", str(beat)], beat)
    watchdog = Child("the watchdog", [own, "watchdog", "--expect-guard"])
    run_together(ui, guard, watchdog)


def run_together(ui: Child, *others: Child, pause_s: float = PAUSE_S, settled_s: float = SETTLED_S) -> NoReturn:
    """Run all until a signal comes or the UI cannot start; raises typer.Exit once all have ended."""
    leaving = threading.Event()
    for number in ENDINGS:
        # handled here, so that the children do not inherit an ignored one; a note only: what a handler raises between
        # the start of a child and the line that keeps it would lose the child
        signal.signal(number, lambda *_: leaving.set())
    children, settled = [ui, *others], False
    try:
        for child in children:
            child.start()
        while not leaving.wait(POLL_S):
            settled = settled or ui.lasted_s() > settled_s  # what dies later was no mistake in its settings
            for child in children:
                if child.froze():
                    typer.echo(f"{child.name} has given no sign of life for {child.silent_s:g} s", err=True)
                    child.end_at_once()
                if (code := child.exit_code()) is not None:
                    child.forget()
                    if child is ui and not settled:
                        raise typer.Exit(code if code > 0 else 1)
                    typer.echo(f"{child.name} ended by itself (exit code {code}); it is started again", err=True)
                elif child.process is None and time.monotonic() - child.ended >= pause_s:
                    child.start()
        raise typer.Exit(0)
    finally:
        for number in ENDINGS:
            signal.signal(number, signal.SIG_IGN)
        _end(children)


def _end(children: list[Child]) -> None:
    """End all of them as Ctrl-C does, with patience, then for good."""
    for child in children:
        child.send(signal.SIGINT)
    until = time.monotonic() + PATIENCE_S
    for child in children:
        if child.process:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(until - time.monotonic(), 0))
            child.end_at_once()
