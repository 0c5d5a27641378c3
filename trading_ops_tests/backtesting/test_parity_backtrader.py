"""Does the engine place every order that backtrader places: the same bar, side, price, quantity and fee?

backtrader computes indicators of its own and walks bar by bar. What it decides at a close it orders at the next open
(cheat-on-open), so that it can size an order by the price that fills it, as our rule of all the equity asks.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import backtrader as bt
import numpy as np
import pandas as pd
import pytest

from trading_ops.backtesting.engine import BacktestResult, backtest
from trading_ops.backtesting.orders import Costs

COSTS = Costs(fee_pct=0.1, slippage_pct=0.05)
SETTLED = 600  # bars until an exponential average has forgotten how it started: (1 - 2 / 27) ** 600 is below 1e-20
HALF_YEAR = 4_380


class Fill(NamedTuple):
    time: pd.Timestamp  # open of the bar
    side: str
    price: float
    quantity: float
    fee_usdt: float


class AllIn(bt.Strategy):
    """Buys with all the money and sells it all; `lines_of` makes the indicators and answers the two rules."""

    params = (("lines_of", None), ("parameters", {}))

    def __init__(self) -> None:
        self.enters, self.leaves = self.p.lines_of(self.data, **self.p.parameters)
        self.wanted = (False, False)
        self.fills: list[Fill] = []

    def next(self) -> None:
        self.wanted = (self.enters(), self.leaves())

    def next_open(self) -> None:
        enter, leave = self.wanted
        if self.position:
            if leave:
                self.close()
        elif enter and len(self.data) > SETTLED:
            price = self.data.open[0] * (1 + COSTS.slippage_pct / 100)
            # a trillionth less than all, since backtrader refuses an order that rounding puts above the money
            self.buy(size=self.broker.getcash() / (price * (1 + COSTS.fee_pct / 100)) * (1 - 1e-12))

    def notify_order(self, order: bt.Order) -> None:
        assert order.status not in (order.Margin, order.Rejected, order.Canceled, order.Expired)
        if order.status == order.Completed:
            done = order.executed
            time = pd.Timestamp(bt.num2date(done.dt), tz="UTC").round("s")
            self.fills.append(Fill(time, "buy" if order.isbuy() else "sell", done.price, abs(done.size), done.comm))


# The rules of each strategy; [0] is the bar that closes now, [-1] the one before.
def rsi(data, period: int, oversold: float, overbought: float):
    line = bt.indicators.RSI_Safe(data.close, period=period)
    return (lambda: line[-1] >= oversold > line[0]), (lambda: line[-1] <= overbought < line[0])


def macd(data, fast: int, slow: int, signal: int):
    line = bt.indicators.MACD(data.close, period_me1=fast, period_me2=slow, period_signal=signal)

    def gap(ago: int) -> float:
        return line.macd[ago] - line.signal[ago]

    return (lambda: gap(-1) <= 0 < gap(0)), (lambda: gap(-1) >= 0 > gap(0))


def bollinger(data, period: int, deviations: float):
    bands, close = bt.indicators.BollingerBands(data.close, period=period, devfactor=deviations), data.close
    return (
        lambda: close[-1] >= bands.bot[-1] and close[0] < bands.bot[0],
        lambda: close[-1] <= bands.mid[-1] and close[0] > bands.mid[0],
    )


def volume(data, period: int, multiplier: float):
    usual = bt.indicators.SMA(data.volume, period=period)
    mean, close = bt.indicators.SMA(data.close, period=period), data.close

    def spike() -> bool:
        return data.volume[0] > multiplier * usual[-1]

    return (
        lambda: spike() and close[0] > data.open[0],
        lambda: (spike() and close[0] < data.open[0]) or (close[-1] >= mean[-1] and close[0] < mean[0]),
    )


def in_backtrader(frame: pd.DataFrame, lines_of: Callable, parameters: dict) -> tuple[list[Fill], float]:
    """Its fills, and what the account is worth at the last close."""
    cerebro = bt.Cerebro(cheat_on_open=True, stdstats=False)
    cerebro.adddata(bt.feeds.PandasData(dataname=frame.tz_localize(None), timeframe=bt.TimeFrame.Minutes))
    cerebro.addstrategy(AllIn, lines_of=lines_of, parameters=parameters)
    broker = cerebro.broker
    broker.setcash(10_000.0)
    broker.setcommission(commission=COSTS.fee_pct / 100)
    # market orders slip from the open, beyond the bar's high or low if need be
    broker.set_slippage_perc(COSTS.slippage_pct / 100, slip_open=True, slip_match=True, slip_out=True)
    broker.set_checksubmit(False)  # it would check the money at the close before, not at the open that fills
    (strategy,) = cerebro.run()
    return strategy.fills, broker.getvalue()


def fills_of(result: BacktestResult) -> list[Fill]:
    rate, found = COSTS.fee_pct / 100, []
    for row in result.trades.to_dict("records"):
        found.append(Fill(row["entry_time"], "buy", row["entry_price"], row["quantity"], 0.0))
        if not row["open_at_end"]:
            found.append(Fill(row["exit_time"], "sell", row["exit_price"], row["quantity"], 0.0))
    return [fill._replace(fee_usdt=fill.price * fill.quantity * rate) for fill in found]


@pytest.mark.parametrize("symbol", ["BTCUSDT", "SOLUSDT"])
@pytest.mark.parametrize(
    ("lines_of", "parameters", "least"),
    [
        (rsi, {"period": 7, "oversold": 32.5, "overbought": 62.5}, 80),
        (macd, {"fast": 12, "slow": 26, "signal": 9}, 150),
        (bollinger, {"period": 20, "deviations": 1.75}, 100),
        (volume, {"period": 20, "multiplier": 1.5}, 150),
    ],
)
def test_every_order_is_the_one_that_backtrader_places(
    market: Path, symbol: str, lines_of: Callable, parameters: dict, least: int
):
    frame = pd.read_parquet(market / f"{symbol}-1h.parquet").set_index("ts").rename_axis("time")[-HALF_YEAR:]
    theirs, value = in_backtrader(frame, lines_of, parameters)
    settled = np.arange(len(frame)) >= SETTLED
    result = backtest(frame, lines_of.__name__, parameters, COSTS, entries_allowed=settled)
    ours = fills_of(result)
    assert [(fill.time, fill.side) for fill in ours] == [(fill.time, fill.side) for fill in theirs]
    assert [fill.price for fill in ours] == pytest.approx([fill.price for fill in theirs], rel=1e-12)
    for name in ("quantity", "fee_usdt"):  # less by a trillionth an order, see AllIn
        assert [getattr(f, name) for f in ours] == pytest.approx([getattr(f, name) for f in theirs], rel=1e-9)
    assert result.equity.iloc[-1] == pytest.approx(value, rel=1e-9)
    assert len(ours) >= least
