"""Where are the guard's actions kept, so that neither a kill nor an absent store loses one?"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import date, datetime
from typing import Any

from trading_ops.audit.store import AuditStore, Conflict, Entry, StateDocument, StoreError
from trading_ops.guard.actions import (
    UNRECORDED,
    Action,
    action_id,
    beyond,
    join,
    latencies,
    require_sound,
    watching,
)

GUARD_ACTIONS, GUARD_FACTS, STRATEGY_ACTIONS = "guard_actions", "guard_facts", "strategy_actions"
Fact = dict[str, Any]
FIGURES_OF = {"account": ("start",), "deposits": ("realised", "balance", "assumed", "jump")}
OWN = ("told", "recorded", UNRECORDED)  # how far we are with telling, which is not what was done
_log = logging.getLogger(__name__)


class GuardMemory:
    """The guard's documents: in the shared store, on this machine's disk as well, and at worst in this process alone.

    A write joins what is there (compare-and-set, again where another process came first): documents only move on, so
    that neither two processes nor a store that was away take one back. What is answered is the join of all that can be
    read. No error of a store stops the guard; `problem` says what went wrong last.
    """

    def __init__(self, shared: AuditStore, local: Callable[[], AuditStore], source: str) -> None:
        """`local` opens the store on this machine's disk; it is asked again while it cannot."""
        self.shared = shared
        self.source = source
        self.problem: str | None = None
        self._open_local = local
        self._opened: AuditStore | None = None
        self._own: dict[str, Action] = {}
        self._facts: dict[str, Fact] = {}
        self._lock = threading.Lock()  # stops are tried in threads of their own

    def load(self) -> dict[str, Action]:
        """Every strategy's action; what the shared store missed while it was away is given to it."""
        self.problem = None
        shared = self._list(lambda: self.shared)
        mirrored = self._list(self._local)  # also what another process wrote while the shared store was away
        for known in (shared or {}, mirrored or {}):
            for strategy, action in known.items():
                self._remember(strategy, action)
        if shared is not None:
            for strategy, action in self.all().items():
                if shared.get(strategy) != action:
                    self._put(lambda: self.shared, GUARD_ACTIONS, strategy, action, join)
        return self.all()

    def get(self, strategy: str) -> Action:
        """What was last loaded or saved of a strategy."""
        return self._own.get(strategy) or watching(self.source, strategy)

    def all(self) -> dict[str, Action]:
        """Every strategy's action as it was last loaded or saved."""
        with self._lock:
            return dict(self._own)

    def save(self, action: Action) -> Action:
        """Write the action, and get what it is now: another process may have brought it further."""
        strategy = action["strategy"]
        joined = self._remember(strategy, action)
        for place in (lambda: self.shared, self._local):
            if stored := self._put(place, GUARD_ACTIONS, strategy, joined, join):
                joined = self._remember(strategy, stored)
        return joined

    def advance(self, known: Action, action: Action) -> Action:
        """Write what follows from the action as it was `known`, and get what it is now.

        Nothing is written where the action is beyond that, as another process was first: what was decided is outdated.
        """
        strategy, written = action["strategy"], None

        def decide(there: Action | None, new: Action) -> Action:
            return there if there is not None and beyond(there, known) else join(there, new) or new

        action = decide(self.all().get(strategy), action)
        for place in (lambda: self.shared, self._local):
            stored = self._put(place, GUARD_ACTIONS, strategy, written or action, join if written else decide)
            written = stored or written
        return self._remember(strategy, written or action)

    def keep(self, name: str, fact: Fact) -> Fact:
        """Write a fact about the whole bot and get what it is now; the one with the greater `number` counts, and of
        the same number the greater `level`, or the first one written."""
        known = self._facts.get(name, fact)
        joined = fact if _rank(fact) > _rank(known) else known
        for place in (lambda: self.shared, self._local):
            joined = self._put(place, GUARD_FACTS, name, joined, _more) or joined
        self._facts[name] = joined
        return joined

    def fact(self, name: str) -> Fact | None:
        """What is known of that name, also by other processes."""
        known = self._facts.get(name)
        for place in (lambda: self.shared, self._local):
            try:
                document = place().get_state(GUARD_FACTS, f"{self.source}/{name}")
            except StoreError as error:
                self._note(error)
                continue
            if document and self._sound(document, GUARD_FACTS):
                known = self._facts[name] = _more(known, document.body)
            break  # the store on this machine is asked where the shared one is away
        return known

    def known_fact(self, name: str) -> Fact | None:
        """What was last read or written of that name."""
        return self._facts.get(name)

    def record(self, action: Action) -> bool:
        """Append the action to the history, its phases' latencies with it; whether that (or the spool) took it."""
        body = {**{name: value for name, value in action.items() if name not in OWN}, "latency": latencies(action)}
        day = str(min(datetime.fromisoformat(at) for at in action["at"].values()).date())
        try:
            self.shared.append(STRATEGY_ACTIONS, [Entry(day, action_id(action), body)])
        except StoreError as error:
            self._note(error)
            return False
        return True

    def _remember(self, strategy: str, action: Action) -> Action:
        with self._lock:
            joined = join(self._own.get(strategy), action)
            assert joined is not None
            self._own[strategy] = joined
        return joined

    def _list(self, place: Callable[[], AuditStore]) -> dict[str, Action] | None:
        try:
            documents = place().list_state(GUARD_ACTIONS, f"{self.source}/")
        except StoreError as error:
            self._note(error)
            return None
        return {d.body["strategy"]: d.body for d in documents if self._sound(d, GUARD_ACTIONS)}

    def _put(
        self,
        place: Callable[[], AuditStore],
        collection: str,
        name: str,
        body: dict[str, Any],
        joined_with: Callable[[dict[str, Any] | None, dict[str, Any]], dict[str, Any] | None],
    ) -> dict[str, Any] | None:
        """Write the join of the body and what is there; None where the store does not work."""
        key = f"{self.source}/{name}"
        try:
            store = place()
            while True:
                document = store.get_state(collection, key)
                there = document.body if document and self._sound(document, collection) else None
                joined = joined_with(there, body)
                assert joined is not None
                if document and there == joined:
                    return joined
                try:
                    expected = document.version if document else 0
                    return store.put_state(collection, key, joined, expected_version=expected).body
                except Conflict:
                    continue  # another process was first: join what it wrote
        except StoreError as error:
            self._note(error)
            return None

    def _sound(self, document: StateDocument, collection: str) -> bool:
        """Whether the document can be used; one that cannot is named, left out, and written over by the next write."""
        try:
            if collection == GUARD_FACTS:
                _require_fact(document.key.rpartition("/")[2], document.body)
            else:
                require_sound(document.body)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            self._note(StoreError(f"{collection} {document.key} is damaged ({type(error).__name__}: {error})"))
            return False
        return True

    def _local(self) -> AuditStore:
        if self._opened is None:
            self._opened = self._open_local()
        return self._opened

    def _note(self, error: StoreError) -> None:
        self.problem = str(error)
        _log.warning("the guard goes on without a store: %s", error)


def _more(one: Fact | None, other: Fact) -> Fact:
    return other if one is None or _rank(other) > _rank(one) else one


def _require_fact(name: str, fact: Fact) -> None:
    """Raises KeyError, TypeError or ValueError where this is no fact of that name."""
    figures = ("number", "level", *FIGURES_OF.get(name, ()))
    if wrong := [figure for figure in figures if type(fact[figure]) not in (int, float)]:
        raise TypeError(f"{', '.join(wrong)}: no number")
    date.fromisoformat(fact.get("origin", "2000-01-01"))


def _rank(fact: Fact) -> tuple[int, float]:
    return fact["number"], fact["level"]
