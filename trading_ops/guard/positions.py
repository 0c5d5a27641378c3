"""How do closed trades become positions, and positions a losing streak?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class Log:
    """One strategy's trades and positions in order: times, profits, and the streak after each position."""

    closed_at: np.ndarray
    profits: np.ndarray
    flat_at: np.ndarray
    results: np.ndarray
    streaks: np.ndarray

    @classmethod
    def of(cls, trades: pd.DataFrame) -> Log:
        profits = trades["pnl_usdt"].to_numpy(float)
        if not np.isfinite(profits).all():
            row = int(np.argmin(np.isfinite(profits)))
            raise ValueError(f"trades row {row}: pnl_usdt is {profits[row]}; a finite number is needed")
        flat_at, results = positions(trades)
        closed_at = trades["closed_at"].to_numpy("datetime64[us]")
        order = np.argsort(closed_at, kind="stable")
        return cls(closed_at[order], profits[order], flat_at, results, losing_streaks(results))


def positions(trades: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(closed_at, profit) of each position, by (closed_at, id); the partial exits of one count once, at the last.

    >>> import pandas as pd
    >>> at = pd.to_datetime(["2025-03-01T01:00Z", "2025-03-01T02:00Z", "2025-03-01T03:00Z"])
    >>> frame = pd.DataFrame({"trade_id": list("abc"), "closed_at": at, "pnl_usdt": [-5.0, 8.0, 1.0],
    ...                       "position_id": ["p", "p", None]})
    >>> positions(frame)[1].tolist()
    [3.0, 1.0]
    """
    if trades.empty:
        return np.empty(0, "datetime64[us]"), np.empty(0)
    ordered = trades.sort_values(["closed_at", "trade_id"])
    # the prefixes keep a position from meeting a trade that happens to carry the same id
    identity = "t:" + ordered["trade_id"].astype(str)
    if "position_id" in ordered:
        known = ordered["position_id"].notna()
        identity = identity.where(~known, "p:" + ordered["position_id"].astype(str))
    grouped = ordered.groupby(identity.to_numpy(), sort=False).agg(
        closed_at=("closed_at", "last"), trade_id=("trade_id", "last"), profit=("pnl_usdt", "sum")
    )
    grouped = grouped.sort_values(["closed_at", "trade_id"])
    return grouped["closed_at"].to_numpy("datetime64[us]"), grouped["profit"].to_numpy(float)


def losing_streaks(profits: np.ndarray) -> np.ndarray:
    """Consecutive losses up to and including each position; a zero neither breaks nor extends the streak.

    >>> losing_streaks(np.array([-1.0, 0.0, -1.0, 2.0, -3.0])).tolist()
    [1, 1, 2, 0, 1]
    """
    losses = np.cumsum(profits < 0)
    at_last_win = np.maximum.accumulate(np.where(profits > 0, losses, 0)) if profits.size else losses
    return losses - at_last_win
