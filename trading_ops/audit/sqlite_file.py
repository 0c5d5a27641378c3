"""How do several threads and processes share one SQLite file, through kill -9, fork and power loss?"""

import ctypes
import os
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from trading_ops.audit.store import Conflict, InvalidRecord, StoreError, StoreUnavailable

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
    # INSERT OR REPLACE fires no delete trigger, so an insert may only go to the end of its collection. FAIL (and OR
    # ROLLBACK in ours), because ABORT makes SQLite keep a journal of each statement. Older files say ABORT.
    """CREATE TRIGGER history_only_grows BEFORE INSERT ON history
       WHEN NEW.seq <> 1 + coalesce((SELECT seq FROM history WHERE collection = NEW.collection
       ORDER BY seq DESC LIMIT 1), 0) BEGIN SELECT RAISE(FAIL, 'history is append-only'); END""",
    """CREATE TABLE state (collection TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, body TEXT NOT NULL,
       updated_at TEXT NOT NULL, PRIMARY KEY (collection, key))""",
    f"PRAGMA user_version = {SCHEMA_VERSION}",
)
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
_FILES: "weakref.WeakSet[SqliteFile]" = weakref.WeakSet()


class SqliteFile:
    """One database file: a connection for each thread of each process, and advice when it cannot be used."""

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._path, self._name = path, str(path)
        self._explained = _Explained(path)
        self._busy_timeout_s = busy_timeout_s
        self._connections: dict[threading.Thread, sqlite3.Connection] = {}
        self._under_way: dict[int, _Transaction] = {}  # by connection
        self._pid = os.getpid()
        self._closed = False
        with self._explained:
            _create(path)
            self._inode = os.stat(self._name).st_ino
            self._connection()
        _FILES.add(self)

    def rows(self, sql: str, *values: object) -> list[Any]:
        """All rows of one query."""
        with self._explained:
            db = self._connection()
            return self._patiently(lambda: db.execute(sql, values).fetchall())

    def transaction(self) -> "_Transaction":
        """A write transaction: on the disk when left, rolled back on any error; within another, a part of that one."""
        return _Transaction(self)

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own that sees one moment of the file."""
        with self._explained, closing(self._connect()) as db:
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
        thread = threading.current_thread()
        if (busy := self._connections.get(thread)) is not None and self._pid == os.getpid() and busy.in_transaction:
            return busy  # what follows was asked when the transaction began
        if os.stat(self._name).st_ino != self._inode:  # by text: every append asks, and a Path costs as much again
            raise StoreUnavailable(f"{self._path} was replaced while open; restart what uses it")
        self.leave_parent()
        known = self._connections.get(thread)
        if known is None:
            for ended in [other for other in list(self._connections) if not other.is_alive()]:
                if stale := self._connections.pop(ended, None):
                    stale.close()
            known = self._connections[thread] = self._connect()
        return known

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
            with _Transaction(self, db):
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


class _Transaction:
    """Begun, committed or rolled back, and what goes wrong explained; a class, because every single append is one."""

    __slots__ = ("_db", "_file", "_spoiled", "_whole")

    def __init__(self, file: SqliteFile, db: sqlite3.Connection | None = None) -> None:
        self._file, self._db = file, db
        self._whole: _Transaction | None = None  # what this is a part of
        self._spoiled: BaseException | None = None  # what went wrong in a part, for the whole is undone then

    def __enter__(self) -> sqlite3.Connection:
        try:
            db = self._db = self._db or self._file._connection()
            self._whole = self._file._under_way.get(id(db))
            if self._whole is None:
                self._file._patiently(lambda: db.execute("BEGIN IMMEDIATE"))
                self._file._under_way[id(db)] = self
            elif self._whole._spoiled is not None:
                raise self._whole._spoiled  # SQLite may have ended the transaction: what follows would be kept alone
        except BaseException:
            with self._file._explained:
                raise
        return db

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        assert self._db is not None
        if self._whole is None:
            del self._file._under_way[id(self._db)]
        try:
            with self._file._explained:
                if error is not None:
                    raise error
                if self._spoiled is not None:
                    raise self._spoiled
                if self._whole is None:
                    self._db.execute("COMMIT")
        except BaseException as wrong:
            if self._whole is None:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                if self._spoiled is not None and self._spoiled is not wrong and isinstance(wrong, Exception):
                    raise self._spoiled from wrong
            elif not isinstance(wrong, Conflict | InvalidRecord):  # these refuse before anything is written
                self._whole._spoiled = self._whole._spoiled or wrong
            raise


class _Explained:
    """Turns what SQLite and the system say about a file into a StoreError with advice."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.ProgrammingError):
            return
        if isinstance(error, OSError):
            raise StoreUnavailable(f"{self._path} {_NO_ENTRY} ({error})") from error
        if isinstance(error, sqlite3.Error):
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


def _leave_parents() -> None:
    for file in list(_FILES):
        file.leave_parent()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_leave_parents)
