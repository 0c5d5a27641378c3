"""How good was this backtest, beside its own signals without costs and beside buying and holding?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.audit.chain import canonical_json, content_digest
from trading_ops.backtesting.preparation import Prepared
from trading_ops.market.candles import digest_of
from trading_ops.performance.intervals import mean_interval, wilson_interval
from trading_ops.performance.metrics import max_drawdown, sharpe_ratio, sharpe_standard_error

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.backtesting.engine import BacktestResult
    from trading_ops.backtesting.orders import Costs, Execution
    from trading_ops.backtesting.request import BacktestRequest

MOST_TRADES = 1_000  # listed in a document; the figures are of all of them
COMPARED = ("total_return_pct", "sharpe_ratio", "max_drawdown_pct")
SLIPPED = ("signal", "stop_loss")  # the exits that a price slips at; a target is a limit order


@dataclass(frozen=True, eq=False)
class Backtest:
    """What came of a request: the document, and what is drawn of it, all from the start on.

    `equity`, `held`: USDT at each bar's close, of the strategy and of buying and holding. `trades` as the engine's.
    """

    document: dict[str, Any]
    candles: pd.DataFrame
    equity: pd.Series
    held: pd.Series
    trades: pd.DataFrame

    @property
    def digest(self) -> str:
        return str(self.document["digest"])


def run_backtest(prepared: Prepared) -> Backtest:
    """Trade the strategy with and without costs, and buy and hold; the same input gives the same document.

    The figures begin at the start, where the account holds its capital; the bars before it only warm up the indicators.
    Raises InvalidCandles, and InvalidRequest where the capital does not buy the least order.
    """
    from trading_ops.backtesting.engine import backtest
    from trading_ops.backtesting.request import InvalidRequest

    request, candles, first = prepared.request, prepared.candles, prepared.warm_up
    costs, execution, capital = request.costs, request.execution, request.initial_usdt
    may_enter = np.arange(len(candles)) >= first
    net, gross = (
        backtest(
            candles,
            request.strategy,
            request.parameters,
            charged,
            execution=execution,
            initial_usdt=capital,
            entries_allowed=may_enter,
        )
        for charged in (costs, replace(costs, fee_pct=0.0, slippage_pct=0.0, funding_pct=0.0))
    )
    held = buy_and_hold(candles, first, costs, execution, capital)
    if held.rejected_orders:
        price = candles["open"].iloc[max(first, 1)]
        raise InvalidRequest(
            f"initial_usdt is {capital:g}: at {price:g} a coin, {execution.equity_pct:g} % of it buys less than"
            f" lot_step {costs.lot_step} or min_notional_usdt {costs.min_notional_usdt} allow; more would be right"
        )
    equity, hold_equity = net.equity.iloc[first:], held.equity.iloc[first:]
    return Backtest(
        document=_document(prepared, net, gross, held),
        candles=candles.iloc[first:],
        equity=equity,
        held=hold_equity,
        trades=net.trades,
    )


def buy_and_hold(
    candles: pd.DataFrame, first: int, costs: Costs, execution: Execution, initial_usdt: float
) -> BacktestResult:
    """Buy at the open of bar `first` and hold to the end: the same market, costs and share of the capital.

    Decided at the close before; where there is no bar before, at the close of the first.
    """
    from trading_ops.backtesting.engine import trade_signals

    never = np.zeros(len(candles), dtype=bool)
    once = never.copy()
    once[max(first - 1, 0)] = True
    long = replace(execution, side="long", latency_bars=0)
    return trade_signals(candles, once, never, costs, execution=long, initial_usdt=initial_usdt)


def _document(prepared: Prepared, net: BacktestResult, gross: BacktestResult, held: BacktestResult) -> dict[str, Any]:
    request, candles = prepared.request, prepared.candles
    asked, data = request.model_dump(mode="json"), digest_of(candles)
    ours, theirs = (_curve(result, prepared) for result in (net, held))
    excess = ours.pop("daily_returns") - theirs.pop("daily_returns")
    interval = mean_interval(excess)
    trades = net.trades
    return {
        "title": _title(request, prepared.label),
        "digest": content_digest(canonical_json({"request": asked, "candles": data})),
        "request": asked,
        "candles": prepared.label,
        "candles_digest": data,
        "bars": len(candles) - prepared.warm_up,
        "warm_up_bars": prepared.warm_up,
        "missing_bars": prepared.missing_bars,
        "days": len(excess),
        "metrics": ours | _of_trades(net, prepared) | _paid(trades, request.costs, request.side),
        "buy_and_hold": theirs,
        "without_costs": {
            "total_return_pct": gross.total_return_pct,
            "total_trades": gross.total_trades,
            "cost_of_trading_pct": gross.total_return_pct - net.total_return_pct,
        },
        "difference": {
            **{name: _less(ours[name], theirs[name]) for name in COMPARED},
            "mean_daily_return_pct": 100.0 * float(excess.mean()),
            "mean_daily_return_interval_pct": interval and [100.0 * bound for bound in interval],
        },
        "months": list(_months(net, held, prepared)),
        "trades": [_listed(trade) for trade in trades.tail(MOST_TRADES).to_dict("records")],
        "trades_cut": max(0, len(trades) - MOST_TRADES),
    }


def _title(request: BacktestRequest, label: str) -> str:
    """Such as "rsi on BTCUSDT, 2025-01-01 to 2025-03-01, simulated candles"."""
    short = "short " if request.side == "short" else ""
    return f"{short}{request.strategy} on {request.symbol}, {request.start} to {request.end}, {label} candles"


def _curve(result: BacktestResult, prepared: Prepared) -> dict[str, Any]:
    """What the equity from the start on says; a Sharpe ratio of the days from the start, which are the period's."""
    returns = _returns(result, prepared, _day_ends(prepared))
    equity = result.equity.iloc[prepared.warm_up :].to_numpy()
    fall = max_drawdown(np.concatenate(([prepared.request.initial_usdt], equity)))
    return {
        "final_equity_usdt": float(equity[-1]),
        "total_return_pct": result.total_return_pct,
        "sharpe_ratio": sharpe_ratio(returns),
        "sharpe_standard_error": sharpe_standard_error(returns),
        "max_drawdown_pct": 100.0 * (fall or 0.0),
        "daily_returns": returns,
    }


