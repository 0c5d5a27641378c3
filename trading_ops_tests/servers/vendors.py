"""What do Slack, Discord, Telegram, PagerDuty and a webhook's receiver refuse? Local servers with their limits."""

from __future__ import annotations

import hashlib
import hmac
import html
import json
import re
import socket
import struct
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from email import message_from_bytes
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from trading_ops_tests.servers.local import LocalHandler, LocalServer

SLACK_PATH, DISCORD_PATH = "/services/T000/B000/GEHEIM-slack-hook", "/api/webhooks/42/GEHEIM-discord-hook"
SLACK_TOKEN, TELEGRAM_TOKEN = "xoxb-GEHEIM-slack-token", "123456:GEHEIM-telegram-token"
ROUTING_KEY, WEBHOOK_SECRET = "GEHEIMpagerdutykey0123456789abcd", "GEHEIM-webhook-secret"
CHANNEL, CHAT, WEBHOOK_PATH = "#ops", "-100123", "/hook/GEHEIM-webhook-path"
CHANNEL_ID, PNG = "C024BE91L", b"\x89PNG\r\n\x1a\n"
OUR_LINK = re.compile(r"^<https?://[^<>|\s]+\|Open the run>$")


class Asked(NamedTuple):
    """One request as it came in, after those that were taken before it."""

    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    method: str = "POST"
    earlier: Sequence[Any] = ()

    @property
    def document(self) -> Any:
        if "multipart" in self.headers.get("content-type", ""):
            return json.loads(self.form["payload_json"])
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, bytes]:
        """The fields and files of a form."""
        kind = self.headers["content-type"]
        if kind == "application/x-www-form-urlencoded":
            return {name: values[0].encode() for name, values in parse_qs(self.body.decode()).items()}
        parts = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + self.body).get_payload()
        return {
            str(part.get_param("name", header="content-disposition")): part.get_payload(decode=True)  # type: ignore[union-attr,misc]
            for part in parts
        }


class Answer(NamedTuple):
    """What goes out instead: a status, a silence before it, or a connection that breaks."""

    status: int = 200
    body: Any = b""
    headers: Mapping[str, str] = {}
    hang_s: float = 0.0
    reset: bool = False
    told: bool = True  # whether it tells people anything, and is in `taken`


class Refused(Exception):
    def __init__(self, status: int, body: Any) -> None:
        self.answer = Answer(status, body)


class VendorServer(LocalServer):
    """`judge` answers a request or raises Refused; `faults` are used up first. Taken requests are in `taken`."""

    def __init__(self, judge: Callable[[Asked], Answer]) -> None:
        self.judge = judge
        self.faults: deque[Answer] = deque()
        self.asked: list[Asked] = []
        self.taken: list[Asked] = []
        super().__init__(_Handler)


class _Handler(LocalHandler):
    server: VendorServer

    def do_GET(self) -> None:  # who follows a redirect asks so
        self.do_POST()

    def do_PATCH(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        address = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = Asked(address.path, address.query, headers, body, self.command, [*self.server.taken])
        self.server.asked.append(asked)
        answer = self.server.faults.popleft() if self.server.faults else self._judged(asked)
        if answer.hang_s:
            self.server.released.wait(answer.hang_s)
        if answer.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(content)), "Connection": "close", **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _judged(self, asked: Asked) -> Answer:
        try:
            answer = self.server.judge(asked)
        except Refused as refused:
            return refused.answer
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return Answer(400, {"message": f"malformed: {type(error).__name__} {error}"})
        if answer.told:
            self.server.taken.append(asked._replace(earlier=()))
        return answer


def units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


# Slack


def slack_webhook(asked: Asked) -> Answer:
    if asked.path != SLACK_PATH:
        raise Refused(404, b"no_service")
    _slack_message(asked.document, lambda why: Refused(400, why.encode()))
    return Answer(200, b"ok")


