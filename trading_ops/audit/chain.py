"""What makes two records the same, and how does a later change to one of them show?"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from trading_ops.audit.store import Break, Conflict, Entry, Head, InvalidRecord, Receipt

GENESIS = "0" * 64
MAX_DEPTH = 100
_SHA256 = hashlib.sha256()
_SCALARS = frozenset((str, float, int, bool, type(None)))


class Newest(NamedTuple):
    """The newest revision of one (partition, key)."""

    seq: int
    revision: int
    digest: str
    hash: str


class Link(NamedTuple):
    """A record as a store keeps it; `body` is canonical JSON."""

    seq: int
    partition: str
    key: str
    revision: int
    recorded_at: str
    digest: str
    prev_hash: str
    hash: str
    body: str


def canonical_json(body: Any) -> str:
    """The one JSON text of a value: keys sorted, no whitespace, finite numbers. Raises InvalidRecord.

    >>> canonical_json({"b": 0, "a": [None, True, 1.5]})
    '{"a":[null,true,1.5],"b":0}'
    """
    try:
        _check_shape(body, MAX_DEPTH)
        text = _encoded(body)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRecord(_offence(body, "", MAX_DEPTH) or f"body: {error}") from error
    return text


def canonical_document(body: Mapping[str, Any]) -> str:
    """The canonical JSON of a document (a mapping). Raises InvalidRecord."""
    if not isinstance(body, Mapping):
        raise InvalidRecord(f"body: {type(body).__name__} is not a document; give a mapping")
    return canonical_json(body if type(body) is dict else dict(body))


def content_digest(canonical: str) -> str:
    """SHA-256 (hex) of a canonical text."""
    # Damaged bytes of a file reach us as surrogates; escaping them back hashes what is really stored.
    state = _SHA256.copy()  # a new one asks OpenSSL for the algorithm each time
    state.update(canonical.encode("utf-8", "surrogateescape"))
    return state.hexdigest()


def link_hash(
    prev_hash: str,
    collection: str,
    seq: int,
    partition: str,
    key: str,
    revision: int,
    recorded_at_iso: str,
    digest: str,
) -> str:
    """SHA-256 (hex) of a record's place, time and content digest, and of the record before it (or GENESIS)."""
    place = [prev_hash, collection, seq, partition, key, revision, recorded_at_iso, digest]
    return content_digest(_encoded(place))


def timestamp(when: datetime) -> str:
    """The text of an instant in UTC, always with microseconds. Raises ValueError for a naive one."""
    if when.tzinfo is None:
        raise ValueError(f"{when.isoformat()} has no time zone; give an aware datetime")
    return when.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "+00:00"


def check_name(what: str, name: str, *, empty: bool = False) -> None:
    """Raise InvalidRecord unless `name` is text that every store can compare."""
    if not isinstance(name, str) or "\0" in name or _has_surrogate(name) or not (name or empty):
        raise InvalidRecord(f"{what}: {name!r} is not a name; give text without NUL characters or lone surrogates")


def seal(collection: str, entries: Sequence[Entry]) -> list[tuple[str, str, str, str]]:
    """Validate a batch; (partition, key, canonical body, digest) of each entry. Raises InvalidRecord."""
    check_name("collection", collection)
    sealed = []
    for entry in entries:
        try:
            check_name("key", entry.key, empty=True)
            if not _is_partition(entry.partition):
                raise InvalidRecord(f'partition: {entry.partition!r} is not a UTC day (2025-03-01) or ""')
            text = canonical_document(entry.body)
        except InvalidRecord as error:
            raise InvalidRecord(f"{error} ({collection}, partition {entry.partition!r}, key {entry.key!r})") from error
        sealed.append((entry.partition, entry.key, text, content_digest(text)))
    return sealed


def extend(
    collection: str,
    head: Head | None,
    newest: Mapping[tuple[str, str], Newest],
    sealed: Iterable[tuple[str, str, str, str]],
    recorded_at: str,
    wanted: int | None = None,
) -> tuple[list[Link], list[Receipt]]:
    """The links that sealed entries add after `head`, and a receipt an entry; repeated content adds none.

    Raises Conflict where an entry would not be, and is not, revision `wanted` of its place.
    """
    seq, prev_hash = (head.seq, head.hash) if head else (0, GENESIS)
    latest = dict(newest)
    links: list[Link] = []
    receipts: list[Receipt] = []
    for partition, key, body, digest in sealed:
        known = latest.get((partition, key))
        repeats = known is not None and known.digest == digest
        found = known.revision if known else 0
        if wanted is not None and found != (wanted if repeats else wanted - 1):
            raise Conflict(f"{collection}, {partition!r}, {key!r}: no place for revision {wanted} after {found}")
        if known and repeats:
            receipts.append(Receipt(known.seq, known.revision, False, known.hash))
            continue
        seq += 1
        revision = known.revision + 1 if known else 1
        link = link_hash(prev_hash, collection, seq, partition, key, revision, recorded_at, digest)
        links.append(Link(seq, partition, key, revision, recorded_at, digest, prev_hash, link, body))
        receipts.append(Receipt(seq, revision, True, link))
        latest[partition, key] = Newest(seq, revision, digest, link)
        prev_hash = link
    return links, receipts


