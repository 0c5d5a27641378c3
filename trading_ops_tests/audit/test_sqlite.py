"""Does the SQLite file survive tampering, crowds, kill -9 and a hostile machine?"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import trading_ops
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Conflict, Entry, StoreError, StoreUnavailable, open_store

ROOT = Path(trading_ops.__file__).parents[1]
COLUMNS = ("collection", "seq", "partition", "key", "revision", "recorded_at", "digest", "prev_hash", "hash", "body")

WORKER = """
import json, sys
from pathlib import Path
from trading_ops.audit.store import Conflict, Entry, open_store

uri, name, stop = sys.argv[1], sys.argv[2], Path(sys.argv[3])

def count(store):
    while True:
        found = store.get_state("counters", "total")
        version, total = (found.version, found.body["total"]) if found else (0, 0)
        try:
            return store.put_state("counters", "total", {"total": total + 1}, expected_version=version).body["total"]
        except Conflict:
            continue

with open_store(uri) as store:
    turn = 0
    while not stop.exists():
        turn += 1
        for collection in ("llm_calls", "notifications"):
            entries = [Entry("2025-03-01", key, {"by": f"{name}-{turn}"}) for key in (f"{name}-{turn}", "shared")]
            for receipt in store.append(collection, entries):
                print(json.dumps([collection, receipt.seq, receipt.hash, f"{name}-{turn}"]), flush=True)
        print(json.dumps(["counted", count(store)]), flush=True)
"""

CREATE = """
import sys
from trading_ops.audit.store import Entry, open_store

sys.stdin.read()  # everyone starts when the test closes the pipes
for n in range(10):
    with open_store(f"sqlite:///{sys.argv[1]}/{n}.db") as store:
        store.append("c", [Entry("", sys.argv[2], {})])
"""

FORK = """
import os, sys
from trading_ops.audit.store import Entry, open_store

store = open_store(sys.argv[1])
store.append("c", [Entry("", "before", {})])
connection = store._file._connection()
child = os.fork()
assert (store._file._connection() is connection) == bool(child)
for n in range(20):
    store.append("c", [Entry("", f"{'parent' if child else 'child'}-{n}", {})])
if child:
    assert os.waitpid(child, 0)[1] == 0
    store.append("c", [Entry("", "after", {})])
"""

READ_ONLY = """
import os, sys
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry, StoreUnavailable

if os.geteuid() == 0:
    os.seteuid(65534)  # root may write everywhere
try:
    with SqliteStore(sys.argv[1]) as store:
        store.append("c", [Entry("", "", {})])
except StoreUnavailable as error:
    print(error)
"""

QUOTA = """
import resource, sys
from trading_ops.audit.store import Entry, StoreUnavailable, open_store

with open_store(sys.argv[1]) as store:
    store.append("c", [Entry("", "small", {})])
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
    try:
        store.append("c", [Entry("", f"large-{n}", {"text": "x" * 10_000}) for n in range(100)])
    except StoreUnavailable as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.append("c", [Entry("", "later", {})])
    print([record.key for record in store.read("c")], store.verify())
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(path) as store:
        yield store


@pytest.fixture
def tampering(store: SqliteStore, path: Path) -> Iterator[sqlite3.Connection]:
    """Five records, and a connection of someone who has dropped the triggers."""
    store.append("c", [Entry("2025-03-01", "rsi", {"value": n, "name": "ä€"}) for n in range(5)])
    store.append("d", [Entry("2025-03-01", "", {})])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            db.execute(f"DROP TRIGGER {name}")
        yield db


def start(script: str, *arguments: object, **options: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, **options)


