"""How does an audit trail move to another store with every chain unbroken?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from trading_ops.audit import chain
from trading_ops.audit.store import AuditStore, Break, Conflict, Entry, Head, Record, StoreError

BATCH = 1_000
BATCH_BYTES = 4_000_000  # of bodies: what a database takes in one transaction without effort
Progress = Callable[[int, int], None]


class CopyRefused(StoreError):
    """The source is broken, or the destination holds another history; nothing was written."""


@dataclass(frozen=True, slots=True)
class Copied:
    """One collection after the copy: `records` (or state documents) of it in the source, `copied` of them just now.

    `head` is the destination's, None for state. Not `same`: the source's head is another by now, or some documents
    were `refused` (their keys), because the destination's are newer.
    """

    collection: str
    kind: str  # "history" or "state"
    records: int
    copied: int
    head: Head | None
    same: bool
    refused: tuple[str, ...] = ()


def copy_store(source: AuditStore, destination: AuditStore, *, progress: Progress | None = None) -> list[Copied]:
    """Copy all history, with its times and so with its hashes, then the state; repeated it goes on where it ended.

    A collection is held in memory at a time. `progress` is told the records copied and those to copy. Raises
    CopyRefused before anything is written; StoreError when another program writes to the destination meanwhile.
    """
    heads = source.heads()
    begun = {head.collection: head for head in destination.heads()}
    _check(source, destination, heads, list(begun.values()))
    todo = {
        head.collection: head.seq - (begun[head.collection].seq if head.collection in begun else 0) for head in heads
    }
    done, total = 0, sum(todo.values())
    for head in heads:
        for count in _copy_history(source, destination, head, head.seq - todo[head.collection]):
            done += count
            if progress:
                progress(done, total)
    if broken := destination.verify(expected=heads):
        raise StoreError(f"the copy is not the source's history: {_told(broken)}")
    there = {head.collection: head for head in destination.heads()}
    history = [
        Copied(now.collection, "history", now.seq, todo.get(now.collection, 0), head, head == now)
        for now in source.heads()
        for head in (there.get(now.collection),)
    ]
    return history + [_copy_state(source, destination, name) for name in source.state_collections()]


def _check(source: AuditStore, destination: AuditStore, heads: Sequence[Head], begun: Sequence[Head]) -> None:
    """Raise CopyRefused unless the source is sound and the destination's chains are beginnings of its chains."""
    if broken := source.verify(expected=[*heads, *begun]):
        if own := source.verify(expected=heads):
            raise CopyRefused(f"the source is broken, restore it first: {_told(own)}")
        raise CopyRefused(f"the destination holds another history, choose an empty one: in the source {_told(broken)}")
    if broken := destination.verify(expected=begun):
        raise CopyRefused(f"the destination is broken, choose an empty one: {_told(broken)}")


def _told(broken: Sequence[Break]) -> str:
    return "; ".join(f"{one.collection}, record {one.seq}: {one.reason}" for one in broken)


def _copy_history(source: AuditStore, destination: AuditStore, head: Head, already: int) -> Iterator[int]:
    """Append the records behind `already`; the number of each batch. One append has one time, so batches do too."""
    if already == head.seq:
        return
    records = source.read(head.collection, all_revisions=True)
    wanted = sorted((r for r in records if already < r.seq <= head.seq), key=lambda record: record.seq)
    for when, group in groupby(wanted, key=lambda record: record.recorded_at):
        for batch in _batches(group):
            entries = [Entry(record.partition, record.key, record.body) for record in batch]
            receipts = destination.append(head.collection, entries, recorded_at=when)
            for record, receipt in zip(batch, receipts, strict=True):
                if receipt.hash != record.hash:
                    raise StoreError(
                        f"{head.collection}: record {record.seq} became another one in the destination; another program"
                        " writes there. Stop it, choose an empty destination and copy again"
                    )
            yield len(batch)


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """The records in order, in parts that one append can carry."""
    batch: list[Record] = []
    size = 0
    for record in records:
        length = len(chain.canonical_json(record.body))
        if batch and (len(batch) == BATCH or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += length
    if batch:
        yield batch


def _copy_state(source: AuditStore, destination: AuditStore, collection: str) -> Copied:
    there = {document.key: document for document in destination.list_state(collection)}
    documents = source.list_state(collection)
    copied, refused = 0, []
    for document in documents:
        known = there.get(document.key)
        if known and known.body == document.body:
            continue
        if known and known.updated_at >= document.updated_at:
            refused.append(document.key)
            continue
        try:
            version = known.version if known else 0
            destination.put_state(collection, document.key, document.body, expected_version=version)
        except Conflict:
            refused.append(document.key)
        else:
            copied += 1
    return Copied(collection, "state", len(documents), copied, None, not refused, tuple(refused))
