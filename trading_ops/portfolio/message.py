"""What are people told of the account's day?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trading_ops.notifications.alert import Alert, Severity

PICTURE_DAYS = 90
FIGURES = (
    "equity_usdt",
    "return_pct",
    "return_since_start_pct",
    "realised_pnl_usdt",
    "fees_usdt",
    "net_flows_usdt",
    "total_trades",
    "win_rate_pct",
)


def report_alert(documents: Mapping[str, Mapping[str, Any]], days: Sequence[str], *, heads: Sequence[str]) -> Alert:
    """The report of the last of `days`, with the equity of all of them as picture.

    `heads`: the audit trail's, as COLLECTION:SEQ:HASH; kept by people, they show a trail that was cut.
    """
    document = documents[days[-1]]
    numbers = {name: document[name] for name in FIGURES}
    return Alert(
        severity=Severity.INFO,
        dedup_key=f"report/portfolio/{days[-1]}",
        what=f"Portfolio on {days[-1]}: {_money(document['equity_usdt'])}, {_signed(document['return_pct'])}"
        f" ({document['candles']} candles)",
        why="\n".join(report_lines(document)),
        what_to_do="Nothing. Keep the audit heads, whole in e-mails and in `trading-ops audit heads`:"
        " `trading-ops audit verify --head HEAD` finds a trail that was cut or rewritten.",
        day=days[-1],
        numbers={**numbers, "audit_heads": {head.partition(":")[0]: head for head in heads}},
        picture={
            "title": f"Equity, {len(days)} days to {days[-1]}",
            "unit": "USDT",
            "days": list(days),
            "series": {"equity": [documents.get(day, {}).get("equity_usdt") for day in days]},
        },
    )


def report_lines(document: Mapping[str, Any]) -> list[str]:
    """The report of one day for people, a line for the account and one for each strategy."""
    scopes = {"account": document, **document["strategies"]}
    return [
        f"{name}: equity {_money(row['equity_usdt'])}, day {_signed(row['return_pct'])}, since start"
        f" {_signed(row['return_since_start_pct'])}, {row['total_trades']} trades"
        for name, row in scopes.items()
    ]


def _money(amount: float | None) -> str:
    return "unknown" if amount is None else f"{amount:,.2f} USDT"


def _signed(percent: float | None) -> str:
    return "unknown" if percent is None else f"{percent:+.2f} %"
