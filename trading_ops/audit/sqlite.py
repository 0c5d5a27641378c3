"""How does one SQLite file keep the audit trail?"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from trading_ops.audit import chain, stored
from trading_ops.audit.sqlite_file import SqliteFile
from trading_ops.audit.store import Break, Conflict, Entry, Head, Receipt, Record, StateDocument

PATIENCE_S = 10.0  # with a locked file: well below the minute of a sensor, which tells people by another way then
_COLUMNS = "h.seq, h.partition, h.key, h.revision, h.recorded_at, h.digest, h.prev_hash, h.hash, h.body"
_NEWEST_ONLY = """ AND NOT EXISTS (SELECT 1 FROM history n WHERE n.collection = h.collection
    AND n.partition = h.partition AND n.key = h.key AND n.revision > h.revision)"""
_INSERT = f"INSERT OR ROLLBACK INTO history VALUES ({', '.join('?' * 10)})"
# what an append follows, in one question: the head (without a place) and the newest revisions of the batch, or of one
_HEAD_ROW = """SELECT * FROM (SELECT NULL, NULL, seq, 0, '', hash FROM history WHERE collection = ?1
    ORDER BY seq DESC LIMIT 1) UNION ALL"""
_FOLLOWED_BY_BATCH = f"""{_HEAD_ROW} SELECT h.partition, h.key, h.seq, h.revision, h.digest, h.hash FROM json_each(?2) w
    CROSS JOIN history h ON h.collection = ?1 AND h.partition = json_extract(w.value, '$[0]')
    AND h.key = json_extract(w.value, '$[1]') WHERE 1 {_NEWEST_ONLY}"""
_FOLLOWED_BY_ONE = f"""{_HEAD_ROW} SELECT * FROM (SELECT partition, key, seq, revision, digest, hash FROM history
    WHERE collection = ?1 AND partition = ?2 AND key = ?3 ORDER BY revision DESC LIMIT 1)"""
_HEAD = "SELECT seq, hash FROM history WHERE collection = ? ORDER BY seq DESC LIMIT 1"
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


class SqliteStore:
    """An AuditStore in one file, safe for many threads and processes; acknowledged means on the disk."""

    def __init__(self, path: str | Path, *, busy_timeout_s: float = PATIENCE_S) -> None:
        """Open or create the file; raises StoreUnavailable when that cannot be done."""
        self._file = SqliteFile(Path(path).absolute(), busy_timeout_s)

    def append(
        self,
        collection: str,
        entries: Sequence[Entry],
        *,
        recorded_at: datetime | None = None,
        revision: int | None = None,
    ) -> list[Receipt]:
        """See AuditStore.append."""
        sealed = chain.seal(collection, entries)
        if not sealed:
            return []
        given = chain.timestamp(recorded_at) if recorded_at else ""
        question = _FOLLOWED_BY_ONE
        places: tuple[str, ...] = sealed[0][:2]
        if len(sealed) > 1:
            pairs = sorted({entry[:2] for entry in sealed})
            question, places = _FOLLOWED_BY_BATCH, (json.dumps(pairs, ensure_ascii=False),)
        with self._file.transaction() as db:
            head, newest = None, {}
            for partition, key, *known in db.execute(question, (collection, *places)):
                if partition is None:
                    head = Head(collection, known[0], known[3])
                else:
                    newest[partition, key] = chain.Newest(*known)
            when = given or chain.timestamp(datetime.now(UTC))
            links, receipts = chain.extend(collection, head, newest, sealed, when, revision)
            db.executemany(_INSERT, [(collection, *link) for link in links])
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
        rows = self._file.rows(sql, collection, *chosen.values())
        return [stored.to_record(collection, chain.Link(*row)) for row in rows]

    def collections(self) -> list[str]:
        """See AuditStore.collections."""
        return [name for (name,) in self._file.rows(_COLLECTIONS) if isinstance(name, str)]

    def head(self, collection: str) -> Head | None:
        """See AuditStore.head."""
        return next((stored.to_head(collection, *row) for row in self._file.rows(_HEAD, collection)), None)

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
        rows = self._file.rows(f"{_STATE} AND key = ?", collection, key)
        return next((stored.to_state(*row) for row in rows), None)

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
        return stored.to_state(*row)

    def together(self) -> AbstractContextManager[object]:
        """See AuditStore.together; another thread or process that writes waits for it."""
        return self._file.transaction()

    def list_state(self, collection: str, prefix: str = "") -> list[StateDocument]:
        """See AuditStore.list_state."""
        sql = f"{_STATE} AND key >= ? AND substr(key, 1, ?) = ? ORDER BY key"
        rows = self._file.rows(sql, collection, prefix, len(prefix), prefix)
        return [stored.to_state(*row) for row in rows]

    def state_collections(self) -> list[str]:
        """See AuditStore.state_collections."""
        names = self._file.rows("SELECT DISTINCT collection FROM state ORDER BY collection")
        return [name for (name,) in names if isinstance(name, str)]

    def close(self) -> None:
        """See AuditStore.close."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