def run(script: str, *arguments: object) -> str:
    process = start(script, *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize("seq", [1, 3, 5])
@pytest.mark.parametrize("column", COLUMNS)
def test_one_flipped_bit_in_any_byte_of_any_column_is_found_and_named(
    store: SqliteStore, tampering: sqlite3.Connection, column: str, seq: int
) -> None:
    # a tail moved to another collection is a cut tail: only a noted head names it where it belongs
    noted = store.heads() if column == "collection" else []
    find = f"SELECT rowid, CAST({column} AS BLOB), typeof({column}) FROM history WHERE collection = 'c' AND seq = ?"
    rowid, stored, kind = tampering.execute(find, (seq,)).fetchone()
    raw = stored if kind == "text" else int(stored).to_bytes(2)
    change = f"UPDATE history SET {column} = CAST(? AS {kind}) WHERE rowid = ?"
    for at in range(len(raw)):
        flipped = bytearray(raw)
        flipped[at] ^= 1 << (3 * at + 3) % 8
        tampering.execute(change, (bytes(flipped) if kind == "text" else int.from_bytes(flipped), rowid))
        broken = {found.collection: found.seq for found in store.verify(expected=noted)}
        tampering.execute(change, (stored, rowid))
        assert broken.get("c") == seq, (at, bytes(flipped))
        assert "d" not in broken
    assert store.verify() == []


def test_one_flipped_bit_on_the_disk_is_found_and_named(path: Path) -> None:
    with SqliteStore(path) as store:
        store.append("c", [Entry("2025-03-01", f"key-{n:04}", {"mark": f"<{n:04}>"}) for n in range(200)])
    sound = path.read_bytes()
    for n in range(0, 200, 13):
        at = sound.index(f"<{n:04}>".encode()) + 3
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with SqliteStore(path) as store:
            assert [(found.collection, found.seq) for found in store.verify()] == [("c", n + 1)]


def test_a_flipped_record_spoils_its_own_collection_only(store: SqliteStore, tampering: sqlite3.Connection) -> None:
    tampering.execute("UPDATE history SET body = '{}' WHERE collection = 'c' AND seq IN (2, 4)")
    (broken,) = store.verify()
    assert (broken.collection, broken.seq, broken.reason) == ("c", 2, "body and digest do not match")
    assert store.verify("d") == []


def test_a_deleted_record_is_named(store: SqliteStore, tampering: sqlite3.Connection) -> None:
    tampering.execute("DELETE FROM history WHERE collection = 'c' AND seq = 2")
    (broken,) = store.verify()
    assert (broken.seq, broken.reason) == (2, "record 2 is missing, 3 stands in its place")


def test_a_cut_tail_shows_against_the_noted_head_only(store: SqliteStore, tampering: sqlite3.Connection) -> None:
    noted = store.heads()
    tampering.execute("DELETE FROM history WHERE collection = 'd' OR seq > 3")
    assert store.verify() == []
    assert [(found.collection, found.seq, found.reason) for found in store.verify(expected=noted)] == [
        ("c", 4, "ends at 3, head 5 was noted"),
        ("d", 1, "ends at 0, head 1 was noted"),
    ]
    store.append("c", [Entry("2025-03-01", "rsi", {"forged": n}) for n in range(9)])
    assert store.verify("c") == []
    assert [found.seq for found in store.verify("c", expected=noted)] == [5]


@pytest.mark.parametrize("value", ["x'63'", "x'ff00'"])
def test_a_collection_name_that_is_no_text_is_found(
    store: SqliteStore, tampering: sqlite3.Connection, value: str
) -> None:
    tampering.execute(f"UPDATE history SET collection = {value} WHERE collection = 'd'")
    assert [found.reason for found in store.verify()] == ["not text"]


def test_reading_a_damaged_record_names_it(store: SqliteStore, tampering: sqlite3.Connection) -> None:
    tampering.execute("UPDATE history SET body = '{' WHERE collection = 'c' AND seq = 5")
    with pytest.raises(StoreError, match=r"c: record 5 is damaged .* run verify"):
        store.read("c")
    tampering.execute("UPDATE history SET body = CAST(x'ff' AS TEXT) WHERE collection = 'c' AND seq = 5")
    with pytest.raises(StoreError, match="verify"):
        store.read("c")


@pytest.mark.parametrize("change", ["body = '[]'", f"body = '{'[' * 200_000}'", "body = 7", "revision = 'x'",
                                    "recorded_at = x'00'", "partition = x'00'", "digest = x'00'"],
                         ids=lambda change: change[:20])  # fmt: skip
def test_no_kind_of_damage_is_given_out_or_leaves_the_family_of_errors(
    store: SqliteStore, tampering: sqlite3.Connection, change: str
) -> None:
    tampering.execute(f"UPDATE history SET {change} WHERE collection = 'c' AND seq = 5")
    with pytest.raises(StoreError, match=r"c: record 5 is damaged .*; run verify"):
        store.read("c", all_revisions=True)
    assert [(found.collection, found.seq) for found in store.verify()] == [("c", 5)]


def test_a_damaged_tail_is_named_and_never_given_out_as_a_head(
    store: SqliteStore, tampering: sqlite3.Connection
) -> None:
    tampering.execute("UPDATE history SET collection = x'00' WHERE collection = 'd'")
    assert (store.collections(), [head.collection for head in store.heads()]) == (["c"], ["c"])
    tampering.execute("UPDATE history SET hash = x'00' WHERE collection = 'c' AND seq = 5")
    for what in (store.heads, lambda: store.head("c")):
        with pytest.raises(StoreError, match=r"c: record 5 is damaged .*; run verify"):
            what()


@pytest.mark.parametrize("change", ["body = '{'", "body = '[]'", f"body = '{'[' * 200_000}'", "body = x'ff'",
                                    "version = 'x'", "updated_at = x'00'", "updated_at = 'yesterday'"],
                         ids=lambda change: change[:20])  # fmt: skip
def test_a_damaged_state_document_is_told(store: SqliteStore, path: Path, change: str) -> None:
    store.put_state("guard", "rsi", {}, expected_version=0)
    with closing(sqlite3.connect(path)) as tampering, tampering:
        tampering.execute(f"UPDATE state SET {change}")
    for read in (lambda: store.get_state("guard", "rsi"), lambda: store.list_state("guard")):
        with pytest.raises(StoreError, match=r"guard: document 'rsi' is damaged .*; run verify"):
            read()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE history SET body = '{}'",
        "DELETE FROM history",
        "INSERT OR REPLACE INTO history SELECT collection, 1, partition, key, 1, '', '', '', '', '' FROM history",
        "INSERT INTO history SELECT collection, 7, partition, key, 7, '', '', '', '', '' FROM history",
    ],
)
def test_the_database_itself_refuses_to_change_history(store: SqliteStore, path: Path, statement: str) -> None:
    store.append("c", [Entry("", "", {})])
    with closing(sqlite3.connect(path)) as db, pytest.raises(sqlite3.IntegrityError, match="append-only"):
        db.execute(statement)


