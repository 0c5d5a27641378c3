"""How long is an answer waited for, and how much of it is read?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from httpx2 import ReadError, ReadTimeout, Request, Response, SyncByteStream

BEGAN = "trading_ops.began"
MOST_BYTES = 8_000_000  # as they are sent; 200,000 characters of a reply, escaped, with all that is around them


def begun(request: Request) -> None:
    """Note down when a request is sent."""
    request.extensions[BEGAN] = time.monotonic()


def bounded(timeout_s: float, response: Response) -> None:
    """Read the body within `timeout_s` of the request: the SDK's own timeout begins anew with every byte.

    Raises, while it is read, ReadTimeout, or ReadError for a body that is too long.
    """
    stream = response.stream
    if isinstance(stream, SyncByteStream):
        began = response.request.extensions.get(BEGAN, time.monotonic())
        response.stream = _Bounded(stream, began + timeout_s)


class _Bounded(SyncByteStream):
    def __init__(self, stream: SyncByteStream, until: float) -> None:
        self._stream, self._until = stream, until

    def __iter__(self) -> Iterator[bytes]:
        read = 0
        for part in self._stream:
            read += len(part)
            if read > MOST_BYTES:
                raise ReadError(f"the answer has more than {MOST_BYTES:,} bytes")
            if time.monotonic() > self._until:
                raise ReadTimeout("the answer did not end in time")
            yield part

    def close(self) -> None:
        self._stream.close()
