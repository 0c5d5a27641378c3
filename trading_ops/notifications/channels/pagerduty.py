"""Page whoever is on call through PagerDuty."""

from __future__ import annotations

import hashlib
from typing import Any

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.http import TIMEOUT_S, Http, as_json, parsed
from trading_ops.notifications.channels.redaction import host_of
from trading_ops.notifications.text import Message, fit, message_of

STYLES: dict[str, str] = {
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "error",
    Severity.CRITICAL: "critical",
}
NEUTRAL = "info"
# the whole event may have 512 kB, and characters beyond ASCII travel as up to six bytes each
MOST_SUMMARY, MOST_KEY, MOST_DETAIL = 1_024, 255, 10_000


class PagerDutyChannel:
    """The routing key of an Events v2 integration; events with one key are one incident, so repeats are told once."""

    name = "pagerduty"
    deduplicates = True

    def __init__(
        self,
        *,
        routing_key: str | None,
        base_url: str = "https://events.pagerduty.com",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._routing_key, self._base_url = routing_key, base_url.rstrip("/")
        self._http = Http(routing_key, timeout_s=timeout_s)

    @property
    def target(self) -> str:
        return f"an integration at {host_of(self._base_url)}" if self._routing_key else "not configured"

    def send(self, alert: Alert, *, possible_duplicate: bool) -> None:
        if not self._routing_key:
            raise DeliveryError("pagerduty is not configured: set PAGERDUTY_ROUTING_KEY", permanent=True)
        message = message_of(alert, possible_duplicate=possible_duplicate)
        event = {"routing_key": self._routing_key, **event_of(message, alert.dedup_key)}
        document = parsed(self._http.post(f"{self._base_url}/v2/enqueue", as_json(event)))
        if not isinstance(document, dict) or document.get("status") != "success":
            raise DeliveryError("HTTP 202, but not PagerDuty's answer")


def event_of(message: Message, dedup_key: str) -> dict[str, Any]:
    """The message as an event that opens the incident of its key, or adds to it."""
    severity = STYLES.get(message.severity, NEUTRAL)
    details = {
        "why": message.why,
        "what to do": message.what_to_do,
        "numbers": message.figures,
        "about": message.footer,
        "notice": message.notice,
    }
    return {
        "event_action": "trigger",
        "dedup_key": key_of(dedup_key),
        "payload": {
            "summary": fit(message.what, MOST_SUMMARY),
            "source": "trading_ops",
            "severity": severity,
            "custom_details": {name: fit(text, MOST_DETAIL) for name, text in details.items() if text},
        },
    }


def key_of(dedup_key: str) -> str:
    """The key as PagerDuty takes it: a digest where it is too long or empty, else as it is.

    >>> key_of("guard/rsi/2025-03-01")
    'guard/rsi/2025-03-01'
    """
    if dedup_key.strip() and len(dedup_key) <= MOST_KEY and dedup_key.isascii() and dedup_key.isprintable():
        return dedup_key
    return hashlib.sha256(dedup_key.encode("utf-8", "surrogatepass")).hexdigest()
