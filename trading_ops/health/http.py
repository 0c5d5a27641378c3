"""What does a service answer over HTTP, and how long does it take?"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpcore
import httpx

from trading_ops.bot.transport import Clock, Wire
from trading_ops.health.checkup import ProbeFailed
from trading_ops.health.rules import Limits, Verdict, judge_reply
from trading_ops.notifications.text import fit, one_line

MAX_ANSWER = 65_536  # bytes of an answer that are read
LONGEST = 200  # characters of what somebody else says


class Reply(NamedTuple):
    code: int
    content_type: str
    body: bytes
    latency_s: float


def look_over_http(
    component: str,
    url: str,
    limits: Limits,
    *,
    timeout_s: float,
    headers: Mapping[str, str] | None = None,
    ca_file: Path | None = None,
    expected: Collection[int] = (),
    complaint: Callable[[Reply], str] = lambda reply: "",
) -> Verdict:
    """One GET. `complaint` is what is wrong with the answer itself, which a status that is `expected` does not ask for.

    Raises ProbeFailed where no whole answer comes.
    """
    reply = _get(url, timeout_s, headers or {}, ca_file)
    said = "" if reply.code in expected else fit(one_line(complaint(reply)), LONGEST)
    return judge_reply(component, reply.code, reply.latency_s, limits, expected=expected, complaint=said)


def shown(url: str) -> str:
    """An address as it may be shown: without a user, a password, or a query that may hold a key.

    >>> shown("amqp://ops:secret@mq:5672/trading?heartbeat=5")
    'amqp://mq:5672/trading'
    """
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _get(url: str, timeout_s: float, headers: Mapping[str, str], ca_file: Path | None) -> Reply:
    host = urlsplit(url).netloc
    try:
        trusted = ssl.create_default_context(cafile=ca_file) if url.startswith("https") else None
        timeout = httpx.Timeout(timeout_s).as_dict()
        request = httpx.Request(
            "GET", url, headers={"User-Agent": "trading-ops", "Accept-Encoding": "identity", **headers}
        )
        request.extensions["timeout"] = timeout
        clock, began = Clock(), time.monotonic()
        clock.start(timeout_s)
        # below httpx's client, which would log every address and go through proxies, and bounds each read alone
        with Wire(trusted, clock) as transport:
            response = transport.handle_request(request)
            try:
                body = _read(response)
            finally:
                response.close()
    except (httpx.TimeoutException, httpcore.TimeoutException):
        raise ProbeFailed(f"no answer of {host} within {timeout_s:g} s") from None
    except httpcore.ConnectError as error:
        raise ProbeFailed(f"no connection to {host}: {error}") from None
    except (httpx.RequestError, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
        raise ProbeFailed(f"the connection to {host} broke ({type(error).__name__})") from None
    return Reply(response.status_code, response.headers.get("content-type", ""), body, time.monotonic() - began)


def _read(response: httpx.Response) -> bytes:
    """The beginning of an answer."""
    read = b""
    for chunk in response.iter_bytes():
        read += chunk
        if len(read) >= MAX_ANSWER:
            break
    return read[:MAX_ANSWER]