def first_break(collection: str, links: Iterable[tuple[Link, int | None]], noted: Sequence[Head] = ()) -> Break | None:
    """Walk a collection by seq; the first broken record or None.

    Each link comes with the seq of the revision before it (None: there is none); `noted` are heads seen earlier.
    """
    end, prev_hash = 0, GENESIS
    for link, previous_seq in links:
        if link.seq != end + 1:
            return Break(collection, end + 1, f"record {end + 1} is missing, {link.seq!r} stands in its place")
        end = link.seq
        reason = _fault(collection, link, previous_seq, prev_hash)
        if not reason and any(head.seq == end and head.hash != link.hash for head in noted):
            reason = f"its hash is not the one noted as head {end}: the history was rewritten"
        if reason:
            return Break(collection, end, reason)
        prev_hash = link.hash
    longest = max((head.seq for head in noted), default=0)
    return Break(collection, end + 1, f"ends at {end}, head {longest} was noted") if longest > end else None


def _fault(collection: str, link: Link, previous_seq: int | None, prev_hash: str) -> str:
    """Why a link is broken, "" when it is not."""
    texts = (link.partition, link.key, link.recorded_at, link.digest, link.prev_hash, link.hash, link.body)
    # Exact types: a driver's kinds of text and number are subclasses, which queries do not find as such.
    if type(link.seq) is not int or type(link.revision) is not int or any(type(text) is not str for text in texts):
        return "a column has another type than it was written with"
    if content_digest(link.body) != link.digest:
        return "body and digest do not match"
    if link.prev_hash != prev_hash:
        return f"prev_hash is not the hash of record {link.seq - 1}"
    if link.hash != link_hash(prev_hash, collection, *link[:6]):
        return "hash does not match collection, seq, partition, key, revision, recorded_at and digest"
    follows = previous_seq is not None and previous_seq < link.seq
    if link.revision < 1 or follows != (link.revision > 1):
        return f"revision {link.revision} does not follow an earlier one"
    return ""


@lru_cache(maxsize=4096)
def _is_partition(text: str) -> bool:
    try:
        return text == "" or date.fromisoformat(text).isoformat() == text
    except (TypeError, ValueError):
        return False


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _is_number_scalar(value: Any) -> bool:
    """Whether this is a numpy bool, int or float, told without importing numpy."""
    return getattr(getattr(value, "dtype", None), "kind", "-") in "biuf" and getattr(value, "ndim", None) == 0


def _plain(value: Any) -> Any:
    if _is_number_scalar(value) and isinstance(plain := value.item(), (bool, int, float)):
        return plain
    raise TypeError(f"{type(value).__name__} is not JSON")


def _check_shape(value: Any, depth: int) -> None:
    """Raise on what the C encoder lets pass or trips over: keys that are not text, bottomless nesting."""
    if isinstance(value, dict):
        "".join(value)  # the fastest test that all keys are text
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return
    for child in value:
        if type(child) not in _SCALARS and isinstance(child, (dict, list, tuple)):
            if not depth:
                raise ValueError("nested too deeply")
            _check_shape(child, depth - 1)


def _offence(value: Any, path: str, depth: int) -> str:
    """The path of the first value that is not canonical JSON and what is wrong with it, "" when all is well."""
    here = path or "body"
    if isinstance(value, (dict, list, tuple)):
        if depth < 0:
            return f"{here[:80]}: nested deeper than {MAX_DEPTH} levels"
        for at, child in value.items() if isinstance(value, dict) else enumerate(value):
            if isinstance(value, dict) and (not isinstance(at, str) or _has_surrogate(at)):
                return f"{here}: key {at!r} is not valid text; use {str(at)!a}"
            below = f"{path}[{at}]" if not isinstance(value, dict) else f"{path}.{at}" if path else str(at)
            if found := _offence(child, below, depth - 1):
                return found
        return ""
    if isinstance(value, float) or _is_number_scalar(value):
        name = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(str(float(value)), "")
        return f"{here}: {name} is not allowed; use null" if name else ""
    if isinstance(value, str):
        return f"{here}: {value!r} holds a lone surrogate; give valid Unicode" if _has_surrogate(value) else ""
    if isinstance(value, int):
        return f"{here}: too many digits; give text" if value.bit_length() > 14_000 else ""
    advice = "give its isoformat()" if isinstance(value, date) else "give text, a number, a list or a document"
    return "" if value is None else f"{here}: {type(value).__name__} is not JSON; {advice}"


# _check_shape has found every value that holds itself before this sees it
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":"), default=_plain
)
# What JSONEncoder.encode makes anew for each text, at the price of a short one; None where json has no C part.
_MAKE = getattr(json.encoder, "c_make_encoder", None)
_MADE_ONCE = _MAKE and _MAKE(None, _plain, encode_basestring, None, ":", ",", True, False, False)


def _encoded(value: Any) -> str:
    return "".join(_MADE_ONCE(value, 0)) if _MADE_ONCE else _ENCODER.encode(value)
