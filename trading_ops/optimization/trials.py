"""How many sets were ever tried for this strategy and symbol, and how often was a final period looked at?"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from trading_ops.audit.store import AuditStore, Conflict

STATE = "optimization_trials"


@dataclass(frozen=True)
class Trials:
    """All searches of a scope so far. `variance`: of all trials' Sharpe ratios a day, one search's or another's.

    `looks`: searches whose final period shares a day with the asked one, this one included.
    """

    searches: int
    trials: int
    variance: float
    looks: int


def count_trials(
    store: AuditStore, scope: str, digest: str, tried: int, sharpes: np.ndarray, final: tuple[str, str]
) -> Trials:
    """Note this search down and tell what all of `scope` (such as rsi/BTCUSDT/recorded) come to.

    The same search (digest) counts once, however often it is run, resumed, or run at the same time. `sharpes`: its
    trials' Sharpe ratios a day, NaN left out. `final`: first and last UTC day of its final period.
    Raises StoreUnavailable.
    """
    known = sharpes[np.isfinite(sharpes)]
    body = {
        "trials": tried,
        "defined": len(known),
        "mean": float(known.mean()) if len(known) else 0.0,
        "squares": float(((known - known.mean()) ** 2).sum()) if len(known) else 0.0,
        "final": list(final),
    }
    with suppress(Conflict):  # counted already
        store.put_state(STATE, f"{scope}/{digest}", body, expected_version=0)
    return _sum([document.body for document in store.list_state(STATE, f"{scope}/")], final)


def _sum(searches: list[dict[str, Any]], final: tuple[str, str]) -> Trials:
    defined = np.array([search["defined"] for search in searches], dtype=float)
    means = np.array([search["mean"] for search in searches])
    total = defined.sum()
    centre = (defined * means).sum() / total if total else 0.0
    # within and between: a narrow second search must not make the luck of the wide first one look small
    squares = sum(search["squares"] for search in searches) + (defined * (means - centre) ** 2).sum()
    first, last = final
    return Trials(
        searches=len(searches),
        trials=sum(search["trials"] for search in searches),
        variance=float(squares / (total - 1)) if total > 1 else 0.0,
        looks=sum(search["final"][0] <= last and search["final"][1] >= first for search in searches),
    )
