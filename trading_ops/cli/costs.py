"""`trading-ops costs`: what do the LLM calls cost, where is the month heading, and may another call start?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.terminal import (
    Json,
    fail,
    minute,
    open_services,
    plain,
    reported,
    show,
    show_json,
    show_table,
    user,
)

if TYPE_CHECKING:
    from trading_ops.audit.store import Record
    from trading_ops.costs.standing import Period, Standing

app = typer.Typer(help="What the LLM calls cost, and what they may.", invoke_without_command=True)
By = Annotated[str | None, typer.Option(help="Who says so; default: the user's name.", show_default=False)]


@app.callback()
def costs(
    context: typer.Context,
    calls: Annotated[int, typer.Option(min=0, help="How many of the last calls to list.")] = 10,
    as_json: Json = False,
) -> None:
    """Show today, the month and its projection beside their limits, calls in the last hour, and the last calls."""
    if context.invoked_subcommand:
        return
    from trading_ops.costs.report import month_start, projection
    from trading_ops.costs.usage import COLLECTION

    services = open_services()
    with reported():
        standing = services.ledger.standing()
        today = services.now().astimezone(UTC).date()
        first = min(month_start(str(today)), today - timedelta(days=7))
        records = services.store.read(COLLECTION, first=str(first))
    projected = projection(standing.month.own_usd, today)
    newest = sorted(records, key=lambda r: (r.partition, r.body.get("reserved_at", ""), r.seq), reverse=True)[:calls]
    if as_json:
        document = standing.to_document()
        show_json({**document, "month_projected_usd": projected, "calls": [_call(record) for record in newest]})
        return
    _table(standing, projected)
    if newest:
        _list(newest)
    else:
        show("no LLM call in this month")


def _table(standing: Standing, projected: float) -> None:
    def row(name: str, period: Period) -> list[Any]:
        amounts = (period.own_usd, period.bot_usd, period.spent_usd, period.limit_usd, period.left_usd)
        return [name, *(f"{amount:.4f}" for amount in amounts)]

    rows = [row("today", standing.day), row("this month", standing.month)]
    rows.append(["month, projected", f"{projected:.4f}", None, None, f"{standing.month.limit_usd:.4f}", None])
    title = f"LLM costs in USD, {minute(standing.at)} UTC"
    show_table(title, ["", "own calls", "the bot's", "spent", "limit", "left"], rows)
    most = "any number" if standing.calls_an_hour is None else str(standing.calls_an_hour)
    show(f"{standing.calls_last_hour} calls started in the last 60 minutes, {most} may")
    if standing.refusals_today:
        said = ", ".join(f"{count} ({kind})" for kind, count in sorted(standing.refusals_today.items()))
        show(f"refused today: {said}")
    for word in standing.overrides:
        show(plain(f"{word.by} allowed up to ${word.up_to_usd:.2f} this {word.period} until {minute(word.until)} UTC:"
                   f" {word.reason}"))  # fmt: skip
    left = min(standing.day.left_usd, standing.month.left_usd)
    may = f"an LLM call that costs ${left:.4f} at most may start"
    show(may if standing.llm_allowed else plain(f"no LLM call starts: {standing.why}"))


def _call(record: Record) -> dict[str, Any]:
    """A row without what was said in it."""
    return {"call": record.key, "day": record.partition, **{k: v for k, v in record.body.items() if k != "detail"}}


def _list(records: Sequence[Record]) -> None:
    rows = []
    for body in (record.body for record in records):
        tokens = body.get("tokens") or {}
        sent, told = (
            sum(tokens.get(n, 0) for n in names) for names in (("input", "cached_input"), ("output", "reasoning"))
        )
        at = body.get("reserved_at")
        rows.append([
            minute(at) if at else None, body.get("purpose"), body["model"], body.get("outcome"), f"{sent}/{told}",
            f"{body['cost_usd']:.6f}", body.get("latency_s"),
        ])  # fmt: skip
    show_table("last calls", ["at (UTC)", "purpose", "model", "outcome", "in/out", "USD", "s"], rows)


@app.command()
def allow(
    *,
    day: Annotated[bool, typer.Option("--day", help="The UTC day that is running.")] = False,
    month: Annotated[bool, typer.Option("--month", help="The UTC month that is running.")] = False,
    up_to: Annotated[float, typer.Option(help="USD that all calls of the period may cost, the bot's among them.")],
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")],
    by: By = None,
    as_json: Json = False,
) -> None:
    """Lift the stop of one period, up to a new limit that ends with it; it is recorded who did so and why."""
    from trading_ops.costs.overrides import allow as record_word

    if day == month:
        fail("give either --day or --month: a stop is lifted for one period", code=2)
    services = open_services()
    with reported(ValueError, code=2):
        word = record_word(
            services.store, services.now().astimezone(UTC), "day" if day else "month", up_to,
            reason=reason, by=by or user(), limits=services.cost_limits,
        )  # fmt: skip
    if as_json:
        show_json(asdict(word))
    else:
        typer.echo(f"LLM calls may cost up to ${word.up_to_usd:.2f} this {word.period}, until {minute(word.until)} UTC")


@app.command()
def reprice(
    days: Annotated[int, typer.Option(min=1, help="How far back, in UTC days.")] = 30, as_json: Json = False
) -> None:
    """Price past calls again from their tokens and their own dated prices; fails where one cost something else."""
    from pydantic import ValidationError

    from trading_ops.costs.repricing import reprice_rows
    from trading_ops.costs.usage import COLLECTION

    services = open_services()
    today = services.now().astimezone(UTC).date()
    first = today - timedelta(days=min(days, today.toordinal()) - 1)
    with reported(ValidationError):
        services.ledger.repair()
        found = reprice_rows(services.store.read(COLLECTION, first=str(first)), services.ledger.spending(), str(first))
    if as_json:
        show_json(asdict(found))
    else:
        undated = f", {found.without_price} without a dated price" if found.without_price else ""
        show(f"{found.rows} calls since {first}, ${found.cost_usd:.6f}: {found.identical} identical{undated}")
        for row in found.different:
            show(
                plain(
                    f"{row['day']} {row['call']} ({row['model']}): ${row['cost_usd']}, priced again {row['repriced']}"
                )
            )
        for one in found.days:
            show(f"{one['day']}: the rows add up to ${one['rows_usd']:.9f}, the budget counts ${one['budget_usd']:.9f}")
    if not found.whole:
        raise typer.Exit(1)