def slack_api(asked: Asked) -> Answer:
    def refused(why: str) -> Refused:
        return Refused(200, {"ok": False, "error": why})

    if asked.path.startswith("/upload/"):
        if "authorization" in asked.headers or not asked.body.startswith(PNG):
            raise Refused(403, b"")
        return Answer(200, f"OK - {len(asked.body)}".encode(), told=False)
    if not asked.path.startswith("/api/"):
        raise Refused(404, b"<html>not found</html>")
    if asked.headers.get("authorization") != f"Bearer {SLACK_TOKEN}":
        raise refused("invalid_auth")
    method = asked.path.removeprefix("/api/")
    posted = {slack_moment(index): earlier for index, earlier in enumerate(asked.earlier)
              if earlier and earlier.path == "/api/chat.postMessage"}  # fmt: skip
    if method in ("conversations.history", "conversations.replies", "files.getUploadURLExternal"):
        form = {name: value.decode() for name, value in asked.form.items()}  # these take no JSON
        if method == "files.getUploadURLExternal":
            if not form["filename"] or int(form["length"]) <= 0:
                raise refused("invalid_arguments")
            address = f"http://{asked.headers['host']}/upload/v1/GEHEIM-upload"
            return Answer(200, {"ok": True, "upload_url": address, "file_id": "F1"}, told=False)
        return Answer(200, _slack_messages(method, form, posted, refused), told=False)
    document = asked.document
    if method == "files.completeUploadExternal":
        if document["channel_id"] != CHANNEL_ID or document["files"][0]["id"] != "F1":
            raise refused("invalid_channel")
        return Answer(200, {"ok": True, "files": [{"id": "F1"}]})
    if method == "chat.update":
        if document["channel"] != CHANNEL_ID:  # a name is not enough
            raise refused("channel_not_found")
        if document["ts"] not in posted:
            raise refused("message_not_found")
        _slack_message(document, refused)
        return Answer(200, {"ok": True, "ts": document["ts"], "channel": CHANNEL_ID})
    if method != "chat.postMessage":
        raise refused("unknown_method")
    if document["channel"] not in (CHANNEL, CHANNEL_ID):
        raise refused("channel_not_found")
    if "thread_ts" in document and document["thread_ts"] not in posted:
        raise refused("thread_not_found")
    _slack_message(document, refused)
    metadata = document["metadata"]
    if not re.fullmatch(r"[\w.]+", metadata["event_type"]) or len(json.dumps(metadata)) > 8_000:
        raise refused("invalid_metadata_format")
    return Answer(200, {"ok": True, "ts": slack_moment(len(asked.earlier)), "channel": CHANNEL_ID})


def slack_moment(index: int) -> str:
    """The `ts` of the message that was the `index`-th request."""
    return f"1700000000.{index:06}"


def _slack_messages(
    method: str, form: dict[str, str], posted: dict[str, Asked], refused: Callable[[str], Refused]
) -> dict[str, Any]:
    if form["channel"] != CHANNEL_ID:
        raise refused("channel_not_found")
    thread = form.get("ts")
    if method == "conversations.replies" and thread not in posted:
        raise refused("thread_not_found")
    found = [
        {"ts": moment, "metadata": asked.document["metadata"]}
        for moment, asked in posted.items()
        if thread is None or thread in (moment, asked.document.get("thread_ts"))
    ]
    if form["include_all_metadata"] != "true":
        found = [{"ts": message["ts"]} for message in found]
    limit = min(int(form["limit"]), 999)
    shown = found[:limit] if thread else found[::-1][:limit]
    return {"ok": True, "messages": shown, "has_more": len(found) > limit}


def _slack_message(document: Any, refused: Callable[[str], Refused]) -> None:
    if not 0 < units(document["text"]) <= 40_000:
        raise refused("msg_too_long")
    blocks = [block for attachment in document["attachments"] for block in attachment["blocks"]]
    if not 0 < len(blocks) <= 50:
        raise refused("invalid_blocks")
    texts = [document["text"]]
    for block in blocks:
        parts = [block["text"]] if block["type"] == "section" else block["elements"]
        if len(parts) > 10:
            raise refused("invalid_blocks")
        for part in parts:
            if part["type"] != "mrkdwn" or not 0 < units(part["text"]) <= 3_000 or not part["text"].strip():
                raise refused("invalid_blocks")
            texts.append(part["text"])
    for text in texts:  # a control sequence would mention or link; nothing of ours may begin one
        if re.search("[<>]|&(?!(amp|lt|gt);)", OUR_LINK.sub("", text)) or "\0" in text:
            raise refused("invalid_blocks_format")


