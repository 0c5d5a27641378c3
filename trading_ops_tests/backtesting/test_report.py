"""Are a backtest's figures those a person would work out, from the start on, beside buying and holding?"""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trading_ops.audit.chain import canonical_json
from trading_ops.backtesting.engine import backtest
from trading_ops.backtesting.figures import figure_rows, trade_rows, verdict
from trading_ops.backtesting.preparation import Prepared, prepare
from trading_ops.backtesting.report import MOST_TRADES, Backtest, run_backtest
from trading_ops.backtesting.request import BacktestRequest, InvalidRequest
from trading_ops.market.candles import InvalidCandles
from trading_ops.market.simulated import SimulatedCandles
from trading_ops.performance.intervals import wilson_interval
from trading_ops.performance.metrics import sharpe_standard_error
from trading_ops_tests.conftest import NOON

SOURCE = SimulatedCandles(lambda: NOON, ["BTCUSDT", "SOLUSDT"])
PERIOD = {"start": "2024-06-01", "end": "2024-09-01"}
QUIET = (100.0, 101.0, 99.0, 100.0)


def run(**asked: Any) -> Backtest:
    return run_backtest(prepare(BacktestRequest.parse(PERIOD | asked), SOURCE, ["BTCUSDT"]))


def on_bars(bars: list[tuple[float, float, float, float]], volume: list[float], warm_up: int, **asked: Any) -> Backtest:
    """The volume strategy, whose entries a test can write down: a bar of twice the usual volume that rises."""
    index = pd.date_range("2024-06-01", periods=len(bars), freq="h", tz="UTC", name="time") - warm_up * pd.Timedelta(
        "1h"
    )
    candles = pd.DataFrame(bars, index, ["open", "high", "low", "close"]).assign(volume=volume)
    values = {"strategy": "volume", "symbol": "X", "start": "2024-06-01", "end": "2024-06-02"} | asked
    request = BacktestRequest.parse(values)
    request = request.model_copy(update={"parameters": request.checked_parameters()})
    return run_backtest(Prepared(request, candles, warm_up, "recorded"))


def spiked(*, free: bool = False, warm_up: int = 2) -> Backtest:
    """Bought at the open of bar 4 at 100, sold at that of bar 6 at 120; the last close is 90."""
    bars = [QUIET, QUIET, QUIET, (99.0, 101.0, 98.0, 100.0), (100.0, 116.0, 99.0, 115.0), (115.0, 116.0, 109.0, 110.0),
            (120.0, 121.0, 89.0, 90.0), (90.0, 91.0, 89.0, 90.0)]  # fmt: skip
    costs = {"fee_pct": 0.0, "slippage_pct": 0.0} if free else {"fee_pct": 1.0, "slippage_pct": 2.0}
    return on_bars(bars, [1, 1, 1, 5, 1, 9, 1, 1], warm_up, parameters={"period": 2}, **costs)


def test_the_figures_of_one_trade_worked_out_by_hand():
    metrics = spiked().document["metrics"]
    quantity = 10_000 / (102 * 1.01)
    profit = quantity * (117.6 - 102 - 1.02 - 1.176)
    assert metrics["total_trades"] == metrics["winning_trades"] == 1
    assert metrics["final_equity_usdt"] == pytest.approx(10_000 + profit)
    assert metrics["total_return_pct"] == pytest.approx(profit / 100)
    assert metrics["best_trade_pct"] == metrics["worst_trade_pct"] == metrics["avg_profit_pct"]
    assert metrics["avg_profit_pct"] == pytest.approx(100 * (117.6 - 102 - 1.02 - 1.176) / 102)
    assert metrics["fees_usdt"] == pytest.approx(quantity * (1.02 + 1.176))
    assert metrics["slippage_usdt"] == pytest.approx(quantity * (2.0 + 2.4))
    assert metrics["avg_duration_hours"] == 2.0
    assert metrics["exposure_pct"] == pytest.approx(100 * 2 / 6)  # of the 6 bars from the start on
    cash = 10_000 + profit
    equity = [10_000, 10_000, quantity * 115, quantity * 110, cash, cash]
    assert metrics["turnover"] == pytest.approx(quantity * (102 + 117.6) / np.mean(equity))
    assert metrics["max_drawdown_pct"] == pytest.approx(100 * max(5 / 115, 1 - 110 / 115))
    assert metrics["profit_factor"] is metrics["sharpe_ratio"] is None  # no loss, one day


