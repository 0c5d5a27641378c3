"""Does the bot behind a REST interface answer the protocol's questions, whatever its server and the network do?"""

from __future__ import annotations

import gzip
import inspect
import json
import logging
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from trading_ops.bot.client import Bot, BotError, BotUnreachable, Calendar, UnknownStrategy
from trading_ops.bot.http import HttpBot
from trading_ops.bot.records import InvalidRecord
from trading_ops.bot.transport import MAX_BYTES, retry_after
from trading_ops.portfolio.equity import daily_equity
from trading_ops_tests.fakes import NO_USAGE, trade
from trading_ops_tests.servers.bot import (
    CLOSED,
    Asked,
    Says,
    ScriptedServer,
    Turns,
    drip,
    make_authority,
    raw_server,
    serving,
)

NOW = datetime(2025, 3, 10, 12, 30, tzinfo=UTC)
DAY = (datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 3, 2, tzinfo=UTC))
HEALTH, PORTFOLIO, STRATEGIES = "/api/health", "/api/paper-trading/portfolio", "/api/strategies"
POSITIONS, ORDERS, USAGE = "/api/paper-trading/trades/open", "/api/paper-trading/orders/open", "/ai/cost/statistics"
CHART = "/api/market/chart/BTCUSDT/1h"
TOKEN = "s3cret-token-of-the-bot"
ACCOUNT = {
    "initial_usdt": 1000.0, "balance_usdt": 1100.0, "equity_usdt": 1090.0, "total_return_pct": 9.0, "total_trades": 3,
    "winning_trades": 2,
}  # fmt: skip
POSITION = {
    "position_id": "p1", "strategy": "rsi", "symbol": "BTCUSDT", "side": "long", "quantity": 2.0, "entry_price": 100.0,
    "mark_price": 101.0, "opened_at": "2025-03-01T10:00:00Z", "unrealised_usdt": 1.0,
}  # fmt: skip
ORDER = {
    "order_id": "o1", "strategy": "rsi", "symbol": "BTCUSDT", "intent": "entry", "created_at": "2025-03-01T12:00:00Z"
}  # fmt: skip
RSI = {"name": "rsi", "enabled": True, "allocated_usdt": 500.0}
MACD = {"name": "macd", "enabled": False}


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[ScriptedServer, str]]:
    server = ScriptedServer()
    with serving(server) as url:
        yield server, url


@pytest.fixture
def server(address: tuple[ScriptedServer, str]) -> ScriptedServer:
    server, _ = address
    server.script = {HEALTH: {"healthy": True}, STRATEGIES: [RSI, MACD]}
    server.asked.clear()
    return server


@pytest.fixture
def bot(address: tuple[ScriptedServer, str]) -> HttpBot:
    return HttpBot(address[1], token=TOKEN, now=lambda: NOW)


@pytest.mark.parametrize("name", [name for name in vars(Bot) if not name.startswith("_")])
def test_every_method_of_the_protocol_is_there_with_its_parameters(name: str):
    promised, given = getattr(Bot, name), getattr(HttpBot, name)
    assert isinstance(promised, property) == isinstance(given, property)
    if not isinstance(promised, property):
        assert inspect.signature(given).parameters.keys() == inspect.signature(promised).parameters.keys()


# what it answers


def bare(payload: Any) -> Any:
    return payload


def wrapped(payload: Any) -> Any:
    return {"success": True, "data": payload, "timestamp": "2025-03-10T12:30:00Z"}


@pytest.mark.parametrize("wrap", [bare, wrapped])
def test_B024_every_answer_is_read_bare_or_wrapped(server: ScriptedServer, bot: HttpBot, wrap: Any):
    server.script = {
        HEALTH: wrap({"healthy": False, "detail": "stale"}),
        PORTFOLIO: wrap(ACCOUNT),
        STRATEGIES: wrap([RSI, MACD]),
        POSITIONS: wrap([POSITION]),
        ORDERS: wrap([ORDER]),
        USAGE: wrap({**NO_USAGE, "total_requests": 7}),
        CLOSED: wrap([trade("t1", "2025-03-01T12:00:00Z")]),
    }
    assert (bot.health().healthy, bot.health().detail) == (False, "stale")
    assert (bot.portfolio().equity_usdt, bot.portfolio().winning_trades) == (1090.0, 2)
    assert [(s.name, s.enabled, s.allocated_usdt) for s in bot.strategies()] == [
        ("rsi", True, 500.0),
        ("macd", False, None),
    ]
    assert [p.position_id for p in bot.open_positions()] == ["p1"]
    assert [o.intent for o in bot.open_orders()] == ["entry"]
    assert bot.usage_statistics().total_requests == 7
    assert bot.closed_trades(*DAY).frame["trade_id"].tolist() == ["t1"]


@pytest.mark.parametrize("form", ["list", "wrapped", "named", "wrapped and named"])
def test_B061_fifty_wrapped_trades_are_fifty_trades(server: ScriptedServer, bot: HttpBot, form: str):
    rows: Any = [trade(f"t{n}", f"2025-03-01T12:{n:02}:00Z") for n in range(50)]
    rows = {"trades": rows, "total": 50} if "named" in form else rows
    server.script[CLOSED] = wrapped(rows) if "wrapped" in form else rows
    assert len(bot.closed_trades(*DAY).frame) == 50


