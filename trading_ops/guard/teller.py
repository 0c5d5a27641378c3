"""How do people hear from a guard that never waits for a channel?"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from trading_ops.guard.telling import through

if TYPE_CHECKING:
    from trading_ops.notifications.alert import Alert
    from trading_ops.notifications.desk import IncidentDesk
    from trading_ops.notifications.outbox import Outbox

EVERY_S = 30.0  # between two looks at what failed, and at what is due
HANDS = 4  # drains side by side: while a channel hangs in one, the next one sends over the others
_log = logging.getLogger(__name__)


class Teller:
    """Writes each message down before `tell` returns, and sends it in a thread that lasts while there is news.

    `outbox` is one that does not send what it is given, and the one of `desk`. What a process that ends leaves unsent
    is sent by the next drain of any.
    """

    def __init__(self, desk: IncidentDesk, outbox: Outbox) -> None:
        self._desk, self._outbox, self._write = desk, outbox, through(desk)
        self._turn = threading.Condition()
        self._written = self._hands = 0
        self._tended = time.monotonic()

    def tell(self, alert: Alert) -> None:
        """Raises StoreError where it cannot be written."""
        self._write(alert)
        self._begin()

    def tend(self) -> None:
        """Now and then: tell what is due of incidents, and send again what failed. Call it again and again."""
        if time.monotonic() - self._tended >= EVERY_S:
            self._tended = time.monotonic()
            self._begin(tick=True)

    def finish(self, within_s: float) -> bool:
        """Wait until nothing is being sent, at most so long; whether it is so."""
        with self._turn:
            return self._turn.wait_for(lambda: not self._hands, within_s)

    def _begin(self, *, tick: bool = False) -> None:
        with self._turn:
            self._written += 1
            if self._hands >= HANDS:
                return  # each of them looks for what is new before it ends
            self._hands += 1
        # a daemon: a channel that hangs must not keep the process from ending
        threading.Thread(target=self._send, args=(tick,), daemon=True).start()

    def _send(self, tick: bool) -> None:
        while True:
            with self._turn:
                seen = self._written
            try:
                if tick:
                    self._desk.tick()
                self._outbox.drain()
                tick = False
            except Exception:  # noqa: BLE001  # what is to be told next does not wait for it
                _log.exception("what waits in the outbox was not sent, tried again")
            with self._turn:
                if seen == self._written:
                    self._hands -= 1
                    self._turn.notify_all()
                    return
