"""Does the compiled engine do, bar for bar, what the plainest loop over DESIGN.md's rules does?

`plain_backtest` is the reference: slow, obvious, written from DESIGN.md section 4 "Backtest" alone, in plain Python
numbers; it shares no code with the engine. Signals are taken as given; their own reference is in test_signals.py.
"""

from dataclasses import dataclass
from math import floor

import numpy as np
import pandas as pd
import pytest

from trading_ops.backtesting.engine import BacktestResult, Costs, backtest, trade_signals
from trading_ops.strategies.signals import signals

PATHS = 200
SHORT = {
    "rsi": {"period": 4, "oversold": 40.0, "overbought": 60.0},
    "macd": {"fast": 3, "slow": 6, "signal": 3},
    "bollinger": {"period": 5, "deviations": 1.2},
    "volume": {"period": 4, "multiplier": 1.3},
}


@dataclass
class Position:
    bar: int
    price: float
    quantity: float
    fee: float


def plain_backtest(frame, entries, exits, costs: Costs, stop_loss_pct, take_profit_pct, allowed):
    """Every rule in the order of the day: the open, the bar, the close."""
    rows = frame.reset_index().to_dict("records")
    fee_rate, slip = costs.fee_pct / 100, costs.slippage_pct / 100
    cash, position = 10_000.0, None
    trades, equity, rejected = [], [], 0

    def sell(price: float, bar: int, reason: str) -> None:
        nonlocal cash, position
        fee = price * position.quantity * fee_rate
        cash = cash + price * position.quantity - fee
        paid = position.fee + fee
        profit = (price - position.price) * position.quantity - paid
        trades.append((position.bar, bar, position.price, price, position.quantity, paid, profit, reason))
        position = None

    for i, bar in enumerate(rows):
        was_flat = position is None
        # The open: the signal of the bar before is filled. A signal on the last bar never gets here.
        if i > 0 and not was_flat and exits[i - 1]:
            sell(bar["open"] * (1 - slip), i, "signal")
        elif i > 0 and was_flat and entries[i - 1] and allowed[i]:
            price = bar["open"] * (1 + slip)
            quantity = cash / (price + price * fee_rate)
            if costs.lot_step is not None:
                quantity = floor(quantity / costs.lot_step + 1e-9) * costs.lot_step
            if quantity == 0 or (costs.min_notional_usdt is not None and quantity * price < costs.min_notional_usdt):
                rejected += 1
            else:
                fee = quantity * price * fee_rate
                cash = cash - quantity * price - fee
                position = Position(i, price, quantity, fee)
        # The bar: stop and target are live, from the entry bar on.
        if position is not None:
            stop = None if stop_loss_pct is None else position.price * (100 - stop_loss_pct) / 100
            target = None if take_profit_pct is None else position.price * (100 + take_profit_pct) / 100
            later = i > position.bar
            if stop is not None and bar["open"] <= stop:  # a gap beyond the stop fills at the open
                sell(bar["open"] * (1 - slip), i, "stop_loss")
            elif later and target is not None and bar["open"] >= target:  # a gap beyond the target, at the target
                sell(target, i, "take_profit")
            elif stop is not None and bar["low"] <= stop:  # both touched: the stop
                sell(stop * (1 - slip), i, "stop_loss")
            elif target is not None and bar["high"] >= target:
                sell(target, i, "take_profit")
        # The close: marked.
        equity.append(cash if position is None else cash + position.quantity * bar["close"])
    if position is not None:
        last = rows[-1]["close"]
        profit = (last - position.price) * position.quantity - position.fee
        entry = (position.bar, len(rows) - 1, position.price, last, position.quantity, position.fee, profit)
        trades.append((*entry, "open_at_end"))
    return trades, equity, rejected