def test_a_file_whose_guard_is_of_an_earlier_kind_goes_on_and_stays_guarded(path: Path) -> None:
    with SqliteStore(path) as store:
        store.append("c", [Entry("", "before", {})])
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP TRIGGER history_only_grows")
        db.execute("""CREATE TRIGGER history_only_grows BEFORE INSERT ON history
            WHEN NEW.seq <> 1 + coalesce((SELECT max(seq) FROM history WHERE collection = NEW.collection), 0)
            BEGIN SELECT RAISE(ABORT, 'history is append-only'); END""")
        with SqliteStore(path) as store:
            assert [receipt.seq for receipt in store.append("c", [Entry("", "after", {}), Entry("", "last", {})])] == [
                2,
                3,
            ]
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                db.execute("INSERT OR REPLACE INTO history SELECT * FROM history WHERE seq = 3")
            assert (len(store.read("c")), store.verify()) == (3, [])


def test_a_refused_insert_of_many_rows_changes_none_that_was_there(store: SqliteStore, path: Path) -> None:
    store.append("c", [Entry("", "", {"n": n}) for n in range(3)])
    found = store.read("c", all_revisions=True)
    with closing(sqlite3.connect(path, isolation_level=None)) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("INSERT OR REPLACE INTO history SELECT collection, seq, '', '', 9, '', '', '', '', '' FROM history")
    assert (store.read("c", all_revisions=True), store.verify()) == (found, [])


