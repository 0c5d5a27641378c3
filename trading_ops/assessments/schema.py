"""What may GPT-4 answer, and what of an answer is none?"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NoReturn, Self, get_args

from pydantic import BaseModel, ConfigDict, Field

Recommendation = Literal["retrain", "wait", "optimize_parameters"]
Urgency = Literal["low", "medium", "high"]
LONGEST_REPLY = 100_000  # characters that are looked at
LONGEST_TEXT, MOST_ACTIONS = 4_000, 20
SHOWN = 60  # characters of a wrong value in an error
_BRACE, _OPENS = re.compile("[{}]"), re.compile(r'\{\s*["}]')
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# what a server with structured outputs is held to
REPLY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": [
        "recommendation", "confidence", "urgency", "reasoning", "suggested_actions", "estimated_improvement",
    ],
    "properties": {
        "recommendation": {"type": "string", "enum": list(get_args(Recommendation))},
        "confidence": {"type": "number", "description": "from 0 to 1"},
        "urgency": {"type": "string", "enum": list(get_args(Urgency))},
        "reasoning": {"type": "string"},
        "suggested_actions": {"type": "array", "items": {"type": "string"}},
        "estimated_improvement": {"type": ["string", "null"]},
    },
}  # fmt: skip


class InvalidReply(ValueError):
    """A reply is no assessment; the message names the field, its value, and what would be right."""


class Assessment(BaseModel):
    """One opinion. `unavailable`: why there is none; then it is wait, confidence 0, and nobody's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    recommendation: Recommendation
    confidence: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    urgency: Urgency
    reasoning: str = ""
    suggested_actions: tuple[str, ...] = ()
    estimated_improvement: str | None = None
    unavailable: str | None = None

    @classmethod
    def none(cls, why: str) -> Self:
        """No opinion, and why."""
        return cls(recommendation="wait", confidence=0.0, urgency="low", unavailable=why)


def parse_reply(text: str) -> Assessment:
    """The assessment in a reply: one JSON object, alone, in a fence, or between words; case of words does not matter.

    A confidence is a number from 0 to 1, also as text ("0.85"): 85, 1.5 and NaN are no confidence. Texts may be
    missing; they are cut to 4,000 characters and lose control characters, actions to 20. Raises InvalidReply.

    >>> parse_reply('```json\\n{"recommendation": "RETRAIN", "confidence": "0.85", "urgency": "High"}\\n```').confidence
    0.85
    """
    found = _object_in(text)
    improvement = found.get("estimated_improvement")
    return Assessment(
        recommendation=_word(found, "recommendation", get_args(Recommendation)),
        confidence=_confidence(found),
        urgency=_word(found, "urgency", get_args(Urgency)),
        reasoning=_text(found.get("reasoning")),
        suggested_actions=_actions(found.get("suggested_actions")),
        estimated_improvement=None if improvement is None else _text(improvement),
    )


def _object_in(text: str) -> Mapping[str, Any]:
    if not text.strip():
        raise InvalidReply("the reply is empty; one JSON object would be right")
    if len(text) > LONGEST_REPLY:
        raise InvalidReply(f"the reply has {len(text):,} characters; at most {LONGEST_REPLY:,} are read")
    try:
        whole = _loads(text)
    except ValueError:
        whole = None
    if isinstance(whole, dict):
        return whole
    found = list(_objects(text))
    if not found:
        raise InvalidReply(f"{_shown(text)} holds no JSON object; exactly one would be right")
    if any(one != found[0] for one in found):
        raise InvalidReply(f"{_shown(text)} holds {len(found)} JSON objects that differ; exactly one would be right")
    return found[0]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The objects between words and in fences. One within other braces may be a part of a broken one: no reply."""
    decoder = json.JSONDecoder(object_pairs_hook=_unique)
    place, depth = 0, 0
    while brace := _BRACE.search(text, place):
        start, place = brace.start(), brace.end()
        if brace.group() == "}":
            depth = max(depth - 1, 0)
        elif not _OPENS.match(text, start):
            depth += 1  # braces of a sentence
        elif depth:
            raise InvalidReply(f"{_shown(text[start:])} stands within other braces; one JSON object would be right")
        else:
            try:
                found, place = decoder.raw_decode(text, start)
            except InvalidReply:
                raise
            except (ValueError, RecursionError) as error:
                raise InvalidReply(f"{_shown(text[start:])} is broken JSON; one JSON object would be right") from error
            yield found


def _loads(text: str) -> Any:
    try:
        return json.loads(text.strip(), object_pairs_hook=_unique)
    except RecursionError as error:
        raise InvalidReply("the reply is nested too deeply; one flat JSON object would be right") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Twice(f"{_shown(twice)} is there twice; each field once would be right")
    return found


class _Twice(InvalidReply):
    """Raised out of the JSON decoder, which takes any other ValueError for bad JSON."""


def _word(found: Mapping[str, Any], field: str, words: tuple[str, ...]) -> Any:
    value = found.get(field)
    word = value.strip().lower().replace(" ", "_").replace("-", "_") if isinstance(value, str) else None
    if word not in words:
        _refuse(field, value, found, f"one of {', '.join(words)}")
    return word


def _confidence(found: Mapping[str, Any]) -> float:
    value = found.get("confidence")
    number = value
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        number = float(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number <= 1:
        _refuse("confidence", value, found, "a number from 0 to 1")
    return float(number)


def _refuse(field: str, value: Any, found: Mapping[str, Any], right: str) -> NoReturn:
    said = f"is {_shown(value)}" if field in found else "is missing"
    raise InvalidReply(f"{field} {said}; {right} would be right")


def _text(value: Any) -> str:
    if value is None:
        return ""
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _CONTROL.sub(" ", written).strip()[:LONGEST_TEXT]


def _actions(value: Any) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(filter(None, map(_text, listed)))[:MOST_ACTIONS]


def _shown(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    written = value if isinstance(value, str) else repr(value)
    cut = _CONTROL.sub(" ", written[: SHOWN + 1])
    return repr(cut[:SHOWN] + ("..." if len(cut) > SHOWN else "")) if isinstance(value, str) else cut[:SHOWN]
