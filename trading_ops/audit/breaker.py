"""When may a store that failed be asked again?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from trading_ops.audit.store import StoreError, StoreUnavailable

_Result = TypeVar("_Result")


class Breaker:
    """After a failure nobody asks for `retry_after_s`; then one caller tries, and the others follow when it succeeds.

    It has no lock, which a fork could leave locked for ever: two threads may both try, which costs a timeout.
    """

    def __init__(self, clock: Callable[[], float], retry_after_s: float) -> None:
        self._clock = clock
        self._retry_after_s = retry_after_s
        self._retry_at = 0.0
        self.error: str | None = None  # the last failure, until something succeeds

    def error_now(self) -> str | None:
        """Why nobody may ask now, None when one may."""
        return self.error if self._clock() < self._retry_at else None

    def trip(self, error: str) -> None:
        """Something failed: leave it alone for a while."""
        self._retry_at, self.error = self._clock() + self._retry_after_s, error

    def call(self, ask: Callable[[], _Result]) -> _Result:
        """Ask; raises the last StoreUnavailable at once while nobody may."""
        if error := self.error_now():
            raise StoreUnavailable(error)
        if self.error:
            self._retry_at = self._clock() + self._retry_after_s
        try:
            result = ask()
        except StoreUnavailable as error:
            self.trip(str(error))
            raise
        except StoreError:  # it answers, though not what was hoped for
            self._reset()
            raise
        self._reset()
        return result

    def _reset(self) -> None:
        self._retry_at, self.error = 0.0, None
