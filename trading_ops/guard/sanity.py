"""Can a trade that is right by its own figures be true at all?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

AHEAD = timedelta(minutes=5)  # what clocks may differ by
MOST_LEVERAGE = 125.0  # no exchange lends more on what is there
MOST_CHANGE = 10.0  # times, of the price between entry and exit


def impossible(trade: Mapping[str, Any], now: datetime, equity_usdt: float | None) -> str | None:
    """Why a believed trade cannot be true; None where it can. `now`: the latest that can have happened.

    `equity_usdt`: what stood behind the trade when it was opened, None: unknown; never less, such as what it left over.

    What the row contradicts in itself is quarantined before, by trading_ops/bot/records.py.
    """
    if trade["closed_at"] > now + AHEAD:
        return f"it closed at {trade['closed_at']}, ahead of the bot's clock"
    change = max(trade["exit_price"] / trade["entry_price"], trade["entry_price"] / trade["exit_price"])
    if change > MOST_CHANGE:
        return f"the price changed {change:.0f}-fold, from {trade['entry_price']:g} to {trade['exit_price']:g}"
    notional = trade["quantity"] * trade["entry_price"]
    if equity_usdt is not None and equity_usdt > 0 and notional > MOST_LEVERAGE * equity_usdt:
        times = notional / equity_usdt
        return f"its {notional:,.0f} USDT are {times:.0f} times the strategy's equity of {equity_usdt:,.0f}"
    return None
