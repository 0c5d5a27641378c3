"""Does the report say what the account earned, and admit what it does not know?"""

from __future__ import annotations

from datetime import UTC, datetime
from math import nan
from typing import Any

import pandas as pd
import pytest

from trading_ops.audit.chain import canonical_json
from trading_ops.bot.records import InvalidRecord, Portfolio, trades_frame
from trading_ops.portfolio.equity import PORTFOLIO, DailyEquity
from trading_ops.portfolio.report import report_days

DAYS = ["2025-03-01", "2025-03-02"]
ACCOUNT = {
    "as_of": "2025-03-03T00:00:00Z", "initial_usdt": 20_000.0, "balance_usdt": 20_000.0, "equity_usdt": 20_000.0,
    "total_return_pct": 0.0, "total_trades": 0, "winning_trades": 0,
    "initial_by_strategy": {"rsi": 10_000.0, "macd": 10_000.0},
}  # fmt: skip


def trades(*rows: tuple[str, str, float]) -> pd.DataFrame:
    """(strategy, closed_at, net profit), each with a fee of 0.5."""
    return trades_frame([
        {"trade_id": str(i), "strategy": strategy, "closed_at": closed_at, "pnl_usdt": pnl, "fee_usdt": 0.5}
        for i, (strategy, closed_at, pnl) in enumerate(rows)
    ])  # fmt: skip


def equity(rsi: list[float], marks: list[float] | None = None, flows: list[float] | None = None) -> DailyEquity:
    """Equity of rsi at the end of the day before and of DAYS; macd stands still at 10,000."""
    index = pd.date_range("2025-02-28", periods=3, tz="UTC")
    frames = [
        pd.DataFrame({"rsi": values, "macd": still}, index, dtype=float)
        for values, still in ((rsi, 10_000.0), (marks or [0.0] * 3, 0.0), (flows or [0.0] * 3, 0.0))
    ]
    for frame in frames:
        frame[PORTFOLIO] = frame.sum(axis=1, skipna=False)
    return DailyEquity(*frames)


def report(closed: pd.DataFrame, daily: DailyEquity, **account: Any) -> dict[str, dict[str, Any]]:
    return report_days(closed, daily, Portfolio.parse(ACCOUNT | account), DAYS, label="simulated")


def test_a_day_is_reported_with_its_trades_its_equity_and_its_returns():
    closed = trades(("rsi", "2025-03-01T10:00Z", 150.0), ("rsi", "2025-03-01T11:00Z", -50.0),
                    ("macd", "2025-03-01T12:00Z", 0.0), ("rsi", "2025-03-02T10:00Z", 99.0))  # fmt: skip
    day = report(closed, equity([10_000.0, 10_130.0, 10_229.0], marks=[0.0, 30.0, 30.0]))["2025-03-01"]
    assert day["outcome"] == "reported"
    rsi = day["strategies"]["rsi"]
    assert (rsi["equity_usdt"], rsi["unrealised_usdt"], rsi["balance_usdt"]) == (10_130.0, 30.0, 10_100.0)
    assert rsi["return_pct"] == pytest.approx(1.3)
    assert rsi["return_since_start_pct"] == pytest.approx(1.3)
    assert (rsi["realised_pnl_usdt"], rsi["fees_usdt"]) == (100.0, 1.0)
    assert (rsi["total_trades"], rsi["winning_trades"], rsi["win_rate_pct"]) == (2, 1, 50.0)
    assert (day["equity_usdt"], day["realised_pnl_usdt"], day["fees_usdt"]) == (20_130.0, 100.0, 1.5)
    assert day["return_pct"] == pytest.approx(0.65)
    assert (day["total_trades"], day["winning_trades"], day["win_rate_pct"]) == (3, 1, pytest.approx(100 / 3))


def test_B022_a_day_without_trades_has_a_win_rate_of_zero_and_is_still_reported():
    day = report(trades(), equity([10_000.0] * 3))["2025-03-01"]
    assert (day["outcome"], day["total_trades"], day["win_rate_pct"]) == ("reported", 0, 0.0)
    assert (day["equity_usdt"], day["return_pct"]) == (20_000.0, 0.0)


