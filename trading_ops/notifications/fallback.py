"""Where do alerts go while the audit store is down, and what becomes of them when it is back?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from trading_ops.audit.store import Conflict, Entry, StoreError, StoreUnavailable
from trading_ops.notifications.delivery import (
    AFTER,
    AGAIN,
    AHEAD,
    CARRIED,
    DEAD,
    FAILED,
    HISTORY,
    PENDING,
    SENDING,
    SENT,
    STATE,
    alert_of,
    checked,
    given_up,
    history_key,
    incident_of,
    told_at,
    unsettled,
)
from trading_ops.notifications.latecomers import end_last
from trading_ops.notifications.rests import Rests
from trading_ops.notifications.waiting import Waiting, dead_letters, to_adopt

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument
    from trading_ops.notifications.alert import Alert

TAKEN = "fallback"  # the claim on a delivery that the fallback made
# what the local store knows of a channel counts for more than these states in the audit store
_OUTRANKED = {SENDING: (PENDING, FAILED, DEAD), DEAD: (PENDING, FAILED), FAILED: (PENDING,)}
_Result = TypeVar("_Result")


class FallbackError(Exception):
    """The local store failed; the message says what to do."""


class DamagedAlert(FallbackError):
    """One alert in the local store is damaged; the others can be read."""


class Fallback:
    """A local store for alerts, opened when an alert needs it or when there is one from before.

    Every method raises FallbackError where the local store fails, and StoreError only where the audit store does.
    """

    def __init__(self, open_store: Callable[[], AuditStore], exists: Callable[[], bool]) -> None:
        self._open = open_store
        self._exists = exists
        self._opened: AuditStore | None = None

    def store(self) -> AuditStore:
        """The store, made where there is none; raises StoreError when that cannot be done."""
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def waiting(self) -> Waiting:
        """The index of the alerts that were not carried over yet."""
        return Waiting(self.store(), lambda body: not body.get(CARRIED))

    def uncarried(self) -> tuple[list[StateDocument], list[str]]:
        """The alerts that the audit store does not know all of, oldest first, and why others cannot be read."""
        if not self._is_there():
            return [], []
        documents, damaged = _local(lambda: self.waiting().documents())
        return documents, [f"the local outbox: {reason}" for reason in damaged]

    def knows(self, key: str) -> StateDocument | None:
        """The alert with this key, None where it was carried over or never needed this store; raises DamagedAlert."""
        if not self._is_there():
            return None
        try:
            document = self.store().get_state(STATE, key)
            return checked(document) if document and not document.body.get(CARRIED) else None
        except StoreUnavailable as error:
            raise FallbackError(f"the local outbox does not work: {error}") from error
        except StoreError as error:
            raise DamagedAlert(f"the local outbox: {error}") from error

    def alerts(self) -> tuple[list[tuple[Alert, datetime]], list[str]]:
        """The alerts that the audit store does not know all of, with the moments that they were told, as `uncarried`"""
        found = []
        documents, damaged = self.uncarried()
        for document in documents:
            try:
                found.append((alert_of(document.body, document.key), told_at(document)))
            except StoreError as error:
                damaged.append(f"the local outbox: {error}")
        return found, damaged

    def carry_over_beside(self, main: AuditStore, alerts: Sequence[Alert]) -> list[str]:
        """Carry over what is known of these alerts, and what else of their incidents; what of all this cannot be.

        Raises StoreUnavailable.
        """
        damaged = []
        for alert in alerts:
            try:
                if known := self.knows(alert.dedup_key):
                    self.carry_over(main, known)
            except StoreUnavailable:
                raise
            except (DamagedAlert, StoreError) as error:
                damaged.append(str(error))
        incidents = {alert.incident for alert in alerts} - {None}
        for document in self.uncarried()[0] if incidents else ():
            if incident_of(document.body, document.key) not in incidents:
                continue
            try:
                self.carry_over(main, document)  # it keeps its place before these
            except StoreUnavailable:
                raise
            except StoreError as error:
                damaged.append(str(error))
        return damaged

    def carry_rests(self, main: AuditStore, now: Callable[[], datetime]) -> None:
        """Let the audit store know which channels asked for rest meanwhile, for all processes to keep it."""
        if self._is_there():
            for name, until in _local(lambda: Rests(self.store(), now).all()).items():
                Rests(main, now).keep(name, until)

    def end_rests(self, names: Iterable[str], now: Callable[[], datetime]) -> None:
        """A person asked for it."""
        for name in names if self._is_there() else ():
            _local(lambda name=name: Rests(self.store(), now).end(name))  # type: ignore[misc]

    def _is_there(self) -> bool:
        return self._opened is not None or self._exists()

    def carry_over_all(self, main: AuditStore, now: Callable[[], datetime]) -> list[StoreError]:
        """Carry over the rests and what can be of the alerts; why others could not, the last a StoreUnavailable."""
        errors = []
        carry = [partial(self.carry_over, main, document) for document in self.uncarried()[0]]
        for step in (partial(self.carry_rests, main, now), *carry):
            try:
                step()
            except StoreError as error:
                errors.append(error)
                if isinstance(error, StoreUnavailable):
                    break  # each of the others would wait for it as long
        return errors

    def carry_over(self, main: AuditStore, document: StateDocument) -> None:
        """Give an alert and the records of its deliveries to the audit store, which tells the channels still missing.

        Where it knows the alert its document stays, but for channels that it had not reached. Repeatable at any point.
        """
        if incident_of(document.body, document.key):  # before it leaves, so that its incident can find it
            to_adopt(main).add(document.key)
        try:
            main.put_state(STATE, document.key, document.body, expected_version=0)
        except Conflict:
            _note_deliveries(main, document.key, document.body["channels"])
        known = main.get_state(STATE, document.key)
        if known and unsettled(checked(known).body):
            Waiting(main).add(document.key)
        if known and given_up(known.body):
            dead_letters(main).add(document.key)
        end_last(main, document)
        for channel in document.body["channels"]:
            name = history_key(document.key, channel)
            for record in _local(lambda name=name: self.store().read(HISTORY, key=name)):  # type: ignore[misc]
                main.append(HISTORY, [Entry(record.partition, record.key, record.body)], recorded_at=record.recorded_at)
        body = {**document.body, CARRIED: True}
        with suppress(Conflict):  # it moved on, or another process carries it: the next time finds out
            carried = _local(
                lambda: self.store().put_state(STATE, document.key, body, expected_version=document.version)
            )
            _local(lambda: self.waiting().settle(carried))


def _local(ask: Callable[[], _Result]) -> _Result:
    try:
        return ask()
    except Conflict:
        raise
    except StoreError as error:
        raise FallbackError(f"the local outbox does not work: {error}") from error


def _merged(known: Mapping[str, Any], local: Mapping[str, Any]) -> Mapping[str, Any]:
    """What both stores know of one delivery; a doubt of either stays, and the longer pause is kept."""
    if known["state"] == SENT or known.get(AGAIN):
        return known
    if local["state"] == SENT:
        told = {"handle": local["handle"]} if "handle" in local else {}
        if moments := [moment for moment in (known.get("at"), local.get("at")) if moment]:
            told["at"] = max(moments, key=datetime.fromisoformat)
        return {**known, **told, "state": SENT, "claim": TAKEN, "error": None}
    merged = dict(local if known["state"] in _OUTRANKED.get(local["state"], ()) else known)
    if known.get("in_doubt") or local.get("in_doubt"):
        merged["in_doubt"] = True
    merged.update({name: known[name] for name in (AFTER, AHEAD) if name in known})
    pauses = [moment for moment in (known.get("next_at"), local.get("next_at")) if moment]
    if known["state"] == local["state"] == FAILED and pauses:
        merged["next_at"] = max(pauses, key=datetime.fromisoformat)
    return merged


def _note_deliveries(main: AuditStore, key: str, told: Mapping[str, Any]) -> None:
    """Mark what the local store has sent, or is at, where the audit store's own document says nobody has or is."""
    while document := main.get_state(STATE, key):
        body = checked(document).body
        news = {}
        for name, known in body["channels"].items():
            if name in told and (merged := _merged(known, told[name])) != known:
                news[name] = merged
        news.update({name: told[name] for name in told.keys() - body["channels"].keys()})
        if not news:
            return
        with suppress(Conflict):  # it moved on in between: look again
            body = {**body, "channels": {**body["channels"], **news}}
            main.put_state(STATE, key, body, expected_version=document.version)
            return
