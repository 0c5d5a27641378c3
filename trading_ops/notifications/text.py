"""What does an alert say, before a channel escapes it and fits it in?"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import quote, urlsplit

from trading_ops.commands import command
from trading_ops.notifications.alert import Alert, Severity, Step

MARKER = "… [shortened]"
LINES = 60  # of figures that anybody reads
LONGEST = 200_000  # characters of a text that are looked at: more than any channel takes
MOST_KEY = 255
MOST_LINK = 500  # a longer address is no link to a run
ANSWERED = (Step.RESOLVED, Step.ESCALATED)  # it needs no acknowledgement, or says itself how to give one
STEPS = {Step.UPDATED: "updated", Step.REMINDED: "still open", Step.ESCALATED: "escalated"}
# how a name's last part is read
UNITS = {"pct": " %", "usd": " USD", "usdt": " USDT", "s": " s", "h": " h", "hours": " h", "days": " days"}

CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")  # a command, as our own words mark it
_DIGEST = re.compile(r"\b([0-9a-f]{16})[0-9a-f]{48}\b")
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Control characters, halves of characters and no characters, and what is invisible or turns the reading direction:
# with these a text can show something else than what it says. The joiners of emoji and Persian (200C, 200D) stay.
_UNFIT = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\ufdd0-\ufdef\ufff0-\ufffb\ufffe\uffff\U000e0000-\U000e0fff]"
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number as a person reads it; `depth` counts what it is nested in, `value` is empty above what is nested."""

    depth: int
    name: str
    value: str

    def __str__(self) -> str:
        return f"{'  ' * self.depth}{self.name}:{' ' if self.value else ''}{self.value}"


@dataclass(frozen=True, slots=True)
class Message:
    """An alert as clean text, nothing escaped yet; all but `why`, `done` and `what_to_do` are one line.

    `label` is what stands before `what`; what is empty is not told.
    """

    severity: str
    label: str  # the severity and where the incident is, such as "CRITICAL, still open", or "RESOLVED"
    resolved: bool
    what: str
    why: str
    since: str
    done: str
    what_to_do: str
    numbers: tuple[Figure, ...]
    link: str  # an address as `safe_link` leaves it
    footer: str  # the day, the key that `trading-ops alerts show` takes, and how to acknowledge what is critical
    notice: str  # that it may have been told before

    @property
    def figures(self) -> str:
        """A line a number; of a digest as much as it takes to compare it."""
        return _DIGEST.sub("\\1…", self.all_figures)

    @property
    def all_figures(self) -> str:
        """A line a number, as it is."""
        return "\n".join(map(str, self.numbers))

    @property
    def sections(self) -> list[tuple[str, str]]:
        """What is told in words under a heading each, in the order in which people ask."""
        told = [("Why", self.why), ("Since", self.since), ("Done", self.done), ("What to do", self.what_to_do)]
        return [(heading, text) for heading, text in told if text]


def message_of(alert: Alert, *, possible_duplicate: bool, now: datetime | None = None) -> Message:
    """What a channel has to tell; how long an open incident lasts is counted to `now` (default: the present)."""
    numbers = list(islice(_figures(alert.numbers), LINES + 1))
    more = [Figure(0, "…", "")] if len(numbers) > LINES else []
    severity = one_line(str(alert.severity)) or "UNKNOWN"
    resolved = alert.step is Step.RESOLVED
    asked = alert.incident and alert.severity == Severity.CRITICAL and alert.step not in ANSWERED
    answer = f"acknowledge: {command('alerts ack', alert.incident)}" if asked else ""
    return Message(
        severity=severity,
        label="RESOLVED" if resolved else ", ".join(filter(None, (severity, STEPS.get(alert.step)))),
        resolved=resolved,
        what=one_line(alert.what) or "(no text)",
        why=clean(alert.why),
        since=_since(alert, now or datetime.now(UTC)),
        done=clean(alert.done),
        what_to_do=clean(alert.what_to_do),
        numbers=(*numbers[:LINES], *more),
        link=safe_link(alert.link or ""),
        footer=" · ".join(filter(None, (one_line(alert.day or ""), one_line(alert.dedup_key), answer))),
        notice="possible duplicate: this may have been told before" if possible_duplicate else "",
    )


