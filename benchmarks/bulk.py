"""How fast are many symbols analysed, against TA-Lib in a loop and against what this replaces?

panel_vs_talib: CPU time of all indicators of 50 symbols x 1,000 bars, TA-Lib called for each symbol over one panel call
into memory that is there already, both warm, the best of each. TA-Lib gets the memory of each result from the heap,
which has it at hand; a panel in new memory, as its first call has it, is shown too.

bulk_vs_replaced: wall time of 50 symbols, request to ranked result, in one process, warm, the best of each in turn. The
reference is a loop that fetches each symbol's bars with one HTTP request over a kept connection, from a server in a
process of its own that has the answers ready, and calculates with pandas. Ours reads candle files in a folder; as a
resident process does, it keeps the bars of files that have not changed since. Shown too: every file read anew (no
footer and no bar kept), a fresh process of each (imports included, compiled code on disk), and 500 symbols.

Candles: recorded ones beside the checkout where they are, else simulated, copied under 50 and 500 names. Ends non-zero
when a target is missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import requests  # noqa: E402
import talib  # noqa: E402

from trading_ops.analysis.bulk import analyse  # noqa: E402
from trading_ops.analysis.indicators import INDICATORS, panel_indicators  # noqa: E402
from trading_ops.analysis.request import make_request  # noqa: E402
from trading_ops.market.candles import CandleSource  # noqa: E402
from trading_ops.market.parquet import SUFFIX, ParquetCandles, write_candles  # noqa: E402
from trading_ops.market.simulated import SimulatedCandles  # noqa: E402

MARKET = ROOT.parent / "shared" / "data" / "market"
NOW = datetime(2025, 9, 19, 23, 30, tzinfo=UTC)
FEW, MANY = 50, 500
BARS = 1_000
LOOKBACK = 500
DAYS = 400  # of bars in a file: what `trading-ops candles download` fetches
ROUNDS = int(os.environ.get("ROUNDS", "15"))
TARGETS = {"panel_vs_talib": 1.0, "bulk_vs_replaced": 50.0}

SERVER = """
import json, sys
import uvicorn
from pathlib import Path
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

answers = {name: json.dumps(rows).encode() for name, rows in json.loads(Path(sys.argv[1]).read_text()).items()}


async def klines(request):
    return Response(answers[request.query_params["symbol"]], media_type="application/json")


