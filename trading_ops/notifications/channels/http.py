"""How does a message reach a service over HTTP, and what does it mean when it does not?"""

from __future__ import annotations

import json
import logging
import math
import os
import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx

from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.redaction import Redaction, host_of

TIMEOUT_S = 10.0
KEPT_S = 2.0  # how long a connection waits for the next message: less than any server does
MAX_ANSWER = 65_536  # bytes of an answer that are read
PASSING = (408, 425, 429)  # refusals that are not about the message
# refusals that are about who asks, or whom: by their status, else by the service's words
MISCONFIGURED, SAID = (401, 403, 404), ("chat not found", "routing key")
# At DEBUG httpcore logs the headers of an answer, in which a server or a redirect may repeat the address.
logging.getLogger("httpcore.http11").addFilter(lambda record: "response_headers.complete" not in record.getMessage())


class HttpError(DeliveryError):
    """What a status says: which ones are permanent, and how long the service wants to be left alone.

    `see` names the settings that a refusal may be about.
    """

    def __init__(self, status: int, said: str, retry_after_s: float | None = None, see: str = "") -> None:
        ours = status in MISCONFIGURED or (status == 400 and any(words in said.lower() for words in SAID))
        why = (f": {said}" if said else "") + (f"; see {see}" if see and ours else "")
        super().__init__(
            f"Rate limited (HTTP 429){why}" if status == 429 else f"HTTP {status}{why}",
            retry_after_s=retry_after_s,
            permanent=300 <= status < 500 and status not in PASSING,
            in_doubt=status in (502, 504),  # a gateway that did not hear the end of it
            unanswered=status == 504,
        )
        self.status = status


class Http:
    """Posts to one service: a deadline, no redirects, no proxies, and no secret in any error or log.

    It uses httpx below its client, which would log every address, the secret ones too. `see`: the names of the settings
    that say whom to post to, and as whom.
    """

    def __init__(self, *secrets: str | None, timeout_s: float = TIMEOUT_S, see: str = "") -> None:
        self.redacted = Redaction(*secrets)
        self._see = see
        self._timeout_s = timeout_s
        self._transports: dict[tuple[int, str], httpx.HTTPTransport] = {}

    def post(self, url: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
        """The answer to a post that got a 2xx status; raises DeliveryError."""
        return self.exchange(url, body, headers)[0]

    def exchange(
        self, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None, *, method: str = "POST"
    ) -> tuple[bytes, float | None]:
        """As `post`, and the seconds that the answer asks to wait: Slack refuses with status 200 too."""
        host, begun = host_of(url), False
        try:
            request = httpx.Request(
                method,
                url,
                content=body,
                headers={"Content-Type": "application/json", "User-Agent": "trading-ops", **(headers or {})},
                extensions={"timeout": httpx.Timeout(self._timeout_s).as_dict()},
            )
            until = time.monotonic() + self._timeout_s
            transport = self._transport(request.url.scheme)
            begun = True
            response = transport.handle_request(request)
            try:
                answer = _read(response.iter_raw(), until)
            finally:
                response.close()
        except httpx.ConnectTimeout:
            raise DeliveryError(
                f"timeout: no connection to {_place(url)} within {self._timeout_s:g} s", unanswered=True
            ) from None
        except httpx.TimeoutException:
            raise DeliveryError(
                f"timeout: no whole answer of {host} within {self._timeout_s:g} s", in_doubt=True, unanswered=True
            ) from None
        except httpx.ConnectError as error:
            see = f"; see {self._see}: is it https?" if "WRONG_VERSION_NUMBER" in str(error) and self._see else ""
            raise DeliveryError(
                f"no connection to {_place(url)}: {self.redacted(str(error))}{see}", unanswered=True
            ) from None
        except httpx.TransportError as error:
            raise DeliveryError(f"the connection to {host} broke ({type(error).__name__})", in_doubt=True) from None
        except OSError as error:  # such as no file left to open: it is about this machine and may pass
            raise DeliveryError(f"{host} cannot be asked now ({type(error).__name__})", in_doubt=begun) from None
        except (httpx.InvalidURL, ValueError) as error:
            raise DeliveryError(f"{host} cannot be asked ({type(error).__name__})", permanent=True) from None
        wait_s = _asked_to_wait(response.headers, answer)
        if not 200 <= response.status_code < 300:
            raise HttpError(response.status_code, self.redacted(_said(answer)), wait_s, self._see)
        return answer, wait_s

    def _transport(self, scheme: str) -> httpx.HTTPTransport:
        """Keeps connections for a moment, so that of many messages not each makes one; none is shared with a fork."""
        place = os.getpid(), scheme
        if place not in self._transports:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=8, keepalive_expiry=KEPT_S)
            self._transports[place] = httpx.HTTPTransport(
                verify=_trusted() if scheme == "https" else _plain(), trust_env=False, limits=limits
            )
        return self._transports[place]


