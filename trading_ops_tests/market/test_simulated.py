"""Is the simulated market plausible, and the same whenever it is asked?"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.market.candles import CandleError, UnknownSymbol
from trading_ops.market.simulated import ANCHOR, COINS, SimulatedCandles
from trading_ops.market.soundness import check_candles

NOW = datetime(2026, 11, 23, 16, 20, tzinfo=UTC)


@pytest.fixture(scope="module")
def frames() -> dict[str, pd.DataFrame]:
    source = SimulatedCandles(lambda: NOW)
    return {symbol: source.candles(symbol) for symbol in source.symbols()}


@settings(max_examples=20, deadline=None)
@given(hours=st.integers(1, 6000), symbol=st.sampled_from(sorted(COINS)))
def test_a_bar_is_identical_whatever_the_present(frames: dict[str, pd.DataFrame], hours: int, symbol: str):
    early = SimulatedCandles(lambda: ANCHOR + timedelta(hours=hours, minutes=59)).candles(symbol)
    assert len(early) == hours
    assert early.to_numpy().tobytes() == frames[symbol][:hours].to_numpy().tobytes()
    assert early.index.equals(frames[symbol].index[:hours])


def test_the_order_and_the_company_in_which_symbols_are_asked_do_not_matter(frames: dict[str, pd.DataFrame]):
    alone = SimulatedCandles(lambda: NOW, symbols=["SOLUSDT"])
    late = alone.candles("SOLUSDT", NOW - timedelta(days=30))
    pd.testing.assert_frame_equal(late, frames["SOLUSDT"][frames["SOLUSDT"].index >= NOW - timedelta(days=30)])


def test_a_period_is_half_open_and_complete_bars_only():
    source = SimulatedCandles(lambda: NOW)
    start = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
    bars = source.candles("BTCUSDT", start, start + timedelta(hours=10))
    assert (bars.index[0].hour, bars.index[-1].hour, len(bars)) == (13, 22, 10)
    assert source.candles("BTCUSDT").index[-1] == datetime(2026, 11, 23, 15, tzinfo=UTC)
    assert source.coverage(source.symbols()).end == datetime(2026, 11, 23, 16, tzinfo=UTC)
    assert source.candles("BTCUSDT", NOW + timedelta(days=9)).empty
    assert source.candles("BTCUSDT", end=ANCHOR - timedelta(days=9)).empty


def test_simulated_candles_are_sound_without_gaps_and_open_at_the_close_before(frames: dict[str, pd.DataFrame]):
    for symbol, bars in frames.items():
        report = check_candles(bars, symbol)
        assert report.sound, report.problems
        assert report.missing_bars == 0
        assert (bars.open.to_numpy()[1:] == bars.close.to_numpy()[:-1]).all()


def test_simulated_returns_look_like_a_crypto_market(frames: dict[str, pd.DataFrame]):
    returns = pd.DataFrame({symbol: np.log(bars.close).diff() for symbol, bars in frames.items()}).dropna()
    assert returns.std().between(0.005, 0.012).all(), returns.std()
    assert (returns.kurt() > 3).all()
    assert returns.corr().to_numpy().min() > 0.3
    for symbol, bars in frames.items():
        assert bars.close.between(COINS[symbol].price / 6, COINS[symbol].price * 6).all(), symbol
        size = np.log(bars.close / bars.open).abs()
        assert size.corr(bars.volume, method="spearman") > 0.3


def test_another_seed_is_another_market_and_another_symbol_can_be_simulated(frames: dict[str, pd.DataFrame]):
    other = SimulatedCandles(lambda: NOW, symbols=["BTCUSDT", "DOGEUSDT"], seed=7)
    assert not np.array_equal(other.candles("BTCUSDT").close, frames["BTCUSDT"].close)
    assert check_candles(other.candles("DOGEUSDT"), "DOGEUSDT").sound
    assert other.label == "simulated"
    assert other.stale_symbols() == {}
    with pytest.raises(UnknownSymbol, match="ETHUSDT: no simulated candles; there are BTCUSDT, DOGEUSDT"):
        other.candles("ETHUSDT")


def test_before_its_first_hour_the_simulation_has_nothing():
    assert SimulatedCandles(lambda: ANCHOR + timedelta(minutes=59)).symbols() == []
    with pytest.raises(CandleError, match="each once"):
        SimulatedCandles(lambda: NOW, symbols=["BTCUSDT", "BTCUSDT"])


def test_the_first_bars_never_change_between_versions():
    """Stored results name simulated days; whoever changes the generator must say so in the changelog."""
    bars = SimulatedCandles(lambda: ANCHOR + timedelta(hours=3)).candles("BTCUSDT")
    assert list(bars.close) == [41997.4, 41912.4, 41942.0]
