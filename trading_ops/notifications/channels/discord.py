"""Tell a Discord channel through its webhook."""

from __future__ import annotations

import re
from typing import Any

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.http import TIMEOUT_S, Http, as_json, parsed
from trading_ops.notifications.channels.redaction import host_of
from trading_ops.notifications.text import Message, fit, message_of

STYLES: dict[str, tuple[int, str]] = {
    Severity.INFO: (0x2F80ED, "\N{LARGE BLUE CIRCLE}"),
    Severity.WARNING: (0xF2C94C, "\N{LARGE YELLOW CIRCLE}"),
    Severity.ERROR: (0xEB5757, "\N{LARGE RED CIRCLE}"),
    Severity.CRITICAL: (0xB00020, "\N{POLICE CARS REVOLVING LIGHT}"),
}
NEUTRAL = (0x828282, "\N{MEDIUM WHITE CIRCLE}")
# of an embed: title 256, description 4,096, value of a field 1,024, footer 2,048, and 6,000 altogether
MOST_TITLE, MOST_WHY, MOST_VALUE, MOST_FOOTER = 256, 2_500, 1_000, 500
_MARKDOWN = re.compile(r"([\\`*_~|<>\[\]()#{}]|^[-+](?=\s)|^\d+(?=\.\s))", re.MULTILINE)
_MASS_MENTION = re.compile("@(everyone|here)", re.IGNORECASE)


class DiscordChannel:
    """The address of a webhook; Discord knows no key against repeats."""

    name = "discord"
    deduplicates = False

    def __init__(self, *, webhook_url: str | None, timeout_s: float = TIMEOUT_S) -> None:
        self._webhook_url = webhook_url
        self._http = Http(webhook_url, timeout_s=timeout_s)

    @property
    def target(self) -> str:
        return f"a webhook at {host_of(self._webhook_url)}" if self._webhook_url else "not configured"

    def send(self, alert: Alert, *, possible_duplicate: bool) -> None:
        if not self._webhook_url:
            raise DeliveryError("discord is not configured: set DISCORD_WEBHOOK_URL", permanent=True)
        url = f"{self._webhook_url}{'&' if '?' in self._webhook_url else '?'}wait=true"  # answers when it is stored
        payload = payload_of(message_of(alert, possible_duplicate=possible_duplicate))
        document = parsed(self._http.post(url, as_json(payload)))
        if not isinstance(document, dict) or "id" not in document:
            raise DeliveryError("HTTP 200, but not Discord's answer")


def payload_of(message: Message) -> dict[str, Any]:
    """The message for Discord: one embed that mentions nobody; what is empty is left out, for Discord refuses it."""
    colour, mark = STYLES.get(message.severity, NEUTRAL)
    why = [fit(message.why, MOST_WHY, escape)] if message.why else []
    notice = [f"*{escape(message.notice)}*"] if message.notice else []
    fields = [
        {"name": name, "value": value, "inline": False}
        for name, value in (
            ("What to do", fit(message.what_to_do, MOST_VALUE, escape)),
            ("Numbers", _block(message.figures)),
        )
        if value.strip()
    ]
    embed = {
        "title": fit(f"{mark} {message.severity}: {message.what}", MOST_TITLE, escape),
        "color": colour,
        "description": "\n\n".join([*notice, *why]),
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


def escape(text: str) -> str:
    r"""Markdown as plain characters, and mass mentions dead.

    >>> escape("*up* [a](b)")
    '\\*up\\* \\[a\\]\\(b\\)'
    """
    return _MASS_MENTION.sub("@\N{ZERO WIDTH SPACE}\\1", _MARKDOWN.sub(r"\\\1", text))