def test_B023_an_empty_object_is_no_account_of_zero(server: ScriptedServer, bot: HttpBot):
    for empty in ({}, wrapped({}), wrapped(None), None, []):
        server.script[PORTFOLIO] = empty
        with pytest.raises(InvalidRecord, match=r"/api/paper-trading/portfolio: Portfolio: .*"):
            bot.portfolio()
    server.script[PORTFOLIO] = {}
    with pytest.raises(InvalidRecord, match="equity_usdt: Field required"):
        bot.portfolio()


def test_B028_more_wins_than_trades_are_refused(server: ScriptedServer, bot: HttpBot):
    server.script[PORTFOLIO] = ACCOUNT | {"total_trades": 2, "winning_trades": 3}
    with pytest.raises(InvalidRecord, match="winning_trades 3 exceeds total_trades 2"):
        bot.portfolio()


def test_B029_a_loss_keeps_its_sign(server: ScriptedServer, bot: HttpBot):
    server.script[PORTFOLIO] = ACCOUNT | {"total_return_pct": -5.0, "total_trades": 10}
    assert (bot.portfolio().total_return_pct, bot.portfolio().total_trades) == (-5.0, 10)


def test_B031_a_server_error_is_no_answer(server: ScriptedServer, bot: HttpBot):
    server.script[PORTFOLIO] = Says({"error": "database is locked"}, 500)
    with pytest.raises(BotUnreachable, match=r"portfolio: 500, database is locked \(3 attempts\)"):
        bot.portfolio()
    assert server.paths() == [PORTFOLIO] * 3


def test_success_false_is_an_error_also_with_status_200(server: ScriptedServer, bot: HttpBot):
    for reply, words in (
        ({"success": False, "error": "engine\n stopped"}, "engine stopped"),
        ({"success": False, "message": {"detail": "no"}, "data": ACCOUNT}, "it failed: no"),
        ({"success": False}, "does not say why"),
    ):
        server.script[PORTFOLIO] = reply
        with pytest.raises(BotError, match=words) as caught:
            bot.portfolio()
        assert not isinstance(caught.value, BotUnreachable)
    server.script[PORTFOLIO] = {"success": False, "error": "x" * 5_000}
    with pytest.raises(BotError) as caught:
        bot.portfolio()
    assert len(str(caught.value)) < 300
    server.script[PORTFOLIO] = {"success": "false", "data": ACCOUNT}
    with pytest.raises(InvalidRecord, match="success: 'false', true or false is needed"):
        bot.portfolio()


def test_the_account_is_of_now_where_the_bot_does_not_say(server: ScriptedServer, bot: HttpBot):
    server.script[PORTFOLIO] = ACCOUNT
    assert bot.portfolio().as_of == NOW
    server.script[PORTFOLIO] = ACCOUNT | {"as_of": "2025-03-10T17:45:00+05:45"}
    assert bot.portfolio().as_of == datetime(2025, 3, 10, 12, tzinfo=UTC)


@pytest.mark.parametrize("written", ["2025-03-01T07:00:00-05:00", 1_740_830_400_000, 1_740_830_400, "1740830400000"])
def test_B134_any_offset_and_any_epoch_is_one_instant(server: ScriptedServer, bot: HttpBot, written: Any):
    server.script[CLOSED] = [trade("t1", "2025-03-01T12:00:00Z") | {"closed_at": written}]
    assert bot.closed_trades(*DAY).frame["closed_at"].tolist() == [pd.Timestamp("2025-03-01T12:00:00Z")]


def test_B134_a_trade_belongs_to_its_utc_day(server: ScriptedServer, bot: HttpBot):
    server.script[CLOSED] = [trade("t1", "2026-03-29T23:30:00-05:00")]
    the_30th = datetime(2026, 3, 30, tzinfo=UTC)
    assert len(bot.closed_trades(the_30th, the_30th + timedelta(days=1)).frame) == 1
    assert len(bot.closed_trades(the_30th - timedelta(days=1), the_30th).frame) == 0


def test_a_naive_time_is_refused_with_the_reason(server: ScriptedServer, bot: HttpBot):
    server.script[ORDERS] = [ORDER | {"created_at": "2025-03-01T12:00:00"}]
    with pytest.raises(InvalidRecord, match=r"row 0: OpenOrder: created_at: '2025-03-01T12:00:00'.*timezone"):
        bot.open_orders()
    server.script[CLOSED] = [trade("t1", "2025-03-01T12:00:00")]
    (quarantined,) = bot.closed_trades(*DAY).quarantined
    assert "timezone" in quarantined.reason
    naive = datetime(2025, 3, 1)  # noqa: DTZ001
    with pytest.raises(BotError, match=r"start 2025-03-01 00:00:00 has no time zone"):
        bot.closed_trades(naive, NOW)


