"""What dies in a kill storm? Processes that tell two alerts, fork by fork from one that is warm, and those after them.

Run as a module with a folder and the servers' addresses as JSON; each line of input is a case, each line of output what
became of it. A victim counts the places where it could die (before and after every write, before and after the send)
and kills itself at the one that the case names; in the send it is the server that kills, which finds the victim's
process in the folder.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import AuditStore, Entry, Receipt, StateDocument
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.backoff import Backoff
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.email import EmailChannel
from trading_ops.notifications.delivery import STATE
from trading_ops.notifications.outbox import Outbox
from trading_ops.notifications.sending import CLAIM
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore
from trading_ops_tests.notifications.channels.rigs import RIGS

KINDS = (*RIGS, "email")
IN_THE_SEND = ("in the send, before the server has it", "in the send, after the server has it")
BEGAN = datetime(2025, 3, 1, 12, tzinfo=UTC)
ON_THIS_MACHINE = 9  # a port where nobody listens


class Case(NamedTuple):
    """`place` counts from 1; 0 is nowhere, and a text one of IN_THE_SEND."""

    seed: int
    scenario: str
    kind: str
    place: int | str


class Death:
    """Counts the places that a process passes, and kills it at one of them."""

    def __init__(self, place: int = 0) -> None:
        self.passed: list[str] = []
        self._place = place

    def at(self, name: str) -> None:
        self.passed.append(name)
        if len(self.passed) == self._place:
            os.kill(os.getpid(), signal.SIGKILL)


class _Deadly:
    """A store with a place to die before and after every write, which notes the alerts that it has acknowledged."""

    label: str
    death: Death
    acknowledged: Path
    _in_a_batch: list[str] | None = None

    def put_state(self, collection: str, key: str, body: Mapping[str, Any], *, expected_version: int) -> StateDocument:
        self.death.at(f"{self.label}: before a write of {collection}")
        written: StateDocument = super().put_state(collection, key, body, expected_version=expected_version)  # type: ignore[misc]
        if collection == STATE:
            if self._in_a_batch is None:
                self._acknowledge([key])
            else:
                self._in_a_batch.append(key)
        self.death.at(f"{self.label}: after a write of {collection}")
        return written

    def append(self, collection: str, entries: Sequence[Entry], **options: Any) -> list[Receipt]:
        self.death.at(f"{self.label}: before a record of {collection}")
        receipts: list[Receipt] = super().append(collection, entries, **options)  # type: ignore[misc]
        self.death.at(f"{self.label}: after a record of {collection}")
        return receipts

    @contextmanager
    def together(self) -> Iterator[None]:
        with super().together():  # type: ignore[misc]
            self._in_a_batch = []
            yield
            self.death.at(f"{self.label}: before the commit")
        self._acknowledge(self._in_a_batch)
        self._in_a_batch = None
        self.death.at(f"{self.label}: after the commit")

    def _acknowledge(self, keys: Sequence[str]) -> None:
        with open(self.acknowledged, "a") as file:
            file.writelines(f"{key}\n" for key in keys)


class DeadlySqlite(_Deadly, SqliteStore):
    pass


class DeadlyServer(_Deadly, UnreliableStore):
    """As a store on a server, which writes each at its time and can be away."""

    together = UnreliableStore.together  # type: ignore[assignment]


class Watched:
    """The real channel with a place to die before and after it sends."""

    def __init__(self, channel: Any, death: Death, then: Callable[[], object]) -> None:
        self._channel, self._death, self._then = channel, death, then

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def send(self, alert: Alert, **options: Any) -> Any:
        self._death.at("channel: before the send")
        answer = self._channel.send(alert, **options)
        self._then()
        self._death.at("channel: after the send")
        return answer


@dataclass(frozen=True)
class Scenario:
    """What a process lives through before, the one that is killed, and whether the store is a server's."""

    prepare: Callable[[World], object] | None
    act: Callable[[World], object]
    on_a_server: bool


class World:
    """What one process of a case sees: stores, channel, clock."""

    def __init__(self, case: Case, folder: Path, urls: Mapping[str, Any], place: int = 0, minutes: int = 0) -> None:
        self.case, self.folder, self.death, self.minutes = case, folder, Death(place), minutes
        self._urls, self._during = urls, lambda: None
        self.on_a_server = SCENARIOS[case.scenario].on_a_server
        self.main: Any = DeadlyServer(folder) if self.on_a_server else DeadlySqlite(folder / "audit.db")
        self._arm(self.main, "store")

    def _arm(self, store: Any, label: str) -> None:
        store.label, store.death, store.acknowledged = label, self.death, self.folder / "acknowledged"

    def now(self) -> datetime:
        return BEGAN + self.minutes * CLAIM

    def box(self, *, refused: bool = False) -> Outbox:
        """As another process would make it; `refused`: nobody listens where its channel is."""
        local = self.folder / "local.db"

        def fallback() -> AuditStore:
            store = DeadlySqlite(local)
            self._arm(store, "local")
            return store

        channel = Watched(_channel(self.case.kind, {} if refused else self._urls), self.death, lambda: self._during())
        options: dict[str, Any] = {"fallback": fallback, "fallback_exists": local.exists} if self.on_a_server else {}
        return Outbox(self.main, {self.case.kind: channel}, self.now, backoff=Backoff(first_s=0), **options)

    def publish(self, *numbers: int, refused: bool = False) -> None:
        box = self.box(refused=refused)
        for number in numbers:
            box.publish(alert(self.case.seed, number))

    def publish_together(self) -> None:
        self.box().publish_all([alert(self.case.seed, 1), alert(self.case.seed, 2)])

    def in_an_outage(self, work: Callable[[], object]) -> None:
        self.main.be(DOWN)
        work()
        if not self.death._place:
            self.main.be(UP)

    def in_an_outage_that_begins_with_the_send(self) -> None:
        self._during = lambda: self.main.be(DOWN)
        self.publish(1, 2)


