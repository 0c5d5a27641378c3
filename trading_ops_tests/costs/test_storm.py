"""Do callers who start together, and die anywhere, ever cost more than they may?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.audit.store import AuditStore, StoreUnavailable, open_store
from trading_ops.costs.budget import Limits
from trading_ops.costs.ledger import CallRefused, Reservation
from trading_ops.costs.spending import nano
from trading_ops_tests.audit.unreliable import UnreliableStore
from trading_ops_tests.conftest import ROOT
from trading_ops_tests.costs import storm
from trading_ops_tests.costs.storm import CAP, Case
from trading_ops_tests.costs.test_ledger import ADDRESSES
from trading_ops_tests.costs.worlds import NOON, World

MEMORY = Path("/dev/shm")


@contextmanager
def a_folder(tmp_path: Path | None = None) -> Iterator[Path]:
    """A kill loses no page that was written: a folder in memory is as good as one on a disk."""
    with TemporaryDirectory(dir=MEMORY if os.access(MEMORY, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture(params=sorted(ADDRESSES))
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return ADDRESSES[request.param](request, tmp_path)


@pytest.mark.parametrize("limit", ["budget", "hour"])
def test_of_threads_that_reserve_together_exactly_as_many_start_as_may(address: str, limit: str):
    """Each with a store of its own, as a process has."""
    hourly = 5 if limit == "hour" else None
    limits = Limits(day_warning_usd=0.05, day_critical_usd=0.07)
    together = threading.Barrier(24)

    def ask(_: int) -> str:
        with open_store(address) as store:
            together.wait(300)
            try:
                World(store, limits, hourly).reserve(0.01)
            except CallRefused as refusal:
                return refusal.kind
            return "started"

    with open_store(address) as store, ThreadPoolExecutor(24) as pool:
        said = Counter(pool.map(ask, range(24)))
        may = 5 if limit == "hour" else 7
        assert said == {"started": may, "hour" if hourly else "day": 24 - may}
        world = World(store, limits)
        world.assert_whole()
        assert world.ledger.spending().day_cost(NOON.date()) == may * 10_000_000
        assert sum(world.ledger.standing().refusals_today.values()) == 24 - may


# Every action may be cut off at a write, and another one happen between any two steps of it.
amounts = st.integers(1, 40).map(lambda cents: cents / 100)
action = st.deferred(
    lambda: st.tuples(
        st.sampled_from(["reserve", "reserve", "settle", "lose", "repair", "wait"]),
        amounts,
        st.none() | st.integers(0, 3),
        st.dictionaries(st.integers(0, 8), action, max_size=2),
    )
)


class Interrupted(UnreliableStore):
    """A store on a server that is asked by others between two questions of one who asks."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.interrupt: Callable[[], object] = lambda: None

    def _answer(self, question: str, *, writes: bool = False) -> None:
        self.interrupt()
        super()._answer(question, writes=writes)


class Callers:
    """Processes that share a store, each of which does one thing."""

    def __init__(self, folder: Path, hourly: int | None) -> None:
        self.world = World(UnreliableStore(folder), Limits(day_warning_usd=0.5, day_critical_usd=1.0), hourly)
        self.folder, self.open, self.started = folder, [], []

    def do(self, what: tuple[str, float, int | None, dict[int, Any]], depth: int = 0) -> None:
        kind, usd, cut, between = what
        store, steps = Interrupted(self.folder), iter(range(1_000))
        store.writes_left = cut

        def interrupt() -> None:
            if (other := between.get(next(steps))) and depth < 3:
                self.do(other, depth + 1)

        store.interrupt = interrupt
        world = World(store, self.world.limits, self.world.calls_an_hour, self.world.clock)
        try:
            if kind == "reserve":
                self.open.append(world.reserve(usd))
                self.started.append(self.open[-1].reserved_at)
            elif kind in ("settle", "lose") and self.open:
                call: Reservation = self.open[int(usd * 100) % len(self.open)]
                cost = min(usd / 2, float(call.bound_usd)) if kind == "settle" else None
                world.settle(call, cost)
                self.open.remove(call)
            elif kind == "repair":
                world.ledger.repair()
            elif kind == "wait":
                world.clock.wait(minutes=usd * 100)
        except (CallRefused, StoreUnavailable):
            pass
        except ValueError as error:
            if "was settled before" not in str(error):  # by another one, meanwhile
                raise
        finally:
            store.close()


