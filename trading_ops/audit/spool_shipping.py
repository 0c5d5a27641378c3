"""How does what waited reach the shared store, in order and exactly once?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from trading_ops.audit.spool_file import SpoolFile, Waiting
from trading_ops.audit.store import Entry, InvalidRecord, Receipt, Record, StoreError

FEW_KEYS = 8  # up to here each key is looked up by its name, above it whole partitions are read


class Reader(Protocol):
    """AuditStore.read of the shared store."""

    def __call__(
        self, collection: str, *, partitions: Sequence[str] | None, key: str | None, all_revisions: bool
    ) -> list[Record]: ...


Appender = Callable[[str, list[Entry], datetime], list[Receipt]]


class Stopped(Exception):
    """The shared store took no more; the cause is its StoreError."""


class Shipment:
    """One walk along the queue; the caller holds the spool's lock.

    An entry is shipped before the cursor moves on, so a killed process leaves at most one batch that is in the shared
    store and still in the queue: the first one. It is looked for there, as is all that was tried before it waited.
    """

    def __init__(self, spool: SpoolFile, append: Appender, read: Reader) -> None:
        self._spool = spool
        self._append = append
        self._read = read
        self._cursor = spool.cursor()
        self.shipped = 0

    def run(self, patience_s: float) -> None:
        """Ship whole batches until none is left or the time is up, at least one; raises Stopped."""
        until = time.monotonic() + patience_s
        doubtful = True
        while batches := self._spool.batches(self._cursor.seq):
            for batch in batches:
                self._ship(batch, doubtful=doubtful)
                doubtful = False
                if time.monotonic() > until:
                    return

    def _ship(self, batch: list[Waiting], *, doubtful: bool) -> None:
        collection, when = batch[0].collection, batch[0].recorded_at
        try:
            new = self._not_there(batch) if doubtful or batch[0].tried else batch
            receipts = self._append(collection, [entry.entry() for entry in new], when) if new else []
        except InvalidRecord as error:
            if len(batch) == 1:
                self._spool.refuse(batch[0], str(error))
                self._cursor = self._spool.advance(self._cursor, batch[0].seq)
                return
            for entry in batch:  # one of them spoils the batch: the others must not wait for ever
                self._ship([entry], doubtful=doubtful)
            return
        except StoreError as error:
            raise Stopped from error
        heads = {collection: max(receipt.seq for receipt in receipts)} if receipts else {}
        self._cursor = self._spool.advance(self._cursor, batch[-1].seq, heads)
        self.shipped += len(batch)

    def _not_there(self, batch: list[Waiting]) -> list[Waiting]:
        """What of a batch the shared store has not got, though nobody heard that it got any of it."""
        collection, partitions = batch[0].collection, sorted({entry.partition for entry in batch})
        keys: list[str | None] = [*sorted({entry.key for entry in batch})]
        found: list[Record] = []
        for key in keys if len(keys) <= FEW_KEYS else [None]:
            found += self._read(collection, partitions=partitions, key=key, all_revisions=True)
        if not batch[0].tried:  # it can only have come behind what was shipped before it
            found = [record for record in found if record.seq > self._cursor.heads.get(collection, 0)]
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


_Placed = TypeVar("_Placed", Waiting, Record)


def _by_place(placed: Iterable[_Placed]) -> dict[tuple[str, str], list[_Placed]]:
    found: dict[tuple[str, str], list[_Placed]] = {}
    for one in placed:
        found.setdefault((one.partition, one.key), []).append(one)
    return found
