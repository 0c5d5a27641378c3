"""What dies in a storm of LLM calls? Callers that reserve, call and settle, forked from one process that is warm.

Run as a module with a folder; each line of input is a case, each line of output what became of it. Some callers kill
themselves before or after a write of theirs, others are killed by a clock. What a call really cost is noted by whoever
sends it, as the vendor would.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import AuditStore, Entry, Receipt, StateDocument, StoreUnavailable, open_store
from trading_ops.costs.budget import Limits
from trading_ops.costs.ledger import CallRefused
from trading_ops_tests.costs.worlds import World

CAP = Limits(day_warning_usd=0.5, day_critical_usd=1.0)
PATIENCE_S = 300.0


class Case(NamedTuple):
    """`uri`: of a MongoDB, or "" for a file in the case's folder."""

    seed: int
    callers: int
    uri: str = ""


class Deadly:
    """A store that ends its process before or after one of its writes."""

    def __init__(self, store: AuditStore, place: int | None) -> None:
        self._store, self._left = store, place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put_state(self, collection: str, key: str, body: Mapping[str, Any], *, expected_version: int) -> StateDocument:
        self._pass()
        written = self._store.put_state(collection, key, body, expected_version=expected_version)
        self._pass()
        return written

    def append(self, collection: str, entries: Sequence[Entry], **options: Any) -> list[Receipt]:
        self._pass()
        receipts = self._store.append(collection, entries, **options)
        self._pass()
        return receipts

    def _pass(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


def opened(case: Case, folder: Path) -> AuditStore:
    return open_store(case.uri) if case.uri else SqliteStore(folder / "audit.db", busy_timeout_s=60)


def call(case: Case, folder: Path, number: int) -> None:
    """One caller: a few calls, each of which may be dropped, cost less than its bound, or never be settled."""
    draw = random.Random(f"{case.seed}/{number}")
    place = draw.randrange(30) if draw.random() < 0.3 else None
    said: Counter[str] = Counter()
    with opened(case, folder) as store:
        world = World(Deadly(store, place), CAP)  # type: ignore[arg-type]
        for _ in range(draw.randint(1, 3)):
            try:
                reserved = world.reserve(draw.randint(1, 30_000) / 1_000_000)
            except CallRefused as refusal:
                said[refusal.kind] += 1
                continue
            except StoreUnavailable:
                said["unavailable"] += 1
                continue
            used = {"input": round(reserved.most_tokens["input"] * draw.random() ** 2)}
            note(folder / "sent", f"{reserved.call_id} {used['input']}")
            time.sleep(draw.random() * 0.02)
            end = draw.random()
            if end < 0.1:
                said["never settled"] += 1
                continue
            try:
                world.ledger.settle(
                    reserved, outcome="answered" if end > 0.2 else "timeout",
                    tokens=used if end > 0.2 else None, latency_s=0.01, detail={"reply": "x" * 200},
                )  # fmt: skip
                said["settled"] += 1
            except StoreUnavailable:
                said["unavailable"] += 1
    note(folder / "said", json.dumps(said))


def note(path: Path, line: str) -> None:
    handle = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def forked(case: Case, folder: Path, number: int) -> int:
    if not (child := os.fork()):
        try:
            call(case, folder, number)
            os._exit(0)
        finally:  # not a step back into what the parent does
            traceback.print_exc()
            os._exit(1)
    return child


def run(case: Case, root: Path) -> dict[str, Any]:
    folder = root / f"{case.seed}"
    folder.mkdir()
    if not case.uri:
        opened(case, folder).close()
    draw = random.Random(case.seed)
    began = time.monotonic()
    children = [forked(case, folder, number) for number in range(case.callers)]
    doomed = draw.sample(children, case.callers // 3)
    deaths: Counter[str] = Counter()
    while children:
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            children.remove(child)
            deaths["killed" if status == signal.SIGKILL else "ended" if status == 0 else f"failed {status}"] += 1
            continue
        time.sleep(draw.random() * 0.02)
        victim = doomed.pop() if doomed else None
        if victim in children:
            os.kill(victim, signal.SIGKILL)
        if time.monotonic() - began > PATIENCE_S:
            for one in children:
                os.kill(one, signal.SIGKILL)
    took_s = time.monotonic() - began
    lines = (folder / "said").read_text().splitlines() if (folder / "said").exists() else []
    sent = [line.split() for line in (folder / "sent").read_text().splitlines()]
    return {
        "deaths": deaths, "said": sum((Counter(json.loads(line)) for line in lines), Counter[str]()),
        "sent": {key: int(tokens) for key, tokens in sent}, "took_s": took_s,
    }  # fmt: skip


def main() -> None:
    import trading_ops.audit.mongo  # noqa: F401  # is then there for all forks

    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(Case(*json.loads(line)), Path(sys.argv[1]))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