@pytest.mark.parametrize(
    ("payload", "named"),
    [
        pytest.param({}, "equity_usdt: Field required", id="B023 an empty object"),
        pytest.param([], "Portfolio", id="a list"),
        pytest.param(None, "Portfolio", id="nothing"),
        pytest.param({"success": True, "data": ACCOUNT}, "equity_usdt: Field required", id="still wrapped"),
        pytest.param(ACCOUNT | {"total_trades": 2, "winning_trades": 3}, "winning_trades 3 exceeds total_trades 2",
                     id="B028 more wins than trades"),
        pytest.param(ACCOUNT | {"equity_usdt": nan}, "equity_usdt: nan", id="NaN"),
        pytest.param(ACCOUNT | {"equity_usdt": "20000"}, "equity_usdt: '20000'", id="a text is no number"),
        pytest.param(ACCOUNT | {"total_trades": 2.5}, "total_trades: 2.5", id="half a trade"),
        pytest.param(ACCOUNT | {"total_trades": True}, "total_trades: True", id="a truth is no count"),
        pytest.param(ACCOUNT | {"initial_usdt": 0.0}, "initial_usdt: 0.0", id="no start capital"),
        pytest.param(ACCOUNT | {"as_of": "2025-03-03T00:00:00"}, "as_of", id="a naive time"),
    ],
)  # fmt: skip
def test_an_account_that_cannot_be_is_refused_by_name_and_never_zero(payload: Any, named: str):
    with pytest.raises(InvalidRecord, match=named):
        Portfolio.parse(payload)


def test_B029_a_loss_keeps_its_sign():
    account = Portfolio.parse(ACCOUNT | {"total_return_pct": -5.0, "total_trades": 10})
    assert (account.total_return_pct, account.as_of) == (-5.0, datetime(2025, 3, 3, tzinfo=UTC))
    closed = trades(*[("rsi", "2025-03-01T10:00Z", -50.0)] * 10)
    day = report(closed, equity([10_000.0, 9_500.0, 9_500.0]))["2025-03-01"]
    assert day["strategies"]["rsi"]["return_pct"] == pytest.approx(-5.0)
    assert day["strategies"]["rsi"]["return_since_start_pct"] == pytest.approx(-5.0)
    assert (day["realised_pnl_usdt"], day["total_trades"], day["return_pct"]) == (-500.0, 10, pytest.approx(-2.5))


def test_B023_an_unknown_equity_is_none_and_never_zero():
    documents = report(trades(), equity([10_000.0, nan, 10_000.0]))
    day = documents["2025-03-01"]
    assert day["outcome"] == "unknown"
    for scope in (day, day["strategies"]["rsi"]):
        worth = (scope["equity_usdt"], scope["balance_usdt"], scope["return_pct"], scope["return_since_start_pct"])
        assert worth == (None, None, None, None)
    assert day["strategies"]["macd"]["equity_usdt"] == 10_000.0
    after = documents["2025-03-02"]
    assert (after["outcome"], after["equity_usdt"], after["return_pct"]) == ("reported", 20_000.0, None)


def test_the_first_day_of_all_has_no_return_but_an_equity():
    day = report(trades(), equity([nan, 10_000.0, 10_000.0]))["2025-03-01"]
    assert (day["equity_usdt"], day["return_pct"], day["outcome"]) == (20_000.0, None, "reported")


def test_a_jump_that_nothing_explains_has_no_return():
    day = report(trades(), equity([10_000.0, 13_000.0, 13_000.0]))["2025-03-01"]
    assert (day["return_pct"], day["strategies"]["rsi"]["return_pct"]) == (None, None)
    assert day["equity_usdt"] == 23_000.0


def test_a_deposit_is_shown_and_is_no_return_of_the_day():
    daily = equity([10_000.0, 15_000.0, 15_000.0], flows=[0.0, 5_000.0, 0.0])
    rsi = report(trades(), daily)["2025-03-01"]["strategies"]["rsi"]
    assert (rsi["net_flows_usdt"], rsi["return_pct"]) == (5_000.0, 0.0)


def test_a_deposit_is_no_return_since_the_start_either():
    daily = equity([10_000.0, 15_000.0, 15_000.0], flows=[0.0, 5_000.0, 0.0])
    assert report(trades(), daily)["2025-03-01"]["strategies"]["rsi"]["return_since_start_pct"] == 0.0


def test_without_a_strategys_start_capital_its_return_since_the_start_is_unknown():
    day = report(trades(), equity([10_000.0] * 3), initial_by_strategy={"rsi": 8_000.0})["2025-03-01"]
    assert day["strategies"]["macd"]["return_since_start_pct"] is None
    assert day["strategies"]["rsi"]["return_since_start_pct"] == pytest.approx(25.0)


def test_B135_trades_of_a_range_fall_on_their_own_days_and_one_day_alone_is_the_same():
    closed = trades(("rsi", "2025-03-01T23:59:59.999Z", 1.0), ("rsi", "2025-03-02T00:00:00Z", 2.0))
    daily = equity([10_000.0, 10_001.0, 10_003.0])
    documents = report(closed, daily)
    assert [documents[day]["realised_pnl_usdt"] for day in DAYS] == [1.0, 2.0]
    alone = report_days(closed, daily, Portfolio.parse(ACCOUNT), DAYS[1:], label="simulated")
    assert canonical_json(alone["2025-03-02"]) == canonical_json(documents["2025-03-02"])
