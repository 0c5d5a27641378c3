"""How many alerts may be on their way to one channel at once?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

MOST = 8  # sends of one channel that are under way
WIDENS_AFTER = 4  # sends that it took, for one more at once


class Pace:
    """What a channel is still to be told, shared by its lanes: one begins, and each few sends open another.

    Where the channel asks for a moment, the lane that heard it goes on alone. Alerts of one incident are told one after
    the other, in their order.
    """

    def __init__(self, incidents: Mapping[str, str | None]) -> None:
        """`incidents`: of each alert, by key, the one that it is about; None: it is one of its own."""
        self._waiting = deque(_by_incident(incidents))
        self._held: dict[object, deque[str]] = {}
        self._lanes, self._taken = 1, 0
        self._alone: object | None = None

    def next(self, lane: object) -> str | None:
        """The key of the next alert for this lane; None where it ends."""
        held = self._held.pop(lane, deque())
        if self._alone not in (None, lane):
            if held:
                self._waiting.appendleft(held)
            return None
        if not held and self._waiting:
            held = self._waiting.popleft()
        if not held:
            return None
        self._held[lane] = held
        return held.popleft()

    def widen(self) -> bool:
        """The channel took one; whether another lane may begin."""
        self._taken += 1
        if self._alone is not None or self._lanes >= MOST or self._taken < WIDENS_AFTER:
            return False
        self._lanes, self._taken = self._lanes + 1, 0
        return True

    def narrow(self, lane: object) -> bool:
        """The channel asked for a moment; whether it is this lane that waits and goes on."""
        self._alone = self._alone or lane
        return self._alone is lane

    def stop(self) -> None:
        """Leave the rest for later."""
        self._waiting.clear()
        self._held.clear()


def _by_incident(incidents: Mapping[str, str | None]) -> Iterable[deque[str]]:
    groups: dict[tuple[str | None, str], deque[str]] = {}
    for key, incident in incidents.items():
        groups.setdefault((incident, key if incident is None else ""), deque()).append(key)
    return groups.values()
