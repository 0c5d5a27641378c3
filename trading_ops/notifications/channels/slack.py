"""Tell a Slack channel, by a bot or an incoming webhook."""

from __future__ import annotations

import re
from typing import Any

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.http import TIMEOUT_S, Http, HttpError, as_json, parsed
from trading_ops.notifications.channels.redaction import host_of
from trading_ops.notifications.text import Message, fit, message_of

STYLES: dict[str, tuple[str, str]] = {
    Severity.INFO: ("#2f80ed", ":information_source:"),
    Severity.WARNING: ("#f2c94c", ":warning:"),
    Severity.ERROR: ("#eb5757", ":x:"),
    Severity.CRITICAL: ("#b00020", ":rotating_light:"),
}
NEUTRAL = ("#828282", ":grey_question:")
# a section takes 3,000 characters and a message 50 blocks; a text may be longer, but nobody reads a longer headline
MOST_SECTION, MOST_TEXT, MOST_FOOTER = 2_900, 1_000, 500
# what Slack's bot interface says that may pass; everything else is about the message, the token or the channel
PASSING = {
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "team_added_to_org",
    "ratelimited",
}


class SlackChannel:
    """A bot token and a channel, else the address of an incoming webhook; Slack knows no key against repeats."""

    name = "slack"
    deduplicates = False

    def __init__(
        self,
        *,
        webhook_url: str | None = None,
        bot_token: str | None = None,
        channel: str | None = None,
        base_url: str = "https://slack.com/api/",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._webhook_url, self._bot_token, self._channel = webhook_url, bot_token, channel
        self._base_url = base_url.rstrip("/")
        self._http = Http(webhook_url, bot_token, timeout_s=timeout_s)

    @property
    def target(self) -> str:
        if self._bot_token and self._channel:
            return f"{self._channel}, by a bot"
        return f"a webhook at {host_of(self._webhook_url)}" if self._webhook_url else "not configured"

    def send(self, alert: Alert, *, possible_duplicate: bool) -> None:
        payload = payload_of(message_of(alert, possible_duplicate=possible_duplicate))
        if self._bot_token and self._channel:
            self._post_as_bot(payload, self._bot_token, self._channel)
        elif self._webhook_url:
            answer = self._http.post(self._webhook_url, as_json(payload))
            if answer.strip() != b"ok":
                raise DeliveryError(f"HTTP 200, but not Slack's answer: {self._http.redacted(repr(answer[:80]))}")
        else:
            raise DeliveryError(
                "slack is not configured: set SLACK_WEBHOOK_URL, or SLACK_BOT_TOKEN and SLACK_CHANNEL", permanent=True
            )

    def _post_as_bot(self, payload: dict[str, Any], token: str, channel: str) -> None:
        message = {"channel": channel, "link_names": False, "parse": "none", "unfurl_links": False, **payload}
        headers = {"Authorization": f"Bearer {token}"}
        answer, wait_s = self._http.exchange(f"{self._base_url}/chat.postMessage", as_json(message), headers)
        document = parsed(answer)
        document = document if isinstance(document, dict) else {}
        if document.get("ok") is True:
            return
        code = str(document.get("error", ""))
        if not re.fullmatch("[a-z_]+", code):
            raise DeliveryError("HTTP 200, but not Slack's answer")
        if code == "ratelimited":
            raise HttpError(429, code, wait_s)
        raise DeliveryError(f"Slack refused it (HTTP 200): {code}", permanent=code not in PASSING)


def payload_of(message: Message) -> dict[str, Any]:
    """The message for Slack: a headline, which notifications show too, above blocks beside a coloured bar."""
    colour, emoji = STYLES.get(message.severity, NEUTRAL)
    text = f"{emoji} *{escape(message.severity)}*  {fit(message.what, MOST_TEXT, escape)}"
    if message.notice:
        text += f"\n_{escape(message.notice)}_"
    sections = [
        f"*{label}*\n{fit(said, MOST_SECTION, escape)}"
        for label, said in (("Why", message.why), ("What to do", message.what_to_do))
        if said
    ]
    if message.figures:
        sections.append(f"```{fit(message.figures.replace('`', 'ˋ'), MOST_SECTION, escape)}```")
    blocks: list[dict[str, Any]] = [{"type": "section", "text": _text(section)} for section in sections]
    blocks.append({"type": "context", "elements": [_text(fit(message.footer or "-", MOST_FOOTER, escape))]})
    return {"text": text, "attachments": [{"color": colour, "blocks": blocks}]}


def _text(text: str) -> dict[str, Any]:
    # verbatim: Slack makes no links or mentions out of words
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def escape(text: str) -> str:
    """Slack's three characters; what mentions, links and dates begin with is then plain text.

    >>> escape("<!channel> a & b")
    '&lt;!channel&gt; a &amp; b'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
