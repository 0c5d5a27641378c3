"""Which alerts or incidents still need something, without reading all that ever were?"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import Conflict, StoreError, StoreUnavailable
from trading_ops.notifications.delivery import DAMAGE, STATE, checked, given_up, readable, unsettled

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore, StateDocument

INDEX = "outbox_waiting"  # a fixed number of documents {keys: [...]}, so that its size follows what waits
DEAD_INDEX = "outbox_dead"  # the same for what was given up
ADOPT_INDEX = "outbox_to_adopt"  # the same for what was told without the store and its incident may not know yet
SHARDS = 16
COMPLETE = "complete"  # this document says that every alert from before the index was looked at


def will_be_tried(body: Mapping[str, Any]) -> bool:
    """Whether some channel of an alert is to be tried again."""
    return bool(unsettled(body))


class Waiting:
    """An index of the documents in a store's `state` that `concern` us; a key is in it from before its document.

    It may name an alert too many, never one too few. Where it is missing or damaged, all alerts are read instead.
    """

    def __init__(
        self,
        store: AuditStore,
        concern: Callable[[Mapping[str, Any]], bool] = will_be_tried,
        index: str = INDEX,
        state: str = STATE,
        check: Callable[[StateDocument], object] = checked,
    ) -> None:
        """`check` raises StoreError for a document that is damaged: it is named and skipped."""
        self._store = store
        self._concern = concern
        self._index = index
        self._state = state
        self._check = check

    def add(self, *keys: str) -> None:
        """From now on these alerts are looked at; raises StoreUnavailable."""
        self._write(keys, lambda known, ours: known | ours)

    def settle(self, *documents: StateDocument) -> None:
        """Forget alerts that need nothing any more, and keep those that do; raises StoreUnavailable."""
        # another process may have seen these while they needed nothing
        self.add(*(document.key for document in documents if self._concern(document.body)))
        done = [document.key for document in documents if not self._concern(document.body)]
        self._write(done, lambda known, ours: known - ours)
        begun_anew = [k for k in done if (now := self._store.get_state(self._state, k)) and self._needs(now)]
        self.add(*begun_anew)

    def documents(self) -> tuple[list[StateDocument], list[str]]:
        """The alerts that need something, oldest first, and why others cannot be read; raises StoreUnavailable."""
        keys = self._keys()
        found, damaged = readable(self._store, self._state) if keys is None else self._read(keys)
        concerned = []
        for document in found:
            try:
                if self._needs(document):
                    concerned.append(document)
                elif keys is not None:  # a process died before it could forget it
                    self.settle(document)
            except StoreUnavailable:
                raise
            except StoreError as error:
                damaged.append(str(error))
        if keys is None and not damaged:
            with suppress(StoreError):  # else the next time reads them all again
                self.add(*(document.key for document in concerned))
                self._store.put_state(self._index, COMPLETE, {"keys": []}, expected_version=0)
        return sorted(concerned, key=lambda document: str(document.body["created_at"])), damaged

    def named(self) -> set[str]:
        """The keys in the index, be it complete or not; none where it is damaged. Raises StoreUnavailable."""
        try:
            return {key for shard in self._store.list_state(self._index) for key in _keys_of(shard)}
        except StoreUnavailable:
            raise
        except StoreError:
            return set()

    def _keys(self) -> list[str] | None:
        """The keys in the index, None where it does not tell."""
        try:
            shards = self._store.list_state(self._index)
            keys = sorted(key for shard in shards for key in _keys_of(shard))
        except StoreUnavailable:
            raise
        except StoreError:
            return None
        return keys if any(shard.key == COMPLETE for shard in shards) else None

    def _read(self, keys: list[str]) -> tuple[list[StateDocument], list[str]]:
        found, damaged = [], []
        for key in keys:
            try:
                document = self._store.get_state(self._state, key)
            except StoreUnavailable:
                raise
            except StoreError as error:
                damaged.append(f"the alert {key!r} is damaged and skipped: {error}")
                continue
            found += [document] if document else []
        return found, damaged

    def _needs(self, document: StateDocument) -> bool:
        self._check(document)
        return self._concern(document.body)

    def _write(self, keys: Iterable[str], change: Callable[[set[str], set[str]], set[str]]) -> None:
        by_shard: dict[str, set[str]] = {}
        for key in keys:
            by_shard.setdefault(f"{zlib.crc32(key.encode()) % SHARDS:02}", set()).add(key)
        for shard, ours in by_shard.items():
            self._write_shard(shard, lambda known, ours=ours: change(known, ours))  # type: ignore[misc]

    def _write_shard(self, shard: str, change: Callable[[set[str]], set[str]]) -> None:
        while True:
            try:
                known = self._store.get_state(self._index, shard)
                before = _keys_of(known) if known else set()
                if change(before) == before:
                    return
                body = {"keys": sorted(change(before))}
                self._store.put_state(self._index, shard, body, expected_version=known.version if known else 0)
                return
            except Conflict:  # another alert came or went: look again
                continue
            except StoreUnavailable:
                raise
            except StoreError:  # a damaged index stops no alert: `documents` does without it
                return


def _keys_of(shard: StateDocument) -> set[str]:
    try:
        return {key for key in shard.body["keys"] if isinstance(key, str)}
    except DAMAGE as error:
        raise StoreError(f"the index {shard.collection}/{shard.key} is damaged") from error


def to_adopt(store: AuditStore) -> Waiting:
    """The index of the alerts that came from a local store and may begin an incident: `settle` takes them out."""
    return Waiting(store, lambda body: False, ADOPT_INDEX, check=lambda document: None)


def dead_letters(store: AuditStore) -> Waiting:
    """The index of the alerts that were given up on some channel."""
    return Waiting(store, lambda body: bool(given_up(body)), DEAD_INDEX)
