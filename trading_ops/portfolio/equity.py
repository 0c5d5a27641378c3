"""What was each strategy worth at the end of each UTC day?"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.bot.client import Bot, EquityHistory

PORTFOLIO = "portfolio"
SNAPSHOT_TOLERANCE = "15min"
UNEXPLAINED_JUMP = 0.01


@dataclass(frozen=True, slots=True)
class DailyEquity:
    """Wide frames in USDT by UTC day (midnight timestamps), one column a strategy and one for the whole `portfolio`.

    `equity` and `unrealised` are of the day's end, 24:00 UTC, NaN where no snapshot lies within 15 minutes; `flows`
    are the day's net deposits.
    """

    equity: pd.DataFrame
    unrealised: pd.DataFrame
    flows: pd.DataFrame


def read_daily_equity(bot: Bot, first_day: date, last_day: date) -> DailyEquity:
    """`daily_equity` of the snapshots the bot keeps."""
    start, end = (datetime.combine(day, time(), UTC) for day in (first_day, last_day + timedelta(days=2)))
    return daily_equity(bot.equity_history(start, end), first_day, last_day)


def daily_equity(history: EquityHistory, first_day: date, last_day: date) -> DailyEquity:
    """The snapshot nearest each day's end. The portfolio is known only where every strategy is."""
    import pandas as pd

    days = pd.date_range(first_day, last_day, freq="D", tz="UTC")
    equity, unrealised = (_at_day_ends(frame, days) for frame in (history.equity, history.unrealised))
    flows = history.flows.groupby(history.flows.index.floor("D")).sum()
    flows = flows.reindex(index=days, columns=equity.columns, fill_value=0.0)
    for frame in (equity, unrealised, flows):
        # min_count: an account of which nothing is known is unknown, not worth 0
        frame[PORTFOLIO] = frame.sum(axis=1, skipna=False, min_count=1)
    return DailyEquity(equity, unrealised, flows)


def strategies_of(trades: pd.DataFrame, daily: DailyEquity) -> list[str]:
    """Every strategy that has equity or trades, in this order: none is left out because one of them is unknown."""
    columns = [str(column) for column in daily.equity if column != PORTFOLIO]
    return list(dict.fromkeys([*columns, *sorted(map(str, trades["strategy"].unique()))]))


def _at_day_ends(snapshots: pd.DataFrame, days: pd.DatetimeIndex) -> pd.DataFrame:
    """For each strategy the finite snapshot nearest each day's end, within the tolerance."""
    import pandas as pd

    ends = days + pd.Timedelta(days=1)
    finite = snapshots.where(np.isfinite(snapshots.astype(float)))
    finite = finite[~finite.index.duplicated(keep="last")].sort_index()
    columns = {
        name: finite[name].dropna().reindex(ends, method="nearest", tolerance=SNAPSHOT_TOLERANCE).to_numpy()
        for name in finite
    }
    return pd.DataFrame(columns, index=days, dtype=float)


def trusted_returns(daily: DailyEquity, realised: pd.DataFrame) -> pd.DataFrame:
    """Daily returns (E_d - F_d) / E_{d-1} - 1, NaN where an equity is unknown or its jump is not explained.

    `realised`: net profit of the trades closed each day, the shape of `daily.equity`. A change that differs by more
    than 1 % of the equity from trades + marks + flows is unknown, never a return. The first day has no return.
    """
    equity = daily.equity.where((daily.equity >= 0) & np.isfinite(daily.equity))
    before = equity.shift().where(equity.shift() > 0)
    marks = (daily.unrealised - daily.unrealised.shift()).fillna(0.0)
    unexplained = (equity - before - daily.flows - realised - marks).abs() / before
    returns = (equity - daily.flows) / before - 1
    return returns.where(~(unexplained > UNEXPLAINED_JUMP))


def realised_by_day(trades: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    """Net profit of the trades closed each UTC day and strategy, shaped like `like`, 0 without trades."""
    pnl = trades.pivot_table(
        index=trades["closed_at"].dt.floor("D"), columns="strategy", values="pnl_usdt", aggfunc="sum"
    )
    realised = pnl.reindex(index=like.index, columns=like.columns).fillna(0.0)
    realised[PORTFOLIO] = realised.drop(columns=PORTFOLIO).sum(axis=1)
    return realised


def points_until(values: pd.DataFrame, scope: str, day: pd.Timestamp, length: int | None = None) -> np.ndarray:
    """The column's values up to and including `day`, the last `length` of them; none where there is no such column."""
    if scope not in values:
        return np.empty(0)
    column = values[scope].to_numpy(float)[: values.index.get_loc(day) + 1]
    return column if length is None else column[-length:]
