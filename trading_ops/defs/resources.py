"""What do the assets read from and write to? The services, and the IO manager over the audit store."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from trading_ops.audit import chain
from trading_ops.audit.store import Entry
from trading_ops.services import Services

SERVICES = Services()
# of one append: a database's transaction cannot hold a year of large documents
MOST_DAYS = 100
MOST_CHARACTERS = 4_000_000


class AuditIOManager(dg.IOManager):
    """Values are `{UTC day: document}` for one day or a range; each day's document is one record of the audit store.

    The collection is the asset's `collection` metadata, else its name. A document whose content is stored already
    appends nothing, a changed one appends a revision, and readers get the newest of each day. Days that are not
    stored are absent from what is loaded: unstored is not empty. Each document carries the bot's `source`.

    A long range is appended chunk by chunk, in order: what fails half way leaves the days before it stored, and the
    same range materialised again appends the rest only. A document that is not JSON is refused before anything.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def handle_output(self, context: dg.OutputContext, obj: Mapping[str, Mapping[str, Any]]) -> None:
        days = list(context.asset_partition_keys)
        if list(obj) != days:
            raise dg.DagsterInvariantViolationError(
                f"{context.asset_key.to_user_string()} must give one document a partition: got {list(obj)}, want {days}"
            )
        source = self._services.bot.source
        entries = [Entry(day, "", {**document, "source": source}) for day, document in obj.items()]
        collection, store = _collection(context), self._services.store
        receipts = [receipt for chunk in _chunks(collection, entries) for receipt in store.append(collection, chunk)]
        appended, waiting = (sum(getattr(r, kind) for r in receipts) for kind in ("appended", "spooled"))
        said = f"{appended} of {len(receipts)} days appended, the rest stored already"
        if waiting:  # nothing pretends to be stored
            said = f"{waiting} days wait in the spool until the audit store is back: see `trading-ops doctor`"
            context.log.warning(f"{collection}: {said}")
        else:
            context.log.info(f"{collection}: {said}")
        context.add_output_metadata({"audit": said})

    def load_input(self, context: dg.InputContext) -> dict[str, dict[str, Any]]:
        days = list(context.asset_partition_keys)
        if not days or context.upstream_output is None:
            return {}
        records = self._services.store.read(_collection(context.upstream_output), partitions=days, key="")
        return {record.partition: dict(record.body) for record in records}


def _chunks(collection: str, entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    """The entries in order, as many at a time as one append should take; raises InvalidRecord before the first."""
    sizes = [len(body) for _, _, body, _ in chain.seal(collection, entries)]
    chunk: list[Entry] = []
    characters = 0
    for entry, size in zip(entries, sizes, strict=True):
        if chunk and (len(chunk) == MOST_DAYS or characters + size > MOST_CHARACTERS):
            yield chunk
            chunk, characters = [], 0
        chunk.append(entry)
        characters += size
    if chunk:
        yield chunk


def _collection(context: dg.OutputContext) -> str:
    metadata = context.definition_metadata or {}
    return str(metadata.get("collection", context.asset_key.path[-1]))


RESOURCES = {"services": SERVICES, "audit": AuditIOManager(SERVICES)}
