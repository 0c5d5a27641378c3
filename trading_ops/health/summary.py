"""How does a check look to people?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from trading_ops.health.rules import LABELS, Status, Verdict
from trading_ops.health.uptime import LEGEND, WINDOWS, Checks, strip, uptime


def table_rows(verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """A row a component."""
    return [{"component": v.label, "status": str(v.status), "ms": v.latency_ms, "found": v.found} for v in verdicts]


def uptimes(past: Mapping[str, Checks], component: str, at: datetime) -> dict[str, str]:
    """A component's uptime over each window, in words."""
    return {name: str(uptime(past.get(component, {}), at, window)) for name, window in WINDOWS.items()}


def uptime_markdown(past: Mapping[str, Checks], at: datetime) -> str:
    """A strip of the last 24 hours and the uptimes of each component that somebody looked at."""
    looked_at = [name for name in LABELS if set(past.get(name, {}).values()) - {Status.NOT_CONFIGURED}]
    if not looked_at:
        return "The uptime is unknown: the audit store cannot be read."
    lines = [f"| | last 24 hours | {' | '.join(WINDOWS)} |", f"|---|---|{'---|' * len(WINDOWS)}"]
    for name in looked_at:
        figures = " | ".join(uptimes(past, name, at).values())
        lines.append(f"| {LABELS[name]} | {strip(past[name], at)} | {figures} |")
    return "\n".join([*lines, "", LEGEND])
