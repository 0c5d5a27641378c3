"""Is this the same search as that one, and would it be computed the same way?"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.metadata import version
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trading_ops.market.candles import digest_of
from trading_ops.optimization.periods import Split
from trading_ops.optimization.request import OptimizationRequest
from trading_ops.optimization.search import GRID, method_for

if TYPE_CHECKING:
    import pandas as pd

# what has no bearing on which sets are tried or what becomes of them, or is told by candles, days and space instead
NO_PART = {"threads", "start", "end", "space", "symbol"}
_RULES = (
    *(f"backtesting/{name}.py" for name in ("bars", "kernel", "orders", "scores")),
    "machine_code.py",
    "strategies",
    *(f"optimization/{name}.py" for name in ("moments", "proposals", "search", "space", "walk_forward")),
)
_LIBRARIES = ("numpy", "numba", "optuna", "TA-Lib")


def search_digest(request: OptimizationRequest, symbol: str, split: Split, candles: pd.DataFrame) -> str:
    """A name for everything a search is made of, 32 hex digits; `candles`: its bars, without those of the final period.

    By the same rules (`rules_digest`) the same digest means the same sets with the same figures. The final period's
    days belong to it, its prices do not.
    """
    space = {
        name: [None if isnan(value) else value for value in values]
        for name, values in request.search_space.values.items()
    }
    made_of = [
        what_bears(request),
        symbol,
        space,
        [split.search_days.tolist(), split.day_blocks.tolist(), split.final.days.tolist()],
        digest_of(candles),
    ]
    return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:32]


def what_bears(request: OptimizationRequest) -> dict[str, Any]:
    """Those settings that bear on what is found, beside candles, days and space."""
    # a whole grid is the same whatever proposes, and however many more sets were allowed
    whole = method_for(request.search_space, request.sets) == GRID
    return request.model_dump(exclude=NO_PART | ({"seed", "sets"} if whole else set()))


@cache
def rules_digest() -> str:
    """A hash of the code and libraries that propose and score sets: what other rules computed is not reused."""
    hasher = hashlib.sha256(" ".join(f"{name} {version(name)}" for name in _LIBRARIES).encode())
    package = Path(__file__).parents[1]
    for place in _RULES:
        path = package / place
        for module in [path] if path.suffix else sorted(path.glob("*.py")):
            hasher.update(module.read_bytes())
    return hasher.hexdigest()[:16]