class Told(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        print(self.servers[0].sockets[0].getsockname()[1], flush=True)


app = Starlette(routes=[Route("/api/v3/klines", klines)])
Told(uvicorn.Config(app, port=0, log_level="error", access_log=False)).run()
"""


def best(clock: Callable[[], float], repeat: int, *works: Callable[[], Any]) -> list[float]:
    """Seconds of one call of each, the least of some rounds; in turn, so that a busy moment meets all alike."""
    found: list[list[float]] = [[] for _ in works]
    for at in range(ROUNDS + 1):  # the first round warms and is left out
        for work, times in zip(works, found, strict=True):
            began = clock()
            for _ in range(repeat):
                work()
            if at:
                times.append((clock() - began) / repeat)
    return [min(times) for times in found]


def each_with_talib(close: np.ndarray, volume: np.ndarray) -> list[dict[str, np.ndarray]]:
    """The same indicators, symbol by symbol."""
    found = []
    for prices, volumes in zip(close, volume, strict=True):
        upper, middle, _ = talib.BBANDS(prices, 20, 2, 2)
        changes = talib.ROCP(prices, 1)
        found.append(
            {
                "rsi": talib.RSI(prices, 14),
                "macd_histogram": talib.MACD(prices, 12, 26, 9)[2],
                "bollinger_position": (prices - middle) / (upper - middle),
                "bollinger_deviation": (upper - middle) / 2,
                "volume_ratio": volumes[1:] / talib.SMA(volumes, 20)[:-1],
                "volatility": talib.STDDEV(changes, 168),
                "return_1h": changes,
                "return_24h": talib.ROCP(prices, 24),
                "return_7d": talib.ROCP(prices, 168),
            }
        )
    return found


def replaced(session: requests.Session, url: str, symbols: list[str]) -> list[dict[str, Any]]:
    """A request and a frame a symbol, as the replaced system does it."""
    found = []
    for symbol in symbols:
        answer = session.get(f"{url}/api/v3/klines", params={"symbol": symbol, "interval": "1h", "limit": LOOKBACK})
        answer.raise_for_status()
        frame = pd.DataFrame(answer.json(), columns=["time", "open", "high", "low", "close", "volume", *"abcdef"])
        frame["time"] = pd.to_datetime(frame["time"], unit="ms", utc=True)
        frame = frame.set_index("time")[["open", "high", "low", "close", "volume"]].astype(float)
        close, volume = frame["close"], frame["volume"]
        change = close.diff()
        gain = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
        loss = (-change.clip(upper=0)).ewm(alpha=1 / 14, adjust=False).mean()
        rsi = 100 - 100 / (1 + gain / loss)
        line = close.ewm(span=12, adjust=False).mean() - close.ewm(span=26, adjust=False).mean()
        histogram = line - line.ewm(span=9, adjust=False).mean()
        deviation = close.rolling(20).std()
        position = (close - close.rolling(20).mean()) / (2 * deviation)
        ratio = volume / volume.rolling(20).mean().shift(1)
        row = {
            "symbol": symbol,
            "rsi": rsi.iloc[-1],
            "macd": histogram.iloc[-1] / deviation.iloc[-1],
            "bollinger": position.iloc[-1],
            "volume_ratio": ratio.iloc[-1],
            "return_24h": close.pct_change(24).iloc[-1],
            "volatility": close.pct_change().rolling(168).std().iloc[-1],
        }
        parts = [(50 - row["rsi"]) / 20, row["macd"] * 4, -row["bollinger"], row["volume_ratio"] - 1]
        balance = sum(min(max(part, -1.0), 1.0) for part in parts) / 4
        row["signal"] = "BUY" if balance >= 0.25 else "SELL" if balance <= -0.25 else "HOLD"
        row["score"] = abs(balance)
        found.append(row)
    return sorted(found, key=lambda row: -row["score"])


def write_files(folder: Path, source: CandleSource, count: int) -> list[str]:
    """`count` symbols in a folder, each a file of its own; the names tell that they are copies."""
    symbols = source.symbols()
    names = [f"{symbols[at % len(symbols)]}_T{at // len(symbols):02}" for at in range(count)]
    frames = {symbol: source.candles(symbol).iloc[-24 * DAYS :] for symbol in symbols}
    for name in names:
        write_candles(folder / f"{name}{SUFFIX}", frames[name.rpartition("_")[0]])
    return names


def klines(source: CandleSource, symbol: str) -> list[list[Any]]:
    """The last bars as Binance's interface writes them."""
    frame = source.candles(symbol).iloc[-LOOKBACK:]
    texts = zip(*(map(str, frame[field].tolist()) for field in ("open", "high", "low", "close", "volume")), strict=True)
    opens = [moment // 1_000 for moment in frame.index.as_unit("us").asi8.tolist()]
    return [[at, *text, at + 3_599_999, "0", 0, "0", "0", "0"] for at, text in zip(opens, texts, strict=True)]


def fresh_process(code: str) -> float:
    """Wall seconds of a new interpreter, the least of three."""
    found = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
        found.append(time.perf_counter() - began)
    return min(found)


def panel_figures() -> dict[str, float]:
    random = np.random.default_rng(1)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, (FEW, BARS)), axis=1))
    volume = random.lognormal(2, 0.7, (FEW, BARS))
    out = np.empty((len(INDICATORS), FEW, BARS))
    ours, fresh, theirs = best(
        time.process_time,
        10,
        lambda: panel_indicators(close, volume, out),
        lambda: panel_indicators(close, volume),
        lambda: each_with_talib(close, volume),
    )
    return {
        "panel_vs_talib": round(theirs / ours, 2),
        "panel_in_new_memory_vs_talib": round(theirs / fresh, 2),
        "panel_cpu_ms": round(1e3 * ours, 2),
        "talib_cpu_ms": round(1e3 * theirs, 2),
    }


