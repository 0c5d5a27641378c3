"""How long from a losing trade at the bot until its strategy is known to be stopped, and until people are told?

A bot with 30 strategies in a process of its own answers over HTTP; each strategy loses 15 % of its equity in one trade,
at a random moment, one strategy after the other. Watched either by `trading-ops guard watch` alone (resident) or by the
sensor in a real `dagster-daemon` alone, with everything else that it runs (sensor); each with idle cores and with one
process more than there is work for on every core (busy). Phases: the trade appears at the bot (its clock: the same
machine's), the guard has read it, asks for the stop, has told the bot, has read back that the strategy is disabled and
recorded it, and a receiver over HTTP has the signed CRITICAL. A figure is appears-to-confirmed; every strategy must be
disabled exactly once and told exactly once. Ends non-zero when a target is missed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from trading_ops.audit.sqlite import SqliteStore  # noqa: E402
from trading_ops.drill.receiver import Receiver  # noqa: E402
from trading_ops.drill.timeline import APPEARED, DELIVERED, PHASES, Timeline, timeline  # noqa: E402
from trading_ops.guard.actions import CONFIRMED  # noqa: E402

BREACHES = 30
LOSS_USDT = 1_500.0  # of 10,000
PAUSES_S = {
    "resident": (0.8, 2.2),
    "sensor": (3.0, 8.0),
}  # at random, so that the next one meets any moment of the loop
COMMANDS = {
    "resident": ["trading-ops", "guard", "watch"],
    "sensor": ["dagster-daemon", "run", "-w", "workspace.yaml"],
}
TARGETS = {"resident_p95_s": 1.0, "sensor_p95_s": 8.0}
WITHIN_S = 180.0  # for a process to start, and for the last stop to be confirmed and told


def serve(pipe: Connection, strategies: int) -> None:
    """The bot's process: `pipe` takes the name of a strategy that is to lose, and answers with the moment."""
    import socket
    import threading

    import uvicorn

    from trading_ops.bot.server import create_app
    from trading_ops_tests.guard.bots import TradingBot

    bot = TradingBot(lambda: datetime.now(UTC), names=tuple(f"s{n:02}" for n in range(strategies)))
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(bot), log_level="error", access_log=False, lifespan="off"))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    pipe.send(listening.getsockname()[1])
    while (name := pipe.recv()) is not None:
        if name == "switched":
            pipe.send(list(bot.switched))
        else:
            bot.lose(name, LOSS_USDT)
            pipe.send(datetime.now(UTC))


def burn() -> None:
    while True:
        sum(range(10_000))


@contextmanager
def process(target: Any, *args: Any) -> Iterator[None]:
    started = multiprocessing.get_context("spawn").Process(target=target, args=args, daemon=True)
    started.start()
    try:
        yield
    finally:
        started.kill()
        started.join()


