"""What does a person want to see of the newest day?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.performance.trend import trend

if TYPE_CHECKING:
    from rich.table import Table

    from trading_ops.audit.store import AuditStore

COLOURS = {"good": "green", "warning": "yellow", "critical": "red"}


def performance_of(store: AuditStore, day: str) -> tuple[Mapping[str, Any] | None, list[Mapping[str, Any]]]:
    """The stored document of the day (None where there is none), and those of the 14 days up to it of the same source.

    The latter newest first, for the trend.
    """
    first = date.fromisoformat(day) - timedelta(days=13)
    records = store.read("performance_metrics", first=str(first), last=day)
    if not records or records[-1].partition != day:
        return None, []
    newest = records[-1].body
    return newest, [record.body for record in reversed(records) if record.body["source"] == newest["source"]]


def performance_table(document: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row a strategy, readable at 80 columns. `rows`: the history of the last days, newest first, for the trend."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    title = f"7 days to {document['day']}, {document['candles']} candles"
    caption = "Sharpe +- standard error: over 7 days it is noise"
    table = Table("strategy", title=title, caption=caption, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("trades", "win %", "avg %", "Sharpe 7 d", "90 d", "trend", "verdict"):
        table.add_column(column, justify="left" if column in ("trend", "verdict") else "right", no_wrap=True)
    scopes = {**document["strategies"], "portfolio": document["portfolio"]}
    for scope, m in scopes.items():
        past = [row["portfolio"] if scope == "portfolio" else row["strategies"].get(scope, {}) for row in rows]
        verdict = m["status"]
        table.add_row(
            escape(scope),
            str(m["total_trades"]),
            _figure(m["win_rate_pct"], ".1f"),
            _figure(m["avg_profit_pct"], "+.2f"),
            _figure(m["sharpe_ratio"], ".1f") + _figure(m["sharpe_standard_error"], ".0f", before=" +-"),
            _figure(m["sharpe_ratio_90d"], ".1f"),
            trend(past).replace("insufficient_data", "-"),
            f"[{COLOURS.get(verdict, 'default')}]{verdict}[/]",
            end_section=scope == list(scopes)[-2],
        )
    return table


def _figure(value: float | None, form: str, before: str = "") -> str:
    return ("" if before else "-") if value is None else f"{before}{value:{form}}"