def bulk_figures(folder: Path, few: list[str], many: Path, url: str) -> dict[str, float]:
    clock = time.perf_counter
    resident, session = ParquetCandles(folder, lambda: NOW), requests.Session()

    def warm() -> dict[str, Any]:
        return analyse(resident, make_request(few, lookback_bars=LOOKBACK))

    def anew(path: Path) -> dict[str, Any]:
        return analyse(ParquetCandles(path, lambda: NOW), make_request(all_symbols=True, lookback_bars=LOOKBACK))

    assert warm()["analysed"] == len(replaced(session, url, few)) == FEW
    assert warm()["rows"] == anew(folder)["rows"]
    everything = ParquetCandles(many, lambda: NOW)
    ours, new, theirs = best(clock, 1, warm, lambda: anew(folder), lambda: replaced(session, url, few))
    all_warm, all_new = best(
        clock,
        1,
        lambda: analyse(everything, make_request(all_symbols=True, lookback_bars=LOOKBACK)),
        lambda: anew(many),
    )
    head = f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]; "
    ours_cold = fresh_process(
        head + "from datetime import datetime, UTC; from pathlib import Path\n"
        "from trading_ops.analysis.bulk import analyse; from trading_ops.analysis.request import make_request\n"
        "from trading_ops.market.parquet import ParquetCandles\n"
        f"now = datetime.fromisoformat({NOW.isoformat()!r})\n"
        f"source = ParquetCandles(Path({str(folder)!r}), lambda: now)\n"
        f"analyse(source, make_request(all_symbols=True, lookback_bars={LOOKBACK}))"
    )
    theirs_cold = fresh_process(f"{head}import requests, bulk; bulk.replaced(requests.Session(), {url!r}, {few!r})")
    return {
        "bulk_vs_replaced": round(theirs / ours, 1),
        "bulk_reading_anew_vs_replaced": round(theirs / new, 1),
        "bulk_50_ms": round(1e3 * ours, 2),
        "bulk_50_reading_anew_ms": round(1e3 * new, 2),
        "replaced_50_ms": round(1e3 * theirs, 1),
        "bulk_500_ms": round(1e3 * all_warm, 1),
        "bulk_500_reading_anew_ms": round(1e3 * all_new, 1),
        "bulk_50_fresh_process_s": round(ours_cold, 2),
        "replaced_50_fresh_process_s": round(theirs_cold, 2),
    }


def main() -> None:
    source: CandleSource = SimulatedCandles(lambda: NOW)
    if MARKET.is_dir():
        source = ParquetCandles(MARKET, lambda: NOW)
    with tempfile.TemporaryDirectory() as name:
        folder, many, answers = Path(name) / "few", Path(name) / "many", Path(name) / "answers.json"
        folder.mkdir()
        many.mkdir()
        few = write_files(folder, source, FEW)
        write_files(many, source, MANY)
        answers.write_text(json.dumps({symbol: klines(source, symbol.rpartition("_")[0]) for symbol in few}))
        line = [sys.executable, "-c", SERVER, str(answers)]
        with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                url = f"http://127.0.0.1:{int(server.stdout.readline())}"
                figures = panel_figures() | bulk_figures(folder, few, many, url)
            finally:
                server.terminate()
    print(f"candles: {source.label}; bulk figures are wall time, panel figures CPU time, both the best of {ROUNDS}")
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value}")
    missed = [f"{name} is {figures[name]}, below {least}" for name, least in TARGETS.items() if figures[name] < least]
    for text in missed:
        print(text, file=sys.stderr)
    print(json.dumps({"benchmark": "bulk", "candles": source.label, "figures": figures}))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
