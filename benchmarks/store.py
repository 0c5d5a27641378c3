"""How much slower is a record in the audit chain than the same body in a plain table, and how fast are batches?

References, in turn with the store in the same run and medians compared: a durable insert of the body as JSON text with
the same SQLite settings (its text made beforehand is shown too), and pymongo's insert_one of the body with w=majority
and j=True. Two bodies of about 1 KB: a line of the LLM ledger, mostly one long text (the figures without a suffix,
which the targets are about), and a day's record (`_daily`), nested floats whose canonical text costs more to check and
make. What a durable insert costs depends on the disk, so the file system is named. Ends non-zero when a target is
missed.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from pymongo import MongoClient, WriteConcern  # noqa: E402

from trading_ops.audit.chain import canonical_document  # noqa: E402
from trading_ops.audit.mongo import MongoStore  # noqa: E402
from trading_ops.audit.sqlite import SqliteStore  # noqa: E402
from trading_ops.audit.store import AuditStore, Entry  # noqa: E402
from trading_ops_tests.servers.mongod import Mongod  # noqa: E402

ROUNDS = 120
SINGLES = 15  # few at a time, so that a busy moment of the machine meets all sides alike
BATCH = 1_000
BATCH_ROUNDS = 15
TARGETS = {"single_vs_sqlite": 0.6, "single_vs_pymongo": 0.35, "batch_per_s": 20_000}

numbers = count()


def daily() -> Entry:
    """About 1 KB, shaped like a day's metrics: nested, many floats of full length; no two are the same."""
    n = next(numbers)
    strategies = {
        name: {
            "trades": n % 40 + at,
            "win_rate": (n % 1_000 + at) / 10.7,
            "avg_profit": n / (3.3 + at),
            "sharpe": n / 7e3,
        }
        for at, name in enumerate(("rsi", "macd", "bollinger", "momentum", "breakout", "grid", "trend", "scalp"))
    }
    total = {"trades": n % 320, "win_rate": n % 997 / 11.3, "max_drawdown": n / 9.7e4, "profit_factor": 1 + n / 13}
    return Entry("2025-03-01", f"key-{n}", {"total": total, "strategies": strategies, "source": "bot", "n": n})


def ledger() -> Entry:
    """About 1 KB, shaped like a line of the LLM ledger: one long text, tokens, a cost; no two are the same."""
    n = next(numbers)
    body = {
        "model": "gpt-4.1",
        "purpose": "gpt4_self_analysis",
        "prompt_sha256": f"{n:064x}",
        "tokens": {"input": 2_000 + n, "cached": n % 512, "output": n % 800},
        "cost_usd": round(0.004 + n / 1e6, 6),
        "latency_s": round(1 + n % 977 / 300, 3),
        "attempt": 1,
        "reply": f"{n}: wait. " + "The win rate of the last seven days lies within its usual range. " * 11,
    }
    return Entry("2025-03-01", f"key-{n}", body)


