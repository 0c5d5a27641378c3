"""`trading-ops strategies`: which strategies are there, and what can be set?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.terminal import Json, reported, show, show_json

if TYPE_CHECKING:
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
