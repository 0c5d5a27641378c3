"""Is a bot behind its own REST server the same bot, and is the server safe to have?"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.bot.client import Bot, BotError, UnknownStrategy, UnknownSymbol
from trading_ops.bot.http import HttpBot
from trading_ops.bot.records import BotHealth, ClosedTrades
from trading_ops.bot.server import create_app
from trading_ops.market.simulated import ANCHOR, SimulatedCandles
from trading_ops.paper.bot import PaperBot
from trading_ops_tests.conftest import ROOT
from trading_ops_tests.fakes import ScriptedBot, trade
from trading_ops_tests.servers.bot import serving

NOW = datetime(2024, 11, 20, 10, 20, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
FOREVER = (datetime(2009, 1, 3, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))
CLOSED = "/api/paper-trading/trades/closed"
TOKEN = "a-token-for-tests"
OF_THE_STRATEGIES = {"equity_by_strategy", "unrealised_by_strategy"}


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PaperBot]:
    with SqliteStore(tmp_path_factory.mktemp("paper") / "audit.db") as store:
        yield PaperBot(SimulatedCandles(lambda: NOW), lambda: store, SYMBOLS, lambda: NOW)


@pytest.fixture(scope="module", params=[True, False], ids=["wrapped", "bare"])
def served(request: pytest.FixtureRequest, paper: PaperBot) -> Iterator[HttpBot]:
    with serving(create_app(paper, wrapped=request.param)) as url:
        yield HttpBot(url, since=ANCHOR.date(), now=lambda: NOW)


@contextmanager
def client_of(bot: Any, token: str | None = None) -> Iterator[httpx.Client]:
    with serving(create_app(bot, token=token)) as url, httpx.Client(base_url=url) as client:
        yield client


# the same bot


def test_B061_the_trades_are_those_of_the_bot_itself(served: HttpBot, paper: PaperBot):
    mine, theirs = served.closed_trades(*FOREVER), paper.closed_trades(*FOREVER)
    assert len(theirs.frame) > 1_000, "more than a page"
    pd.testing.assert_frame_equal(mine.frame, theirs.frame, check_exact=True)
    assert (mine.quarantined, mine.duplicates, mine.complete) == ((), (), True)
    day = datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 2, tzinfo=UTC)
    pd.testing.assert_frame_equal(served.closed_trades(*day).frame, paper.closed_trades(*day).frame, check_exact=True)
    assert not paper.closed_trades(*day).frame.empty


@pytest.mark.parametrize(
    "question", ["open_positions", "open_orders", "strategies", "usage_statistics", "now", "calendar"]
)
def test_every_answer_is_that_of_the_bot_itself(served: HttpBot, paper: PaperBot, question: str):
    assert getattr(served, question)() == getattr(paper, question)()


def test_positions_are_open_while_this_is_tested(paper: PaperBot):
    assert len(paper.open_positions()) >= 2


def test_the_account_is_the_same_with_each_strategys_equity(served: HttpBot, paper: PaperBot):
    mine, theirs = served.portfolio(), paper.portfolio()
    assert mine.model_dump(exclude=OF_THE_STRATEGIES) == theirs.model_dump(exclude=OF_THE_STRATEGIES)
    newest = paper.equity_history(*FOREVER)
    assert mine.equity_by_strategy == newest.equity.iloc[-1].to_dict()
    assert mine.unrealised_by_strategy == newest.unrealised.iloc[-1].to_dict()
    assert sum(mine.equity_by_strategy.values()) == pytest.approx(mine.equity_usdt)


def test_health_tells_the_clock_and_what_the_prices_are(served: HttpBot, paper: PaperBot):
    health = served.health()
    assert health == paper.health().model_copy(update={"now": paper.now(), "label": "simulated"})
    assert served.label == "simulated"


def test_the_candles_are_the_same(served: HttpBot, paper: PaperBot):
    for start, end in (
        (ANCHOR, NOW + timedelta(days=1)),
        (NOW - timedelta(hours=30), NOW - timedelta(hours=2)),
        (NOW, NOW),
    ):
        mine, theirs = served.candles("ETHUSDT", start, end), paper.candles("ETHUSDT", start, end)
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    with pytest.raises(BotError, match="bars begin at 2024-01-01"):
        served.candles("ETHUSDT", ANCHOR - timedelta(days=2), NOW)


def test_a_strategy_is_stopped_and_started_over_http(tmp_path: Path):
    with SqliteStore(tmp_path / "audit.db") as store:
        paper = PaperBot(SimulatedCandles(lambda: NOW), lambda: store, SYMBOLS, lambda: NOW)
        with serving(create_app(paper, token=TOKEN)) as url:
            bot = HttpBot(url, token=TOKEN, timeout_s=5.0)
            for _ in range(2):
                state = bot.disable_strategy("rsi", reason="bleeds", idempotency_key="k1")
                assert (state.enabled, state.reason) == (False, "bleeds")
            assert [s.name for s in paper.strategies() if not s.enabled] == ["rsi"]
            assert bot.enable_strategy("rsi", reason="fixed", idempotency_key="k2").enabled
            with pytest.raises(UnknownStrategy, match="there are rsi, macd, bollinger, volume"):
                bot.disable_strategy("nope", reason="r", idempotency_key="k3")
            with pytest.raises(BotError, match=r"not confirmed to be disabled.*was used for another change"):
                bot.disable_strategy("rsi", reason="r", idempotency_key="k2")


# what it does not believe either


class Doubtful(ScriptedBot):
    complete = True

    def closed_trades(self, start: datetime, end: datetime) -> ClosedTrades:
        closed = super().closed_trades(start, end)
        return ClosedTrades(closed.frame, closed.quarantined, closed.duplicates, self.complete)

    def health(self) -> BotHealth:
        return BotHealth(healthy=True)


def test_what_the_bot_itself_does_not_believe_is_passed_on_and_not_believed():
    rows = [trade(f"t{n}", f"2025-03-01T12:{n % 60:02}:00Z") for n in range(1_100)]
    bad = [{**rows[0], "trade_id": "bad", "quantity": -1.0}, {"no": "time"}, None]
    bot = Doubtful([*rows, *bad])
    with serving(create_app(bot)) as url:
        closed = HttpBot(url).closed_trades(*FOREVER)
        assert (len(closed.frame), closed.complete) == (1_100, True)
        assert len(closed.quarantined) == 3
        bot.complete = False
        closed = HttpBot(url).closed_trades(*FOREVER)
        assert (len(closed.frame), len(closed.quarantined), closed.complete) == (1_100, 3, False)


def test_pages_begin_at_since_and_ascend():
    rows = [trade(f"t{n:04}", f"2025-03-01T12:{n % 60:02}:00Z") for n in range(1_500)]
    with client_of(Doubtful(rows)) as client:
        first = client.get(CLOSED).json()["data"]
        assert (len(first["trades"]), first["has_more"]) == (1_000, True)
        keys = [(row["closed_at"], row["trade_id"]) for row in first["trades"]]
        assert keys == sorted(keys)
        for since in ("2025-03-01T12:59:00Z", "2025-03-01T13:59:00+01:00", "1740833940000", "1740833940"):
            last = client.get(CLOSED, params={"since": since, "limit": "2000"}).json()["data"]
            assert (len(last["trades"]), last["has_more"]) == (25, False)
        for query in ("since=yesterday", "since=2025-03-01T12:00:00", "since=", "since=0", "limit=0", "limit=-1",
                      "limit=many", "limit=" + "9" * 5_000):  # fmt: skip
            reply = client.get(f"{CLOSED}?{query}")
            assert reply.status_code == 400, query
            assert reply.json()["success"] is False
            assert re.match("since=|limit=", reply.json()["error"])


# who may ask, and what is refused


def test_without_the_token_nothing_is_told():
    with client_of(ScriptedBot(), TOKEN) as client:
        for given in (None, TOKEN, "Bearer wrong", "Bearer", f"Basic {TOKEN}", "Bearer schlüssel".encode()):
            header = {"Authorization": given} if given else {}
            for method, path in (
                ("GET", "/api/strategies"),
                ("GET", "/api/health"),
                ("POST", "/api/strategies/rsi/disable"),
            ):
                reply = client.request(method, path, headers=header)
                assert (reply.status_code, reply.json()["success"]) == (401, False)
                assert TOKEN not in reply.text
        assert client.get("/api/strategies", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200


class Guarded(Doubtful):
    """Keeps what it was told; its clock and label are those of the script."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, str, str]] = []

    def disable_strategy(self, name: str, *, reason: str, idempotency_key: str) -> Any:
        if name not in ("rsi", "a/b é"):
            raise UnknownStrategy(f"strategy {name!r} is unknown; there are rsi")
        self.told.append((name, reason, idempotency_key))
        return self.strategies()[0]

    def candles(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        raise UnknownSymbol(f"{symbol}: no candles; there are BTCUSDT")

    def open_orders(self) -> list[Any]:
        raise RuntimeError("a bug")


def test_an_order_needs_a_key_and_a_reason():
    bot = Guarded()
    key = {"Idempotency-Key": "k"}
    with client_of(bot) as client:
        for path, headers, body, status in (
            ("rsi/disable", {}, b'{"reason": "r"}', 400),
            ("rsi/disable", key, b"", 400),
            ("rsi/disable", key, b"[]", 400),
            ("rsi/disable", key, b'{"reason": " "}', 400),
            ("rsi/disable", key, b'{"reason": 5}', 400),
            ("rsi/disable", key, b"[" * 60_000, 400),
            ("rsi/disable", key, b" " * 70_000, 413),
            ("nope/disable", key, b'{"reason": "r"}', 404),
            ("nope/explode", key, b'{"reason": "r"}', 404),
        ):
            reply = client.post(f"/api/strategies/{path}", headers=headers, content=body)
            assert (reply.status_code, reply.json()["success"]) == (status, False), (path, body[:20])
            assert reply.json()["error"]
        assert bot.told == []
        assert client.get("/api/strategies/rsi/disable").status_code == 405
        assert (
            client.post("/api/strategies/a%2Fb%20%C3%A9/disable", headers=key, json={"reason": "r"}).status_code == 200
        )
    assert bot.told == [("a/b é", "r", "k")]


def test_what_goes_wrong_is_told_in_the_same_form():
    with client_of(Guarded()) as client:
        for path, status, words in (
            ("/api/market/chart/DOGE%2FUSDT/1h", 404, "DOGE/USDT: no candles; there are BTCUSDT"),
            ("/api/market/chart/BTCUSDT/5m", 404, "timeframe '5m' is unknown; there is 1h"),
            ("/api/nothing", 404, "Not Found"),
            ("/api/paper-trading/portfolio", 503, "Portfolio: "),
            ("/api/paper-trading/orders/open", 500, "internal error (RuntimeError); see the log"),
        ):
            reply = client.get(path)
            assert (reply.status_code, reply.json()["success"]) == (status, False)
            assert words in reply.json()["error"]
            assert "a bug" not in reply.text


def test_the_server_takes_any_bot():
    served: Bot = HttpBot("http://127.0.0.1:9")
    assert create_app(served).routes


# the command


def serve(home: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    for name in ("dagster.yaml", "pyproject.toml"):
        shutil.copy(ROOT / name, home)
    env = {"PATH": "/usr/bin:/bin", "HOME": str(home), "DAGSTER_HOME": str(home), "TRADING_OPS_SYMBOLS": "BTCUSDT"}
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from trading_ops.cli.bot import app; app()"
    return subprocess.Popen(
        [sys.executable, "-u", "-c", program, "serve", *options],
        cwd=home, env={**env, **environment}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_the_command_serves_the_paper_bot_until_it_is_told_to_stop(tmp_path: Path, stop: signal.Signals):
    process = serve(tmp_path, "--port", "0", TRADING_OPS_BOT_TOKEN=TOKEN)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(3)]
    url = re.search(r"export TRADING_OPS_BOT_URL=(http://127\.0\.0\.1:\d+)$", said[1].strip())
    assert url, (said, process.poll())
    try:
        bot = HttpBot(url[1], token=TOKEN)
        assert bot.label == "simulated"
        assert [s.name for s in bot.strategies()] == ["rsi", "macd", "bollinger", "volume"]
        with pytest.raises(BotError, match="TRADING_OPS_BOT_TOKEN"):
            HttpBot(url[1]).health()
    finally:
        process.send_signal(stop)
        rest, errors = process.communicate(timeout=300)
    assert (process.returncode, errors) == (0, "")
    assert "simulated candles" in said[0]
    assert TOKEN not in "".join([*said, rest])


def test_the_command_refuses_what_it_cannot_or_should_not_do(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        busy = serve(tmp_path, "--port", str(port))
        _, errors = busy.communicate(timeout=300)
        assert (busy.returncode, errors.count("\n")) == (1, 1), errors
        assert f"cannot listen on 127.0.0.1, port {port}: Address already in use" in errors
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.org"):
        open_to_all = serve(tmp_path, "--host", host)
        said, errors = open_to_all.communicate(timeout=300)
        assert (open_to_all.returncode, said) == (2, "")
        assert "TRADING_OPS_BOT_TOKEN" in errors
