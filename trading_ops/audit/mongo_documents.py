"""What does a record look like as a MongoDB document, and how does it show that someone altered one?"""

from collections.abc import Iterable, Iterator
from typing import Any

from bson.int64 import Int64

from trading_ops.audit import chain, stored
from trading_ops.audit.store import InvalidRecord, Record, StateDocument, StoreError

Document = dict[str, Any]
_FIELDS = frozenset({"_id", "collection", *chain.Link._fields})
_NUMBERS = ("seq", "revision", "version")
# Exact types: bson.Code is a str and True an int, yet no query finds them as such.
_INTEGERS = (int, Int64)


class Elements(Document):
    """A document that remembers whether a field came twice: queries see the first, drivers decode the last."""

    doubled = False

    def __setitem__(self, name: str, value: Any) -> None:
        self.doubled = self.doubled or name in self
        super().__setitem__(name, value)


def from_link(collection: str, link: chain.Link) -> Document:
    """The document of a link."""
    # The _id follows from the place, so that it cannot be altered unseen either.
    return {"_id": _id(collection, link.seq), "collection": collection, **link._asdict()}


def state_id(collection: str, key: str) -> str:
    """The _id of a state document, so that there is one of each (collection, key) even where an index is lost."""
    return chain.canonical_json([collection, key])


def to_links(collection: str, documents: Iterable[Elements]) -> Iterator[tuple[chain.Link, int | None]]:
    """The links of documents in the order of their seq, each with the seq of the revision before it.

    Nothing about a document is trusted: what is not as `from_link` made it becomes a link that `first_break` refuses.
    """
    seen: dict[str, tuple[int, int]] = {}
    for document in _strays_last(documents):
        link = chain.Link._make(_plain(document.get(field)) for field in chain.Link._fields)
        place = repr(link[1:3])
        revision, seq = seen.get(place, (0, 0))
        previous = seq if revision and link.revision == revision + 1 else None
        seen[place] = (link.revision, link.seq)
        sound = not document.doubled and document.keys() == _FIELDS and _is(document["collection"], collection)
        if not sound or not _is(document["_id"], _id(collection, link.seq)):
            link = chain.Link._make((link.seq, *[None] * 8))  # a break: columns of another type
        yield link, previous


def to_record(collection: str, document: Document) -> Record:
    """The record of a document; raises StoreError where it is damaged."""
    return stored.to_record(collection, chain.Link(*values(collection, document, *chain.Link._fields)))


def to_state(document: Document) -> StateDocument:
    """The state of a document; raises StoreError where it is damaged."""
    names = ("collection", "key", "version", "body", "updated_at")
    return stored.to_state(*values(str(document.get("collection")), document, *names))


def values(collection: str, document: Document, *names: str) -> list[Any]:
    """These values of a document; raises StoreError where one is not what was written."""
    found = [document.get(name) for name in names]
    for name, value in zip(names, found, strict=True):
        if type(value) is not str if name not in _NUMBERS else type(value) not in _INTEGERS:
            raise _damaged(collection, document, f"{name} is {value!r:.40}")
    return [_plain(value) for value in found]


def is_text(name: Any) -> bool:
    """Whether this can be the name of a collection."""
    if type(name) is not str:
        return False
    try:
        chain.check_name("collection", name)
    except InvalidRecord:
        return False
    return True


def _strays_last(documents: Iterable[Elements]) -> Iterator[Elements]:
    """First the documents whose seq is a number, so that the place one of the others left is named."""
    strays = []
    for document in documents:
        if type(document.get("seq")) in _INTEGERS:
            yield document
        else:
            strays.append(document)
    yield from strays


def _damaged(collection: str, document: Document, what: object) -> StoreError:
    named = f"record {document['seq']!r:.40}" if "seq" in document else f"document {document.get('key')!r:.200}"
    return stored.damaged(collection, named, what)


def _plain(value: Any) -> Any:
    """Python's own int for a 64-bit one, which mongosh and restores may make of a small number."""
    return int(value) if type(value) is Int64 else value


def _is(value: Any, text: str) -> bool:
    return type(value) is str and value == text


def _id(collection: str, seq: int) -> str:
    return f"{collection}/{seq}"
