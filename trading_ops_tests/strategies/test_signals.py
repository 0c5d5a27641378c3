"""Do the strategies signal where a person with a pencil would, and refuse parameters that cannot be?"""

from itertools import pairwise
from math import inf, nan, sqrt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.strategies.crossings import crossing_bars
from trading_ops.strategies.indicators import relative_strength
from trading_ops.strategies.signals import STRATEGIES, InvalidParameters, check_parameters, signals

SHORT = {
    "rsi": {"period": 4, "oversold": 40.0, "overbought": 60.0},
    "macd": {"fast": 3, "slow": 6, "signal": 3},
    "bollinger": {"period": 5, "deviations": 1.2},
    "volume": {"period": 4, "multiplier": 1.3},
}


def bars(close: list[float] | np.ndarray, volume: list[float] | None = None, opened: list[float] | None = None):
    """Bars that open at the close before (the first at its own close), with volume 1 unless given."""
    close = np.asarray(close, float)
    opens = np.concatenate((close[:1], close[:-1])) if opened is None else np.asarray(opened, float)
    index = pd.date_range("2024-01-01", periods=len(close), freq="h", tz="UTC", name="time")
    volumes = np.ones(len(close)) if volume is None else np.asarray(volume, float)
    columns = {"open": opens, "high": np.maximum(opens, close), "low": np.minimum(opens, close), "close": close}
    return pd.DataFrame(columns | {"volume": volumes}, index=index)


def random_bars(seed: int, count: int = 120) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, count) * (random.random(count) > 0.2)))
    return bars(np.round(close, 2), volume=list(np.round(random.lognormal(2, 0.7, count), 1)))


def at(flags: np.ndarray) -> list[int]:
    return np.flatnonzero(flags).tolist()


def plain_rsi(close: list[float], period: int) -> list[float]:
    """Wilder with a pencil: the first average is the plain mean, then each change weighs 1/period."""
    changes = [b - a for a, b in pairwise(close)]
    out = [nan] * len(close)
    for i in range(period, len(close)):
        if i == period:
            gain = sum(max(c, 0.0) for c in changes[:period]) / period
            loss = sum(max(-c, 0.0) for c in changes[:period]) / period
        else:
            gain = (gain * (period - 1) + max(changes[i - 1], 0.0)) / period
            loss = (loss * (period - 1) + max(-changes[i - 1], 0.0)) / period
        out[i] = 100 * gain / (gain + loss) if gain + loss else nan
    return out


def crossings(line: list[float], other: list[float], *, above: bool) -> list[int]:
    """Bars where `line` was not beyond `other` one bar ago and is now; NaN never crosses."""
    found = []
    for i in range(1, len(line)):
        before, now = line[i - 1] - other[i - 1], line[i] - other[i]
        if (before <= 0 < now) if above else (before >= 0 > now):
            found.append(i)
    return found


def plain_ema(values: list[float], period: int, start: int) -> list[float]:
    """An EMA over values[start:], whose first point is the mean of the `period` values up to it."""
    out = [nan] * len(values)
    for i in range(start + period - 1, len(values)):
        seed = sum(values[start : start + period]) / period
        out[i] = seed if i == start + period - 1 else out[i - 1] + (values[i] - out[i - 1]) * 2 / (period + 1)
    return out


@settings(deadline=None)  # the first call compiles
@given(
    st.lists(st.one_of(st.integers(-3, 3).map(float), st.just(nan)), max_size=30),
    st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=6),
    st.booleans(),
)
def test_many_levels_are_crossed_where_each_of_them_is(values: list[float], levels: list[float], above: bool):
    bars, begins = crossing_bars(np.array(values, "float64"), np.array(levels), above=above)
    for k, level in enumerate(levels):
        expected = crossings(values, [level] * len(values), above=above)
        assert bars[begins[k] : begins[k + 1]].tolist() == expected


def test_b143_a_constant_price_has_no_rsi_and_no_signal():
    flat = np.full(60, 0.1)
    assert np.isnan(relative_strength(flat, 14)).all()
    for strategy in STRATEGIES:
        entries, exits = signals(bars(flat), strategy)
        assert not (entries | exits).any(), strategy


def test_b143_only_gains_give_rsi_100():
    strength = relative_strength(np.arange(1.0, 40.0), 14)
    assert np.isnan(strength[:14]).all()
    assert (strength[14:] == 100.0).all()
    assert (relative_strength(np.arange(40.0, 1.0, -1.0), 14)[14:] == 0.0).all()


def test_rsi_by_hand():
    # Changes +1 -1 +2 -3. Means of the first two: G = L = 0.5. Then G = (0.5 + 2) / 2, L = 0.5 / 2; then the fall of 3.
    strength = relative_strength(np.array([10.0, 11.0, 10.0, 12.0, 9.0]), 2)
    assert strength[2:] == pytest.approx([50.0, 100 * 1.25 / 1.5, 100 * 0.625 / (0.625 + 1.625)])


