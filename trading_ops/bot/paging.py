"""Which trades closed in a period, however the bot cuts its list into pages, and did all of them come?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from trading_ops.bot.client import BotError, BotUnreachable
from trading_ops.bot.records import EARLIEST, TRADE_FIELDS, ClosedTrades, believe_trades, closed_at_of

PAGE = 1_000
MAX_LIMIT = 64_000
MAX_PAGES = 2_000
MAX_WALKS = 3
OVERLAP = timedelta(milliseconds=1)  # for a bot whose `since` is exclusive, or whose clock counts milliseconds


class Page(NamedTuple):
    """A list as it came; `has_more` and `total` (of the rows since `since`) where the bot says so."""

    rows: list[Any]
    has_more: bool | None = None
    total: int | None = None


Ask = Callable[[datetime, int], Page]


def read_trades(ask: Ask, start: datetime, end: datetime) -> ClosedTrades:
    """The trades closed in [start, end). `ask(since, limit)` fetches a page; what it raises passes through.

    A trade can move from the unread into the read part between two pages. So pages are walked again until a walk finds
    the same as the one before; where three do not agree, the latest version of each row counts and the list is not
    complete.
    """
    start = max(start, EARLIEST + OVERLAP)
    walks: list[_Walk] = []
    while len(walks) < MAX_WALKS:
        walk = _walked(ask, start, end)
        if (walk.news < 2 and not walks) or (walks and walk.agrees_with(walks[-1])):
            return believe_trades(list(walk.rows()), complete=walk.complete)
        walks.append(walk)
    return believe_trades(_latest(walks), complete=False)


@dataclass(slots=True)
class _Version:
    """Rows of one content, as often as they stood on one page, and the number of the page that showed them last."""

    closed_at: datetime | None
    rows: list[Any]
    page: int


@dataclass(slots=True)
class _Walk:
    """What one way through the pages showed: per trade (its id, else its content) the versions that were seen."""

    start: datetime
    end: datetime
    seen: dict[str, dict[str, _Version]] = field(default_factory=dict)
    news: int = 0  # pages that brought something
    reached: datetime | None = None  # the newest of all that was seen, in the period or not
    complete: bool = True

    def take(self, rows: list[Any], page: int) -> list[datetime]:
        """Keep the rows of the period and those without a time; the times that can be read, in the page's order."""
        times = []
        here: dict[tuple[str, str], _Version] = {}
        for row in rows:
            closed_at = closed_at_of(row)
            if closed_at is not None:
                times.append(closed_at)
                if not self.start <= closed_at < self.end:
                    continue
            here.setdefault(_key(row), _Version(closed_at, [], page)).rows.append(row)
        news = False
        for (identity, content), version in here.items():
            versions = self.seen.setdefault(identity, {})
            known = versions.pop(content, None)
            news = news or known is None
            if known is not None and len(known.rows) > len(version.rows):
                version.rows = known.rows  # the page cut the overlap; the repeated row is still there
            versions[content] = version
        self.news += news
        self.reached = max((t for t in (self.reached, *times) if t), default=None)
        return times

    def rows(self) -> Iterator[Any]:
        for versions in self.seen.values():
            for version in versions.values():
                yield from version.rows

    def agrees_with(self, earlier: _Walk) -> bool:
        """Whether nothing is new, changed or gone behind the point that the earlier walk reached."""
        return self._behind(earlier.reached) == earlier._behind(earlier.reached)

    def _behind(self, until: datetime | None) -> dict[tuple[str, str], int]:
        return {
            (identity, content): len(version.rows)
            for identity, versions in self.seen.items()
            for content, version in versions.items()
            if version.closed_at is None or until is None or version.closed_at < until
        }


def _newest(versions: dict[str, _Version]) -> dict[str, _Version]:
    last = max(version.page for version in versions.values())
    return {content: version for content, version in versions.items() if version.page == last}


