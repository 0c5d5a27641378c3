"""How does one SQLite file keep the audit trail of several processes, through kill -9 and power loss?"""

import ctypes
import json
import os
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from trading_ops.audit import chain
from trading_ops.audit.store import (
    Break,
    Conflict,
    Entry,
    Head,
    Receipt,
    Record,
    StateDocument,
    StoreError,
    StoreUnavailable,
)

SCHEMA_VERSION = 1
_SCHEMA = (
    """CREATE TABLE history (collection TEXT NOT NULL, seq INTEGER NOT NULL, partition TEXT NOT NULL, key TEXT NOT NULL,
       revision INTEGER NOT NULL, recorded_at TEXT NOT NULL, digest TEXT NOT NULL, prev_hash TEXT NOT NULL,
       hash TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (collection, seq))""",
    "CREATE UNIQUE INDEX history_by_key ON history (collection, partition, key, revision)",
    """CREATE TRIGGER history_keeps_records BEFORE UPDATE ON history
       BEGIN SELECT RAISE(ABORT, 'history is append-only'); END""",
    """CREATE TRIGGER history_loses_nothing BEFORE DELETE ON history
       BEGIN SELECT RAISE(ABORT, 'history is append-only'); END""",
    # INSERT OR REPLACE fires no delete trigger, so an insert may only go to the end of its collection.
    """CREATE TRIGGER history_only_grows BEFORE INSERT ON history
       WHEN NEW.seq <> 1 + coalesce((SELECT max(seq) FROM history WHERE collection = NEW.collection), 0)
       BEGIN SELECT RAISE(ABORT, 'history is append-only'); END""",
    """CREATE TABLE state (collection TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
       updated_at TEXT NOT NULL, PRIMARY KEY (collection, key))""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
_COLUMNS = "h.seq, h.partition, h.key, h.revision, h.recorded_at, h.digest, h.prev_hash, h.hash, h.body"
_NEWEST_ONLY = """ AND NOT EXISTS (SELECT 1 FROM history n WHERE n.collection = h.collection
    AND n.partition = h.partition AND n.key = h.key AND n.revision > h.revision)"""
_INSERT = f"INSERT INTO history VALUES ({', '.join('?' * 10)})"
_NEWEST_OF_BATCH = f"""SELECT h.partition, h.key, h.seq, h.revision, h.digest, h.hash FROM json_each(?2) w
    CROSS JOIN history h ON h.collection = ?1 AND h.partition = json_extract(w.value, '$[0]')
    AND h.key = json_extract(w.value, '$[1]') WHERE 1 {_NEWEST_ONLY}"""
_HEAD = "SELECT collection, seq, hash FROM history WHERE collection = ? ORDER BY seq DESC LIMIT 1"
_COLLECTIONS = """WITH RECURSIVE c(name) AS (SELECT min(collection) FROM history UNION ALL
    SELECT (SELECT min(collection) FROM history WHERE collection > c.name) FROM c WHERE c.name IS NOT NULL)
    SELECT name FROM c WHERE name IS NOT NULL"""
_LINKS = f"""SELECT {_COLUMNS}, (SELECT p.seq FROM history p WHERE p.collection = h.collection
    AND p.partition = h.partition AND p.key = h.key AND p.revision = h.revision - 1)
    FROM history h WHERE h.collection = CAST(? AS TEXT) ORDER BY h.seq"""
_STATE = "SELECT collection, key, version, body, updated_at FROM state WHERE collection = ?"
_PUT = """INSERT INTO state (collection, key, version, body, updated_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (collection, key) DO UPDATE SET version = excluded.version, body = excluded.body,
    updated_at = excluded.updated_at"""

_NO_ENTRY = "cannot be used; check owner, permissions and mount of the file and its folder"
_DAMAGED = "is damaged or no SQLite database; stop the writers, keep a copy and restore a backup"
_ADVICE = {
    sqlite3.SQLITE_BUSY: "stayed locked by another process; find it (fuser FILE), then try again",
    sqlite3.SQLITE_READONLY: _NO_ENTRY,
    sqlite3.SQLITE_PERM: _NO_ENTRY,
    sqlite3.SQLITE_CANTOPEN: _NO_ENTRY,
    sqlite3.SQLITE_FULL: "has no room: the disk is full. Free some space; nothing of this call was stored",
    sqlite3.SQLITE_IOERR: "could not be read or written; check the disk's health, quota and free space",
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}
_Result = TypeVar("_Result")
_FILES: "weakref.WeakSet[_File]" = weakref.WeakSet()


class SqliteStore:
    """An AuditStore in one file, safe for many threads and processes; acknowledged means on the disk."""

    def __init__(self, path: str | Path, *, busy_timeout_s: float = 30.0) -> None:
        """Open or create the file; raises StoreUnavailable when that cannot be done."""
        self._file = _File(Path(path).absolute(), busy_timeout_s)

    def append(
        self, collection: str, entries: Sequence[Entry], *, recorded_at: datetime | None = None
    ) -> list[Receipt]:
        """See AuditStore.append."""
        sealed = chain.seal(collection, entries)
        if not sealed:
            return []
        given = chain.timestamp(recorded_at) if recorded_at else ""
        pairs = json.dumps(sorted({entry[:2] for entry in sealed}), ensure_ascii=False)
        with self._file.transaction() as db:
            rows = db.execute(_NEWEST_OF_BATCH, (collection, pairs))
            newest = {(partition, key): chain.Newest(*known) for partition, key, *known in rows}
            head = next((Head(*row) for row in db.execute(_HEAD, (collection,))), None)
            when = given or chain.timestamp(datetime.now(UTC))
            links, receipts = chain.extend(collection, head, newest, sealed, when)
            db.executemany(_INSERT, ((collection, *link) for link in links))
        return receipts

    def read(
        self,
        collection: str,
        *,
        first: str | None = None,
        last: str | None = None,
        partitions: Sequence[str] | None = None,
        key: str | None = None,
        all_revisions: bool = False,
    ) -> list[Record]:
        """See AuditStore.read."""
        listed = None if partitions is None else json.dumps(list(partitions), ensure_ascii=False)
        wanted = {
            " AND h.partition >= ?": first,
            " AND h.partition <= ?": last,
            " AND h.partition IN (SELECT value FROM json_each(?))": listed,
            " AND h.key = ?": key,
        }
        chosen = {clause: value for clause, value in wanted.items() if value is not None}
        sql = f"SELECT {_COLUMNS} FROM history h WHERE h.collection = ?{''.join(chosen)}"
        sql += ("" if all_revisions else _NEWEST_ONLY) + " ORDER BY h.partition, h.key, h.revision"
        return [_record(collection, chain.Link(*row)) for row in self._file.rows(sql, collection, *chosen.values())]

    def collections(self) -> list[str]:
        """See AuditStore.collections."""
        return [name for (name,) in self._file.rows(_COLLECTIONS)]

    def head(self, collection: str) -> Head | None:
        """See AuditStore.head."""
        return next((Head(*row) for row in self._file.rows(_HEAD, collection)), None)

    def heads(self) -> list[Head]:
        """See AuditStore.heads."""
        return [head for name in self.collections() if (head := self.head(name))]

    def verify(self, collection: str | None = None, *, expected: Sequence[Head] = ()) -> list[Break]:
        """See AuditStore.verify."""
        with self._file.snapshot() as db:
            # Damaged bytes must reach the hash as they are, not stop the walk.
            db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            found = [name for (name,) in db.execute(_COLLECTIONS)]
            breaks: list[Break | None] = [Break(repr(name), 1, "not text") for name in found if isinstance(name, bytes)]
            names = {head.collection for head in expected}.union(name for name in found if isinstance(name, str))
            for name in sorted(names if collection is None else [collection]):
                rows = db.execute(_LINKS, (name.encode("utf-8", "surrogateescape"),))
                noted = [head for head in expected if head.collection == name]
                breaks.append(chain.first_break(name, ((chain.Link(*row[:9]), row[9]) for row in rows), noted))
        return [broken for broken in breaks if broken]

    def get_state(self, collection: str, key: str) -> StateDocument | None:
        """See AuditStore.get_state."""
        return next((_document(*row) for row in self._file.rows(f"{_STATE} AND key = ?", collection, key)), None)

    def put_state(self, collection: str, key: str, body: Mapping[str, Any], *, expected_version: int) -> StateDocument:
        """See AuditStore.put_state."""
        chain.check_name("collection", collection)
        chain.check_name("key", key, empty=True)
        text = chain.canonical_document(body)
        with self._file.transaction() as db:
            rows = db.execute("SELECT version FROM state WHERE collection = ? AND key = ?", (collection, key))
            found = next((version for (version,) in rows), 0)
            if found != expected_version:
                raise Conflict(f"{collection}, {key!r}: expected version {expected_version}, found {found}")
            row = (collection, key, found + 1, text, chain.timestamp(datetime.now(UTC)))
            db.execute(_PUT, row)
        return _document(*row)

    def list_state(self, collection: str, prefix: str = "") -> list[StateDocument]:
        """See AuditStore.list_state."""
        sql = f"{_STATE} AND key >= ? AND substr(key, 1, ?) = ? ORDER BY key"
        return [_document(*row) for row in self._file.rows(sql, collection, prefix, len(prefix), prefix)]

    def close(self) -> None:
        """See AuditStore.close."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _File:
    """One database file: a connection for each thread of each process, and advice when it cannot be used."""

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._path = path
        self._busy_timeout_s = busy_timeout_s
        self._connections: dict[threading.Thread, sqlite3.Connection] = {}
        self._pid = os.getpid()
        self._closed = False
        with self._explained():
            _create(path)
            self._inode = path.stat().st_ino
            self._connection()
        _FILES.add(self)

    def rows(self, sql: str, *values: object) -> list[Any]:
        """All rows of one query."""
        with self._explained():
            db = self._connection()
            return self._patiently(lambda: db.execute(sql, values).fetchall())

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction: on the disk when left, rolled back on any error."""
        with self._explained():
            db = self._connection()
            with self._begun(db):
                yield db

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own that sees one moment of the file."""
        with self._explained(), closing(self._connect()) as db:
            db.execute("BEGIN")
            yield db

    def close(self) -> None:
        """Close the connections of all threads."""
        self.leave_parent()
        self._closed = True
        while self._connections:
            self._connections.popitem()[1].close()

    def leave_parent(self) -> None:
        """In a forked child: forget the parent's connections without closing them."""
        if self._pid != os.getpid():
            for db in self._connections.values():
                # Even closing one here could corrupt the file or hang, so it is leaked on purpose.
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))
            self._connections, self._pid = {}, os.getpid()

    def _connection(self) -> sqlite3.Connection:
        """This thread's own connection in this process; those of ended threads are closed on the way."""
        if self._closed:
            raise StoreUnavailable(f"{self._path}: this store was closed; open it again")
        if self._path.stat().st_ino != self._inode:
            raise StoreUnavailable(f"{self._path} was replaced while open; restart what uses it")
        self.leave_parent()
        thread = threading.current_thread()
        if thread not in self._connections:
            for ended in [known for known in list(self._connections) if not known.is_alive()]:
                if stale := self._connections.pop(ended, None):
                    stale.close()
            self._connections[thread] = self._connect()
        return self._connections[thread]

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a file that vanished must not come back as an empty history
        uri, wait_s = f"{self._path.as_uri()}?mode=rw", self._busy_timeout_s
        db = sqlite3.connect(uri, uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA fullfsync = ON")  # on macOS a plain fsync does not survive power loss
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Bring the file to WAL and our schema; harmless to repeat, and for several processes at once."""
        known = self._patiently(lambda: self._has_schema(db))
        (mode,) = self._patiently(lambda: db.execute("PRAGMA journal_mode = WAL").fetchone())
        if mode != "wal":
            raise StoreUnavailable(f"{self._path}: this file system cannot do write-ahead logging; use a local disk")
        if not known:
            with self._begun(db):
                for statement in () if self._has_schema(db) else _SCHEMA:
                    db.execute(statement)

    def _has_schema(self, db: sqlite3.Connection) -> bool:
        """Whether the file holds our tables; raises StoreUnavailable for a newer or a foreign file."""
        # In this order: our tables and version appear together, perhaps between these two lines.
        used = db.execute("SELECT 1 FROM sqlite_master").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreUnavailable(
                f"{self._path} was written by a newer trading_ops (schema {version}, this one knows {SCHEMA_VERSION});"
                " upgrade trading_ops"
            )
        if used and not version:
            raise StoreUnavailable(f"{self._path} is another program's database; choose another file")
        return bool(version)

    @contextmanager
    def _begun(self, db: sqlite3.Connection) -> Iterator[None]:
        self._patiently(lambda: db.execute("BEGIN IMMEDIATE"))
        try:
            yield
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _patiently(self, call: Callable[[], _Result]) -> _Result:
        """Repeat a call while SQLite says busy at once, which it does in some races despite its busy timeout."""
        deadline = time.monotonic() + self._busy_timeout_s
        while True:
            try:
                return call()
            except sqlite3.OperationalError as error:
                if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                    raise
                time.sleep(0.01)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what SQLite and the system say into a StoreError with advice."""
        try:
            yield
        except sqlite3.ProgrammingError:
            raise
        except OSError as error:
            raise StoreUnavailable(f"{self._path} {_NO_ENTRY} ({error})") from error
        except sqlite3.Error as error:
            if advice := _ADVICE.get(_code(error)):
                raise StoreUnavailable(f"{self._path} {advice} ({error})") from error
            raise StoreError(f"{self._path}: {error}; verify() finds a damaged record") from error


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 when the error is not SQLite's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _create(path: Path) -> None:
    """Create the file (0600) and its folders (0700) where missing, and make their names durable."""
    if path.exists():
        return
    missing = [folder for folder in path.parents if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    # Not opened under its own name: closing it again would drop the locks other threads hold on it.
    handle, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    os.close(handle)
    try:
        os.link(temporary, path)
    except FileExistsError:
        pass  # another process was first, which is as good
    finally:
        os.unlink(temporary)
    for folder in path.parents[: len(missing) + 1] if os.name == "posix" else ():
        entry = os.open(folder, os.O_RDONLY)
        os.fsync(entry)
        os.close(entry)


def _record(collection: str, link: chain.Link) -> Record:
    try:
        when, body = datetime.fromisoformat(link.recorded_at), json.loads(link.body)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{collection}: record {link.seq} is damaged ({error}); run verify()") from error
    return Record(collection, *link[:4], when, *link[5:8], body)


def _document(collection: str, key: str, version: int, body: str, updated_at: str) -> StateDocument:
    return StateDocument(collection, key, version, json.loads(body), datetime.fromisoformat(updated_at))


def _leave_parents() -> None:
    for file in list(_FILES):
        file.leave_parent()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_leave_parents)
