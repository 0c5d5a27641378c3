"""`trading-ops models`: which models are there, how good are they, and which of them predict?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from trading_ops.cli.terminal import Json, line, open_services, plain, reported, show, show_json, show_table, user
from trading_ops.cli.train import train

if TYPE_CHECKING:
    from trading_ops.training.registry import Registered

app = typer.Typer(help="The models that predict prices: train, compare, promote, roll back.", no_args_is_help=True)
app.command()(train)

Reason = Annotated[str, typer.Option(help="Why, for the audit trail.")]
Person = Annotated[str | None, typer.Option("--by", help="Who; default: the user of this machine.", show_default=False)]


@app.callback()
def models() -> None:
    """The models that predict prices: train, compare, promote, roll back."""


@app.command("list")
def list_(
    model_type: Annotated[str | None, typer.Option("--type", help="lstm, gru or transformer.")] = None,
    symbol: Annotated[str | None, typer.Option(help="Such as BTCUSDT.")] = None,
    as_json: Json = False,
) -> None:
    """Show every model, its state and how it did on the days it never saw."""
    from trading_ops.training.model_files import RegistryError

    with reported(RegistryError):
        entries = open_services().registry.entries(model_type, symbol.upper() if symbol else None)
    if as_json:
        show_json([_document(entry) for entry in entries])
        return
    if not entries:
        show("no model yet: trading-ops models train lstm BTCUSDT")
        return
    rows = [[e.card.model_id, e.state if e.files else f"{e.state}, no files", *_figures(e)] for e in entries]
    show_table("models", ["model", "state", "acc %", "Brier", "skill %"], rows, whole="model")
    show("One of them: trading-ops models show MODEL")


@app.command("show")
def show_(
    model_id: Annotated[str, typer.Argument(help="As trading-ops models list shows it.")], as_json: Json = False
) -> None:
    """Show all that is known of a model: what it learnt from, its scores beside the baselines, who promoted it."""
    from trading_ops.training.figures import figure_rows, verdict
    from trading_ops.training.model_files import RegistryError, UnknownModel

    registry = open_services().registry
    with reported(RegistryError), reported(UnknownModel, code=2):
        card = registry.card(model_id)
        (entry,) = [e for e in registry.entries(card.model_type, card.symbol) if e.card.model_id == model_id]
    if as_json:
        show_json(_document(entry))
        return
    said = f" by {entry.by}: {entry.why}" if entry.by else ""
    facts = {
        "state": f"{entry.state} since {entry.since:%Y-%m-%d %H:%M} UTC{said}",
        "learnt from": f"{card.trained_from:%Y-%m-%d} to {card.trained_until:%Y-%m-%d}, {card.candles} candles",
        "judged on": f"the days after, to {card.candles_until:%Y-%m-%d} 00:00 UTC",
        "rises there": f"{100 * card.base_rate:.1f} %",
        "parameters": ", ".join(f"{key} {value}" for key, value in card.parameters.items()),
        "seed": card.seed,
        "cost": f"{card.cost_cpu_s:.0f} CPU-seconds",
        "challenged": card.parent or "nobody",
    }
    for name, value in facts.items():
        show(f"[bold]{name}[/bold]  {plain(line(str(value)))}")
    rows = figure_rows(card)
    if rows:
        show_table("on days it never saw", list(rows[0])[1:], [list(row.values())[1:] for row in rows])
    show(verdict(card))


@app.command()
def promote(
    model_id: Annotated[str, typer.Argument(help="As trading-ops models list shows it.")],
    reason: Reason,
    by: Person = None,
    as_json: Json = False,
) -> None:
    """Make a model the champion of its type and symbol, whatever the tests say: that is your decision, and recorded."""
    from trading_ops.training.champions import PromotionLost
    from trading_ops.training.model_files import RegistryError, UnknownModel

    registry = open_services().registry
    with reported(RegistryError, PromotionLost), reported(UnknownModel, code=2):
        before = registry.champion_id(registry.card(model_id).name)
        card = registry.promote(model_id, by=by or user(), why=reason, expected=before)
    replaced = before if before != model_id else None
    if as_json:
        show_json({"champion": card.model_id, "name": card.name, "replaced": replaced})
        return
    show(f"{card.model_id} is the champion of {card.name}" + (f", in place of {replaced}" if replaced else ""))


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="Type and symbol, such as lstm/BTCUSDT.")],
    reason: Reason,
    leaving: Annotated[
        str | None, typer.Option("--from", help="The champion to leave, so that a repeat goes no further back.")
    ] = None,
    by: Person = None,
    as_json: Json = False,
) -> None:
    """Go back to the champion before; once more goes one further back."""
    from trading_ops.training.champions import ANY, NothingBefore
    from trading_ops.training.model_files import RegistryError

    registry = open_services().registry
    with reported(RegistryError), reported(NothingBefore, code=2):
        left = registry.champion_id(name)
        card = registry.rollback(name, by=by or user(), why=reason, expected=leaving or ANY)
    if as_json:
        show_json({"champion": card.model_id, "name": card.name, "replaced": left})
        return
    show(f"{card.model_id} is the champion of {card.name} again, in place of {left}")


def _figures(entry: Registered) -> list[float | None]:
    scores = entry.card.metrics.get("model") or {}
    skill = scores.get("skill")
    accuracy = scores.get("accuracy")
    return [
        None if accuracy is None else round(100 * accuracy, 1),
        scores.get("brier"),
        None if skill is None else round(100 * skill, 2),
    ]


def _document(entry: Registered) -> dict[str, object]:
    return {
        "state": entry.state,
        "since": entry.since.isoformat(),
        "by": entry.by,
        "why": entry.why,
        "files": entry.files,
        **entry.card.model_dump(mode="json"),
    }
