"""Does a record reach the shared audit store once and in order, whatever is down, slow or killed in between?"""

import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

import trading_ops
from trading_ops.audit.spool import SpooledStore
from trading_ops.audit.spool_file import SpoolFile
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import AuditStore, Entry, InvalidRecord, Receipt, StoreError, StoreUnavailable
from trading_ops_tests.audit import test_store_contract as contract
from trading_ops_tests.audit.unreliable import BROKEN, DEAF, DOWN, READ_ONLY, SILENT, UP, UnreliableStore

ROOT = Path(trading_ops.__file__).parents[1]
NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
SPOOLED = Receipt(0, 0, False, "", spooled=True)

# Around a store that is up, the promises are those of the store itself.
for name in dir(contract):
    if name.startswith("test_"):
        globals()[name] = getattr(contract, name)

HANGS_BEFORE_ITS_CURSOR = """
import sys, time
from pathlib import Path
from trading_ops.audit.spool import SpooledStore
from trading_ops_tests.audit.unreliable import UnreliableStore

folder, turns = Path(sys.argv[1]), int(sys.argv[2])
shared = UnreliableStore(folder)

def during():
    global turns
    turns -= 1
    if not turns:
        print("stored", flush=True)
        time.sleep(120)

shared.during = during
SpooledStore(shared, folder / "spool.db").ship()
"""

WRITER = """
import sys
from pathlib import Path
from trading_ops.audit.spool import SpooledStore
from trading_ops.audit.store import Entry
from trading_ops_tests.audit.unreliable import UnreliableStore

folder, name, turn = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = SpooledStore(UnreliableStore(folder), folder / "spool.db", retry_after_s=0.02)
while True:  # at least once, so that what a killed writer did not get to tell is told by the next
    day = f"2025-03-{1 + turn // 10 % 28:02}"
    store.append("turns", [Entry("", name, {"turn": turn}), Entry(day, f"{name}-{turn}", {})])
    store.append("flips", [Entry("", name, {"side": turn % 2})])
    print(turn, flush=True)
    turn += 1
    if (folder / "stop").exists():
        break
"""

SHIPPER = """
import sys, time
from pathlib import Path
from trading_ops.audit.spool import SpooledStore
from trading_ops_tests.audit.unreliable import UnreliableStore

folder = Path(sys.argv[1])
store = SpooledStore(UnreliableStore(folder), folder / "spool.db", retry_after_s=0.02)
while not (folder / "stop").exists():
    store.ship()
    time.sleep(0.01)
"""

FORKS = """
import os, sys
from pathlib import Path
from trading_ops.audit.spool import SpooledStore
from trading_ops.audit.store import Entry
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore

folder = Path(sys.argv[1])
shared = UnreliableStore(folder)
shared.be(DOWN)
store = SpooledStore(shared, folder / "spool.db", retry_after_s=0)
store.append("c", [Entry("", "before", {})])
child = os.fork()
for n in range(20):
    store.append("c", [Entry("", f"{'parent' if child else 'child'}-{n}", {})])
if child:
    assert os.waitpid(child, 0)[1] == 0
    shared.be(UP)
    assert store.ship() == 41
else:
    os._exit(0)
"""


class Clock:
    def __init__(self) -> None:
        self.time = 1_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[UnreliableStore]:
    with UnreliableStore(tmp_path) as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(shared: UnreliableStore, tmp_path: Path, clock: Clock) -> Iterator[SpooledStore]:
    with SpooledStore(shared, tmp_path / "spool.db", clock=clock) as store:
        yield store


@pytest.fixture
def back(shared: UnreliableStore, clock: Clock) -> Callable[[], None]:
    """The shared store is back, and the time to leave it alone is over."""

    def it_is() -> None:
        shared.be(UP)
        clock.time += 30

    return it_is


@pytest.fixture
def open_another(tmp_path: Path) -> Iterator[Callable[[], AuditStore]]:
    opened: list[SpooledStore] = []

    def opener() -> AuditStore:
        opened.append(SpooledStore(SqliteStore(tmp_path / "contract.db"), tmp_path / "never.db"))
        return opened[-1]

    yield opener
    assert not (tmp_path / "never.db").exists()
    for one in opened:
        one.close()


