"""How does a process reach a MongoDB replica set, and what does it say when it cannot?"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bson.errors import BSONError
from pymongo import IndexModel, MongoClient, timeout
from pymongo.database import Database
from pymongo.errors import (
    ConfigurationError,
    ConnectionFailure,
    DocumentTooLarge,
    NotPrimaryError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WriteConcernError,
)
from pymongo.uri_parser import split_options

from trading_ops.audit.mongo_documents import Document
from trading_ops.audit.store import InvalidRecord, StoreError, StoreUnavailable

DEFAULT_DATABASE = "trading_ops"
INDEXES = {
    "history": (("collection", "seq"), ("collection", "partition", "key", "revision")),
    "state": (("collection", "key"),),
}
DUPLICATE_KEY = 11000
DEFAULT_TIMEOUT_S = 10.0

_FORM = "mongodb://user:password@host:27017,host2:27017/database?replicaSet=rs0"
_STANDALONE = (
    "is a standalone server, which has no transactions; make it a replica set: "
    "start mongod with --replSet rs0 and run rs.initiate() in mongosh once"
)
_NEVER_INITIATED = "belongs to a replica set that was never initiated; run rs.initiate() in mongosh once"
_OTHER_SET = (
    "is not in the replica set that the address names; correct its replicaSet, or"
    " start mongod with --replSet and run rs.initiate() in mongosh once"
)
_NO_PRIMARY = "has no primary to write to at present; look at rs.status() in mongosh if an election does not end this"
_TLS = "could not agree on TLS; check the tls options of the address and the certificates on both sides"
_DOWN = "cannot be reached; check that mongod runs and that host, port, DNS and firewall are right"
_SLOW = "gave no answer within {timeout_s:g} s; check its load and the network, then try again"
_BROKEN = "broke the connection; look at mongod's log, then try again"
_LOGIN = "refused the login; check user, password and authSource in the address"
_BUSY = "was busy with other writers; try again"
_ROLE = "does not allow this to the user; grant it the role readWrite on the database"
_FULL = "has no room: the disk is full. Free some space; nothing of this call was stored"
_UNCONFIRMED = "could not confirm the write on a majority of members; look at rs.status() in mongosh, then try again"
_FOREIGN = "has collections of another program under our names; choose another database"
_ADVICE = {8000: _LOGIN, 18: _LOGIN, 13: _ROLE, 14031: _FULL, 20: _STANDALONE, 50: _SLOW, 64: _UNCONFIRMED,
           112: _BUSY, 85: _FOREIGN, 86: _FOREIGN, DUPLICATE_KEY: _FOREIGN}  # fmt: skip
_TOO_LARGE = (10334, 17280, 17419, 17420)
_TOO_MUCH = (257, 388)
_HOST = r"([\w.%-]+|\[[0-9A-Fa-f:.]+\])(:\d+)?"
_DATABASE = r"[\w%-]+"
_SELECTION = (
    (r"SSL|TLS|certificate", _TLS),
    (r"RSGhost", _NEVER_INITIATED),
    (r"replica set name", _OTHER_SET),
    (r"RSSecondary|RSOther", _NO_PRIMARY),
)


@dataclass
class _Connection:
    """What one process uses."""

    database: Database[Document]
    ready: bool = False


class MongoServer:
    """One database of a replica set: a client for each process, and advice when it cannot be used."""

    def __init__(self, uri: str, timeout_s: float) -> None:
        """Raises ValueError for an address that cannot be one; the server itself is not needed yet."""
        if not timeout_s > 0:
            raise ValueError(f"timeout_s is {timeout_s!r}; give a positive number of seconds")
        self._uri, self._timeout_s = uri, timeout_s
        self._closed = False
        self._connections: dict[int, _Connection] = {}
        self.shown = f"{_hosts(uri)}/{self._connection().database.name}"

    @contextmanager
    def database(self, *, deadline: bool = True) -> Iterator[Database[Document]]:
        """The database, indexed; the block may take `timeout_s`, or without `deadline` each round trip may."""
        with self._explained(), timeout(self._timeout_s if deadline else None):
            connection = self._connection()
            if not connection.ready:
                self._prepare(connection.database)
                connection.ready = True
            yield connection.database

    def ping(self) -> None:
        """Raises StoreUnavailable unless the primary answers; nothing is read or written."""
        with self._explained(), timeout(self._timeout_s):
            self._connection().database.client.admin.command("ping")

    def close(self) -> None:
        """Close this process's client."""
        self._closed = True
        if connection := self._connections.pop(os.getpid(), None):
            connection.database.client.close()

    def _connection(self) -> _Connection:
        if self._closed:
            raise StoreUnavailable(f"{self.shown}: this store was closed; open it again")
        # A parent's client stays in here unused: its sockets and threads are the parent's, even closing harms.
        if os.getpid() not in self._connections:
            self._connections.setdefault(os.getpid(), _Connection(self._connect()))
        return self._connections[os.getpid()]

    def _connect(self) -> Database[Document]:
        timeout_ms = int(self._timeout_s * 1000)
        try:
            # The client alone would only warn, and go on without what a misspelt option was to secure.
            split_options(self._uri.partition("?")[2] or "appname=trading_ops")
            client: MongoClient[Document] = MongoClient(
                self._uri,
                appname="trading_ops",
                connect=False,
                timeoutMS=timeout_ms,
                serverSelectionTimeoutMS=timeout_ms,
                connectTimeoutMS=timeout_ms,
                serverMonitoringMode="poll",  # looks again at once where an operation waits for a server
                readPreference="primary",
                readConcernLevel="majority",
                w="majority",
                journal=True,
                retryReads=True,
                retryWrites=True,
            )
            database = client.get_default_database(DEFAULT_DATABASE)
        except (PyMongoError, ValueError, TypeError, OSError) as error:
            # What the driver says may quote a password that was cut at the wrong place, so nothing of it is shown.
            unread = isinstance(error, OSError) and f": {error.strerror}, {error.filename}"
            reason = f"{type(error).__name__}{unread or _options_named(self._uri, str(error))}"
        else:
            if "@" not in database.name:
                return database
            reason = "an @ stands behind the first /"
        raise ValueError(
            f"the MongoDB address cannot be used ({reason}); give {_FORM}, with special characters of"
            " user and password percent-encoded"
        )

    def _prepare(self, database: Database[Document]) -> None:
        """Refuse what has no transactions, and create the indexes where missing."""
        hello = database.client.admin.command("hello")
        if "setName" not in hello and hello.get("msg") != "isdbgrid":
            raise StoreUnavailable(f"{self.shown} {_NEVER_INITIATED if hello.get('isreplicaset') else _STANDALONE}")
        for name, indexes in INDEXES.items():
            models = [IndexModel([(field, 1) for field in fields], unique=True) for fields in indexes]
            database[name].create_indexes(models)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn what the driver and the server say into a StoreError with advice."""
        try:
            yield
        except BSONError as error:
            if isinstance(error, DocumentTooLarge):
                raise self._too_large(error) from error
            raise StoreError(f"{self.shown}: {error}; verify() finds a damaged record") from error
        except PyMongoError as error:
            if getattr(error, "code", None) in _TOO_LARGE:
                raise self._too_large(error) from error
            if failure_code(error) in _TOO_MUCH:
                raise InvalidRecord(
                    f"{self.shown}: too much for one transaction; append fewer at a time ({_said(error)})"
                ) from error
            advice = _advice(error).format(timeout_s=self._timeout_s)
            raise StoreUnavailable(f"{self.shown} {advice} ({_said(error)})") from error

    def _too_large(self, error: Exception) -> InvalidRecord:
        return InvalidRecord(f"{self.shown} keeps documents up to 16 MB; store a path to what is larger ({error})")


def patience_s(uri: str) -> float:
    """How long a call may take: the address's timeoutMS in seconds, else 10."""
    told = re.search(r"[?&]timeoutMS=([1-9]\d*)(?:&|$)", uri, re.IGNORECASE)
    return int(told[1]) / 1000 if told else DEFAULT_TIMEOUT_S


