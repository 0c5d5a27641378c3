"""Tell a Telegram chat through a bot."""

from __future__ import annotations

import html
from urllib.parse import quote

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.http import TIMEOUT_S, Http, as_json, parsed
from trading_ops.notifications.text import Message, fit, message_of, size

STYLES: dict[str, str] = {
    Severity.INFO: "\N{INFORMATION SOURCE}\N{VARIATION SELECTOR-16}",
    Severity.WARNING: "\N{WARNING SIGN}\N{VARIATION SELECTOR-16}",
    Severity.ERROR: "\N{CROSS MARK}",
    Severity.CRITICAL: "\N{POLICE CARS REVOLVING LIGHT}",
}
NEUTRAL = "\N{MEDIUM WHITE CIRCLE}"
MOST = 4_096  # what the reader sees, after the markup was read
MOST_WHAT, MOST_TODO, MOST_FIGURES, MOST_FOOTER = 500, 800, 800, 300


class TelegramChannel:
    """A bot's token and a chat; Telegram knows no key against repeats."""

    name = "telegram"
    deduplicates = False

    def __init__(
        self,
        *,
        bot_token: str | None,
        chat_id: str | None,
        base_url: str = "https://api.telegram.org",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._bot_token, self._chat_id, self._base_url = bot_token, chat_id, base_url.rstrip("/")
        self._http = Http(bot_token, timeout_s=timeout_s)

    @property
    def target(self) -> str:
        if not (self._bot_token and self._chat_id):
            return "not configured"
        return self._chat_id if self._chat_id.startswith("@") else f"the chat …{self._chat_id[-3:]}"

    def send(self, alert: Alert, *, possible_duplicate: bool) -> None:
        if not self._bot_token or not self._chat_id:
            raise DeliveryError(
                "telegram is not configured: set TELEGRAM_BOT_TOKEN and TELEGRAM_CHAT_ID", permanent=True
            )
        payload = {
            "chat_id": self._chat_id,
            "text": html_of(message_of(alert, possible_duplicate=possible_duplicate)),
            "parse_mode": "HTML",
            "link_preview_options": {"is_disabled": True},
        }
        url = f"{self._base_url}/bot{quote(self._bot_token, safe=':')}/sendMessage"
        document = parsed(self._http.post(url, as_json(payload)))
        if not isinstance(document, dict) or document.get("ok") is not True:
            raise DeliveryError("HTTP 200, but not Telegram's answer")


def html_of(message: Message) -> str:
    """The message in Telegram's HTML; why it happened gets the room that the rest leaves."""
    mark = STYLES.get(message.severity, NEUTRAL)
    head = [f"{mark} <b>{escape(message.severity)}</b> <b>{_shown(message.what, MOST_WHAT)}</b>"]
    if message.notice:
        head.append(f"<i>{escape(message.notice)}</i>")
    tail = []
    if message.what_to_do:
        tail.append(f"<b>What to do:</b> {_shown(message.what_to_do, MOST_TODO)}")
    if message.figures:
        tail.append(f"<pre>{_shown(message.figures, MOST_FIGURES)}</pre>")
    if message.footer:
        tail.append(f"<code>{_shown(message.footer, MOST_FOOTER)}</code>")
    room = MOST - sum(size(part) + 2 for part in map(_seen, [*head, *tail]))
    why = [_shown(message.why, room)] if message.why else []
    return "\n\n".join([*head, *why, *tail])


def escape(text: str) -> str:
    """Telegram's three characters.

    >>> escape("<class 'X'> & <b>")
    "&lt;class 'X'&gt; &amp; &lt;b&gt;"
    """
    return html.escape(text, quote=False)


def _shown(text: str, most: int) -> str:
    return fit(text, most, escape, measured=False)


def _seen(marked_up: str) -> str:
    """What is left of our own markup after it was read."""
    for tag in ("b", "i", "pre", "code"):
        marked_up = marked_up.replace(f"<{tag}>", "").replace(f"</{tag}>", "")
    return html.unescape(marked_up)