# Discord


def discord(asked: Asked) -> Answer:
    if not asked.path.startswith(DISCORD_PATH):
        raise Refused(404, {"message": "Unknown Webhook", "code": 10015})
    document, changed = asked.document, asked.path.removeprefix(DISCORD_PATH)
    sent = {f"/messages/{index}" for index, earlier in enumerate(asked.earlier) if earlier and earlier.method == "POST"}
    if (asked.method == "PATCH") != (changed in sent):
        raise Refused(404, {"message": "Unknown Message", "code": 10008})
    names = {f"attachment://{file['filename']}" for file in document.get("attachments", [])}
    if names and not asked.form["files[0]"].startswith(PNG):
        raise Refused(400, {"message": "Invalid Form Body", "code": 50035})
    total = 0

    def check(where: str, text: Any, most: int) -> None:
        nonlocal total
        if not isinstance(text, str) or not text.strip():
            raise Refused(400, {"message": "Invalid Form Body", "code": 50035, "errors": {where: "required"}})
        if units(text) > most:
            raise Refused(400, {"message": "Invalid Form Body", "code": 50035, "errors": {where: f"over {most}"}})
        total += units(text)

    if document["allowed_mentions"] != {"parse": []} or not 0 < len(document["embeds"]) <= 10:
        raise Refused(400, {"message": "Invalid Form Body", "code": 50035})
    for embed in document["embeds"]:
        check("title", embed["title"], 256)
        if "image" in embed and embed["image"]["url"] not in names:
            raise Refused(400, {"message": "Invalid Form Body", "code": 50035, "errors": {"image": "no file"}})
        if "description" in embed:
            check("description", embed["description"], 4_096)
        if "footer" in embed:
            check("footer", embed["footer"]["text"], 2_048)
        if len(embed["fields"]) > 25 or not 0 <= embed["color"] <= 0xFFFFFF:
            raise Refused(400, {"message": "Invalid Form Body", "code": 50035})
        for field in embed["fields"]:
            check("name", field["name"], 256)
            check("value", field["value"], 1_024)
    if total > 6_000:
        raise Refused(400, {"message": "Invalid Form Body", "code": 50035, "errors": {"embeds": "over 6000"}})
    if asked.method == "PATCH":
        return Answer(200, {"id": changed.removeprefix("/messages/")})
    return Answer(200, {"id": str(len(asked.earlier))}) if asked.query == "wait=true" else Answer(204)


# Telegram

TAGS = ("b", "i", "u", "s", "code", "pre", "a")


def telegram(asked: Asked) -> Answer:
    def refused(status: int, why: str) -> Refused:
        return Refused(status, {"ok": False, "error_code": status, "description": why})

    root, _, method = asked.path.rpartition("/")
    if root != f"/bot{TELEGRAM_TOKEN}":
        raise refused(401, "Unauthorized")
    if method not in ("sendMessage", "editMessageText", "sendPhoto"):
        raise refused(404, "Not Found")
    sent = {index + 1: earlier for index, earlier in enumerate(asked.earlier) if earlier}
    if method == "sendPhoto":
        document = {name: value.decode("latin-1") for name, value in asked.form.items()}
        document["reply_parameters"] = json.loads(document.get("reply_parameters", "{}"))
    else:
        document = asked.document
    if document["chat_id"] != CHAT:
        raise refused(400, "Bad Request: chat not found")
    reply = document.get("reply_parameters") or {}
    if reply and reply["message_id"] not in sent and not reply["allow_sending_without_reply"]:
        raise refused(400, "Bad Request: message to be replied not found")
    if method == "sendPhoto":
        photo = asked.form["photo"]
        if not photo.startswith(PNG) or len(photo) > 10 * 2**20 or units(document.get("caption", "")) > 1_024:
            raise refused(400, "Bad Request: IMAGE_PROCESS_FAILED")
        return Answer(200, {"ok": True, "result": {"message_id": len(asked.earlier) + 1}})
    if document["parse_mode"] != "HTML":
        raise refused(400, "Bad Request: unsupported parse_mode")
    try:
        seen = telegram_text(document["text"])
    except ValueError as error:
        raise refused(400, f"Bad Request: can't parse entities: {error}") from error
    if not seen.strip():
        raise refused(400, "Bad Request: message text is empty")
    if units(seen) > 4_096:
        raise refused(400, "Bad Request: message is too long")
    if method == "editMessageText":
        number = document["message_id"]
        if number not in sent or not sent[number].path.endswith("/sendMessage"):
            raise refused(400, "Bad Request: message to edit not found")
        edits = [e.document for e in sent.values() if e.path.endswith("/editMessageText")]
        texts = [sent[number].document["text"], *(e["text"] for e in edits if e["message_id"] == number)]
        if texts[-1] == document["text"]:
            raise refused(400, "Bad Request: message is not modified: specified new message content and reply markup"
                               " are exactly the same")  # fmt: skip
        return Answer(200, {"ok": True, "result": {"message_id": number}})
    return Answer(200, {"ok": True, "result": {"message_id": len(asked.earlier) + 1}})


