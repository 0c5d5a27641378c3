"""What waits on this machine for the shared audit store, and in which order?"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any

from trading_ops.audit import chain
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry, Record, StoreError

SPOOL = "spool"
REFUSED = "spool_refused"
CURSOR = "shipped"
WINDOW = 1_000  # entries read at once
_AFTER = f"""SELECT seq, recorded_at, digest, body FROM history WHERE collection = '{SPOOL}' AND seq > ?
    ORDER BY seq LIMIT ?"""

Sealed = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """One entry on its way: `text` is its canonical body, `batch` what it was appended together with.

    `tried`: the shared store may have got it all the same; then as a record after number `after`.
    """

    seq: int
    spooled_at: datetime
    batch: str
    tried: bool
    after: int
    collection: str
    partition: str
    key: str
    recorded_at: datetime
    digest: str
    text: str

    def entry(self) -> Entry:
        """What the writer wanted remembered."""
        return Entry(self.partition, self.key, json.loads(self.text))

    def record(self, revision: int) -> Record:
        """The record it will become; its place in the chain (seq 0, no hashes) is not known yet."""
        body = json.loads(self.text)
        return Record(
            self.collection, 0, self.partition, self.key, revision, self.recorded_at, self.digest, "", "", body
        )


@dataclass(frozen=True, slots=True)
class Cursor:
    """Everything up to `seq` is shipped; `heads`: the last record each collection of the shared store was seen with."""

    seq: int = 0
    heads: Mapping[str, int] = field(default_factory=dict)
    version: int = 0


class SpoolFile(SqliteStore):
    """An audit store of one collection, `spool`: what waited is evidence too, so nothing here is ever deleted."""

    def put(self, collection: str, sealed: Sequence[Sealed], recorded_at: datetime, *, tried: bool, after: int) -> None:
        """Write one batch behind what waits, all of it or nothing; on the disk when this returns."""
        # The batch's own name makes each body unlike every earlier one: the file must not drop a repetition.
        common = {
            "batch": uuid.uuid4().hex,
            "tried": tried,
            "after": after,
            "collection": collection,
            "recorded_at": chain.timestamp(recorded_at),
        }
        entries = [
            Entry(partition, _place(collection, key), {**common, "partition": partition, "key": key, "body": text})
            for partition, key, text, _ in sealed
        ]
        self.append(SPOOL, entries)

    def cursor(self) -> Cursor:
        """How far the entries are shipped."""
        found = self.get_state(SPOOL, CURSOR)
        return Cursor(found.body["seq"], found.body["heads"], found.version) if found else Cursor()

    def advance(self, cursor: Cursor, seq: int, heads: Mapping[str, int] | None = None) -> Cursor:
        """Note that everything up to `seq` is shipped; raises Conflict when somebody else noted something."""
        seen = {**cursor.heads, **(heads or {})}
        written = self.put_state(SPOOL, CURSOR, {"seq": seq, "heads": seen}, expected_version=cursor.version)
        return Cursor(seq, seen, written.version)

    def waiting(self) -> int:
        """How many entries wait."""
        # The cursor first: it may only be too old then, which counts shipped entries and misses none.
        shipped, head = self.cursor().seq, self.head(SPOOL)
        return max(0, (head.seq if head else 0) - shipped)

    def after(self, seq: int, limit: int = -1) -> list[Waiting]:
        """The entries that follow `seq`, in the order of their commits; raises StoreError for a damaged one."""
        return [_waiting(*row) for row in self._file.rows(_AFTER, seq, limit)]

    def batches(self, seq: int) -> list[list[Waiting]]:
        """The next whole batches that follow `seq`; none when nothing waits."""
        limit = WINDOW
        while True:
            entries = self.after(seq, limit)
            found = [list(batch) for _, batch in groupby(entries, key=lambda entry: entry.batch)]
            if len(entries) < limit:
                return found
            if len(found) > 1:
                return found[:-1]  # the last one may be cut off here
            limit *= 8

    def refuse(self, entry: Waiting, reason: str) -> None:
        """Note that the shared store does not take this entry; it stays here, out of the queue."""
        key = f"{entry.seq:012}"
        body = {"collection": entry.collection, "partition": entry.partition, "key": entry.key, "reason": reason}
        if self.get_state(REFUSED, key) is None:
            self.put_state(REFUSED, key, body, expected_version=0)

    def refusals(self) -> list[dict[str, Any]]:
        """The entries that the shared store does not take, oldest first, with its reasons."""
        return [document.body for document in self.list_state(REFUSED)]


def _place(collection: str, key: str) -> str:
    return chain.canonical_json([collection, key])


def _waiting(seq: int, spooled_at: str, digest: str, body: str) -> Waiting:
    if chain.content_digest(body) != digest:
        raise StoreError(f"the spool's entry {seq} is damaged; keep a copy of the file, then run verify() on it")
    told = json.loads(body)
    text = told.pop("body")
    told["recorded_at"] = datetime.fromisoformat(told["recorded_at"])
    return Waiting(seq, datetime.fromisoformat(spooled_at), digest=chain.content_digest(text), text=text, **told)
