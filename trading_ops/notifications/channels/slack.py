"""Tell a Slack channel, by a bot or an incoming webhook."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Any

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.http import TIMEOUT_S, Http, HttpError, as_json, retry_after
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
        self._base_url, self._timeout_s = base_url, timeout_s
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
        from slack_sdk import WebClient
        from slack_sdk.errors import SlackApiError, SlackClientError

        client = WebClient(
            token,
            base_url=self._base_url,
            timeout=self._timeout_s,  # type: ignore[arg-type]  # it goes to a socket, which takes any number
            retry_handlers=[],  # the outbox retries
            logger=logging.Logger("silent", logging.CRITICAL + 1),
        )
        client.proxy = None  # it looks for one in the environment
        try:
            client.chat_postMessage(channel=channel, link_names=False, parse="none", unfurl_links=False, **payload)
        except SlackApiError as error:
            raise self._judged(error.response) from None
        except TimeoutError:
            raise DeliveryError(f"timeout: no answer within {self._timeout_s:g} s", in_doubt=True) from None
        except SlackClientError as error:
            raise DeliveryError(f"Slack's client: {type(error).__name__}", permanent=True) from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                raise DeliveryError(f"timeout: no connection within {self._timeout_s:g} s") from None
            never_sent = isinstance(reason, ConnectionRefusedError)
            said = f"no connection: {self._http.redacted(str(reason))}"
            raise DeliveryError(said, in_doubt=not never_sent) from None
        except Exception as error:  # noqa: BLE001  # http.client's, whose texts may hold what was sent
            raise DeliveryError(f"the connection broke ({type(error).__name__})", in_doubt=True) from None

    def _judged(self, response: Any) -> DeliveryError:
        status, headers = int(response.status_code), {k.lower(): v for k, v in dict(response.headers).items()}
        code = response.data.get("error", "") if isinstance(response.data, dict) else ""
        said = code if re.fullmatch("[a-z_]+", str(code)) else ""  # else it is what the client says of a strange page
        asked = headers.get("retry-after", "")
        asked = asked[0] if isinstance(asked, list) else asked
        if status == 200 and code == "ratelimited":
            status = 429
        if status != 200:
            return HttpError(status, said, retry_after(str(asked), datetime.now(UTC)))
        if not said:
            return DeliveryError("HTTP 200, but not Slack's answer")
        return DeliveryError(f"Slack refused it (HTTP 200): {said}", permanent=said not in PASSING)


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
