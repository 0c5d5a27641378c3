"""Are features what their formulas say, known at the bar's close, and never a number where a bar is missing?"""

from itertools import pairwise
from math import cos, log, pi, sin, sqrt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.accuracy.outcomes import outcomes
from trading_ops.market.candles import InvalidCandles
from trading_ops.training.features import FEATURES, LOOK_BACK, WARM_UP, features, samples_of

CUTS = 200
HORIZON = 3
CLOCK = ["hour_sin", "hour_cos", "week_sin", "week_cos"]


@pytest.fixture(scope="module")
def btc(request: pytest.FixtureRequest) -> pd.DataFrame:
    """17 months of BTCUSDT, from the time of nine of its ten outages."""
    from trading_ops_tests.conftest import MARKET

    if not MARKET.is_dir():
        pytest.skip(f"recorded candles are not at {MARKET}")
    return recorded(MARKET)[:12_000]


def recorded(market: Path) -> pd.DataFrame:
    return pd.read_parquet(market / "BTCUSDT-1h.parquet").set_index("ts").rename_axis("time")


def bars(count: int, seed: int = 5) -> pd.DataFrame:
    """A path that moves, with wicks and volumes; begins on Monday, 2024-01-01 00:00 UTC."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(random.normal(0, 0.01, count)))
    opened = np.append(100.0, close[:-1])
    high = np.maximum(opened, close) * (1 + random.uniform(0, 0.01, count))
    low = np.minimum(opened, close) * (1 - random.uniform(0, 0.01, count))
    columns = {"open": opened, "high": high, "low": low, "close": close, "volume": random.uniform(1, 9, count)}
    return pd.DataFrame(columns, index=pd.date_range("2024-01-01", periods=count, freq="h", tz="UTC", name="time"))


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    return ours.shape == theirs.shape and np.ascontiguousarray(ours).tobytes() == np.ascontiguousarray(theirs).tobytes()


def test_no_feature_and_no_realised_label_changes_when_the_future_is_taken_away_at_200_times(btc: pd.DataFrame):
    """At every tenth time the future is also replaced by one ten times as high."""
    whole, up = features(btc).to_numpy(), outcomes(btc, HORIZON).up.to_numpy()
    random = np.random.default_rng(7)
    for number, cut in enumerate(random.choice(np.arange(WARM_UP, len(btc)), CUTS, replace=False)):
        futures = [btc[:cut]] + ([pd.concat((btc[:cut], 10.0 * btc[cut:]))] if number % 10 == 0 else [])
        for future in futures:
            assert same(features(future).to_numpy()[:cut], whole[:cut])
        labels = outcomes(btc[:cut], HORIZON).up.to_numpy()
        assert same(labels[: cut - HORIZON], up[: cut - HORIZON])
        assert np.isnan(labels[cut - HORIZON :]).all()


def test_features_do_not_depend_on_how_long_the_past_is(btc: pd.DataFrame):
    whole = features(btc).to_numpy()
    for start in np.random.default_rng(8).integers(1, len(btc) - 500, 40):
        part = features(btc[start : start + 500]).to_numpy()
        np.testing.assert_allclose(part[WARM_UP - 1 :], whole[start + WARM_UP - 1 : start + 500], rtol=0, atol=1e-9)


def test_every_feature_is_what_its_formula_says():
    frame = bars(60)
    found = features(frame).iloc[-1]
    open_, high, low, close, volume = (frame[name].tolist() for name in ("open", "high", "low", "close", "volume"))
    r = [log(now / before) for before, now in pairwise(close)]
    s = sqrt(sum(x * x for x in r[-24:]) / 24)
    top, bottom = log(max(high[-24:])), log(min(low[-24:]))
    m6, m24 = sum(volume[-6:]) / 6, sum(volume[-24:]) / 24
    usual = sum(volume[-25:-1]) / 24
    upper, lower = high[-1] - max(open_[-1], close[-1]), min(open_[-1], close[-1]) - low[-1]
    expected = {
        **{f"return_{k}h": log(close[-1] / close[-1 - k]) for k in (1, 4, 12, 24)},
        "range_1h": log(high[-1] / low[-1]),
        "close_in_range": (close[-1] - low[-1]) / (high[-1] - low[-1]) - 0.5,
        "wick_balance": (upper - lower) / (high[-1] - low[-1]),
        "volatility_24h": s,
        "volatility_ratio": sqrt(sum(x * x for x in r[-6:]) / 6) / s,
        "shock": r[-1] / s,
        "strength_14h": sum(r[-14:]) / sum(map(abs, r[-14:])),
        "mean_gap_24h": log(close[-1]) - sum(map(log, close[-24:])) / 24,
        "close_in_channel_24h": (log(close[-1]) - bottom) / (top - bottom) - 0.5,
        "volume_surge": volume[-1] / (volume[-1] + usual) - 0.5,
        "volume_trend": m6 / (m6 + m24) - 0.5,
        "volume_flow_12h": sum(v if x > 0 else -v for v, x in zip(volume[-12:], r[-12:], strict=True))
        / sum(volume[-12:]),
        # the 60th bar closes on Wednesday, 12:00
        "hour_sin": sin(pi),
        "hour_cos": cos(pi),
        "week_sin": sin(2 * pi * 60 / 168),
        "week_cos": cos(2 * pi * 60 / 168),
    }
    assert list(expected) == list(FEATURES) == list(found.index)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_each_feature_begins_when_its_look_back_is_full():
    found = features(bars(40))
    assert {name: int(found[name].isna().sum()) + 1 for name in FEATURES} == LOOK_BACK
    assert max(LOOK_BACK.values()) == WARM_UP


def test_a_missing_bar_blinds_a_feature_for_as_long_as_it_lies_in_its_look_back():
    frame = bars(100)
    whole, holed = features(frame), features(frame.drop(frame.index[50]))
    for name, look_back in LOOK_BACK.items():
        blind = holed[name].iloc[40:].isna()
        # bar 51 sees bars 51 - look_back + 1 .. 51
        assert blind.index[blind].tolist() == frame.index[51 : 50 + look_back].tolist(), name
        seen = holed[name].dropna()
        assert same(seen.to_numpy(), whole[name].loc[seen.index].to_numpy()), name


def test_prices_in_another_currency_and_volumes_in_another_unit_give_the_same_features(btc: pd.DataFrame):
    frame = btc[:2_000]
    other = frame * {"open": 0.013, "high": 0.013, "low": 0.013, "close": 0.013, "volume": 1000.0}
    np.testing.assert_allclose(features(other), features(frame), rtol=0, atol=1e-7)


def test_a_price_that_stands_still_and_is_not_traded_gives_the_middle_of_every_scale():
    frame = bars(40)
    frame[["open", "high", "low", "close"]] = 42.0
    frame["volume"] = 0.0
    last = features(frame).iloc[-1].drop(CLOCK)
    assert last["volatility_ratio"] == 1.0
    assert (last.drop("volatility_ratio") == 0.0).all()


prices = st.sampled_from([1e-300, 1e-8, 1.0, 1.0, 1.0, 1.001, 2.0, 1e12, 1e300])
volumes = st.sampled_from([0.0, 0.0, 1e-300, 1.0, 3.0, 1e308])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(prices, prices, prices, prices, volumes), min_size=1, max_size=60),
    st.sets(st.integers(0, 59), max_size=3),
)
def test_no_bar_however_odd_gives_an_infinite_feature(rows: list[tuple[float, ...]], missing: set[int]):
    table = np.array(rows)
    low, high = table[:, :4].min(axis=1), table[:, :4].max(axis=1)
    columns = {"open": table[:, 0], "high": high, "low": low, "close": table[:, 1], "volume": table[:, 4]}
    frame = pd.DataFrame(columns, index=pd.date_range("2024-01-01", periods=len(rows), freq="h", tz="UTC", name="time"))
    frame = frame[[hour not in missing for hour in range(len(rows))]]
    samples = samples_of("ODDUSDT", frame)
    assert not np.isinf(samples.features).any()
    found = features(frame)
    assert found["close_in_range"].dropna().between(-0.5, 0.5).all()
    assert found["strength_14h"].dropna().between(-1 - 1e-12, 1 + 1e-12).all()
    assert found["volume_surge"].dropna().between(-0.5, 0.5).all()


def test_samples_hold_bars_features_and_labels_side_by_side():
    frame = bars(80)
    samples = samples_of("BTCUSDT", frame, horizon=2, lookback=10)
    assert (samples.symbol, samples.names, samples.horizon, samples.lookback) == ("BTCUSDT", FEATURES, 2, 10)
    assert samples.features.dtype == samples.labels.dtype == np.float32
    assert samples.features.shape == (80, len(FEATURES))
    assert samples.times[0] == pd.Timestamp("2024-01-01", tz="UTC").value // 1000
    close = frame["close"].to_numpy()
    np.testing.assert_array_equal(samples.labels[:78], (close[2:] > close[:78]).astype("float32"))
    # a window of 10 bars whose features look back on 25
    assert samples.decidable().tolist() == list(range(WARM_UP - 1 + 9, 80))


def test_samples_of_unsound_candles_are_refused():
    frame = bars(30)
    frame.iloc[7, frame.columns.get_loc("close")] = np.nan
    with pytest.raises(InvalidCandles, match=r"2024-01-01 07:00.*close is nan"):
        samples_of("BTCUSDT", frame)
    with pytest.raises(InvalidCandles, match="must ascend"):
        samples_of("BTCUSDT", bars(30)[::-1])
    with pytest.raises(ValueError, match="lookback is 0"):
        samples_of("BTCUSDT", bars(30), lookback=0)
    with pytest.raises(ValueError, match="horizon is 0"):
        samples_of("BTCUSDT", bars(30), horizon=0)


def test_no_candles_make_samples_without_rows():
    samples = samples_of("BTCUSDT", bars(30)[:0])
    assert samples.features.shape == (0, len(FEATURES))
    assert samples.learnable().tolist() == []
