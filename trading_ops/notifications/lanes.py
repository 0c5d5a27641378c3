"""How does a slow or dead channel not hold up the others?"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from queue import Empty, SimpleQueue

Lane = Generator[Callable[[], object], Exception | None, None]


class TookTooLong(Exception):
    """A send did not end in time; its thread is left behind, and nobody knows whether it arrives."""


def side_by_side(lanes: Iterable[Lane], *, workers: int, timeout_s: float) -> None:
    """Run every lane to its end: each call that a lane yields in a thread, all else of it in this thread.

    A lane is sent None for a call that succeeded, else its exception; TookTooLong after `timeout_s`. At most `workers`
    lanes are under way. What a lane raises is raised when the others' calls have ended; no lane begins after it.
    """
    waiting, flying = deque(lanes), dict[object, tuple[Lane, float]]()
    landed: SimpleQueue[tuple[object, Exception | None]] = SimpleQueue()
    failure: Exception | None = None

    def fly(call: Callable[[], object], token: object) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  # the lane judges it
            landed.put((token, error))
        else:
            landed.put((token, None))

    def advance(lane: Lane, outcome: Exception | None) -> None:
        nonlocal failure
        try:
            call = lane.send(outcome)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001  # raised below
            failure = failure or error
            return
        token = object()
        flying[token] = lane, time.monotonic() + timeout_s
        # a daemon: a send that hangs for ever must not keep the process from ending
        threading.Thread(target=fly, args=(call, token), daemon=True).start()

    while flying or (waiting and not failure):
        while waiting and not failure and len(flying) < workers:
            advance(waiting.popleft(), None)
        if not flying:
            continue
        try:
            left = min(until for _, until in flying.values()) - time.monotonic()
            token, outcome = landed.get(timeout=max(left, 0.001))
        except Empty:
            late = [token for token, (_, until) in flying.items() if until <= time.monotonic()]
            for token in late:
                advance(flying.pop(token)[0], TookTooLong(f"timeout: not done within {timeout_s:g} s"))
        else:
            if token in flying:  # else it was given up before
                advance(flying.pop(token)[0], outcome)
    if failure:
        raise failure
