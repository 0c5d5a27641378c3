"""An LLM's server as its clients see it: Chat Completions and the Responses API, over HTTP, with what goes wrong."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trading_ops_tests.servers.local import LocalHandler, LocalServer

KEY = "sk-GEHEIM-openai-key"
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
GOOD = {
    "recommendation": "retrain",
    "confidence": 0.85,
    "urgency": "high",
    "reasoning": "The win rate fell from 62 % to 31 % on 40 trades.",
    "suggested_actions": ["Retrain lstm/BTCUSDT", "Look at rsi"],
    "estimated_improvement": "a few points of win rate",
}
USAGE = {"input": 900, "cached_input": 100, "output": 60, "reasoning": 40}
# what the real interfaces know of a request
FIELDS = {
    CHAT: {"model", "messages", "temperature", "response_format", "max_tokens", "max_completion_tokens"},
    RESPONSES: {"model", "input", "temperature", "text", "max_output_tokens", "store"},
}
THINKS = re.compile(r"^(o\d|gpt-5)")


@dataclass(frozen=True)
class Turn:
    """One answer. `text`: what the model says. `status`, `body`, `headers`: instead of an answer. `delay_s`: before it;
    `drop`: the connection is reset instead; `drips`: the answer goes on a blank at a time until the server closes.
    `finish`: stop, length or content_filter; `usage`: tokens by class, None: left out. `thinks_apart`: what was thought
    is counted beside the completion, as xAI does."""

    text: str | None = json.dumps(GOOD)
    refusal: str | None = None
    finish: str = "stop"
    usage: Mapping[str, Any] | None = field(default_factory=lambda: USAGE)
    status: int = 200
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    drop: bool = False
    drips: bool = False
    thinks_apart: bool = False


@dataclass(frozen=True)
class Asked:
    path: str
    document: dict[str, Any]
    key: str


class OpenAiServer(LocalServer):
    """`turns` are used up in order, then `usual` is. Takes `key` alone; `asked` is every request that came.

    `structured`: whether it knows response_format; `limits`: the names it takes for the most tokens of an answer.
    """

    def __init__(
        self,
        *turns: Turn,
        usual: Turn | None = None,
        structured: bool = True,
        limits: tuple[str, ...] = ("max_tokens", "max_completion_tokens"),
    ) -> None:
        self.turns, self.usual, self.structured, self.limits = deque(turns), usual or Turn(), structured, limits
        self.asked: list[Asked] = []
        self.key = KEY
        self.lock = threading.Lock()
        super().__init__(_Handler)

    @property
    def url(self) -> str:
        """The base URL, as OPENAI_BASE_URL has it."""
        return f"{super().url}/v1"

    def turn(self, asked: Asked) -> Turn:
        with self.lock:
            self.asked.append(asked)
            return self.turns.popleft() if self.turns else self.usual


class Refused(Exception):
    def __init__(self, status: int, message: str, parameter: str | None = None, code: str | None = None) -> None:
        self.status = status
        error = {"message": message, "type": "invalid_request_error", "param": parameter, "code": code}
        self.body = json.dumps({"error": error})


class _Handler(LocalHandler):
    server: OpenAiServer

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        asked = Asked(self.path, json.loads(body), key)
        turn = self.server.turn(asked)
        if turn.delay_s:
            self.server.released.wait(turn.delay_s)
        if turn.drop:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if turn.drips:
            self._drip()
            return
        try:
            self._check(asked)
        except Refused as refused:
            self._send(refused.status, refused.body, {})
            return
        if turn.status != 200 or turn.body is not None:
            self._send(turn.status, turn.body or "", turn.headers)
        elif asked.path == CHAT:
            self._send(200, json.dumps(_completion(asked.document["model"], turn)), turn.headers)
        else:
            self._send(200, json.dumps(_response(asked.document["model"], turn)), turn.headers)

    def _check(self, asked: Asked) -> None:
        """What the real interfaces refuse."""
        if asked.path not in FIELDS:
            raise Refused(404, f"Invalid URL (POST {asked.path})")
        if asked.key != self.server.key:
            raise Refused(401, f"Incorrect API key provided: {asked.key}.", code="invalid_api_key")
        document = asked.document
        for name in document:
            if name not in FIELDS[asked.path]:
                raise Refused(400, f"Unrecognized request argument supplied: {name}", name)
        if THINKS.match(document["model"]) and "max_tokens" in document:
            why = "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
            raise Refused(400, f"Unsupported parameter: {why}", "max_tokens")
        if THINKS.match(document["model"]) and document.get("temperature", 1) != 1:
            raise Refused(400, "Unsupported value: 'temperature' does not support 0.1 with this model.", "temperature")
        for name in ("max_tokens", "max_completion_tokens"):
            if name in document and name not in self.server.limits:
                raise Refused(400, f"Unsupported parameter: '{name}' is not supported with this model.", name)
        form = document.get("response_format") or (document.get("text") or {}).get("format")
        if form is None:
            return
        if not self.server.structured:
            raise Refused(400, "This server does not support response_format / text.format.", "response_format")
        schema = form.get("json_schema", form)
        if form["type"] != "json_schema" or not schema.get("strict"):
            raise Refused(400, "Invalid response_format: a strict json_schema is needed.", "response_format")
        shape = schema["schema"]
        if shape.get("additionalProperties") is not False or set(shape["required"]) != set(shape["properties"]):
            raise Refused(400, "Invalid schema for response_format: 'required' must name every key.", "response_format")

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        while not self.server.released.wait(0.1):
            self.wfile.write(b" ")
            self.wfile.flush()

    def _send(self, status: int, body: str, headers: Mapping[str, str]) -> None:
        content = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if body[:1] in ("{", "[") else "text/html")
        self.send_header("Content-Length", str(len(content)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _completion(model: str, turn: Turn) -> dict[str, Any]:
    used = turn.usage
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_740_000_000, "model": f"{model}-2025-04-14",
        "choices": [{
            "index": 0, "logprobs": None, "finish_reason": turn.finish,
            "message": {"role": "assistant", "content": turn.text, "refusal": turn.refusal},
        }],
        **({} if used is None else {"usage": {
            "prompt_tokens": used["input"] + used["cached_input"],
            "completion_tokens": used["output"] + (0 if turn.thinks_apart else used["reasoning"]),
            "total_tokens": sum(used.values()),
            "prompt_tokens_details": {"cached_tokens": used["cached_input"], "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": used["reasoning"], "audio_tokens": 0},
        }}),
    }  # fmt: skip


def _response(model: str, turn: Turn) -> dict[str, Any]:
    used = turn.usage
    said = {"type": "refusal", "refusal": turn.refusal} if turn.refusal else {
        "type": "output_text", "text": turn.text or "", "annotations": [],
    }  # fmt: skip
    reason = {"length": "max_output_tokens", "content_filter": "content_filter"}.get(turn.finish)
    return {
        "id": "resp_1", "object": "response", "created_at": 1_740_000_000, "model": f"{model}-2025-04-14",
        "status": "incomplete" if reason else "completed",
        "error": None, "incomplete_details": {"reason": reason} if reason else None, "instructions": None,
        "output": [{"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [said]}],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "metadata": {},
        "temperature": 1.0, "top_p": 1.0,
        **({} if used is None else {"usage": {
            "input_tokens": used["input"] + used["cached_input"],
            "input_tokens_details": {"cached_tokens": used["cached_input"]},
            "output_tokens": used["output"] + (0 if turn.thinks_apart else used["reasoning"]),
            "output_tokens_details": {"reasoning_tokens": used["reasoning"]},
            "total_tokens": sum(used.values()),
        }}),
    }  # fmt: skip
