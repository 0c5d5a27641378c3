"""Where do a model's weights and card lie on the disk, whole or not at all?"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from pydantic import ValidationError

from trading_ops.files import UNFINISHED, FileNotWritten, write_whole
from trading_ops.training.card import Card
from trading_ops.training.model import packed, unpacked

if TYPE_CHECKING:
    import numpy as np

WEIGHTS, CARD = "weights.safetensors", "card.json"
ABANDONED_S = 3600.0  # a folder that a killed writer left behind is older than this
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class RegistryError(Exception):
    """Something about the registered models is not as it must be; the message says what to do."""


class UnknownModel(RegistryError):
    """There is no such model."""


class DamagedModel(RegistryError):
    """A model's files are missing or not those that were written."""


class ModelFiles:
    """<folder>/<model_id>/ with the weights and the card; a model's files never change once they are there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ids(self) -> list[str]:
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if (path / CARD).is_file() and known_id(path.name))

    def put(self, card: Card, weights: Mapping[str, np.ndarray]) -> Card:
        """Both files in one step; the card as it is stored, with the digest of the weights.

        A model that is there stays as it is, a damaged one is replaced. Raises FileNotWritten, and RegistryError for an
        id that is no file name.
        """
        if not known_id(card.model_id):
            raise RegistryError(f"model {card.model_id!r}: letters, digits, '.', '_' and '-' would be right")
        self.sweep()
        content = packed(weights)
        card = card.model_copy(update={"digests": {**card.digests, "weights": sha256(content).hexdigest()}})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            unfinished = Path(mkdtemp(dir=self.folder, prefix=f".{card.model_id}.", suffix=UNFINISHED))
        except OSError as error:
            raise FileNotWritten(f"{self.folder}: cannot be written: {error.strerror or error}") from error
        try:
            write_whole(unfinished / WEIGHTS, content)
            write_whole(unfinished / CARD, card.model_dump_json(indent=2).encode())
            unfinished.chmod(0o755)
            place = self.folder / card.model_id
            if place.exists():
                if self.is_sound(card.model_id):
                    return self.card(card.model_id)
                os.rename(place, unfinished.with_name(f".{unfinished.name}.damaged{UNFINISHED}"))
            try:
                os.rename(unfinished, place)
            except OSError:  # somebody else was faster
                return self.card(card.model_id)
            _sync(self.folder)
            return card
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed writers left."""
        for path in self.folder.glob(f"*{UNFINISHED}"):
            with suppress(FileNotFoundError):  # somebody else sweeps, too
                if time.time() - path.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def card(self, model_id: str) -> Card:
        """Raises UnknownModel and DamagedModel."""
        path = self.folder / model_id / CARD
        if not known_id(model_id) or not path.parent.is_dir():
            raise UnknownModel(f"{model_id}: no such model in {self.folder}; see trading-ops models list")
        try:
            card = Card.model_validate_json(path.read_text())
        except (OSError, ValidationError, ValueError) as error:
            raise DamagedModel(_damaged(path, error)) from error
        if card.model_id != model_id:
            raise DamagedModel(_damaged(path, f"it is the card of {card.model_id}"))
        return card

    def is_sound(self, model_id: str) -> bool:
        """Whether the card and the weights are those that were written."""
        try:
            self.weights(model_id)
        except (UnknownModel, DamagedModel):
            return False
        return True

    def weights(self, model_id: str) -> dict[str, np.ndarray]:
        """As they were written, to the byte; raises UnknownModel and DamagedModel."""
        wanted = self.card(model_id).digests.get("weights")
        path = self.folder / model_id / WEIGHTS
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DamagedModel(_damaged(path, error)) from error
        if sha256(content).hexdigest() != wanted:
            raise DamagedModel(_damaged(path, "its SHA-256 is not the card's"))
        return unpacked(content)


def known_id(model_id: str) -> bool:
    """Whether it is a file name like those we give."""
    return _NAME.fullmatch(model_id) is not None


def document_of(card: Card) -> dict[str, object]:
    """The card as the audit store keeps it."""
    return json.loads(card.model_dump_json())


def _damaged(path: Path, why: object) -> str:
    said = getattr(why, "strerror", None) or str(why).splitlines()[0]
    return f"{path} cannot be used: {said}; train it again, or roll back: trading-ops models rollback"


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
