"""What does every audit store promise, whichever database is behind it?"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self

COLLECTIONS = (
    "gpt4_analysis_history",
    "performance_metrics",
    "model_accuracy_history",
    "api_cost_history",
    "retrain_history",
    "llm_calls",
    "portfolio_reports",
    "health_history",
    "strategy_actions",
    "notifications",
    "incident_actions",
    "backtests",
    "bulk_analyses",
    "model_registry",
    "predictions",
    "promotions",
    "forecasts",
    "closed_trades",
    "strategy_risk",
    "bot_usage",
    "equity_snapshots",
    "equity_flows",
    "optimizations",
    "cost_overrides",
)


class StoreError(Exception):
    """Something about the audit store went wrong."""


class Conflict(StoreError):
    """A compare-and-set lost: the document has another version than the caller expected."""


class InvalidRecord(StoreError):
    """A record cannot be written as canonical JSON; the message names the path of the offending value."""


class StoreUnavailable(StoreError):
    """The store cannot be opened, read or written now; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a caller wants remembered: `partition` a UTC day ("2025-03-01") or "", `key` unique within it or ""."""

    partition: str
    key: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered: an entry with its place in the collection's chain."""

    collection: str
    seq: int
    partition: str
    key: str
    revision: int
    recorded_at: datetime
    digest: str
    prev_hash: str
    hash: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where an entry went; not `appended`: the newest revision already says this, and the rest describes it.

    `spooled`: the store is down, so the entry waits on the local disk; its place (0, 0, "") is not known yet.
    """

    seq: int
    revision: int
    appended: bool
    hash: str
    spooled: bool = False


@dataclass(frozen=True, slots=True)
class StateDocument:
    """A small mutable document; `version` counts its writes from 1."""

    collection: str
    key: str
    version: int
    body: dict[str, Any]
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Head:
    """The last record of a collection; noted down elsewhere it betrays a cut or rewritten history."""

    collection: str
    seq: int
    hash: str


@dataclass(frozen=True, slots=True)
class Break:
    """The first broken record of a collection."""

    collection: str
    seq: int
    reason: str


class AuditStore(Protocol):
    """History (append-only, hash-chained per collection) and state (compare-and-set) behind one door.

    Every method raises StoreUnavailable when the database cannot be reached, read or written.
    """

    def append(
        self,
        collection: str,
        entries: Sequence[Entry],
        *,
        recorded_at: datetime | None = None,
        revision: int | None = None,
    ) -> list[Receipt]:
        """Append all entries in one transaction or none; one receipt an entry, in order.

        `recorded_at` (aware; default now) is the store's own bookkeeping time. `revision`: which one each entry is to
        be, so that what is written late overtakes nothing. Raises Conflict where it cannot be that one and is not that
        one already; InvalidRecord, and ValueError for a naive time.
        """
        ...

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
        """Records by partition, key, revision; `first` and `last` are inclusive, newest revision only by default."""
        ...

    def collections(self) -> list[str]:
        """The collections that hold history, by name."""
        ...

    def head(self, collection: str) -> Head | None:
        """The last record of a collection, None when it has none."""
        ...

    def heads(self) -> list[Head]:
        """The heads of all collections, by name."""
        ...

    def verify(self, collection: str | None = None, *, expected: Sequence[Head] = ()) -> list[Break]:
        """Recompute the chains; the first broken record of each collection, nothing when all is well.

        `expected` are heads noted down earlier: they also show a cut tail and a rewritten history.
        """
        ...

    def get_state(self, collection: str, key: str) -> StateDocument | None:
        """The document, None when there is none."""
        ...

    def put_state(self, collection: str, key: str, body: Mapping[str, Any], *, expected_version: int) -> StateDocument:
        """Write the document if it still has `expected_version` (0: it must not exist yet).

        Raises Conflict when it has another, InvalidRecord when the body is not JSON.
        """
        ...

    def together(self) -> AbstractContextManager[object]:
        """What this thread writes inside may reach the disk at once when it is left; after an error none of it may be.

        For many writes that nobody acts on in between. A store that cannot do so writes each at its time.
        """
        ...

    def list_state(self, collection: str, prefix: str = "") -> list[StateDocument]:
        """The documents whose key starts with `prefix`, by key."""
        ...

    def state_collections(self) -> list[str]:
        """The collections that hold state, by name."""
        ...

    def close(self) -> None:
        """Release every connection; no other thread may be using the store."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


def open_store(uri: str) -> AuditStore:
    """Open the store at `sqlite:///relative.db`, `sqlite:////absolute.db` or `mongodb[+srv]://hosts/database`.

    SQLite's file and folders are created; MongoDB is first needed when the store is first used. Raises ValueError
    for any other address, StoreUnavailable when the file cannot be used.
    """
    # Imported here because the adapters import this protocol; nobody pays for an adapter they do not use.
    if uri.startswith(("mongodb://", "mongodb+srv://")):
        from trading_ops.audit.mongo import MongoStore

        return MongoStore(uri)
    path = uri.removeprefix("sqlite:///")
    if path == uri or not path.strip("/") or path.endswith("/") or "?" in path or path == ":memory:":
        raise ValueError(
            f"{_shown(uri)} is no audit store; give sqlite:///relative.db or sqlite:////absolute/path.db"
            " or mongodb://host:27017/database?replicaSet=rs0"
        )
    from trading_ops.audit.sqlite import SqliteStore

    return SqliteStore(path)


def _shown(uri: str) -> str:
    """What may be shown of a refused address: of one that may hold a password the scheme at most."""
    scheme, colon, _ = uri.partition(":")
    if "@" not in uri and (scheme.lower() == "sqlite" or not colon):
        return repr(uri)
    return f"this {scheme}: address" if scheme in ("sqlite", "mongodb", "mongodb+srv") else "this address"