def entry(value: Any, key: str = "rsi", partition: str = "2025-03-01") -> Entry:
    return Entry(partition, key, {"value": value})


def said(store: AuditStore, collection: str = "c", **filters: Any) -> list[Any]:
    """The values of a collection in the order of its chain."""
    records = store.read(collection, all_revisions=True, **filters)
    return [record.body["value"] for record in sorted(records, key=lambda record: record.seq)]


# what waits


def test_B126_while_the_store_is_down_history_waits_on_the_disk_and_says_so(store, shared, tmp_path):
    shared.be(DOWN)
    assert store.append("c", [entry(1), entry(2, "macd")], recorded_at=NOON) == [SPOOLED, SPOOLED]
    assert store.append("d", [entry(3)]) == [SPOOLED]
    backlog = store.backlog()
    assert (backlog.waiting, backlog.path, backlog.refused) == (3, tmp_path / "spool.db", 0)
    assert backlog.shared_error == "shared.example: connection refused"
    assert backlog.oldest is not None
    assert datetime.now(UTC) - timedelta(minutes=1) < backlog.oldest <= datetime.now(UTC)
    with SqliteStore(tmp_path / "spool.db") as evidence:
        assert evidence.verify() == []
        assert len(evidence.read("spool", all_revisions=True)) == 3


def test_B126_when_it_is_back_everything_is_there_as_if_nothing_had_happened(store, shared, back, tmp_path):
    shared.be(DOWN)
    for value in ("A", "B", "A", "A"):
        store.append("c", [entry(value)], recorded_at=NOON)
    store.append("c", [entry("B"), entry("C", "macd", "")], recorded_at=NOON + timedelta(hours=1))
    back()
    assert store.ship() == 6
    with SqliteStore(tmp_path / "plain.db") as plain:
        for value in ("A", "B", "A", "A"):
            plain.append("c", [entry(value)], recorded_at=NOON)
        plain.append("c", [entry("B"), entry("C", "macd", "")], recorded_at=NOON + timedelta(hours=1))
        assert shared.heads() == plain.heads()
        assert shared.read("c", all_revisions=True) == plain.read("c", all_revisions=True)
    assert (store.backlog().waiting, store.backlog().oldest, store.backlog().shared_error) == (0, None, None)
    assert store.ship() == 0


def test_the_time_of_a_record_is_that_of_its_append_not_of_its_arrival(store, shared, back):
    shared.be(DOWN)
    before = datetime.now(UTC)
    store.append("c", [entry(1)])
    after = datetime.now(UTC)
    back()
    store.ship()
    assert before <= shared.read("c")[0].recorded_at <= after


def test_what_waits_goes_first_without_anyone_asking_for_it(store, shared, back):
    shared.be(DOWN)
    store.append("c", [entry("first")])
    back()
    (receipt,) = store.append("c", [entry("second")])
    assert (receipt.seq, receipt.spooled) == (2, False)
    assert said(shared) == ["first", "second"]


def test_while_another_process_ships_an_entry_queues_behind_what_waits(store, shared, back, tmp_path):
    shared.be(DOWN)
    store.append("c", [entry("first")])
    back()
    with FileLock(tmp_path / "spool.db.lock"):
        assert store.append("c", [entry("second")]) == [SPOOLED]
        assert store.ship() == 0
        assert said(store) == ["first", "second"]
    assert said(shared) == []
    assert store.ship() == 2
    assert said(shared) == ["first", "second"]


def test_after_a_failure_the_store_is_left_alone_for_30_seconds_B127(store, shared, clock):
    shared.be(DOWN)
    store.append("c", [entry(0)])
    shared.asked.clear()
    shared.be(UP)
    clock.time += 29.9
    assert store.append("c", [entry(1)]) == [SPOOLED]
    with pytest.raises(StoreUnavailable, match="connection refused"):
        store.put_state("guard", "rsi", {}, expected_version=0)
    assert store.ship() == 0
    assert shared.asked == []
    clock.time += 0.1
    assert store.append("c", [entry(2)]) != [SPOOLED]
    assert said(shared) == [0, 1, 2]


