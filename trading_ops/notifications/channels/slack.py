"""Tell a Slack channel, by a bot or an incoming webhook."""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import urlencode

from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.http import TIMEOUT_S, Http, HttpError, as_json, parsed
from trading_ops.notifications.channels.redaction import host_of
from trading_ops.notifications.picture import NAME, picture_of
from trading_ops.notifications.text import Message, fit, message_of, one_line, short_key

STYLES: dict[str, tuple[str, str]] = {
    Severity.INFO: ("#2f80ed", ":information_source:"),
    Severity.WARNING: ("#f2c94c", ":warning:"),
    Severity.ERROR: ("#eb5757", ":x:"),
    Severity.CRITICAL: ("#b00020", ":rotating_light:"),
}
NEUTRAL = ("#828282", ":grey_question:")
RESOLVED = ("#27ae60", ":white_check_mark:")
# a section takes 3,000 characters and a message 50 blocks; a text may be longer, but nobody reads a longer headline
MOST_SECTION, MOST_TEXT, MOST_FOOTER = 2_900, 1_000, 500
EVENT = "trading_ops_alert"  # what the metadata of our messages is called
PICTURE_S = 5.0
LOOKED_AT = 200  # messages among which one that may have arrived is looked for
# what Slack's bot interface says that may pass; everything else is about the message, the token or the channel
PASSING = {
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "team_added_to_org",
    "ratelimited",
}
# the message that opened the incident was deleted, or is too old to be changed
GONE = {"message_not_found", "thread_not_found", "cant_update_message", "edit_window_closed", "invalid_ts"}
TOKEN = "SLACK_BOT_TOKEN"
_INVITE = "invite the bot to the channel, or see SLACK_CHANNEL"
ADVICE = {
    **dict.fromkeys(
        ("invalid_auth", "not_authed", "token_revoked", "token_expired", "account_inactive"), f"see {TOKEN}"
    ),
    **dict.fromkeys(("channel_not_found", "not_in_channel", "is_archived"), _INVITE),
    "missing_scope": "give the bot the scope chat:write",
}
_log = logging.getLogger(__name__)


class SlackRefused(DeliveryError):
    """What Slack's bot interface did not take, with its own code for it."""

    def __init__(self, code: str) -> None:
        advice = f"; {ADVICE[code]}" if code in ADVICE else ""
        super().__init__(f"Slack refused it (HTTP 200): {code}{advice}", permanent=code not in PASSING)
        self.code = code


