"""How does a MongoDB replica set keep the audit trail?"""

import random
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from itertools import count, takewhile
from typing import Any, Self

from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.collection import Collection
from pymongo.database import Database
from pymongo.errors import (
    ConnectionFailure,
    DuplicateKeyError,
    ExecutionTimeout,
    PyMongoError,
    WriteConcernError,
)
from pymongo.read_concern import ReadConcern

from trading_ops.audit import chain, stored
from trading_ops.audit.mongo_client import DUPLICATE_KEY, MongoServer, failure_code, patience_s
from trading_ops.audit.mongo_documents import (
    Document,
    Elements,
    from_link,
    is_text,
    state_id,
    to_links,
    to_record,
    to_state,
    values,
)
from trading_ops.audit.store import (
    Break,
    Conflict,
    Entry,
    Head,
    InvalidRecord,
    Receipt,
    Record,
    StateDocument,
    StoreUnavailable,
)

MAX_BODY_BYTES = 16 * 1024 * 1024 - 64 * 1024
_BY_KEY = {"partition": 1, "key": 1, "revision": 1}
_NEWEST_ONLY: list[Mapping[str, Any]] = [
    {"$sort": _BY_KEY},
    {"$group": {"_id": {"partition": "$partition", "key": "$key"}, "newest": {"$last": "$$ROOT"}}},
    {"$replaceRoot": {"newRoot": "$newest"}},
]
# Damaged text and times and doubled fields must reach the walk as they are, not stop it.
_LENIENT: CodecOptions[Elements] = CodecOptions(
    document_class=Elements,
    unicode_decode_error_handler="surrogateescape",
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
_Sealed = tuple[str, str, str, str]
_IN_DOUBT = (ConnectionFailure, ExecutionTimeout, WriteConcernError)
_LABELS = ("RetryableWriteError", "TransientTransactionError", "UnknownTransactionCommitResult")


class MongoStore:
    """An AuditStore in a MongoDB replica set, for many processes on many machines.

    Acknowledged means in the journal of a majority of members. Read is what no failover can take back.
    """

    def __init__(self, uri: str, *, timeout_s: float | None = None) -> None:
        """Raises ValueError for an impossible address; the server need not be up before the first use.

        The database is the address's path, "trading_ops" without one. A server that hangs costs `timeout_s`, by default
        the address's timeoutMS or else 10 s.
        """
        self._timeout_s = patience_s(uri) if timeout_s is None else timeout_s
        self._server = MongoServer(uri, self._timeout_s)

    def append(
        self,
        collection: str,
        entries: Sequence[Entry],
        *,
        recorded_at: datetime | None = None,
        revision: int | None = None,
    ) -> list[Receipt]:
        """See AuditStore.append; also raises InvalidRecord for a body beyond 16 MB."""
        sealed = chain.seal(collection, entries)
        for partition, key, body, _ in sealed:
            if len(body) > MAX_BODY_BYTES // 4 and (size := len(body.encode())) > MAX_BODY_BYTES:
                raise InvalidRecord(
                    f"body: {size:,} bytes are more than the 16 MB a MongoDB document holds; store a path to what is"
                    f" larger ({collection}, partition {partition!r}, key {key[:80]!r})"
                )
        given = chain.timestamp(recorded_at) if recorded_at else ""
        until = time.monotonic() + self._timeout_s
        if not sealed:
            return []
        with self._server.database() as db:
            return self._append(db, collection, sealed, given, until, revision)

    def _append(
        self,
        db: Database[Document],
        collection: str,
        sealed: list[_Sealed],
        given: str,
        until: float,
        revision: int | None,
    ) -> list[Receipt]:
        """Take the place after the head; where another writer was first, look again and take the next."""
        local = db.history.with_options(read_concern=ReadConcern("local"))
        doubt: tuple[chain.Link, list[Receipt]] | None = None
        when = given or chain.timestamp(datetime.now(UTC))
        for turn in count(1):
            links: list[chain.Link] = []
            try:
                # In this order: whoever appends after the head was read takes the place we aim at.
                head, newest = _head(local, collection), _newest(local, collection, sealed)
                if doubt and _holds(local, collection, doubt[0]):
                    receipts = doubt[1]
                else:
                    links, receipts = chain.extend(collection, head, newest, sealed, when, revision)
                if links:
                    _insert(db, collection, links)
                    return receipts
                # Nothing to add counts only once no failover can take back what is there.
                if _holds(db.history, collection, max(receipts, key=lambda receipt: receipt.seq)):
                    return receipts
            except PyMongoError as error:
                taken = failure_code(error) == DUPLICATE_KEY
                if not taken and (time.monotonic() >= until or not _may_be_stored(error)):
                    raise
                if links and not taken:
                    doubt = links[-1], receipts
            if time.monotonic() >= until:
                raise StoreUnavailable(
                    f"{self._server.shown}: {collection} had no free place for {self._timeout_s:g} s;"
                    " many write to it or a member lags behind, try again"
                )
            if not doubt:  # an attempt that may be stored is repeated to the letter, so that it is stored once
                when = given or chain.timestamp(datetime.now(UTC))
            time.sleep(random.uniform(0, min(0.001 * 2**turn, 0.05)))
        raise AssertionError("count() never ends")

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
        listed = None if partitions is None else list(partitions)
        bounds = {"$gte": first, "$lte": last, "$in": listed}
        chosen = {operator: value for operator, value in bounds.items() if value is not None}
        wanted = {"collection": collection, "partition": chosen or None, "key": key}
        wanted = {field: value for field, value in wanted.items() if value is not None}
        with self._server.database(deadline=False) as db:
            steps = [{"$match": wanted}, *([] if all_revisions else _NEWEST_ONLY), {"$sort": _BY_KEY}]
            return [to_record(collection, document) for document in db.history.aggregate(steps, allowDiskUse=True)]

    def collections(self) -> list[str]:
        """See AuditStore.collections."""
        with self._server.database() as db:
            return sorted(name for name in _names(db.history) if type(name) is str)

    def head(self, collection: str) -> Head | None:
        """See AuditStore.head."""
        with self._server.database() as db:
            return _head(db.history, collection)

    def heads(self) -> list[Head]:
        """See AuditStore.heads."""
        return [head for name in self.collections() if (head := self.head(name))]

    def verify(self, collection: str | None = None, *, expected: Sequence[Head] = ()) -> list[Break]:
        """See AuditStore.verify."""
        with self._server.database(deadline=False) as db:
            history = db.history.with_options(codec_options=_LENIENT)
            found = _names(history)
            breaks: list[Break | None] = [Break(repr(name), 1, "not text") for name in found if not is_text(name)]
            names = {head.collection for head in expected}.union(name for name in found if is_text(name))
            for name in sorted(names if collection is None else [collection]):
                documents = history.find({"collection": name}, sort=[("seq", 1)])
                noted = [head for head in expected if head.collection == name]
                breaks.append(chain.first_break(name, to_links(name, documents), noted))
        return [broken for broken in breaks if broken]

    def get_state(self, collection: str, key: str) -> StateDocument | None:
        """See AuditStore.get_state."""
        with self._server.database() as db:
            document = db.state.find_one({"collection": collection, "key": key})
            return to_state(document) if document else None

    def put_state(self, collection: str, key: str, body: Mapping[str, Any], *, expected_version: int) -> StateDocument:
        """See AuditStore.put_state."""
        chain.check_name("collection", collection)
        chain.check_name("key", key, empty=True)
        text, when = chain.canonical_document(body), chain.timestamp(datetime.now(UTC))
        place = {"collection": collection, "key": key}
        written = {"version": expected_version + 1, "body": text, "updated_at": when}
        with self._server.database() as db:
            try:
                if expected_version:
                    known = {**place, "version": expected_version}
                    lost = not db.state.update_one(known, {"$set": written}).matched_count
                else:
                    db.state.insert_one({"_id": state_id(collection, key), **place, **written})
                    lost = False
            except DuplicateKeyError:
                lost = True
            if lost:
                local = db.state.with_options(read_concern=ReadConcern("local"))
                document = local.find_one(place)
                found = to_state(document).version if document else 0
                raise Conflict(f"{collection}, {key!r}: expected version {expected_version}, found {found}")
            return to_state({**place, **written})

    def together(self) -> AbstractContextManager[object]:
        """See AuditStore.together; each is written at its time."""
        return nullcontext()

    def list_state(self, collection: str, prefix: str = "") -> list[StateDocument]:
        """See AuditStore.list_state."""
        with self._server.database(deadline=False) as db:
            documents = db.state.find({"collection": collection, "key": {"$gte": prefix}}, sort=[("key", 1)])
            listed = map(to_state, documents)
            return list(takewhile(lambda document: document.key.startswith(prefix), listed))

    def state_collections(self) -> list[str]:
        """See AuditStore.state_collections."""
        with self._server.database() as db:
            return sorted(name for name in _names(db.state) if type(name) is str)

    def close(self) -> None:
        """See AuditStore.close."""
        self._server.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _head(history: Collection[Document], collection: str) -> Head | None:
    document = history.find_one({"collection": collection}, {"seq": 1, "hash": 1}, sort=[("seq", -1)])
    return stored.to_head(collection, *values(collection, document, "seq", "hash")) if document else None


def _newest(
    history: Collection[Document], collection: str, sealed: list[_Sealed]
) -> dict[tuple[str, str], chain.Newest]:
    """The newest revision of each (partition, key) of a batch, and perhaps of some others."""
    fields = ("partition", "key", *chain.Newest._fields)
    partitions, keys = ({entry[at] for entry in sealed} for at in (0, 1))
    if len(partitions) == len(keys) == 1:
        place = {"collection": collection, "partition": sealed[0][0], "key": sealed[0][1]}
        documents: Iterable[Document] = history.find(place, dict.fromkeys(fields, 1)).sort("revision", -1).limit(1)
    else:
        places = {"collection": collection, "partition": {"$in": list(partitions)}, "key": {"$in": list(keys)}}
        documents = history.aggregate(
            [{"$match": places}, {"$project": dict.fromkeys(fields, 1)}, *_NEWEST_ONLY], allowDiskUse=True
        )
    rows = (values(collection, document, *fields) for document in documents)
    return {(partition, key): chain.Newest(*known) for partition, key, *known in rows}


def _insert(db: Database[Document], collection: str, links: list[chain.Link]) -> None:
    """Store all links or none; raises DuplicateKeyError or BulkWriteError when a place is taken."""
    documents = [from_link(collection, link) for link in links]
    if len(documents) == 1:
        db.history.insert_one(documents[0])
        return
    with db.client.start_session() as session, session.start_transaction():
        db.history.insert_many(documents, session=session)


def _holds(history: Collection[Document], collection: str, place: chain.Link | Receipt) -> bool:
    return history.find_one({"collection": collection, "seq": place.seq, "hash": place.hash}, {"_id": 1}) is not None


def _may_be_stored(error: PyMongoError) -> bool:
    """Whether the same operation may succeed later, or has succeeded without our being told."""
    return isinstance(error, _IN_DOUBT) or any(error.has_error_label(label) for label in _LABELS)


def _names(collection: Collection[Any]) -> list[Any]:
    """The collections named in the documents, whatever their type; None where one has no name."""
    return [document["_id"] for document in collection.aggregate([{"$group": {"_id": "$collection"}}])]
