"""What does vectorbt measure for a sweep of RSI sets under our rules of filling?

Its own RSI (TA-Lib's, by its wrapper), simulation and measures, used as quickly as it can be: each period's RSI once, a
chunk of sets a portfolio, signals in column order, no more order records than it needs, and times without a zone, which
its wrappers would otherwise turn into objects. `test_parity_vectorbt.py` and `benchmarks/backtest.py` use it.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from trading_ops.backtesting.orders import Costs

INITIAL_USDT = 10_000.0
ORDERS_PER_SET = 1_500  # far above what RSI sets place in a year of hours; vectorbt raises where it is too few
MEASURES = (
    "total_trades",
    "win_rate_pct",
    "total_return_pct",
    "sharpe_ratio",
    "max_drawdown_pct",
    "profit_factor",
    "avg_duration_hours",
)


def vectorbt_sweep(
    candles: pd.DataFrame, grid: Mapping[str, Sequence[float]], costs: Costs, chunk: int = 100
) -> pd.DataFrame:
    """One row a set (period, oversold, overbought), with MEASURES in the units of `sweep`; NaN where undefined.

    `candles`: hourly bars without a gap, since vectorbt counts durations in bars. A signal at the close of bar i is
    placed at bar i + 1 with that bar's open as price.
    """
    import vectorbt as vbt

    bars = candles.tz_localize(None)
    days = bars.index.floor("D").to_numpy()
    last_of_day = np.flatnonzero(np.append(days[1:] != days[:-1], True))
    periods = list(grid["period"])
    strength = vbt.talib("RSI").run(bars["close"], timeperiod=periods).real.to_numpy()
    # moved down a bar: where the signal is placed, not where it is known
    now = np.vstack((strength[:1], strength[:-1]))
    before = np.vstack((now[:1], now[:-1]))
    sets = np.array(list(product(*(grid[name] for name in ("period", "oversold", "overbought")))))
    measures = []
    for part in np.split(sets, range(chunk, len(sets), chunk)):
        period, oversold, overbought = part.T
        column = np.searchsorted(periods, period)
        entries = (before[:, column] >= oversold) & (now[:, column] < oversold)
        exits = (before[:, column] <= overbought) & (now[:, column] > overbought)
        portfolio = vbt.Portfolio.from_signals(
            bars["close"],
            np.asfortranarray(entries),
            np.asfortranarray(exits),
            price=bars["open"].to_numpy()[:, None],
            fees=costs.fee_pct / 100,
            slippage=costs.slippage_pct / 100,
            init_cash=INITIAL_USDT,
            freq="1h",
            max_orders=ORDERS_PER_SET * len(part),
            engine="numba",
        )
        closed = portfolio.trades.closed
        daily = portfolio.value().to_numpy()[last_of_day]
        returns = pd.DataFrame(daily / np.vstack((np.full(len(part), INITIAL_USDT), daily[:-1])) - 1)
        measures.append(
            (
                closed.count(),
                100 * closed.win_rate(),
                100 * portfolio.total_return(),
                # ddof=1 is vectorbt's default; said here since the Sharpe ratio depends on it
                returns.vbt.returns(freq="1D", year_freq="365 days").sharpe_ratio(ddof=1),
                -100 * portfolio.drawdowns.max_drawdown(fill_value=0.0),
                closed.profit_factor(),
                closed.duration.mean(),
            )
        )
    table = np.hstack([np.array(part, float) for part in measures]).T
    table[np.isinf(table)] = np.nan  # no loss or no deviation: infinite to vectorbt, undefined to us
    return pd.DataFrame(np.hstack((sets, table)), columns=["period", "oversold", "overbought", *MEASURES])