def safe_link(text: str) -> str:
    """The address with every character escaped that markup could trip over; empty where it is not http or https.

    >>> safe_link("http://127.0.0.1:3000/runs/a b|c"), safe_link("javascript:alert(1)")
    ('http://127.0.0.1:3000/runs/a%20b%7Cc', '')
    """
    try:
        url = urlsplit(text)
        whole = url.scheme in ("http", "https") and bool(url.hostname) and "@" not in url.netloc
    except ValueError:
        return ""
    link = quote(text, safe=":/?#[]@!$&=+,;%~-._", errors="replace") if whole else ""
    return link if len(link) <= MOST_LINK else ""


def _since(alert: Alert, now: datetime) -> str:
    """When it began, to the minute, and how long ago that is; of what is over `why` says how long it lasted."""
    if not alert.since:
        return ""
    try:
        began = datetime.fromisoformat(alert.since)
        began = (began if began.tzinfo else began.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return one_line(alert.since)
    lasted = "" if alert.step is Step.RESOLVED else duration((now - began).total_seconds())
    return f"{began:%Y-%m-%d %H:%M} UTC{f', for {lasted}' if lasted else ''}"


def duration(seconds: float) -> str:
    """In the two largest units; empty below a minute.

    >>> duration(59), duration(7_800), duration(90_000)
    ('', '2 h 10 min', '1 d 1 h')
    """
    minutes = int(seconds // 60)
    if minutes < 1:
        return ""
    parts = ((minutes // 1440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min"))
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {unit}" for count, unit in parts[first : first + 2] if count)


def clean(text: str) -> str:
    """The text with every line end as a newline, and a replacement character for what nobody can see.

    >>> clean("up\\u202e\\0down\\r\\nnext")
    'up��down\\nnext'
    """
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", _LINE_ENDS.sub("\n", text[:LONGEST])).strip()


def one_line(text: str) -> str:
    """The clean text without line ends."""
    return " ".join(clean(text).split())


def short_key(key: str) -> str:
    """The key as any service takes it: a digest where it is long, empty or beyond ASCII, else as it is.

    >>> short_key("guard/rsi/2025-03-01")
    'guard/rsi/2025-03-01'
    """
    if key.strip() and len(key) <= MOST_KEY and key.isascii() and key.isprintable():
        return key
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


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


def _figures(numbers: Mapping[str, Any], depth: int = 0) -> Iterator[Figure]:
    """One a number, what is nested indented below the others; a list is counted and its beginning shown."""
    for key, value in sorted(numbers.items(), key=lambda item: isinstance(item[1], Mapping)):
        name = one_line(str(key))
        if isinstance(value, Mapping) and value:
            yield Figure(depth, name.replace("_", " "), "")
            yield from _figures(value, depth + 1)
        elif isinstance(value, Mapping | list | tuple) and not value:
            continue
        elif isinstance(value, int | float) and not isinstance(value, bool) and _finite(value):
            base, _, last = name.rpartition("_")
            unit = UNITS.get(last, "") if base else ""
            money = unit and last in ("usd", "usdt")
            shown = (
                _amount(value) if money else _percent(value) if last == "pct" and abs(value) < 1e4 else _shown(value)
            )
            yield Figure(depth, (base if unit else name).replace("_", " "), f"{shown}{unit}")
        else:
            yield Figure(depth, name.replace("_", " "), _shown(value))


def _finite(value: float) -> bool:
    """Whether it is a number that a person reads; a whole number beyond every float is none."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _amount(money: float) -> str:
    return f"{money:,.2f}" if abs(money) >= 0.1 or not money else f"{money:.2g}"


def _percent(value: float) -> str:
    """With two decimals, or two digits of what is less.

    >>> _percent(100 / 3), _percent(12.5), _percent(-0.01234)
    ('33.33', '12.5', '-0.012')
    """
    return f"{round(value, 2):.6g}" if abs(value) >= 0.1 or not value else f"{value:.2g}"


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "undefined"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.10g}"
    if isinstance(value, list | tuple):
        plain = [_shown(item) for item in value[:3]] if not any(isinstance(i, list | dict) for i in value[:3]) else []
        begins = ", ".join([*plain, *(["…"] if len(value) > 3 and plain else [])])
        return f"[{len(value)} items] {begins}".rstrip()
    return one_line(str(value))
