"""Who notices that the watchdog itself is gone? A service outside, which it pings while all is well."""

from __future__ import annotations

from trading_ops.notifications.channels.http import Http


class Ping:
    """A GET to the secret address of a dead man's switch (healthchecks.io and the like)."""

    def __init__(self, url: str) -> None:
        self._url, self._http = url, Http(url)

    def __call__(self) -> None:
        """Raises DeliveryError where it was not taken."""
        self._http.exchange(self._url, method="GET")