def random_path(random: np.random.Generator) -> pd.DataFrame:
    """80 to 200 bars with price gaps between close and open, and missing hours."""
    count = int(random.integers(80, 200))
    noise = random.choice([0.003, 0.01, 0.03])
    opened, rows = 100.0, []
    for _ in range(count):
        close = opened * np.exp(random.normal(0, noise))
        high = max(opened, close) * (1 + abs(random.normal(0, noise / 2)))
        low = min(opened, close) * (1 - min(abs(random.normal(0, noise / 2)), 0.5))
        rows.append((opened, high, low, close, random.lognormal(0, 0.6)))
        gap = random.normal(0, 4 * noise) if random.random() < 0.15 else 0.0
        opened = close * np.exp(gap)
    hours = np.cumsum(np.where(random.random(count) < 0.03, random.integers(2, 9, count), 1))
    index = pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(hours, unit="h")
    return pd.DataFrame(rows, index=index.rename("time"), columns=["open", "high", "low", "close", "volume"])


def random_costs(random: np.random.Generator) -> Costs:
    return Costs(
        fee_pct=float(random.choice([0.0, 0.1, random.uniform(0, 2)])),
        slippage_pct=float(random.choice([0.0, 0.05, random.uniform(0, 1)])),
        lot_step=[None, 0.001, 0.37, 5.0][random.integers(4)],
        min_notional_usdt=[None, 10.0, 9_800.0][random.integers(3)],
    )


def assert_same(result: BacktestResult, reference: tuple, frame: pd.DataFrame) -> None:
    trades, equity, rejected = reference
    assert result.equity.to_numpy() == pytest.approx(np.array(equity), rel=1e-9)
    assert result.rejected_orders == rejected
    assert len(result.trades) == len(trades)
    for row, (entered, left, entry, fill, quantity, fee, profit, reason) in zip(
        result.trades.to_dict("records"), trades, strict=True
    ):
        at_end = reason == "open_at_end"
        assert row["close_reason"] == reason
        assert row["open_at_end"] == at_end
        assert row["entry_time"] == frame.index[entered]
        assert row["exit_time"] == frame.index[left] + pd.Timedelta(hours=1 if at_end else 0)
        ours = [row[name] for name in ("entry_price", "exit_price", "quantity", "fee_usdt")]
        assert ours == pytest.approx([entry, fill, quantity, fee], rel=1e-9)
        assert row["pnl_usdt"] == pytest.approx(profit, rel=1e-9, abs=1e-7)
    closed = [trade for trade in trades if trade[-1] != "open_at_end"]
    assert result.total_trades == len(closed)
    if closed:
        assert result.win_rate_pct == pytest.approx(100 * sum(trade[6] > 0 for trade in closed) / len(closed))
    assert result.total_return_pct == pytest.approx(100 * (equity[-1] / 10_000 - 1), rel=1e-9, abs=1e-9)


def test_two_hundred_random_paths_agree_bar_for_bar():
    seen: dict[str, int] = {}
    rejected = 0
    for seed in range(PATHS):
        random = np.random.default_rng(seed)
        frame, costs = random_path(random), random_costs(random)
        stop = [None, 0.5, 2.0, random.uniform(0.1, 8)][random.integers(4)]
        target = [None, 0.5, 3.0, random.uniform(0.1, 8)][random.integers(4)]
        allowed = np.ones(len(frame), bool) if seed % 3 else random.random(len(frame)) < 0.7
        strategy = list(SHORT)[seed % 4]
        limits = {"stop_loss_pct": stop, "take_profit_pct": target}
        reference = plain_backtest(frame, *signals(frame, strategy, SHORT[strategy]), costs, stop, target, allowed)
        result = backtest(frame, strategy, SHORT[strategy] | limits, costs, entries_allowed=allowed)
        assert_same(result, reference, frame)

        entries, exits = random.random((2, len(frame))) < 0.3  # denser than any strategy, and clashing
        reference = plain_backtest(frame, entries, exits, costs, stop, target, allowed)
        result = trade_signals(frame, entries, exits, costs, **limits, entries_allowed=allowed)
        assert_same(result, reference, frame)
        rejected += reference[2]
        for trade in reference[0]:
            seen[trade[-1]] = seen.get(trade[-1], 0) + 1
    assert min(seen[reason] for reason in ("signal", "stop_loss", "take_profit", "open_at_end")) > 30
    assert rejected > 50