def test_buying_and_holding_is_bought_at_the_first_open_with_the_same_costs_and_marked_at_the_end():
    document = spiked().document
    held = 10_000 / (102 * 1.01) * 90
    assert document["buy_and_hold"]["final_equity_usdt"] == pytest.approx(held)
    assert document["buy_and_hold"]["total_return_pct"] == pytest.approx(held / 100 - 100)
    quantity = 10_000 / (102 * 1.01)
    assert document["buy_and_hold"]["max_drawdown_pct"] == pytest.approx(100 * (1 - quantity * 90 / (quantity * 115)))
    less = document["metrics"]["total_return_pct"] - document["buy_and_hold"]["total_return_pct"]
    assert document["difference"]["total_return_pct"] == pytest.approx(less)
    assert document["difference"]["mean_daily_return_pct"] == pytest.approx(less)
    assert document["difference"]["mean_daily_return_interval_pct"] is None


def test_without_a_bar_before_the_start_it_is_bought_one_bar_later():
    found = spiked(warm_up=0)
    assert found.held.iloc[0] == 10_000
    assert found.held.iloc[1] == pytest.approx(10_000 / (102 * 1.01) * 100)


def test_without_costs_are_the_same_signals_for_nothing():
    paid, free = spiked().document, spiked(free=True).document
    assert paid["without_costs"]["total_return_pct"] == pytest.approx(20.0)
    assert free["metrics"]["total_return_pct"] == pytest.approx(20.0)
    assert free["without_costs"]["cost_of_trading_pct"] == 0
    difference = 20.0 - paid["metrics"]["total_return_pct"]
    assert paid["without_costs"]["cost_of_trading_pct"] == pytest.approx(difference)
    assert (free["metrics"]["fees_usdt"], free["metrics"]["slippage_usdt"]) == (0, 0)


def test_a_position_open_at_the_end_is_marked_and_no_trade_yet():
    found = on_bars([QUIET, QUIET, QUIET, (99.0, 101.0, 98.0, 100.0), (100.0, 131.0, 99.0, 130.0)], [1, 1, 1, 5, 1], 2,
                    parameters={"period": 2}, fee_pct=0.0, slippage_pct=0.0)  # fmt: skip
    metrics = found.document["metrics"]
    assert (metrics["total_trades"], metrics["open_at_end"]) == (0, 1)
    assert metrics["total_return_pct"] == pytest.approx(30.0)
    assert metrics["exposure_pct"] == pytest.approx(100 / 3)
    assert metrics["turnover"] == pytest.approx(10_000 / np.mean([10_000, 10_000, 13_000]))
    for name in ("win_rate_pct", "win_rate_interval_pct", "avg_profit_pct", "profit_factor", "avg_duration_hours"):
        assert metrics[name] is None, name
    assert found.document["trades"][0]["close_reason"] == "open_at_end"


def test_a_run_without_a_trade_leaves_what_is_undefined_undefined():
    found = run(parameters={"oversold": 1, "overbought": 99})
    metrics = found.document["metrics"]
    assert metrics["total_trades"] == metrics["rejected_orders"] == len(found.document["trades"]) == 0
    assert (metrics["exposure_pct"], metrics["turnover"], metrics["total_return_pct"]) == (0.0, 0.0, 0.0)
    assert metrics["sharpe_ratio"] is metrics["sharpe_standard_error"] is metrics["best_trade_pct"] is None
    assert found.document["difference"]["sharpe_ratio"] is None
    assert trade_rows([]) == []
    assert {row.figure: row.strategy for row in figure_rows(found.document)}["Sharpe ratio"] == "-"


def test_a_funded_future_pays_and_a_short_is_paid():
    futures = {"market": "futures", "funding_pct": 0.05}
    assert run(**futures).document["metrics"]["funding_usdt"] > 0
    short = run(**futures, side="short").document
    assert short["metrics"]["funding_usdt"] < 0
    assert short["title"] == "short rsi on BTCUSDT, 2024-06-01 to 2024-09-01, simulated candles"
    held = [
        run(**futures, side=side, latency_bars=late).document["buy_and_hold"]
        for side, late in (("long", 3), ("short", 0))
    ]
    assert held[0] == held[1]  # is long and not late, whatever the strategy is


@pytest.mark.parametrize("side", ["long", "short"])
def test_slippage_is_what_the_fills_are_worse_than_the_prices_they_slipped_from(side):
    asked = {"side": side, "market": "futures", "fee_pct": 0.0, "slippage_pct": 0.5, "parameters": {"stop_loss_pct": 3}}
    found = run(**asked)
    opens = found.candles["open"]
    sign = 1 if side == "long" else -1
    expected = 0.0
    for trade in found.trades.to_dict("records"):
        expected += trade["quantity"] * sign * (trade["entry_price"] - opens[trade["entry_time"]])
        if trade["close_reason"] == "signal":
            expected += trade["quantity"] * sign * (opens[trade["exit_time"]] - trade["exit_price"])
        elif trade["close_reason"] == "stop_loss":
            expected += trade["quantity"] * trade["exit_price"] * 0.005 / (1 - sign * 0.005)
    assert {"signal", "stop_loss"} <= set(found.trades["close_reason"])
    assert found.document["metrics"]["slippage_usdt"] == pytest.approx(expected)