def test_what_must_be_there_once_is_refused_twice(server: ScriptedServer, bot: HttpBot):
    server.script = {STRATEGIES: [RSI, MACD, RSI], POSITIONS: [POSITION, POSITION], ORDERS: [ORDER, ORDER]}
    for question, named in (
        (bot.strategies, "name: 'rsi' appears 2 times"),
        (bot.open_positions, "position_id: 'p1'"),
        (bot.open_orders, "order_id: 'o1'"),
    ):
        with pytest.raises(InvalidRecord, match=named):
            question()


@pytest.mark.parametrize("path", [PORTFOLIO, STRATEGIES, POSITIONS, ORDERS, USAGE, CLOSED, CHART])
def test_what_the_bot_does_not_offer_is_said(server: ScriptedServer, bot: HttpBot, path: str):
    server.script = {HEALTH: {"healthy": True}}
    with pytest.raises(BotError, match=f"{path}: 404, Not Found; the bot does not offer this") as caught:
        ask(bot, path)
    assert not isinstance(caught.value, BotUnreachable)


def ask(bot: HttpBot, path: str) -> Any:
    return {
        HEALTH: bot.health,
        PORTFOLIO: bot.portfolio,
        STRATEGIES: bot.strategies,
        POSITIONS: bot.open_positions,
        ORDERS: bot.open_orders,
        USAGE: bot.usage_statistics,
        CLOSED: lambda: bot.closed_trades(*DAY),
        CHART: lambda: bot.candles("BTCUSDT", NOW - timedelta(hours=3), NOW),
    }[path]()


# which bot it is, and its days


def test_the_label_is_asked_once_and_live_where_the_bot_has_none(server: ScriptedServer, address: Any):
    server.script[HEALTH] = {"healthy": True, "label": "recorded"}
    bot = HttpBot(address[1])
    assert (bot.label, bot.label, server.paths()) == ("recorded", "recorded", [HEALTH])
    server.script[HEALTH] = {"healthy": True}
    assert HttpBot(address[1]).label == "live"
    with pytest.raises(BotUnreachable):
        _ = HttpBot(refusing()).label


