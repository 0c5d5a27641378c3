"""How far is the account below its start and its peak, deposits and withdrawals left out?"""

from __future__ import annotations

import pytest

from trading_ops.bot.records import Portfolio
from trading_ops.guard.drawdown import FROM_PEAK, FROM_START, PortfolioLimits, drawdown


def account(equity: float, deposits: float | None = 0.0) -> Portfolio:
    return Portfolio.parse({
        "as_of": "2025-03-10T12:00:00Z", "initial_usdt": 1000.0, "balance_usdt": equity, "equity_usdt": equity,
        "total_return_pct": 0.0, "total_trades": 0, "winning_trades": 0, "net_deposits_usdt": deposits,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("equity", "deposits", "peak", "from_peak", "from_start"),
    [
        pytest.param(900.0, 0.0, 1200.0, 25.0, 10.0, id="300 of 1,200, 100 of 1,000"),
        pytest.param(1300.0, 0.0, 1200.0, 0.0, 0.0, id="a new peak"),
        pytest.param(1900.0, 1000.0, 1200.0, 100 * 300 / 2200, 5.0, id="a deposit is no profit: 900 were earned"),
        pytest.param(400.0, -500.0, 1200.0, 100 * 300 / 700, 20.0, id="a withdrawal is no loss"),
        pytest.param(900.0, None, 1200.0, 25.0, 10.0, id="deposits that are not told count as none"),
        pytest.param(10.0, -1500.0, 1200.0, 0.0, None, id="more withdrawn than the start: no percentage of it"),
    ],
)
def test_drawdowns_are_of_the_capital_there_is_now(
    equity: float, deposits: float | None, peak: float, from_peak: float | None, from_start: float | None
):
    risk = drawdown(account(equity, deposits), 1000.0, peak, PortfolioLimits())
    assert (risk.drawdown_from_peak_pct, risk.drawdown_from_start_pct) == (
        None if from_peak is None else pytest.approx(from_peak),
        None if from_start is None else pytest.approx(from_start),
    )
    assert (risk.breach, risk.warnings) == (None, ())  # without limits it is only shown


@pytest.mark.parametrize(
    ("equity", "breach", "warned"),
    [
        pytest.param(1080.0, FROM_PEAK, True, id="10.0 % is the limit, below counts"),
        pytest.param(1104.0, None, True, id="8.0 % warns"),
        pytest.param(1105.0, None, False, id="less does not"),
    ],
)
def test_a_limit_stops_when_it_is_exceeded_and_warns_at_four_fifths(equity: float, breach: str | None, warned: bool):
    limits = PortfolioLimits(from_peak_pct=10.0)
    risk = drawdown(account(equity - 0.01 if breach else equity), 1000.0, 1200.0, limits)
    assert (risk.breach, bool(risk.warnings)) == (breach, warned)
    assert risk.distance[FROM_START] is None


def test_exactly_at_the_limit_is_not_beyond_it():
    assert drawdown(account(1080.0), 1000.0, 1200.0, PortfolioLimits(from_peak_pct=10.0)).breach is None
