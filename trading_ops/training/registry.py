"""Which models are there, what is known of them, and which of them predict?"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from trading_ops.audit.store import AuditStore, Entry
from trading_ops.files import FileNotWritten
from trading_ops.training.card import Card, State
from trading_ops.training.champions import ANY, Champions, Pointer
from trading_ops.training.model_files import DamagedModel, ModelFiles, RegistryError, UnknownModel, document_of

if TYPE_CHECKING:
    import numpy as np

    from trading_ops.training.model import Model


INDEX = "model_registry"
_log = logging.getLogger(__name__)
SHADOWED = timedelta(days=30)  # how long a replaced champion predicts on beside the new one


class NoChampion(RegistryError):
    """No model of this name predicts."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A model and where it stands: since when, by whom and why, as far as it was ever promoted.

    `files`: whether its weights and card are on this machine.
    """

    card: Card
    state: State
    since: datetime
    by: str
    why: str
    files: bool = True


@dataclass(frozen=True, slots=True)
class Shadow:
    """A replaced champion that predicts on until then, beside the one that took its place."""

    card: Card
    replaced_by: str
    until: datetime


class Registry:
    """Models on disk (safetensors and a JSON card), their index and the champions in the audit store.

    What a model is never changes. Whether it is champion, archived (it once was) or candidate follows from the
    champions' documents alone, so that no kill leaves two champions. Raises RegistryError, StoreError, FileNotWritten.
    """

    def __init__(self, folder: Path, store: AuditStore, now: Callable[[], datetime]) -> None:
        self._files, self._store, self._now = ModelFiles(folder), store, now
        self._champions = Champions(store, folder / "champions.json", now)

    def add(self, card: Card, weights: Mapping[str, np.ndarray]) -> Card:
        """Register a candidate; the card as it is stored. One with this id that is there already stays as it is."""
        stored = self._files.put(card, weights)
        self._index(stored)
        return stored

    def card(self, model_id: str) -> Card:
        """Raises UnknownModel and DamagedModel."""
        try:
            return self._files.card(model_id)
        except UnknownModel:
            if (near := get_close_matches(model_id, self._files.ids(), 1)) and "-" in model_id:
                raise UnknownModel(f"{model_id}: no such model, did you mean {near[0]}?") from None
            raise

    def weights(self, model_id: str) -> dict[str, np.ndarray]:
        """Raises UnknownModel, and DamagedModel where they are not what was written."""
        return self._files.weights(model_id)

    def model(self, model_id: str) -> Model:
        """The model, ready to predict; raises as `weights`."""
        from trading_ops.training.model import Model

        card = self.card(model_id)
        return Model(card.model_type, self.weights(model_id), card.lookback, card.horizon_hours, card.features)

    def entries(self, model_type: str | None = None, symbol: str | None = None) -> list[Registered]:
        """Every model, by name and then newest first; of this type and symbol. Indexes what a killed writer did not."""
        indexed = {record.key: record.body for record in self._store.read(INDEX)}
        cards = self._readable()
        for model_id in cards.keys() - indexed.keys():
            self._index(cards[model_id])
        self._champions.settle()
        pointers, _ = self._champions.all()
        missing = {model_id: _indexed(body) for model_id, body in indexed.items() if model_id not in cards}
        found = [_registered(card, pointers.get(card.name), files=True) for card in cards.values()]
        found += [_registered(card, pointers.get(card.name), files=False) for card in missing.values() if card]
        wanted = [
            entry
            for entry in found
            if model_type in (None, entry.card.model_type) and symbol in (None, entry.card.symbol)
        ]
        newest_first = sorted(wanted, key=lambda entry: entry.card.created_at, reverse=True)
        return sorted(newest_first, key=lambda entry: entry.card.name)

    def champions(self) -> dict[str, Card]:
        """The champion of each name whose card can be read, also while the audit store is away."""
        cards = self._readable()
        pointers = sorted(self._champions.all()[0].items())
        return {name: cards[pointer["model_id"]] for name, pointer in pointers if pointer["model_id"] in cards}

    def damaged_champions(self) -> dict[str, str]:
        """Why the champion of a name cannot predict, of those whose files cannot be used."""
        pointers, of_the_store = self._champions.all()
        found = {}
        for name, pointer in sorted(pointers.items()):
            try:
                self.weights(pointer["model_id"])
            except RegistryError as error:
                found[name] = str(error)
        lost = self._champions.damaged() if of_the_store else []
        return found | {name: f"who is the champion of {name} cannot be read: promote one" for name in lost}

    def champion(self, name: str) -> Card | None:
        """The champion of a name such as lstm/BTCUSDT, also while the audit store is away."""
        pointer = self._champions.get(name)
        return None if pointer is None else self.card(pointer["model_id"])

    def champion_id(self, name: str) -> str | None:
        """As `champion`, also where its files cannot be used."""
        pointer = self._champions.get(name)
        return None if pointer is None else str(pointer["model_id"])

    def require_champion(self, name: str) -> Card:
        """Raises NoChampion, which says how there would be one."""
        if (card := self.champion(name)) is None:
            there = ", ".join(self._champions.all()[0]) or "none at all"
            raise NoChampion(
                f"{name} has no champion (there are {there}): trading-ops models train, then trading-ops models promote"
            )
        return card

    def last_change(self, name: str) -> Mapping[str, Any]:
        """The record of the promotion or rollback that made the champion what it is. Raises NoChampion."""
        pointer = self._champions.get(name)
        if pointer is None:
            raise NoChampion(f"{name} has no champion")
        return dict(pointer["change"])

    def reigns(self, name: str) -> list[tuple[str, datetime]]:
        """Each champion of the name so far and since when, oldest first; a rollback begins a reign, too."""
        pointer = self._champions.get(name)
        turns = [*pointer["past"], pointer] if pointer else []
        return [(str(turn["model_id"]), datetime.fromisoformat(turn["since"])) for turn in turns]

    def shadows(self, now: datetime) -> list[Shadow]:
        """The champions that were replaced within the last 30 days and whose card can be read, each once."""
        found, cards = {}, self._readable()
        for pointer in self._champions.all()[0].values():
            for past, successor in pairwise([*pointer["past"], pointer]):
                until = datetime.fromisoformat(past["until"]) + SHADOWED
                if now < until and past["model_id"] != pointer["model_id"] and past["model_id"] in cards:
                    found[past["model_id"]] = Shadow(cards[past["model_id"]], successor["model_id"], until)
        return list(found.values())

    def promote(
        self, model_id: str, *, by: str, why: str, expected: str | None = ANY, verdict: Mapping[str, Any] | None = None
    ) -> Card:
        """Make it the champion of its name. `expected`: the id of the champion it is to replace, None for none.

        Raises PromotionLost where another one was promoted meanwhile, DamagedModel where its files cannot be used.
        """
        card = self.card(model_id)
        self.weights(model_id)
        self._champions.promote(card.name, model_id, by=by, why=why, expected=expected, verdict=verdict)
        return card

    def rollback(self, name: str, *, by: str, why: str, expected: str = ANY) -> Card:
        """Back to the champion before; `expected`: the id of the one to leave, so that a repeat goes no further back.

        Raises NothingBefore, PromotionLost where the champion is another one, and DamagedModel where the one before
        cannot be used.
        """
        pointer = self._champions.rollback(name, self._require_sound, by=by, why=why, expected=expected)
        return self.card(pointer["model_id"])

    def look(self, name: str, start: datetime, end: datetime, *, key: str) -> int:
        """Note a look at a hold-out before it is taken; how many overlap it. The same key counts once."""
        return self._champions.look(name, start, end, key)

    def lock(self, stem: str) -> Path:
        """The file that whoever trains a model of this name holds, beside the models: for all that share the folder."""
        folder = self._files.folder / ".training"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileNotWritten(f"{self._files.folder}: cannot be written: {error.strerror or error}") from error
        return folder / f"{stem}.lock"

    def _readable(self) -> dict[str, Card]:
        found = {}
        for model_id in self._files.ids():
            try:
                found[model_id] = self._files.card(model_id)
            except DamagedModel as error:
                _log.error("%s", error)
        return found

    def _require_sound(self, model_id: str) -> None:
        try:
            self.weights(model_id)
        except UnknownModel as error:
            raise DamagedModel(f"{model_id} was the champion before, and its files are gone: train it again") from error

    def _index(self, card: Card) -> None:
        self._store.append(INDEX, [Entry("", card.model_id, document_of(card))])


def _indexed(body: Mapping[str, Any]) -> Card | None:
    try:
        return Card.model_validate_json(json.dumps(body))
    except ValidationError:
        return None  # of another version; its files are not here, so nobody can use it


def _registered(card: Card, pointer: Pointer | None, *, files: bool) -> Registered:
    if pointer and pointer["model_id"] == card.model_id:
        return Registered(
            card, "champion", datetime.fromisoformat(pointer["since"]), pointer["by"], pointer["why"], files
        )
    for past in reversed(pointer["past"] if pointer else ()):
        if past["model_id"] == card.model_id:
            return Registered(card, "archived", datetime.fromisoformat(past["until"]), past["by"], past["why"], files)
    return Registered(card, "candidate", card.created_at, "", "", files)