def test_a_failed_question_spares_the_next_writer_the_wait(store, shared):
    shared.be(DOWN)
    with pytest.raises(StoreUnavailable, match="connection refused"):
        store.get_state("guard", "rsi")
    assert store.append("c", [entry(1)]) == [SPOOLED]
    with pytest.raises(StoreUnavailable, match="connection refused"):
        store.heads()
    assert shared.asked == ["get_state"]


def test_a_store_that_somebody_else_found_down_is_asked_by_nobody_for_30_seconds(store, shared, clock):
    store.leave_alone("no answer within 10 s")
    shared.asked.clear()
    assert store.append("health", [Entry("2025-03-01", "", {"a": 1})]) == [SPOOLED]
    for question in (lambda: store.read("health"), lambda: store.get_state("incidents", "health/engine")):
        with pytest.raises(StoreUnavailable, match="no answer within 10 s"):
            question()
    assert shared.asked == []
    clock.time += 30
    assert store.append("health", [Entry("2025-03-01", "", {"a": 2})])[0].spooled is False


def test_a_bad_record_is_refused_at_once_though_nobody_could_store_it(store, shared, tmp_path):
    shared.be(DOWN)
    with pytest.raises(InvalidRecord, match="NaN is not allowed"):
        store.append("c", [entry(float("nan"))])
    with pytest.raises(ValueError, match="has no time zone"):
        store.append("c", [entry(1)], recorded_at=NOON.replace(tzinfo=None))
    assert store.append("c", []) == []
    assert not (tmp_path / "spool.db").exists()


def test_state_is_never_spooled(store, shared, tmp_path):
    shared.be(DOWN)
    with pytest.raises(StoreUnavailable):
        store.put_state("budget", "2025-03-01", {"reserved": 1.0}, expected_version=0)
    assert not (tmp_path / "spool.db").exists()


def test_a_healthy_store_has_no_spool(store, tmp_path):
    store.append("c", [entry(1)])
    store.read("c")
    assert store.ship() == 0
    assert store.backlog().waiting == 0
    assert {path.name for path in tmp_path.iterdir()} <= {"shared.db", "shared.db-wal", "shared.db-shm"}


def test_another_failure_than_being_down_is_the_callers(store, shared, tmp_path):
    shared.be(BROKEN)
    with pytest.raises(StoreError, match="damaged"):
        store.append("c", [entry(1)])
    assert not (tmp_path / "spool.db").exists()


def test_a_store_that_breaks_while_older_entries_wait_takes_the_new_one_behind_them(store, shared, back, clock):
    shared.be(DOWN)
    store.append("c", [entry(1)])
    clock.time += 30
    shared.be(BROKEN)
    assert store.append("c", [entry(2)]) == [SPOOLED]
    assert store.backlog().shared_error == "c: shared.example: a record is damaged"
    back()
    assert store.ship() == 2
    assert said(shared) == [1, 2]


def test_what_is_nested_as_deeply_as_allowed_can_wait_too(store, shared, back):
    body: dict[str, Any] = {}
    for _ in range(100):
        body = {"deeper": body}
    shared.be(DOWN)
    store.append("c", [Entry("", "", body)])
    back()
    store.ship()
    assert [record.body for record in shared.read("c")] == [body]


def test_a_queue_longer_than_one_look_keeps_batches_whole_and_in_order(store, shared, back, monkeypatch):
    monkeypatch.setattr("trading_ops.audit.spool_file.WINDOW", 4)
    shared.be(DOWN)
    sizes = [3, 3, 9, 1, 1, 1, 40, 2]
    for turn, size in enumerate(sizes):
        store.append("c", [entry([turn, n], f"{n}") for n in range(size)])
    back()
    shared.asked.clear()
    assert store.ship() == sum(sizes)
    assert said(shared) == [[turn, n] for turn, size in enumerate(sizes) for n in range(size)]
    assert shared.asked.count("append") == len(sizes)


def test_the_second_outage_begins_where_the_first_ended(store, shared, back):
    for outage in ("A", "B", "A"):
        shared.be(DOWN)
        assert store.append("c", [entry(outage)], recorded_at=NOON) == [SPOOLED]
        assert store.backlog().waiting == 1
        back()
        assert store.ship() == 1
    assert said(shared) == ["A", "B", "A"]


