"""What can be done from the terminal? The `trading-ops` command: exit 0 done, 1 failed, 2 bad input."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, date, datetime
from typing import Annotated

import typer

from trading_ops.cli import alerts, audit, bot, candles, costs, decisions, drill, guard, models, strategies
from trading_ops.cli.analyze import analyze
from trading_ops.cli.backtest import backtest
from trading_ops.cli.doctor import doctor
from trading_ops.cli.health import health
from trading_ops.cli.optimize import optimize
from trading_ops.cli.terminal import Day, Json, open_services, prepare, reported, show, show_json, show_table
from trading_ops.cli.up import up
from trading_ops.cli.watchdog import watchdog
from trading_ops.commands import command

app = typer.Typer(
    help="Watch, measure and look after a trading bot.", no_args_is_help=True, pretty_exceptions_enable=False
)
app.add_typer(alerts.app, name="alerts")
app.add_typer(audit.app, name="audit")
app.add_typer(bot.app, name="bot")
app.add_typer(candles.app, name="candles")
app.add_typer(costs.app, name="costs")
app.add_typer(decisions.app, name="decisions")
app.add_typer(drill.app, name="drill")
app.add_typer(guard.app, name="guard")
app.add_typer(models.app, name="models")
app.add_typer(strategies.app, name="strategies")
app.command()(backtest)
app.command()(analyze)
app.command()(doctor)
app.command()(health)
app.command()(optimize)
app.command()(up)
app.command()(watchdog)

# what a person wants to see of a collection at 80 columns
SHOWN = {
    "closed_trades": ["day", "outcome", "total", "complete", "revision", "candles"],
    "performance_metrics": ["day", "outcome", "status", "trigger_ai_analysis", "revision", "candles"],
    "portfolio_reports": ["day", "equity_usdt", "return_pct", "return_since_start_pct", "total_trades", "revision"],
    "api_cost_history": ["day", "requests", "day_usd", "month_usd", "status", "llm_allowed", "revision"],
    "bulk_analyses": ["as_of", "asked", "analysed", "signals", "candles"],
    "strategy_actions": ["strategy", "state", "episode", "turn", "disabled_at", "revision"],
    "strategy_risk": ["day", "status", "revision", "candles"],
    "guard_labs": ["recorded_at", "title"],
    "health_history": ["at", "overall", "alerts"],
    "llm_calls": ["reserved_at", "purpose", "model", "outcome", "cost_usd"],
    "cost_overrides": ["at", "by", "period", "up_to_usd", "reason"],
    "backtests": ["title", "total_return_pct", "sharpe_ratio", "total_trades"],
    "predictions": ["decided_at", "model_type", "symbol", "role", "probability_up", "signal"],
    "model_accuracy_history": ["day", "outcome", "revision", "candles"],
    "retrain_history": ["at", "name", "outcome", "why"],
    "promotions": ["at", "kind", "name", "model_id", "by", "why"],
    "forecasts": ["decided_at", "name", "probability_up", "signal", "candles"],
    "gpt4_analysis_history": ["day", "outcome", "decision_id", "cost_usd", "revision", "candles"],
    "optimizations": ["recorded_at", "strategy", "symbol", "method", "sets", "deflated_sharpe", "candles"],
}


@app.command()
def backfill(
    days: Annotated[int | None, typer.Option(min=1, help="The newest N complete days the bot covers.")] = None,
    first: Day = None,
    last: Day = None,
    missing: Annotated[bool, typer.Option(help="Leave out days measured already, but for the last three.")] = False,
    as_json: Json = False,
) -> None:
    """Measure past days in one run: trades, metrics, risk, portfolio, costs. Ends with a table of the newest day."""
    import dagster as dg

    prepare()
    with reported():
        from trading_ops.definitions import SERVICES, defs
    from trading_ops.audit.store import StoreUnavailable
    from trading_ops.defs.backfill import BackfillError, choose_days, run_backfill
    from trading_ops.performance.summary import performance_of, performance_table

    with reported(BackfillError, code=2):
        start, end = choose_days(SERVICES, days, _date(first), _date(last), missing=missing)
    with reported(), dg.DagsterInstance.get() as instance:
        done = run_backfill(defs, SERVICES, instance, start, end, progress=not as_json)
        try:
            newest, recent = performance_of(SERVICES.store, done.last)
        except StoreUnavailable:
            newest, recent = None, []
    if as_json:
        show_json({"backfill": asdict(done), "performance": newest})
    else:
        show(done.sentence())
        for error in done.errors:
            typer.echo(error, err=True)
        if SERVICES.spooled_store and (waiting := SERVICES.spooled_store.backlog().waiting):
            typer.echo(f"{waiting} records wait on this machine for the audit store: see trading-ops doctor", err=True)
        if newest:
            show(performance_table(newest, recent))
            show("Look around: [bold]make ui[/bold], or [bold]trading-ops history performance_metrics --days 7[/bold]")
    if not done.succeeded:
        raise typer.Exit(1)


@app.command()
def history(
    collection: Annotated[str, typer.Argument(help="Such as performance_metrics, api_cost_history, closed_trades.")],
    days: Annotated[int, typer.Option(min=1, help="How far back, by the bot's clock.")] = 30,
    as_json: Json = False,
) -> None:
    """Show the newest revision of each day in a collection of the audit trail, newest first."""
    with reported(ValueError, code=2):
        rows = open_services().history.get_history(collection, days=days)
    if as_json:
        show_json(rows)
        return
    if not rows:
        show(f"nothing in {collection} in the last {days} days")
        return
    columns = SHOWN.get(collection) or [c for c in rows[0] if not isinstance(rows[0][c], (dict, list))][:6]
    show_table(collection, columns, [[row.get(c) for c in columns] for row in rows])
    show("Everything that is recorded: --json")


@app.command()
def quarantine(
    days: Annotated[int, typer.Option(min=1, help="How far back, by the bot's clock.")] = 30,
    as_json: Json = False,
) -> None:
    """List the bot's rows that were not believed, with the reason, newest day first."""
    with reported():
        documents = open_services().history.get_history("closed_trades", days=days)
    rows = [
        {"day": document["day"], "reason": bad["reason"], "row": bad["row"]}
        for document in documents
        for bad in document["quarantined"]
    ]
    if as_json:
        show_json(rows)
    elif rows:
        show_table("quarantine", ["day", "reason", "row"], [[row["day"], row["reason"], row["row"]] for row in rows])
        show(f"{len(rows)} rows in {days} days. Correct them at the bot; the next run reads the last three days again.")
    else:
        show(f"no row was quarantined in the last {days} days")