def test_with_no_bar_before_the_start_the_figures_are_the_engines_own():
    asked = {"start": "2024-01-01", "end": "2024-04-01", "parameters": {"period": 7}}
    found = run(**asked)
    bars = SOURCE.candles("BTCUSDT", end=datetime(2024, 4, 1, tzinfo=UTC))
    result = backtest(bars, "rsi", {"period": 7})
    assert found.document["warm_up_bars"] == 0
    for name in ("total_trades", "win_rate_pct", "total_return_pct", "sharpe_ratio", "max_drawdown_pct",
                 "profit_factor", "avg_duration_hours", "rejected_orders"):  # fmt: skip
        assert found.document["metrics"][name] == getattr(result, name), name
    pd.testing.assert_series_equal(found.equity, result.equity)
    wins = int((result.trades["pnl_usdt"] > 0).sum())
    low, high = wilson_interval(wins, result.total_trades)
    assert found.document["metrics"]["win_rate_interval_pct"] == [100 * low, 100 * high]
    ends = np.concatenate(([10_000.0], result.equity.to_numpy()[23::24]))
    assert found.document["metrics"]["sharpe_standard_error"] == sharpe_standard_error(ends[1:] / ends[:-1] - 1)


@pytest.mark.parametrize("strategy", ["rsi", "macd", "bollinger", "volume"])
def test_a_backtest_of_some_months_trades_what_one_of_all_the_history_trades_in_them(strategy):
    """Warmed up, the indicators are as if they had seen everything before."""
    found = run(strategy=strategy, symbol="SOLUSDT")
    bars = SOURCE.candles("SOLUSDT", end=datetime(2024, 9, 1, tzinfo=UTC))
    since = bars.index >= "2024-06-01"
    result = backtest(bars, strategy, entries_allowed=since)
    assert len(found.trades) > 5
    pd.testing.assert_frame_equal(found.trades, result.trades)
    pd.testing.assert_series_equal(found.equity, result.equity[since])


def test_the_days_before_the_start_are_in_no_figure():
    """Flat days before would pull the Sharpe ratio of a trading strategy towards 0."""
    found = run()
    assert found.document["days"] == 92
    assert found.document["warm_up_bars"] == 300
    assert len(found.equity) == len(found.held) == len(found.candles) == found.document["bars"] == 92 * 24
    assert found.trades["entry_time"].min() >= pd.Timestamp("2024-06-01", tz="UTC")
    returns = np.diff(np.log(np.concatenate(([10_000.0], found.equity.to_numpy()[23::24]))))
    ours = np.expm1(returns)
    assert found.document["metrics"]["sharpe_ratio"] == pytest.approx(365**0.5 * ours.mean() / ours.std(ddof=1))


def test_months_compound_to_the_whole_return_and_a_month_that_is_cut_is_there():
    document = run(start="2024-06-15", end="2024-09-02").document
    assert [month["month"] for month in document["months"]] == ["2024-06", "2024-07", "2024-08", "2024-09"]
    for name, whole in (("return_pct", document["metrics"]), ("buy_and_hold_pct", document["buy_and_hold"])):
        growth = np.prod([1 + month[name] / 100 for month in document["months"]])
        assert 100 * (growth - 1) == pytest.approx(whole["total_return_pct"])


def test_missing_bars_are_counted_and_a_bar_that_cannot_be_is_refused():
    prepared = prepare(BacktestRequest.parse(PERIOD), SOURCE, ["BTCUSDT"])
    holes = Prepared(prepared.request, prepared.candles.drop(prepared.candles.index[500:510]), 300, "recorded")
    assert run_backtest(holes).document["missing_bars"] == 10
    broken = prepared.candles.copy()
    broken.iloc[400, 2] = -1.0
    with pytest.raises(InvalidCandles, match=r"low is -1; it must be above 0"):
        run_backtest(Prepared(prepared.request, broken, 300, "recorded"))


def test_only_the_newest_trades_are_listed_and_what_is_cut_is_said():
    eager = {"period": 2, "oversold": 49, "overbought": 51}
    found = run(start="2024-01-01", end="2025-03-01", parameters=eager, fee_pct=0.0, slippage_pct=0.0)
    assert len(found.trades) > MOST_TRADES == len(found.document["trades"])
    assert found.document["trades_cut"] == len(found.trades) - MOST_TRADES
    assert found.document["trades"][-1]["entry_time"] == found.trades["entry_time"].iloc[-1].isoformat()
    assert found.document["metrics"]["total_trades"] >= len(found.trades) - 1
    assert len(canonical_json(found.document)) < 1_000_000


