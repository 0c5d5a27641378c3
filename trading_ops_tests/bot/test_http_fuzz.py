"""Whatever a bot's server answers: is it a valid record, a quarantined row with its reason, or a BotError?"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf, nan
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trading_ops.audit.chain import canonical_json
from trading_ops.bot.client import BotError
from trading_ops.bot.http import HttpBot
from trading_ops.bot.records import (
    EARLIEST,
    BotHealth,
    ClosedTrades,
    OpenOrder,
    OpenPosition,
    Portfolio,
    StrategyState,
    UsageStatistics,
)
from trading_ops_tests.bot.test_http import (
    ACCOUNT,
    CHART,
    HEALTH,
    ORDER,
    ORDERS,
    PORTFOLIO,
    POSITION,
    POSITIONS,
    RSI,
    STRATEGIES,
    USAGE,
    bar,
)
from trading_ops_tests.fakes import NO_USAGE, trade
from trading_ops_tests.servers.bot import CLOSED, Says, ScriptedServer, serving

NOW = datetime(2025, 3, 10, 12, 30, tzinfo=UTC)
FOREVER = (EARLIEST, datetime.max.replace(tzinfo=UTC))
DISABLE = f"{STRATEGIES}/rsi/disable"
MISSING = object()
TRADES = [trade(f"t{n}", f"2025-03-01T12:0{n}:00Z") | {"market": "spot", "position_id": "p"} for n in range(4)]


@dataclass(frozen=True)
class Endpoint:
    ask: Callable[[HttpBot], Any]
    good: list[dict[str, Any]]
    is_list: bool
    gives: type


ENDPOINTS = {
    CLOSED: Endpoint(lambda bot: bot.closed_trades(*FOREVER), TRADES, True, ClosedTrades),
    PORTFOLIO: Endpoint(HttpBot.portfolio, [ACCOUNT | {"equity_by_strategy": {"rsi": 1.0}}], False, Portfolio),
    HEALTH: Endpoint(
        HttpBot.health, [{"healthy": True, "detail": "", "now": 1_740_830_400_000, "label": "x"}], False, BotHealth
    ),
    USAGE: Endpoint(HttpBot.usage_statistics, [NO_USAGE], False, UsageStatistics),
    STRATEGIES: Endpoint(HttpBot.strategies, [RSI, RSI | {"name": "macd"}], True, StrategyState),
    POSITIONS: Endpoint(HttpBot.open_positions, [POSITION], True, OpenPosition),
    ORDERS: Endpoint(HttpBot.open_orders, [ORDER], True, OpenOrder),
    CHART: Endpoint(
        lambda bot: bot.candles("BTCUSDT", NOW - timedelta(hours=12), NOW), [bar(0), bar(1)], True, pd.DataFrame
    ),
    DISABLE: Endpoint(
        lambda bot: bot.disable_strategy("rsi", reason="r", idempotency_key="k"), [RSI], False, StrategyState
    ),
}


def deep(levels: int) -> Any:
    return [deep(levels - 1)] if levels else {"a": 1}


special = st.sampled_from([
    nan, inf, -inf, -1, -0.0, 0, 10**18, 10**40, -(10**400), 1e308, "", " ", "\ud800", "\x00\u202e\U0001f4a5", "NaN",
    "1.5", "2025-03-01T12:00:00", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "x" * 300, 1_740_830_400,
    [], {}, [[]], {"value": 1.0}, {"success": True, "data": []}, deep(45), deep(60), True, None,
])  # fmt: skip
junk = special | st.integers() | st.floats() | st.text(max_size=6)


def mutated(good: dict[str, Any]) -> st.SearchStrategy[str]:
    """The record as JSON with up to three fields spoilt or missing, and now and then one said twice."""

    def apply(changes: dict[str, Any], twice: bool) -> str:
        row = {name: value for name, value in {**good, **changes}.items() if value is not MISSING}
        text = json.dumps(row)
        return f'{{"{next(iter(good))}": 1, {text[1:]}' if twice and row else text

    fields = st.dictionaries(st.sampled_from(sorted(good)), st.just(MISSING) | junk, max_size=3)
    return st.builds(apply, fields, st.integers(0, 19).map(lambda n: n == 7))


def row_of(endpoint: Endpoint) -> st.SearchStrategy[str]:
    good = st.sampled_from(endpoint.good)
    return st.one_of(
        good.map(json.dumps), good.map(json.dumps), good.flatmap(mutated), good.flatmap(mutated), junk.map(json.dumps)
    )


FORMS = {  # %s is the payload, %n its name
    "bare": "%s",
    "wrapped": '{"success": true, "data": %s, "timestamp": 1}',
    "named": '{"%n": %s, "total": 2, "has_more": false}',
    "wrapped and named": '{"success": true, "data": {"%n": %s}, "has_more": "perhaps"}',
}
NAMES = {STRATEGIES: "strategies", ORDERS: "orders", CHART: "candles"}
SPOILT = [
    '{"success": false, "data": %s}', '{"success": "yes", "data": %s}', '{"data": %s}',
    '{"success": true, "data": [%s]}',
    '{"success": true, "success": true, "data": %s}', "%s%s", "%s,", "\ufeff%s", "{%s}", "<html>%s</html>", "",
]  # fmt: skip


@dataclass(frozen=True)
class Example:
    path: str
    says: Says
    rows: int | None  # of a list in one of the forms that must be read


@st.composite
def examples(draw: st.DrawFn) -> Example:
    path = draw(st.sampled_from([CLOSED, CLOSED, CLOSED, *ENDPOINTS]))
    endpoint = ENDPOINTS[path]
    rows = draw(st.lists(row_of(endpoint), max_size=6))
    if rows and draw(st.booleans()):
        rows.append(draw(st.sampled_from(rows)))
    payload = f"[{', '.join(rows)}]" if endpoint.is_list else (rows[0] if rows else "{}")
    forms = list(FORMS.values())[: 4 if endpoint.is_list else 2]
    form = draw(st.sampled_from([*forms * 8, *SPOILT]))
    body = form.replace("%n", NAMES.get(path, "trades")).replace("%s", payload).encode()
    status = draw(st.sampled_from([200] * 60 + [201, 202, 302, 400, 401, 404, 422]))
    kind = draw(st.sampled_from(["application/json"] * 40 + ["text/html", "application/json; charset=utf-8", "", "x"]))
    if draw(st.integers(0, 19)) == 7:
        cut = draw(st.integers(0, len(body)))
        body = body[:cut] + draw(st.binary(max_size=4)) + body[cut:]
        form = ""
    fine = form in FORMS.values() and status == 200 and kind.startswith("application/json") and "[" * 47 not in payload
    return Example(path, Says(body, status, content_type=kind), len(rows) if fine and path == CLOSED else None)


class Fuzz:
    def __init__(self, server: ScriptedServer, bot: HttpBot) -> None:
        self.server, self.bot = server, bot
        self.seen: Counter[str] = Counter()

    def check(self, example: Example) -> None:
        """A valid answer in which no row is lost, or a BotError of one readable line; anything else fails."""
        self.server.script = {
            HEALTH: {"healthy": True},
            STRATEGIES: [RSI | {"enabled": False}],
            example.path: example.says,
        }
        self.server.asked.clear()
        endpoint = ENDPOINTS[example.path]
        answer = self.ask(endpoint)
        if isinstance(answer, BotError):
            self.seen["refused"] += 1
            said = str(answer)
            assert example.rows is None, f"a list that can be read was refused: {said}"
            assert said
            assert "\n" not in said
            canonical_json({"error": said})
            return
        for given_back in answer if isinstance(answer, list) else [answer]:
            assert isinstance(given_back, endpoint.gives)
        self.seen["answered"] += 1
        if isinstance(answer, ClosedTrades):
            self.check_trades(answer, example.rows)
        if isinstance(answer, pd.DataFrame):
            assert (answer > 0).to_numpy().all()
            assert answer.index.is_unique

    def ask(self, endpoint: Endpoint) -> Any:
        try:
            return endpoint.ask(self.bot)
        except BotError as error:
            return error

    def check_trades(self, closed: ClosedTrades, rows: int | None) -> None:
        if rows is not None:
            assert len(closed.frame) + len(closed.quarantined) + len(closed.duplicates) == rows
            self.seen["rows"] += rows
        self.seen["believed"] += len(closed.frame)
        self.seen["quarantined"] += len(closed.quarantined)
        self.seen["duplicates"] += len(closed.duplicates)
        assert closed.frame["trade_id"].is_unique
        for quarantined in closed.quarantined:
            assert quarantined.reason
            assert "\n" not in quarantined.reason
            canonical_json({"row": quarantined.row, "reason": quarantined.reason})


@pytest.fixture(scope="module")
def fuzz() -> Iterator[Fuzz]:
    server = ScriptedServer()
    with serving(server) as url:
        yield Fuzz(server, HttpBot(url, timeout_s=5.0, now=lambda: NOW))


def run(fuzz: Fuzz, count: int) -> None:
    fuzz.seen.clear()

    @settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(examples())
    def check(example: Example) -> None:
        fuzz.check(example)

    check()
    for outcome in ("refused", "answered", "rows", "believed", "quarantined", "duplicates"):
        assert fuzz.seen[outcome] >= count / 50, fuzz.seen


def test_whatever_the_bot_answers_is_a_record_a_quarantined_row_or_a_bot_error(fuzz: Fuzz):
    run(fuzz, 300)


@pytest.mark.chaos
def test_ten_thousand_answers_are_records_quarantined_rows_or_bot_errors(fuzz: Fuzz):
    run(fuzz, 10_000)
    print(dict(fuzz.seen))  # noqa: T201
