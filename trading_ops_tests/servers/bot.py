"""What can a bot's server do to its client? Bots that answer by a script, and sockets that misbehave."""

from __future__ import annotations

import functools
import inspect
import ipaddress
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from starlette.requests import Request
from starlette.responses import Response

CLOSED = "/api/paper-trading/trades/closed"
TIMEOUT_S = 30.0


@contextmanager
def serving(app: Any, *, certificate: Path | None = None, key: Path | None = None, port: int = 0) -> Iterator[str]:
    """An ASGI app on this port, or one of the system's choice, in a thread; yields its address."""
    config = uvicorn.Config(app, log_config=None, lifespan="off", ssl_certfile=certificate, ssl_keyfile=key)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", port)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        until = time.monotonic() + TIMEOUT_S
        while not server.started and time.monotonic() < until:
            time.sleep(0.01)
        yield f"{'https' if certificate else 'http'}://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        server.force_exit = True
        thread.join(TIMEOUT_S)


@dataclass
class Asked:
    method: str
    path: str  # as it came, not unescaped
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


@dataclass
class Says:
    """A reply word by word."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


class ScriptedServer:
    """Answers each path with what `script` has: JSON, `Says`, a function of the request, or a list of these in turn.

    The last of a list is repeated. What was asked is kept in `asked`.
    """

    def __init__(self, script: Mapping[str, Any] | None = None) -> None:
        self.script: dict[str, Any] = dict(script or {})
        self.asked: list[Asked] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        path = scope["raw_path"].decode()
        asked = Asked(request.method, path, dict(request.query_params), dict(request.headers), await request.body())
        self.asked.append(asked)
        answer = self.script.get(path, Says({"detail": "Not Found"}, 404))
        if isinstance(answer, Turns):
            answer = answer.next()
        if callable(answer):
            answer = answer(asked)
        if inspect.isawaitable(answer):  # so that a slow answer holds up no other
            answer = await answer
        says = answer if isinstance(answer, Says) else Says(answer)
        body = says.body if isinstance(says.body, bytes) else json.dumps(says.body).encode()
        headers = {"content-type": says.content_type, **says.headers}
        await Response(body, says.status, {k: v for k, v in headers.items() if v})(scope, receive, send)

    def paths(self, method: str = "GET") -> list[str]:
        return [asked.path for asked in self.asked if asked.method == method]


class Turns:
    """One answer after the other; the last one stays."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def next(self) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class TradeList:
    """A bot's closed trades in one of the dialects that are in use; `before_page` may change them between two pages."""

    def __init__(
        self,
        rows: list[dict[str, Any]],
        *,
        since: bool = True,
        exclusive: bool = False,
        limit: bool = True,
        cap: int | None = None,
        newest_first: bool = False,
        keep: str = "first",  # which part a cut list keeps, in the order it is sent: first or last
        facts: tuple[str, ...] = (),
        before_page: Callable[[TradeList, int], None] = lambda trades, page: None,
    ) -> None:
        self.rows = list(rows)
        self.since, self.exclusive, self.limit, self.cap = since, exclusive, limit, cap
        self.newest_first, self.keep, self.facts = newest_first, keep, facts
        self.before_page = before_page
        self.pages: list[int] = []  # their sizes

    def __call__(self, asked: Asked) -> Any:
        self.before_page(self, len(self.pages))
        since = datetime.fromisoformat(asked.query["since"])
        rows = sorted(self.rows, key=lambda row: (moment(row), row["trade_id"]), reverse=self.newest_first)
        if self.since:
            rows = [r for r in rows if moment(r) > since or (moment(r) == since and not self.exclusive)]
        most = min([len(rows), *([int(asked.query["limit"])] if self.limit else []), *([self.cap] if self.cap else [])])
        page = rows[:most] if self.keep == "first" else rows[len(rows) - most :]
        self.pages.append(len(page))
        facts = {"has_more": len(rows) > len(page), "total": len(rows)}
        return {"success": True, "data": page, **{name: facts[name] for name in self.facts}}


def moment(row: Mapping[str, Any]) -> datetime:
    return _parsed(row["closed_at"])


_parsed = functools.cache(datetime.fromisoformat)


@contextmanager
def raw_server(behave: Callable[[socket.socket, int], None]) -> Iterator[tuple[str, list[int]]]:
    """A socket for which `behave(connection, number)` does what it likes once a request has begun to arrive.

    Yields its address and a list that grows by one a connection.
    """
    connections: list[int] = []
    closing = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve(connection: socket.socket, number: int) -> None:
            with connection:
                try:
                    connection.recv(65_536)
                    behave(connection, number)
                except OSError:
                    return  # the client had enough

        def accept() -> None:
            while not closing.is_set():
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                connections.append(len(connections))
                threading.Thread(target=serve, args=(connection, len(connections)), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", connections
        closing.set()
        listening.shutdown(socket.SHUT_RDWR)


def drip(connection: socket.socket, data: bytes, pause_s: float, sent: list[int]) -> None:
    """Send one byte after the other, each after a pause; `sent` grows by each byte that somebody still wanted."""
    for byte in data:
        connection.sendall(bytes([byte]))
        sent.append(byte)
        time.sleep(pause_s)


def make_authority(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate authority of its own and a certificate it signed for 127.0.0.1: CA, certificate and key files."""
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = _certificate("test authority", authority_key.public_key(), "test authority", authority_key, True)
    certificate = _certificate("127.0.0.1", key.public_key(), "test authority", authority_key, False)
    files = folder / "ca.pem", folder / "bot.pem", folder / "bot.key"
    files[0].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[2].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    ssl.create_default_context(cafile=files[0])
    return files


def _certificate(subject: str, key: Any, issuer: str, signer: Any, is_authority: bool) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(subject))
        .issuer_name(named(issuer))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if is_authority:
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(signer, hashes.SHA256())