def _latest(walks: list[_Walk]) -> list[Any]:
    """Every row that any walk saw, in its latest version; versions that two walks showed alike contradict each other
    and are all kept."""
    found: dict[str, dict[str, _Version]] = {}
    for before, walk in pairwise([None, *walks]):
        assert walk is not None
        for identity, versions in walk.seen.items():
            lasting = before is not None and versions.keys() == before.seen.get(identity, {}).keys()
            found[identity] = versions if lasting else _newest(versions)
    return [row for versions in found.values() for version in versions.values() for row in version.rows]


def _key(row: Any) -> tuple[str, str]:
    """What tells a row from others, and its content as far as it is read."""
    if isinstance(row, dict) and isinstance(row.get("trade_id"), str):
        read = {name: row[name] for name in TRADE_FIELDS if name in row}
        return f"id {row['trade_id']}", json.dumps(read, sort_keys=True)
    content = json.dumps(row, sort_keys=True)
    return f"row {content}", content


def _walked(ask: Ask, start: datetime, end: datetime) -> _Walk:
    """One way through the pages. `since` moves to the newest trade seen, as long as the list ascends from there."""
    walk = _Walk(start, end)
    reached: datetime | None = None
    limit = PAGE
    opening, largest = 0, 0  # sizes: of the page that begins at the start if it may be cut off, of any page
    forward = False  # a later page brought newer trades: so a cut page holds the oldest, not the newest
    for number in range(MAX_PAGES):
        since = (reached or start) - OVERLAP
        try:
            page = ask(since, limit)
        except BotError as error:
            if limit == PAGE or isinstance(error, BotUnreachable):
                raise
            break  # a larger limit is refused
        times, size = walk.take(page.rows, number), len(page.rows)
        cut = size == limit or _is_usual_cap(size) or page.has_more is True or (page.total or 0) > size
        cut = cut and page.has_more is not False
        if reached is None:
            opening = size if cut else 0
        elif not forward and times and since <= min(times) and reached < max(times):
            # They may have closed meanwhile: only a bot that keeps the oldest still leaves them out at the start.
            again = [t for r in ask(start - OVERLAP, limit).rows if (t := closed_at_of(r))] if opening else []
            forward = not opening or max(again, default=max(times)) < max(times)
        if page.has_more is False and (forward or not opening):
            return walk
        stuck = page.has_more is True or (cut and size >= largest) or (opening > 0 and not forward)
        match _judge(times, start, end, since, reached, cut=cut, stuck=stuck, forward=forward):
            case "whole":
                return walk
            case "on":
                reached = max(times)
            case "larger" if limit < MAX_LIMIT and (max(size, opening) == limit or page.has_more is True):
                limit, reached = limit * 4, reached if forward else None
            case _:
                break
        largest = max(largest, size)
    walk.complete = False
    return walk


def _judge(
    times: list[datetime],
    start: datetime,
    end: datetime,
    since: datetime,
    reached: datetime | None,
    *,
    cut: bool,
    stuck: bool,
    forward: bool,
) -> Literal["whole", "on", "larger"]:
    """What a page means: all is there, go on from its newest trade, or only a larger limit could show more.

    `cut`: the page may have been cut off. `stuck`: so may the list, if the page brings nothing newer than what was
    `reached`. `forward`: it is known that a cut page holds the oldest trades since `since`.
    """
    if not times:
        return "larger" if cut or stuck else "whole"
    oldest, newest = min(times), max(times)
    if any(a > b for a, b in pairwise(times)):
        newest_first = all(a >= b for a, b in pairwise(times))
        return "whole" if not cut or (newest_first and oldest < start) else "larger"
    if oldest < since:  # it ignores `since`: these are the oldest trades, the newest, or all
        return "whole" if not cut or (oldest < start and newest >= end) else "larger"
    if newest >= end and (forward or not stuck):
        return "whole"
    if reached is None or newest > reached:
        return "on"
    return "larger" if stuck else "whole"


def _is_usual_cap(size: int) -> bool:
    """50, 100, 200, 250, 500, 1000, 2000 and so on: where servers cut a list without saying so."""
    return size >= 50 and str(size).rstrip("0") in ("1", "2", "25", "5")
