"""Which incidents begin at about the same time, and are told in one message?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from trading_ops.audit.store import Conflict, StoreError
from trading_ops.notifications.delivery import DAMAGE
from trading_ops.notifications.incident import Incident
from trading_ops.notifications.wording import together

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

GROUPING = "incident_grouping"
WINDOW, GROUP = "window", "group"  # {until}; {number, alert, episodes: {key: episode}}, a message about several


class Grouping:
    """The window in which openings wait for others, and the message about several that is being told, in a store."""

    def __init__(self, store: AuditStore, now: Callable[[], datetime], within: timedelta) -> None:
        self._store = store
        self._now = now
        self._within = within

    def window(self) -> datetime | None:
        """Until when an incident that opens now waits for others; None: it is the first."""
        while True:
            known, now = self._store.get_state(GROUPING, WINDOW), self._now()
            left = timedelta(0)
            with suppress(*DAMAGE):  # a damaged one is over
                left = datetime.fromisoformat(known.body["until"]) - now if known else left
            if timedelta(0) < left <= self._within:
                return now + left
            body = {"until": (now + self._within).isoformat()}
            with suppress(Conflict):  # another one was the first: look again
                self._store.put_state(GROUPING, WINDOW, body, expected_version=known.version if known else 0)
                return None

    def newest(self) -> StateDocument | None:
        """The newest message about several, told while it names `episodes`; raises StoreError where it is damaged."""
        known = self._store.get_state(GROUPING, GROUP)
        if known and not (isinstance(known.body.get("number"), int) and isinstance(known.body.get("episodes"), dict)):
            raise StoreError(f"the message about several incidents, {GROUPING}/{GROUP}, is damaged")
        return known

    def begin(self, several: Sequence[Incident], after: StateDocument | None) -> None:
        """Write down that these are told together, unless another process has begun since `after`."""
        number = after.body["number"] + 1 if after else 1
        alert = together(several, f"incidents_together/{number}")
        episodes = {incident.key: incident.episode for incident in several}
        body = {"number": number, "alert": alert.to_document(), "episodes": episodes}
        self._put(body, after)

    def finish(self, group: StateDocument) -> None:
        """All of them were told."""
        self._put({**group.body, "episodes": {}}, group)

    def _put(self, body: dict[str, object], known: StateDocument | None) -> None:
        with suppress(Conflict):  # another process is at it
            self._store.put_state(GROUPING, GROUP, body, expected_version=known.version if known else 0)
