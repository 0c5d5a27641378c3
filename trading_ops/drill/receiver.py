"""Did a signed alert arrive over HTTP, and when? A receiver on this machine for one drill."""

from __future__ import annotations

import hmac
import json
import secrets
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from trading_ops.notifications.channels.webhook import SIGNATURE, TIMESTAMP, signature


class Receiver(ThreadingHTTPServer):
    """Takes what the webhook channel sends; `taken` holds each alert that was signed with `secret`, and when."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.secret = secrets.token_urlsafe(32)
        self.taken: list[tuple[datetime, dict[str, Any]]] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/alerts"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        expected = signature(self.server.secret, self.headers.get(TIMESTAMP, ""), body)
        signed = hmac.compare_digest(expected, self.headers.get(SIGNATURE, ""))
        if signed:
            self.server.taken.append((datetime.now(UTC), json.loads(body)))
        self.send_response(204 if signed else 401)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """The time line says it."""
