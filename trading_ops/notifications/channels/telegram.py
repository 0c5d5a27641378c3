"""Tell a Telegram chat through a bot."""

from __future__ import annotations

import html
import json
import logging
from typing import Any
from urllib.parse import quote

from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.http import TIMEOUT_S, Http, HttpError, as_form, as_json, parsed
from trading_ops.notifications.picture import NAME, picture_of
from trading_ops.notifications.text import CODE, Message, fit, message_of, size

STYLES: dict[str, str] = {
    Severity.INFO: "\N{INFORMATION SOURCE}\N{VARIATION SELECTOR-16}",
    Severity.WARNING: "\N{WARNING SIGN}\N{VARIATION SELECTOR-16}",
    Severity.ERROR: "\N{CROSS MARK}",
    Severity.CRITICAL: "\N{POLICE CARS REVOLVING LIGHT}",
}
NEUTRAL = "\N{MEDIUM WHITE CIRCLE}"
RESOLVED = "\N{WHITE HEAVY CHECK MARK}"
# what Telegram says of a message that says it already, is gone, or is too old to be changed
UNCHANGED = ("message is not modified", "message to edit not found", "message can't be edited", "MESSAGE_ID_INVALID")
_log = logging.getLogger(__name__)
MOST = 4_096  # what the reader sees, after the markup was read
# together with a link of MOST_LINK no more than MOST, so that `why` takes the rest and never less than none
MOST_LABEL, MOST_WHAT, MOST_SINCE, MOST_FOOTER = 60, 400, 100, 600
MOST_DONE, MOST_TODO, MOST_FIGURES = 500, 600, 1_200


class TelegramChannel:
    """A bot's token and a chat; Telegram knows no key against repeats. A handle is the number of a message."""

    name = "telegram"
    deduplicates = False
    updates = True
    reports = True

    def __init__(
        self,
        *,
        bot_token: str | None,
        chat_id: str | None,
        base_url: str = "https://api.telegram.org",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._bot_token, self._chat_id, self._base_url = bot_token, chat_id, base_url.rstrip("/")
        self._http = Http(bot_token, timeout_s=timeout_s, see="TELEGRAM_BOT_TOKEN and TELEGRAM_CHAT_ID")

    @property
    def target(self) -> str:
        if not (self._bot_token and self._chat_id):
            return "not configured"
        return self._chat_id if self._chat_id.startswith("@") else f"the chat …{self._chat_id[-3:]}"

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> str | None:
        if not self._bot_token or not self._chat_id:
            raise DeliveryError(
                "telegram is not configured: set TELEGRAM_BOT_TOKEN and TELEGRAM_CHAT_ID", permanent=True
            )
        if alert.step is Step.UPDATED:
            return self._change(alert, opening) if opening else None
        reply = {"reply_parameters": _reply_to(opening)} if opening else {}
        message = message_of(alert, possible_duplicate=possible_duplicate)
        sent = self._ask("sendMessage", as_json({**self._text(message), **reply}))
        number = str(sent.get("message_id", ""))
        if picture := picture_of(alert.picture):
            self._add_picture(picture, number)
        return number or None

    def _text(self, message: Message) -> dict[str, Any]:
        quiet = {"link_preview_options": {"is_disabled": True}}
        return {"chat_id": self._chat_id, "text": html_of(message), "parse_mode": "HTML", **quiet}

    def _change(self, alert: Alert, opening: str) -> str:
        """Show it in the opening message; where that cannot be changed any more, nobody is told anew."""
        text = self._text(message_of(alert, possible_duplicate=False))
        try:
            self._ask("editMessageText", as_json({**text, "message_id": int(opening)}))
        except HttpError as error:
            if error.status != 400 or not any(said in str(error) for said in UNCHANGED):
                raise
        return opening

    def _add_picture(self, picture: bytes, number: str) -> None:
        """Below the words, which are taken already: what goes wrong here must not tell them again."""
        fields = {"chat_id": str(self._chat_id), "disable_notification": "true"}
        if number:
            fields["reply_parameters"] = json.dumps(_reply_to(number))
        try:
            self._ask("sendPhoto", *as_form(fields, ("photo", NAME, picture)))
        except DeliveryError as error:
            _log.warning("telegram has the message, but not its picture: %s", error)

    def _ask(self, method: str, body: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
        url = f"{self._base_url}/bot{quote(str(self._bot_token), safe=':')}/{method}"
        document = parsed(self._http.post(url, body, headers))
        if not isinstance(document, dict) or document.get("ok") is not True:
            raise DeliveryError("HTTP 200, but not Telegram's answer")
        result = document.get("result")
        return result if isinstance(result, dict) else {}


def _reply_to(number: str) -> dict[str, Any]:
    return {"message_id": int(number), "allow_sending_without_reply": True}


def html_of(message: Message) -> str:
    """The message in Telegram's HTML; why it happened gets the room that the rest leaves."""
    mark = RESOLVED if message.resolved else STYLES.get(message.severity, NEUTRAL)
    head = [f"{mark} <b>{_shown(message.label, MOST_LABEL)}</b> <b>{_shown(message.what, MOST_WHAT)}</b>"]
    if message.notice:
        head.append(f"<i>{escape(message.notice)}</i>")
    tail = [
        f"<b>{name}:</b> {_told(text, most)}"
        for name, text, most in (
            ("Since", message.since, MOST_SINCE),
            ("Done", message.done, MOST_DONE),
            ("What to do", message.what_to_do, MOST_TODO),
        )
        if text
    ]
    if message.figures:
        tail.append(f"<pre>{_shown(message.figures, MOST_FIGURES)}</pre>")
    if message.link:
        tail.append(escape(message.link))  # as it is: Telegram drops a link to this machine, and the address with it
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


def _told(text: str, most: int) -> str:
    """What we say ourselves, with its commands as code, which a touch copies."""
    return fit(text, most, lambda shown: CODE.sub(r"<code>\1</code>", escape(shown)), measured=False)


def _seen(marked_up: str) -> str:
    """What is left of our own markup after it was read."""
    for tag in ("b", "i", "pre", "code"):
        marked_up = marked_up.replace(f"<{tag}>", "").replace(f"</{tag}>", "")
    return html.unescape(marked_up)
