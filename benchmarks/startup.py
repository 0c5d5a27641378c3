"""What CPU time does loading the definitions cost, against `import dagster` alone?

Reference: `import dagster`, in turn with the definitions, seven processes each; the medians are compared.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

MARKET = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "market"
RUNS = 7


def cpu_seconds(code: str, **environment: str) -> float:
    """User and system CPU of one fresh interpreter that runs the code."""
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **environment}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    dagster, simulated, recorded = [], [], []
    for _ in range(RUNS + 1):  # the first round warms the file cache and is left out
        dagster.append(cpu_seconds("import dagster"))
        simulated.append(cpu_seconds("import trading_ops.definitions"))
        if MARKET.is_dir():
            recorded.append(cpu_seconds("import trading_ops.definitions", TRADING_OPS_CANDLES=str(MARKET)))
    reference = statistics.median(dagster[1:])
    figures = {
        "import_dagster_cpu_s": round(reference, 3),
        "definitions_cpu_s": round(statistics.median(simulated[1:]), 3),
        "import_ratio": round(statistics.median(simulated[1:]) / reference, 2),
    }
    if recorded:
        figures["import_ratio_recorded_candles"] = round(statistics.median(recorded[1:]) / reference, 2)
    for name, value in figures.items():
        print(f"{name:<32}{value}")
    print(json.dumps({"benchmark": "startup", "figures": figures}))


if __name__ == "__main__":
    main()