def shown(uri: str) -> str:
    """What may be shown of any address, also of one that cannot be used: "MongoDB host1:27017,host2/database".

    Never raises; "MongoDB" alone where it is not certain which part is no password.
    """
    scheme, _, rest = uri.partition("://")
    authority, *behind = re.split("[/?]", rest, maxsplit=1)
    hosts = authority.rpartition("@")[2]
    clear = scheme in ("mongodb", "mongodb+srv") and not any("@" in text for text in behind)
    if not clear or not re.fullmatch(f"{_HOST}(,{_HOST})*", hosts):
        return "MongoDB"
    path = rest[len(authority) :].partition("?")[0].strip("/")
    return f"MongoDB {hosts}/{path if re.fullmatch(_DATABASE, path) else DEFAULT_DATABASE}"


def failure_code(error: PyMongoError) -> int:
    """The server's code of a failure, of its first write error in a bulk; 0 when the server gave none."""
    code = _reply(error).get("code") or getattr(error, "code", None)
    return code if isinstance(code, int) else 0


def _advice(error: PyMongoError) -> str:
    if isinstance(error, ServerSelectionTimeoutError):
        return next((advice for pattern, advice in _SELECTION if re.search(pattern, str(error))), _DOWN)
    if isinstance(error, NotPrimaryError):
        return _NO_PRIMARY
    if (known := _ADVICE.get(failure_code(error))) is not None:
        return known
    if error.timeout:
        return _SLOW
    if isinstance(error, ConnectionFailure):
        return _TLS if re.search("SSL|TLS|certificate", str(error)) else _BROKEN
    if isinstance(error, WriteConcernError):
        return _UNCONFIRMED
    if isinstance(error, ConfigurationError):
        return "cannot be used with this address; check its options and the SRV record of its host"
    return "refused the operation; look at mongod's log, then try again"


def _said(error: PyMongoError) -> str:
    """The driver's message without its tail of timeouts, topologies and replies."""
    text = str(_reply(error).get("errmsg") or error)
    return re.split(r" \(configured timeouts|, Timeout:|, full error|, remaining timeout", text)[0][:300]


def _reply(error: PyMongoError) -> Mapping[str, Any]:
    """What the server replied about a failure, in a bulk about the first; empty when it said nothing."""
    details: Mapping[str, Any] = (error.details if isinstance(error, OperationFailure) else None) or {}
    return next((reply for kind in ("writeErrors", "writeConcernErrors") for reply in details.get(kind, ())), details)


def _hosts(uri: str) -> str:
    """Scheme and hosts of a valid address, without the user."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{re.split('[/?]', rest)[0].rpartition('@')[2]}"


def _options_named(uri: str, message: str) -> str:
    """The names of the address's options that a message is about; never their values."""
    names = re.findall(r"[?&]([A-Za-z]+)=", uri.rpartition("@")[2])
    named = [name for name in names if name.lower() in message.lower()]
    return f" about {', '.join(named)}" if named else ""
