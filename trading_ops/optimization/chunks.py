"""What is kept of a search on disk, so that one that was killed goes on where it was?"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trading_ops.files import UNFINISHED, write_whole
from trading_ops.optimization.moments import Moments

KEPT_SEARCHES = 20
ABANDONED_S = 3600
_ARRAYS = ("places", "returns", "squares", "trades")


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some sets, as rows of places, and their moments; `seal` is a hash of them and of every chunk before."""

    places: np.ndarray
    moments: Moments
    seal: str


class ChunkFolder:
    """The chunks of one search, one file each, written atomically: a kill loses the one at work and no other.

    `identity` says whose they are (the search's digest and the engine's rules). A file that is damaged, from elsewhere
    or follows other chunks than it did is not believed; its chunk is computed again.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self._identity = identity

    def load(self, number: int, before: str, days: np.ndarray) -> Chunk | None:
        """Chunk `number` if its file is whole and follows the chunk sealed `before`; `days` are those of its blocks."""
        try:
            content = self._path(number).read_bytes()
        except OSError:
            return None
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                places, returns, squares, trades = (file[name] for name in _ARRAYS)
                seal = str(file["seal"])
        except Exception:  # noqa: BLE001  # one flipped bit makes numpy and zipfile raise nearly anything
            return None
        chunk = self._sealed(number, before, places, Moments(days, returns, squares, trades))
        return chunk if chunk.seal == seal else None

    def save(self, number: int, before: str, places: np.ndarray, moments: Moments) -> Chunk:
        """Seal the chunk and write it durably under its name. Raises FileNotWritten."""
        chunk = self._sealed(number, before, places, moments)
        image = io.BytesIO()
        np.savez(
            image,
            allow_pickle=False,
            seal=np.array(chunk.seal),
            places=chunk.places,
            returns=moments.returns,
            squares=moments.squares,
            trades=moments.trades,
        )
        write_whole(self._path(number), image.getvalue())
        return chunk

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.npz"

    def _sealed(self, number: int, before: str, places: np.ndarray, moments: Moments) -> Chunk:
        hasher = hashlib.sha256(json.dumps([self._identity, number, before]).encode())
        for array in (moments.days, places, moments.returns, moments.squares, moments.trades):
            hasher.update(f"{array.dtype.str}{array.shape}".encode())
            hasher.update(np.ascontiguousarray(array).tobytes())
        return Chunk(places, moments, hasher.hexdigest())


def tidy(folder: Path) -> None:
    """Keep the newest KEPT_SEARCHES searches in `folder`, and nothing half-written that a kill left an hour ago."""
    with suppress(OSError):
        searches = sorted((f for f in folder.iterdir() if f.is_dir()), key=lambda f: f.stat().st_mtime, reverse=True)
        for old in searches[KEPT_SEARCHES:]:
            shutil.rmtree(old, ignore_errors=True)
        for part in folder.glob(f"*/*{UNFINISHED}"):
            if time.time() - part.stat().st_mtime > ABANDONED_S:
                part.unlink()
