"""What came of each prediction? Joined to realised outcomes alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from trading_ops.accuracy.outcomes import HOUR_US, outcomes

if TYPE_CHECKING:
    import pandas as pd

# what became of a prediction: joined to its outcome, or why not
JOINED, FLAT, MISSING, UNREALISED, SILENT = "joined", "flat", "missing", "unrealised", "silent"


def join_outcomes(said: pd.DataFrame, bars: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """`said` in order of realisation with `realised_us`, `up` (1.0, 0.0 or NaN) and `state`.

    `said`: a frame of predictions; `bars`: a sound candle frame of each symbol that has one, of complete bars. A
    prediction without a probability is silent, whatever came; one whose time has not come, or whose bars are not there
    yet, is unrealised; one across a missing bar, or without a move, is void.
    """
    joined = said.assign(realised_us=said["decided_us"] + said["horizon_hours"] * HOUR_US, up=np.nan, state=MISSING)
    up, state = joined["up"].to_numpy(copy=True), joined["state"].to_numpy(object, copy=True)
    for (symbol, horizon), rows in joined.groupby(["symbol", "horizon_hours"]).indices.items():
        frame = bars.get(symbol)
        if frame is None or frame.empty:
            state[rows] = UNREALISED
            continue
        times, close = frame.index.as_unit("us").asi8, frame["close"].to_numpy("float64")
        opened = joined["decided_us"].to_numpy()[rows] - HOUR_US
        at = np.minimum(np.searchsorted(times, opened), len(times) - 1)
        after = np.minimum(at + horizon, len(times) - 1)
        whole = (times[at] == opened) & (times[after] == opened + horizon * HOUR_US) & (after == at + horizon)
        up[rows] = np.where(whole, outcomes(frame, int(horizon)).up.to_numpy()[at], np.nan)
        ahead = opened + horizon * HOUR_US > times[-1]
        state[rows] = np.select(
            [ahead, whole & (close[after] == close[at]), whole], [UNREALISED, FLAT, JOINED], default=MISSING
        )
    silent = joined["probability_up"].isna().to_numpy()
    return joined.assign(up=np.where(silent, np.nan, up), state=np.where(silent, SILENT, state)).sort_values(
        ["realised_us", "name", "role", "model_id"], ignore_index=True
    )