def test_the_digest_is_of_the_request_and_the_candles():
    first, again, spelled_out = run(), run(), run(symbol="BTCUSDT", parameters={"oversold": 30, "period": 14.0})
    assert canonical_json(first.document) == canonical_json(again.document) == canonical_json(spelled_out.document)
    other = [run(parameters={"period": 15}), run(fee_pct=0.2), run(end="2024-08-31"), run(symbol="SOLUSDT")]
    assert len({found.digest for found in [first, *other]}) == 5


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ([0.01, 0.2], "more than luck explains, if these were the only parameters tried"),
        ([-0.2, -0.01], "worse, and not by bad luck alone"),
        ([-0.1, 0.2], "luck alone could explain it"),
        (None, "Too few days"),
    ],
)
def test_the_verdict_follows_from_the_interval_of_the_daily_difference(interval, said):
    less = {"mean_daily_return_pct": 0.05, "mean_daily_return_interval_pct": interval}
    assert said in verdict({"difference": less})


ASKED = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(["rsi", "macd", "bollinger", "volume"]),
        "symbol": st.sampled_from(["BTCUSDT", "SOLUSDT"]),
        "fee_pct": st.floats(0, 2),
        "slippage_pct": st.floats(0, 2),
        "side": st.sampled_from(["long", "short"]),
        "market": st.just("futures"),
        "funding_pct": st.floats(-0.2, 0.2),
        "latency_bars": st.integers(0, 5),
        "equity_pct": st.floats(1, 100),
        "initial_usdt": st.floats(1e5, 1e9),  # which always buys the least order
        "lot_step": st.none() | st.floats(1e-6, 1e-3),
        "min_notional_usdt": st.none() | st.floats(0, 100),
        "parameters": st.fixed_dictionaries(
            {}, optional={"stop_loss_pct": st.floats(0.5, 20), "take_profit_pct": st.floats(0.5, 20)}
        ),
    }
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(asked=ASKED, first=st.integers(0, 200), days=st.integers(1, 90))
def test_whatever_is_asked_the_document_is_json_and_its_sums_are_right(asked, first, days):
    start = datetime(2024, 3, 1, tzinfo=UTC).date() + timedelta(days=first)
    found = run(**asked, start=start, end=start + timedelta(days=days))
    document, metrics = found.document, found.document["metrics"]
    canonical_json(document)  # refuses NaN and infinities
    assert document["days"] == days
    capital = asked["initial_usdt"]
    if "liquidation" not in set(found.trades["close_reason"]):
        assert metrics["final_equity_usdt"] == pytest.approx(capital + found.trades["pnl_usdt"].sum(), rel=1e-9)
    assert 0 <= metrics["exposure_pct"] <= 100
    assert metrics["winning_trades"] + metrics["losing_trades"] <= metrics["total_trades"]
    assert metrics["total_trades"] + metrics["open_at_end"] == len(found.trades)
    assert metrics["fees_usdt"] >= 0
    assert metrics["slippage_usdt"] >= 0
    growth = np.prod([1 + month["return_pct"] / 100 for month in document["months"]])
    assert growth == pytest.approx(metrics["final_equity_usdt"] / capital, rel=1e-6, abs=1e-9)
    for row in figure_rows(document):
        assert all(isinstance(cell, str) for cell in row)


def test_buying_and_holding_takes_the_same_share_of_the_capital_and_falls_from_the_capital_itself():
    whole, quarter = (halved(equity_pct=share).document["buy_and_hold"] for share in (100.0, 25.0))
    assert quarter["total_return_pct"] == pytest.approx(whole["total_return_pct"] / 4)
    assert whole["max_drawdown_pct"] == pytest.approx(50.0)  # from the capital, in the first bar


def halved(**asked: Any) -> Backtest:
    """Nothing to trade on, and a price that halves in the first bar that is held."""
    bars = [QUIET, QUIET, (100.0, 101.0, 49.0, 50.0), *[(50.0, 51.0, 49.0, 50.0)] * 3]
    return on_bars(bars, [1] * 6, 2, parameters={"period": 2}, fee_pct=0.0, slippage_pct=0.0, **asked)


def test_without_costs_is_without_funding_too():
    asked = {"strategy": "macd", "market": "futures", "side": "short"}
    free, funded = (run(**asked, funding_pct=funding).document["without_costs"] for funding in (0.0, 0.05))
    assert free["total_return_pct"] == funded["total_return_pct"]


@pytest.mark.parametrize("limits", [{"lot_step": 1.0}, {"min_notional_usdt": 20_000.0}])
def test_a_capital_that_buys_nothing_is_refused_and_not_called_flat(limits: dict):
    with pytest.raises(InvalidRequest, match=r"initial_usdt is 10000: at .* buys less than lot_step"):
        run(**limits)