@app.command()
def flow(
    *,
    deposit: Annotated[float, typer.Option(min=0, help="USDT that came in.")] = 0.0,
    withdrawal: Annotated[float, typer.Option(min=0, help="USDT that went out.")] = 0.0,
    reason: Annotated[str, typer.Option(help="Why, for the audit trail.")],
    at: Annotated[
        datetime | None,
        typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"], help="When, in UTC; default now."),
    ] = None,
    strategy: Annotated[str | None, typer.Option(help="The strategy it is for; default the account.")] = None,
) -> None:
    """Note down a deposit or withdrawal that the bot does not tell of, so that it is not taken for profit or loss."""
    from trading_ops.portfolio.snapshots import record_flow

    amount_usdt, services = deposit - withdrawal, open_services()
    with reported(ValueError, code=2):
        moment = at.replace(tzinfo=UTC) if at else services.bot.now()
        record_flow(services.store, services.bot, amount_usdt, moment, strategy=strategy, reason=reason)
    show(
        f"noted: {amount_usdt:+,.2f} USDT on {moment:%Y-%m-%d %H:%M} UTC for {strategy or 'the account'};"
        f" measure the days since again: {command('backfill', first=moment.date())}"
    )


def _date(moment: datetime | None) -> date | None:
    return None if moment is None else moment.date()


if __name__ == "__main__":
    app()