def test_the_source_is_known_without_the_network_and_the_same_for_one_address():
    source = HttpBot("http://bot.example:80/engine/").source
    assert source == HttpBot(" HTTP://BOT.example/engine").source
    assert source.startswith("http-")
    assert len(source) == 17
    others = ["https://bot.example/engine", "http://bot.example/", "http://bot.example:81/engine"]
    assert len({source, *(HttpBot(url).source for url in others)}) == 4


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://user:hunter2hunter2@bot:8900", "TRADING_OPS_BOT_TOKEN"),
        ("http://hunter2hunter2@bot", "TRADING_OPS_BOT_TOKEN"),
        ("https://bot/?token=hunter2hunter2", "without a query"),
        ("ftp://bot", "must be like"),
        ("bot:8900", "must be like"),
        ("http://", "must be like"),
        ("", "must be like"),
        ("http://bot:99999", "no address"),
        ("http://[::1", "no address"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_and_its_password_not_shown(url: str, why: str):
    with pytest.raises(BotError, match=f"TRADING_OPS_BOT_URL.*{why}") as caught:
        HttpBot(url)
    assert "hunter2" not in str(caught.value)


def test_the_days_are_those_since_the_setting_to_the_day_before_the_bots_clock(server: ScriptedServer, address: Any):
    bot = HttpBot(address[1], since=date(2025, 1, 1), now=lambda: NOW)
    old, fresh = "2025-03-08T12:29:00Z", "2025-03-08T12:31:00Z"
    for health, last, live in (
        ({}, date(2025, 3, 9), True),
        ({"last_candle_at": fresh}, date(2025, 3, 9), True),
        ({"last_candle_at": old}, date(2025, 3, 9), False),
        ({"now": fresh}, date(2025, 3, 7), True),
        ({"now": "2025-02-01T00:00:00Z", "last_candle_at": fresh}, date(2025, 1, 31), False),
    ):
        server.script[HEALTH] = {"healthy": True, **health}
        assert bot.calendar() == Calendar(date(2025, 1, 1), last, live), health
    assert bot.now() == datetime(2025, 2, 1, tzinfo=UTC)
    server.script[HEALTH] = {"healthy": True}
    assert bot.now() == NOW
    with pytest.raises(BotError, match="TRADING_OPS_BOT_SINCE: 2025-03-10 is after the bot's last complete day"):
        HttpBot(address[1], since=date(2025, 3, 10), now=lambda: NOW).calendar()


def test_the_equity_of_the_past_is_unknown_to_it(bot: HttpBot):
    history = bot.equity_history(*DAY)
    assert history.equity.empty
    daily = daily_equity(history, date(2025, 3, 1), date(2025, 3, 3))
    assert daily.equity["portfolio"].isna().tolist() == [True] * 3


# candles


def bar(hour: int, **changes: Any) -> dict[str, Any]:
    at = datetime(2025, 3, 10, tzinfo=UTC) + timedelta(hours=hour)
    return {"time": at.isoformat(), "open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 5.0, **changes}


def test_candles_come_as_a_candle_frame_of_the_complete_bars_in_the_period(server: ScriptedServer, bot: HttpBot):
    server.script[CHART] = wrapped([bar(hour) for hour in range(13)])
    frame = bot.candles("BTCUSDT", NOW.replace(hour=9, minute=0), NOW.replace(hour=11, minute=0))
    assert [time.hour for time in frame.index] == [9, 10]
    assert (str(frame.index.dtype), frame.index.name) == ("datetime64[us, UTC]", "time")
    assert frame.dtypes.astype(str).to_dict() == dict.fromkeys(("open", "high", "low", "close", "volume"), "float64")
    assert frame.iloc[0].tolist() == [10.0, 12.0, 9.0, 11.0, 5.0]
    assert [t.hour for t in bot.candles("BTCUSDT", NOW - timedelta(hours=2), NOW + timedelta(days=1)).index] == [11]
    assert server.asked[1].query == {"limit": "5"}, "9:00 to 12:30, and one to spare"


@pytest.mark.parametrize(
    "row",
    [
        {"timestamp": 1_741_564_800_000, "open": "10", "high": "12.0", "low": "9", "close": "11", "volume": "5"},
        {"open_time": 1_741_564_800, "open": 10, "high": 12, "low": 9, "close": 11, "volume": 5},
        [1_741_564_800_000, "10", "12", "9", "11", "5", 1_741_568_399_999, "55", 3, "2", "20", "0"],
        ["2025-03-10T01:00:00+01:00", 10, 12, 9, 11, 5],
    ],
    ids=["text", "seconds", "a list as Binance sends it", "a list with another offset"],
)
def test_every_form_of_a_bar_is_read(server: ScriptedServer, bot: HttpBot, row: Any):
    for reply in ([row], {"candles": [row]}):
        server.script[CHART] = reply
        frame = bot.candles("BTCUSDT", datetime(2025, 3, 10, tzinfo=UTC), NOW)
        assert frame.index.tolist() == [pd.Timestamp("2025-03-10T00:00:00Z")]
        assert frame.iloc[0].tolist() == [10.0, 12.0, 9.0, 11.0, 5.0]


@pytest.mark.parametrize(
    ("bars", "why"),
    [
        ([bar(1), bar(0)], "follows the later 2025-03-10 01:00"),
        ([bar(0), bar(0)], "appears twice"),
        ([bar(0, high=10.5)], "bar 0: Bar: 2025-03-10 00:00.* not within 9.0 to 10.5"),
        ([bar(0), bar(1, low=0)], "bar 1: Bar: low: 0, "),
        ([bar(0, close="nan")], "close: nan"),
        ([bar(0, close="ten")], "close: 'ten' is no number"),
        ([bar(0, volume=-1)], "volume: -1, "),
        ([bar(0, volume=True)], "volume: True, "),
        ([bar(0.5)], "not on the hour"),
        ([bar(0, time="2025-03-10T00:00:00")], "time: .*timezone"),
        ([[1, 2, 3]], "bar 0: Bar: "),
        ({"bars": []}, "a list of candles is needed"),
        ([], "no bars of BTCUSDT"),
        ([bar(3)], "begin at 2025-03-10 03:00:00.00:00, not at 2025-03-10 00:00"),
    ],
)
def test_bars_that_cannot_be_are_refused(server: ScriptedServer, bot: HttpBot, bars: Any, why: str):
    server.script[CHART] = bars
    with pytest.raises(BotError, match=why):
        bot.candles("BTCUSDT", datetime(2025, 3, 10, tzinfo=UTC), NOW)


def test_a_symbol_cannot_lead_elsewhere(server: ScriptedServer, bot: HttpBot):
    period = (datetime(2025, 3, 10, tzinfo=UTC), NOW)
    for symbol in ("BTC/USDT", "../../strategies", "a?b#c", "ü %2F"):
        with pytest.raises(BotError, match="404"):
            bot.candles(symbol, *period)
    assert [path for path in server.paths() if path != HEALTH] == [
        "/api/market/chart/BTC%2FUSDT/1h",
        "/api/market/chart/..%2F..%2Fstrategies/1h",
        "/api/market/chart/a%3Fb%23c/1h",
        "/api/market/chart/%C3%BC%20%252F/1h",
    ]
    for symbol in ("", ".", "..", "\ud800"):
        with pytest.raises(BotError, match="cannot be part of an address"):
            bot.candles(symbol, *period)
    with pytest.raises(BotError, match="swap start and end"):
        bot.candles("BTCUSDT", NOW, DAY[0])


# strategies


def disabled(name: str = "rsi") -> list[dict[str, Any]]:
    return [{"name": name, "enabled": False, "reason": "bleeds"}, MACD]


def test_a_strategy_is_stopped_and_the_list_says_so(server: ScriptedServer, bot: HttpBot):
    server.script[STRATEGIES] = Turns([RSI, MACD], disabled())
    server.script[f"{STRATEGIES}/rsi/disable"] = {"success": True}
    state = bot.disable_strategy("rsi", reason="blutet \ud800 ü", idempotency_key="key-1")
    assert (state.name, state.enabled, state.reason) == ("rsi", False, "bleeds")
    (asked,) = [a for a in server.asked if a.method == "POST"]
    assert (asked.path, asked.headers["idempotency-key"]) == (f"{STRATEGIES}/rsi/disable", "key-1")
    assert json.loads(asked.body) == {"reason": "blutet \ud800 ü"}
    server.script[STRATEGIES] = Turns(disabled(), [RSI, MACD])
    server.script[f"{STRATEGIES}/rsi/enable"] = Says(b"", 204)
    assert bot.enable_strategy("rsi", reason="fixed", idempotency_key="key-2").enabled


def test_the_list_may_need_a_moment(server: ScriptedServer, bot: HttpBot):
    server.script[STRATEGIES] = Turns([RSI], [RSI], [RSI], [RSI], disabled())
    server.script[f"{STRATEGIES}/rsi/disable"] = {"success": True}
    assert not bot.disable_strategy("rsi", reason="r", idempotency_key="k").enabled
    assert len(server.paths()) == 5


def test_a_bot_that_says_yes_and_does_nothing_is_not_believed(server: ScriptedServer, address: Any):
    bot = HttpBot(address[1], timeout_s=0.5)
    server.script[f"{STRATEGIES}/rsi/disable"] = {"success": True, "data": {"name": "rsi", "enabled": False}}
    with pytest.raises(BotError, match="rsi is not confirmed to be disabled: the bot's list does not show it"):
        bot.disable_strategy("rsi", reason="r", idempotency_key="k")
    server.script[STRATEGIES] = Turns([RSI], [MACD])
    with pytest.raises(BotError, match="not confirmed"):
        bot.disable_strategy("rsi", reason="r", idempotency_key="k")


@pytest.mark.parametrize(
    "failure", [Says({}, 500), Says({}, 409), {"success": False, "error": "already"}], ids=["500", "409", "no success"]
)
def test_a_stop_that_seems_to_fail_counts_where_the_list_shows_it(server: ScriptedServer, bot: HttpBot, failure: Any):
    server.script[STRATEGIES] = Turns([RSI], disabled())
    server.script[f"{STRATEGIES}/rsi/disable"] = failure
    assert not bot.disable_strategy("rsi", reason="r", idempotency_key="k").enabled


def test_a_stop_that_fails_says_why(server: ScriptedServer, bot: HttpBot):
    server.script[f"{STRATEGIES}/rsi/disable"] = {"success": False, "error": "positions are open"}
    with pytest.raises(BotError, match=r"not confirmed to be disabled: the request failed: .*positions are open"):
        bot.disable_strategy("rsi", reason="r", idempotency_key="k")
    server.script[STRATEGIES] = Turns([RSI], Says({}, 503))
    with pytest.raises(BotUnreachable, match=r"rsi may or may not be disabled: .*positions are open"):
        bot.disable_strategy("rsi", reason="r", idempotency_key="k")
    server.script[STRATEGIES] = Turns([RSI], Says({}, 403))
    with pytest.raises(BotError, match="may or may not") as caught:
        bot.disable_strategy("rsi", reason="r", idempotency_key="k")
    assert not isinstance(caught.value, BotUnreachable)


def test_a_request_sent_again_carries_the_same_key(server: ScriptedServer, bot: HttpBot):
    server.script[STRATEGIES] = Turns([RSI], disabled())
    server.script[f"{STRATEGIES}/rsi/disable"] = Turns(Says({}, 503), Says({}, 429), {"success": True})
    bot.disable_strategy("rsi", reason="r", idempotency_key="key-7")
    assert [a.headers["idempotency-key"] for a in server.asked if a.method == "POST"] == ["key-7"] * 3


def test_an_unknown_strategy_is_refused_before_it_is_asked_for(server: ScriptedServer, bot: HttpBot):
    for name in ("nope", "", "RSI", "rsi/../macd"):
        with pytest.raises(UnknownStrategy, match="is unknown; there are rsi, macd"):
            bot.disable_strategy(name, reason="r", idempotency_key="k")
    assert server.paths("POST") == []
    for key in ("", "two words", "new\nline", "schlüssel"):
        with pytest.raises(BotError, match="idempotency key"):
            bot.disable_strategy("rsi", reason="r", idempotency_key=key)
    assert server.paths("POST") == []


def test_a_strategys_name_is_one_segment_of_the_path(server: ScriptedServer, bot: HttpBot):
    name = "a/b ?#%2F.ü"
    server.script[STRATEGIES] = Turns([RSI | {"name": name}], disabled(name))
    bot.disable_strategy(name, reason="r", idempotency_key="k")
    assert server.paths("POST") == ["/api/strategies/a%2Fb%20%3F%23%252F.%C3%BC/disable"]
    server.script[STRATEGIES] = [RSI | {"name": ".."}]
    with pytest.raises(BotError, match=r"strategy '\.\.' cannot be part of an address"):
        bot.disable_strategy("..", reason="r", idempotency_key="k")


# the network


def refusing() -> str:
    """An address where nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"http://127.0.0.1:{listening.getsockname()[1]}"


def answer(body: bytes, length: int | None = None) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


def test_nobody_there_is_told_with_what_to_do():
    with pytest.raises(
        BotUnreachable, match=r"refused.*is the bot running and TRADING_OPS_BOT_URL right\?.*3 attempts"
    ):
        HttpBot(refusing()).health()
    with pytest.raises(BotUnreachable):
        HttpBot("http://no-such-host.invalid").health()


def test_what_passes_is_tried_again_and_what_does_not_is_not(server: ScriptedServer, bot: HttpBot):
    server.script[HEALTH] = Turns(Says({}, 503), Says({}, 429), {"healthy": True})
    assert bot.health().healthy
    assert len(server.asked) == 3
    for status in (400, 401, 404, 409, 422):
        server.asked.clear()
        server.script[HEALTH] = Turns(Says({}, status), {"healthy": True})
        with pytest.raises(BotError, match=str(status)):
            bot.health()
        assert len(server.asked) == 1


def test_a_broken_connection_is_tried_again():
    good = answer(b'{"healthy": true}')

    def behave(connection: socket.socket, number: int) -> None:
        if number == 1:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset, not an end
        elif number == 2:
            connection.sendall(good[:-5])
        else:
            connection.sendall(good)

    with raw_server(behave) as (url, connections):
        assert HttpBot(url).health().healthy
        assert len(connections) == 3


@pytest.mark.parametrize("garbage", [b"", b"SMTP ready\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
def test_what_is_no_http_is_no_answer(garbage: bytes):
    with raw_server(lambda connection, _: connection.sendall(garbage)) as (url, _), pytest.raises(BotUnreachable):
        HttpBot(url).health()


@pytest.mark.parametrize("part", ["head", "body", "chunks", "silence"])
def test_a_bot_that_drips_its_answer_hangs_nobody(part: str):
    """Each would be a good answer a minute later, and no pause in it is as long as the time allowed."""
    head, body = answer(b'{"healthy": true}').split(b"\r\n\r\n")
    sent: list[int] = []

    def behave(connection: socket.socket, _: int) -> None:
        if part == "silence":
            threading.Event().wait(60)
        elif part == "chunks":
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            drip(connection, b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n", 0.2, sent)
        elif part == "head":
            drip(connection, head + b"\r\n\r\n" + body, 0.2, sent)
        else:
            connection.sendall(head + b"\r\n\r\n")
            drip(connection, body, 0.2, sent)

    with raw_server(behave) as (url, connections):
        with pytest.raises(BotUnreachable, match=r"no whole answer within 0.4 s \(3 attempts\)"):
            HttpBot(url, timeout_s=0.4).health()
        assert len(connections) == 3
    assert len(sent) <= 3 * 5, "each attempt ended after two or three bytes"


def test_a_connection_that_was_closed_meanwhile_is_no_trouble():
    with raw_server(lambda connection, _: connection.sendall(answer(b'{"healthy": true}'))) as (url, connections):
        bot = HttpBot(url)
        assert all(bot.health().healthy for _ in range(5))
        assert len(connections) >= 5


def test_an_answer_without_end_is_refused(server: ScriptedServer, bot: HttpBot):
    server.script[HEALTH] = Says(b'{"healthy": true}' + b" " * MAX_BYTES)
    with pytest.raises(BotError, match="larger than 64 MiB"):
        bot.health()
    bomb = gzip.compress(b'{"healthy": true}' + b" " * MAX_BYTES, 9)
    server.script[HEALTH] = Says(bomb, headers={"content-encoding": "gzip"})
    with pytest.raises(BotError, match="larger than 64 MiB"):
        bot.health()
    server.script[HEALTH] = Says(gzip.compress(b'{"healthy": true}'), headers={"content-encoding": "gzip"})
    assert bot.health().healthy
    server.script[HEALTH] = Says(b"not gzip", headers={"content-encoding": "gzip"})
    with pytest.raises(BotError):
        bot.health()


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0), ("0", 0.0), ("31", 30.0), ("9" * 400, 30.0), ("Mon, 10 Mar 2025 12:30:09 GMT", 9.0),
        ("Mon, 10 Mar 2025 12:29:00 GMT", 0.0), ("Mon, 10 Mar 2035 12:29:00 GMT", 30.0), ("", 0.0), ("-5", 0.0),
        ("soon", 0.0), ("1.5", 0.0), ("Mon, 99 Mar 2025 12:30:09 GMT", 0.0), ("nan", 0.0),
        ("10 Mar 2025 12:30:09", 9.0),
    ],
)  # fmt: skip
def test_a_wait_the_bot_asks_for_is_kept_up_to_half_a_minute(header: str, seconds: float):
    assert retry_after(header, NOW) == seconds


def test_a_wait_the_bot_asks_for_is_waited(server: ScriptedServer, bot: HttpBot):
    times = []

    def busy(_: Asked) -> Any:
        times.append(datetime.now(UTC))
        return Says({}, 429, {"retry-after": "2"}) if len(times) == 1 else {"healthy": True}

    server.script[HEALTH] = busy
    assert bot.health().healthy
    assert times[1] - times[0] >= timedelta(seconds=2)


def test_a_redirect_is_not_followed_and_the_token_goes_nowhere(server: ScriptedServer, bot: HttpBot):
    elsewhere = ScriptedServer({HEALTH: {"healthy": True}})
    with serving(elsewhere) as url:
        server.script[HEALTH] = Says(b"", 307, {"location": f"{url}{HEALTH}"})
        with pytest.raises(BotError, match="307; redirects are not followed"):
            bot.health()
    assert elsewhere.asked == []


def test_no_proxy_of_the_environment_comes_between(
    monkeypatch: pytest.MonkeyPatch, server: ScriptedServer, address: Any
):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, refusing())
    assert HttpBot(address[1]).health().healthy


def test_only_a_certificate_of_the_authority_is_trusted(tmp_path: Path):
    ca_file, certificate, key = make_authority(tmp_path)
    with serving(ScriptedServer({HEALTH: {"healthy": True}}), certificate=certificate, key=key) as url:
        assert HttpBot(url, ca_file=ca_file, token=TOKEN).health().healthy
        with pytest.raises(BotUnreachable, match=r"certificate is not trusted.*TRADING_OPS_BOT_CA_FILE"):
            HttpBot(url, token=TOKEN).health()
        with pytest.raises(BotUnreachable, match="certificate is not trusted"):
            HttpBot(url.replace("127.0.0.1", "localhost"), ca_file=ca_file).health()
    for wrong in (tmp_path / "none.pem", key):
        with pytest.raises(BotError, match=r"TRADING_OPS_BOT_CA_FILE: .*PEM"):
            HttpBot(url, ca_file=wrong).health()
    with pytest.raises(ssl.SSLError):
        ssl.create_default_context(cafile=key)


# the token


def test_the_token_is_sent_in_its_header_alone(server: ScriptedServer, bot: HttpBot, address: Any):
    bot.health()
    (asked,) = server.asked
    assert asked.headers.pop("authorization") == f"Bearer {TOKEN}"
    assert TOKEN not in str(asked)
    HttpBot(address[1]).health()
    assert "authorization" not in server.asked[-1].headers


def test_a_token_that_is_not_accepted_names_the_setting_and_never_the_token(
    server: ScriptedServer, bot: HttpBot, address: Any, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.DEBUG)

    def echo(asked: Asked) -> Any:
        return Says({"error": f"{asked.headers.get('authorization')} is wrong"}, 401)

    server.script[HEALTH] = echo
    with pytest.raises(
        BotError, match=r"401, Bearer \[token\] is wrong; TRADING_OPS_BOT_TOKEN is not accepted"
    ) as caught:
        bot.health()
    server.script[HEALTH] = lambda asked: {"healthy": asked.headers["authorization"]}
    with pytest.raises(InvalidRecord) as invalid:
        bot.health()
    server.script[HEALTH] = Says({}, 403)
    with pytest.raises(BotError, match="TRADING_OPS_BOT_TOKEN is not set"):
        HttpBot(address[1]).health()
    for shown in (str(caught.value), str(invalid.value), repr(bot), str(vars(bot).get("_connected")), caplog.text):
        assert TOKEN not in shown


@pytest.mark.parametrize(
    "dressed", [r"tok\"en/with+signs&more", r"tok\"en\/with+signs&more", r"tok\"en/with\u002bsigns\u0026more",
                "tok%22en%2Fwith%2Bsigns%26more", "dG9rImVuL3dpdGgrc2lnbnMmbW9yZQ=="],
    ids=["JSON", "PHP", "Go", "an address", "base64"])  # fmt: skip
def test_a_token_with_signs_is_not_shown_however_a_bot_writes_it(server: ScriptedServer, address: Any, dressed: str):
    server.script[HEALTH] = Says(f'{{"error": "{dressed} is wrong"}}'.encode(), 401)
    with pytest.raises(BotError, match=r"401, \[token\] is wrong"):
        HttpBot(address[1], token='tok"en/with+signs&more').health()


@pytest.mark.parametrize("token", ["with space", "new\nline", "schlüssel", "", "\x00"])
def test_a_token_that_no_header_can_hold_is_refused_and_not_shown(token: str):
    with pytest.raises(BotError, match="TRADING_OPS_BOT_TOKEN") as caught:
        HttpBot("http://bot", token=token)
    assert not token or token not in str(caught.value)


# what is no JSON, or no sense


@pytest.mark.parametrize("path", [HEALTH, PORTFOLIO, STRATEGIES, POSITIONS, ORDERS, USAGE, CLOSED, CHART])
@pytest.mark.parametrize(
    ("says", "why"),
    [
        (Says(b""), "empty"),
        (Says(b" \n", 204), "empty"),
        (Says(b"<html><h1>Welcome</h1>", content_type="text/html"), "text/html; application/json is needed"),
        (Says(b"<html><h1>Welcome</h1>"), "not JSON .*<html>"),
        (Says(b"{}", content_type="image/png"), "image/png"),
        (Says(b'{"success": true, "data": '), "not JSON"),
        (Says(b'{"a": 1} {"b": 2}'), "not JSON"),
        (Says(b'{"label": "\xff\xfe"}'), "not UTF-8"),
        (Says(b"[" * 100_000 + b"]" * 100_000), "nested more than 50 levels deep"),
        (Says(b'{"a":' * 60 + b"1" + b"}" * 60), "nested more than 50 levels deep"),
        (Says(b'{"success": true, "success": false}'), "2 times"),
        (Says(b"9" * 10_000), path_needs := "needed|valid dictionary|no bars"),
        (Says(b"NaN"), path_needs),
        (Says(b'"text"'), path_needs),
        (Says(b"null"), path_needs),
        (Says(b"true"), path_needs),
        (Says(b'{"success": true, "data": 5}'), path_needs),
        (Says(b'{"success": null, "data": {}}'), "success: None"),
    ],
    ids=lambda value: f"{value.body[:30]!r} {value.content_type}" if isinstance(value, Says) else "",
)
def test_what_is_no_answer_is_refused_by_its_path(
    server: ScriptedServer, bot: HttpBot, path: str, says: Says, why: str
):
    server.script[HEALTH] = {"healthy": True}
    server.script[path] = says
    with pytest.raises(InvalidRecord, match=f"^{HEALTH if path == HEALTH else path}: .*({why})"):
        ask(bot, path)


@pytest.mark.parametrize(
    "written", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 5_000, '"1.0"', "true", "null"]
)
def test_a_number_that_is_none_is_named(server: ScriptedServer, bot: HttpBot, written: str):
    def spoilt(payload: Any, field: str) -> Says:
        return Says(json.dumps(payload | {field: "SPOILT"}).replace('"SPOILT"', written).encode())

    server.script[PORTFOLIO] = spoilt(ACCOUNT, "equity_usdt")
    with pytest.raises(InvalidRecord, match=f"{PORTFOLIO}: Portfolio: equity_usdt: "):
        bot.portfolio()
    server.script[USAGE] = spoilt(NO_USAGE, "total_cost_usd")
    with pytest.raises(InvalidRecord, match="total_cost_usd: "):
        bot.usage_statistics()
    row = spoilt(trade("t1", "2025-03-01T12:00:00Z"), "pnl_usdt").body
    server.script[CLOSED] = Says(b"[" + row + b"," + json.dumps(trade("t2", "2025-03-01T13:00:00Z")).encode() + b"]")
    closed = bot.closed_trades(*DAY)
    assert closed.frame["trade_id"].tolist() == ["t2"], "one spoilt row does not hide its neighbour"
    assert [q.reason.split(":")[0] for q in closed.quarantined] == ["pnl_usdt"]


def test_a_trade_that_says_a_field_twice_is_quarantined_with_what_it_said(server: ScriptedServer, bot: HttpBot):
    good = json.dumps(trade("t1", "2025-03-01T12:00:00Z"))
    server.script[CLOSED] = Says(f'[{good[:-1]}, "pnl_usdt": 99}}, {good}]'.encode())
    closed = bot.closed_trades(*DAY)
    assert closed.frame["pnl_usdt"].tolist() == [10.0]
    assert "has 'pnl_usdt' 2 times" in closed.quarantined[0].row


@pytest.mark.parametrize("field", ["trade_id", "strategy", "symbol", "close_reason", "market", "position_id"])
def test_half_a_character_is_quarantined_in_every_text(server: ScriptedServer, bot: HttpBot, field: str):
    rows = [trade(f"t{n}", "2025-03-01T12:00:00Z") for n in range(2)]
    server.script[CLOSED] = [rows[0] | {field: "\ud800"}, rows[1]]
    closed = bot.closed_trades(*DAY)
    assert closed.frame["trade_id"].tolist() == ["t1"]
    assert [q.reason.split(":")[0] for q in closed.quarantined] == [field]
    server.script[HEALTH] = {"healthy": True, "detail": "\ud800"}
    with pytest.raises(InvalidRecord, match="detail"):
        bot.health()


def test_a_byte_order_mark_and_a_plain_type_are_no_fault(server: ScriptedServer, bot: HttpBot):
    for kind in ("text/plain", "application/problem+json; charset=utf-8", ""):
        server.script[HEALTH] = Says(b'\xef\xbb\xbf{"healthy": true}', content_type=kind)
        assert bot.health().healthy


# threads and processes


def test_several_threads_may_ask_at_once(server: ScriptedServer, bot: HttpBot):
    server.script[CLOSED] = [trade(f"t{n}", f"2025-03-01T12:{n:02}:00Z") for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(bot.closed_trades, *DAY) for _ in range(80)]
        assert {len(a.result().frame) for a in answers} == {40}


def test_a_forked_process_connects_anew(server: ScriptedServer, bot: HttpBot):
    """Parent and child at once on one socket would read each other's answers."""
    assert bot.health().healthy
    shared = bot._connected
    child = os.fork()
    if child == 0:
        fine = all(bot.health().healthy for _ in range(20)) and bot._connected is not shared
        os._exit(0 if fine else 1)
    assert all(bot.health().healthy for _ in range(20))
    assert os.waitpid(child, 0)[1] == 0
    assert bot._connected is shared
