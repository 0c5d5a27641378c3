"""How does a request reach the bot and its reply come back, whatever goes wrong in between?"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpcore
import httpx
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
    wait_random,
)

from trading_ops.bot.client import BotError, BotUnreachable
from trading_ops.bot.replies import said
from trading_ops.secrecy import forms

MAX_BYTES = 64 * 2**20
TRIES = 3
LONGEST_WAIT_S = 30.0  # the most a bot may ask for with Retry-After
SECRET_LENGTH = 8  # a shorter token would be found by chance in any reply, and is no secret


class Reply(NamedTuple):
    content_type: str
    body: bytes


class Transport:
    """Requests to one address: each attempt within `timeout_s` as a whole, three attempts, no redirects, no proxies.

    `base_url` has no user, query or trailing slash. The token leaves in the Authorization header and nowhere else.
    """

    def __init__(self, base_url: str, token: str | None, ca_file: Path | None, timeout_s: float) -> None:
        self._base_url = base_url
        self._token = token or ""
        self._timeout_s = timeout_s
        self._clock = Clock()
        self._client = httpx.Client(
            transport=Wire(_trusted(ca_file), self._clock),
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=timeout_s,
            trust_env=False,
            follow_redirects=False,
        )

    def ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        content: bytes | None = None,
    ) -> Reply:
        """A reply with a 2xx status. Raises BotUnreachable after three attempts that failed, else BotError."""
        attempts = Retrying(
            retry=retry_if_exception_type(_TryAgain), stop=stop_after_attempt(TRIES), wait=_pause, reraise=True
        )
        try:
            return attempts(self._once, method, path, params, headers, content)
        except _TryAgain as error:
            raise BotUnreachable(f"{error} ({TRIES} attempts)") from None

    def _once(self, method: str, path: str, params: Any, headers: Any, content: bytes | None) -> Reply:
        where = f"{method} {self._base_url}{path}"
        self._clock.start(self._timeout_s)
        try:
            with self._client.stream(
                method, self._base_url + path, params=params, headers=headers, content=content
            ) as response:
                body = self._body(response, where)
        except (httpx.TimeoutException, httpcore.TimeoutException):
            raise _TryAgain(f"{where}: no whole answer within {self._timeout_s:g} s") from None
        except (httpx.InvalidURL, httpx.DecodingError, UnicodeError) as error:
            raise BotError(f"{where}: {error or 'an address that cannot be asked'}") from None
        except (httpx.HTTPError, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            reason = error.__cause__ or error.__context__
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise BotUnreachable(
                    f"{where}: its certificate is not trusted ({reason.verify_message});"
                    " TRADING_OPS_BOT_CA_FILE names the authority that signed it"
                ) from None
            raise _TryAgain(
                f"{where}: {error or type(error).__name__}; is the bot running and TRADING_OPS_BOT_URL right?"
            ) from None
        return self._judged(response, body, where)

    def _body(self, response: httpx.Response, where: str) -> bytes:
        chunks: list[bytes] = []
        size = 0
        for chunk in response.iter_bytes():
            size += len(chunk)
            if size > MAX_BYTES:
                raise BotError(f"{where}: the answer is larger than {MAX_BYTES >> 20} MiB")
            self._clock.left(None)
            chunks.append(chunk)
        return without(self._token, b"".join(chunks))

    def _judged(self, response: httpx.Response, body: bytes, where: str) -> Reply:
        status = response.status_code
        if 200 <= status < 300:
            return Reply(response.headers.get("content-type", ""), body)
        why = said(body)
        told = f"{where}: {status}{f', {why}' if why else ''}"
        if status == 429 or status >= 500:
            raise _TryAgain(told, retry_after(response.headers.get("retry-after", ""), datetime.now(UTC)))
        if status in (401, 403):
            state = "is not accepted" if self._token else "is not set"
            raise BotError(f"{told}; TRADING_OPS_BOT_TOKEN {state}")
        if status == 404:
            raise BotError(f"{told}; the bot does not offer this")
        if 300 <= status < 400:
            raise BotError(f"{told}; redirects are not followed, set TRADING_OPS_BOT_URL to where it leads")
        raise BotError(told)


class _TryAgain(BotUnreachable):
    """An attempt that failed in a way that may pass; `wait_s` is what the bot asked for."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


def without(token: str, body: bytes) -> bytes:
    """What a bot answers; one that echoes the token must not carry it into an error or a record."""
    for form in forms(token) if len(token) >= SECRET_LENGTH else ():
        body = body.replace(form.encode(), b"[token]")
    return body


_backoff = wait_exponential(multiplier=0.2, max=5.0) + wait_random(0, 0.2)


def _pause(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_backoff(state), error.wait_s if isinstance(error, _TryAgain) else 0.0)


def retry_after(header: str, now: datetime) -> float:
    """Seconds a Retry-After header asks for, as seconds or an HTTP date, at most 30; 0 where it cannot be read."""
    header = header.strip()
    if header.isdecimal():
        return min(float(header), LONGEST_WAIT_S)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return min(max((moment - now).total_seconds(), 0.0), LONGEST_WAIT_S)


def _trusted(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # a file that is not there, or holds no certificate
        raise BotError(
            f"TRADING_OPS_BOT_CA_FILE: {ca_file} cannot be used ({error}); a file of PEM certificates is needed"
        ) from None


class Clock:
    """The moment by which the current thread's attempt must be over."""

    def __init__(self) -> None:
        self._local = threading.local()

    def start(self, seconds: float) -> None:
        self._local.until = time.monotonic() + seconds

    def left(self, timeout: float | None) -> float:
        """Seconds for the next step; raises ReadTimeout where none are left."""
        left = self._local.until - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the time for the whole answer is over")
        return left if timeout is None else min(left, timeout)


class Wire(httpx.BaseTransport):
    """httpx's own transport, but for the clock: httpx bounds each read, so a dripping server could go on for ever."""

    def __init__(self, trusted: ssl.SSLContext | None, clock: Clock) -> None:
        self._pool = httpcore.ConnectionPool(
            ssl_context=trusted,
            max_connections=20,
            max_keepalive_connections=10,
            keepalive_expiry=5.0,
            network_backend=_Backend(clock),
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        response = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response),
            extensions=response.extensions,
        )

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, response: httpcore.Response) -> None:
        self._response = response

    def __iter__(self) -> Iterator[bytes]:
        yield from self._response.iter_stream()

    def close(self) -> None:
        self._response.close()


class _Backend(httpcore.SyncBackend):
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        stream = super().connect_tcp(host, port, self._clock.left(timeout), local_address, socket_options)
        return _Stream(stream, self._clock)


class _Stream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, clock: Clock) -> None:
        self._stream, self._clock = stream, clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._clock.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._clock.left(timeout))

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, self._clock.left(timeout)), self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)

    def close(self) -> None:
        self._stream.close()
