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
    ends = days + pd.Timedelta(days=1)
    frames = [
        frame.reindex(ends, method="nearest", tolerance=SNAPSHOT_TOLERANCE).set_axis(days)
        for frame in (history.equity, history.unrealised)
    ]
    flows = history.flows.groupby(history.flows.index.floor("D")).sum().reindex(days, fill_value=0.0)
    flows = flows.reindex(columns=history.equity.columns, fill_value=0.0)
    for frame in (*frames, flows):
        frame[PORTFOLIO] = frame.sum(axis=1, skipna=False)
    return DailyEquity(frames[0], frames[1], flows)


def trusted_returns(daily: DailyEquity, realised: pd.DataFrame) -> pd.DataFrame:
    """Daily returns (E_d - F_d) / E_{d-1} - 1, NaN where an equity is unknown or its jump is not explained.

    `realised`: net profit of the trades closed each day, the shape of `daily.equity`. A change that differs by more
    than 1 % of the equity from trades + marks + flows is unknown, never a return. The first day has no return.
    """
    equity = daily.equity.where(daily.equity > 0)
    before = equity.shift()
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
    """The column's values up to and including `day`, the last `length` of them."""
    column = values[scope].to_numpy(float)[: values.index.get_loc(day) + 1]
    return column if length is None else column[-length:]
