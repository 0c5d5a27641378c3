"""What does a receiver of signed webhooks get, and can it trust it?"""

import re

import pytest

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channels.webhook import WebhookChannel, signature
from trading_ops_tests.conftest import ROOT
from trading_ops_tests.notifications.channels.test_every_http_channel import ALERT
from trading_ops_tests.servers.vendors import WEBHOOK_PATH, WEBHOOK_SECRET, VendorServer, webhook


def sent(*alerts, now=1_700_000_000.9):
    with VendorServer(webhook) as server:
        channel = WebhookChannel(url=server.url + WEBHOOK_PATH, secret=WEBHOOK_SECRET, now=lambda: now)
        for alert in alerts:
            channel.send(alert, possible_duplicate=False)
        return server.taken


def test_the_document_is_the_alert():
    (asked,) = sent(ALERT)
    assert asked.document == {
        "version": 1,
        "severity": "critical",
        "level": "CRITICAL",
        "dedup_key": "guard/rsi/2025-03-01",
        "what": "rsi lost 12 %",
        "why": "above 10 %",
        "done": "",
        "what_to_do": "Look, then resume.",
        "day": "2025-03-01",
        "numbers": {"daily_loss_pct": 12.0, "limit_pct": 10.0},
        "incident": None,
        "step": "opened",
        "opening": "guard/rsi/2025-03-01",
        "since": None,
        "link": None,
        "possible_duplicate": False,
    }


def test_the_signature_is_over_the_time_and_the_body():
    (asked,) = sent(ALERT)
    assert asked.headers["x-trading-ops-timestamp"] == "1700000000"
    assert asked.headers["x-trading-ops-signature"] == signature(WEBHOOK_SECRET, "1700000000", asked.body)
    assert signature(WEBHOOK_SECRET, "1700000001", asked.body) != asked.headers["x-trading-ops-signature"]
    assert signature("another", "1700000000", asked.body) != asked.headers["x-trading-ops-signature"]


def test_a_repeat_has_the_same_idempotency_key_and_another_alert_another():
    first, again, other = sent(ALERT, ALERT, Alert(Severity.INFO, "another", "w", "", ""))
    keys = [asked.headers["idempotency-key"] for asked in (first, again, other)]
    assert keys[0] == keys[1] != keys[2]
    assert WebhookChannel(url="https://x", secret="s").deduplicates


@pytest.mark.parametrize(("severity", "told"), [*[(s, s.lower()) for s in Severity], ("NOTICE", "unknown")])
def test_B122_a_level_is_told_in_small_letters(severity, told):
    (asked,) = sent(Alert(severity, "k", "w", "", ""))
    assert (asked.document["severity"], asked.document["level"]) == (told, str(severity))


def test_the_check_in_the_documentation_is_right():
    """A receiver copies it."""
    (asked,) = sent(ALERT)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "notifications.md").read_text(), re.S)
    names: dict = {}
    exec(code.replace("time.time()", "1700000100"), names)
    headers = {name: asked.headers[name.lower()] for name in ("X-Trading-Ops-Timestamp", "X-Trading-Ops-Signature")}
    assert names["is_genuine"](WEBHOOK_SECRET, headers, asked.body)
    assert not names["is_genuine"](WEBHOOK_SECRET, headers, asked.body + b" ")
    assert not names["is_genuine"]("another", headers, asked.body)


def test_what_is_large_is_bounded():
    (asked,) = sent(Alert(Severity.ERROR, "k", "w" * 10**6, "y" * 10**6, "", None, {str(i): "x" for i in range(10**5)}))
    assert len(asked.body) < 500_000
    assert "[shortened]" in asked.document["why"]
    assert "shortened" in asked.document["numbers"]