def as_json(document: Any) -> bytes:
    """The document as compact JSON in ASCII, which no proxy or server misreads."""
    return json.dumps(document, separators=(",", ":")).encode()


def as_form(fields: Mapping[str, str], file: tuple[str, str, bytes]) -> tuple[bytes, dict[str, str]]:
    """The body and the header of a multipart form with one PNG file: (field, name, content)."""
    name, filename, content = file
    request = httpx.Request("POST", "http://form", data=fields, files={name: (filename, content, "image/png")})
    return request.read(), {"Content-Type": request.headers["Content-Type"]}


def parsed(answer: bytes) -> Any:
    """The answer as JSON, None where it is none."""
    try:
        return json.loads(answer)
    except (ValueError, RecursionError):
        return None


def retry_after(header: str, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or an HTTP date; None where it cannot be read.

    >>> retry_after("1.5", datetime(2025, 3, 1, tzinfo=UTC))
    1.5
    >>> retry_after("Sat, 01 Mar 2025 00:01:00 GMT", datetime(2025, 3, 1, tzinfo=UTC))
    60.0
    """
    try:
        seconds = float(header)
    except ValueError:
        try:
            moment = parsedate_to_datetime(header)
        except (ValueError, OverflowError):
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - now).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _place(url: str) -> str:
    """The host and the port, which are no secret."""
    address = urlsplit(url)  # a request was made of it, so it can be read
    return f"{host_of(url)}:{address.port or {'http': 80}.get(address.scheme, 443)}"


@cache
def _trusted() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


@cache
def _plain() -> ssl.SSLContext:
    """What the transport wants for a connection without TLS too, made once."""
    return httpx.create_ssl_context(verify=False, trust_env=False)


def _read(chunks: Iterable[bytes], until: float) -> bytes:
    """The beginning of an answer; a server that drips must not hold us up."""
    read = b""
    for chunk in chunks:
        read += chunk
        if len(read) >= MAX_ANSWER:
            break
        if time.monotonic() > until:
            raise httpx.ReadTimeout("the time for the whole answer is over")
    return read[:MAX_ANSWER]


def _asked_to_wait(headers: httpx.Headers, answer: bytes) -> float | None:
    """What Discord and Telegram say in the answer, which is exact, else the header."""
    document = parsed(answer)
    document = document if isinstance(document, dict) else {}
    parameters = document.get("parameters")
    told = document.get("retry_after", parameters.get("retry_after") if isinstance(parameters, dict) else None)
    if isinstance(told, int | float) and not isinstance(told, bool):
        with suppress(OverflowError):  # a whole number beyond every float
            if math.isfinite(told):
                return max(float(told), 0.0)
    return retry_after(headers.get("Retry-After", ""), datetime.now(UTC))


def _said(answer: bytes) -> str:
    """The reason in an answer: services put it into one of a few fields, or say it in plain text."""
    document = parsed(answer)
    if isinstance(document, dict):
        texts = [document.get(name) for name in ("description", "message", "error", "detail")]
        details = document.get("errors")
        texts += [json.dumps(details)] if details else []
        return "; ".join(text for text in texts if isinstance(text, str))
    text = answer[:2_000].decode("utf-8", "replace")
    return "" if "<html" in text.lower() else text
