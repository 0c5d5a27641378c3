"""What becomes of the records while the shared audit store is down?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from filelock import FileLock, Timeout

from trading_ops.audit import chain
from trading_ops.audit.breaker import Breaker
from trading_ops.audit.spool_file import Backlog, SpoolFile, Waiting, lane
from trading_ops.audit.spool_shipping import Shipment, Stopped, overlaid, passed_over
from trading_ops.audit.store import (
    AuditStore,
    Break,
    Entry,
    Head,
    Receipt,
    Record,
    StateDocument,
    StoreError,
    StoreUnavailable,
)

PATIENCE_S = 2.0  # how long a caller who only wants to append or read ships for others
_Result = TypeVar("_Result")


class SpooledStore:
    """A shared audit store; while it is down history waits in a local file and is shipped in order later.

    State is never spooled: a compare-and-set that nobody compared is worth nothing, so it raises. After a failure the
    shared store is left alone for `retry_after_s`. Threads, forks and several processes may share one spool.
    """

    def __init__(
        self,
        shared: AuditStore,
        spool_path: str | Path,
        *,
        retry_after_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        label: str = "",
    ) -> None:
        """Opens nothing: the spool's file is made when something must wait.

        `label` names the shared store, without credentials: what waits for one is never shipped to another.
        """
        self._shared = shared
        self._label = label
        self._aside: dict[str, Breaker] = {}  # collections that the shared store cannot take, though it is up
        self._new_breaker = lambda: Breaker(clock, retry_after_s)
        self._path = Path(spool_path).absolute()
        # Two, because a store whose disk is full, or whose user may only read, still answers questions.
        self._writes = self._new_breaker()
        self._reads = self._new_breaker()
        self._opened: dict[str, SpoolFile] = {}
        self._seen: dict[str, int] = {}
        self._closed = False

    def append(
        self,
        collection: str,
        entries: Sequence[Entry],
        *,
        recorded_at: datetime | None = None,
        revision: int | None = None,
    ) -> list[Receipt]:
        """See AuditStore.append; while the store is down, or older entries of the collection wait, it is `spooled`.

        Raises StoreUnavailable when the spool cannot be written either, and for a certain `revision`: nobody knows
        here whether it could be that one.
        """
        if revision is not None:
            return self._writes.call(
                lambda: self._shared.append(collection, entries, recorded_at=recorded_at, revision=revision)
            )
        sealed = chain.seal(collection, entries)
        if self._closed:
            raise StoreUnavailable(f"{self._path}: this store was closed; open it again")
        when = recorded_at or datetime.now(UTC)
        chain.timestamp(when)
        if not sealed:
            return []
        try:
            clear, why = self._make_way(collection), "older entries are shipped first"
        except StoreError as error:
            clear, why = False, str(error)
        if down := self._writes.error_now():
            clear, why = False, down
        # Before the try: only a later record can be what it left behind.
        after = self._seen.get(collection, 0)
        if clear:
            try:
                return self._append_shared(collection, entries, when)
            except StoreUnavailable as error:
                why = str(error)
        try:
            spool = self._open_spool()
            spool.put(collection, sealed, when, tried=clear, after=after, store=self._label)
        except StoreError as error:
            raise StoreUnavailable(f"{why}; and the spool does not take it: {error}") from error
        return [Receipt(0, 0, False, "", spooled=True) for _ in sealed]

    def ship(self, patience_s: float | None = None) -> int:
        """Send what waits to the shared store, in order; how many entries left the queue for it.

        Stops where the shared store is down, after about `patience_s` (default: never), and at once while another
        process ships; `backlog` tells why something still waits. Raises StoreError when the spool cannot be read.
        """
        return self._ship(math.inf if patience_s is None else patience_s)

    def leave_alone(self, why: str) -> None:
        """Somebody else found the shared store down: for `retry_after_s` nobody here waits for it in vain."""
        self._reads.trip(why)
        self._writes.trip(why)

    def backlog(self) -> Backlog:
        """What waits; does not ask the shared store. Raises StoreError when the spool cannot be read."""
        spool = self._spool()
        waiting = spool.waiting() if spool else 0
        firsts = spool.firsts() if spool and waiting else []
        refusals = spool.refusals() if spool else []
        error = self._writes.error if waiting else self._writes.error_now()
        aside = {name: breaker.error or "" for name, breaker in self._aside.items()}
        return Backlog(
            waiting=waiting,
            oldest=min((entry.spooled_at for entry in firsts), default=None),
            path=self._path,
            shared_error=error or self._reads.error_now() or passed_over(self._label, firsts, aside, self._path),
            refused=len(refusals),
            refusal=refusals[-1]["reason"] if refusals else None,
        )

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
        """See AuditStore.read; what still waits is part of the answer, as records with seq 0 and no hashes.

        While the shared store is down this raises, unless the newest revisions of one `key` in some `partitions` are
        asked for and all of them wait here: their revision is 0, for it is not known yet.
        """

        def is_asked(partition: str) -> bool:
            return (
                (partitions is None or partition in partitions)
                and (first or "") <= partition
                and (last is None or partition <= last)
            )

        waiting = [e for e in self._still_waiting(collection) if key in (None, e.key) and is_asked(e.partition)]
        try:
            records = self._read_shared(
                collection, first=first, last=last, partitions=partitions, key=key, all_revisions=all_revisions
            )
        except StoreUnavailable:
            newest = {entry.partition: entry for entry in waiting}
            if partitions is None or key is None or all_revisions or newest.keys() != set(filter(is_asked, partitions)):
                raise
            return [newest[partition].record(0) for partition in sorted(newest)]
        return overlaid(records, waiting, all_revisions=all_revisions) if waiting else records

    def collections(self) -> list[str]:
        """See AuditStore.collections; of the shared store."""
        return self._ask(self._shared.collections)

    def head(self, collection: str) -> Head | None:
        """See AuditStore.head; of the shared store."""
        return self._ask(lambda: self._shared.head(collection))

    def heads(self) -> list[Head]:
        """See AuditStore.heads; of the shared store."""
        return self._ask(self._shared.heads)

    def verify(self, collection: str | None = None, *, expected: Sequence[Head] = ()) -> list[Break]:
        """See AuditStore.verify; of the shared store."""
        return self._ask(lambda: self._shared.verify(collection, expected=expected))

    def get_state(self, collection: str, key: str) -> StateDocument | None:
        """See AuditStore.get_state."""
        return self._ask(lambda: self._shared.get_state(collection, key))

    def put_state(self, collection: str, key: str, body: Mapping[str, Any], *, expected_version: int) -> StateDocument:
        """See AuditStore.put_state."""
        return self._writes.call(
            lambda: self._shared.put_state(collection, key, body, expected_version=expected_version)
        )

    def together(self) -> AbstractContextManager[object]:
        """See AuditStore.together; each is written at its time."""
        return nullcontext()

    def list_state(self, collection: str, prefix: str = "") -> list[StateDocument]:
        """See AuditStore.list_state."""
        return self._ask(lambda: self._shared.list_state(collection, prefix))

    def state_collections(self) -> list[str]:
        """See AuditStore.state_collections."""
        return self._ask(self._shared.state_collections)

    def close(self) -> None:
        """Close the shared store and the spool."""
        self._closed = True
        try:
            self._shared.close()
        finally:
            while self._opened:
                self._opened.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _spool(self) -> SpoolFile | None:
        """The spool, None while it was never needed."""
        return self._opened.get("spool") or (self._open_spool() if self._path.exists() else None)

    def _open_spool(self) -> SpoolFile:
        # Without a lock of our own, which a fork could leave locked for ever.
        if "spool" not in self._opened:
            opened = SpoolFile(self._path)
            if self._opened.setdefault("spool", opened) is not opened:
                opened.close()
        return self._opened["spool"]

    def _lanes(self, collection: str) -> set[str]:
        """Where entries of ours wait; those without a label are anybody's."""
        return {lane("", collection), lane(self._label, collection)}

    def _still_waiting(self, collection: str) -> list[Waiting]:
        """What waits for a collection although its turn came."""
        with suppress(StoreError):  # what cannot be shipped now can perhaps be read
            if self._make_way(collection):
                return []
        spool = self._spool()
        return spool.waiting_in(self._lanes(collection)) if spool else []

    def _make_way(self, collection: str) -> bool:
        """Ship for a short while what waits; whether nothing of the collection waits any more."""
        spool = self._spool()
        if spool is None or not spool.waiting():
            return True
        self._ship(PATIENCE_S)
        return not spool.waiting_in(self._lanes(collection), 1)

    def _ship(self, patience_s: float) -> int:
        spool = self._spool()
        if spool is None or self._writes.error_now() or not spool.waiting():
            return 0
        lock = FileLock(f"{self._path}.lock", timeout=0)  # a killed process lets go of it
        try:
            lock.acquire()
        except Timeout:
            return 0
        except OSError as error:
            raise StoreUnavailable(f"{self._path}.lock cannot be locked ({error}); check owner and mount") from error
        try:
            aside = {name: why for name, breaker in self._aside.items() if (why := breaker.error_now())}
            shipment = Shipment(spool, self._append_shared, self._read_shared, store=self._label, aside=aside)
            try:
                shipment.run(patience_s)
            except Stopped as stopped:
                self._writes.trip(str(stopped.__cause__))
            for name in shipment.served:
                self._aside.pop(name, None)
            for name in shipment.aside.keys() - aside:
                self._aside.setdefault(name, self._new_breaker()).trip(shipment.aside[name])
            return shipment.shipped
        finally:
            lock.release()

    def _append_shared(self, collection: str, entries: Sequence[Entry], when: datetime) -> list[Receipt]:
        receipts = self._writes.call(lambda: self._shared.append(collection, entries, recorded_at=when))
        self._seen[collection] = max(self._seen.get(collection, 0), *(receipt.seq for receipt in receipts))
        return receipts

    def _read_shared(self, collection: str, **asked: Any) -> list[Record]:
        return self._ask(lambda: self._shared.read(collection, **asked))

    def _ask(self, question: Callable[[], _Result]) -> _Result:
        """Ask the shared store; when it does not even answer it is not written to either."""
        may_ask = self._reads.error_now() is None
        try:
            return self._reads.call(question)
        except StoreUnavailable as error:
            if may_ask:
                self._writes.trip(str(error))
            raise