@pytest.mark.parametrize("kills", [3, pytest.param(100, marks=pytest.mark.chaos)])
def test_four_writers_and_a_kill_lose_and_double_nothing(tmp_path: Path, kills: int) -> None:
    uri, stop = f"sqlite:///{tmp_path}/audit.db", tmp_path / "stop"

    def launch(name: str) -> "subprocess.Popen[str]":
        with (tmp_path / f"{name}.log").open("w") as log:
            return start(WORKER, uri, name, stop, stdout=log)

    def acknowledged(name: str) -> list[list[Any]]:
        lines = (tmp_path / f"{name}.log").read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]

    survivors = [launch(f"survivor-{n}") for n in range(3)]
    victims = []
    try:
        for n in range(kills):
            victims.append(launch(f"victim-{n}"))
            deadline = time.monotonic() + 300
            while len(acknowledged(f"victim-{n}")) < 23 + n % 7:
                assert time.monotonic() < deadline
                assert victims[-1].poll() is None
                time.sleep(0.005)
            victims[-1].kill()
            assert victims[-1].wait() == -signal.SIGKILL
        stop.touch()
        assert [survivor.wait(timeout=300) for survivor in survivors] == [0, 0, 0]
    finally:
        for process in (*survivors, *victims):
            process.kill()

    facts = [fact for log in sorted(tmp_path.glob("*.log")) for fact in acknowledged(log.stem)]
    receipts = [fact for fact in facts if fact[0] != "counted"]
    counted = [fact[1] for fact in facts if fact[0] == "counted"]
    with open_store(uri) as store:
        assert store.verify() == []
        for collection in ("llm_calls", "notifications"):
            records = {record.seq: record for record in store.read(collection, all_revisions=True)}
            acked = [receipt for receipt in receipts if receipt[0] == collection]
            assert len({seq for _, seq, _, _ in acked}) == len(acked)
            assert all((records[seq].hash, records[seq].body) == (hash_, {"by": by}) for _, seq, hash_, by in acked)
            assert max(Counter((record.key, record.body["by"]) for record in records.values()).values()) == 1
            # all or nothing: a batch of two is there with both or with none
            assert set(Counter(record.body["by"] for record in records.values()).values()) == {2}
            # each kill leaves at most one batch unacknowledged or half told
            assert 0 <= len(records) - len(acked) <= 2 * kills
        total = store.get_state("counters", "total")
        assert total is not None
        assert total.version == total.body["total"]
        assert len(set(counted)) == len(counted)
        assert len(counted) <= total.version <= len(counted) + kills
        assert set(range(1, total.version + 1)) >= set(counted)