@settings(deadline=None, max_examples=60)
@given(actions=st.lists(action, max_size=12), hourly=st.sampled_from([None, 3]))
def test_no_interleaving_and_no_crash_overshoots_and_the_rows_are_what_the_sums_say(actions, hourly):
    with a_folder() as folder:
        callers = Callers(folder, hourly)
        for what in actions:
            callers.do(what)
            assert all(amount <= nano(1.0) for amount in callers.world.ledger.spending().days.values())
        for start in callers.started if hourly else []:
            assert sum(0 <= (other - start).total_seconds() < 3_600 for other in callers.started) <= 3
        callers.world.assert_whole()
        callers.world.store.close()


class Storm:
    """The process whose forks are killed."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        line = [sys.executable, "-m", storm.__name__, str(folder)]
        self._warm = subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, case: Case) -> dict[str, Any]:
        assert self._warm.stdin
        assert self._warm.stdout
        self._warm.stdin.write(json.dumps(case) + "\n")
        self._warm.stdin.flush()
        return dict(json.loads(self._warm.stdout.readline()))

    def judge(self, case: Case, found: dict[str, Any], store: AuditStore) -> dict[str, Any]:
        """What was really spent, and what the ledger says, are within the limit; and the ledger is whole."""
        assert [death for death in found["deaths"] if death.startswith("failed")] == [], found
        world = World(store, CAP)
        world.assert_whole()
        rows, said = world.rows(), world.ledger.spending().day_cost(NOON.date())
        cap = nano(CAP.day_critical_usd)
        assert said <= cap
        assert sum(found["sent"].values()) * 1_000 <= said  # a token of input is a thousand billionths
        assert found["sent"].keys() <= rows.keys()
        for key, used in found["sent"].items():
            cost = nano(rows[key]["cost_usd"])
            assert cost == used * 1_000 if rows[key]["charged"] == "tokens" else cost >= used * 1_000, key
        open_calls = sum(row["outcome"] == "reserved" for row in rows.values())
        return {"spent": said / 10**9, "rows": len(rows), "open": open_calls}


@pytest.fixture
def the_storm(tmp_path: Path) -> Iterator[Storm]:
    with a_folder(tmp_path) as folder:
        made = Storm(folder)
        yield made
        made._warm.kill()
        made._warm.communicate()


@pytest.mark.parametrize(
    ("callers", "seeds"), [(20, 3), pytest.param(200, 50, marks=pytest.mark.chaos, id="200 callers, 50 seeds")]
)
def test_callers_that_are_killed_anywhere_never_spend_more_than_they_may(
    the_storm: Storm, capsys: pytest.CaptureFixture[str], callers: int, seeds: int
):
    weather(the_storm, capsys, [Case(seed, callers) for seed in range(seeds)])


@pytest.mark.parametrize(
    ("callers", "seeds"), [(8, 1), pytest.param(200, 5, marks=pytest.mark.chaos, id="200 callers, 5 seeds")]
)
def test_callers_that_share_a_server_are_killed_as_harmlessly(
    the_storm: Storm, capsys: pytest.CaptureFixture[str], mongod: Any, callers: int, seeds: int
):
    cases = [Case(seed, callers, mongod.address(f"storm_{uuid4().hex}", timeoutMS=60_000)) for seed in range(seeds)]
    weather(the_storm, capsys, cases)


def weather(the_storm: Storm, capsys: pytest.CaptureFixture[str], cases: list[Case]) -> None:
    said: Counter[str] = Counter()
    spent, took = [], []
    for case in cases:
        found = the_storm.run(case)
        with open_store(case.uri or f"sqlite:///{the_storm.root / str(case.seed)}/audit.db") as store:
            judged = the_storm.judge(case, found, store)
        said += Counter(found["deaths"]) + Counter(found["said"])
        said["rows"] += judged["rows"]
        said["open"] += judged["open"]
        spent.append(judged["spent"])
        took.append(found["took_s"])
    assert said["killed"] > 0
    if len(cases) * cases[0].callers > 100:
        with capsys.disabled():
            sys.stdout.write(
                f"\n{len(cases)} seeds of {cases[0].callers} callers: spent ${min(spent):.6f} to ${max(spent):.6f} of"
                f" ${CAP.day_critical_usd}, {max(took):.1f} s at most; {dict(said)}\n"
            )


@pytest.mark.parametrize("step", range(5))
def test_one_who_reserves_between_anothers_look_and_write_is_not_forgotten(tmp_path: Path, step: int):
    """Both would fit alone; together they are beyond the limit."""
    callers = Callers(tmp_path, None)
    callers.do(("reserve", 0.1, None, {}))
    callers.do(("reserve", 0.6, None, {step: ("reserve", 0.6, None, {})}))
    assert len(callers.started) == 2
    assert callers.world.ledger.spending().day_cost(NOON.date()) == nano(0.7)
    callers.world.assert_whole()
    callers.world.store.close()