def test_a_full_disk_while_the_store_is_down_is_told_with_both_reasons(tmp_path):
    script = f"""
import resource
from trading_ops.audit.store import Entry, StoreUnavailable
from trading_ops.audit.spool import SpooledStore
from pathlib import Path
from trading_ops_tests.audit.unreliable import DOWN, UnreliableStore
folder = Path({str(tmp_path)!r})
shared = UnreliableStore(folder)
shared.be(DOWN)
store = SpooledStore(shared, folder / "spool.db")
store.append("c", [Entry("", "small", {{}})])
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
try:
    store.append("c", [Entry("", f"{{n}}", {{"text": "x" * 10_000}}) for n in range(100)])
except StoreUnavailable as error:
    print(error, store.backlog().waiting)
"""
    told = run(script)
    assert "shared.example: connection refused; and the spool does not take it: " in told
    assert told.strip().endswith(" 1")
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_closed_store_takes_nothing(shared, tmp_path):
    store = SpooledStore(shared, tmp_path / "spool.db")
    store.close()
    with pytest.raises(StoreUnavailable, match="was closed"):
        store.append("c", [entry(1)])
    assert not (tmp_path / "spool.db").exists()


# what is refused for good


def test_what_the_store_refuses_for_good_blocks_nobody_and_is_kept_and_counted(store, shared, back):
    shared.largest = 100
    shared.be(DOWN)
    store.append("c", [entry(1), entry("x" * 100, "huge"), entry(3)])
    store.append("c", [entry(4)])
    back()
    assert store.ship() == 3
    assert said(shared) == [1, 3, 4]
    backlog = store.backlog()
    assert (backlog.waiting, backlog.refused, backlog.refusal) == (0, 1, "a record may have 100 bytes")
    assert store.ship() == 0
    assert store.backlog().refused == 1


# what cannot be shipped now


class OneDamaged(UnreliableStore):
    """A shared store that cannot take one collection, though it is up."""

    damaged: str | None = "sick"

    def append(
        self, collection: str, entries: Sequence[Entry], *, recorded_at: datetime | None = None
    ) -> list[Receipt]:
        if collection == self.damaged and self.mode == UP:
            raise StoreError(f"{collection}: the last record is damaged")
        return super().append(collection, entries, recorded_at=recorded_at)


def test_a_damaged_collection_holds_up_itself_and_no_other(tmp_path, clock):
    with OneDamaged(tmp_path) as shared, SpooledStore(shared, tmp_path / "spool.db", clock=clock) as store:
        shared.be(DOWN)
        for n in range(3):
            store.append("sick", [entry(n)])
            store.append("well", [entry(n)])
        shared.be(UP)
        clock.time += 30
        assert store.ship() == 3
        assert (said(shared, "well"), said(shared, "sick")) == ([0, 1, 2], [])
        backlog = store.backlog()
        assert (backlog.waiting, backlog.shared_error) == (3, "sick: the last record is damaged")
        assert store.append("sick", [entry(3)]) == [SPOOLED]  # behind those before it
        (receipt,) = store.append("well", [entry(3)])
        assert (receipt.spooled, said(store, "well")) == (False, [0, 1, 2, 3])
        assert said(store, "sick") == [0, 1, 2, 3]
        theirs = OneDamaged(tmp_path)
        with SpooledStore(theirs, tmp_path / "spool.db") as later:  # what was passed over is known to everybody
            assert (later.backlog().waiting, later.ship(), later.backlog().waiting) == (4, 0, 4)
            theirs.damaged = shared.damaged = None
            assert later.append("sick", [entry(4)]) == [SPOOLED]  # left alone for a while
        clock.time += 30
        assert store.ship() == 5
        assert said(shared, "sick") == [0, 1, 2, 3, 4]
        assert (store.backlog().waiting, store.backlog().shared_error) == (0, None)


