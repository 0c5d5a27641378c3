"""How do people hear from a guard that never waits for a channel?"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from trading_ops.guard.telling import through

if TYPE_CHECKING:
    from trading_ops.notifications.alert import Alert
    from trading_ops.notifications.desk import IncidentDesk
    from trading_ops.notifications.outbox import Outbox

EVERY_S = 30.0
HANDS = 4  # drains of one channel side by side: while a message hangs in one, the next one sends the others
TENDING = ""  # the hand of no channel
_log = logging.getLogger(__name__)


class Teller:
    """Writes each message down before `tell` returns, and sends it in threads that last while there is news.

    A channel has hands of its own, so that one that hangs delays no other. `outbox` is one that does not send what it
    is given, and the one of `desk`. What a process that ends leaves unsent is sent by the next drain of any. `every_s`
    lies between two looks at what failed and at what is due.
    """

    def __init__(self, desk: IncidentDesk, outbox: Outbox, *, every_s: float = EVERY_S) -> None:
        self._desk, self._outbox, self._write, self._every_s = desk, outbox, through(desk), every_s
        self._turn = threading.Condition()
        self._written, self._hands = 0, Counter[str]()
        self._tended = time.monotonic()

    def tell(self, alert: Alert) -> None:
        """Raises StoreError where it cannot be written."""
        self._write(alert)
        self._begin()

    def tend(self) -> None:
        """Now and then: tell what is due of incidents, and send again what failed. Call it again and again."""
        if time.monotonic() - self._tended >= self._every_s:
            self._tended = time.monotonic()
            self._lend(TENDING, 1, self._look)

    def finish(self, within_s: float) -> bool:
        """Wait until nothing is being sent, at most so long; whether it is so."""
        with self._turn:
            return self._turn.wait_for(lambda: not self._hands.total(), within_s)

    def _begin(self) -> None:
        with self._turn:
            self._written += 1
        for name in self._outbox.channels:
            self._lend(name, HANDS, partial(self._send, name))

    def _lend(self, name: str, most: int, work: Callable[[], None]) -> None:
        with self._turn:
            if self._hands[name] >= most:
                return  # each of them looks for what is new before it ends
            self._hands[name] += 1
        try:
            # a daemon: a channel that hangs must not keep the process from ending
            threading.Thread(target=work, daemon=True).start()
        except (RuntimeError, MemoryError):  # it is written: the next message, or `tend`, tries again
            _log.exception("no thread could be begun, what waits in the outbox is sent later")
            self._let_go(name)

    def _let_go(self, name: str) -> None:
        with self._turn:
            self._hands[name] -= 1
            self._turn.notify_all()

    def _look(self) -> None:
        try:
            self._desk.tick()
        except Exception:  # noqa: BLE001  # what waits is sent all the same
            _log.exception("what is due of incidents was not told, tried again")
        self._begin()
        self._let_go(TENDING)

    def _send(self, name: str) -> None:
        while True:
            with self._turn:
                seen = self._written
            try:
                self._outbox.drain(only=name)
            except Exception:  # noqa: BLE001  # what is to be told next does not wait for it
                _log.exception("what waits in the outbox was not sent, tried again")
            with self._turn:
                if seen == self._written:
                    self._let_go(name)
                    return