def test_rsi_starts_with_the_first_price_change():
    strength = relative_strength(np.array([5.0] * 6 + [6.0, 6.0, 5.5]), 3)
    assert np.isnan(strength[:6]).all()
    assert strength[6:8] == pytest.approx([100.0, 100.0])
    assert 0 < strength[8] < 100


@pytest.mark.parametrize("period", [2, 14])
def test_a_long_standstill_leaves_rsi_where_it_was(period: int):
    close = np.concatenate(([10.0, 11.0, 10.5, 10.9] * 8, np.full(900, 10.9), [10.8]))
    strength = relative_strength(close, period)
    assert strength[32:-1] == pytest.approx(strength[31])
    assert not signals(bars(close[:-1]), "rsi", {"period": period})[0][32:].any()


def test_a_fall_before_a_standstill_leaves_rsi_at_zero():
    assert (relative_strength(np.array([9.0, 8.0] + [8.0] * 30), 5)[5:] == 0.0).all()


def test_rsi_enters_once_when_it_falls_below_oversold_and_leaves_once_when_it_rises_above_overbought():
    close = [10.0, 11.0, 10.0, 12.0, 9.0, 8.0, 7.0, 10.0, 12.0, 13.0]  # RSI from 10.0 on: 50 83 28 19 12 73 86 91
    entries, exits = signals(bars(close), "rsi", {"period": 2, "oversold": 30, "overbought": 70})
    assert at(entries) == [4]
    assert at(exits) == [3, 7]


def test_volume_enters_on_a_rising_spike_and_leaves_on_a_falling_one():
    opened = [10.0, 10.0, 10.0, 10.0, 11.0, 11.5, 11.5]
    close = [10.0, 10.0, 10.0, 11.0, 11.5, 11.4, 11.5]
    volume = [4.0, 4.0, 4.0, 9.0, 11.3, 50.0, 33.0]  # usual: mean of the three before: 4, 5.67, 8.1, 23.4
    entries, exits = signals(bars(close, volume, opened), "volume", {"period": 3, "multiplier": 2})
    assert at(entries) == [3]
    assert at(exits) == [5]


def test_a_volume_of_just_the_multiple_or_after_no_trade_at_all_is_no_spike():
    close = [10.0, 10.0, 10.0, 11.0]
    for usual in (0.1, 4.0):
        entries, _ = signals(bars(close, [usual] * 3 + [2 * usual]), "volume", {"period": 3, "multiplier": 2})
        assert not entries.any()
    assert not signals(bars(close, [0, 0, 0, 5]), "volume", {"period": 3})[0].any()
    assert not signals(bars([9.0, *close], [0.3, 0, 0, 0, 5]), "volume", {"period": 3})[0].any()


def test_volume_leaves_when_the_close_falls_below_its_mean():
    _, exits = signals(bars([10.0, 11.0, 12.0, 13.0, 11.0, 10.0]), "volume", {"period": 3})
    assert at(exits) == [4]  # means 11, 12, 12, 11.3: 13 is above 12, then 11 below 12


def test_bollinger_by_hand():
    # Means from the third bar on: 11, 10.67, 9.67, 8, 8; one deviation below: 10.18, 9.42, 7.97, 7.18, 7.18.
    entries, exits = signals(bars([10.0, 11.0, 12.0, 9.0, 8.0, 7.0, 9.0]), "bollinger", {"period": 3, "deviations": 1})
    assert at(entries) == [3, 5]
    assert at(exits) == [6]


