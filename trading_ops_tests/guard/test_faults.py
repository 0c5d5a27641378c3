"""What does the guard do when something else fails? docs/guard.md says it, row by row; so it is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from trading_ops.bot.http import CLOSED_TRADES, OPEN_ORDERS, PORTFOLIO, STRATEGIES
from trading_ops.bot.records import OpenOrder
from trading_ops.bot.server import create_app
from trading_ops.guard.actions import CONFIRMED, WATCHING
from trading_ops.services import Services
from trading_ops_tests.conftest import ROOT, QuietSettings
from trading_ops_tests.guard.bots import Clock, TradingBot
from trading_ops_tests.servers.bot import raw_server, serving
from trading_ops_tests.servers.vendors import WEBHOOK_PATH, WEBHOOK_SECRET, Answer, Asked, VendorServer, webhook

DISABLE = f"{STRATEGIES}/rsi/disable"
EVERY_S, LASTS_S, FOLLOWED_S = 30, 90, 120  # between two looks, of the fault, of what is followed
TIMEOUT_S, SHORT_S = 3.0, 0.5  # of the bot; where it is to be slow, so that a test need not wait for long


@dataclass
class Server:
    """A bot behind HTTP; what is in `faults` for a path, or for all (""), comes instead of its own answer."""

    bot: TradingBot
    faults: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._app = create_app(self.bot)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        fault = self.faults.get(scope["path"], self.faults.get("", ""))
        if fault == "slow":
            await asyncio.sleep(4 * SHORT_S)
        if fault in ("", "slow"):
            await self._app(scope, receive, send)
            return
        status, body = (500, b"<html>Internal Server Error</html>") if fault == "500" else (200, fault.encode())
        headers = [(b"content-type", b"application/json" if status == 200 else b"text/html")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass
class World:
    """A bot that bleeds, the people who are told, and the folder of the guard."""

    bot: TradingBot
    people: VendorServer
    folder: Path

    def __post_init__(self) -> None:
        self.server, self._running, self._port = Server(self.bot), ExitStack(), 0

    def up(self) -> str:
        url: str = self._running.enter_context(serving(self.server, port=self._port))
        self._port = int(url.rsplit(":", 1)[1])
        return url

    def down(self) -> None:
        self._running.close()


Undo = Callable[[], object]


def nothing(world: World) -> Undo:
    return lambda: None


def is_down(world: World) -> Undo:
    world.down()
    return world.up


def answers(fault: str, *paths: str) -> Callable[[World], Undo]:
    def begin(world: World) -> Undo:
        world.server.faults.update(dict.fromkeys(paths, fault))
        return world.server.faults.clear

    return begin


def says_yes_and_does_nothing(world: World) -> Undo:
    world.bot.deaf = True
    return lambda: setattr(world.bot, "deaf", False)


def keeps_an_entry_order(world: World) -> Undo:
    at = world.bot.clock()
    world.bot.orders.append(OpenOrder(order_id="o1", strategy="rsi", symbol="BTCUSDT", intent="entry", created_at=at))
    return world.bot.orders.clear


def no_file_can_be_written(world: World) -> Undo:
    for name in ("guard.db", "outbox.db", "spool.db"):
        (world.folder / name).mkdir(parents=True)
    return lambda: [(world.folder / name).rmdir() for name in ("guard.db", "outbox.db", "spool.db")]


def nobody_hears(world: World) -> Undo:
    hear, world.people.judge = world.people.judge, lambda asked: Answer(503, b"later", told=False)
    return lambda: setattr(world.people, "judge", hear)


SLOW = {"bot_timeout_s": SHORT_S}
NO_MONGODB = {"mongodb_uri": "mongodb://127.0.0.1:9/trail?timeoutMS=200"}
FAULTS: dict[str, tuple[Callable[[World], Undo], dict[str, Any]]] = {
    "nothing fails": (nothing, {}),
    "the bot is down": (is_down, {}),
    "the bot is slow (no answer in time)": (answers("slow", ""), SLOW),
    "the bot fails (HTTP 500)": (answers("500", ""), {}),
    "its account is empty (`{}`)": (answers("{}", PORTFOLIO), {}),
    "its trades are no list": (answers('{"trades": "none"}', CLOSED_TRADES), {}),
    "it fails at the stop (HTTP 500)": (answers("500", DISABLE), {}),
    "it does not answer the stop in time": (answers("slow", DISABLE), SLOW),
    "it says yes and does nothing": (says_yes_and_does_nothing, {}),
    "it is disabled and keeps an entry order": (keeps_an_entry_order, {}),
    "its orders cannot be read (HTTP 500)": (answers("500", OPEN_ORDERS), {}),
    "MongoDB is down": (nothing, NO_MONGODB),
    "MongoDB is down and no file can be written": (no_file_can_be_written, NO_MONGODB),
    "RabbitMQ and the LLM are down": (nothing, {}),
    "the channel that tells is down (HTTP 503)": (nobody_hears, {}),
}


def rows() -> list[list[str]]:
    text = (ROOT / "docs" / "guard.md").read_text()
    table = re.findall(r"^\| (.+) \|$", text[text.index("| what fails") :].partition("\n\n")[0], re.M)
    return [[cell.strip() for cell in line.split(" | ")] for line in table[1:]]


def row(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A strategy bleeds as the fault begins: how its stop stands when the fault ends, when the stop is confirmed, and
    who hears what; all with the seconds since it began."""
    (fault, settings), clock = FAULTS[name], Clock()
    began, told = clock(), []

    def elapsed() -> int:
        return round((clock() - began).total_seconds())

    def hear(asked: Asked) -> Answer:
        d = asked.document
        said = f"over: {d['what']}" if d["step"] == "resolved" else f"{d['level']}: {d['what']}"
        # after three attempts the pause is up to a minute, at random
        moment = "90 to 120 s" if fault is nobody_hears and elapsed() in (90, 120) else f"{elapsed()} s"
        told.append(f"{said} ({moment})")
        return webhook(asked)

    with VendorServer(hear) as people, raw_server(lambda *_: None) as (silent, asked), ExitStack() as running:
        world = World(TradingBot(clock), people, folder / "var")
        running.callback(world.down)
        monkeypatch.setenv("OPENAI_BASE_URL", silent)
        services = Services(
            QuietSettings(
                bot_url=world.up(), bot_since="2025-03-07", data_dir=world.folder,
                broker_url=silent.replace("http://", "amqp://ops:geheim@"), notification_channels=("webhook",),
                webhook_url=people.url + WEBHOOK_PATH, webhook_secret=WEBHOOK_SECRET,
                **{"bot_timeout_s": TIMEOUT_S, **settings},
            ),
            now=clock,
        )  # fmt: skip
        guard = services.guard
        undo = fault(world) if settings == NO_MONGODB else None  # before any file is opened
        guard.step()
        undo = undo or fault(world)
        world.bot.lose("rsi", 1_500.0)
        standing, confirmed = "", None
        while elapsed() <= FOLLOWED_S:
            if elapsed() == LASTS_S:
                standing = guard.memory.get("rsi")["state"]
                undo()
            guard.step()
            wait([one.done for one in guard.pursuits._under_way.values()], 60)  # they take less than the half minute
            services.incidents.tick()
            services.outbox.drain()
            if confirmed is None and guard.memory.get("rsi")["state"] == CONFIRMED:
                confirmed = elapsed()
            clock.go(EVERY_S)
        assert asked == []  # neither the broker nor the LLM
        assert world.bot.switched == [("rsi", False)]
    return ["not seen" if standing == WATCHING else standing, f"{confirmed} s", "; ".join(told)]


@pytest.mark.parametrize("name", FAULTS)
def test_a_strategy_bleeds_while_this_fails_and_what_follows_is_what_the_table_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    expected = {cells[0]: cells[1:] for cells in rows()}
    assert row(name, tmp_path, monkeypatch) == expected[name]


def test_the_table_has_no_row_that_is_not_tested():
    assert [cells[0] for cells in rows()] == list(FAULTS)
