"""What did the account and each strategy earn on a day, and since the start?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trading_ops.portfolio.equity import PORTFOLIO, DailyEquity, realised_by_day, trusted_returns

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.bot.records import Portfolio


def report_days(
    trades: pd.DataFrame, daily: DailyEquity, account: Portfolio, days: Sequence[str], *, label: str
) -> dict[str, dict[str, Any]]:
    """One document a UTC day: balance, equity, flows, returns and the per-strategy table, in USDT and percent.

    `trades`: closed trades of the days. `daily` begins with the bot's first day, so that flows since the start are
    known, or at least a day before the first of `days`; what it does not know is None. `account`: the start capital.
    """
    import pandas as pd

    realised = realised_by_day(trades, daily.equity)
    returns = trusted_returns(daily, realised)
    paid_in = daily.flows.cumsum()
    initial = {**account.initial_by_strategy, PORTFOLIO: account.initial_usdt}
    by_day = dict(list(trades.groupby(trades["closed_at"].dt.strftime("%Y-%m-%d"))))
    none = trades.iloc[:0]
    documents = {}
    for day in days:
        at = pd.Timestamp(day, tz="UTC")
        traded = by_day.get(day, none)
        rows = {
            str(scope): _row(
                traded if scope == PORTFOLIO else traded[traded["strategy"] == scope],
                equity=daily.equity.at[at, scope],
                unrealised=daily.unrealised.at[at, scope],
                flows=daily.flows.at[at, scope],
                paid_in=paid_in.at[at, scope],
                return_fraction=returns.at[at, scope],
                initial=initial.get(str(scope)),
            )
            for scope in daily.equity
        }
        documents[day] = {
            "day": day,
            "candles": label,
            "outcome": "unknown" if rows[PORTFOLIO]["equity_usdt"] is None else "reported",
            **rows.pop(PORTFOLIO),
            "strategies": rows,
        }
    return documents


def _row(
    traded: pd.DataFrame,
    *,
    equity: float,
    unrealised: float,
    flows: float,
    paid_in: float,
    return_fraction: float,
    initial: float | None,
) -> dict[str, Any]:
    wins, total = int((traded["pnl_usdt"] > 0).sum()), len(traded)
    worth, open_profit, day_return = _known(equity), _known(unrealised), _known(return_fraction)
    return {
        "equity_usdt": worth,
        "balance_usdt": None if worth is None or open_profit is None else worth - open_profit,
        "unrealised_usdt": open_profit,
        "net_flows_usdt": float(flows),
        "return_pct": None if day_return is None else 100 * day_return,
        "return_since_start_pct": None if worth is None or not initial else 100 * ((worth - paid_in) / initial - 1),
        "realised_pnl_usdt": float(traded["pnl_usdt"].sum()),
        "fees_usdt": float(traded["fee_usdt"].sum()),
        "total_trades": total,
        "winning_trades": wins,
        "win_rate_pct": 100.0 * wins / total if total else 0.0,
    }


def _known(value: float) -> float | None:
    return None if value != value else float(value)  # NaN is the only value that differs from itself