def test_what_waits_for_one_store_is_not_shipped_to_another(tmp_path, clock):
    (tmp_path / "staging").mkdir()
    with UnreliableStore(tmp_path) as production, UnreliableStore(tmp_path / "staging") as staging:
        production.be(DOWN)
        with SpooledStore(production, tmp_path / "spool.db", label="MongoDB db/production") as store:
            store.append("c", [entry("production", "a")])
        with SpooledStore(staging, tmp_path / "spool.db", clock=clock, label="MongoDB db/staging") as store:
            assert store.ship() == 0
            assert "wait for MongoDB db/production, not for MongoDB db/staging; set MONGODB_URI back" in (
                store.backlog().shared_error or ""
            )
            (receipt,) = store.append("c", [entry("staging", "b")])
            assert (receipt.spooled, said(store)) == (False, ["staging"])
            staging.be(DOWN)
            assert store.append("c", [entry("later", "b")]) == [SPOOLED]
            staging.be(UP)
            clock.time += 30
            assert (store.ship(), said(staging), store.backlog().waiting) == (1, ["staging", "later"], 1)
    with UnreliableStore(tmp_path) as production:
        production.be(UP)
        with SpooledStore(production, tmp_path / "spool.db", label="MongoDB db/production") as store:
            assert (store.ship(), store.backlog().waiting) == (1, 0)
            assert said(production) == ["production"]


def test_what_waited_before_there_were_labels_is_shipped(store, shared, back, tmp_path):
    shared.be(DOWN)
    store.append("c", [entry(1)])
    shared.be(UP)
    with SpooledStore(shared, tmp_path / "spool.db", label="MongoDB db/audit") as labelled:
        assert said(labelled) == [1]
        assert labelled.backlog().waiting == 0


def test_a_reader_of_another_collection_does_not_decode_what_waits(store, shared, tmp_path):
    shared.be(DOWN)
    store.append("c", [entry("mark-1")])
    store.close()
    raw = (tmp_path / "spool.db").read_bytes()
    (tmp_path / "spool.db").write_bytes(raw.replace(b"mark-1", b"mark-2"))
    shared.be(READ_ONLY)
    with SpooledStore(UnreliableStore(tmp_path), tmp_path / "spool.db") as again:
        assert again.read("d") == []
        with pytest.raises(StoreError, match=r"TRADING_OPS_STORE=sqlite:///.*spool.db trading-ops audit verify"):
            again.read("c")


