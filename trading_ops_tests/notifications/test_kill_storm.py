"""Is an alert lost, or told twice without saying so, wherever the process that tells it is killed?"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import pytest
from aiosmtpd.smtp import Envelope, Session

from trading_ops_tests.conftest import ROOT
from trading_ops_tests.notifications.channels.rigs import RIGS
from trading_ops_tests.notifications.storm import IN_THE_SEND, KINDS, SCENARIOS, Case
from trading_ops_tests.servers.bot import make_authority
from trading_ops_tests.servers.smtp import MailServer, _Handler
from trading_ops_tests.servers.vendors import Answer, Asked, VendorServer

NAMED = re.compile(rb"storm (\d+) alert (\d)")
# what the receiver tells repeats by, where it does
KEYS: dict[str, Callable[[Asked], str]] = {
    "pagerduty": lambda asked: str(asked.document["dedup_key"]),
    "webhook": lambda asked: asked.headers["idempotency-key"],
}


class Take(NamedTuple):
    """One message that a server took."""

    seed: int
    number: int
    key: str | None
    marked: bool


class Storm:
    """Real servers for every kind of channel, and the process whose forks are killed."""

    def __init__(self, folder: Path) -> None:
        self.root, self._stack = folder / "cases", ExitStack()
        self.root.mkdir()
        self.takes: defaultdict[str, list[Take]] = defaultdict(list)
        self._places: dict[str, list[str]] = {}
        self._seed = 10**6  # of cases in which nobody is killed

    def __enter__(self) -> Storm:
        urls: dict[str, Any] = {}
        for kind in RIGS:
            urls[kind] = self._stack.enter_context(VendorServer(self._judge(kind))).url
        mail = MailServer(make_authority(self.root.parent), "none", login=False)
        mail.taken_by = _KillingHandler(self)
        urls["email"] = self._stack.enter_context(mail).port
        line = [sys.executable, "-m", "trading_ops_tests.notifications.storm", str(self.root), json.dumps(urls)]
        self._warm = self._stack.enter_context(
            subprocess.Popen(line, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        self._stack.callback(self._warm.kill)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def places(self, scenario: str) -> list[str]:
        """Where a process can die, as one passes it that does not."""
        if scenario not in self._places:
            self._seed += 1
            found = self.run(Case(self._seed, scenario, "webhook", 0))
            assert (found["killed"], found["problems"]) == (False, [])
            assert [len(self.taken(self._seed, "webhook", number)) for number in (1, 2)] == [1, 1]
            self._places[scenario] = found["passed"]
        return self._places[scenario]

    def run(self, case: Case) -> dict[str, Any]:
        assert self._warm.stdin
        assert self._warm.stdout
        self._warm.stdin.write(json.dumps(case) + "\n")
        self._warm.stdin.flush()
        return dict(json.loads(self._warm.stdout.readline()))

    def taken(self, seed: int, kind: str, number: int) -> list[Take]:
        return [take for take in self.takes[kind] if (take.seed, take.number) == (seed, number)]

    def told(self, seed: int, kind: str, number: int) -> int:
        """How often people were told: a receiver that keeps keys tells each once."""
        takes = self.taken(seed, kind, number)
        return len({take.key for take in takes}) if kind in KEYS else len(takes)

    def take(self, kind: str, text: bytes, key: str | None) -> None:
        named = NAMED.search(text)
        assert named
        self.takes[kind].append(Take(int(named[1]), int(named[2]), key, b"possible duplicate" in text))

    def kill(self, text: bytes, where: str) -> bool:
        """Kill the process that sent this, if its case says so; only once."""
        named = NAMED.search(text)
        order = self.root / (named[1].decode() if named else "") / "kill"
        if not order.is_file():
            return False
        pid, _, place = order.read_text().partition(" ")
        if place != where:
            return False
        order.unlink()
        os.kill(int(pid), signal.SIGKILL)
        return True

    def _judge(self, kind: str) -> Callable[[Asked], Answer]:
        def judge(asked: Asked) -> Answer:
            if self.kill(asked.body, IN_THE_SEND[0]):
                return Answer(reset=True, hang_s=0.05)
            answer = RIGS[kind].judge(asked)
            self.take(kind, asked.body, KEYS[kind](asked) if kind in KEYS else None)
            return Answer(reset=True, hang_s=0.05) if self.kill(asked.body, IN_THE_SEND[1]) else answer

        return judge


class _KillingHandler(_Handler):
    def __init__(self, storm: Storm) -> None:
        super().__init__()
        self._storm = storm

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        content = envelope.original_content or b""
        if self._storm.kill(content, IN_THE_SEND[0]):
            return "451 4.3.0 who asked is dead"
        said = await super().handle_DATA(server, session, envelope)
        self._storm.take("email", content, None)
        self._storm.kill(content, IN_THE_SEND[1])
        return said


@pytest.fixture
def storm(tmp_path: Path) -> Iterator[Storm]:
    """A kill loses no page that was written, whatever holds it: a folder in memory is as good as one on a disk."""
    memory = Path("/dev/shm")
    with (
        TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder,
        Storm(Path(folder)) as storm,
    ):
        yield storm


@pytest.mark.parametrize("seeds", [70, pytest.param(2_000, marks=pytest.mark.chaos)])
def test_wherever_a_process_is_killed_no_alert_is_lost_and_every_repeat_says_so(storm: Storm, capsys, seeds: int):
    rows: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    began = time.monotonic()
    for seed in range(seeds):
        draw = random.Random(seed)
        scenario, kind = list(SCENARIOS)[seed % len(SCENARIOS)], draw.choice(KINDS)
        places = storm.places(scenario)
        place = draw.randrange(len(places) + len(IN_THE_SEND))
        name = (*places, *IN_THE_SEND)[place]
        case = Case(seed, scenario, kind, place + 1 if place < len(places) else name)
        found = storm.run(case)
        assert found["killed"], f"{case}: nobody was killed {name}"
        assert found["problems"] == [], case
        for number in (1, 2):
            takes = storm.taken(seed, kind, number)
            assert takes, f"{case}: alert {number} is lost, killed {name}"
            doubles = storm.told(seed, kind, number) - 1
            assert kind not in KEYS or not doubles, f"{case}: told twice, killed {name}"
            assert kind in KEYS or all(take.marked for take in takes[1:]), f"{case}: a repeat looks like news"
            rows[name][kind, "doubles"] += doubles
            rows[name][kind, "marked"] += sum(take.marked for take in takes[1:]) if kind not in KEYS else 0
        rows[name][kind, "kills"] += 1
    if seeds > 100:
        with capsys.disabled():
            sys.stdout.write(f"\n{table(rows)}\n{seeds} kills in {time.monotonic() - began:.0f} s, lost 0\n")


def table(rows: dict[str, Counter[tuple[str, str]]]) -> str:
    """Kills, and repeats where there were any, all of them marked: `12 (3)`."""

    def cells(counts: Counter[tuple[str, str]]) -> list[str]:
        assert all(counts[kind, "doubles"] == counts[kind, "marked"] for kind in KINDS)
        return [
            f"{counts[kind, 'kills']}" + (f" ({counts[kind, 'doubles']})" if counts[kind, "doubles"] else "")
            for kind in KINDS
        ]

    total = sum(rows.values(), Counter[tuple[str, str]]())
    lines: Sequence[tuple[str, Sequence[str]]] = [
        ("killed: times (repeats, all marked)", KINDS),
        *((name, cells(counts)) for name, counts in sorted(rows.items())),
        ("altogether", cells(total)),
    ]
    return "\n".join(f"{name:<44}" + "".join(f"{cell:>11}" for cell in row) for name, row in lines)
