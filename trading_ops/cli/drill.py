"""`trading-ops drill`: would a strategy that bleeds be stopped here, and who would hear of it?"""

from __future__ import annotations

import signal
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.terminal import Json, fail, open_services, plain, reported, show, show_json

if TYPE_CHECKING:
    from trading_ops.drill.emergency import Outcome
    from trading_ops.services import Services

app = typer.Typer(help="Fire drills that anyone can run.", no_args_is_help=True)


@app.callback()
def drill() -> None:
    """Fire drills that anyone can run."""


@app.command()
def emergency(
    strategy: Annotated[str, typer.Option(help="The paper bot's strategy that is to bleed.")] = "rsi",
    losses: Annotated[
        int | None, typer.Option(min=1, help="So many losses in a row; default: one more than the limit.")
    ] = None,
    loss_pct: Annotated[float | None, typer.Option(help="Or one loss of so many percent of its equity.")] = None,
    tell: Annotated[bool, typer.Option("--tell", help="Really tell, on the channels that are configured.")] = False,
    within: Annotated[float, typer.Option(min=1, max=600, help="Seconds that it may take.")] = 60.0,
    as_json: Json = False,
) -> None:
    """Let a paper bot of its own lose, and see the guard stop it: the time line from the loss to the delivered alert.

    Real processes over HTTP, in a folder of their own with your limits; your bot, your strategies and your audit trail
    are not touched. Exits 0 only where the stop was confirmed and the alert delivered. With --tell every message is
    marked as a drill, and so is its end.
    """
    from trading_ops.bot.client import UnknownStrategy
    from trading_ops.drill.emergency import DrillFailed, Emergency, plan

    services = open_services()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(1))  # by way of what ends the drill's processes
    with reported(ValueError, code=2):
        planned = plan(strategy, services.guard_policy.limits_of(strategy), losses, loss_pct)
    with reported(DrillFailed):
        say = (lambda _: None) if as_json else show
        try:
            outcome = Emergency(services.settings, planned, tell, within, say).hold()
        except UnknownStrategy as error:
            fail(str(error), code=2)
    if as_json:
        show_json(_document(outcome))
    else:
        _show(outcome, services, tell=tell)
    if outcome.missing:
        raise typer.Exit(1)


def _document(outcome: Outcome) -> dict[str, Any]:
    return {
        "well": not outcome.missing,
        "missing": outcome.missing,
        "seconds": outcome.times.seconds(),
        "channels": dict(outcome.channels),
        "why": outcome.action["trigger"]["why"] if outcome.action and "trigger" in outcome.action else None,
    }


def _show(outcome: Outcome, services: Services, *, tell: bool) -> None:
    from rich.table import Table

    from trading_ops.drill.timeline import PHASES

    table = Table("s", "after s", "what happened", title=f"fire drill: {outcome.plan.sentence()}")
    seconds, took = outcome.times.seconds(), outcome.times.took()
    for phase, at in seconds.items():
        after = took.get(phase)
        table.add_row(
            "[red]never[/red]" if at is None else f"{at:.3f}", "" if after is None else f"{after:.3f}", PHASES[phase]
        )
    show(table)
    if outcome.action and "trigger" in outcome.action:
        show(plain(outcome.action["trigger"]["why"]))
    show(f"told: {plain('; '.join(f'{name}: {state}' for name, state in outcome.channels.items()) or 'nobody')}")
    if not tell:
        chosen = services.settings.active_channels or ("console",)
        escalates = timedelta(minutes=services.settings.notification_escalate_minutes)
        real = services.settings.routes.described(chosen, escalates)
        show(f"A real one goes to: {plain(real)}. --tell tries that, marked as a drill.")
    if services.guard_policy.observe_only:
        show("[yellow]TRADING_OPS_GUARD_MODE=observe_only[/yellow]: a real one would be told, and nothing stopped.")
    for text in outcome.missing:
        show(f"[red]{plain(text)}[/red]")
    if not outcome.missing:
        show("[green]The stop was confirmed and the alert delivered.[/green]")
