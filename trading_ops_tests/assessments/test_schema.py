"""Is only that a reply which says one thing, and does anything else have an error in words?"""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.assessments.schema import LONGEST_TEXT, MOST_ACTIONS, Assessment, InvalidReply, parse_reply

WAIT = '{"recommendation": "wait", "confidence": 0.9, "urgency": "low"}'
RETRAIN = '{"recommendation": "retrain", "confidence": 0.8, "urgency": "high"}'


@pytest.mark.parametrize(
    "text",
    [
        WAIT,
        f"```json\n{WAIT}\n```",
        f"```json {WAIT} ```",
        f"Sure:\n\n```\n{WAIT}\n```\nAnything else?",
        f"I looked at {{everything}} there is. {WAIT}",
        f"{WAIT}\n{WAIT}",
        WAIT.replace("wait", " WAIT ").replace("low", "Low"),
        WAIT.replace("}", ', "unknown": {"a": [1]}}'),
    ],
)
def test_one_object_is_found_wherever_it_stands_B081_B082_B083(text):
    assert (parse_reply(text).recommendation, parse_reply(text).confidence) == ("wait", 0.9)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (WAIT.replace("}", f', "alternatives": [{RETRAIN}],}}'), "broken JSON"),  # a comma too many
        (WAIT[:-1] + f', "instead": {RETRAIN}', "broken JSON"),
        (f"{{ {RETRAIN} }}", "within other braces"),
        (f"For example ```json\n{RETRAIN}\n``` would be wrong. {WAIT}", "2 JSON objects that differ"),
        (f"{WAIT} {RETRAIN}", "2 JSON objects that differ"),
        (WAIT.replace("}", ', "confidence": 0.1}'), "'confidence' is there twice"),
        ("", "empty"),
        ("wait, I think", "no JSON object"),
        ("[1]", "no JSON object"),
        (WAIT.replace("0.9", "85"), "confidence is 85; a number from 0 to 1"),
        (WAIT.replace("0.9", "NaN"), "confidence is nan"),
        (WAIT.replace("0.9", "true"), "confidence is True"),
        (WAIT.replace("0.9", '"high"'), "confidence is 'high'"),
        (WAIT.replace('"low"', "null"), "urgency is None; one of low, medium, high"),
        ('{"confidence": 0.9, "urgency": "low"}', "recommendation is missing"),
        ('{"a":' * 20_000, "broken JSON"),
        (" " * 99_999 + "xx", "at most 100,000"),
    ],
)
def test_what_is_no_reply_says_what_would_be_right_B078_B079_B080(text, says):
    with pytest.raises(InvalidReply, match=says):
        parse_reply(text)


def test_texts_are_cut_and_lose_what_no_terminal_should_get():
    reply = json.loads(WAIT) | {"reasoning": "\x1b[2J" + "a" * 9_999, "suggested_actions": [{"do": "it"}, None] * 30}
    found = parse_reply(json.dumps(reply))
    assert len(found.reasoning) == LONGEST_TEXT
    assert "\x1b" not in found.reasoning
    assert found.suggested_actions == ('{"do": "it"}',) * MOST_ACTIONS


def test_a_reply_cannot_say_that_there_is_none():
    assert parse_reply(WAIT.replace("}", ', "unavailable": "x"}')).unavailable is None


pieces = st.sampled_from(["{", "}", '"', "```", "json", "\n", ",", ":", "[", "]", WAIT, RETRAIN, "0.9", "\\", "\ud800"])


@given(st.one_of(st.text(), st.lists(pieces, max_size=12).map("".join)))
def test_any_text_is_an_assessment_or_an_invalid_reply(text: str):
    with suppress(InvalidReply):
        assert isinstance(parse_reply(text), Assessment)
