"""Was the retrain worth it? The champion against the model it took the place of, on the same hours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trading_ops.accuracy import joining
from trading_ops.accuracy.bootstrap import mean_interval
from trading_ops.accuracy.scoring import accuracy, brier

if TYPE_CHECKING:
    import pandas as pd


def shadow_report(joined: pd.DataFrame) -> list[dict[str, Any]]:
    """Of each shadow whose outcomes came: both models' figures on the hours that both predicted, newest pair first.

    `joined`: recorded predictions as `join_outcomes` gives them; what was reconstructed later proves nothing here.
    Gains are the champion's: `brier_gain` = Brier of the shadow - Brier of the champion, `accuracy_gain_pp` in points,
    each with its 95 % interval over seven-day blocks of hours, None below 14 days. `worth_it` is yes or no where the
    interval of the Brier gain excludes 0, else not_shown, and too_early without an interval.
    """
    known = joined[(joined["state"] == joining.JOINED) & ~joined["reconstructed"]]
    champions = known[known["role"] == "champion"]
    shadows = known[known["role"] == "shadow"]
    if shadows.empty:
        return []
    pairs = shadows.merge(
        champions,
        left_on=["name", "against", "realised_us", "horizon_hours"],
        right_on=["name", "model_id", "realised_us", "horizon_hours"],
        suffixes=("", "_champion"),
    )
    found = [_compared(rows) for _, rows in pairs.groupby(["name", "model_id", "against"])]
    return sorted(found, key=lambda row: (row["until"], row["name"]), reverse=True)


def _compared(rows: pd.DataFrame) -> dict[str, Any]:
    up, times = rows["up"].to_numpy(), rows["realised_us"].to_numpy()
    old, new = rows["probability_up"].to_numpy(), rows["probability_up_champion"].to_numpy()
    better = (old - up) ** 2 - (new - up) ** 2
    righter = 100.0 * (((new > 0.5) == (up == 1.0)).astype(float) - ((old > 0.5) == (up == 1.0)))
    interval, points = mean_interval(better, times), mean_interval(righter, times)
    if interval is None:
        worth_it = "too_early"
    else:
        worth_it = "yes" if interval[0] > 0 else "no" if interval[1] < 0 else "not_shown"
    return {
        "name": rows["name"].iloc[0],
        "champion": rows["against"].iloc[0],
        "shadow": rows["model_id"].iloc[0],
        "since": _time(int(times.min())),
        "until": _time(int(times.max())),
        "n": len(rows),
        "accuracy_champion": accuracy(new, up),
        "accuracy_shadow": accuracy(old, up),
        "accuracy_gain_pp": float(righter.mean()),
        "accuracy_gain_interval_pp": None if points is None else list(points),
        "brier_champion": brier(new, up),
        "brier_shadow": brier(old, up),
        "brier_gain": float(better.mean()),
        "brier_gain_interval": None if interval is None else list(interval),
        "worth_it": worth_it,
    }


def _time(realised_us: int) -> str:
    import pandas as pd

    return pd.Timestamp(realised_us, unit="us", tz="UTC").isoformat()
