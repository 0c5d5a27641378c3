"""What does a record look like as a MongoDB document, and how does it show that someone altered one?"""

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from trading_ops.audit import chain
from trading_ops.audit.store import InvalidRecord, Record, StateDocument, StoreError

Document = dict[str, Any]
_FIELDS = frozenset({"_id", "collection", *chain.Link._fields})
_NUMBERS = ("seq", "revision", "version")


def from_link(collection: str, link: chain.Link) -> Document:
    """The document of a link."""
    # The _id follows from the place, so that it cannot be altered unseen either.
    return {"_id": _id(collection, link.seq), "collection": collection, **link._asdict()}


def to_links(collection: str, documents: Iterable[Document]) -> Iterator[tuple[chain.Link, int | None]]:
    """The links of documents in the order of their seq, each with the seq of the revision before it.

    Nothing about a document is trusted: what is not as `from_link` made it becomes a link that `first_break` refuses.
    """
    seen: dict[str, tuple[int, int]] = {}
    for document in _strays_last(documents):
        link = chain.Link._make(map(document.get, chain.Link._fields))
        place = repr(link[1:3])
        revision, seq = seen.get(place, (0, 0))
        previous = seq if revision and link.revision == revision + 1 else None
        seen[place] = (link.revision, link.seq)
        sound = document.keys() == _FIELDS and document["collection"] == collection
        if not sound or document["_id"] != _id(collection, link.seq):
            link = chain.Link._make((link.seq, *[None] * 8))  # a break: columns of another type
        yield link, previous


def to_record(collection: str, document: Document) -> Record:
    """The record of a document; raises StoreError where it is damaged."""
    link = chain.Link(*values(collection, document, *chain.Link._fields))
    try:
        when, body = datetime.fromisoformat(link.recorded_at), json.loads(link.body)
    except ValueError as error:
        raise _damaged(collection, document, error) from error
    return Record(collection, *link[:4], when, *link[5:8], body)


def to_state(stored: Document) -> StateDocument:
    """The state of a document; raises StoreError where it is damaged."""
    names = ("collection", "key", "version", "body", "updated_at")
    collection, key, version, body, when = values(str(stored["collection"]), stored, *names)
    try:
        return StateDocument(collection, key, version, json.loads(body), datetime.fromisoformat(when))
    except ValueError as error:
        raise _damaged(collection, stored, error) from error


def values(collection: str, document: Document, *names: str) -> list[Any]:
    """These values of a document; raises StoreError where one is not what was written."""
    for name in names:
        kind = int if name in _NUMBERS else str
        if not isinstance(document.get(name), kind):
            raise _damaged(collection, document, f"{name} is {document.get(name)!r:.40}")
    return [document[name] for name in names]


def is_text(name: Any) -> bool:
    """Whether this can be the name of a collection."""
    try:
        chain.check_name("collection", name)
    except InvalidRecord:
        return False
    return True


def _strays_last(documents: Iterable[Document]) -> Iterator[Document]:
    """First the documents whose seq is a number, so that the place one of the others left is named."""
    strays = []
    for document in documents:
        if isinstance(document.get("seq"), int):
            yield document
        else:
            strays.append(document)
    yield from strays


def _damaged(collection: str, document: Document, what: object) -> StoreError:
    place = f"record {document['seq']}" if "seq" in document else f"document {document.get('key', document['_id'])!r}"
    return StoreError(f"{collection}: {place} is damaged ({what}); run verify()")


def _id(collection: str, seq: int) -> str:
    return f"{collection}/{seq}"
