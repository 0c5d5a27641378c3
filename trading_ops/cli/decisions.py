"""`trading-ops decisions`: what was decided about retraining, does it come out the same again, is GPT-4 right?"""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli.terminal import Json, line, open_services, plain, reported, show, show_json, show_table
from trading_ops.cli.why import why

if TYPE_CHECKING:
    from trading_ops.assessments.calibration import Bin
    from trading_ops.audit.store import Record

app = typer.Typer(
    help="Decisions on retraining: list them, explain one, replay them, judge the adviser.", no_args_is_help=True
)
app.command()(why)

Days = Annotated[int, typer.Option("--days", min=1, help="How far back, by the bot's clock.")]


@app.callback()
def decisions() -> None:
    """Decisions on retraining: list them, explain one, replay them, judge the adviser."""


@app.command("list")
def list_(days: Days = 30, as_json: Json = False) -> None:
    """Show the decision of each day, newest first."""
    with reported():
        rows = [_row(record) for record in _recorded(days)]
    if as_json:
        show_json(rows)
    elif rows:
        columns = {"day": "day", "action": "action", "rule": "rule", "decided_by": "decided by", "gpt4": "GPT-4",
                   "agreed": "agreed"}  # fmt: skip
        show_table("decisions", list(columns.values()), [[_cell(row[name]) for name in columns] for row in rows])
        show("Why one of them: trading-ops decisions why DAY")
    else:
        _nothing(days)


@app.command()
def replay(days: Days = 30, as_json: Json = False) -> None:
    """Recompute every recorded decision, all revisions, from its own document; exit 1 when one comes out different."""
    from trading_ops.assessments.replay import replay as replay_one

    with reported():
        records = _recorded(days, all_revisions=True)
    found = [
        {**asdict(replay_one(record.body)), "partition": record.partition, "revision": record.revision}
        for record in records
    ]
    differ = [one for one in found if not one["identical"]]
    if as_json:
        show_json({"replayed": len(found), "identical": len(found) - len(differ), "decisions": found})
    elif found:
        rows = [[one["partition"], one["decision_id"] or "unknown", _came_of(one)] for one in found]
        show_table("replayed", ["day", "decision", "came out"], rows)
        show(f"{len(found) - len(differ)} of {len(found)} decisions came out identical, from what is recorded alone")
    else:
        _nothing(days)
    if differ:
        raise typer.Exit(1)


@app.command()
def calibration(as_json: Json = False) -> None:
    """Show how far GPT-4's confidence came true over a year, and whether its word counts."""
    from trading_ops.assessments.calibration import read_calibration
    from trading_ops.assessments.past import COLLECTION
    from trading_ops.assessments.standing import last_standing

    services = open_services()
    with reported():
        source, store = services.bot.source, services.store
        days = [record.partition for record in store.read(COLLECTION) if record.body.get("source") == source]
        if not days:
            show_json(None) if as_json else show("nothing recorded: gpt4_self_analysis decides daily at 03:00 UTC")
            return
        found, changed = read_calibration(store, source, max(days)), last_standing(store, source)
    adviser = found.adviser()
    if as_json:
        change = None if changed is None else changed.body
        show_json({"until": max(days), **asdict(found), "adviser": adviser.model_dump(), "last_change": change})
        return
    if found.bins:
        rows = [
            [f"{one.low:.1f} to {one.high:.1f}", one.n, f"{one.mean_confidence:.2f}", _true(one)] for one in found.bins
        ]
        show_table("GPT-4's confidence", ["confidence", "opinions", "mean", "came true"], rows)
    if found.brier is not None and found.base_rate is not None:
        show(f"Brier score {found.brier:.3f}, of always saying {found.base_rate:.2f}: {found.brier_base:.3f}")
    show(f"not scored: {found.pending} whose week is not over, {found.unknown} of which nothing can be told")
    counts = "counts" if adviser.standing == "deciding" else "does not count"
    show(plain(line(f"GPT-4's word {counts}: {adviser.why}")))
    if changed is not None:
        show(plain(line(f"last change: {changed.body['standing']} since {changed.partition}, {changed.body['why']}")))


def _recorded(days: int, *, all_revisions: bool = False) -> list[Record]:
    """The decisions of the last days, newest first."""
    from trading_ops.assessments.past import COLLECTION

    services = open_services()
    today = services.known_calendar().last_day + timedelta(days=1)  # a bot over the network is not asked
    first = today - timedelta(days=min(days, today.toordinal() - 1))
    records = services.store.read(COLLECTION, first=str(first), all_revisions=all_revisions)
    return sorted(records, key=lambda record: (record.partition, record.revision), reverse=True)


def _true(one: Bin) -> str:
    low, high = one.interval or (0.0, 1.0)
    return f"{one.share_true:.2f} [{low:.2f}, {high:.2f}]"


def _row(record: Record) -> dict[str, Any]:
    """A decision in short; of a damaged document as much as there is."""
    body = record.body
    decision, opinion = (part if isinstance(part := body.get(name), dict) else {} for name in ("decision", "opinion"))
    return {
        "day": record.partition,
        "action": decision.get("action"),
        "rule": decision.get("rule"),
        "decided_by": str(decision.get("decided_by", "")).partition(" (")[0] or None,
        "gpt4": "no opinion" if opinion.get("unavailable") else _said(opinion),
        "agreed": decision.get("agreed"),
        "decision_id": body.get("decision_id"),
        "why": decision.get("why"),
        "revision": record.revision,
    }


def _cell(value: Any) -> Any:
    return ("yes" if value else "no") if isinstance(value, bool) else value


def _said(opinion: dict[str, Any]) -> str | None:
    said, confidence = opinion.get("recommendation"), opinion.get("confidence")
    return f"{said} {confidence:.2f}" if isinstance(confidence, int | float) else said


def _came_of(one: dict[str, Any]) -> str:
    return "; ".join(["identical" if one["identical"] else one["difference"], *one["notes"]])


def _nothing(days: int) -> None:
    show(f"nothing recorded: no decision in the last {days} days. gpt4_self_analysis decides daily at 03:00 UTC")
