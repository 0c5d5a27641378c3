"""`trading-ops watchdog`: do Dagster's daemon and the guard's watcher still run, and who hears of it if not?"""

from __future__ import annotations

import logging
import signal
import sys
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.terminal import Json, fail, open_services, show, show_json, show_table

if TYPE_CHECKING:
    from trading_ops.services import Services
    from trading_ops.watchdog.rules import Finding
    from trading_ops.watchdog.watch import Look

NEVER = "Dagster's daemon never ran here"


def watchdog(
    once: Annotated[bool, typer.Option("--once", help="Look once and show it; nobody is told.")] = False,
    interval: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=120, help="Seconds between two looks.", show_default="TRADING_OPS_WATCHDOG_INTERVAL_S"
        ),
    ] = None,
    expect_guard: Annotated[
        bool, typer.Option("--expect-guard", help="Miss the guard's watcher also where it never looked.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Tell people when Dagster's daemon, a schedule, a sensor or the guard's watcher stops, and when it goes on.

    A process beside Dagster, which needs neither its database nor the audit store. With --once it shows what the
    last heartbeats say, and exits 1 when something has stopped.
    """
    if as_json and not once:
        fail("--json needs --once", code=2)
    services = open_services()
    if once:
        _look_once(services, expect_guard, as_json)
    else:
        _keep_looking(services, interval or services.settings.watchdog_interval_s, expect_guard)


def _look_once(services: Services, expect_guard: bool, as_json: bool) -> None:
    from trading_ops.watchdog.watch import look

    stale_s, now = services.settings.watchdog_stale_s, services.now()
    since = now - timedelta(seconds=2 * stale_s)
    guard_since = since if expect_guard else None
    found = look(services.heartbeats, now, watching_since=since, stale_s=stale_s, guard_since=guard_since)
    never = found.heartbeat is None and not services.heartbeats.daemon_file.exists()
    if never:
        found.findings[0] = replace(found.findings[0], what=NEVER)
    if as_json:
        show_json(_document(found))
    elif never:
        from trading_ops.doctor.life import START

        show(f"{NEVER}. There is no heartbeat.\n  {START}")
        _show_findings(found.findings[1:])
    else:
        _show(found)
    if found.findings:
        raise typer.Exit(1)


def _keep_looking(services: Services, interval_s: float, expect_guard: bool) -> None:
    from filelock import FileLock, Timeout

    from trading_ops.files import FileNotWritten
    from trading_ops.watchdog.ping import Ping
    from trading_ops.watchdog.watch import Watchdog

    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S", level=logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))  # it may be ignored, as in a script's background
    heartbeats, stale_s = services.heartbeats, services.settings.watchdog_stale_s
    try:
        heartbeats.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(heartbeats.folder / "watchdog.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            typer.echo("another watchdog watches; this one waits to take its place")
            lock.acquire()
    except OSError as error:
        fail(str(FileNotWritten(f"{heartbeats.folder}: {error.strerror or error}")), code=1)
    typer.echo(f"watching {heartbeats.folder} every {interval_s:g} s; told is what is {stale_s:g} s late")
    url = services.settings.watchdog_ping_url
    ping = Ping(url.get_secret_value()) if url else None
    dog = Watchdog(
        heartbeats, services.incidents, services.outbox, services.now, stale_s=stale_s, ping=ping,
        expect_guard=expect_guard,
    )  # fmt: skip
    while True:
        dog.look()
        time.sleep(interval_s)


def _document(found: Look) -> dict[str, Any]:
    from dataclasses import asdict

    from trading_ops.watchdog.rules import GUARD

    heartbeat = found.heartbeat.model_dump(mode="json", exclude={"open"}) if found.heartbeat else None
    findings = [asdict(finding) for finding in found.findings]
    if heartbeat is None:  # since when is then not known: a look counts from a while before itself
        findings[0]["since"] = None
    if found.guard is None:
        findings = [{**finding, "since": None} if finding["name"] == GUARD else finding for finding in findings]
    guard = found.guard.model_dump(mode="json", exclude={"open"}) if found.guard else None
    return {"well": not findings, "findings": findings, "heartbeat": heartbeat, "guard": guard}


def _show(found: Look) -> None:
    if found.heartbeat is not None:
        wrong = {finding.name for finding in found.findings}
        rows = [
            [
                ticker.name,
                ticker.kind,
                ticker.last and f"{ticker.last:%m-%d %H:%M:%S}",
                ticker.due and f"{ticker.due:%m-%d %H:%M:%S}" if ticker.running else None,
                "stopped" if not ticker.running else "late" if f"{ticker.kind}/{ticker.name}" in wrong else "ok",
            ]
            for ticker in found.heartbeat.tickers
        ]
        title = f"heartbeat of {found.heartbeat.at:%Y-%m-%d %H:%M:%S} UTC"
        show_table(title, ["name", "kind", "last tick", "due", "state"], rows)
    if found.guard is not None:
        show(f"the guard's watcher looked at {found.guard.at:%Y-%m-%d %H:%M:%S} UTC")
    _show_findings(found.findings)
    if not found.findings:
        show("everything ticks")


def _show_findings(findings: list[Finding]) -> None:
    from rich.markup import escape

    for finding in findings:
        show(f"[red]{finding.severity}[/red] {escape(finding.what)}: {escape(finding.why)}")
        show(f"  {escape(finding.what_to_do)}")
