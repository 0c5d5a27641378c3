"""Has everything that can happen between us and GPT-4 a name, a price and an end? A real SDK, over real sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from trading_ops.assessments.answering import MOST_BYTES
from trading_ops.assessments.gpt4 import AGAIN, Consultation, Gpt4
from trading_ops.assessments.prompt import Prompt, sha256_of
from trading_ops.assessments.schema import LONGEST_REPLY, InvalidReply, parse_reply
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.costs.budget import Limits
from trading_ops.costs.ledger import COLLECTION, Ledger
from trading_ops_tests.conftest import ROOT
from trading_ops_tests.servers.openai import CHAT, GOOD, KEY, RESPONSES, USAGE, OpenAiServer, Turn

NOW = datetime(2025, 3, 10, 3, tzinfo=UTC)
PROMPT = Prompt("1", sha256_of("You advise.", "{}"), "You advise.", "{}")
APIS = ("chat", "responses")
TEXT = json.dumps(GOOD)


def reply(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


class Rig:
    """A client of a server, with a ledger of its own and a clock that stands still."""

    def __init__(self, store: SqliteStore, server: OpenAiServer) -> None:
        self.store, self.server = store, server
        self.waited: list[float] = []
        self.ledger = Ledger(store, Limits(), lambda: NOW, calls_an_hour=None)

    def client(self, **settings: Any) -> Gpt4:
        defaults: dict[str, Any] = {
            "api_key": KEY, "base_url": self.server.url, "model": "gpt-4.1-mini", "timeout_s": 30.0,
            "sleep": self.waited.append,
        }  # fmt: skip
        return Gpt4(self.ledger, **{**defaults, **settings})

    def consult(self, **settings: Any) -> Consultation:
        return self.client(**settings).consult(PROMPT, "test")

    def rows(self) -> list[dict[str, Any]]:
        return [record.body for record in self.store.read(COLLECTION)]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    opened: list[OpenAiServer] = []
    with SqliteStore(tmp_path / "audit.db") as store:

        def make(*turns: Turn, **settings: Any) -> Rig:
            server = OpenAiServer(*turns, **settings)
            server.__enter__()
            opened.append(server)
            return Rig(store, server)

        yield make
        for server in opened:
            server.__exit__()


QUOTA = json.dumps({"error": {"message": "You exceeded your current quota.", "code": "insufficient_quota"}})
BUSY = json.dumps({"error": {"message": "Rate limit reached.", "code": "rate_limit_exceeded"}})
FAILED = json.dumps({"object": "response", "status": "failed", "error": {"code": "x", "message": "It is overloaded."}})
# what comes, what becomes of each call, and the opinion: its recommendation, or why there is none
TABLE: dict[str, tuple[list[Turn], list[str], str]] = {
    "good": ([Turn()], ["ok"], "retrain"),
    "B082 fenced": ([Turn(f"```json\n{TEXT}\n```")], ["ok"], "retrain"),
    "B083 fenced in one line": ([Turn(f"```json {TEXT} ```")], ["ok"], "retrain"),
    "B083 fence after prose": ([Turn(f"Here it is:\n\n```json\n{TEXT}\n```\nGood luck!")], ["ok"], "retrain"),
    "prose around it": ([Turn(f"Sure. {TEXT} Anything else?")], ["ok"], "retrain"),
    "B081 other case": ([Turn(reply(recommendation="RETRAIN", urgency="HIGH"))], ["ok"], "retrain"),
    "B079 confidence as text": ([Turn(reply(confidence="0.85"))], ["ok"], "retrain"),
    "B080 no reasoning, actions as objects": (
        [Turn(reply(reasoning=None, suggested_actions=[{"do": "it"}]))], ["ok"], "retrain"),
    "malformed once": ([Turn("no idea"), Turn()], ["malformed", "ok"], "retrain"),
    "malformed twice": ([Turn("no idea"), Turn("none")], ["malformed", "malformed"], "2 replies that are none"),
    "B078 confidence 85, twice": (
        [Turn(reply(confidence=85)), Turn(reply(confidence=85))], ["malformed"] * 2, "confidence is 85"),
    "B078 confidence 1.5, then 0.85": ([Turn(reply(confidence=1.5)), Turn()], ["malformed", "ok"], "retrain"),
    "B078 confidence -1": ([Turn(reply(confidence=-1))] * 2, ["malformed"] * 2, "confidence is -1"),
    "B078 confidence NaN": ([Turn(reply(confidence=float("nan")))] * 2, ["malformed"] * 2, "confidence is nan"),
    "B079 confidence null": ([Turn(reply(confidence=None))] * 2, ["malformed"] * 2, "confidence is None"),
    "B080 recommendation null": ([Turn(reply(recommendation=None))] * 2, ["malformed"] * 2, "recommendation is None"),
    "B081 an unknown word": ([Turn(reply(recommendation="sell"))] * 2, ["malformed"] * 2, "recommendation is 'sell'"),
    "wrong types": ([Turn(reply(urgency=3, confidence=[]))] * 2, ["malformed"] * 2, "confidence is []"),
    "a list": ([Turn("[1, 2]")] * 2, ["malformed"] * 2, "no JSON object"),
    "empty": ([Turn("")] * 2, ["empty"] * 2, "the reply is empty"),
    "blank once": ([Turn(" \n"), Turn()], ["empty", "ok"], "retrain"),
    "refusal": ([Turn(None, refusal="I cannot give advice.")], ["refusal"], "GPT-4 refused: I cannot give advice."),
    "content filter": ([Turn("", finish="content_filter")], ["refusal"], "content filter"),
    "length stop once": ([Turn(TEXT[:40], finish="length"), Turn()], ["length", "ok"], "retrain"),
    "length stop twice": ([Turn(TEXT[:40], finish="length")] * 2, ["length"] * 2, "cut at 4000 tokens"),
    "B086 429 once": ([Turn(status=429, body=BUSY, headers={"Retry-After": "7"}), Turn()],
                      ["rate_limited", "ok"], "retrain"),
    "B086 429 for ever": ([Turn(status=429, body=BUSY)] * 3, ["rate_limited"] * 3, "HTTP 429: Rate limit reached."),
    "429, not before an hour": ([Turn(status=429, body=BUSY, headers={"Retry-After": "3600"})],
                                ["rate_limited"], "wants no call for 3600 s"),
    "429, out of money": ([Turn(status=429, body=QUOTA)], ["rate_limited"], "exceeded your current quota"),
    "500 twice": ([Turn(status=500, body="oops")] * 2 + [Turn()], ["server_error"] * 2 + ["ok"], "retrain"),
    "503 for ever": ([Turn(status=503, body="oops")] * 3, ["server_error"] * 3, "HTTP 503"),
    "429 twice, malformed, 429": (
        [Turn(status=429, body=BUSY)] * 2 + [Turn("no idea"), Turn(status=429, body=BUSY)],
        ["rate_limited", "rate_limited", "malformed", "rate_limited"], "HTTP 429"),
    "it says that it failed": ([Turn(body=FAILED), Turn()], ["server_error", "ok"], "retrain"),
    "it says that it failed, for ever": ([Turn(body=FAILED)] * 3, ["server_error"] * 3, "failed: It is overloaded."),
    "a redirect": ([Turn(status=307, headers={"Location": "/v1/elsewhere"})], ["rejected"], "HTTP 307"),
    "dropped once": ([Turn(drop=True), Turn()], ["dropped", "ok"], "retrain"),
    "dropped for ever": ([Turn(drop=True)] * 3, ["dropped"] * 3, "dropped the connection"),
    "a login page": ([Turn(body="<html>Welcome</html>")] * 2, ["malformed"] * 2, "does not speak the protocol"),
    "other JSON": ([Turn(body='{"hello": "world"}')] * 2, ["malformed"] * 2, "does not speak the protocol"),
    "403": ([Turn(status=403, body='{"error": {"message": "Country not supported"}}')], ["rejected"], "HTTP 403"),
    "half a character": ([Turn(reply(reasoning="\ud800"))], ["ok"], "retrain"),
    "half a character, twice": ([Turn("\ud800")] * 2, ["malformed"] * 2, "no JSON object"),
    "no usage": ([Turn(usage=None)], ["ok"], "retrain"),
}  # fmt: skip


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(("turns", "outcomes", "becomes"), TABLE.values(), ids=TABLE)
def test_what_becomes_of(rig, api, turns, outcomes, becomes):
    used = rig(*turns)
    found = used.consult(api=api)
    assert [attempt["outcome"] for attempt in found.attempts] == outcomes
    assert [asked.path for asked in used.server.asked] == [{"chat": CHAT, "responses": RESPONSES}[api]] * len(outcomes)
    if found.assessment.unavailable is None:
        assert found.assessment.recommendation == becomes
    else:
        assert becomes in found.assessment.unavailable
        assert (found.assessment.recommendation, found.assessment.confidence) == ("wait", 0.0)
    settled = sorted((row["outcome"], row["cost_usd"]) for row in used.rows())
    assert settled == sorted((attempt["outcome"], attempt["cost_usd"]) for attempt in found.attempts)
    assert all(attempt["settled"] for attempt in found.attempts)


def test_what_can_become_of_a_call_is_in_the_table_for_people():
    told = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "decisions.md").read_text(), re.M))
    assert told >= {outcome for _, outcomes, _ in TABLE.values() for outcome in outcomes} | {"timeout", "interrupted"}


@pytest.mark.parametrize("api", APIS)
def test_tokens_are_counted_by_class_and_paid_once(rig, api):
    used = rig()
    (attempt,) = used.consult(api=api).attempts
    assert attempt["tokens"] == USAGE
    assert attempt["cost_usd"] == pytest.approx(900 * 0.4e-6 + 100 * 0.1e-6 + 100 * 1.6e-6)
    assert attempt["model"] == "gpt-4.1-mini-2025-04-14"


@pytest.mark.parametrize(
    ("turn", "paid"),
    [
        (Turn(status=429, body=QUOTA), "nothing"),
        (Turn(status=403, body="{}"), "nothing"),
        (Turn(usage=None), "the most"),
        (Turn(usage={"input": -5, "cached_input": 0, "output": 1, "reasoning": 0}), "the most"),
        (Turn(usage={"input": -5, "cached_input": 10, "output": 1, "reasoning": 0}), "the most"),
    ],
)
def test_what_the_server_did_not_count_is_paid_at_the_most_unless_it_did_nothing(rig, turn, paid):
    used = rig(turn)
    (attempt,) = used.consult().attempts
    (first, *_) = used.store.read(COLLECTION, all_revisions=True)
    assert attempt["cost_usd"] == {"nothing": 0.0, "the most": first.body["cost_usd"]}[paid]
    assert first.body["cost_usd"] > 0


def test_B086_the_server_says_how_long_to_wait(rig):
    used = rig(Turn(status=429, body=BUSY, headers={"Retry-After": "7"}), Turn(status=503), Turn())
    used.consult()
    assert used.waited[0] == 7.0
    assert len(used.waited) == 2


def test_B086_a_slow_server_is_given_up_after_three_tries(rig):
    used = rig(*[Turn(delay_s=60.0)] * 3)
    found = used.consult(timeout_s=0.5)
    assert [attempt["outcome"] for attempt in found.attempts] == ["timeout"] * 3
    assert "no answer within 0.5 s" in str(found.assessment.unavailable)
    assert all(row["cost_usd"] > 0 for row in used.rows())  # nobody knows what the server counted


def test_a_server_that_is_not_there_costs_nothing(rig):
    used = rig()
    found = used.consult(base_url="http://127.0.0.1:9/v1")
    assert [attempt["outcome"] for attempt in found.attempts] == ["dropped"] * 3
    assert "cannot be reached" in str(found.assessment.unavailable)
    assert sum(row["cost_usd"] for row in used.rows()) == 0.0


def test_B071_without_a_key_nobody_is_asked(rig):
    used = rig()
    found = used.consult(api_key=None)
    assert "no OPENAI_API_KEY" in str(found.assessment.unavailable)
    assert (found.assessment.recommendation, found.assessment.confidence) == ("wait", 0.0)
    assert (used.server.asked, used.rows()) == ([], [])


def test_B089_the_sixth_call_within_an_hour_is_refused(rig):
    used = rig()
    used.ledger = Ledger(used.store, Limits(), lambda: NOW, calls_an_hour=5)
    client = used.client()
    found = [client.consult(PROMPT, "test").assessment.unavailable for _ in range(6)]
    assert found[:5] == [None] * 5
    assert "no call may start" in str(found[5])
    assert len(used.server.asked) == 5


def test_an_exhausted_budget_asks_nobody(rig):
    used = rig()
    none = Limits(day_warning_usd=0, day_critical_usd=0.0001, month_warning_usd=0, month_critical_usd=1)
    used.ledger = Ledger(used.store, none, lambda: NOW)
    found = used.consult()
    assert "no call may start" in str(found.assessment.unavailable)
    assert (found.attempts, used.server.asked) == ((), [])


def test_a_malformed_reply_is_quoted_back_with_what_was_wrong(rig):
    used = rig(Turn(reply(confidence=85)), Turn())
    used.consult()
    first, second = (asked.document["messages"] for asked in used.server.asked)
    assert [message["role"] for message in first] == ["system", "user"]
    assert second[:2] == first
    assert second[2:] == [
        {"role": "assistant", "content": reply(confidence=85)},
        {"role": "user", "content": AGAIN.format(why="confidence is 85; a number from 0 to 1 would be right")},
    ]


@pytest.mark.parametrize("api", APIS)
def test_structured_outputs_are_asked_for_and_done_without_where_a_server_has_none(rig, api):
    used = rig(structured=False)
    client = used.client(api=api)
    assert client.consult(PROMPT, "test").assessment.unavailable is None
    assert client.consult(PROMPT, "test").assessment.unavailable is None
    asked = [any(name in asked.document for name in ("response_format", "text")) for asked in used.server.asked]
    assert asked == [True, False, False]  # what it cannot do is remembered


def test_a_server_that_knows_the_old_name_of_the_limit_alone_is_asked_by_it(rig):
    used = rig(limits=("max_tokens",))
    assert used.consult().assessment.unavailable is None
    assert "max_tokens" in used.server.asked[-1].document


def test_a_server_that_knows_the_new_name_of_the_limit_alone_is_asked_by_it(rig):
    used = rig(limits=("max_completion_tokens",))
    client = used.client()
    assert client.consult(PROMPT, "test").assessment.unavailable is None
    assert client.consult(PROMPT, "test").assessment.unavailable is None
    names = ["max_tokens", "max_completion_tokens", "max_completion_tokens"]
    assert all(name in asked.document for name, asked in zip(names, used.server.asked, strict=True))


def test_an_error_about_the_limits_value_is_no_error_about_its_name(rig):
    used = rig(Turn(status=400, body=json.dumps({"error": {"message": "max_tokens is too large: 4000"}})))
    assert "max_tokens is too large" in str(used.consult().assessment.unavailable)
    assert len(used.server.asked) == 1


def test_a_server_that_knows_no_name_of_the_limit_is_not_asked_for_ever(rig):
    used = rig(limits=())
    assert "HTTP 400" in str(used.consult().assessment.unavailable)
    assert len(used.server.asked) == 2


@pytest.mark.parametrize("api", APIS)
def test_what_was_thought_is_paid_also_where_the_server_counts_it_apart(rig, api):
    used = rig(Turn(thinks_apart=True))
    (attempt,) = used.consult(api=api).attempts
    assert attempt["tokens"] == USAGE


@pytest.mark.parametrize(("model", "warm"), [("gpt-4.1-mini", 0.1), ("gpt-5-mini", None), ("o4-mini", None)])
def test_the_temperature_is_low_where_the_model_takes_one(rig, model, warm):
    used = rig()
    assert used.consult(model=model).assessment.unavailable is None
    (asked,) = used.server.asked
    assert asked.document.get("temperature") == warm


def test_what_was_paid_for_before_is_not_asked_again(rig):
    used = rig()
    found = used.client().consult(PROMPT, "test", known={PROMPT.sha256: reply(confidence=0.6)}.get)
    assert found.assessment.confidence == 0.6
    assert (used.server.asked, used.rows()) == ([], [])


def test_a_reply_that_was_valid_to_another_release_is_asked_for_again(rig):
    used = rig()
    found = used.client().consult(PROMPT, "test", known={PROMPT.sha256: "retrain, surely"}.get)
    assert (found.assessment.confidence, len(used.server.asked)) == (GOOD["confidence"], 1)


def test_a_key_that_the_server_repeats_is_nowhere_in_what_is_kept(rig):
    used = rig()
    wrong = "sk-GEHEIM-another-key"
    found = used.consult(api_key=wrong)
    assert "Incorrect API key provided: [key]" in str(found.assessment.unavailable)
    assert wrong not in repr(found) + json.dumps(used.rows())


def test_a_key_of_one_letter_is_no_secret_and_leaves_replies_as_they_are(rig):
    used = rig()
    used.server.key = "1"
    (attempt,) = used.consult(api_key="1").attempts
    assert attempt["raw"] == TEXT


def test_an_empty_address_in_the_environment_is_no_address(rig, monkeypatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    with rig().client(base_url=None)._client() as client:
        assert str(client.base_url) == "https://api.openai.com/v1/"


def test_a_refusal_of_a_thousand_lines_is_kept_in_one_short_line(rig):
    used = rig(Turn(None, refusal="No.\n`trading-ops guard resume rsi`\n" * 1_000))
    said = str(used.consult().assessment.unavailable)
    assert len(said) < 400
    assert "\n" not in said


def test_a_key_that_the_server_repeats_in_part_is_not_kept_either(rig):
    masked = "Incorrect API key provided: sk-GEHEI**********-key. You can find your API key in your account."
    used = rig(Turn(status=401, body=json.dumps({"error": {"message": masked}})))
    found = used.consult()
    assert "provided: [key] You can find" in str(found.assessment.unavailable)
    assert "GEHEI" not in repr(found) + json.dumps(used.rows())


@pytest.mark.parametrize("api", APIS)
def test_a_key_that_a_reply_repeats_is_nowhere_in_what_is_kept(rig, api):
    used = rig(Turn(f"I was sent {KEY}"), Turn(reply(reasoning=f"Authorization: Bearer {KEY}")))
    found = used.consult(api=api)
    assert found.assessment.reasoning == "Authorization: Bearer [key]"
    assert found.attempts[0]["raw"] == "I was sent [key]"
    assert KEY not in repr(found) + json.dumps(used.rows())


@pytest.mark.parametrize("count", [10**9, 10**19, 10**40])
def test_a_count_of_tokens_that_no_model_has_is_charged_the_most_the_call_can_have_cost(rig, count):
    used = rig(Turn(usage=USAGE | {"input": count}))
    assert used.consult().assessment.recommendation == "retrain"
    (row,) = used.rows()
    assert (row["charged"], row["tokens"]) == ("bound", {})


def test_an_answer_that_is_nested_too_deeply_is_none(rig):
    used = rig(*[Turn(body="[" * 100_000)] * 2)
    assert "does not speak the protocol: RecursionError" in str(used.consult().assessment.unavailable)
    assert [row["outcome"] for row in used.rows()] == ["malformed", "malformed"]


def test_an_answer_that_never_ends_is_given_up_when_its_time_is_over(rig):
    used = rig(*[Turn(drips=True)] * 3)
    assert used.consult(timeout_s=1.0).assessment.unavailable == "no answer within 1 s"
    assert [row["outcome"] for row in used.rows()] == ["timeout"] * 3


def test_no_more_of_an_answer_is_read_than_one_can_have(rig):
    used = rig(*[Turn(body=" " * (MOST_BYTES + 1))] * 3)
    assert used.consult().assessment.unavailable == "the server dropped the connection"


def test_a_fence_that_never_closes_is_read_at_once():
    """Read in time that grows with its length alone, not with its square: that would be minutes."""
    with pytest.raises(InvalidReply, match="holds no JSON object"):
        parse_reply("```" + "a" * (LONGEST_REPLY - 3))