def test_many_processes_may_create_a_file_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    workers = [start(CREATE, folder, n, stdin=subprocess.PIPE) for n in range(4)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
    assert [worker.wait(timeout=300) for worker in workers] == [0] * 4
    assert sorted(file.name for file in folder.iterdir()) == [f"{n}.db" for n in range(10)]
    for file in folder.iterdir():
        with SqliteStore(file) as store:
            assert [record.key for record in store.read("c")] == ["0", "1", "2", "3"]
            assert store.verify() == []


def test_a_forked_child_uses_its_own_connection(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/audit.db"
    assert run(FORK, uri) == ""
    with open_store(uri) as store:
        assert len(store.read("c")) == 42
        assert store.verify() == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc")
def test_connections_of_ended_threads_are_closed(store: SqliteStore) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(50):
        thread = threading.Thread(target=store.heads)
        thread.start()
        thread.join()
    assert len(list(Path("/proc/self/fd").iterdir())) < before + 20


def test_an_acknowledged_append_is_synced_and_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "audit.db"
    with SqliteStore(path) as store:
        store.append("c", [Entry("", "", {})])
        made = ("a", "a/b", "a/b/audit.db", "a/b/audit.db-wal")
        modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in made}
        with store._file.snapshot() as db:
            (synchronous,), (journal,) = (
                db.execute("PRAGMA synchronous").fetchone(),
                db.execute("PRAGMA journal_mode").fetchone(),
            )
    assert modes == {"a": 0o700, "a/b": 0o700, "a/b/audit.db": 0o600, "a/b/audit.db-wal": 0o600}
    assert (synchronous, journal) == (2, "wal")


def test_of_what_was_to_be_written_together_an_error_leaves_nothing(store: SqliteStore, path: Path) -> None:
    def work() -> None:
        with store.together():
            store.put_state("guard", "rsi", {}, expected_version=0)
            store.append("c", [Entry("2025-03-01", "rsi", {})])
            assert other.get_state("guard", "rsi") is None
            raise RuntimeError("somebody pulled the plug")

    with SqliteStore(path) as other, pytest.raises(RuntimeError):
        work()
    assert (store.get_state("guard", "rsi"), store.read("c")) == (None, [])


def test_a_write_that_the_file_refuses_undoes_all_that_belongs_together(
    store: SqliteStore, tampering: sqlite3.Connection
) -> None:
    def work() -> None:
        with store.together():
            store.put_state("guard", "good", {}, expected_version=0)
            with pytest.raises(StoreError):
                store.put_state("guard", "bad", {}, expected_version=0)

    refuses = "CREATE TRIGGER refuses BEFORE INSERT ON state WHEN NEW.key = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END"
    tampering.execute(refuses)
    tampering.commit()
    with pytest.raises(StoreError):
        work()
    assert store.list_state("guard") == []
    store.put_state("guard", "good", {}, expected_version=0)


def test_what_follows_a_refused_write_is_undone_with_what_was_before_it_and_the_first_reason_is_told(
    store: SqliteStore, tampering: sqlite3.Connection
) -> None:
    """ROLLBACK ends the transaction at once: alone, the next write would be kept."""

    def work() -> None:
        with store.together():
            store.put_state("guard", "before", {}, expected_version=0)
            with pytest.raises(StoreError, match="no room for this"):
                store.put_state("guard", "bad", {}, expected_version=0)
            with pytest.raises(StoreError, match="no room for this"):
                store.put_state("guard", "after", {}, expected_version=0)
            with pytest.raises(StoreError, match="no room for this"):
                store.append("together", [Entry("2025-03-01", "rsi", {})])

    refuses = "BEFORE INSERT ON state WHEN NEW.key = 'bad' BEGIN SELECT RAISE(ROLLBACK, 'no room for this'); END"
    tampering.execute(f"CREATE TRIGGER refuses {refuses}")
    tampering.commit()
    with pytest.raises(StoreError, match="no room for this"):
        work()
    assert (store.list_state("guard"), store.read("together")) == ([], [])
    store.put_state("guard", "good", {}, expected_version=0)
    assert [document.key for document in store.list_state("guard")] == ["good"]


def test_a_conflict_within_what_is_written_together_undoes_nothing(store: SqliteStore) -> None:
    with store.together():
        store.put_state("guard", "a", {}, expected_version=0)
        with pytest.raises(Conflict):
            store.put_state("guard", "a", {}, expected_version=0)
        store.put_state("guard", "b", {}, expected_version=0)
    assert [document.key for document in store.list_state("guard")] == ["a", "b"]


def test_a_file_locked_past_the_timeout_is_unavailable_not_lost(store: SqliteStore, path: Path) -> None:
    with SqliteStore(path, busy_timeout_s=0.1) as hasty, closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked by another process"):
            hasty.append("c", [Entry("", "", {})])
        assert hasty.read("c") == []
        db.execute("ROLLBACK")
        assert hasty.append("c", [Entry("", "", {})])[0].seq == 1


def test_a_file_that_may_not_be_written_says_so() -> None:
    with tempfile.TemporaryDirectory() as folder:  # unlike tmp_path, every user may look into it
        path = Path(folder) / "audit.db"
        SqliteStore(path).close()
        path.chmod(0o444)
        Path(folder).chmod(0o555)
        said = run(READ_ONLY, path), run(READ_ONLY, path.with_name("new.db")), run(READ_ONLY, f"{folder}/new/audit.db")
        Path(folder).chmod(0o755)
    assert ["check owner, permissions and mount" in text for text in said] == [True] * 3


def test_a_path_that_cannot_be_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "audit.db"):
        with pytest.raises(StoreUnavailable, match="check owner, permissions and mount"):
            SqliteStore(path)


def test_a_batch_beyond_the_quota_is_refused_whole_and_the_store_goes_on(tmp_path: Path) -> None:
    said = run(QUOTA, f"sqlite:///{tmp_path}/audit.db").splitlines()
    assert "quota and free space" in said[0]
    assert said[1] == "['later', 'small'] []"


