"""How does what waited reach the shared store, in order and exactly once?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol, TypeVar

from trading_ops.audit.spool_file import SpoolFile, Waiting, of_lane
from trading_ops.audit.store import Entry, InvalidRecord, Receipt, Record, StoreError, StoreUnavailable

FEW_KEYS = 8  # up to here each key is looked up by its name, above it whole partitions are read


class Reader(Protocol):
    """AuditStore.read of the shared store."""

    def __call__(
        self, collection: str, *, partitions: Sequence[str] | None, key: str | None, all_revisions: bool
    ) -> list[Record]: ...


Appender = Callable[[str, list[Entry], datetime], list[Receipt]]


class Stopped(Exception):
    """The shared store took no more; the cause is its StoreUnavailable."""


class _Broken(Exception):
    """The shared store is up but cannot take this collection; the cause is its StoreError."""


class Shipment:
    """One walk along the queue; the caller holds the spool's lock.

    An entry is shipped before the cursor moves on, so a killed process leaves at most one batch that is in the shared
    store and still in the queue: the first one. It is looked for there, as is all that was tried before it waited.

    What waits for another store than `store`, and a collection that this one cannot take now (`aside`, with the
    reason), is passed over: order only matters within a lane. The next shipment begins with what was passed over.
    """

    def __init__(
        self,
        spool: SpoolFile,
        append: Appender,
        read: Reader,
        *,
        store: str = "",
        aside: Mapping[str, str] | None = None,
    ) -> None:
        self._spool = spool
        self._append = append
        self._read = read
        self._store = store
        self._cursor = spool.cursor()
        self._held = dict(self._cursor.held)
        self._at = self._cursor.seq
        self.aside = dict(aside or {})
        self.served: set[str] = set()
        self.shipped = 0

    def run(self, patience_s: float) -> None:
        """Ship whole batches until none is left or the time is up, at least one; raises Stopped."""
        until = time.monotonic() + patience_s
        for name in list(self._held):
            if self._may_go(*of_lane(name)) and not self._catch_up(name, until):
                return
        doubtful = True
        while batches := self._spool.batches(self._at):
            for batch in batches:
                if not self._may_go(batch[0].store, batch[0].collection):
                    self._pass_over(batch)
                    continue
                if self._at > self._cursor.seq:  # noted first: only what follows the cursor is in doubt after a kill
                    self._note()
                try:
                    self._ship(batch, "", doubtful=doubtful)
                    doubtful = False
                except _Broken as broken:
                    self.aside[batch[0].collection] = str(broken.__cause__)
                    self._pass_over(batch)
                if time.monotonic() > until:
                    break
            else:
                continue
            break
        if self._at > self._cursor.seq:
            self._note()

    def _may_go(self, store: str, collection: str) -> bool:
        return store in ("", self._store) and collection not in self.aside

    def _pass_over(self, batch: list[Waiting]) -> None:
        self._held.setdefault(batch[0].lane, self._at)
        self._at = batch[-1].seq

    def _catch_up(self, name: str, until: float) -> bool:
        """Ship what was passed over of one lane; whether there is time left."""
        doubtful = True
        while batches := self._spool.batches(self._held[name], lane=name, upto=self._cursor.seq):
            for batch in batches:
                try:
                    self._ship(batch, name, doubtful=doubtful)
                except _Broken as broken:
                    self.aside[batch[0].collection] = str(broken.__cause__)
                    return time.monotonic() <= until
                doubtful = False
                if time.monotonic() > until:
                    return False
        del self._held[name]
        self._note()
        return True

    def _ship(self, batch: list[Waiting], behind: str, *, doubtful: bool) -> None:
        """Ship a batch of the queue, or of the lane that is `behind`."""
        collection, when = batch[0].collection, batch[0].recorded_at
        try:
            new = self._not_there(batch) if doubtful or batch[0].tried else batch
            receipts = self._append(collection, [entry.entry() for entry in new], when) if new else []
        except InvalidRecord as error:
            if len(batch) == 1:
                self._spool.refuse(batch[0], str(error))
                self._done(batch, behind)
                return
            for entry in batch:  # one of them spoils the batch: the others must not wait for ever
                self._ship([entry], behind, doubtful=doubtful)
            return
        except StoreUnavailable as error:
            raise Stopped from error
        except StoreError as error:
            raise _Broken from error
        self._done(batch, behind, {batch[0].lane: max(receipt.seq for receipt in receipts)} if receipts else {})
        self.served.add(collection)
        self.shipped += len(batch)

    def _done(self, batch: list[Waiting], behind: str, heads: Mapping[str, int] | None = None) -> None:
        if behind:
            self._held[behind] = batch[-1].seq
        else:
            self._at = batch[-1].seq
        self._note(heads)

    def _note(self, heads: Mapping[str, int] | None = None) -> None:
        self._cursor = self._spool.advance(self._cursor, self._at, heads, self._held)

    def _not_there(self, batch: list[Waiting]) -> list[Waiting]:
        """What of a batch the shared store has not got, though nobody heard that it got any of it."""
        collection, partitions = batch[0].collection, sorted({entry.partition for entry in batch})
        keys: list[str | None] = [*sorted({entry.key for entry in batch})]
        found: list[Record] = []
        for key in keys if len(keys) <= FEW_KEYS else [None]:
            found += self._read(collection, partitions=partitions, key=key, all_revisions=True)
        if not batch[0].tried:  # it can only have come behind what was shipped before it
            found = [record for record in found if record.seq > self._cursor.heads.get(batch[0].lane, 0)]
        there = _by_place(found)
        new = [e for place, entries in _by_place(batch).items() for e in missing(entries, there.get(place, []))]
        return sorted(new, key=lambda entry: entry.seq)


def missing(waiting: Sequence[Waiting], there: Sequence[Record]) -> Sequence[Waiting]:
    """What of one key's waiting entries follows those that are `there`, in the key's revisions.

    An entry before one that is there is there too: under its own name, or because it repeated what it found.
    """
    names = [(entry.digest, entry.recorded_at) for entry in waiting]
    done = 0
    for record in there:
        name = (record.digest, record.recorded_at)
        if name in names[done:] and record.seq > waiting[at := names.index(name, done)].after:
            done = at + 1
    return waiting[done:]


def overlaid(records: Sequence[Record], waiting: Sequence[Waiting], *, all_revisions: bool) -> list[Record]:
    """The shared store's answer as it will be when the waiting entries have arrived: theirs have seq 0, no hashes."""
    answer = _by_place(records)
    for place, entries in _by_place(waiting).items():
        known = answer.setdefault(place, [])
        for entry in missing(entries, known):
            if not known or known[-1].digest != entry.digest:
                known.append(entry.record(known[-1].revision + 1 if known else 1))
    return [record for _, known in sorted(answer.items()) for record in (known if all_revisions else known[-1:])]


def passed_over(store: str, firsts: Sequence[Waiting], aside: Mapping[str, str], path: Path) -> str | None:
    """Why entries, each the first of its lane, wait in the spool at `path` although the shared store is up."""
    why = [
        error if error.startswith(f"{name}:") else f"{name}: {error}" for name, error in sorted(aside.items()) if firsts
    ]
    for other in sorted({entry.store for entry in firsts} - {"", store}):
        why.append(
            f"there are entries that wait for {other}, not for {store or 'this store'}; set MONGODB_URI back"
            f" until they are shipped, or move {path} away to give them up"
        )
    return "; ".join(why) or None


_Placed = TypeVar("_Placed", Waiting, Record)


def _by_place(placed: Iterable[_Placed]) -> dict[tuple[str, str], list[_Placed]]:
    found: dict[tuple[str, str], list[_Placed]] = {}
    for one in placed:
        found.setdefault((one.partition, one.key), []).append(one)
    return found