def _of_trades(result: BacktestResult, prepared: Prepared) -> dict[str, Any]:
    """Exposure: share of bars at whose close a position was open. Turnover: entries and exits over the mean equity."""
    trades = result.trades
    still_open = trades["open_at_end"].to_numpy()
    closed = trades[~still_open]
    profits = closed["pnl_usdt"].to_numpy()
    wins = int(np.count_nonzero(profits > 0))
    share = wilson_interval(wins, len(closed))
    notional = trades["quantity"] * (trades["entry_price"] + trades["exit_price"].where(~still_open, 0.0))
    equity = result.equity.iloc[prepared.warm_up :]
    mean_equity = float(equity.mean())
    percent = closed["pnl_pct"]
    return {
        "total_trades": result.total_trades,
        "winning_trades": wins,
        "losing_trades": int(np.count_nonzero(profits < 0)),
        "open_at_end": int(still_open.sum()),
        "win_rate_pct": result.win_rate_pct,
        "win_rate_interval_pct": share and [100.0 * bound for bound in share],
        "profit_factor": result.profit_factor,
        "avg_profit_pct": float(percent.mean()) if len(closed) else None,
        "best_trade_pct": float(percent.max()) if len(closed) else None,
        "worst_trade_pct": float(percent.min()) if len(closed) else None,
        "avg_duration_hours": result.avg_duration_hours,
        "exposure_pct": 100.0 * float(trades["bars"].sum() + still_open.sum()) / len(equity),
        "turnover": float(notional.sum()) / mean_equity if mean_equity > 0 else None,
        "rejected_orders": result.rejected_orders,
    }


def _paid(trades: pd.DataFrame, costs: Costs, side: str) -> dict[str, float]:
    """Fees, funding (below 0: received) and slippage: what the fills were worse than the prices they slipped from."""
    direction = 1.0 if side == "long" else -1.0
    slip, quantity = direction * costs.slippage_pct / 100.0, trades["quantity"]
    slipped = trades["close_reason"].isin(SLIPPED)
    entries = quantity * trades["entry_price"] * slip / (1.0 + slip)
    exits = quantity * trades["exit_price"].where(slipped, 0.0) * slip / (1.0 - slip)
    return {
        "fees_usdt": float(trades["fee_usdt"].sum()),
        "slippage_usdt": direction * float(entries.sum() + exits.sum()),
        "funding_usdt": float(trades["funding_usdt"].sum()),
    }


def _months(net: BacktestResult, held: BacktestResult, prepared: Prepared) -> Iterator[dict[str, Any]]:
    opens = prepared.candles.index[prepared.warm_up :]
    number = np.asarray(opens.year * 12 + opens.month)
    ends = np.flatnonzero(np.diff(number, append=0))
    columns = (_returns(result, prepared, ends) for result in (net, held))
    for month, ours, theirs in zip(opens[ends].strftime("%Y-%m"), *columns, strict=True):
        yield {"month": month, "return_pct": 100.0 * float(ours), "buy_and_hold_pct": 100.0 * float(theirs)}


def _day_ends(prepared: Prepared) -> np.ndarray:
    """The last bar of each UTC day from the start on, counted from the start; a bar belongs to the day it opens in."""
    hours = prepared.candles.index[prepared.warm_up :].as_unit("s").asi8 // 3600
    return np.flatnonzero(np.diff(hours // 24, append=-1))


def _returns(result: BacktestResult, prepared: Prepared, ends: np.ndarray) -> np.ndarray:
    """The returns from the capital at the start to the equity at each of the bars `ends` in turn."""
    from trading_ops.backtesting.engine import day_returns

    equity = result.equity.to_numpy()[prepared.warm_up :]
    return day_returns(np.concatenate(([prepared.request.initial_usdt], equity[ends])))


def _listed(trade: dict[str, Any]) -> dict[str, Any]:
    times = {name: trade[name].isoformat() for name in ("entry_time", "exit_time")}
    return {**trade, **times}


def _less(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs
