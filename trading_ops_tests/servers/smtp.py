"""A local mail server with TLS and a login, in good and in bad moods."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections import deque
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Self

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

USER, PASSWORD = "ops@example.org", "GEHEIM-smtp-passwort"


class _Handler:
    """Takes what RFC 5321 lets it; `answers` are given first, instead of taking a message."""

    def __init__(self) -> None:
        self.answers: deque[str] = deque()
        self.refused: dict[str, str] = {}
        self.taken: list[Envelope] = []

    async def handle_RCPT(self, server: Any, session: Session, envelope: Envelope, address: str, options: Any) -> str:
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        if self.answers:
            return self.answers.popleft()
        content = envelope.original_content or b""
        lines = content.split(b"\r\n")
        if b"\0" in content or any(len(line) > 998 or b"\n" in line or b"\r" in line for line in lines):
            return "554 5.6.0 a line is too long, or ends wrongly"
        if any(byte > 127 for byte in content):
            return "554 5.6.3 8 bits where 7 were announced"
        self.taken.append(envelope)
        return "250 OK"


class MailServer:
    """`security` as in SMTP_SECURITY; with `login`, nothing is taken from who did not log in with USER and PASSWORD."""

    def __init__(self, files: tuple[Path, Path, Path], security: str, *, login: bool = True, size: int = 2**20) -> None:
        self.taken_by = _Handler()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files[1], files[2])
        self._context = context if security == "ssl" else None
        self._options: dict[str, Any] = {"data_size_limit": size, "hostname": "test", "ident": "test"}
        if security == "starttls":
            self._options |= {"tls_context": context, "require_starttls": True}
        if login:
            self._options |= {
                "authenticator": _authenticate, "auth_required": True, "auth_require_tls": security == "starttls",
            }  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self.port = 0

    def mails(self) -> list[EmailMessage]:
        return [message_from_bytes(e.original_content or b"", policy=policy.default) for e in self.taken_by.taken]  # type: ignore[misc]

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _listen(self) -> asyncio.Server:
        def protocol() -> SMTP:
            return SMTP(self.taken_by, loop=self._loop, **self._options)

        return await self._loop.create_server(protocol, "127.0.0.1", 0, ssl=self._context)


def _authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (USER.encode(), PASSWORD.encode())
    return AuthResult(success=right, handled=right)
