"""Did the price rise? The label a model learns, and the outcome its prediction is joined to: one definition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

HOUR_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Outcomes:
    """`up` by the open of the bar at whose close it is predicted: 1.0 rise, 0.0 fall, NaN void; and why void.

    The counts are of bars: `flat` did not move, of `missing` a bar on the way is not there, `unrealised` lie ahead.
    """

    up: pd.Series
    flat: int
    missing: int
    unrealised: int


def outcomes(candles: pd.DataFrame, horizon: int = 1) -> Outcomes:
    """Direction of the close over the next `horizon` hours: sign(close[t + h] - close[t]), void across missing bars.

    `candles`: a sound candle frame. Raises ValueError for a horizon below 1.
    """
    import pandas as pd

    if horizon < 1:
        raise ValueError(f"horizon is {horizon!r}; a whole number of hours from 1 would be right")
    times, close = candles.index.as_unit("us").asi8, candles["close"].to_numpy("float64")
    up = np.full(len(close), np.nan)
    ahead = len(close) - horizon
    if ahead <= 0:
        return Outcomes(pd.Series(up, candles.index, name="up"), 0, 0, len(close))
    whole = times[horizon:] - times[:ahead] == horizon * HOUR_US
    moved = close[horizon:] - close[:ahead]
    up[:ahead] = np.where(whole & (moved != 0.0), (moved > 0.0).astype("float64"), np.nan)
    # near the end a bar may be missing as well as ahead: what lies ahead may still come
    return Outcomes(
        pd.Series(up, candles.index, name="up"),
        flat=int((whole & (moved == 0.0)).sum()),
        missing=int((~whole).sum()),
        unrealised=horizon,
    )
