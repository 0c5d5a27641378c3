"""How does a test run Dagster's daemon, the guard or the watchdog in a home of its own, and kill parts of it?"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg

from trading_ops.watchdog.heartbeat import DaemonHeartbeat, Heartbeats
from trading_ops_tests.servers.vendors import WEBHOOK_PATH, WEBHOOK_SECRET, VendorServer
from trading_ops_tests.test_cli import BIN

DAEMON = ["dagster-daemon", "run", "-w", "workspace.yaml"]
# what the processes are told by in which a daemon's code is loaded, and in which that executes runs
CODE_SERVER, RUN = b"api\0grpc", b"spawn_main"
Process = subprocess.Popen[bytes]


class Platform:
    """A home that watches the bot at an address, and whose alerts come in at a receiver."""

    def __init__(self, home: Path, people: VendorServer, bot: str, **settings: str) -> None:
        self.home, self._people = home, people
        self.settings = {
            "NOTIFICATION_CHANNELS": "webhook", "WEBHOOK_URL": people.url + WEBHOOK_PATH,
            "WEBHOOK_SECRET": WEBHOOK_SECRET, "TRADING_OPS_BOT_URL": bot,
            "TRADING_OPS_WATCHDOG_STALE_S": "40",  # the daemon's own loop takes 5, on a busy machine much more
            **settings,
        }  # fmt: skip

    def start(self, line: list[str], **more: str) -> Process:
        """A process that leads a session of its own, of which `kill` leaves nothing."""
        env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(self.home), "DAGSTER_HOME": str(self.home)}
        with (self.home / f"{line[0]}.log").open("a") as log:
            return subprocess.Popen(
                line, cwd=self.home, env={**env, **self.settings, **more}, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @contextmanager
    def running(self, line: list[str], **more: str) -> Iterator[Process]:
        """A process with all that it starts; none of it outlives the block."""
        process = self.start(line, **more)
        try:
            yield process
        finally:
            kill(process)

    def runs(self, filters: dg.RunsFilter) -> list[dg.DagsterRun]:
        """What Dagster knows of its runs."""
        with chdir(self.home), dg.DagsterInstance.from_config(str(self.home)) as instance:
            return list(instance.get_runs(filters))

    def heartbeat(self) -> DaemonHeartbeat | None:
        return Heartbeats(self.home / "var" / "heartbeats").daemon()

    def told(self, beginning: str) -> list[dict[str, Any]]:
        documents = [asked.document for asked in self._people.taken]
        return [document for document in documents if document["dedup_key"].startswith(beginning)]

    def until(self, true: Callable[[], Any], timeout_s: float = 400) -> Any:
        deadline = time.monotonic() + timeout_s
        while not (found := true()):
            logs = "\n".join(path.read_text()[-3_000:] for path in self.home.glob("*.log"))
            assert time.monotonic() < deadline, logs
            time.sleep(0.1)
        return found


def kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def members(leader: Process, kind: bytes) -> list[int]:
    """The living processes of a kind that this one, or what it started, has started, dead or not; the newest last."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            session = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[3])
            if session == leader.pid and kind in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return sorted(found)


def kill_members(leader: Process, kind: bytes) -> None:
    """SIGKILL to all of them."""
    for pid in members(leader, kind):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
