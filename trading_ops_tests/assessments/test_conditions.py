"""Is the market's state what a reader calculates by hand from its bars, and blind to what came later?"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.assessments.conditions import bars_between, market_days
from trading_ops.assessments.evidence import Market
from trading_ops.market.candles import InvalidCandles
from trading_ops.market.soundness import require_sound

DAY = "2025-03-09"
END = datetime(2025, 3, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)
UNKNOWN = {"volatility_24h_pct": None, "volatility_7d_pct": None, "change_24h_pct": None, "change_7d_pct": None}


def bars_of(close: list[float], end: datetime = END, volume: float | list[float] = 5.0) -> pd.DataFrame:
    """Hourly bars with these closes, the last of which is known at `end`."""
    index = pd.date_range(end=end - HOUR, periods=len(close), freq="h", tz="UTC", name="time", unit="us")
    prices = np.array(close, float)
    columns = {"open": prices, "high": prices, "low": prices, "close": prices, "volume": volume}
    return pd.DataFrame(columns, index=index, dtype=float)


def market_of(bars: pd.DataFrame, day: str = DAY) -> Market:
    return market_days("BTCUSDT", bars, [day])[day]


def known(market: Market) -> dict[str, float | None]:
    return {name: value for name, value in market.model_dump().items() if name in UNKNOWN}


def test_a_price_that_grows_by_one_percent_an_hour_has_no_volatility():
    found = market_of(bars_of([1.01**hour for hour in range(200)]))
    assert found.bars_7d == 168
    assert found.volatility_24h_pct == pytest.approx(0.0, abs=1e-9)
    assert found.volatility_7d_pct == pytest.approx(0.0, abs=1e-9)
    assert found.change_24h_pct == pytest.approx(100 * (1.01**24 - 1))
    assert found.change_7d_pct == pytest.approx(100 * (1.01**168 - 1))
    assert found.volume_ratio == 1.0


def test_a_price_that_swings_by_a_hundredth_has_the_deviation_of_plus_and_minus_one_percent():
    low, high = 100.0, 100.0 * float(np.exp(0.01))
    found = market_of(bars_of([low, high] * 100))
    assert found.volatility_24h_pct == pytest.approx((24 / 23) ** 0.5)  # 24 returns of +-1 %, their mean 0, ddof 1
    assert found.volatility_7d_pct == pytest.approx((168 / 167) ** 0.5)
    assert found.change_24h_pct == found.change_7d_pct == 0.0


def test_the_return_into_the_days_first_bar_is_of_the_day():
    found = market_of(bars_of([100.0] * 176 + [100.0 * float(np.exp(0.01))] * 24))
    # one return of 1 % and 23 (167) of 0: their deviation from the mean, ddof 1, is 1 over the root of their number
    assert found.volatility_24h_pct == pytest.approx(24**-0.5)
    assert found.volatility_7d_pct == pytest.approx(168**-0.5)


def test_a_flat_market_has_no_volatility_and_no_change():
    found = market_of(bars_of([100.0] * 200))
    assert known(found) == dict.fromkeys(UNKNOWN, 0.0)


def test_the_last_days_volume_is_set_against_the_weeks():
    volume = [1.0] * 32 + [2.0] * 144 + [9.0] * 24
    assert market_of(bars_of([100.0] * 200, volume=volume)).volume_ratio == 3.0  # 9 over (144 * 2 + 24 * 9) / 168 = 3


def test_without_any_volume_there_is_no_ratio():
    assert market_of(bars_of([100.0] * 200, volume=0.0)).volume_ratio is None


def test_across_a_missing_bar_there_is_no_return():
    """A jump of 50 % over the hole would be the volatility of the whole week."""
    whole = bars_of([100.0] * 190 + [150.0] * 10)
    found = market_of(whole.drop(whole.index[190]))
    assert found.bars_7d == 167
    assert (found.volatility_24h_pct, found.volatility_7d_pct) == (0.0, 0.0)
    assert (found.change_24h_pct, found.change_7d_pct) == (50.0, 50.0)


@pytest.mark.parametrize(
    ("hours_before_the_end", "unknown"),
    [(1, ("change_24h_pct", "change_7d_pct")), (25, ("change_24h_pct",)), (169, ("change_7d_pct",)), (2, ())],
)
def test_a_change_is_unknown_where_either_of_its_two_bars_is_missing(hours_before_the_end, unknown):
    bars = bars_of([100.0] * 200)
    found = known(market_of(bars.drop(bars.index[-hours_before_the_end])))
    assert tuple(name for name, value in found.items() if value is None) == unknown


def test_in_the_first_week_of_a_listing_the_week_is_not_known_yet():
    found = market_of(bars_of([100.0] * 60))
    assert found.bars_7d == 60
    assert (found.change_24h_pct, found.change_7d_pct) == (0.0, None)
    assert (found.volatility_24h_pct, found.volatility_7d_pct) == (0.0, 0.0)
    assert found.volume_ratio == 1.0


@pytest.mark.parametrize(("bars", "volatility"), [(12, None), (13, 0.0)])
def test_a_day_of_less_than_twelve_returns_has_no_volatility(bars, volatility):
    found = market_of(bars_of([100.0] * bars))
    assert (found.bars_7d, found.volatility_24h_pct) == (bars, volatility)


@pytest.mark.parametrize("bars", [bars_of([]), bars_of([100.0] * 50, END - timedelta(days=8)),
                                  bars_of([100.0] * 50, END + timedelta(days=8))])  # fmt: skip
def test_a_week_without_bars_is_unknown(bars):
    found = market_of(bars)
    assert (found.bars_7d, found.volume_ratio) == (0, None)
    assert known(found) == UNKNOWN


@pytest.mark.parametrize(
    ("column", "value"), [("close", float("nan")), ("close", float("inf")), ("volume", -1.0), ("low", 0.0)]
)
def test_what_cannot_be_calculated_with_is_refused_before(column, value):
    bars = bars_of([100.0] * 200)
    bars.iloc[7, bars.columns.get_loc(column)] = value
    with pytest.raises(InvalidCandles, match=column):
        require_sound(bars, "BTCUSDT")


prices = st.lists(st.floats(1, 1e6), min_size=0, max_size=250)
DAYS = ["2025-03-07", "2025-03-08", "2025-03-09"]


@given(prices, st.sets(st.integers(0, 249)), st.sets(st.sampled_from(DAYS), min_size=1))
def test_a_day_does_not_depend_on_the_other_days_asked_for(closes, holes, days):
    bars = bars_of(closes)
    bars = bars.drop(bars.index[[at for at in holes if at < len(bars)]])
    together = market_days("BTCUSDT", bars, sorted(days))
    assert together == {day: market_of(bars, day) for day in sorted(days)}


@given(prices, prices, st.floats(0, 100))
def test_bars_after_the_day_change_nothing(closes, later, volume):
    bars = bars_of(closes)
    after = bars_of(later, END + len(later) * HOUR, volume)
    assert market_of(pd.concat([bars, after])) == market_of(bars)


@given(prices, prices)
def test_bars_older_than_a_week_and_an_hour_change_nothing(closes, earlier):
    bars = bars_of((closes + [100.0] * 169)[-169:])
    before = bars_of(earlier, bars.index[0].to_pydatetime())
    assert market_of(pd.concat([before, bars])) == market_of(bars)


OPENS = bars_of([100.0] * 48).index.asi8  # of the 8th and the 9th


@pytest.mark.parametrize(
    ("since", "day", "bars"),
    [
        ("2025-03-09T00:00:00+00:00", DAY, 24),
        ("2025-03-09T01:00:00+01:00", DAY, 24),
        ("2025-03-08T23:00:00+00:00", DAY, 25),
        ("2025-03-08T23:00:01+00:00", DAY, 24),
        ("2025-01-01T00:00:00+00:00", DAY, 48),
        ("2025-03-10T00:00:00+00:00", DAY, 0),
        ("2025-03-09T12:00:00+00:00", "2025-03-08", 0),
        ("2025-03-08T12:00:00+00:00", "2025-03-08", 12),
        ("2025-03-01T00:00:00+00:00", "2025-03-07", 0),
    ],
)
def test_new_bars_open_from_a_moment_to_the_end_of_the_day(since, day, bars):
    assert bars_between(OPENS, datetime.fromisoformat(since), day) == bars


def test_of_missing_bars_none_is_new():
    since = datetime(2025, 3, 9, tzinfo=UTC)
    assert bars_between(np.delete(OPENS, [24, 47]), since, DAY) == 22
    assert bars_between(OPENS[:0], since, DAY) == 0
