"""What does GPT-4 say to a prompt? Every attempt is paid from the ledger, and whatever happens has a name."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol

from trading_ops.assessments.prompt import Prompt
from trading_ops.assessments.protocol import Answer, Dialect, chat, is_about, responses
from trading_ops.assessments.schema import LONGEST_TEXT, REPLY_SCHEMA, Assessment, InvalidReply, parse_reply
from trading_ops.audit.store import StoreError
from trading_ops.costs.ledger import CallRefused
from trading_ops.secrecy import forms

if TYPE_CHECKING:
    from openai import OpenAI

    from trading_ops.costs.ledger import Reservation

Api = Literal["chat", "responses"]
TRIES = 3  # of one opinion, where the way to the server is at fault
QUESTIONS = 2  # the prompt, and once more where the reply was none
LONGEST_WAIT_S = 60.0  # a server that wants to be left alone for longer is not waited for
OUTPUT_TOKENS = 4_000  # at most, thinking included
OVERHEAD_TOKENS = 1_000  # of the protocol's own around the messages, generously
PASSING = ("rate_limited", "server_error", "timeout", "dropped")
SHOWN = 300  # characters of a server's own words
OPENAI = "https://api.openai.com/v1"
SHORTEST_SECRET = 8  # what is shorter stands for a key where a server needs none, and in any text by chance
_A_KEY = re.compile(r"\b(?:sk|xai)-[^\s,;'\"]+")
AGAIN = (
    "Your last reply was not used: {why}. Answer again with one JSON object and nothing else, with the fields"
    " recommendation, confidence, urgency, reasoning, suggested_actions, estimated_improvement."
)


@dataclass(frozen=True, slots=True)
class Consultation:
    """The opinion, or why there is none, and every attempt, ready for the audit trail: `raw` as it came."""

    assessment: Assessment
    attempts: tuple[dict[str, Any], ...]


class Budget(Protocol):
    """What `trading_ops.costs.ledger.Ledger` offers to a caller."""

    def reserve(
        self, *, purpose: str, model: str, prompt_sha256: str, most_tokens: Mapping[str, int]
    ) -> Reservation: ...

    def settle(
        self,
        reservation: Reservation,
        *,
        outcome: str,
        tokens: Mapping[str, int] | None,
        latency_s: float,
        detail: Mapping[str, Any] | None = None,
    ) -> Any: ...


class Gpt4:
    """A server that speaks OpenAI's protocol: OpenAI, Azure (.../openai/v1/), xAI, or one on this machine.

    `api`: Chat Completions, or the Responses API. What a server cannot do (structured outputs, a temperature) is found
    out from its refusal and left out from then on.
    """

    def __init__(
        self,
        ledger: Budget,
        *,
        api_key: str | None,
        model: str,
        base_url: str | None = None,
        timeout_s: float = 60.0,
        api: Api = "chat",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ledger, self._api_key, self._model, self._sleep = ledger, api_key, model, sleep
        self._base_url, self._timeout_s, self._api = base_url, timeout_s, api
        self._dialect = Dialect.of(model)

    def consult(
        self, prompt: Prompt, purpose: str, *, known: Callable[[str], str | None] | None = None
    ) -> Consultation:
        """The opinion on a prompt. What the world does is no error: `assessment.unavailable` says why there is none.

        `known`: the valid reply to a prompt's SHA-256 that was paid for before, by a run that was killed.
        """
        if not self._api_key:
            return Consultation(Assessment.none("no OPENAI_API_KEY is set"), ())
        if known is not None and (told := self._told_before(known, prompt)) is not None:
            remembered = {"outcome": "ok", "raw": told, "remembered": True, "cost_usd": 0.0, "tokens": {}}
            with suppress(InvalidReply):  # valid to another release
                return Consultation(parse_reply(told), (remembered,))
        attempts: list[dict[str, Any]] = []
        messages = [("system", prompt.system), ("user", prompt.user)]
        why = ""
        with self._client() as client:
            for _ in range(QUESTIONS):
                answer, problem = self._ask(client, messages, prompt.sha256, purpose, attempts)
                if answer is None:
                    return Consultation(Assessment.none(problem), tuple(attempts))
                if answer.outcome == "ok":
                    return Consultation(parse_reply(answer.text), tuple(attempts))
                if answer.outcome == "refusal":
                    return Consultation(Assessment.none(f"GPT-4 refused: {answer.error}"), tuple(attempts))
                why = answer.error
                messages = [*messages[:2], ("assistant", answer.text[:LONGEST_TEXT]), ("user", AGAIN.format(why=why))]
                messages = [message for message in messages if message[1]]
        return Consultation(Assessment.none(f"{QUESTIONS} replies that are none, the last: {why}"), tuple(attempts))

    @staticmethod
    def _told_before(known: Callable[[str], str | None], prompt: Prompt) -> str | None:
        with suppress(StoreError):  # then nothing can be reserved either, and that says so
            return known(prompt.sha256)
        return None

    def _ask(
        self,
        client: OpenAI,
        messages: list[tuple[str, str]],
        prompt_sha256: str,
        purpose: str,
        attempts: list[dict[str, Any]],
    ) -> tuple[Answer | None, str]:
        """The server's answer, or None and why there is none."""
        from tenacity import RetryCallState, Retrying, retry_if_result, wait_exponential_jitter

        jitter = wait_exponential_jitter(initial=1.0, max=20.0)

        def attempt() -> Answer:
            answer = self._attempt(client, messages, prompt_sha256, purpose, attempts)
            while answer.outcome == "rejected" and (less := is_about(answer.error, self._dialect)) is not None:
                self._dialect = less
                answer = self._attempt(client, messages, prompt_sha256, purpose, attempts)
            return answer

        def wait(state: RetryCallState) -> float:
            return max(state.outcome.result().retry_after_s, jitter(state)) if state.outcome else 0.0

        retrying = Retrying(
            retry=retry_if_result(lambda a: a.outcome in PASSING and a.retry_after_s <= LONGEST_WAIT_S and a.passes),
            stop=lambda _: sum(row["outcome"] in PASSING for row in attempts) >= TRIES,
            wait=wait,
            sleep=self._sleep,
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        try:
            answer: Answer = retrying(attempt)
        except CallRefused as refused:
            return None, f"no call may start: {refused}"
        except StoreError as error:
            return None, f"no call may start, nothing can be reserved: {error}"
        if answer.outcome in ("ok", "malformed", "empty", "length", "refusal"):
            return answer, ""
        return None, answer.error

    def _attempt(
        self,
        client: OpenAI,
        messages: list[tuple[str, str]],
        prompt_sha256: str,
        purpose: str,
        attempts: list[dict[str, Any]],
    ) -> Answer:
        """Reserve, call, settle. Raises CallRefused and StoreError before anything is sent."""
        sent = sum(len(text.encode("utf-8", "replace")) for _, text in messages) + len(json.dumps(REPLY_SCHEMA))
        reservation = self._ledger.reserve(
            purpose=purpose,
            model=self._model,
            prompt_sha256=prompt_sha256,
            most_tokens={"input": sent + OVERHEAD_TOKENS, "output": OUTPUT_TOKENS},  # a token is at least a byte
        )
        began = time.monotonic()
        answer = Answer("interrupted", error="the call was interrupted")
        row: dict[str, Any] = {"call_id": reservation.call_id, "settled": False}
        attempts.append(row)
        try:
            answer = self._called(client, messages)
        finally:
            latency_s = round(time.monotonic() - began, 3)
            detail = {"raw": answer.text, "error": answer.error, "status": answer.status, "model": answer.model}
            row |= {**detail, "outcome": answer.outcome, "tokens": answer.tokens, "latency_s": latency_s}
            try:
                settled = self._ledger.settle(
                    reservation, outcome=answer.outcome, tokens=answer.tokens, latency_s=latency_s, detail=detail
                )
                row |= {"cost_usd": settled.cost_usd, "settled": True}
            except StoreError as error:  # it stays reserved, at the most it can have cost
                row |= {"cost_usd": float(reservation.bound_usd), "error_of_ledger": str(error)}
        return answer

    def _called(self, client: OpenAI, messages: list[tuple[str, str]]) -> Answer:
        import openai
        from httpx2 import ConnectError

        speak = chat if self._api == "chat" else responses
        try:
            answer = self._without_key(speak(client, self._model, messages, self._dialect, OUTPUT_TOKENS))
        except openai.APITimeoutError:
            return Answer("timeout", error=f"no answer within {self._timeout_s:g} s")
        except openai.APIConnectionError as error:
            unsent = isinstance(error.__cause__, ConnectError)
            why = "cannot be reached" if unsent else "dropped the connection"
            return Answer("dropped", tokens={} if unsent else None, error=f"the server {why}")
        except openai.APIStatusError as error:
            return self._refused(error)
        except (openai.OpenAIError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            said = self._safe(f"{type(error).__name__}: {error}")
            return Answer("malformed", error=f"the server does not speak the protocol: {said}")
        if answer.outcome != "ok":
            return answer
        try:
            parse_reply(answer.text)
        except InvalidReply as error:
            return answer.but("malformed" if answer.text.strip() else "empty", str(error))
        return answer

    def _refused(self, error: Any) -> Answer:
        """An answer with a status that is no success."""
        told = error.body.get("message") if isinstance(error.body, dict) else None
        status, said = error.status_code, self._safe(str(told or error.message))
        wait_s = _retry_after(error.response.headers.get("retry-after", ""))
        if status == 429:
            out_of_money = "insufficient_quota" in said or getattr(error, "code", None) == "insufficient_quota"
            why = f"HTTP 429: {said}" + (f" (wants no call for {wait_s:.0f} s)" if wait_s > LONGEST_WAIT_S else "")
            return Answer("rate_limited", {}, status, why, retry_after_s=wait_s, passes=not out_of_money)
        if status >= 500:
            return Answer("server_error", None, status, f"HTTP {status}: {said}", retry_after_s=wait_s)
        return Answer("rejected", {}, status, f"HTTP {status}: {said}")

    def _client(self) -> OpenAI:
        import openai

        from trading_ops.assessments.answering import begun, bounded

        return openai.OpenAI(
            api_key=self._api_key,
            base_url=self._base_url or OPENAI,  # never what the environment says by itself
            timeout=openai.Timeout(self._timeout_s, connect=min(10.0, self._timeout_s)),
            max_retries=0,  # every attempt is reserved
            http_client=openai.DefaultHttpxClient(
                event_hooks={"request": [begun], "response": [partial(bounded, self._timeout_s)]},
                follow_redirects=False,  # the key and the evidence go to the configured address alone
            ),
        )

    def _without_key(self, answer: Answer) -> Answer:
        """The answer as it is kept and told: a reply may repeat the key, too."""
        text, model = map(self._hidden, (answer.text, answer.model))
        return replace(answer, text=text, model=model, error=self._safe(answer.error))

    def _hidden(self, text: str) -> str:
        for form in forms(self._api_key or ""):
            text = text.replace(form, "[key]") if len(form) >= SHORTEST_SECRET else text
        return text

    def _safe(self, text: str) -> str:
        """A server's own words in one line, without the key, which some repeat, or a part of it."""
        return (
            " ".join(_A_KEY.sub("[key]", self._hidden(text)).split())[:SHOWN]
            .encode("utf-8", "backslashreplace")
            .decode("utf-8")
        )


def _retry_after(text: str) -> float:
    """Seconds, from a number of them or a date; 0 where there is neither."""
    from datetime import UTC, datetime

    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
