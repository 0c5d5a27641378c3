"""Which stops are being tried in this process, each beside the others, and what is there to tell and record of them?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future, as_completed
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from trading_ops.guard import telling
from trading_ops.guard.actions import (
    ESCALATED,
    PENDING,
    RESUMING,
    UNRECORDED,
    Action,
    action_id,
    not_resumed,
    overdue,
    reached,
)
from trading_ops.guard.stop import pursue

if TYPE_CHECKING:
    from trading_ops.bot.client import Bot
    from trading_ops.guard.memory import GuardMemory
    from trading_ops.guard.telling import Tell

PATIENCE_S = 3.0  # a stop that takes longer is told before it is confirmed
HANGS_S = 30.0  # a try that takes longer is left behind in its thread, and there is another one


@dataclass(frozen=True, slots=True)
class Try:
    """One try of a stop, in a thread of its own."""

    done: Future[Action]
    began: float

    def hangs(self) -> bool:
        return time.monotonic() - self.began >= HANGS_S


@dataclass(slots=True)
class Pursuits:
    """The tries that are under way, by the stop's id: a stop has one at a time, and none waits for another."""

    _under_way: dict[str, Try] = field(default_factory=dict)

    def drive(self, bot: Bot, memory: GuardMemory, now: Callable[[], datetime], tell: Tell) -> None:
        """Try every stop that is not confirmed. Those that were begun now are waited for, a moment."""
        for action in memory.all().values():
            if action["state"] == RESUMING and overdue(action, now()):
                memory.advance(action, not_resumed(action, now(), "it was broken off"))
        pending = {action_id(action): action for action in memory.all().values() if action["state"] in PENDING}
        over = [stop for stop, one in self._under_way.items() if one.done.done() or one.hangs()]
        for one in [self._under_way.pop(stop) for stop in over]:
            if one.done.done():
                one.done.result()
        begun = {}
        for stop in pending.keys() - self._under_way.keys():
            done: Future[Action] = Future()
            self._under_way[stop] = Try(done, time.monotonic())
            begun[done] = stop
            # a daemon: a bot that hangs must not keep the process from ending
            threading.Thread(target=_try, args=(done, bot, pending[stop], now, memory), daemon=True).start()
        try:
            for done in as_completed(begun, PATIENCE_S):
                del self._under_way[begun[done]]
                finish(memory, tell, [done.result()["strategy"]])
        except TimeoutError:
            pass  # those that are left go on, and are told as being stopped
        for stop in pending.keys() & self._under_way.keys():
            action = memory.get(pending[stop]["strategy"])
            if action_id(action) == stop and action["state"] in PENDING and overdue(action, now()):
                why = action["why"] or "the bot has not answered yet"
                memory.advance(action, reached(action, ESCALATED, now(), why=why))
        finish(memory, tell)


def _try(done: Future[Action], bot: Bot, action: Action, now: Callable[[], datetime], memory: GuardMemory) -> None:
    try:
        done.set_result(pursue(bot, action, now, memory.save))
    except BaseException as error:  # noqa: BLE001  # raised by `result`
        done.set_exception(error)


def finish(memory: GuardMemory, tell: Tell, names: Collection[str] | None = None) -> None:
    """Tell and record what was not yet; noted only when it was done, so that a killed process repeats it.

    `names`: of these strategies, None: of all.
    """
    for action in memory.all().values():
        if names is not None and action["strategy"] not in names:
            continue
        noted = {name: value for name, value in action.items() if name != UNRECORDED}
        if left := [before for before in action.get(UNRECORDED, ()) if not memory.record(before)]:
            noted[UNRECORDED] = left
        if "at" not in action:
            if noted != action:
                memory.save(noted)
            continue
        if (phase := telling.news(action)) and telling.said(tell, telling.alert_of(action, phase)):
            noted["told"] = sorted({*action["told"], phase})
        if action["state"] not in action["recorded"] and memory.record(action):
            noted["recorded"] = sorted({*action["recorded"], action["state"]})
        if noted != action:
            memory.save(noted)
