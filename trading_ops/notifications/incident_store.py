"""Where are incidents kept with what is still to be told of them, so that a killed process loses none?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict, StoreError
from trading_ops.notifications import incidents
from trading_ops.notifications.delivery import DAMAGE
from trading_ops.notifications.incident import Incident, unsettled
from trading_ops.notifications.waiting import Waiting

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument
    from trading_ops.notifications.outbox import Outbox

STATE = "incidents"  # a document a key: its newest episode, see Incident
INDEX = "incidents_unsettled"  # what a tick reads

Change = Callable[[Incident | None], Incident | None]
Problems = list[str]  # of one call: what it had to leave for the next time, and why


class IncidentStore:
    """One incident per key in `store`, its messages in `outbox`.

    The write-ahead: an incident is written together with its unsent messages, these are published, then they are taken
    out. A key is incident, episode and number, so what a killed process left is published again and told once.
    """

    def __init__(self, store: AuditStore, outbox: Outbox) -> None:
        self._store = store
        self._outbox = outbox
        self._unsettled = Waiting(store, unsettled, INDEX, STATE, _read)

    def get(self, key: str) -> Incident | None:
        """What is known under the incident's own key; raises StoreError."""
        document = self._store.get_state(STATE, key)
        return _read(document) if document else None

    def unsettled(self) -> tuple[list[Incident], Problems]:
        """The incidents that something may come of, oldest first, and why others cannot be read.

        Raises StoreUnavailable.
        """
        documents, damaged = self._unsettled.documents()
        return [_read(document) for document in documents], damaged

    def write(self, key: str, change: Change, problems: Problems) -> Incident | None:
        """Compare-and-set the incident, with what is to be told; what it is then. Raises StoreError."""
        while True:
            document = self._store.get_state(STATE, key)
            known = _read(document) if document else None
            after = change(known)
            if after is None or after == known:
                return after
            body = after.to_document()
            if unsettled(body):
                self._unsettled.add(key)  # before it is one, so that no tick misses it
            try:
                self._store.put_state(STATE, key, body, expected_version=document.version if document else 0)
            except Conflict:  # another process saw it too: look again
                continue
            self._index_again(key, body, problems)
            return after

    def _index_again(self, key: str, body: Mapping[str, Any], problems: Problems) -> None:
        """A tick that read the incident right before it was written has taken its key out of the index."""
        if not unsettled(body):
            return
        try:
            self._unsettled.add(key)
        except StoreError as error:  # it is written all the same, and its next change adds it
            problems.append(str(error))

    def publish(self, changed: Iterable[Incident | None], problems: Problems) -> int:
        """Give the outbox what is unsent and take it out; how many messages. Raises StoreError where it takes none."""
        waiting = [incident for incident in changed if incident and incident.unsent]
        alerts = [alert for incident in waiting for alert in incident.unsent]
        if not alerts:
            return 0
        self._outbox.publish_all(alerts)
        keys = {alert.dedup_key for alert in alerts}
        try:
            for incident in waiting:
                self.write(incident.key, lambda known: known and incidents.sent(known, keys), problems)
                if document := self._store.get_state(STATE, incident.key):
                    self._unsettled.settle(document)
        except StoreError as error:  # the outbox has them: the next tick finds that out
            problems.append(str(error))
        return len(keys)


def damaged(what: str, error: Exception) -> StoreError:
    """The error that says what cannot be read, and why."""
    return StoreError(f"{what} is damaged: {type(error).__name__}: {error}")


def _read(document: StateDocument) -> Incident:
    try:
        return Incident.from_document(document.body)
    except DAMAGE as error:
        raise damaged(f"the incident {document.key!r}", error) from error
