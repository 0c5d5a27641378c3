"""Page whoever is on call through PagerDuty."""

from __future__ import annotations

from typing import Any

from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.http import TIMEOUT_S, Http, as_json, parsed
from trading_ops.notifications.channels.redaction import host_of
from trading_ops.notifications.text import Message, fit, message_of, short_key

STYLES: dict[str, str] = {
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.ERROR: "error",
    Severity.CRITICAL: "critical",
}
NEUTRAL = "info"
# the whole event may have 512 kB, and characters beyond ASCII travel as up to six bytes each
MOST_SUMMARY, MOST_DETAIL = 1_024, 10_000


class PagerDutyChannel:
    """The routing key of an Events v2 integration; events with one key are one incident, so repeats are told once.

    The key is that of the message which opened the incident; where several did, all of them end with it. Nobody is
    paged for a report.
    """

    name = "pagerduty"
    deduplicates = True
    updates = True
    reports = False

    def __init__(
        self,
        *,
        routing_key: str | None,
        base_url: str = "https://events.pagerduty.com",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._routing_key, self._base_url = routing_key, base_url.rstrip("/")
        self._http = Http(routing_key, timeout_s=timeout_s, see="PAGERDUTY_ROUTING_KEY")

    @property
    def target(self) -> str:
        return f"an integration at {host_of(self._base_url)}" if self._routing_key else "not configured"

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> str | None:
        if not self._routing_key:
            raise DeliveryError("pagerduty is not configured: set PAGERDUTY_ROUTING_KEY", permanent=True)
        message = message_of(alert, possible_duplicate=possible_duplicate)
        for key in (alert.opening or alert.dedup_key, *alert.also):
            event = {"routing_key": self._routing_key, **event_of(message, key, alert.step)}
            document = parsed(self._http.post(f"{self._base_url}/v2/enqueue", as_json(event)))
            if not isinstance(document, dict) or document.get("status") != "success":
                raise DeliveryError("HTTP 202, but not PagerDuty's answer")
        return None


def event_of(message: Message, dedup_key: str, step: Step = Step.OPENED) -> dict[str, Any]:
    """The message as an event that opens the incident of its key, adds to it, or resolves it."""
    key = short_key(dedup_key)
    if step is Step.RESOLVED:
        return {"event_action": "resolve", "dedup_key": key}  # PagerDuty shows no more of it
    details = {
        **{heading.lower(): said for heading, said in message.sections},
        "numbers": message.figures,
        "about": message.footer,
        "notice": message.notice,
    }
    event = {
        "event_action": "trigger",
        "dedup_key": key,
        "client": "trading_ops",
        "payload": {
            "summary": fit(message.what, MOST_SUMMARY),
            "source": "trading_ops",
            "severity": STYLES.get(message.severity, NEUTRAL),
            "custom_details": {name: fit(text, MOST_DETAIL) for name, text in details.items() if text},
        },
    }
    return event | ({"links": [{"href": message.link, "text": "Open the run"}]} if message.link else {})
