"""How does a slow or dead channel not hold up the others?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from queue import Empty, SimpleQueue

from trading_ops.notifications.channel import DeliveryError

Lane = Generator[Callable[[], object], Exception | None, None]


class TookTooLong(Exception):
    """A send did not end in time; its thread is left behind, and nobody knows whether it arrives."""


def told_of(error: Exception) -> str:
    """Why a send failed, fit to be stored and shown; of what no channel describes its kind: its text may hold a secret.

    >>> told_of(DeliveryError("HTTP 500")), told_of(ValueError("https://api.example.org/bot123:SECRET"))
    ('HTTP 500', 'ValueError')
    """
    return str(error) if isinstance(error, DeliveryError | TookTooLong) else type(error).__name__


def side_by_side(
    lanes: list[Lane],
    *,
    workers: int,
    timeout_s: float,
    together: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> None:
    """Run every lane to its end: each call that a lane yields in a thread, all else of it in this thread.

    A lane is sent None for a call that succeeded, else its exception; TookTooLong after `timeout_s`. What the lanes do
    whose calls ended at the same time is done within `together`, and their next calls begin after it. At most `workers`
    lanes are under way; a lane may add others to `lanes`. What a lane raises is raised when the others' calls have
    ended; no lane begins after it.
    """
    flying: dict[object, tuple[Lane, float]] = {}
    hands: dict[Lane, SimpleQueue[Callable[[], None] | None]] = {}
    landed: SimpleQueue[tuple[object, Exception | None]] = SimpleQueue()
    failure: Exception | None = None

    def fly(call: Callable[[], object], token: object) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  # the lane judges it
            landed.put((token, error))
        else:
            landed.put((token, None))

    def begin(lane: Lane, call: Callable[[], object]) -> None:
        token = object()
        flying[token] = lane, time.monotonic() + timeout_s
        if lane not in hands:
            hands[lane] = SimpleQueue()
            # a daemon: a send that hangs for ever must not keep the process from ending
            threading.Thread(target=_work, args=(hands[lane],), daemon=True).start()
        hands[lane].put(lambda: fly(call, token))

    def let_go(lane: Lane) -> None:
        if hand := hands.pop(lane, None):
            hand.put(None)

    def advance(outcomes: Sequence[tuple[Lane, Exception | None]]) -> None:
        nonlocal failure
        calls = []
        try:
            with ExitStack() as stack:
                try:
                    stack.enter_context(together())
                except Exception as error:  # noqa: BLE001  # raised below; each lane would wait for it as long
                    failure = failure or error
                    for lane, _ in outcomes:
                        let_go(lane)
                    return
                for lane, outcome in outcomes:
                    try:
                        calls.append((lane, lane.send(outcome)))
                    except StopIteration:
                        let_go(lane)
                    except Exception as error:  # noqa: BLE001  # raised below
                        failure = failure or error
                        let_go(lane)
        except Exception as error:  # noqa: BLE001  # nothing that they did is kept, so nothing may follow from it
            failure = failure or error
            for lane, _ in calls:
                let_go(lane)
            return
        for lane, call in calls:
            begin(lane, call)

    def landings(wait_s: float) -> list[tuple[Lane, Exception | None]]:
        """What has ended by now; waits for the first."""
        ended = []
        try:
            token, outcome = landed.get(timeout=max(wait_s, 0.001))
            while True:
                if token in flying:  # else it was given up before
                    ended.append((flying.pop(token)[0], outcome))
                token, outcome = landed.get_nowait()
        except Empty:
            return ended

    while flying or (lanes and not failure):
        if lanes and not failure and (room := workers - len(flying)) > 0:
            new = [(lane, None) for lane in lanes[:room]]
            del lanes[:room]
            advance(new)
        if not flying:
            continue
        ended = landings(min(until for _, until in flying.values()) - time.monotonic())
        for token in [token for token, (_, until) in flying.items() if until <= time.monotonic()]:
            lane, _ = flying.pop(token)
            let_go(lane)
            ended.append((lane, TookTooLong(f"timeout: not done within {timeout_s:g} s")))
        if ended:
            advance(ended)
    if failure:
        raise failure


def _work(calls: SimpleQueue[Callable[[], None] | None]) -> None:
    while call := calls.get():
        call()
