"""Tell a program of your own, as signed JSON."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import Any

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.http import TIMEOUT_S, Http, as_json
from trading_ops.notifications.channels.redaction import host_of
from trading_ops.notifications.text import clean, fit, message_of, one_line

STYLES: dict[str, str] = {
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "error",
    Severity.CRITICAL: "critical",
}
NEUTRAL = "unknown"
MOST_TEXT, MOST_NUMBERS, MOST_SINCE = 50_000, 200_000, 100  # characters; there is no limit, but a bound
KEY, TIMESTAMP, SIGNATURE = "Idempotency-Key", "X-Trading-Ops-Timestamp", "X-Trading-Ops-Signature"


class WebhookChannel:
    """An address and the key of the signature; a receiver that keeps the idempotency keys is told each alert once."""

    name = "webhook"
    deduplicates = True
    updates = True
    reports = True

    def __init__(
        self,
        *,
        url: str | None,
        secret: str | None,
        timeout_s: float = TIMEOUT_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._url, self._secret, self._now = url, secret, now
        self._http = Http(url, secret, timeout_s=timeout_s, see="WEBHOOK_URL and WEBHOOK_SECRET")

    @property
    def target(self) -> str:
        return f"an address at {host_of(self._url)}" if self._url and self._secret else "not configured"

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> str | None:
        if not self._url or not self._secret:
            raise DeliveryError("webhook is not configured: set WEBHOOK_URL and WEBHOOK_SECRET", permanent=True)
        body = as_json(document_of(alert, possible_duplicate=possible_duplicate))
        timestamp = str(int(self._now()))
        headers = {
            KEY: hashlib.sha256(alert.dedup_key.encode()).hexdigest(),
            TIMESTAMP: timestamp,
            SIGNATURE: signature(self._secret, timestamp, body),
        }
        self._http.post(self._url, body, headers)
        return None


def document_of(alert: Alert, *, possible_duplicate: bool) -> dict[str, Any]:
    """The alert as JSON; numbers that are larger than anybody needs are told as the text other channels show."""
    message = message_of(alert, possible_duplicate=possible_duplicate)
    numbers = _clean(alert.to_document()["numbers"])
    if len(as_json(numbers)) > MOST_NUMBERS:
        numbers = {"shortened": fit(message.figures, MOST_TEXT)}
    return {
        "version": 1,
        "severity": STYLES.get(message.severity, NEUTRAL),
        "level": message.severity,
        "dedup_key": fit(one_line(alert.dedup_key), MOST_TEXT),
        "what": fit(message.what, MOST_TEXT),
        "why": fit(message.why, MOST_TEXT),
        "done": fit(message.done, MOST_TEXT),
        "what_to_do": fit(message.what_to_do, MOST_TEXT),
        "day": one_line(alert.day) if alert.day else None,
        "numbers": numbers,
        "incident": fit(one_line(alert.incident), MOST_TEXT) if alert.incident else None,
        "step": str(alert.step),
        "opening": fit(one_line(alert.group or alert.opening or alert.dedup_key), MOST_TEXT),
        "since": one_line(alert.since)[:MOST_SINCE] if alert.since else None,
        "link": message.link or None,
        "possible_duplicate": possible_duplicate,
    }


def _clean(value: Any) -> Any:
    """A JSON value with clean texts: databases refuse the NUL that JSON can hold."""
    if isinstance(value, dict):
        return {clean(name): _clean(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    return clean(value) if isinstance(value, str) else value


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """HMAC-SHA256 over the timestamp, a dot and the body, as hex: a receiver computes the same and compares.

    >>> signature("key", "1700000000", b"{}")[:27]
    'sha256=9d713ed406bb7076d412'
    """
    signed = f"{timestamp}.".encode() + body
    return f"sha256={hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()}"
