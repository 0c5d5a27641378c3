"""Are the bot's candles fresh, whole and possible?"""

from datetime import timedelta

import pytest

from trading_ops.health.components import check_components
from trading_ops.health.rules import Status, judge_candles
from trading_ops.market.inspection import judge
from trading_ops.market.simulated import SimulatedCandles
from trading_ops.market.soundness import check_candles
from trading_ops_tests.conftest import NOON
from trading_ops_tests.servers.bot import Says, ScriptedServer, serving

HOUR = timedelta(hours=1)
NEWEST = NOON.replace(minute=0) - HOUR  # the bar that closed at 12:00


def bars(missing=(), behind_h=0, **changes):
    """Two days of bars up to the newest complete one, as a bot sends them."""
    times = [NEWEST - (behind_h + back) * HOUR for back in range(48)][::-1]
    bar = {"open": 1.0, "high": 2.0, "low": 1.0, "close": 2.0, "volume": 5.0, **changes}
    return [{"time": at.isoformat(), **bar} for i, at in enumerate(times) if 48 - i not in missing]


@pytest.fixture
def verdict_on(make_services):
    """The verdict on the candles of a bot with these charts, by symbol."""

    def judge(charts):
        script = {f"/api/market/chart/{symbol}/1h": answer for symbol, answer in charts.items()}
        script["/api/health"] = {"healthy": True, "now": NOON.isoformat()}
        with serving(ScriptedServer(script)) as address:
            services = make_services(bot_url=address, symbols=tuple(charts), bot_timeout_s=10.0, health_timeout_s=10.0)
            return {v.component: v for v in check_components(services)}["candles"]

    return judge


def test_candles_up_to_the_present_are_healthy(verdict_on):
    verdict = verdict_on({"BTCUSDT": bars(), "ETHUSDT": bars()})
    assert (verdict.status, verdict.found) == (Status.HEALTHY, "2 symbols are fresh and whole")


def test_a_gap_in_the_last_day_is_degraded_and_shown(verdict_on):
    verdict = verdict_on({"BTCUSDT": bars(missing=(5, 6)), "ETHUSDT": bars()})
    assert verdict.status is Status.DEGRADED
    assert verdict.found == "candles: BTCUSDT: 2 bars missing, 2 bars from 2025-03-10 06:00 UTC"
    assert verdict.numbers["missing_bars"] == 2


def test_a_gap_of_the_day_before_is_not_told_any_more(verdict_on):
    assert verdict_on({"BTCUSDT": bars(missing=(30,))}).status is Status.HEALTHY


@pytest.mark.parametrize(("behind_h", "status"), [(3, Status.HEALTHY), (4, Status.UNHEALTHY)])
def test_a_feed_that_stands_still_is_unhealthy_after_three_hours(verdict_on, behind_h, status):
    assert verdict_on({"BTCUSDT": bars(behind_h=behind_h)}).status is status


def test_one_stale_symbol_among_fresh_ones_is_degraded(verdict_on):
    verdict = verdict_on({"BTCUSDT": bars(), "ETHUSDT": bars(behind_h=6)})
    assert verdict.status is Status.DEGRADED
    assert "ETHUSDT: its last bar closed 6 h ago; at most 3 h would be fresh" in verdict.found


def test_one_symbol_without_a_chart_is_degraded_and_a_bot_without_charts_unknown(verdict_on):
    nothing = Says({"error": "no such chart"}, 404)
    assert verdict_on({"BTCUSDT": bars(), "ETHUSDT": nothing}).status is Status.DEGRADED
    assert verdict_on({"BTCUSDT": nothing}).status is Status.UNKNOWN


def test_bars_that_cannot_be_are_unhealthy_however_fresh():
    frame = SimulatedCandles(lambda: NOON, ("BTCUSDT",)).candles("BTCUSDT", NEWEST - 24 * HOUR)
    torn = frame.copy()
    torn.loc[torn.index[3], "high"] = 0.5 * torn["low"].iloc[3]
    reports = {"BTCUSDT": check_candles(torn, "BTCUSDT"), "ETHUSDT": check_candles(frame, "ETHUSDT")}
    verdict = judge_candles(judge(reports, NOON))
    assert verdict.status is Status.UNHEALTHY
    assert "high is" in verdict.found


def test_recorded_candles_that_have_ended_are_told(make_services, market):
    services = make_services(candles=market, symbols=("BTCUSDT",))
    services.now = lambda: NOON.replace(year=2031)
    verdict = {v.component: v for v in check_components(services)}["candles"]
    assert verdict.status is Status.UNHEALTHY
    assert "h ago; at most 3 h would be fresh" in verdict.found
