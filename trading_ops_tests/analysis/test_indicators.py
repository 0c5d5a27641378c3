"""Do the compiled indicators say what TA-Lib and the strategies say, of every symbol and at every bar?"""

import numpy as np
import pytest
import talib
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.analysis.indicators import FLAT, INDICATORS, NEEDED_BARS, VOLATILITY_BARS, panel_indicators
from trading_ops.strategies.indicators import relative_strength

TOLERANCE = 1e-9


def walk(seed: int, symbols: int = 1, bars: int = 400, price: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
    """Closes with some bars that stand still, and volumes."""
    random = np.random.default_rng(seed)
    steps = random.normal(0, 0.01, (symbols, bars)) * (random.random((symbols, bars)) > 0.2)
    return price * np.exp(np.cumsum(steps, axis=1)), random.lognormal(2, 0.7, (symbols, bars))


def of(close: np.ndarray, volume: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The indicators of one symbol."""
    volumes = np.ones(len(close)) if volume is None else volume
    return dict(zip(INDICATORS, panel_indicators(close[None], volumes[None])[:, 0], strict=True))


def with_talib(close: np.ndarray, volume: np.ndarray) -> dict[str, np.ndarray]:
    upper, middle, _ = talib.BBANDS(close, 20, 2, 2)
    usual = np.concatenate(([np.nan], talib.SMA(volume, 20)[:-1]))
    changes = talib.ROCP(close, 1)
    return {
        "rsi": talib.RSI(close, 14),
        "macd_histogram": talib.MACD(close, 12, 26, 9)[2],
        "bollinger_position": (close - middle) / (upper - middle),
        "bollinger_deviation": (upper - middle) / 2,
        "volume_ratio": volume / usual,
        "volatility": talib.STDDEV(changes, 168) * np.sqrt(168 / 167),
        "return_1h": changes,
        "return_24h": talib.ROCP(close, 24),
        "return_7d": talib.ROCP(close, 168),
    }


@pytest.mark.parametrize("seed", range(4))
def test_every_indicator_is_talibs_at_every_bar(seed: int):
    close, volume = walk(seed, symbols=3)
    found = panel_indicators(close, volume)
    for symbol in range(3):
        for name, expected in with_talib(close[symbol], volume[symbol]).items():
            values = found[INDICATORS.index(name), symbol]
            np.testing.assert_array_equal(np.isnan(values), np.isnan(expected), err_msg=name)
            np.testing.assert_allclose(values, expected, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("price", [1e-8, 1.0, 1e6])
def test_rsi_is_the_strategies_rsi_however_cheap_the_coin(price: float):
    close, _ = walk(5, price=price)
    np.testing.assert_allclose(of(close[0])["rsi"], relative_strength(close[0], 14), rtol=TOLERANCE)


def test_a_constant_price_has_neither_rsi_nor_bands_B143():
    found = of(np.full(300, 0.1))
    assert np.isnan(found["rsi"]).all()
    assert np.isnan(found["bollinger_position"]).all()
    assert (found["bollinger_deviation"][19:] == 0).all()
    assert (found["return_24h"][24:] == 0).all()
    assert (found["volatility"][VOLATILITY_BARS:] == 0).all()
    assert abs(found["macd_histogram"][33:]).max() < 1e-15


def test_only_rises_give_rsi_100_and_only_falls_0_B143():
    rising = np.arange(1.0, 200.0)
    assert (of(rising)["rsi"][14:] == 100.0).all()
    assert (of(rising[::-1].copy())["rsi"][14:] == 0.0).all()


def test_rsi_starts_with_the_first_change_and_a_standstill_leaves_it_where_it_was():
    close = np.concatenate((np.full(40, 5.0), [6.0, 5.5, 5.9] * 10, np.full(2_000, 5.9)))
    rsi = of(close)["rsi"]
    assert np.isnan(rsi[:40]).all()
    assert rsi[70:] == pytest.approx(rsi[69])
    np.testing.assert_allclose(rsi, relative_strength(close, 14), rtol=TOLERANCE)


def test_a_price_that_fell_a_hundred_thousandfold_and_stands_still_has_no_bands():
    close = np.concatenate((80.0 * np.exp(-np.linspace(0, np.log(1e5), 100)), np.full(100, 8e-4)))
    assert np.isnan(of(close)["bollinger_position"][130:]).all()


def test_volume_after_idle_hours_has_no_ratio():
    volume = np.concatenate((np.full(40, 0.3), np.zeros(30), [5.0]))
    ratio = of(np.full(71, 10.0), volume)["volume_ratio"]
    assert np.isnan(ratio[60:]).all()
    assert ratio[20:40] == pytest.approx(1.0)
    assert (ratio[40:60] == 0).all()


def test_indicators_by_hand():
    # twenty closes 1..20 around their mean 10.5 with s = sqrt(33.25); the last, 20, lies 9.5 above
    found = of(np.arange(1.0, 21.0))
    assert found["bollinger_position"][19] == pytest.approx(9.5 / (2 * 33.25**0.5))
    assert found["return_1h"][19] == pytest.approx(1 / 19)
    doubled = np.concatenate((np.full(20, 3.0), [6.0]))
    assert of(np.full(21, 1.0), doubled)["volume_ratio"][20] == pytest.approx(2.0)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), missing=st.sets(st.integers(0, 299), max_size=120))
def test_a_missing_bar_is_skipped_as_the_strategies_do_the_next_follows_the_one_before(seed: int, missing: set[int]):
    close, volume = walk(seed, bars=300)
    there = np.array([i not in missing for i in range(300)])
    with_gaps = np.where(there, close[0], np.nan), np.where(there, volume[0], np.nan)
    gaps, packed = of(*with_gaps), of(close[0][there], volume[0][there])
    for name in INDICATORS:
        np.testing.assert_array_equal(gaps[name][there], packed[name], err_msg=name)
        assert np.isnan(gaps[name][~there]).all(), name


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 299))
def test_no_indicator_depends_on_a_later_bar(seed: int, cut: int):
    close, volume = walk(seed, symbols=2, bars=300)
    whole = panel_indicators(close, volume)[:, :, :cut]
    np.testing.assert_array_equal(panel_indicators(close[:, :cut], volume[:, :cut]), whole)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), power=st.integers(-60, 60))
def test_a_price_times_a_power_of_two_changes_no_relative_indicator(seed: int, power: int):
    close, volume = walk(seed, bars=300)
    plain, scaled = of(close[0], volume[0]), of(np.ldexp(close[0], power), volume[0])
    for name in INDICATORS:
        expected = np.ldexp(plain[name], power) if name in ("macd_histogram", "bollinger_deviation") else plain[name]
        np.testing.assert_array_equal(scaled[name], expected, err_msg=name)


@pytest.mark.parametrize("bars", [0, 1, 2, 14, 20, NEEDED_BARS - 1])
def test_too_few_bars_are_undefined_and_no_error(bars: int):
    close, volume = walk(1, bars=bars)
    found = panel_indicators(close, volume)
    assert found.shape == (len(INDICATORS), 1, bars)
    assert np.isnan(found[INDICATORS.index("macd_histogram")]).all()


def test_needed_bars_are_just_enough_for_the_rule():
    close, volume = walk(2, bars=NEEDED_BARS)
    found = of(close[0], volume[0])
    for name in ("rsi", "macd_histogram", "bollinger_position", "volume_ratio"):
        assert np.isfinite(found[name][-1]), name
    assert FLAT < 1e-5


def test_memory_that_is_used_again_holds_the_same_and_wrong_shapes_are_named():
    close, volume = walk(3, symbols=2, bars=60)
    close[0, :30] = np.nan
    out = np.full((len(INDICATORS), 2, 60), 7.0)
    assert panel_indicators(close, volume, out) is out
    np.testing.assert_array_equal(out, panel_indicators(close, volume))
    with pytest.raises(ValueError, match=r"close is \(2, 60\) and volume \(2, 59\)"):
        panel_indicators(close, volume[:, :-1])