SCENARIOS = {
    "published": Scenario(None, lambda world: world.publish(1, 2), False),
    "published together": Scenario(None, lambda world: world.publish_together(), False),
    "published to a server's store": Scenario(None, lambda world: world.publish(1, 2), True),
    "tried again": Scenario(
        lambda world: world.publish(1, 2, refused=True), lambda world: world.box().drain(), False
    ),
    "published in an outage": Scenario(
        None, lambda world: world.in_an_outage(lambda: world.publish(1, 2)), True
    ),
    "published when an outage begins": Scenario(
        None, lambda world: world.in_an_outage_that_begins_with_the_send(), True
    ),
    "carried over": Scenario(
        lambda world: world.in_an_outage(lambda: (world.publish(1), world.publish(2, refused=True))),
        lambda world: world.box().drain(),
        True,
    ),
}  # fmt: skip


def alert(seed: int, number: int) -> Alert:
    return Alert(Severity.CRITICAL, f"storm/{seed}/{number}", f"storm {seed} alert {number}", "it storms", "Stay in.")


def _channel(kind: str, urls: Mapping[str, Any]) -> Any:
    if kind == "email":
        port = urls.get("email", ON_THIS_MACHINE)
        return EmailChannel(
            host="127.0.0.1", port=port, security="none", sender="ops@example.org", recipients=["a@example.org"]
        )
    return RIGS[kind].make(urls.get(kind, f"http://127.0.0.1:{ON_THIS_MACHINE}"), 10.0)


def forked(work: Callable[[], object]) -> int:
    """Do it in a fork; what `os.waitpid` says of its end."""
    if not (child := os.fork()):
        try:
            work()
            os._exit(0)
        finally:  # not a step back into what the parent does
            traceback.print_exc()
            os._exit(1)
    return os.waitpid(child, 0)[1]


def _lived(status: int, what: str) -> None:
    if status:
        raise SystemExit(f"{what} ended with {status}")


def run(case: Case, root: Path, urls: Mapping[str, Any]) -> dict[str, Any]:
    """One case: what the victim passed or how it died, and what the processes after it found."""
    folder, scenario = root / str(case.seed), SCENARIOS[case.scenario]
    folder.mkdir()
    if prepare := scenario.prepare:
        _lived(forked(lambda: prepare(World(case, folder, urls))), "the process before")

    def victim() -> None:
        if isinstance(case.place, str):
            (folder / "kill.new").write_text(f"{os.getpid()} {case.place}")
            (folder / "kill.new").rename(folder / "kill")
        world = World(case, folder, urls, case.place if isinstance(case.place, int) else 0, minutes=1)
        scenario.act(world)
        (folder / "passed").write_text(json.dumps(world.death.passed))

    killed = forked(victim) == signal.SIGKILL
    _lived(forked(lambda: _afterwards(case, folder, urls)), "the process after")
    passed = folder / "passed"
    return {
        "killed": killed,
        "passed": json.loads(passed.read_text()) if passed.exists() else [],
        **json.loads((folder / "after").read_text()),
    }


def _afterwards(case: Case, folder: Path, urls: Mapping[str, Any]) -> None:
    """The store is back: the outbox is drained; then whoever published the alerts does it again."""
    acknowledged = folder / "acknowledged"
    known = sorted(set(acknowledged.read_text().split("\n")) - {""}) if acknowledged.exists() else []
    world = World(case, folder, urls)
    if world.on_a_server:
        world.main.be(UP)
    box = world.box()
    problems = []
    for minute in (2, 3, 4):
        world.minutes = minute
        box.drain()
        problems += [box.store_error] if box.store_error else []
    states = {body["alert"]["dedup_key"]: body["channels"][case.kind]["state"] for body in box.deliveries()}
    problems += [f"{key} was acknowledged and is {states.get(key)}" for key in known if states.get(key) != "sent"]
    world.publish(1, 2)
    problems += ["alerts still wait"] if box.waiting() else []
    problems += [f"{broken.collection}: {broken.reason}" for broken in world.main.verify()]
    (folder / "after").write_text(json.dumps({"acknowledged": len(known), "problems": problems}))


def main() -> None:
    root, urls = Path(sys.argv[1]), json.loads(sys.argv[2])
    for kind in KINDS:  # what is imported when it is first used is then there for all forks
        with suppress(DeliveryError):
            _channel(kind, {}).send(alert(0, 0), possible_duplicate=False)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(Case(*json.loads(line)), root, urls)) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
