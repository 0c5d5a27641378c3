"""`trading-ops strategies`: which strategies are there, which of them trade, and what can be set?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.terminal import Json, fail, line, open_services, plain, reported, show, show_json, show_table, user

if TYPE_CHECKING:
    from trading_ops.guard.actions import Action
    from trading_ops.strategies.signals import Strategy

STOP_MEANING = {
    "stop_loss_pct": "leave when the price is this many percent of the entry worse",
    "take_profit_pct": "leave when the price is this many percent of the entry better",
}

app = typer.Typer(help="The strategies.", no_args_is_help=True)


@app.callback()
def strategies() -> None:
    """The strategies."""


@app.command()
def describe(
    name: Annotated[str | None, typer.Argument(help="Such as rsi. Default: all.")] = None, as_json: Json = False
) -> None:
    """Show what each strategy does and its parameters: meaning, bounds, default."""
    from trading_ops.strategies.signals import STRATEGIES, InvalidParameters, check_names

    with reported(InvalidParameters, code=2):
        chosen = list(STRATEGIES.values()) if name is None else [check_names(name, ())]
    if as_json:
        show_json([_document(strategy) for strategy in chosen])
        return
    for strategy in chosen:
        _show(strategy)
    show("Set one with [bold]--set[/bold]: [bold]trading-ops backtest rsi --set period=10[/bold]")


Reason = Annotated[str, typer.Option(help="Why, for the audit trail.")]
Person = Annotated[str | None, typer.Option("--by", help="Who; default: the user of this machine.", show_default=False)]
Wait = Annotated[float, typer.Option("--wait", min=0, max=600, help="Seconds to wait for the confirmation.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """Show each strategy, whether it trades, and what is left to each of its limits."""
    from trading_ops.guard.by_hand import look, overview

    guard = open_services().guard
    with reported():
        rows = overview(guard, look(guard))
    if as_json:
        show_json(rows)
        return
    columns = ["strategy", "trades", "guard", "loss %", "left", "in a row", "left", "win %"]
    keys = ("daily_loss_pct", "left_pct", "consecutive_losses", "left", "recent_win_rate_pct")
    yes = {True: "yes", False: "no", None: None}
    show_table(
        "strategies", columns, [[r["strategy"], yes[r["enabled"]], r["guard"], *(r[key] for key in keys)] for r in rows]
    )
    for row in rows:
        if row["why"]:
            show(f"{plain(line(row['strategy']))}: {plain(line(row['why']))}\n  {plain(line(row['next']))}")


@app.command()
def disable(
    name: Annotated[str, typer.Argument(help="Such as rsi.")],
    reason: Reason,
    by: Person = None,
    wait_s: Wait = 30.0,
    as_json: Json = False,
) -> None:
    """Stop a strategy: no new entries, its open positions keep their exits. Exits 1 while that is not confirmed."""
    _disable([name], reason, by, wait_s, as_json)


@app.command()
def halt(
    *,
    everything: Annotated[bool, typer.Option("--all", help="Every strategy; without it nothing is done.")] = False,
    reason: Reason,
    by: Person = None,
    wait_s: Wait = 30.0,
    as_json: Json = False,
) -> None:
    """Stop every strategy at once, all of them side by side."""
    if not everything:
        fail("halt stops every strategy: say --all, or `trading-ops strategies disable NAME`", code=2)
    _disable(None, reason, by, wait_s, as_json)


@app.command()
def resume(
    name: Annotated[str, typer.Argument(help="Such as rsi.")],
    reason: Reason,
    by: Person = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Let a stopped strategy trade again, after showing what has changed; its losses count from now on."""
    from trading_ops.bot.client import UnknownStrategy
    from trading_ops.guard import by_hand

    _require(reason, name="--reason")
    guard = open_services().guard
    with reported(by_hand.NothingToResume, code=2):
        try:
            seen = by_hand.preflight(guard, name)
        except UnknownStrategy as error:
            fail(str(error), code=2)
        because = f", because {seen.stopped_because}" if seen.stopped_because else ""
        show(plain(line(f"{name} is {seen.state}{because}")))
        show_table("since then", ["", "then", "now"], [list(row) for row in seen.changed])
        for concern in seen.concerns:
            show(f"[yellow]{plain(line(concern))}[/yellow]")
        if not yes:
            typer.confirm(line(f"Let {name} trade again?"), abort=True)
        by_hand.resume(guard, name, reason=reason, by=by or user(), seen=seen)
    show(f"{plain(line(name))} trades again; its losses count from now on")


def _disable(names: list[str] | None, reason: str, by: str | None, wait_s: float, as_json: bool) -> None:
    from trading_ops.bot.client import UnknownStrategy
    from trading_ops.guard.actions import CONFIRMED
    from trading_ops.guard.by_hand import disable as stop

    _require(reason, name="--reason")
    guard = open_services().guard
    with reported():
        chosen = names or [state.name for state in guard.bot.strategies()]
        try:
            actions = stop(
                guard,
                chosen,
                reason=reason,
                by=by or user(),
                within_s=wait_s,
                on_end=lambda action: _show_end(action, quiet=as_json),
            )
        except UnknownStrategy as error:
            fail(str(error), code=2)
    if as_json:
        show_json(actions)
    if any(action["state"] != CONFIRMED for action in actions):
        raise typer.Exit(1)


def _show_end(action: Action, *, quiet: bool) -> None:
    """How one stop went; `quiet`: only where something is left to do."""
    from trading_ops.guard.actions import CONFIRMED, GONE, latencies
    from trading_ops.guard.telling import STOP_BY_HAND

    name = line(action["strategy"])
    if action["state"] == CONFIRMED:
        if not quiet:
            took, exits = latencies(action)["request_to_confirmed_s"] or 0.0, action["open_positions"]
            show(f"{plain(name)} is stopped, confirmed after {took:.1f} s; {exits} open positions keep their exits")
        return
    typer.echo(line(f"{name} is NOT confirmed to be stopped: {action['why'] or 'no answer yet'}"), err=True)
    if action["state"] != GONE:
        typer.echo(STOP_BY_HAND.format(name=name), err=True)


def _require(text: str, *, name: str) -> None:
    if not text.strip():
        fail(f"{name}: say why, for the audit trail", code=2)


def _document(strategy: Strategy) -> dict[str, Any]:
    from trading_ops.strategies.signals import STOPS

    own = {
        name: {
            "meaning": strategy.meaning[name],
            "default": default,
            "bounds": strategy.bounds[name],
            "whole": name in strategy.integers,
        }
        for name, default in strategy.defaults.items()
    }
    stops = {
        name: {"meaning": STOP_MEANING[name], "default": None, "bounds": STOPS[name], "whole": False} for name in STOPS
    }
    return {
        "name": strategy.name,
        "about": strategy.about,
        "ascending": strategy.ascending,
        "parameters": own | stops,
    }


def _show(strategy: Strategy) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column, justify in (("parameter", "left"), ("default", "right"), ("bounds", "left"), ("meaning", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for name, parameter in _document(strategy)["parameters"].items():
        low, high = parameter["bounds"]
        default = "off" if parameter["default"] is None else f"{parameter['default']:g}"
        bounds = f"{low:g} to {high:g}" + (", whole" if parameter["whole"] else "")
        table.add_row(name, default, bounds, escape(parameter["meaning"]))
    show(f"[bold]{strategy.name}[/bold]: {escape(strategy.about)}")
    show(table)
    if strategy.ascending:
        show("{} must be below {}.\n".format(*strategy.ascending))