def per_second(operations: int, work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return operations / (time.perf_counter() - began)


def appends(store: AuditStore, entries: list[Entry]) -> Callable[[], object]:
    return lambda: [store.append("singles", [entry]) for entry in entries]


def append_batch(store: AuditStore) -> float:
    entries = [ledger() for _ in range(BATCH)]
    return per_second(BATCH, lambda: store.append("batches", entries))


def sqlite_round(store: SqliteStore, plain: sqlite3.Connection, entry: Callable[[], Entry]) -> tuple[float, ...]:
    """Singles a second: of the store, of a plain table, and of a plain table whose text was made beforehand."""

    def insert(text: str) -> None:
        plain.execute("BEGIN IMMEDIATE")
        plain.execute("INSERT INTO plain (body) VALUES (?)", (text,))
        plain.execute("COMMIT")

    entries = [entry() for _ in range(SINGLES)]
    texts = [json.dumps(entry.body) for entry in entries]
    return (
        per_second(SINGLES, appends(store, entries)),
        per_second(SINGLES, lambda: [insert(json.dumps(entry.body)) for entry in entries]),
        per_second(SINGLES, lambda: [insert(text) for text in texts]),
    )


def mongo_round(store: MongoStore, client: MongoClient[dict[str, Any]]) -> tuple[float, ...]:
    """Singles a second: of the store and of a plain collection."""
    entries = [ledger() for _ in range(SINGLES)]
    bodies = [dict(entry.body) for entry in entries]
    plain = client.bench.get_collection("plain", write_concern=WriteConcern("majority", j=True))
    return (
        per_second(SINGLES, appends(store, entries)),
        per_second(SINGLES, lambda: [plain.insert_one(body) for body in bodies]),
    )


def medians(rounds: list[tuple[float, ...]]) -> list[float]:
    """Of each column; the first tenth warms caches and connections and is left out."""
    return [statistics.median(values) for values in zip(*rounds[len(rounds) // 10 :], strict=True)]


def file_system(folder: Path) -> str:
    """The type and mount point of the file system that holds a folder, as Linux names them."""
    mounts = Path("/proc/mounts")
    found = [line.split()[1:3] for line in mounts.read_text().splitlines()] if mounts.exists() else []
    holding = [(len(point), kind, point) for point, kind in found if folder.resolve().is_relative_to(point)]
    return "{1} on {2}".format(*max(holding)) if holding else "unknown"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        disk = file_system(folder)
        with (
            SqliteStore(folder / "singles.db") as sqlite,
            SqliteStore(folder / "batches.db") as other,  # so that no single insert pays for a batch's checkpoint
            closing(sqlite3.connect(folder / "plain.db", isolation_level=None)) as plain,
            Mongod(folder / "mongod") as server,
            MongoStore(server.address("bench")) as mongo,
            MongoClient[dict[str, Any]](server.uri) as client,
        ):
            plain.execute("PRAGMA journal_mode = WAL")
            plain.execute("PRAGMA synchronous = FULL")
            plain.execute("CREATE TABLE plain (body TEXT NOT NULL)")
            # in turn too, so that both bodies meet the same disk
            both = [sqlite_round(sqlite, plain, ledger) + sqlite_round(sqlite, plain, daily) for _ in range(ROUNDS)]
            on_sqlite = medians(both)
            on_mongo = medians([mongo_round(mongo, client) for _ in range(ROUNDS)])
            batches = medians([(append_batch(other), append_batch(mongo)) for _ in range(BATCH_ROUNDS)])
            broken = sqlite.verify() + other.verify() + mongo.verify()
    figures = {
        "single_vs_sqlite": round(on_sqlite[0] / on_sqlite[1], 2),
        "single_vs_sqlite_daily": round(on_sqlite[3] / on_sqlite[4], 2),
        "single_vs_pymongo": round(on_mongo[0] / on_mongo[1], 2),
        "batch_per_s": round(batches[0]),
        "mongo_batch_per_s": round(batches[1]),
        "sqlite_single_per_s": round(on_sqlite[0]),
        "sqlite_plain_per_s": round(on_sqlite[1]),
        "sqlite_plain_ready_text_per_s": round(on_sqlite[2]),
        "mongo_single_per_s": round(on_mongo[0]),
        "pymongo_insert_one_per_s": round(on_mongo[1]),
        "body_bytes": len(canonical_document(ledger().body)),
        "daily_body_bytes": len(canonical_document(daily().body)),
    }
    print(f"file system: {disk}")
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value}")
    missed = [
        f"{name} is {figures[name]}, below {target}" for name, target in TARGETS.items() if figures[name] < target
    ]
    missed += [f"{found.collection} is broken at {found.seq}: {found.reason}" for found in broken]
    for line in missed:
        print(line, file=sys.stderr)
    print(json.dumps({"benchmark": "store", "file_system": disk, "figures": figures}))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
