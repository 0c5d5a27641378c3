"""How much faster than vectorbt and backtesting.py is a sweep, what does a second core add, how soon is a cold one up?

The sweep: 1,000 RSI sets (10 periods, 10 oversold, 10 overbought) on 8,760 recorded hours of BTCUSDT, each with its
trades, win rate, total return, daily Sharpe ratio, drawdown, profit factor and duration. CPU seconds
(time.process_time, all threads) of one thread each, compiled beforehand, in turn; the least of the rounds counts on
both sides, since other work of the machine only adds.
- vs_vectorbt: `vectorbt_sweep` of the tests, whose table is compared first, at the chunk that suits it best.
- vs_backtestingpy: `Backtest.run` for a few of the sets, scaled linearly to 1,000. Each period's RSI is made
  beforehand, trades are not finalised, no progress bar; its cash is 1e9, since it buys whole coins only.
- two_core_scaling: wall time of 100,000 sets with one thread over that with two, in turn, the least of the rounds.
- cold_1000_s: wall time of a fresh interpreter that imports, reads the candles and sweeps, with numba's cache on disk;
  cold_uncached_1000_s with that cache empty. Both wall times need an idle machine, so its load is shown.
`make bench NAME=backtest ARGS="vs_vectorbt cold"` measures these parts alone. Ends non-zero when a target is missed.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from trading_ops.backtesting.engine import sweep  # noqa: E402
from trading_ops.backtesting.orders import Costs  # noqa: E402
from trading_ops_tests.backtesting.vectorbt_sweep import MEASURES, vectorbt_sweep  # noqa: E402

MARKET = ROOT.parent / "shared" / "data" / "market"
SYMBOL = "BTCUSDT"
BARS = 8_760
COSTS = Costs(fee_pct=0.1, slippage_pct=0.05)
GRID = {
    "period": list(range(5, 25, 2)),
    "oversold": [20.0, 22.0, 25.0, 28.0, 30.0, 32.0, 35.0, 38.0, 40.0, 42.0],
    "overbought": [55.0, 58.0, 60.0, 62.0, 65.0, 68.0, 70.0, 72.0, 75.0, 80.0],
}
LARGE = {  # 100,000 sets
    "period": list(range(5, 55)),
    "oversold": [20 + n / 2 for n in range(40)],
    "overbought": [55 + n / 2 for n in range(50)],
}
SETS = 1_000
CHUNKS = (50, 100, 150, 250, 500, 1_000)
ROUNDS = 5
PY_ROUNDS, PY_SETS = 3, 8
COLD_RUNS = 5
AT_LEAST = {"vs_vectorbt": 20, "vs_backtestingpy": 500, "two_core_scaling": 1.8}
BELOW = {"cold_1000_s": 4}
REFERENCES = ("vectorbt", "backtesting", "TA-Lib", "numba", "numpy", "pandas")
COLD = """
import json, sys
import pandas as pd
from trading_ops.backtesting.engine import sweep
from trading_ops.backtesting.orders import Costs  # noqa: E402
path, bars, grid = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
candles = pd.read_parquet(path).set_index("ts").rename_axis("time")[-bars:]
table = sweep(candles, "rsi", grid, Costs(fee_pct=0.1, slippage_pct=0.05))
assert len(table) == 1_000 and table["total_trades"].sum() > 0
"""

Figures = dict[str, float]


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def wall_seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def vs_vectorbt(candles: pd.DataFrame) -> Figures:
    theirs, ours = vectorbt_sweep(candles, GRID, COSTS), sweep(candles, "rsi", GRID, COSTS)  # compiles both
    for name in MEASURES:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-7, atol=1e-7, err_msg=f"{name} differs")
    by_chunk = {chunk: cpu_seconds(lambda c=chunk: vectorbt_sweep(candles, GRID, COSTS, c)) for chunk in CHUNKS}
    print("vectorbt, CPU seconds by chunk:", ", ".join(f"{chunk}: {took:.2f}" for chunk, took in by_chunk.items()))
    chunk = min(by_chunk, key=by_chunk.__getitem__)
    rounds = [
        (
            cpu_seconds(lambda: sweep(candles, "rsi", GRID, COSTS)),
            cpu_seconds(lambda: vectorbt_sweep(candles, GRID, COSTS, chunk)),
        )
        for _ in range(ROUNDS)
    ]
    mine, reference = (min(column) for column in zip(*rounds, strict=True))
    reference = min(reference, *by_chunk.values())
    return {
        "vs_vectorbt": reference / mine,
        "sweep_1000_cpu_s": mine,
        "vectorbt_1000_cpu_s": reference,
        "vectorbt_chunk": chunk,
    }


def vs_backtestingpy(candles: pd.DataFrame) -> Figures:
    import backtesting
    import talib

    backtesting.backtesting._tqdm = lambda bars, **_: bars  # a progress bar costs time and lines

    class Rsi(backtesting.Strategy):
        period, oversold, overbought = 14, 30.0, 70.0

        def init(self) -> None:
            self.strength = self.I(lambda: lines[self.period])

        def next(self) -> None:
            before, now = self.strength[-2], self.strength[-1]
            if self.position:
                if before <= self.overbought < now:
                    self.position.close()
            elif before >= self.oversold > now:
                self.buy()

    frame = candles.tz_localize(None)
    frame.columns = [name.capitalize() for name in frame]
    close = candles["close"].to_numpy()
    lines = {period: talib.RSI(close, period) for period in GRID["period"]}
    every = list(product(*GRID.values()))
    sets = every[SETS // PY_SETS // 2 :: SETS // PY_SETS]
    rates = {"spread": COSTS.slippage_pct / 100, "commission": COSTS.fee_pct / 100}
    runner = backtesting.Backtest(frame, Rsi, cash=1e9, **rates)

    def run() -> list[int]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a position open at the end
            return [runner.run(**dict(zip(GRID, values, strict=True)))["# Trades"] for values in sets]

    ours = sweep(candles, "rsi", GRID, COSTS).set_index(list(GRID))["total_trades"]
    np.testing.assert_array_equal(run(), ours.loc[sets], err_msg="trades differ")
    rounds = [(cpu_seconds(lambda: sweep(candles, "rsi", GRID, COSTS)), cpu_seconds(run)) for _ in range(PY_ROUNDS)]
    mine, few = (min(column) for column in zip(*rounds, strict=True))
    reference = few * SETS / len(sets)
    return {
        "vs_backtestingpy": reference / mine,
        "backtestingpy_1000_cpu_s_scaled": reference,
        "backtestingpy_sets_run": len(sets),
    }


def two_cores(candles: pd.DataFrame) -> Figures:
    for threads in (1, 2):
        sweep(candles, "rsi", GRID, COSTS, threads=threads)
    rounds = [
        tuple(wall_seconds(lambda t=threads: sweep(candles, "rsi", LARGE, COSTS, threads=t)) for threads in (1, 2))
        for _ in range(3)
    ]
    one, two = (min(column) for column in zip(*rounds, strict=True))
    return {"two_core_scaling": one / two, "sweep_100000_one_thread_s": one, "sweep_100000_two_threads_s": two}


def cold(candles: pd.DataFrame) -> Figures:
    command = [sys.executable, "-c", COLD, str(MARKET / f"{SYMBOL}-1h.parquet"), str(BARS), json.dumps(GRID)]
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}

        def once() -> tuple[float, float]:
            """Wall and CPU seconds."""
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            wall = wall_seconds(lambda: subprocess.run(command, env=env, check=True))
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

        uncached, *cached = (once() for _ in range(COLD_RUNS + 1))
    wall, cpu = (statistics.median(column) for column in zip(*cached, strict=True))
    return {
        "cold_1000_s": wall,
        "cold_1000_cpu_s": cpu,
        "cold_uncached_1000_s": uncached[0],
        "cold_uncached_1000_cpu_s": uncached[1],
    }


PARTS: dict[str, Callable[[pd.DataFrame], Figures]] = {
    "vs_vectorbt": vs_vectorbt,
    "vs_backtestingpy": vs_backtestingpy,
    "two_core_scaling": two_cores,
    "cold": cold,
}


def main(wanted: list[str]) -> None:
    unknown = [name for name in wanted if name not in PARTS]
    if unknown:
        sys.exit(f"{', '.join(unknown)}: no such part; there are {', '.join(PARTS)}")
    path = MARKET / f"{SYMBOL}-1h.parquet"
    if not path.exists():
        sys.exit(
            f"{path}: no recorded candles; put {SYMBOL}'s hours there (columns ts, open, high, low, close, volume)"
        )
    candles = pd.read_parquet(path).set_index("ts").rename_axis("time")[-BARS:]
    machine: dict[str, Any] = {"cpus": len(os.sched_getaffinity(0)), "versions": {n: version(n) for n in REFERENCES}}
    print(
        f"{machine['cpus']} CPUs, load {os.getloadavg()[0]:.1f}; "
        + ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    )
    figures: Figures = {}
    for name in wanted or PARTS:
        figures |= PARTS[name](candles)
    figures = {name: float(f"{value:.4g}") for name, value in figures.items()}
    targets = {n: f"  at least {low}" for n, low in AT_LEAST.items()} | {
        n: f"  below {high}" for n, high in BELOW.items()
    }
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:>10g}{targets.get(name, '')}")
    missed = [f"{n} is {figures[n]}, below {low}" for n, low in AT_LEAST.items() if figures.get(n, low) < low]
    missed += [f"{n} is {figures[n]}, not below {high}" for n, high in BELOW.items() if figures.get(n, 0) >= high]
    for line in missed:
        print(line, file=sys.stderr)
    print(json.dumps({"benchmark": "backtest", **machine, "figures": figures}))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main(sys.argv[1:])