def telegram_text(marked_up: str) -> str:
    """What a reader sees; raises ValueError for markup that Telegram does not take."""
    seen, open_tags = "", []
    for piece in re.findall(r"<[^>]*>?|[^<]+", marked_up):
        if not piece.startswith("<"):
            if stray := re.search("&(?!(amp|lt|gt|quot);)", piece):
                raise ValueError(f"stray & at {stray.start()}")
            seen += html.unescape(piece)
        elif match := re.fullmatch("<(/?)([a-z]+)>", piece):
            closing, tag = match.groups()
            if tag not in TAGS or (closing and (not open_tags or open_tags.pop() != tag)):
                raise ValueError(f"tag {piece}")
            if not closing:
                open_tags.append(tag)
        else:
            raise ValueError(f"unsupported start tag {piece[:20]}")
    if open_tags:
        raise ValueError(f"can't find end tag of {open_tags}")
    return seen


# PagerDuty


def pagerduty(asked: Asked) -> Answer:
    def refused(why: str) -> Refused:
        return Refused(400, {"status": "invalid event", "message": "Event object is invalid", "errors": [why]})

    if asked.path != "/v2/enqueue":
        raise Refused(404, {"message": "Not Found"})
    if len(asked.body) > 512 * 1024:
        raise Refused(413, {"message": "Payload Too Large"})
    event = asked.document
    if event["routing_key"] != ROUTING_KEY:
        raise refused("'routing_key' is invalid")
    if event["event_action"] not in ("trigger", "resolve") or not 0 < len(event["dedup_key"]) <= 255:
        raise refused("'dedup_key' or 'event_action' is invalid")
    if event["event_action"] == "resolve":
        return Answer(202, {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]})
    payload = event["payload"]
    if any(not re.match("https?://", link["href"]) for link in event.get("links", [])):
        raise refused("'links' is invalid")
    if not payload["summary"].strip() or len(payload["summary"]) > 1_024 or not payload["source"]:
        raise refused("'payload.summary' is invalid")
    if payload["severity"] not in ("critical", "error", "warning", "info"):
        raise refused("'payload.severity' is invalid")
    return Answer(202, {"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]})


# a receiver of signed webhooks


def webhook(asked: Asked) -> Answer:
    if asked.path != WEBHOOK_PATH:
        raise Refused(404, b"not here")
    if len(asked.body) > 2**20:
        raise Refused(413, b"too large")
    signed = f"{asked.headers['x-trading-ops-timestamp']}.".encode() + asked.body
    expected = hmac.new(WEBHOOK_SECRET.encode(), signed, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(f"sha256={expected}", asked.headers["x-trading-ops-signature"]):
        raise Refused(401, b"bad signature")
    if not re.fullmatch("[0-9a-f]{64}", asked.headers["idempotency-key"]) or not asked.document["what"]:
        raise Refused(400, b"bad key")
    return Answer(204)