def test_a_full_disk_is_told_and_stores_nothing_of_the_batch(store: SqliteStore) -> None:
    store.append("c", [Entry("", "small", {})])
    with store._file.transaction() as db:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
    store._file._connection().execute(f"PRAGMA max_page_count = {pages + 3}")
    with pytest.raises(StoreUnavailable, match=r"the disk is full\. Free some space; nothing of this call was stored"):
        store.append("c", [Entry("", f"large-{n}", {"text": "x" * 10_000}) for n in range(10)])
    assert [record.key for record in store.read("c")] == ["small"]
    assert store.append("c", [Entry("", "later", {})])[0].seq == 2


@pytest.mark.parametrize("content", [b"no database at all, just text" * 99, b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable, match=r"is damaged or no SQLite database; .* restore a backup"):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_a_file_cut_in_half_is_never_taken_for_sound(path: Path) -> None:
    with SqliteStore(path) as store:
        store.append("c", [Entry("", f"{n}", {"text": "x" * 100}) for n in range(500)])
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(StoreUnavailable, match="restore a backup"), SqliteStore(path) as store:
        assert store.verify() != []


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("PRAGMA user_version = 2", r"written by a newer trading_ops \(schema 2, this one knows 1\); upgrade"),
        ("PRAGMA user_version = 0", "is another program's database; choose another file"),
    ],
)
def test_a_file_of_another_schema_is_refused(path: Path, statement: str, message: str) -> None:
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute(statement)
    with pytest.raises(StoreUnavailable, match=message):
        SqliteStore(path)


@pytest.mark.parametrize("replace", [True, False])
def test_a_file_removed_or_replaced_while_open_is_not_written_into_the_void(
    store: SqliteStore, path: Path, replace: bool
) -> None:
    store.append("c", [Entry("", "", {})])
    path.unlink()
    if replace:
        path.touch()
    with pytest.raises(StoreUnavailable):
        store.append("c", [Entry("", "lost", {})])
    assert path.exists() is replace


def test_a_closed_store_says_so(path: Path) -> None:
    with SqliteStore(path) as store:
        pass
    store.close()
    with pytest.raises(StoreUnavailable, match="was closed; open it again"):
        store.heads()


def test_relative_and_absolute_addresses_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///state/a b%20#.db") as store:
        monkeypatch.chdir("/")
        store.append("c", [Entry("", "", {})])
    assert (tmp_path / "state" / "a b%20#.db").stat().st_size > 0
    with open_store(f"sqlite:///{tmp_path}/state/a b%20#.db") as store:
        assert len(store.read("c")) == 1


@pytest.mark.parametrize(
    "uri",
    ["", "audit.db", "sqlite://audit.db", "sqlite:///", "sqlite:////", "sqlite:///:memory:", "sqlite:///folder/",
     "sqlite:///audit.db?mode=ro", "SQLITE:///audit.db"],
)  # fmt: skip
def test_any_other_address_is_refused_with_what_would_be_right(uri: str) -> None:
    right = "is no audit store; give sqlite:///relative.db or sqlite:////absolute/path.db"
    with pytest.raises(ValueError, match=re.escape(f"{uri!r} {right}")):
        open_store(uri)


@pytest.mark.parametrize(
    ("uri", "told"),
    [
        ("mongodb:/ops:hunter2@db/audit", "this mongodb: address"),
        ("mongodb+srv:ops:hunter2@db/audit", "this mongodb+srv: address"),
        ("mongodb:ops:hunter2", "this mongodb: address"),
        ("ops:hunter2@db:27017/audit", "this address"),
        ("hunter2@db", "this address"),
        ("hunter2:27017/audit", "this address"),
        ("postgresql://ops:hunter2@host/db", "this address"),
        ("sqlite://ops:hunter2@host", "this sqlite: address"),
    ],
)
def test_an_address_that_may_hold_a_password_is_refused_without_telling_it(uri: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{told} is no audit store; give sqlite:///")) as refused:
        open_store(uri)
    assert "hunter2" not in str(refused.value)
