"""What is a shared audit store like whose server comes and goes?"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry, InvalidRecord, Receipt, StateDocument, StoreError, StoreUnavailable

UP, DOWN, READ_ONLY, DEAF, SILENT, BROKEN = "up", "down", "read-only", "deaf", "silent", "broken"


class UnreliableStore(SqliteStore):
    """A SQLite store in `folder` whose state is the content of the file `mode`, so that processes can share it.

    down: nothing works. read-only: writes fail. silent: what is written is stored, but the answer is lost. deaf: about
    every second append is silent. broken: appends fail with another StoreError.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "shared.db")
        self.asked: list[str] = []
        self.largest = 1_000_000  # bytes of a body; what is larger is refused for good
        self.writes_left: int | None = None  # so many more succeed
        self.lost = 0  # so many writes fail first
        self.during: Callable[[], object] | None = None
        self._mode = folder / "mode"

    def be(self, mode: str) -> None:
        """From now on it behaves like this."""
        beside = self._mode.with_suffix(".new")
        beside.write_text(mode)
        beside.replace(self._mode)

    def append(
        self,
        collection: str,
        entries: Sequence[Entry],
        *,
        recorded_at: datetime | None = None,
        revision: int | None = None,
    ) -> list[Receipt]:
        self._answer("append", writes=True)
        if any(len(str(entry.body)) > self.largest for entry in entries):
            raise InvalidRecord(f"a record may have {self.largest} bytes")
        receipts = super().append(collection, entries, recorded_at=recorded_at, revision=revision)
        if self.during:
            self.during()
        if self.mode == SILENT or (self.mode == DEAF and len(self.asked) % 2):
            raise StoreUnavailable("the answer was lost")
        return receipts

    def read(self, collection: str, **asked: Any) -> Any:
        self._answer("read")
        return super().read(collection, **asked)

    def get_state(self, collection: str, key: str) -> StateDocument | None:
        self._answer("get_state")
        return super().get_state(collection, key)

    def put_state(self, collection: str, key: str, body: Mapping[str, Any], *, expected_version: int) -> StateDocument:
        self._answer("put_state", writes=True)
        return super().put_state(collection, key, body, expected_version=expected_version)

    def together(self) -> AbstractContextManager[object]:
        return nullcontext()  # as a server's, which writes each at its time

    def list_state(self, collection: str, prefix: str = "") -> list[StateDocument]:
        self._answer("list_state")
        return super().list_state(collection, prefix)

    def heads(self) -> Any:
        self._answer("heads")
        return super().heads()

    @property
    def mode(self) -> str:
        return self._mode.read_text() if self._mode.exists() else UP

    def _answer(self, question: str, *, writes: bool = False) -> None:
        self.asked.append(question)
        if self.mode == DOWN:
            raise StoreUnavailable("shared.example: connection refused")
        if writes and self.mode == READ_ONLY:
            raise StoreUnavailable("shared.example: this user may only read")
        if writes and self.lost:
            self.lost -= 1
            raise StoreUnavailable("shared.example: one packet was lost")
        if writes and self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:
                raise StoreUnavailable("shared.example: connection reset")
        if writes and self.mode == BROKEN:
            raise StoreError("shared.example: a record is damaged")
