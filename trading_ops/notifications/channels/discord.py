"""Tell a Discord channel through its webhook."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.http import TIMEOUT_S, Http, HttpError, as_form, as_json, parsed
from trading_ops.notifications.channels.redaction import host_of
from trading_ops.notifications.picture import NAME, picture_of
from trading_ops.notifications.text import CODE, Message, fit, message_of

STYLES: dict[str, tuple[int, str]] = {
    Severity.INFO: (0x2F80ED, "\N{LARGE BLUE CIRCLE}"),
    Severity.WARNING: (0xF2C94C, "\N{LARGE YELLOW CIRCLE}"),
    Severity.ERROR: (0xEB5757, "\N{LARGE RED CIRCLE}"),
    Severity.CRITICAL: (0xB00020, "\N{POLICE CARS REVOLVING LIGHT}"),
}
NEUTRAL = (0x828282, "\N{MEDIUM WHITE CIRCLE}")
RESOLVED = (0x27AE60, "\N{WHITE HEAVY CHECK MARK}")
# of an embed: title 256, description 4,096, value of a field 1,024, footer 2,048, and 6,000 altogether
MOST_TITLE, MOST_WHY, MOST_SINCE, MOST_DONE, MOST_VALUE, MOST_FOOTER = 256, 1_800, 100, 800, 1_000, 300
_MARKDOWN = re.compile(r"([\\`*_~|<>\[\]()#{}]|^[-+](?=\s)|^\d+(?=\.\s))", re.MULTILINE)
_MASS_MENTION = re.compile("@(everyone|here)", re.IGNORECASE)


class DiscordChannel:
    """The address of a webhook; Discord knows no key against repeats. A handle is the id of a message."""

    name = "discord"
    deduplicates = False
    updates = True
    reports = True

    def __init__(self, *, webhook_url: str | None, timeout_s: float = TIMEOUT_S) -> None:
        self._webhook_url = webhook_url
        self._http = Http(webhook_url, timeout_s=timeout_s, see="DISCORD_WEBHOOK_URL")

    @property
    def target(self) -> str:
        return f"a webhook at {host_of(self._webhook_url)}" if self._webhook_url else "not configured"

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> str | None:
        if not self._webhook_url:
            raise DeliveryError("discord is not configured: set DISCORD_WEBHOOK_URL", permanent=True)
        if alert.step is Step.UPDATED:
            return self._change(alert, opening) if opening else None
        payload = payload_of(message_of(alert, possible_duplicate=possible_duplicate))
        picture = picture_of(alert.picture)
        if picture is None:
            return self._ask("POST", "", as_json(payload), {})
        payload["embeds"][0]["image"] = {"url": f"attachment://{NAME}"}
        payload["attachments"] = [{"id": 0, "filename": NAME}]
        return self._ask("POST", "", *as_form({"payload_json": json.dumps(payload)}, ("files[0]", NAME, picture)))

    def _change(self, alert: Alert, opening: str) -> str:
        """Show it in the opening message; where somebody deleted that, nobody is told anew."""
        payload = payload_of(message_of(alert, possible_duplicate=False))
        try:
            return self._ask("PATCH", f"/messages/{quote(opening, safe='')}", as_json(payload), {})
        except HttpError as error:
            if error.status != 404 or "Unknown Message" not in str(error):
                raise
        return opening

    def _ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> str:
        """The id of the message that was written."""
        url = urlsplit(self._webhook_url or "")
        # a query of the address names a thread; with `wait` the answer comes when the message is stored
        query = "&".join(filter(None, (url.query, "wait=true" if method == "POST" else "")))
        where = urlunsplit((url.scheme, url.netloc, url.path.rstrip("/") + path, query, ""))
        document = parsed(self._http.exchange(where, body, headers, method=method)[0])
        if not isinstance(document, dict) or "id" not in document:
            raise DeliveryError("HTTP 200, but not Discord's answer")
        return str(document["id"])


def payload_of(message: Message) -> dict[str, Any]:
    """The message for Discord: one embed that mentions nobody; what is empty is left out, for Discord refuses it."""
    colour, mark = RESOLVED if message.resolved else STYLES.get(message.severity, NEUTRAL)
    link = f"[Open the run]({message.link})" if message.link else ""
    parts = [
        f"*{escape(message.notice)}*" if message.notice else "",
        fit(message.why, MOST_WHY, escape) if message.why else "",
    ]
    fields = [
        {"name": name, "value": value, "inline": False}
        for name, value in (
            ("Since", fit(message.since, MOST_SINCE, escape)),
            ("Done", fit(message.done, MOST_DONE, _told)),
            ("What to do", fit(message.what_to_do, MOST_VALUE, _told)),
            ("Numbers", _block(message.figures)),
            ("Look", link),
        )
        if value.strip()
    ]
    embed = {
        "title": fit(f"{mark} {message.label}: {message.what}", MOST_TITLE, escape),
        "color": colour,
        "description": "\n\n".join(filter(None, parts)),
        "fields": fields,
        "footer": {"text": fit(message.footer, MOST_FOOTER)},
    }
    if not embed["description"]:
        del embed["description"]
    if not message.footer:
        del embed["footer"]
    return {"embeds": [embed], "allowed_mentions": {"parse": []}}


def _block(figures: str) -> str:
    """Figures as they are aligned; within a block nothing but its end has a meaning."""
    return f"```\n{fit(figures.replace('`', 'ˋ'), MOST_VALUE - 8)}\n```" if figures else ""


def _told(text: str) -> str:
    """What we say ourselves, escaped but for its commands, which are code; what others say may be none."""
    parts = CODE.split(text)  # in turn what is none and what is one
    return "".join(f"`{part}`" if index % 2 else escape(part) for index, part in enumerate(parts))


def escape(text: str) -> str:
    r"""Markdown as plain characters, and mass mentions dead.

    >>> escape("*up* [a](b)")
    '\\*up\\* \\[a\\]\\(b\\)'
    """
    return _MASS_MENTION.sub("@\N{ZERO WIDTH SPACE}\\1", _MARKDOWN.sub(r"\\\1", text))
