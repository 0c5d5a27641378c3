"""Does the compiled engine do, bar for bar, what the plainest loop over the rules of docs/backtests.md does?

`plain_backtest` is the reference: slow, obvious, written from docs/backtests.md alone, in plain Python
numbers; it shares no code with the engine. Signals are taken as given; their own reference is in test_signals.py.
"""

from dataclasses import dataclass, replace
from math import floor

import numpy as np
import pandas as pd
import pytest

from trading_ops.backtesting.engine import BacktestResult, backtest, trade_signals
from trading_ops.backtesting.orders import AT_ONCE, Costs, Execution
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
    funding: float = 0.0


def plain_backtest(
    frame, entries, exits, costs: Costs, stop_loss_pct, take_profit_pct, allowed, execution: Execution = AT_ONCE
):
    """Every rule in the order of the day: the open, the bar, the close."""
    rows = frame.reset_index().to_dict("records")
    fee_rate, slip = costs.fee_pct / 100, costs.slippage_pct / 100
    long = execution.side == "long"
    sign = 1 if long else -1
    cash, position = 10_000.0, None  # cash while a position is held: what is left beside what it is worth
    order = None  # (the bar at whose open it fills, what for)
    trades, equity, rejected = [], [], 0

    def close(price: float, bar: int, reason: str) -> None:
        nonlocal cash, position, order
        fee = price * position.quantity * fee_rate
        if reason == "liquidation" or cash + sign * price * position.quantity - fee <= 0:
            price, fee, reason = -sign * cash / position.quantity, 0.0, "liquidation"  # no more is lost than there is
        cash = 0.0 if reason == "liquidation" else cash + sign * price * position.quantity - fee
        paid = position.fee + fee
        profit = sign * (price - position.price) * position.quantity - paid - position.funding
        trades.append((position.bar, bar, position.price, price, position.quantity, paid, profit, reason))
        position, order = None, None

    for i, bar in enumerate(rows):
        # Funding is due from who holds at 00:00, 08:00 and 16:00; after missing bars at the next real open.
        if position is not None:
            hours = [int(rows[k]["time"].timestamp()) // 3600 for k in (i - 1, i)]
            times = sum(hour % 8 == 0 for hour in range(hours[0] + 1, hours[1] + 1))
            due = sign * position.quantity * bar["open"] * costs.funding_pct / 100 * times
            position.funding += due
            cash -= due
        # The open: an order that is due is filled. One given at the last bar never gets here.
        if order is not None and order[0] == i and order[1] == "exit":
            close(bar["open"] * (1 - sign * slip), i, "signal")
        elif order is not None and order[0] == i:
            order = None
            price = bar["open"] * (1 + sign * slip)
            quantity = cash * execution.equity_pct / 100 / (price + price * fee_rate)
            if costs.lot_step is not None:
                quantity = floor(quantity / costs.lot_step + 1e-9) * costs.lot_step
            if quantity == 0 or (costs.min_notional_usdt is not None and quantity * price < costs.min_notional_usdt):
                rejected += 1
            else:
                fee = quantity * price * fee_rate
                cash = cash - sign * quantity * price - fee
                position = Position(i, price, quantity, fee)
        # The bar: stop and target are live, from the entry bar on, and a short can lose everything.
        if position is not None:
            stop = None if stop_loss_pct is None else position.price * (100 - sign * stop_loss_pct) / 100
            target = None if take_profit_pct is None else position.price * (100 + sign * take_profit_pct) / 100
            broke = -sign * cash / position.quantity if costs.funding_pct or not long else None
            later = i > position.bar
            opened = bar["open"]
            against, favour = (bar["low"], bar["high"]) if long else (bar["high"], bar["low"])

            def beyond(price, level, away):
                """Whether the price is at or past the level, against us (away = -1) or in our favour (1)."""
                return level is not None and sign * away * (price - level) >= 0

            if beyond(opened, broke, -1):
                close(broke, i, "liquidation")
            elif beyond(opened, stop, -1):  # a gap beyond the stop fills at the open
                close(opened * (1 - sign * slip), i, "stop_loss")
            elif later and beyond(opened, target, 1):  # a gap beyond the target, at the target
                close(target, i, "take_profit")
            elif beyond(against, stop, -1) and (broke is None or sign * (stop - broke) >= 0):  # both touched: the stop
                close(stop * (1 - sign * slip), i, "stop_loss")
            elif beyond(against, broke, -1):
                close(broke, i, "liquidation")
            elif beyond(favour, target, 1):
                close(target, i, "take_profit")
        # The close: marked, and decided.
        equity.append(cash if position is None else cash + sign * position.quantity * bar["close"])
        due = i + 1 + execution.latency_bars
        may = position is not None or due >= len(rows) or allowed[due]
        if order is None and may and (entries[i] if position is None else exits[i]):
            order = (due, "entry" if position is None else "exit")
    if position is not None:
        last = rows[-1]["close"]
        profit = sign * (last - position.price) * position.quantity - position.fee - position.funding
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


def random_execution(random: np.random.Generator) -> Execution:
    side, market = [("long", "spot"), ("long", "futures"), ("short", "futures")][random.integers(3)]
    return Execution(side, market, int(random.integers(4)), float(random.choice([100.0, 60.0, random.uniform(1, 100)])))


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
        execution = random_execution(random)
        if execution.market == "futures":
            costs = replace(costs, funding_pct=float(random.uniform(-0.5, 0.5)))
        reference = plain_backtest(frame, entries, exits, costs, stop, target, allowed, execution)
        result = trade_signals(frame, entries, exits, costs, **limits, entries_allowed=allowed, execution=execution)
        assert_same(result, reference, frame)
        rejected += reference[2]
        for trade in reference[0]:
            seen[trade[-1]] = seen.get(trade[-1], 0) + 1
    assert min(seen[reason] for reason in ("signal", "stop_loss", "take_profit", "open_at_end")) > 30
    assert rejected > 50


def test_shorts_into_rising_prices_are_liquidated_as_a_person_would_work_it_out():
    liquidated = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        frame = random_path(random)
        rise = np.linspace(1.0, random.uniform(2, 6), len(frame))
        for name in ("open", "high", "low", "close"):
            frame[name] *= rise
        costs = replace(random_costs(random), funding_pct=float(random.uniform(-0.5, 0.5)))
        stop = [None, 90.0][random.integers(2)]
        entries, exits = random.random((2, len(frame))) < np.array([[0.3], [0.01]])
        execution = Execution("short", "futures", int(random.integers(3)))
        allowed = np.ones(len(frame), bool)
        reference = plain_backtest(frame, entries, exits, costs, stop, None, allowed, execution)
        result = trade_signals(frame, entries, exits, costs, stop_loss_pct=stop, execution=execution)
        assert_same(result, reference, frame)
        liquidated += sum(trade[-1] == "liquidation" for trade in reference[0])
        assert (result.equity > -1e-6).all()
    assert liquidated > 10
