"""How is a question put, and an answer read, in Chat Completions and in the Responses API?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from trading_ops.assessments.schema import REPLY_SCHEMA

if TYPE_CHECKING:
    from openai import OpenAI

NAME = "assessment"
TEMPERATURE = 0.1
LONGEST_KEPT = 200_000  # characters of a reply, twice what is read of it
MOST_TOKENS = 100_000_000  # no model takes or says as many in one call: beyond, the server miscounts
_UNKNOWN = re.compile(r"(?i)unsupported|not supported|unknown|unrecogni[sz]ed|unexpected|not permitted")
_THINKS = re.compile(r"^(o\d|gpt-5)")  # models that take no temperature


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one call. `tokens` by class; None: unknown what the server counted, {}: nothing was processed."""

    outcome: str
    tokens: dict[str, int] | None = None
    status: int | None = None
    error: str = ""
    text: str = ""
    model: str = ""
    retry_after_s: float = 0.0
    passes: bool = True

    def but(self, outcome: str, error: str) -> Answer:
        """The same answer, which turned out to be something else."""
        return replace(self, outcome=outcome, error=error)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a model and its server take. `limit`: how it calls the most tokens it may say, until it says otherwise."""

    schema: bool = True
    temperature: bool = True
    limit: str = "max_tokens"
    limit_changed: bool = False

    @classmethod
    def of(cls, model: str) -> Dialect:
        """As OpenAI's models take it; other servers know and keep to `max_tokens` alone."""
        thinks = _THINKS.match(model) is not None
        return cls(temperature=not thinks, limit="max_completion_tokens" if thinks else "max_tokens")


def is_about(error: str, dialect: Dialect) -> Dialect | None:
    """The dialect without what a server's refusal names; None where it names nothing that can be left out."""
    if dialect.schema and re.search(r"response_format|json_schema|text\.format|structured", error):
        return replace(dialect, schema=False)
    if dialect.temperature and "temperature" in error:
        return replace(dialect, temperature=False)
    if dialect.limit in error and not dialect.limit_changed and _UNKNOWN.search(error):
        other = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}[dialect.limit]
        return replace(dialect, limit=other, limit_changed=True)
    return None


def chat(
    client: OpenAI, model: str, messages: Sequence[tuple[str, str]], dialect: Dialect, output_tokens: int
) -> Answer:
    """One Chat Completion. Raises what the SDK raises."""
    asked: dict[str, Any] = {dialect.limit: output_tokens}
    if dialect.temperature:
        asked["temperature"] = TEMPERATURE
    if dialect.schema:
        schema = {"name": NAME, "strict": True, "schema": REPLY_SCHEMA}
        asked["response_format"] = {"type": "json_schema", "json_schema": schema}
    told: Any = [{"role": role, "content": text} for role, text in messages]
    reply = client.chat.completions.create(model=model, messages=told, **asked)
    if not reply.choices and (error := (reply.model_extra or {}).get("error")):
        return _failed(error)
    choice, used = reply.choices[0], reply.usage
    tokens = None if used is None else _tokens(
        used.prompt_tokens, used.prompt_tokens_details, used.completion_tokens, used.completion_tokens_details,
        used.total_tokens,
    )  # fmt: skip
    message = choice.message
    answer = Answer("ok", tokens, 200, text=_written(message.content), model=_written(reply.model))
    if message.refusal or choice.finish_reason == "content_filter":
        return answer.but("refusal", _written(message.refusal) or "its content filter stopped the reply")
    return _ended(answer, cut=choice.finish_reason == "length", limit=output_tokens)


def responses(
    client: OpenAI, model: str, messages: Sequence[tuple[str, str]], dialect: Dialect, output_tokens: int
) -> Answer:
    """One answer of the Responses API. Raises what the SDK raises."""
    asked: dict[str, Any] = {"max_output_tokens": output_tokens, "store": False}
    if dialect.temperature:
        asked["temperature"] = TEMPERATURE
    if dialect.schema:
        asked["text"] = {"format": {"type": "json_schema", "name": NAME, "strict": True, "schema": REPLY_SCHEMA}}
    told: Any = [{"role": role, "content": text} for role, text in messages]
    reply = client.responses.create(model=model, input=told, **asked)
    if reply.error is not None or reply.status == "failed":
        return _failed(reply.error)
    used = reply.usage
    tokens = None if used is None else _tokens(
        used.input_tokens, used.input_tokens_details, used.output_tokens, used.output_tokens_details, used.total_tokens
    )  # fmt: skip
    answer = Answer("ok", tokens, 200, text=_written(reply.output_text), model=_written(reply.model))
    parts = [part for item in reply.output for part in (getattr(item, "content", None) or ())]
    refusals = [part.refusal for part in parts if part.type == "refusal"]
    why = reply.incomplete_details.reason if reply.incomplete_details else None
    if refusals or why == "content_filter":
        return answer.but("refusal", _written((refusals or [""])[0]) or "its content filter stopped the reply")
    return _ended(answer, cut=why == "max_output_tokens", limit=output_tokens)


def _failed(error: Any) -> Answer:
    """The server took the question and says itself that it failed; nobody knows what it counts."""
    told = error.get("message") if isinstance(error, dict) else getattr(error, "message", None)
    return Answer("server_error", None, 200, f"the server failed: {_written(told or str(error))}")


def _ended(answer: Answer, *, cut: bool, limit: int) -> Answer:
    if cut:
        return answer.but("length", f"the reply was cut at {limit} tokens")
    return answer if answer.text.strip() else answer.but("empty", "the reply is empty")


def _tokens(given: Any, given_details: Any, said: Any, said_details: Any, total: Any) -> dict[str, int] | None:
    """Tokens by class, each counted once; None where the figures cannot be true.

    What was thought is a part of what was said, but for servers whose total shows that they count it beside that (xAI).
    """
    cached = getattr(given_details, "cached_tokens", None) or 0
    thought = getattr(said_details, "reasoning_tokens", None) or 0
    counts = (given, said, cached, thought)
    if any(not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= MOST_TOKENS for count in counts):
        return None
    said += thought if total == given + said + thought else 0
    if cached > given or thought > said:
        return None
    return {"input": given - cached, "cached_input": cached, "output": said - thought, "reasoning": thought}


def _written(value: Any) -> str:
    """A text as it can be kept: half a character, which JSON can hold and nothing else, is written as its escape."""
    if not isinstance(value, str):
        return ""
    return value[:LONGEST_KEPT].encode("utf-8", "backslashreplace").decode("utf-8")