@pytest.mark.parametrize("seed", range(5))
def test_signals_agree_with_plain_loops(seed: int):
    frame = random_bars(seed)
    close, opened, volume = (frame[field].tolist() for field in ("close", "open", "volume"))
    count = len(close)

    strength = plain_rsi(close, 4)
    entries, exits = signals(frame, "rsi", SHORT["rsi"])
    assert at(entries) == crossings(strength, [40.0] * count, above=False)
    assert at(exits) == crossings(strength, [60.0] * count, above=True)

    # TA-Lib starts both averages where the slow one is full: the fast one's first mean ends there too.
    fast, slow = plain_ema(close, 3, 6 - 3), plain_ema(close, 6, 0)
    line = [a - b for a, b in zip(fast, slow, strict=True)]
    average = plain_ema(line, 3, 5)
    entries, exits = signals(frame, "macd", SHORT["macd"])
    later = [i for i in range(count) if i > 6 + 3 - 2]
    assert at(entries) == [i for i in crossings(line, average, above=True) if i in later]
    assert at(exits) == [i for i in crossings(line, average, above=False) if i in later]

    mean = [nan] * 4 + [sum(close[i - 4 : i + 1]) / 5 for i in range(4, count)]
    spread = [sqrt(sum((c - mean[i]) ** 2 for c in close[i - 4 : i + 1]) / 5) if i >= 4 else nan for i in range(count)]
    lower = [m - 1.2 * s for m, s in zip(mean, spread, strict=True)]
    entries, exits = signals(frame, "bollinger", SHORT["bollinger"])
    assert at(entries) == crossings(close, lower, above=False)
    assert at(exits) == crossings(close, mean, above=True)

    spikes = [i for i in range(4, count) if volume[i] > 1.3 * sum(volume[i - 4 : i]) / 4]
    sma = [nan] * 3 + [sum(close[i - 3 : i + 1]) / 4 for i in range(3, count)]
    entries, exits = signals(frame, "volume", SHORT["volume"])
    assert at(entries) == [i for i in spikes if close[i] > opened[i]]
    falls = crossings(close, sma, above=False)
    assert at(exits) == sorted({i for i in spikes if close[i] < opened[i]} | set(falls))
    assert len(at(entries)) > 3
    assert len(at(exits)) > 3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_coin_worth_a_millionth_signals_where_a_dear_one_does(strategy: str):
    frame = random_bars(7, 400)
    cheap = frame.assign(**{field: frame[field] * 1e-8 for field in ("open", "high", "low", "close")})
    for dear, little in zip(signals(frame, strategy), signals(cheap, strategy), strict=True):
        assert at(dear) == at(little)
        assert dear.any()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(1, 119), strategy=st.sampled_from(sorted(STRATEGIES)))
def test_no_signal_depends_on_a_later_bar(seed: int, cut: int, strategy: str):
    frame = random_bars(seed)
    for whole, part in zip(
        signals(frame, strategy, SHORT[strategy]), signals(frame[:cut], strategy, SHORT[strategy]), strict=True
    ):
        assert part.dtype == bool
        assert at(part) == at(whole[:cut])


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("count", [0, 1, 2, 13])
def test_too_few_bars_give_no_signal(strategy: str, count: int):
    entries, exits = signals(random_bars(1)[:count], strategy)
    assert len(entries) == len(exits) == count
    assert not entries.any()
    assert not exits.any()


def test_defaults_are_filled_in_and_stops_kept_where_set():
    assert check_parameters("rsi") == {"period": 14, "oversold": 30.0, "overbought": 70.0}
    given_some = {"period": 9.0, "stop_loss_pct": 5, "take_profit_pct": None}
    filled = check_parameters("bollinger", given_some)
    assert filled == {"period": 9, "deviations": 2.0, "stop_loss_pct": 5.0}
    assert isinstance(filled["period"], int)
    for name, strategy in STRATEGIES.items():
        assert check_parameters(name) == dict(strategy.defaults)
        assert "Source:" in strategy.about
        assert list(strategy.meaning) == list(strategy.bounds) == list(strategy.defaults)
        assert set(strategy.bounds) == set(strategy.defaults) >= strategy.integers


@pytest.mark.parametrize(
    ("strategy", "parameters", "says"),
    [
        ("arbitrage", {}, "strategy 'arbitrage' is unknown; there are bollinger, macd, rsi, volume"),
        ("rsi", {"window": 3}, "parameter 'window' is unknown; there are period, oversold, overbought, stop_loss"),
        ("rsi", {"period": 1}, "period is 1; a whole number from 2 to 1000 would be right"),
        ("rsi", {"period": 14.5}, "period is 14.5; a whole number"),
        ("rsi", {"period": "14"}, "period is '14'; a whole number"),
        ("rsi", {"period": True}, "period is True"),
        ("rsi", {"period": None}, "period is None"),
        ("rsi", {"oversold": nan}, "oversold is nan; a number from 1 to 99 would be right"),
        ("rsi", {"overbought": inf}, "overbought is inf"),
        ("rsi", {"oversold": 70}, "oversold is 70 and overbought is 70; oversold must be below overbought"),
        ("macd", {"fast": 30}, "fast is 30 and slow is 26; fast must be below slow"),
        ("bollinger", {"deviations": 0}, "deviations is 0; a number from 0.1 to 10"),
        ("volume", {"multiplier": -2}, "multiplier is -2"),
        ("volume", {"stop_loss_pct": 0}, "stop_loss_pct is 0; a number from 0.01 to 99"),
        ("volume", {"take_profit_pct": [5]}, "take_profit_pct is [5]"),
    ],
)
def test_parameters_that_cannot_be_are_refused_by_name_and_value(strategy: str, parameters: dict, says: str):
    with pytest.raises(InvalidParameters) as refusal:
        check_parameters(strategy, parameters)
    assert says in str(refusal.value)
    assert isinstance(refusal.value, ValueError)
