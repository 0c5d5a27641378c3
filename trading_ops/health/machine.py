"""How much of this machine's disk and memory is used?"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import psutil

from trading_ops.health.rules import Limits, Verdict, judge_usage


def look_at_disk(folder: Path, limits: Limits) -> Verdict:
    """The disk that holds `folder`, or will: used, of what is not reserved for root, in percent."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    usage = psutil.disk_usage(str(there))
    verdict = judge_usage("disk", usage.percent, limits.disk_warning_pct, limits.disk_critical_pct)
    return replace(verdict, numbers={**verdict.numbers, "free_gib": round(usage.free / 2**30, 1)})


def look_at_memory(limits: Limits) -> Verdict:
    """Memory that is not available without swapping, in percent."""
    used_pct = psutil.virtual_memory().percent
    return judge_usage("memory", used_pct, limits.memory_warning_pct, limits.memory_critical_pct)
