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
    """All searches of a strategy and symbol so far. `variance`: of all trials' Sharpe ratios a day, of all searches.

    `looks`: searches of the symbol, whatever the strategy, that have shown results on a day of the asked final period,
    this one included.
    """

    searches: int
    trials: int
    variance: float
    looks: int


def count_trials(
    store: AuditStore,
    scope: str,
    strategy: str,
    digest: str,
    tried: int,
    sharpes: np.ndarray,
    *,
    judged: str,
    final: tuple[str, str],
) -> Trials:
    """Note this search down and tell what all of the strategy in `scope` (such as BTCUSDT/recorded) come to.

    The same search (digest) counts once, however often it is run, resumed, or run at the same time. `sharpes`: its
    trials' Sharpe ratios a day, NaN left out. `judged`: the first UTC day of its folds, whose results it shows.
    `final`: first and last UTC day of its final period. Raises StoreUnavailable.
    """
    known = sharpes[np.isfinite(sharpes)]
    body = {
        "trials": tried,
        "defined": len(known),
        "mean": float(known.mean()) if len(known) else 0.0,
        "squares": float(((known - known.mean()) ** 2).sum()) if len(known) else 0.0,
        "shown": [judged, final[1]],
    }
    with suppress(Conflict):  # counted already
        store.put_state(STATE, f"{scope}/{strategy}/{digest}", body, expected_version=0)
    every = store.list_state(STATE, f"{scope}/")
    looks = sum(d.body["shown"][0] <= final[1] and d.body["shown"][1] >= final[0] for d in every)
    return _sum([d.body for d in every if d.key.startswith(f"{scope}/{strategy}/")], looks)


def _sum(searches: list[dict[str, Any]], looks: int) -> Trials:
    defined = np.array([search["defined"] for search in searches], dtype=float)
    means = np.array([search["mean"] for search in searches])
    total = defined.sum()
    centre = (defined * means).sum() / total if total else 0.0
    # within and between: a narrow second search must not make the luck of the wide first one look small
    squares = sum(search["squares"] for search in searches) + (defined * (means - centre) ** 2).sum()
    return Trials(
        searches=len(searches),
        trials=sum(search["trials"] for search in searches),
        variance=float(squares / (total - 1)) if total > 1 else 0.0,
        looks=looks,
    )
