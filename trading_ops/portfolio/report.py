"""What did the account and each strategy earn on a day, and since the start?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from trading_ops.portfolio.equity import PORTFOLIO, DailyEquity, realised_by_day, strategies_of, trusted_returns

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.bot.records import Portfolio

NOTHING = {"pnl_usdt": 0.0, "fee_usdt": 0.0, "trades": 0, "wins": 0}


def report_days(
    trades: pd.DataFrame,
    daily: DailyEquity,
    account: Portfolio,
    days: Sequence[str],
    *,
    label: str,
    incomplete: Collection[str] = (),
) -> dict[str, dict[str, Any]]:
    """One document a UTC day: balance, equity, flows, returns and the per-strategy table, in USDT and percent.

    `trades`: closed trades of the days. `daily` begins with the bot's first day, so that flows since the start are
    known, or at least a day before the first of `days`; what it does not know is None. `account`: the start capital.
    `incomplete`: days with quarantined or missing trades.
    """
    import pandas as pd

    columns = [*strategies_of(trades, daily), PORTFOLIO]
    returns = trusted_returns(daily, realised_by_day(trades, daily.equity))
    figures = {
        name: frame.reindex(columns=columns).to_dict("index")
        for name, frame in (
            ("equity", daily.equity),
            ("unrealised", daily.unrealised),
            ("flows", daily.flows),
            ("paid_in", daily.flows.cumsum()),
            ("return", returns),
        )
    }
    initial = {**account.initial_by_strategy, PORTFOLIO: account.initial_usdt}
    traded = _sums(trades)
    documents = {}
    for day in days:
        at = pd.Timestamp(day, tz="UTC")
        rows = {
            scope: _row(
                {name: frame[at][scope] for name, frame in figures.items()},
                traded.get((day, scope), NOTHING),
                initial.get(scope),
                rebuilt=daily.rebuilt(scope, at),
            )
            for scope in columns
        }
        documents[day] = {
            "day": day,
            "candles": label,
            "outcome": "unknown"
            if rows[PORTFOLIO]["equity_usdt"] is None
            else "incomplete"
            if day in incomplete
            else "reported",
            **rows.pop(PORTFOLIO),
            "strategies": rows,
        }
    return documents


def _sums(trades: pd.DataFrame) -> dict[tuple[str, str], dict[str, float]]:
    """Profit, fees, trades and wins by (UTC day, strategy), and by (UTC day, portfolio)."""
    day = trades["closed_at"].dt.strftime("%Y-%m-%d")
    facts = trades.assign(day=day, trades=1, wins=trades["pnl_usdt"] > 0)
    pooled = facts.assign(strategy=PORTFOLIO)
    sums = {"pnl_usdt": "sum", "fee_usdt": "sum", "trades": "sum", "wins": "sum"}
    return {
        key: row
        for frame in (facts, pooled)
        for key, row in frame.groupby(["day", "strategy"]).agg(sums).to_dict("index").items()
    }


def _row(
    figures: dict[str, float], traded: dict[str, float], initial: float | None, *, rebuilt: bool
) -> dict[str, Any]:
    worth, open_profit = _known(figures["equity"]), _known(figures["unrealised"])
    day_return, paid_in = _known(figures["return"]), _known(figures["paid_in"]) or 0.0
    total, wins = int(traded["trades"]), int(traded["wins"])
    return {
        "equity_usdt": worth,
        "equity_basis": None if worth is None else "closed_only" if rebuilt else "mark_to_market",
        "balance_usdt": worth if rebuilt else None if worth is None or open_profit is None else worth - open_profit,
        "unrealised_usdt": open_profit,
        "net_flows_usdt": _known(figures["flows"]) or 0.0,
        "return_pct": None if day_return is None else 100 * day_return,
        "return_since_start_pct": None if worth is None or not initial else 100 * ((worth - paid_in) / initial - 1),
        "realised_pnl_usdt": float(traded["pnl_usdt"]),
        "fees_usdt": float(traded["fee_usdt"]),
        "total_trades": total,
        "winning_trades": wins,
        "win_rate_pct": 100.0 * wins / total if total else 0.0,
    }


def _known(value: float) -> float | None:
    return None if value != value else float(value)  # NaN is the only value that differs from itself