def test_whoever_has_little_time_ships_little(store, shared, back):
    shared.be(DOWN)
    for n in range(3):
        store.append("c", [entry(n)])
    back()
    assert [store.ship(patience_s=0), store.ship(patience_s=0), store.ship()] == [1, 1, 1]
    assert said(shared) == [0, 1, 2]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([UP, DOWN, SILENT, READ_ONLY]), st.sampled_from(["sick", "well", None]),
                  st.sampled_from("AB")),
        max_size=14,
    )
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_whichever_collection_is_damaged_in_between_each_keeps_its_order(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("damaged")
    with (
        OneDamaged(folder) as shared,
        SqliteStore(folder / "plain.db") as plain,
        SpooledStore(shared, folder / "spool.db", retry_after_s=0) as store,
    ):
        for n, (mode, damaged, value) in enumerate(steps):
            shared.be(mode)
            shared.damaged = damaged
            for collection in ("sick", "well"):
                when = NOON + timedelta(seconds=n)
                try:
                    store.append(collection, [entry(value), entry(value, f"{n}")], recorded_at=when)
                except StoreError:
                    continue  # nothing of it waited, so the caller is told
                plain.append(collection, [entry(value), entry(value, f"{n}")], recorded_at=when)
        shared.be(UP)
        shared.damaged = None
        store.ship()
        assert store.backlog().waiting == 0
        assert shared.heads() == plain.heads()


# answers that were lost


@pytest.mark.parametrize("values", [["A"], ["A", "B"], ["A", "B", "A"], ["B", "B", "A"]])
@pytest.mark.parametrize("before", [[], ["A"], ["A", "B"], ["B", "A"]])
def test_a_batch_that_arrived_though_nobody_heard_of_it_is_not_stored_again(store, shared, back, before, values):
    for value in before:
        store.append("c", [entry(value)], recorded_at=NOON)
    shared.be(SILENT)
    batch = [entry(value) for value in values]
    assert set(store.append("c", batch, recorded_at=NOON)) == {SPOOLED}
    arrived = shared.read("c", all_revisions=True)
    assert said(store) == said(shared)  # while it waits it is not doubled in an answer either
    back()
    store.ship()
    assert store.backlog().waiting == 0
    assert shared.read("c", all_revisions=True) == arrived
    store.append("c", [entry("end")])
    assert said(shared)[-1] == "end"


def test_the_same_content_at_the_same_time_again_is_no_lost_answer(store, shared, back):
    """A and B are stored, then A again fails before it is stored: it must become the third revision."""
    for value in ("A", "B"):
        store.append("c", [entry(value)], recorded_at=NOON)
    shared.be(DOWN)
    store.append("c", [entry("A")], recorded_at=NOON)
    back()
    store.ship()
    assert said(shared) == ["A", "B", "A"]


def test_an_answer_lost_while_shipping_doubles_nothing(store, shared, back):
    shared.be(DOWN)
    for value in ("A", "B", "A", "B"):
        store.append("c", [entry(value)], recorded_at=NOON)
    back()
    shared.be(SILENT)
    assert store.ship() == 0
    assert said(shared) == ["A"]
    for _ in range(5):
        back()
        shared.be(SILENT)
        store.ship()
    back()
    store.ship()
    assert said(shared) == ["A", "B", "A", "B"]
    assert shared.verify() == []


def test_a_lost_answer_behind_another_process_in_the_queue_doubles_nothing(store, shared, back, tmp_path):
    """While the answer to A and B is lost, another process already queues: the doubtful batch is not the first."""
    with SpooledStore(UnreliableStore(tmp_path), tmp_path / "spool.db") as other:

        def meanwhile() -> None:
            shared.during = None
            shared.be(DOWN)
            assert other.append("c", [entry("other", "macd")]) == [SPOOLED]
            shared.be(SILENT)

        shared.during = meanwhile
        assert store.append("c", [entry("A"), entry("B")]) == [SPOOLED, SPOOLED]
        back()
        assert store.ship() == 3
    assert said(shared) == ["A", "B", "other"]


def test_a_repetition_that_failed_to_ship_is_not_taken_for_its_first_time(store, shared, back):
    shared.be(DOWN)
    for value in ("A", "B", "A"):
        store.append("c", [entry(value)], recorded_at=NOON)
    back()
    shared.writes_left = 2
    assert store.ship() == 2
    shared.writes_left = None
    back()
    assert store.ship() == 1
    assert said(shared) == ["A", "B", "A"]


@given(
    steps=st.lists(
        st.tuples(st.sampled_from([UP, DOWN, SILENT, READ_ONLY]), st.sampled_from("AB"), st.sampled_from(["x", "y"])),
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_whatever_fails_in_between_the_history_is_that_of_a_store_that_never_failed(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("steps")
    with (
        UnreliableStore(folder) as shared,
        SqliteStore(folder / "plain.db") as plain,
        SpooledStore(shared, folder / "spool.db", retry_after_s=0) as store,
    ):
        for n, (mode, value, key) in enumerate(steps):
            shared.be(mode)
            when = NOON + timedelta(seconds=n)
            store.append("c", [entry(value, key), entry(value, "both")], recorded_at=when)
            plain.append("c", [entry(value, key), entry(value, "both")], recorded_at=when)
            if mode != DOWN:
                newest = [(r.key, r.body) for r in plain.read("c")]
                assert [(r.key, r.body) for r in store.read("c")] == newest
                assert [(r.key, r.body) for r in store.read("c", all_revisions=True)] == [
                    (r.key, r.body) for r in plain.read("c", all_revisions=True)
                ]
        shared.be(UP)
        store.ship()
        assert shared.heads() == plain.heads()
        assert shared.verify() == []


# reading while entries wait


def test_a_read_ships_first_so_that_its_answer_is_not_stale(store, shared, back):
    store.append("c", [entry("old")])
    shared.be(DOWN)
    store.append("c", [entry("new")])
    back()
    (record,) = store.read("c")
    assert (record.body, record.seq, record.revision) == ({"value": "new"}, 2, 2)


def test_a_store_that_may_only_be_read_still_answers_with_what_waits_on_top(store, shared):
    store.append("c", [entry("old"), entry("same", "macd"), entry("far", partition="2025-03-09")])
    shared.be(READ_ONLY)
    store.append("c", [entry("new"), entry("same", "macd"), entry("first", "bollinger")], recorded_at=NOON)
    assert [(r.key, r.body["value"], r.seq, r.revision, r.hash == "") for r in store.read("c", last="2025-03-01")] == [
        ("bollinger", "first", 0, 1, True),
        ("macd", "same", 2, 1, False),
        ("rsi", "new", 0, 2, True),
    ]
    assert [r.body["value"] for r in store.read("c", key="rsi", all_revisions=True)] == ["old", "new", "far"]
    assert [r.body["value"] for r in store.read("c", first="2025-03-02")] == ["far"]
    assert store.read("c", partitions=["2025-03-01"], key="rsi")[0].recorded_at == NOON
    assert store.read("c", partitions=["2025-03-02"]) == []


def test_unreadable_is_not_empty(store, shared):
    shared.be(DOWN)
    store.append("c", [entry("new")])
    for question in ({}, {"key": "rsi"}, {"partitions": ["2025-03-01"]}, {"first": "2025-03-01", "key": "rsi"}):
        with pytest.raises(StoreUnavailable, match="connection refused"):
            store.read("c", **question)
    for question in (
        {"partitions": ["2025-03-01", "2025-03-02"], "key": "rsi"},
        {"partitions": ["2025-03-01"], "key": "macd"},
        {"partitions": ["2025-03-01"], "key": "rsi", "all_revisions": True},
    ):
        with pytest.raises(StoreUnavailable, match="connection refused"):
            store.read("c", **question)
    with pytest.raises(StoreUnavailable):
        store.read("d", partitions=["2025-03-01"], key="rsi")


def test_the_newest_of_what_waits_can_be_read_while_the_store_is_down(store, shared):
    shared.be(DOWN)
    for value in (1, 2):
        store.append("c", [entry(value), entry(-value, partition="2025-03-02")], recorded_at=NOON)
    days = ["2025-03-02", "2025-03-01"]
    records = store.read("c", partitions=days, key="rsi")
    assert [(r.partition, r.body["value"], r.seq, r.revision, r.recorded_at) for r in records] == [
        ("2025-03-01", 2, 0, 0, NOON),
        ("2025-03-02", -2, 0, 0, NOON),
    ]
    assert [r.partition for r in store.read("c", partitions=days, key="rsi", last="2025-03-01")] == ["2025-03-01"]


def test_what_was_shipped_is_no_longer_the_newest_by_construction(store, shared, back):
    shared.be(DOWN)
    store.append("c", [entry(1)])
    back()
    store.ship()
    shared.be(DOWN)
    with pytest.raises(StoreUnavailable):
        store.read("c", partitions=["2025-03-01"], key="rsi")


# the spool itself


def test_a_damaged_spool_is_told_and_ships_nothing_false(store, shared, back, tmp_path):
    shared.be(DOWN)
    store.append("c", [entry("mark-1")])
    store.close()
    raw = (tmp_path / "spool.db").read_bytes()
    (tmp_path / "spool.db").write_bytes(raw.replace(b"mark-1", b"mark-2"))
    back()
    with SpooledStore(UnreliableStore(tmp_path), tmp_path / "spool.db") as again:
        with pytest.raises(StoreError, match="entry 1 is damaged"):
            again.ship()
        with pytest.raises(StoreError, match="entry 1 is damaged"):
            again.read("c")
        assert again.append("c", [entry(2)]) == [SPOOLED]
    with UnreliableStore(tmp_path) as shared:
        assert said(shared) == []


def test_threads_share_a_spooled_store_through_an_outage(store, shared, clock):
    def work(worker: int) -> None:
        for n in range(30):
            store.append("c", [entry(n, f"{worker}")])
            if worker == 0 and n in (5, 20):
                shared.be(DOWN if n == 5 else UP)
                clock.time += 30

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.time += 30
    store.ship()
    assert store.backlog().waiting == 0
    for worker in range(4):
        assert said(shared, key=f"{worker}") == list(range(30))
    assert shared.verify() == []


# what dies in between


def start(script: str, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, **options)


def run(script: str, *arguments: object) -> str:
    process = start(script, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def test_parent_and_child_after_a_fork_share_the_spool(tmp_path):
    run(FORKS, tmp_path)
    with SqliteStore(tmp_path / "shared.db") as plain:
        assert len(plain.read("c")) == 41
        assert plain.verify() == []


@pytest.mark.parametrize("turn", [1, 2, 3, 4])
def test_killed_between_the_shared_store_and_the_cursor_nothing_is_stored_twice(store, shared, tmp_path, back, turn):
    shared.be(DOWN)
    for pair in ("AB", "CA", "AB", "CA"):
        store.append("c", [entry(value, key) for value in pair for key in ("rsi", "macd")], recorded_at=NOON)
    back()
    with start(HANGS_BEFORE_ITS_CURSOR, tmp_path, turn, stdout=subprocess.PIPE) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == "stored\n"
        assert store.ship() == 0  # the victim still holds the lock
        victim.send_signal(signal.SIGKILL)
    assert store.backlog().waiting == 4 * (5 - turn)
    assert store.ship() == 4 * (5 - turn)
    # the third pair begins with what the second ended with
    assert said(shared, key="rsi") == said(shared, key="macd") == ["A", "B", "C", "A", "B", "C", "A"]
    assert shared.verify() == []


@pytest.mark.parametrize("kills", [8, pytest.param(150, marks=pytest.mark.chaos)])
def test_processes_killed_at_random_while_the_store_comes_and_goes_lose_and_double_nothing(tmp_path, kills):
    dice = random.Random(kills)
    acknowledged = {"anna": -1, "bert": -1}
    with UnreliableStore(tmp_path) as shared:
        running = {name: begin(name, tmp_path, acknowledged) for name in ("anna", "bert", "ship")}
        for _ in range(kills):
            for _ in range(dice.randrange(1, 5)):
                shared.be(dice.choice([UP, UP, DOWN, DEAF, SILENT, READ_ONLY]))
                time.sleep(dice.uniform(0.02, 0.25))
            name = dice.choice(["anna", "bert", "ship"])
            running[name].kill()
            end(name, running[name], acknowledged)
            running[name] = begin(name, tmp_path, acknowledged)
        shared.be(UP)
        time.sleep(0.3)
        (tmp_path / "stop").touch()
        for name, process in running.items():
            assert end(name, process, acknowledged) == 0
        with SpooledStore(UnreliableStore(tmp_path), tmp_path / "spool.db") as store:
            store.ship()
            assert (store.backlog().waiting, store.backlog().refused) == (0, 0)
        assert shared.verify() == []
        for name, last in acknowledged.items():
            assert last > 0
            assert [r.body["turn"] for r in shared.read("turns", key=name, all_revisions=True)] == list(range(last + 1))
            flips = [r.body["side"] for r in shared.read("flips", key=name, all_revisions=True)]
            assert flips == [turn % 2 for turn in range(last + 1)]
            once = [r.key for r in shared.read("turns", all_revisions=True) if r.key.startswith(f"{name}-")]
            assert sorted(once) == sorted(f"{name}-{turn}" for turn in range(last + 1))
    with SpoolFile(tmp_path / "spool.db") as evidence:
        assert evidence.verify() == []


def begin(name: str, folder: Path, acknowledged: dict[str, int]) -> "subprocess.Popen[str]":
    if name == "ship":
        return start(SHIPPER, folder, stdout=subprocess.PIPE)
    return start(WRITER, folder, name, acknowledged[name] + 1, stdout=subprocess.PIPE)


def end(name: str, process: "subprocess.Popen[str]", acknowledged: dict[str, int]) -> int:
    """Wait for the end of a process and note the last turn that was acknowledged to it."""
    output, _ = process.communicate(timeout=300)
    turns = [int(line) for line in output.splitlines(keepends=True) if line.endswith("\n")]
    if turns:
        acknowledged[name] = turns[-1]
    return process.returncode