@contextmanager
def guarding(kind: str, home: Path, environment: dict[str, str]) -> Iterator[None]:
    """The process under test with all that it starts, in a session of its own."""
    line = [str(Path(sys.executable).parent / COMMANDS[kind][0]), *COMMANDS[kind][1:]]
    with (home / "log").open("wb") as log:
        started = subprocess.Popen(line, cwd=home, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield
    finally:
        started.terminate()
        with suppress(subprocess.TimeoutExpired):
            started.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(started.pid, 9)
        started.wait()


def measure(kind: str, breaches: int, *, busy: bool) -> list[Timeline]:
    """The time line of each breach; one more, which comes first, waits for everything to be loaded and is left out."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in ("dagster.yaml", "workspace.yaml"):
            shutil.copy(ROOT / name, home)
        receiver = stack.enter_context(Receiver())
        bot, theirs = multiprocessing.Pipe()
        stack.enter_context(process(serve, theirs, breaches + 1))
        port = bot.recv()
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(home), "DAGSTER_HOME": str(home), "PYTHONPATH": str(ROOT),
            "TRADING_OPS_BOT_URL": f"http://127.0.0.1:{port}",
            "TRADING_OPS_BOT_SINCE": str(datetime.now(UTC).date() - timedelta(days=2)),
            "NOTIFICATION_CHANNELS": "webhook", "WEBHOOK_URL": receiver.url, "WEBHOOK_SECRET": receiver.secret,
        }  # fmt: skip
        stack.enter_context(guarding(kind, home, environment))
        for _ in range(os.cpu_count() or 1 if busy else 0):
            stack.enter_context(process(burn))
        appeared: dict[str, datetime] = {}

        def lose(name: str) -> None:
            bot.send(name)
            appeared[name] = bot.recv()

        lose("s00")
        until_all_told(receiver, appeared, home)
        for number in range(1, breaches + 1):
            time.sleep(random.uniform(*PAUSES_S[kind]))
            lose(f"s{number:02}")
        delivered = until_all_told(receiver, appeared, home)
        with SqliteStore(home / "var" / "audit.db") as store:
            actions = {d.body["strategy"]: d.body for d in store.list_state("guard_actions")}
        bot.send("switched")
        if sorted(bot.recv()) != [(name, False) for name in sorted(appeared)]:
            raise SystemExit(f"{kind}: not every strategy was disabled exactly once")
        bot.send(None)
        return [
            timeline(appeared[name], actions[name], [delivered[name]]) for name in sorted(appeared) if name != "s00"
        ]


def until_all_told(receiver: Receiver, appeared: dict[str, datetime], home: Path) -> dict[str, datetime]:
    """When each strategy's CRITICAL came in, once all have; exactly one each."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        told = [
            (d["what"].removesuffix(" was stopped"), at) for at, d in list(receiver.taken) if "stopped" in d["what"]
        ]
        if set(dict(told)) == set(appeared):
            if twice := [name for name, times in Counter(name for name, _ in told).items() if times > 1]:
                raise SystemExit(f"told twice: {', '.join(twice)}")
            return dict(told)
        if time.monotonic() > deadline:
            raise SystemExit(
                f"never told: {sorted(set(appeared) - set(dict(told)))}\n{(home / 'log').read_text()[-3_000:]}"
            )
        time.sleep(0.05)


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, 95th percentile, maximum."""
    return statistics.median(values), statistics.quantiles(values, n=20, method="inclusive")[18], max(values)


def show(title: str, times: list[Timeline]) -> tuple[float, float]:
    """Print the phases; the 95th percentile up to the confirmation, and up to the delivered alert."""
    table = Table("phase", "p50 s", "p95 s", "max s", "share", title=title)
    whole = {end: [float(one.seconds()[end] or 0) for one in times] for end in (CONFIRMED, DELIVERED)}
    for phase in [phase for phase in PHASES if phase != APPEARED]:
        took = [float(one.took()[phase] or 0) for one in times]
        share = sum(took) / sum(whole[DELIVERED])
        table.add_row(f"until {PHASES[phase]}", *(f"{value:.3f}" for value in spread(took)), f"{share:.0%}")
    for end, said in ((CONFIRMED, "from the loss to the confirmation"), (DELIVERED, "from the loss to the alert")):
        table.add_row(said, *(f"{value:.3f}" for value in spread(whole[end])), "")
    Console(width=100).print(table)
    return spread(whole[CONFIRMED])[1], spread(whole[DELIVERED])[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--breaches", type=int, default=BREACHES, help="a condition")
    parser.add_argument("--only", choices=COMMANDS, help="one of the two ways")
    chosen = parser.parse_args()
    figures: dict[str, float] = {}
    for kind in [chosen.only] if chosen.only else COMMANDS:
        for busy in (False, True):
            times = measure(kind, chosen.breaches, busy=busy)
            cores = f"{os.cpu_count()} cores {'busy' if busy else 'idle'}"
            confirmed, told = show(f"{kind}, {cores}, {len(times)} breaches", times)
            name = f"{kind}{'' if busy else '_idle'}"
            figures |= {f"{name}_p95_s": round(confirmed, 3), f"{name}_told_p95_s": round(told, 3)}
    missed = [
        f"{name} is {figures[name]}, above {most}" for name, most in TARGETS.items() if figures.get(name, 0) > most
    ]
    for line in missed:
        print(line, file=sys.stderr)
    print(json.dumps({"benchmark": "guard_latency", "figures": figures}))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
