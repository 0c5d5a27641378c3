"""What was each strategy worth at the end of each UTC day?"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.bot.client import EquityHistory
    from trading_ops.bot.records import Portfolio

PORTFOLIO = "portfolio"
SNAPSHOT_TOLERANCE = "15min"
UNEXPLAINED_JUMP = 0.01


@dataclass(frozen=True, slots=True)
class DailyEquity:
    """Wide frames in USDT by UTC day (midnight timestamps), one column a strategy and one for the whole `portfolio`.

    `equity` and `unrealised` are of the day's end, 24:00 UTC, NaN where no snapshot lies within 15 minutes; `flows`
    are the day's net deposits. `closed_only` (bool) marks equity that was rebuilt from closed trades.
    """

    equity: pd.DataFrame
    unrealised: pd.DataFrame
    flows: pd.DataFrame
    closed_only: pd.DataFrame | None = None

    def since(self, day: date) -> DailyEquity:
        """From this UTC day on."""
        import pandas as pd

        first = pd.Timestamp(day, tz="UTC")
        flags = None if self.closed_only is None else self.closed_only.loc[first:]
        return DailyEquity(self.equity.loc[first:], self.unrealised.loc[first:], self.flows.loc[first:], flags)

    def rebuilt(self, scope: str, day: pd.Timestamp) -> bool:
        """Whether this equity leaves out open positions."""
        flags = self.closed_only
        return flags is not None and scope in flags and day in flags.index and bool(flags.at[day, scope])

    def comparable(self) -> pd.DataFrame:
        """The equity with rebuilt days raised by the share that open positions had when it was last known.

        So that a missed snapshot is no drawdown; before the first snapshot it is the first known share.
        """
        if self.closed_only is None or not self.closed_only.any(axis=None):
            return self.equity
        balance = self.equity - self.unrealised
        share = (self.equity / balance.where(balance > 0)).where(~self.closed_only)
        return self.equity.where(~self.closed_only, self.equity * share.ffill().bfill().fillna(1.0))


def daily_equity(history: EquityHistory, first_day: date, last_day: date) -> DailyEquity:
    """The snapshot nearest each day's end. The portfolio is the history's own column, or the sum of all strategies."""
    import pandas as pd

    days = pd.date_range(first_day, last_day, freq="D", tz="UTC")
    equity, unrealised = (at_day_ends(frame, days) for frame in (history.equity, history.unrealised))
    flows = history.flows.groupby(history.flows.index.floor("D")).sum() if len(history.flows) else history.flows[:0]
    names = dict.fromkeys([*map(str, equity.columns), *map(str, flows.columns)])
    flows = flows.reindex(index=days, columns=list(names)).fillna(0.0)
    for frame in (equity, unrealised, flows):
        if PORTFOLIO not in frame:
            # min_count: an account of which nothing is known is unknown, not worth 0
            frame[PORTFOLIO] = frame.sum(axis=1, skipna=False, min_count=1)
    return DailyEquity(equity, unrealised, flows, equity.isna() & False)


def rebuild(
    daily: DailyEquity, trades: pd.DataFrame, account: Portfolio, *, incomplete: Collection[str] = ()
) -> DailyEquity:
    """`daily` with each unknown day's end worth the start capital, the flows and the closed trades' profit since.

    `daily` begins with the bot's first day, `trades` are all it closed since, but on `incomplete` UTC days. Where a
    snapshot is known, the sum is set right by it for the days after (before the first one: by the first one), so that
    trades the bot forgot do not count. What is rebuilt leaves out open positions: it is marked `closed_only`, and its
    unrealised profit is unknown. Days before the first sign of life, and those that hang on an incomplete day, stay
    unknown.
    """
    import pandas as pd

    initial = pd.Series({**account.initial_by_strategy, PORTFOLIO: account.initial_usdt}, dtype=float)
    names = dict.fromkeys([*daily.equity.columns, *sorted(map(str, trades["strategy"].unique())), *initial.index])
    ordered = [name for name in names if name != PORTFOLIO] + [PORTFOLIO]
    equity, unrealised = (frame.reindex(columns=ordered) for frame in (daily.equity, daily.unrealised))
    flows = daily.flows.reindex(columns=ordered).fillna(0.0)
    realised = realised_by_day(trades, equity)

    known = equity - unrealised.fillna(0.0)
    # without a start capital any will do where a snapshot sets it right
    start = initial.reindex(ordered).fillna(known.notna().any().map({True: 0.0, False: np.nan}))
    closed = (realised + flows).cumsum() + start
    put_right = (known - closed).ffill().bfill().fillna(0.0)

    traded = equity.index.isin(trades["closed_at"].dt.floor("D"))
    lived = (equity.notna() | (flows != 0)).any(axis=1) | traded
    born = lived.idxmax() if lived.any() else equity.index[-1]
    sure = pd.DataFrame({name: _sure(known[name], incomplete) for name in ordered})
    there = np.asarray(equity.index >= born - pd.Timedelta(days=1))[:, None]
    rebuilt = (closed + put_right).where(equity.isna() & sure & there)
    return DailyEquity(equity.fillna(rebuilt), unrealised, flows, rebuilt.notna())


def _sure(known: pd.Series, incomplete: Collection[str]) -> pd.Series:
    """For each day, whether no incomplete one lies between it and the snapshot (or start) that it is counted from."""
    import pandas as pd

    doubts = pd.Series(known.index.strftime("%Y-%m-%d").isin(list(incomplete)), known.index).cumsum()
    at_known = doubts.where(known.notna())
    since, until = doubts - at_known.ffill(), at_known.bfill() - doubts
    return since.fillna(until if known.notna().any() else doubts) == 0


def strategies_of(trades: pd.DataFrame, daily: DailyEquity) -> list[str]:
    """Every strategy that has equity or trades, in this order: none is left out because one of them is unknown."""
    columns = [str(column) for column in daily.equity if column != PORTFOLIO]
    return list(dict.fromkeys([*columns, *sorted(map(str, trades["strategy"].unique()))]))


def at_day_ends(snapshots: pd.DataFrame, days: pd.DatetimeIndex) -> pd.DataFrame:
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
    than 1 % of the equity from trades + marks + flows is unknown, never a return; so is one between a day that counts
    open positions and one that leaves them out, unless there were none. The first day has no return.
    """
    equity = daily.equity.where((daily.equity >= 0) & np.isfinite(daily.equity))
    before = equity.shift().where(equity.shift() > 0)
    marks = (daily.unrealised - daily.unrealised.shift()).fillna(0.0)
    unexplained = (equity - before - daily.flows - realised - marks).abs() / before
    returns = (equity - daily.flows) / before - 1
    trusted = ~(unexplained > UNEXPLAINED_JUMP)
    if daily.closed_only is not None:
        flags = daily.closed_only.astype(bool)
        changed = flags != flags.shift().fillna(flags).astype(bool)
        open_profit = daily.unrealised.fillna(daily.unrealised.shift())
        trusted &= ~changed | (open_profit == 0)
    return returns.where(trusted)


def realised_by_day(trades: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    """Net profit of the trades closed each UTC day and strategy, shaped like `like`, 0 without trades.

    The portfolio's is that of all trades, also of strategies that are no column.
    """
    pnl = trades.pivot_table(
        index=trades["closed_at"].dt.floor("D"), columns="strategy", values="pnl_usdt", aggfunc="sum"
    )
    whole = pnl.sum(axis=1).reindex(like.index).fillna(0.0)
    return pnl.reindex(index=like.index, columns=like.columns).fillna(0.0).assign(**{PORTFOLIO: whole})


def points_until(values: pd.DataFrame, scope: str, day: pd.Timestamp, length: int | None = None) -> np.ndarray:
    """The column's values up to and including `day`, the last `length` of them; none where there is no such column."""
    if scope not in values:
        return np.empty(0)
    column = values[scope].to_numpy(float)[: values.index.get_loc(day) + 1]
    return column if length is None else column[-length:]
