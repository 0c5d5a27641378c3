"""How fast do 1,000 alerts reach four channels, against apprise in a loop, and does a hanging channel delay the others?

The servers run in a process of their own, answer after 50 ms, and count the alerts that they took. Ours: the outbox on
a SQLite store on disk, which keeps every step, and the real Slack, Discord, Telegram and webhook channels. Reference:
one apprise object with four addresses, `notify` for each alert, in its default mode, which asks the four side by side.
Its plugins for those services hold fixed hosts, and Slack's sleeps between messages; so json:// stands for all four,
its fastest: one post, no pause. `one_by_one` is our `publish` in the same kind of loop. A run of ours and a part of the
reference take turns, and medians are compared. Ends non-zero when a target is missed.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import apprise  # noqa: E402

from trading_ops.audit.sqlite import SqliteStore  # noqa: E402
from trading_ops.notifications.alert import Alert, Severity  # noqa: E402
from trading_ops.notifications.channels.discord import DiscordChannel  # noqa: E402
from trading_ops.notifications.channels.slack import SlackChannel  # noqa: E402
from trading_ops.notifications.channels.telegram import TelegramChannel  # noqa: E402
from trading_ops.notifications.channels.webhook import WebhookChannel  # noqa: E402
from trading_ops.notifications.outbox import Outbox  # noqa: E402

ALERTS, ROUNDS = 1_000, 3
ONE_BY_ONE = 200  # alerts in our loop, and in a part of the reference
BESIDE_A_HANGING_ONE = 300
ANSWERS_AFTER_S = 0.05
TARGETS = {"vs_apprise_loop": 5.0}
MOST_DELAYED = 1.25  # times as long for three healthy channels beside one that hangs
ANSWERS = {"slack": b"ok", "discord": b'{"id": "1"}', "telegram": b'{"ok": true}', "webhook": b"", "json": b""}
MARK = re.compile(rb"alert-\d+-\d+")


class Servers:
    """A process with one server for each kind of service, and one that never answers."""

    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        self.ports: dict[str, int] = self._pipe.recv()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    def taken(self) -> dict[str, list[tuple[float, str]]]:
        """What each server took since the last time, and when by the clock that all processes share."""
        self._pipe.send("taken")
        return dict(self._pipe.recv())


def serve(pipe: Connection) -> None:
    taken: dict[str, list[tuple[float, str]]] = {name: [] for name in (*ANSWERS, "hanging")}

    async def answer(name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                await asyncio.sleep(3_600 if name == "hanging" else ANSWERS_AFTER_S)
                found = MARK.search(body)
                taken[name].append((time.monotonic(), found[0].decode() if found else "?"))
                said = ANSWERS[name]
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()

    async def run() -> None:
        ports, servers = {}, []
        for name in taken:
            server = await asyncio.start_server(lambda r, w, name=name: answer(name, r, w), "127.0.0.1", 0, backlog=256)
            servers.append(server)
            ports[name] = server.sockets[0].getsockname()[1]
        pipe.send(ports)
        while True:
            await asyncio.to_thread(pipe.recv)
            pipe.send(taken)
            for listed in taken.values():
                listed.clear()

    asyncio.run(run())


def alerts(round_: int, number: int) -> list[Alert]:
    return [
        Alert(
            Severity.ERROR,
            f"performance_metrics/win_rate/alert-{round_}-{n}",
            f"alert-{round_}-{n}: win rate below its limit",
            "the win rate of the last seven days is 51.3 %, its limit 55 %",
            "Look at the closed trades of the day before you change a limit.",
            "2025-03-01",
            {"win_rate_pct": 51.3, "limit_pct": 55.0, "trades": n},
        )
        for n in range(number)
    ]


def channels(servers: Servers, *, hanging: bool = False, last: bool = True) -> dict[str, Any]:
    """Four channels; `hanging`: the server of the fourth never answers; without `last` there are three."""
    made: dict[str, Any] = {
        "slack": SlackChannel(webhook_url=f"{servers.url('slack')}/services/T/B/x"),
        "discord": DiscordChannel(webhook_url=f"{servers.url('discord')}/api/webhooks/1/x"),
        "telegram": TelegramChannel(bot_token="1:x", chat_id="-1001", base_url=servers.url("telegram")),
    }
    if last:
        made["webhook"] = WebhookChannel(url=servers.url("hanging" if hanging else "webhook"), secret="key")
    return made


def with_outbox(folder: Path, chosen: dict[str, Any], tell: Callable[[Outbox], object]) -> float:
    """Seconds on a fresh store, until nothing is left to be told."""
    with SqliteStore(folder / f"{time.monotonic_ns()}.db") as store:
        outbox = Outbox(store, chosen)
        began = time.perf_counter()
        tell(outbox)
        while outbox.waiting():
            outbox.drain()
        return time.perf_counter() - began


def with_apprise(servers: Servers, told: Sequence[Alert]) -> float:
    loop = apprise.Apprise()
    for name in ("a", "b", "c", "d"):
        loop.add(f"json://127.0.0.1:{servers.ports['json']}/{name}")
    began = time.perf_counter()
    for alert in told:
        if not loop.notify(title=alert.what, body=f"{alert.why}\n{alert.what_to_do}"):
            raise SystemExit("apprise could not tell an alert")
    return time.perf_counter() - began


def expect(servers: Servers, told: Sequence[Alert], times: dict[str, int]) -> None:
    """Each server must have taken each alert so many times."""
    marks = {alert.what.split(":")[0] for alert in told}
    for name, taken in servers.taken().items():
        seen = [mark for _, mark in taken]
        if name in times and (set(seen) != marks or len(seen) != times[name] * len(marks)):
            raise SystemExit(f"{name} took {len(set(seen))} of {len(marks)} alerts, {len(seen)} altogether")


def beside(servers: Servers, folder: Path, told: Sequence[Alert], chosen: dict[str, Any]) -> float:
    """Seconds until the three healthy channels have all."""
    with SqliteStore(folder / f"{time.monotonic_ns()}.db") as store:
        began = time.monotonic()
        Outbox(store, chosen).publish_all(told, within_s=15.0)
    taken = servers.taken()
    healthy = [taken[name] for name in ("slack", "discord", "telegram")]
    if any(len(listed) != len(told) for listed in healthy):
        raise SystemExit("a healthy channel was not told everything")
    return max(moment for listed in healthy for moment, _ in listed) - began


def main() -> None:
    ours, theirs, singles, together, alone = [], [], [], [], []
    each = dict.fromkeys(("slack", "discord", "telegram", "webhook"), 1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(Servers())
        with_apprise(servers, alerts(0, 10))  # warms both
        with_outbox(folder, channels(servers), lambda outbox: outbox.publish_all(alerts(0, 10)))
        servers.taken()
        for round_ in range(1, ROUNDS + 1):
            told = alerts(round_, ALERTS)
            ours.append(with_outbox(folder, channels(servers), lambda box, told=told: box.publish_all(told)))
            expect(servers, told, each)
            part = alerts(round_, ALERTS if round_ == 1 else ONE_BY_ONE)
            theirs.append(with_apprise(servers, part) * ALERTS / len(part))
            expect(servers, part, {"json": 4})
            part = alerts(round_, ONE_BY_ONE)
            singles.append(
                with_outbox(folder, channels(servers), lambda box, part=part: [box.publish(one) for one in part])
            )
            expect(servers, part, each)
            part = alerts(round_, BESIDE_A_HANGING_ONE)
            alone.append(beside(servers, folder, part, channels(servers, last=False)))
            together.append(beside(servers, folder, part, channels(servers, hanging=True)))
    our_s, their_s = statistics.median(ours), statistics.median(theirs)
    figures = {
        "vs_apprise_loop": round(their_s / our_s, 2),
        "outbox_s": round(our_s, 2),
        "outbox_alerts_per_s": round(ALERTS / our_s, 1),
        "apprise_loop_s": round(their_s, 2),
        "one_by_one_vs_apprise_loop": round(their_s / (statistics.median(singles) * ALERTS / ONE_BY_ONE), 2),
        "others_delayed_ratio": round(statistics.median(together) / statistics.median(alone), 2),
        "three_channels_s": round(statistics.median(alone), 2),
    }
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value}")
    missed = [f"{name} is {figures[name]}, below {low}" for name, low in TARGETS.items() if figures[name] < low]
    if figures["others_delayed_ratio"] > MOST_DELAYED:
        missed.append(f"others_delayed_ratio is {figures['others_delayed_ratio']}, above {MOST_DELAYED}")
    for line in missed:
        print(line, file=sys.stderr)
    print(json.dumps({"benchmark": "notifications", "figures": figures}))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
