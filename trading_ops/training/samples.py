"""Which windows can a model learn from, and in what shape?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from trading_ops.accuracy.outcomes import HOUR_US

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LOOKBACK = 48  # bars of a window


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """A symbol's bars as a model sees them: row r is decided at the close of bar r, from the window ending with it.

    `times` int64 [n], the bars' opens in microseconds since 1970 UTC, ascending; `features` float32 [n, k], unscaled,
    NaN where unknown; `labels` float32 [n], 1 up, 0 down, NaN void or not realised. Scaling belongs to the model.
    """

    symbol: str
    names: tuple[str, ...]
    times: np.ndarray
    features: np.ndarray
    labels: np.ndarray
    lookback: int = LOOKBACK
    horizon: int = 1

    def decidable(self) -> np.ndarray:
        """The rows whose window is whole: bars on consecutive hours, every feature known. int64, ascending."""
        n = len(self.times)
        if n < self.lookback:
            return np.empty(0, dtype="int64")
        span = self.lookback - 1
        whole = self.times[span:] - self.times[: n - span] == span * HOUR_US
        unknown = np.concatenate([[0], np.cumsum(~np.isfinite(self.features).all(axis=1))])
        known = unknown[self.lookback :] == unknown[: n - span]
        return np.flatnonzero(whole & known) + span

    def learnable(self, start: datetime | None = None, end: datetime | None = None) -> np.ndarray:
        """The decidable rows with a label: decided from `start` on, their outcome known by `end`."""
        rows = self.decidable()
        rows = rows[np.isfinite(self.labels[rows])]
        decided = self.times[rows] + HOUR_US
        keep = np.ones(len(rows), dtype=bool)
        if start is not None:
            keep &= decided >= _us(start)
        if end is not None:
            keep &= decided + self.horizon * HOUR_US <= _us(end)
        return rows[keep]

    def decided_at(self, row: int) -> datetime:
        """The close of bar `row`, UTC: the moment its prediction is made."""
        return EPOCH + timedelta(microseconds=int(self.times[row]) + HOUR_US)


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
