"""What if the store cannot even be opened? Then whoever asks it is told so, each time, and it may be back the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from trading_ops.audit.store import AuditStore


class _Late:
    def __init__(self, store: Callable[[], AuditStore]) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store(), name)


def late(store: Callable[[], AuditStore]) -> AuditStore:
    """A store that is opened when it is asked; its methods also raise what opening it raises."""
    return cast("AuditStore", _Late(store))