class SlackChannel:
    """A bot token and a channel, else the address of an incoming webhook.

    Slack knows no key against repeats, so a bot looks for what may have arrived before it posts that again; an incident
    is one thread. A handle is the channel's id and the message's time, as `C024BE91L/1700000000.000100`.
    """

    name = "slack"
    deduplicates = False
    reports = True

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
        self._http = Http(
            webhook_url, bot_token, timeout_s=timeout_s, see=TOKEN if bot_token and channel else "SLACK_WEBHOOK_URL"
        )
        # three calls, which must end before the words count as undelivered
        self._for_pictures = Http(bot_token, timeout_s=min(timeout_s, PICTURE_S))

    @property
    def updates(self) -> bool:
        """A webhook cannot change what it posted."""
        return bool(self._bot_token and self._channel)

    @property
    def target(self) -> str:
        if self._bot_token and self._channel:
            return f"{self._channel}, by a bot"
        return f"a webhook at {host_of(self._webhook_url)}" if self._webhook_url else "not configured"

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> str | None:
        if self._bot_token and self._channel:
            return self._send_as_bot(alert, self._channel, possible_duplicate, opening)
        if not self._webhook_url:
            raise DeliveryError(
                "slack is not configured: set SLACK_WEBHOOK_URL, or SLACK_BOT_TOKEN and SLACK_CHANNEL", permanent=True
            )
        payload = payload_of(message_of(alert, possible_duplicate=possible_duplicate))
        answer = self._http.post(self._webhook_url, as_json(payload))
        if answer.strip() != b"ok":
            raise DeliveryError(f"HTTP 200, but not Slack's answer: {self._http.redacted(repr(answer[:80]))}")
        return None

    def _send_as_bot(self, alert: Alert, channel: str, possible_duplicate: bool, opening: str | None) -> str | None:
        place, _, thread = (opening or "").partition("/")
        if alert.step is Step.UPDATED:
            return self._change(alert, place, thread) if opening else None
        key, doubt = short_key(alert.dedup_key), possible_duplicate
        if possible_duplicate:
            found, doubt = self._look_for(key, place or channel, thread)
            if found:
                return found
        message = {
            "channel": place or channel,
            **PLAIN,
            **payload_of(message_of(alert, possible_duplicate=doubt)),
            "metadata": {"event_type": EVENT, "event_payload": {"dedup_key": key}},
        }
        try:
            # broadcast: who does not follow the thread would hear of no reminder and of no end
            reply = {"thread_ts": thread, "reply_broadcast": True} if thread else {}
            posted = self._ask("chat.postMessage", {**message, **reply})
        except SlackRefused as refused:
            if not thread or refused.code not in GONE:
                raise
            posted = self._ask("chat.postMessage", message)
        place, moment = str(posted.get("channel", "")), str(posted.get("ts", ""))
        if picture := picture_of(alert.picture):
            self._add_picture(picture, alert, place, thread)
        return f"{place}/{moment}"

    def _change(self, alert: Alert, place: str, moment: str) -> str:
        """Show it in the opening message; where that cannot be changed any more, nobody is told anew."""
        payload = payload_of(message_of(alert, possible_duplicate=False))
        try:
            self._ask("chat.update", {"channel": place, "ts": moment, **PLAIN, **payload})
        except SlackRefused as refused:
            if refused.code not in GONE:
                raise
        return f"{place}/{moment}"

    def _look_for(self, key: str, place: str, thread: str) -> tuple[str | None, bool]:
        """The message with this key, and where there is none whether it may be there all the same."""
        method, where = ("conversations.replies", {"ts": thread}) if thread else ("conversations.history", {})
        fields = {"channel": place, **where, "limit": str(LOOKED_AT), "include_all_metadata": "true"}
        try:
            answer = self._ask(method, fields, as_form=True)
        except SlackRefused as refused:
            if refused.code in PASSING:
                raise
            return None, True  # not among the token's scopes, or the channel is given by its name
        for message in answer.get("messages") or []:
            metadata = message.get("metadata") or {}
            if metadata.get("event_type") == EVENT and metadata.get("event_payload", {}).get("dedup_key") == key:
                return f"{place}/{message.get('ts', '')}", False
        return None, bool(answer.get("has_more"))

    def _add_picture(self, picture: bytes, alert: Alert, place: str, thread: str) -> None:
        """Below the words, which are taken already: what goes wrong here must not tell them again."""
        title = fit(one_line(alert.what), 100)
        about = {"filename": NAME, "length": str(len(picture)), "alt_txt": title}
        try:
            http = self._for_pictures
            upload = self._ask("files.getUploadURLExternal", about, as_form=True, http=http)
            http.post(str(upload.get("upload_url")), picture, {"Content-Type": "application/octet-stream"})
            shared = {"channel_id": place, **({"thread_ts": thread} if thread else {})}
            files = [{"id": upload.get("file_id"), "title": title}]
            self._ask("files.completeUploadExternal", {"files": files, **shared}, http=http)
        except DeliveryError as error:
            _log.warning("slack has the message, but not its picture: %s", error)

    def _ask(
        self, method: str, fields: dict[str, Any], *, as_form: bool = False, http: Http | None = None
    ) -> dict[str, Any]:
        """The answer of a method; those that only read take a form and no JSON."""
        headers = {"Authorization": f"Bearer {self._bot_token}"}
        if as_form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = urlencode(fields).encode() if as_form else as_json(fields)
        answer, wait_s = (http or self._http).exchange(f"{self._base_url}/{method}", body, headers)
        document = parsed(answer)
        document = document if isinstance(document, dict) else {}
        if document.get("ok") is True:
            return document
        code = str(document.get("error", ""))
        if not re.fullmatch("[a-z_]+", code):
            raise DeliveryError("HTTP 200, but not Slack's answer")
        if code == "ratelimited":
            raise HttpError(429, code, wait_s)
        raise SlackRefused(code)


PLAIN = {"link_names": False, "parse": "none", "unfurl_links": False}


def payload_of(message: Message) -> dict[str, Any]:
    """The message for Slack: a headline, which notifications show too, above blocks beside a coloured bar."""
    colour, emoji = RESOLVED if message.resolved else STYLES.get(message.severity, NEUTRAL)
    text = f"{emoji} *{fit(message.label, MOST_TEXT, escape)}*  {fit(message.what, MOST_TEXT, escape)}"
    if message.notice:
        text += f"\n_{escape(message.notice)}_"
    sections = [f"*{heading}*\n{fit(said, MOST_SECTION, escape)}" for heading, said in message.sections]
    if message.numbers:
        sections.append(f"```{fit(message.figures.replace('`', 'ˋ'), MOST_SECTION, escape)}```")
    if message.link:
        sections.append(f"<{escape(message.link)}|Open the run>")
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
