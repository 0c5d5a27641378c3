"""How long does a year take in one run, and how much faster a day is that than one `dagster job execute` a day?

Reference: `dagster job execute -j daily_performance_analysis`, three single days, each a process of its own, in the
same run of this script. Dagster's event floor is the same backfill with assets that compute and store nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARKET = ROOT.parent / "shared" / "data" / "market"
BIN = Path(sys.executable).parent
DAYS = 365

FLOOR = """
import sys, time, warnings
warnings.simplefilter("ignore")
import dagster as dg
from trading_ops.definitions import defs
from trading_ops.defs.alerting import RANGE_END, RANGE_START
daily = [s for s in defs.resolve_all_asset_specs() if s.partitions_def is not None]
checks = defs.resolve_asset_graph().asset_check_keys
def asset(spec):
    deps = [dg.AssetDep(d.asset_key, partition_mapping=d.partition_mapping) for d in spec.deps]
    single_run = dg.BackfillPolicy.single_run()
    @dg.asset(key=spec.key, partitions_def=spec.partitions_def, deps=deps, backfill_policy=single_run)
    def empty() -> None: ...
    return empty
def check(key):
    @dg.asset_check(asset=key.asset_key, name=key.name)
    def passes() -> dg.AssetCheckResult: return dg.AssetCheckResult(passed=True)
    return passes
keys = [s.key for s in daily]
floor = dg.Definitions(assets=[asset(s) for s in daily], asset_checks=[check(k) for k in checks if k.asset_key in keys],
                       executor=dg.in_process_executor)
job = floor.resolve_implicit_global_asset_job_def()
quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
with dg.DagsterInstance.get() as instance:
    began = time.perf_counter()
    days = {RANGE_START: sys.argv[1], RANGE_END: sys.argv[2]}
    result = job.execute_in_process(instance=instance, tags=days, run_config=quiet)
    assert result.success
    print(time.perf_counter() - began)
"""


def run(command: list[str], home: Path, **environment: str) -> tuple[float, str]:
    """Wall seconds and standard output of a command in a Dagster home of its own."""
    candles = {"TRADING_OPS_CANDLES": str(MARKET)} if MARKET.is_dir() else {}
    env = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "DAGSTER_HOME": str(home), **candles}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=home, env=env | environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return time.perf_counter() - began, done.stdout


def fresh_home(parent: Path, name: str) -> Path:
    home = parent / name
    home.mkdir()
    shutil.copy(ROOT / "dagster.yaml", home)
    return home


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        parent = Path(folder)
        warm = fresh_home(parent, "warm")  # compiles the engine, so that no figure carries it
        run([str(BIN / "trading-ops"), "backfill", "--days", "1", "--json"], warm)

        home = fresh_home(parent, "year")
        year_s, out = run([str(BIN / "trading-ops"), "backfill", "--days", str(DAYS), "--json"], home)
        done = json.loads(out)["backfill"]
        last = date.fromisoformat(done["last"])

        single = fresh_home(parent, "single")
        days = [str(last - timedelta(days=i)) for i in (3, 2, 1)]
        command = [str(BIN / "dagster"), "job", "execute", "-m", "trading_ops.definitions", "-j"]
        seconds = [
            run([*command, "daily_performance_analysis", "--tags", json.dumps({"dagster/partition": day})], single)[0]
            for day in days
        ]

        floor_home = fresh_home(parent, "floor")
        subset = {"DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "1"}  # as the backfill command sets it
        floor_s = float(run([sys.executable, "-c", FLOOR, done["first"], done["last"]], floor_home, **subset)[1])

    figures = {
        "year_s": round(year_s, 2),
        "run_s": round(done["seconds"], 2),
        "dagster_floor_s": round(floor_s, 2),
        "our_compute_s": round(done["seconds"] - floor_s, 2),
        "job_execute_day_s": round(sum(seconds) / len(seconds), 2),
        "per_day_speedup": round(sum(seconds) / len(seconds) / (year_s / done["days"]), 1),
        "days": done["days"],
        "candles": "recorded" if MARKET.is_dir() else "simulated",
    }
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value}")
    print(json.dumps({"benchmark": "backfill", "figures": figures}))


if __name__ == "__main__":
    main()
