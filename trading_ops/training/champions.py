"""Which model of a name predicts, since when, and which did before? One small document a name, changed in one step."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from trading_ops.audit.store import AuditStore, Conflict, Entry, StateDocument, StoreError, StoreUnavailable
from trading_ops.files import write_whole
from trading_ops.training.model_files import RegistryError

CHAMPIONS, PROMOTIONS, LOOKS = "champions", "promotions", "holdout_looks"
ANY = "*"  # as what is expected: whoever it is
MOST_PAST = 400  # changes that the document remembers; `promotions` remembers all
KEPT_LOOKS = timedelta(days=400)
Pointer = dict[str, Any]
_log = logging.getLogger(__name__)


class PromotionLost(RegistryError):
    """Another promotion came first; the message says which."""


class NothingBefore(RegistryError):
    """There is no champion to go back to."""


class Champions:
    """The pointers in the audit store, each changed by compare-and-set, and a copy beside the models to read from.

    The document is the truth, and carries the record of its last change: whoever changes it next, or lists, appends
    that to the collection `promotions` if its author was killed before doing so. The copy is read only while the store
    is away, so that a champion goes on predicting.
    """

    def __init__(self, store: AuditStore, copy: Path, now: Callable[[], datetime]) -> None:
        self._store, self._copy, self._now = store, copy, now

    def all(self) -> tuple[dict[str, Pointer], bool]:
        """Each name's pointer, and whether they are the store's (False: those of the copy)."""
        try:
            found = {document.key: document.body for document in self._store.list_state(CHAMPIONS)}
        except StoreUnavailable:
            return _sound(self._copied()), False
        return _sound(found), True

    def damaged(self) -> list[str]:
        """The names whose document in the store is none: nobody predicts for them until one is promoted."""
        return [document.key for document in self._store.list_state(CHAMPIONS) if _wrong(document.body)]

    def get(self, name: str) -> Pointer | None:
        return self.all()[0].get(name)

    def settle(self) -> None:
        """Do what killed authors did not; nothing where nothing is missing."""
        for document in self._store.list_state(CHAMPIONS):
            if not _wrong(document.body):
                self._record(document)
        self._write_copy()

    def promote(self, name: str, model_id: str, *, by: str, why: str, expected: str | None, verdict: Any) -> Pointer:
        """Raises PromotionLost where the champion is not the expected one, StoreError where it cannot be changed."""

        def change(before: Pointer | None) -> Pointer | None:
            current = before["model_id"] if before else None
            if current == model_id:
                return None  # done, by an earlier try
            if expected not in (ANY, current):
                raise PromotionLost(_lost(name, before))
            stack = [*before["stack"], current] if before and current else []
            return self._next(name, before, model_id, stack, {"kind": "promote", "by": by, "why": why,
                                                             "verdict": verdict})  # fmt: skip

        return self._change(name, change)

    def rollback(self, name: str, sound: Callable[[str], None], *, by: str, why: str, expected: str) -> Pointer:
        """Back to the champion before; once more: one further back. `sound` raises where that one cannot be used."""

        def change(before: Pointer | None) -> Pointer:
            if before is None or not before["stack"]:
                raise NothingBefore(f"{name} has no champion before this one; promote one: trading-ops models promote")
            if expected not in (ANY, before["model_id"]):
                raise PromotionLost(_lost(name, before))
            *stack, model_id = before["stack"]
            sound(model_id)
            return self._next(name, before, model_id, stack, {"kind": "rollback", "by": by, "why": why})

        return self._change(name, change)

    def look(self, name: str, start: datetime, end: datetime, key: str) -> int:
        """How many looks were taken at days that overlap [start, end), this one included; it is noted before it is.

        The same `key` counts once, so that a killed run does not pay twice.
        """
        while True:
            document = self._store.get_state(LOOKS, name)
            looks: dict[str, list[str]] = dict(document.body["looks"]) if document else {}
            looks[key] = [start.isoformat(), end.isoformat()]
            spans = {k: tuple(map(datetime.fromisoformat, span)) for k, span in looks.items()}
            kept = {k: looks[k] for k, (_, until) in spans.items() if until > end - KEPT_LOOKS or k == key}
            try:
                version = document.version if document else 0
                self._store.put_state(LOOKS, name, {"looks": kept}, expected_version=version)
            except Conflict:
                continue
            return sum(begin < end and until > start for begin, until in spans.values())

    def _change(self, name: str, change: Callable[[Pointer | None], Pointer | None]) -> Pointer:
        document = self._store.get_state(CHAMPIONS, name)
        before = document.body if document and not _wrong(document.body) else None
        if document is not None and before is not None:
            self._record(document)
        after = change(before)
        if after is None:
            assert before is not None
            self._write_copy()
            return before
        try:
            version = document.version if document else 0
            written = self._store.put_state(CHAMPIONS, name, after, expected_version=version)
        except Conflict:
            now = self._store.get_state(CHAMPIONS, name)
            raise PromotionLost(_lost(name, now.body if now else None)) from None
        self._record(written)
        self._write_copy()
        return after

    def _next(
        self, name: str, before: Pointer | None, model_id: str, stack: list[str], record: Mapping[str, Any]
    ) -> Pointer:
        at = self._now().isoformat()
        past = list(before["past"]) if before else []
        if before:
            past.append({key: before[key] for key in ("model_id", "since", "by", "why")} | {"until": at})
        change = {
            **record,
            "name": name,
            "number": before["change"]["number"] + 1 if before else self._recorded(name) + 1,
            "model_id": model_id,
            "replaced": before["model_id"] if before else None,
            "at": at,
        }
        return {"model_id": model_id, "since": at, "by": record["by"], "why": record["why"], "stack": stack,
                "past": past[-MOST_PAST:], "change": change}  # fmt: skip

    def _recorded(self, name: str) -> int:
        """How many changes are recorded: some where the document was lost."""
        return sum(record.key.startswith(f"{name}/") for record in self._store.read(PROMOTIONS))

    def _record(self, document: StateDocument) -> None:
        change = document.body["change"]
        self._store.append(PROMOTIONS, [Entry("", f"{change['name']}/{change['number']:06}", change)])

    def _write_copy(self) -> None:
        try:
            pointers = {document.key: document.body for document in self._store.list_state(CHAMPIONS)}
            content = json.dumps(pointers, indent=2, sort_keys=True).encode()
            if pointers and not (self._copy.is_file() and self._copy.read_bytes() == content):
                write_whole(self._copy, content)
        except (StoreError, OSError) as error:  # the promotion itself is done; the next one writes it
            _log.warning("the copy of the champions, for outages of the audit store, is old: %s", error)

    def _copied(self) -> dict[str, Pointer]:
        try:
            return dict(json.loads(self._copy.read_text()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise RegistryError(f"{self._copy} cannot be read ({error}), and the audit store is away") from error


def _sound(pointers: Mapping[str, Pointer]) -> dict[str, Pointer]:
    """Those that can be used; of the others the log tells."""
    found = {}
    for name, pointer in pointers.items():
        if why := _wrong(pointer):
            _log.error("who is the champion of %s cannot be read (%s): promote one", name, why)
        else:
            found[name] = pointer
    return found


def _wrong(pointer: Any) -> str | None:
    """Why this is no pointer, None where it is one."""
    try:
        past, stack = pointer["past"], pointer["stack"]
        if not (isinstance(past, list) and isinstance(stack, list)):
            return "past or stack is no list"
        texts = [turn[key] for turn in (pointer, *past) for key in ("model_id", "since", "by", "why")]
        texts += [*stack, pointer["change"]["name"]]
        moments = [pointer["since"], *(turn[key] for turn in past for key in ("since", "until"))]
        if not all(isinstance(text, str) for text in texts) or not isinstance(pointer["change"]["number"], int):
            return "a value is of another type"
        if any(datetime.fromisoformat(moment).tzinfo is None for moment in moments):
            return "a time is without a zone"
    except (LookupError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _lost(name: str, now: Pointer | None) -> str:
    if now is None:
        return f"{name} has no champion any more"
    return (
        f"{now['model_id']} became the champion of {name} at {now['since']} by {now['by']} ({now['why']}); look again"
    )
