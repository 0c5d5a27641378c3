"""What does a reply of the bot's REST interface say, and in which of the forms that are in use?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from trading_ops.bot.client import BotError
from trading_ops.bot.records import InvalidRecord, Moment, NotNegative, Positive, StrictRecord

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R", bound=StrictRecord)
MAX_DEPTH = 50
LONG_INTEGER = 18  # digits; a longer one is no count or time and no store could hold it
JSON_TYPES = ("application/json", "text/json", "text/plain", "")  # small servers forget to say JSON


def _number(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    try:
        return float(given)
    except ValueError:
        raise ValueError(f"{given!r:.80} is no number") from None


Price = Annotated[Positive, BeforeValidator(_number)]


class Payload(NamedTuple):
    """What a reply is about, and what stood beside it in the wrapper."""

    data: Any
    facts: Mapping[str, Any]


class Bar(StrictRecord):
    """One hourly candle, `time` its open; an object, or a list in this order. Exchanges send prices as text."""

    time: Moment = Field(validation_alias=AliasChoices("time", "timestamp", "open_time"))
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Annotated[NotNegative, BeforeValidator(_number)]

    @model_validator(mode="before")
    @classmethod
    def _from_a_list(cls, given: Any) -> Any:
        return dict(zip(cls.model_fields, given, strict=False)) if isinstance(given, list) else given

    @model_validator(mode="after")
    def _can_be(self) -> Bar:
        if self.time.minute or self.time.second or self.time.microsecond:
            raise ValueError(f"{self.time} is not on the hour")
        if not self.low <= min(self.open, self.close) <= max(self.open, self.close) <= self.high:
            raise ValueError(
                f"{self.time}: open {self.open} and close {self.close} are not within {self.low} to {self.high}"
            )
        return self


def payload(body: bytes, content_type: str, where: str) -> Payload:
    """The payload, bare or out of its wrapper; raises InvalidRecord, or BotError where the bot says it failed."""
    document = _parsed(body, content_type, where)
    if not isinstance(document, dict) or "success" not in document:
        return Payload(document, {})
    if document["success"] is False:
        raise BotError(f"{where}: the bot says it failed: {_message(document) or 'it does not say why'}")
    if document["success"] is not True:
        raise InvalidRecord(f"{where}: success: {document['success']!r:.80}, true or false is needed")
    facts = {name: value for name, value in document.items() if name not in ("success", "data")}
    return Payload(document["data"], facts) if "data" in document else Payload(facts, facts)


def said(body: bytes) -> str:
    """The bot's own words in an error's body, in one short line; empty where there are none."""
    try:
        return _message(_parsed(body, "", ""))
    except InvalidRecord:
        return ""


def one(data: Any, record: type[R], where: str) -> R:
    """`data` as a record; raises InvalidRecord naming the path, field and value."""
    try:
        return record.parse(data)
    except InvalidRecord as error:
        raise InvalidRecord(f"{where}: {error}") from None


def many(data: Any, record: type[R], where: str, *, inside: str, key: str) -> list[R]:
    """A list (or an object whose `inside` is the list) of records with different `key`s; raises InvalidRecord."""
    found = [one(row, record, f"{where}: row {i}") for i, row in enumerate(rows(data, where, inside))]
    (name, times), *_ = Counter(getattr(row, key) for row in found).most_common(1) or [("", 0)]
    if times > 1:
        raise InvalidRecord(f"{where}: {key}: {name!r:.80} appears {times} times; each must be there once")
    return found


def rows(data: Any, where: str, inside: str) -> list[Any]:
    """The rows of a list reply, none of them looked at yet; raises InvalidRecord where it is no list."""
    found = data[inside] if isinstance(data, dict) and inside in data else data
    if not isinstance(found, list):
        raise InvalidRecord(f"{where}: {found!r:.80}, a list of {inside} is needed")
    return found


def candle_frame(data: Any, where: str) -> pd.DataFrame:
    """A chart's bars as a candle frame (trading_ops/market/candles.py); raises InvalidRecord for one that cannot be."""
    import pandas as pd

    bars = [one(row, Bar, f"{where}: bar {i}") for i, row in enumerate(rows(data, where, "candles"))]
    for earlier, later in pairwise(bars):
        if later.time <= earlier.time:
            fault = "appears twice" if later.time == earlier.time else f"follows the later {earlier.time}"
            raise InvalidRecord(f"{where}: bar {later.time} {fault}; times must ascend")
    frame = pd.DataFrame([bar.model_dump() for bar in bars], columns=list(Bar.model_fields))
    index = pd.DatetimeIndex(frame.pop("time"), tz="UTC", name="time").as_unit("us")
    return frame.astype(float).set_index(index)


def _parsed(body: bytes, content_type: str, where: str) -> Any:
    kind = content_type.split(";")[0].strip().lower()
    if not body.strip():
        raise InvalidRecord(f"{where}: the answer is empty; JSON is needed")
    if kind not in JSON_TYPES and not kind.endswith("+json"):
        raise InvalidRecord(f"{where}: the answer is {kind:.80}; application/json is needed")
    try:
        text = body.decode("utf-8-sig")
        document = json.loads(text, object_pairs_hook=_object, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise InvalidRecord(f"{where}: the answer is not UTF-8 (byte {error.start}); JSON is needed") from None
    except RecursionError:
        raise InvalidRecord(f"{where}: the answer is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as error:
        raise InvalidRecord(f"{where}: the answer is not JSON ({error}): {text[:80]!r}") from None
    if _is_deep(document):
        raise InvalidRecord(f"{where}: the answer is nested more than {MAX_DEPTH} levels deep")
    return document


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """An object; one that says a name twice becomes a text that no record accepts, so that its row alone is lost."""
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    (name, times), *_ = Counter(name for name, _ in pairs).most_common(1)
    return f"an object that has {name!r:.80} {times} times: {found!r}"


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONG_INTEGER else float(digits)


def _is_deep(document: Any) -> bool:
    level = [document]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for value in level
            if isinstance(value, (dict, list))
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return False
    return True


def _message(document: Any) -> str:
    for name in ("message", "error", "detail", "reason"):
        words = document.get(name) if isinstance(document, dict) else None
        if isinstance(words, dict):
            words = _message(words)
        if isinstance(words, str) and words.strip():
            line = " ".join(words.split())
            return "".join(c if c.isprintable() else "?" for c in line[:200])
    return ""
