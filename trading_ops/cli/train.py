"""`trading-ops models train`: a model from a symbol's past."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from trading_ops.cli.terminal import Json, open_services, reported, show, show_json, show_table

if TYPE_CHECKING:
    from trading_ops.training.trainer import Progress


def train(
    model_type: Annotated[str, typer.Argument(help="lstm, gru or transformer.")] = "lstm",
    symbol: Annotated[str, typer.Argument(help="One, or several with commas. Default: the first of the symbols.")] = "",
    days: Annotated[int, typer.Option(help="Days before the hold-out that it learns from, 7-1460.")] = 365,
    epochs: Annotated[int, typer.Option(help="Passes at most, 1-1000; it stops early by itself.")] = 30,
    batch_size: Annotated[int, typer.Option(help="Windows of a step, a power of two.")] = 256,
    learning_rate: Annotated[float, typer.Option(help="Step size of the optimiser.")] = 0.001,
    validation_split: Annotated[float, typer.Option(help="Newest share of the days that stops it.")] = 0.2,
    horizon: Annotated[int, typer.Option(help="Hours ahead whose direction is learnt.")] = 1,
    holdout_days: Annotated[int, typer.Option(help="Newest days kept back to judge it by.")] = 30,
    end: Annotated[str | None, typer.Option(help="UTC day at whose 00:00 the candles end.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights and order: the same seed, the same model.")] = 1,
    as_json: Json = False,
) -> None:
    """Train a model on hourly candles and measure it on days it never saw. It becomes a candidate."""
    from trading_ops.training.figures import figure_rows, verdict
    from trading_ops.training.preparation import prepare
    from trading_ops.training.request import InvalidRequest, TrainingRequest
    from trading_ops.training.train import train as train_one
    from trading_ops.training.trainer import TrainingFailed

    services = open_services()
    with reported(InvalidRequest, code=2):
        request = TrainingRequest.parse(
            {
                "model_type": model_type, "symbol": symbol, "days_of_data": days, "epochs": epochs,
                "batch_size": batch_size, "learning_rate": learning_rate, "validation_split": validation_split,
                "horizon_hours": horizon, "holdout_days": holdout_days, "end": end, "seed": seed,
            }
        )  # fmt: skip
    cards = []
    for name in request.symbols or services.settings.symbols[:1]:
        with reported(InvalidRequest, code=2):
            prepared = prepare(request, name, services.candles_among([name]))
        with reported(TrainingFailed), _bar(prepared.name, shown=not as_json) as told:
            cards.append(train_one(prepared, services.workshop, progress=told).card)
    if as_json:
        show_json({"models": [card.model_dump(mode="json") for card in cards]})
        return
    for card in cards:
        rows = figure_rows(card)
        show_table(card.model_id, list(rows[0])[1:] if rows else [], [list(row.values())[1:] for row in rows])
        show(verdict(card))
    show("Candidates do not predict: trading-ops models promote MODEL --reason ..., or the job adaptive_retrain")


@contextmanager
def _bar(name: str, *, shown: bool) -> Iterator[Callable[[Progress], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    from trading_ops.training.figures import said_of

    columns = (TextColumn("{task.description}"), BarColumn())
    with Bar(*columns, TimeRemainingColumn(), console=console, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task(name, total=1.0)
        yield lambda progress: bar.update(task, completed=progress.share, description=f"{name} {said_of(progress)}")
