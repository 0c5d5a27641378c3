"""How does what a database keeps become a record or a state document again, and what is said when it is damaged?"""

import json
from datetime import datetime
from typing import Any

from trading_ops.audit.chain import Link
from trading_ops.audit.store import Head, Record, StateDocument, StoreError

_LINK_TYPES = (int, str, str, int, str, str, str, str, str)


def to_head(collection: str, seq: Any, hash_: Any) -> Head:
    """The head of a collection; raises StoreError where the last record's place or hash is no longer one."""
    if type(seq) is not int or type(hash_) is not str:
        raise damaged(collection, f"record {seq!r:.40}", f"its hash is {hash_!r:.40}")
    return Head(collection, seq, hash_)


def to_record(collection: str, link: Link) -> Record:
    """The record of a link; raises StoreError where it is damaged."""
    place = f"record {link.seq!r:.40}"
    if tuple(map(type, link)) != _LINK_TYPES:
        raise damaged(collection, place, "a column has another type than it was written with")
    when, body = _opened(collection, place, link.recorded_at, link.body)
    return Record(collection, *link[:4], when, *link[5:8], body)


def to_state(collection: str, key: str, version: Any, body: Any, updated_at: Any) -> StateDocument:
    """The state document of its columns; raises StoreError where it is damaged."""
    place = f"document {key!r}"
    if type(version) is not int:
        raise damaged(collection, place, f"version is {version!r:.40}")
    when, opened = _opened(collection, place, updated_at, body)
    return StateDocument(collection, key, version, opened, when)


def damaged(collection: str, place: str, what: object) -> StoreError:
    """The error that names a damaged record or document and points to verify()."""
    return StoreError(f"{collection}: {place} is damaged ({what}); run verify()")


def _opened(collection: str, place: str, when: Any, body: Any) -> tuple[datetime, dict[str, Any]]:
    try:
        instant, opened = datetime.fromisoformat(when), json.loads(body)
    except (ValueError, TypeError, RecursionError) as error:
        raise damaged(collection, place, error) from error
    if not isinstance(opened, dict):
        raise damaged(collection, place, f"its body is {body:.40}, no document")
    return instant, opened
