"""What does an alert say, before a channel escapes it and fits it in?"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from trading_ops.notifications.alert import Alert

MARKER = "… [shortened]"
LINES = 60  # of figures that anybody reads
LONGEST = 200_000  # characters of a text that are looked at: more than any channel takes

_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Control characters, halves of characters and no characters, and what is invisible or turns the reading direction:
# with these a text can show something else than what it says. The joiners of emoji and Persian (200C, 200D) stay.
_UNFIT = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\ufdd0-\ufdef\ufff0-\ufffb\ufffe\uffff\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True, slots=True)
class Message:
    """An alert as clean text: `what` and `footer` are one line, `figures` a line a number; nothing is escaped yet."""

    severity: str
    what: str
    why: str
    what_to_do: str
    figures: str
    footer: str  # the day and the key that `trading-ops alerts show` takes
    notice: str  # that it may have been told before; empty where it was not


def message_of(alert: Alert, *, possible_duplicate: bool) -> Message:
    """What a channel has to tell."""
    lines = list(islice(_figures(alert.numbers), LINES + 1))
    more = ["…"] if len(lines) > LINES else []
    return Message(
        severity=one_line(str(alert.severity)) or "UNKNOWN",
        what=one_line(alert.what) or "(no text)",
        why=clean(alert.why),
        what_to_do=clean(alert.what_to_do),
        figures="\n".join([*lines[:LINES], *more]),
        footer=one_line(" · ".join(filter(None, (alert.day, alert.dedup_key)))),
        notice="possible duplicate: this may have been told before" if possible_duplicate else "",
    )


def clean(text: str) -> str:
    """The text with every line end as a newline, and a replacement character for what nobody can see.

    >>> clean("up\\u202e\\0down\\r\\nnext")
    'up��down\\nnext'
    """
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", _LINE_ENDS.sub("\n", text[:LONGEST])).strip()


def one_line(text: str) -> str:
    """The clean text without line ends."""
    return " ".join(clean(text).split())


def size(text: str) -> int:
    """Length in UTF-16 units, by which chat services count: at least the number of characters."""
    return len(text) + sum(character > "\uffff" for character in text)


def fit(text: str, most: int, escape: Callable[[str], str] = str, *, measured: bool = True) -> str:
    """The escaped text, cut with a marker where it would be larger than `most`; never within an escape.

    `measured`: the limit is on the escaped text, else on what the reader sees of it. `escape` must not shorten.

    >>> fit("a & b", 9, lambda text: text.replace("&", "&amp;"))
    'a &amp; b'
    >>> fit("a fine day for & and more", 20)
    'a fine … [shortened]'
    """

    def fits(shown: str) -> bool:
        return size(escape(shown) if measured else shown) <= most

    if len(text) <= most and fits(text):
        return escape(text)
    low, high = 0, min(len(text), most)
    while low < high:  # the longest beginning that fits together with the marker
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(text[:middle] + MARKER) else (low, middle - 1)
    return escape(text[:low] + MARKER) if fits(text[:low] + MARKER) else ""


def _figures(numbers: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A line a number; what is nested is indented, a list is counted and its beginning shown."""
    for name, value in numbers.items():
        label = f"{indent}{one_line(str(name))}:"
        if isinstance(value, Mapping) and value:
            yield label
            yield from _figures(value, indent + "  ")
        else:
            yield f"{label} {_shown(value)}"


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "undefined"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, Mapping):
        return "[0 items]"
    if isinstance(value, list | tuple):
        plain = [_shown(item) for item in value[:3]] if not any(isinstance(i, list | dict) for i in value[:3]) else []
        begins = ", ".join([*plain, *(["…"] if len(value) > 3 and plain else [])])
        return f"[{len(value)} items] {begins}".rstrip()
    return one_line(str(value))
