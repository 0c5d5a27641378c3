"""What waits on this machine for the shared audit store, and in which order?"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from trading_ops.audit import chain
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry, Record, StoreError
from trading_ops.commands import shell

SPOOL = "spool"
REFUSED = "spool_refused"
CURSOR = "shipped"
WINDOW = 1_000  # entries read at once
_AFTER = f"""FROM history WHERE collection = '{SPOOL}' AND seq > ?1 AND seq <= ?2
    AND substr(key, 1, length(?3)) = ?3"""
_END = 2**63 - 1

Sealed = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """One entry on its way: `text` is its canonical body, `batch` what it was appended together with.

    `store` is the label of the store it waits for, "" where that has none. `tried`: the shared store may have got it
    all the same; then as a record after number `after`.
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
    store: str = ""

    @property
    def lane(self) -> str:
        """See `lane`."""
        return lane(self.store, self.collection)

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
    """Everything up to `seq` is shipped, but for what follows `held` of the lanes that were left behind.

    `heads`: the last record of the shared store that each lane was seen with.
    """

    seq: int = 0
    heads: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] = field(default_factory=dict)
    version: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in the spool at `path`: since when, and why the shared store is not used now (None: it is).

    `refused` entries are kept in the spool for good, because the shared store does not take them; `refusal` says why
    for the last of them.
    """

    waiting: int
    oldest: datetime | None
    path: Path
    shared_error: str | None
    refused: int = 0
    refusal: str | None = None


class SpoolFile(SqliteStore):
    """An audit store of one collection, `spool`: what waited is evidence too, so nothing here is ever deleted."""

    def put(
        self,
        collection: str,
        sealed: Sequence[Sealed],
        recorded_at: datetime,
        *,
        tried: bool,
        after: int,
        store: str = "",
    ) -> None:
        """Write one batch behind what waits, all of it or nothing; on the disk when this returns."""
        # The batch's own name makes each body unlike every earlier one: the file must not drop a repetition.
        common = {
            "batch": uuid.uuid4().hex,
            "tried": tried,
            "after": after,
            "collection": collection,
            "recorded_at": chain.timestamp(recorded_at),
            **({"store": store} if store else {}),
        }
        place = lane(store, collection)
        entries = [
            Entry(
                partition,
                f"{place}{chain.canonical_json(key)}]",
                {**common, "partition": partition, "key": key, "body": text},
            )
            for partition, key, text, _ in sealed
        ]
        self.append(SPOOL, entries)

    def cursor(self) -> Cursor:
        """How far the entries are shipped."""
        found = self.get_state(SPOOL, CURSOR)
        if found is None:
            return Cursor()
        return Cursor(found.body["seq"], found.body["heads"], found.body.get("held", {}), found.version)

    def advance(
        self, cursor: Cursor, seq: int, heads: Mapping[str, int] | None = None, held: Mapping[str, int] | None = None
    ) -> Cursor:
        """Note that everything up to `seq` is shipped; raises Conflict when somebody else noted something."""
        seen, left = {**cursor.heads, **(heads or {})}, dict(cursor.held if held is None else held)
        body = {"seq": seq, "heads": seen, "held": left}
        return Cursor(seq, seen, left, self.put_state(SPOOL, CURSOR, body, expected_version=cursor.version).version)

    def waiting(self) -> int:
        """How many entries wait."""
        # The cursor first: it may only be too old then, which counts shipped entries and misses none.
        cursor, head = self.cursor(), self.head(SPOOL)
        count = f"SELECT count(*) {_AFTER}"
        behind = [self._file.rows(count, seq, cursor.seq, name)[0][0] for name, seq in cursor.held.items()]
        return max(0, (head.seq if head else 0) - cursor.seq) + sum(behind)

    def after(self, seq: int, limit: int = -1, *, lane: str = "", upto: int = _END) -> list[Waiting]:
        """The entries of a lane (default: of all) that follow `seq`, in the order of their commits.

        Raises StoreError for a damaged one.
        """
        sql = f"SELECT seq, recorded_at, digest, body {_AFTER} ORDER BY seq LIMIT ?4"
        try:
            return [_waiting(*row) for row in self._file.rows(sql, seq, upto, lane, limit)]
        except _Damaged as error:
            own = f"TRADING_OPS_STORE=sqlite:///{self._file._path}"
            look = shell("env", "MONGODB_URI=", own, "trading-ops", "audit", "verify")
            raise StoreError(
                f"the spool's {error}; stop what writes, keep a copy, and look at it with {look}"
            ) from error

    def firsts(self) -> list[Waiting]:
        """The first entry that waits in the queue, and in each lane that was left behind."""
        cursor = self.cursor()
        held = [self.after(seq, 1, lane=name, upto=cursor.seq) for name, seq in cursor.held.items()]
        return [entry for found in (self.after(cursor.seq, 1), *held) for entry in found]

    def waiting_in(self, lanes: Iterable[str], limit: int = -1) -> list[Waiting]:
        """The entries of some lanes that wait, in the order of their commits; other lanes are not even decoded."""
        cursor = self.cursor()
        found = [e for name in lanes for e in self.after(cursor.held.get(name, cursor.seq), limit, lane=name)]
        return sorted(found, key=lambda entry: entry.seq)

    def batches(self, seq: int, *, lane: str = "", upto: int = _END) -> list[list[Waiting]]:
        """The next whole batches that follow `seq`; none when nothing waits."""
        limit = WINDOW
        while True:
            entries = self.after(seq, limit, lane=lane, upto=upto)
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


def lane(store: str, collection: str) -> str:
    """What must keep its order: the entries of one collection for one store. All their keys here begin with this."""
    return chain.canonical_json([store, collection] if store else [collection])[:-1] + ","


def of_lane(name: str) -> tuple[str, str]:
    """The inverse of `lane`."""
    store, collection = ["", *json.loads(f"{name[:-1]}]")][-2:]
    return store, collection


class _Damaged(Exception):
    """An entry that is not what was written."""


def _waiting(seq: int, spooled_at: str, digest: str, body: str) -> Waiting:
    if chain.content_digest(body) != digest:
        raise _Damaged(f"entry {seq} is damaged")
    told = json.loads(body)
    text = told.pop("body")
    told["recorded_at"] = datetime.fromisoformat(told["recorded_at"])
    return Waiting(seq, datetime.fromisoformat(spooled_at), digest=chain.content_digest(text), text=text, **told)
