"""Is a prediction joined to its own outcome, when that is known, and to nothing else?"""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.accuracy.joining import join_outcomes
from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops_tests.accuracy.worlds import DAY, bars, said, us


def test_each_prediction_meets_what_happened_after_it():
    joined = join_outcomes(said([0.6, 0.6, 0.6]), {"BTCUSDT": bars([1, 0, None])})
    assert joined["state"].tolist() == ["joined", "joined", "flat"]
    assert joined["up"].tolist()[:2] == [1.0, 0.0]
    assert np.isnan(joined["up"].tolist()[2])
    assert joined["realised_us"].tolist() == [us(f"{DAY}T02"), us(f"{DAY}T03"), us(f"{DAY}T04")]


def test_what_has_not_happened_yet_is_never_joined():
    joined = join_outcomes(said([0.6] * 4), {"BTCUSDT": bars([1, 0])})  # the last bar closes at 03:00
    assert joined["state"].tolist() == ["joined", "joined", "unrealised", "unrealised"]
    assert joined["up"].isna().tolist() == [False, False, True, True]
    assert join_outcomes(said([0.6]), {"BTCUSDT": bars([1]).iloc[:0]})["state"].tolist() == ["unrealised"]
    assert join_outcomes(said([0.6]), {})["state"].tolist() == ["unrealised"]


def test_across_a_missing_bar_an_outcome_is_void():
    frame = bars([1, 1, 1, 1, 1, 1])
    holed = frame.drop(frame.index[3])
    joined = join_outcomes(said([0.6] * 6), {"BTCUSDT": holed})
    assert joined["state"].tolist() == ["joined", "joined", "missing", "missing", "joined", "joined"]
    two = join_outcomes(said([0.6] * 5, horizon=2), {"BTCUSDT": holed})
    assert two["state"].tolist() == ["joined", "missing", "missing", "missing", "joined"]


def test_bars_that_begin_later_than_the_predictions_void_the_ones_before():
    joined = join_outcomes(said([0.6] * 4), {"BTCUSDT": bars([1] * 4).iloc[2:]})
    assert joined["state"].tolist() == ["missing", "missing", "joined", "joined"]


def test_a_model_that_said_nothing_is_silent_whatever_came():
    joined = join_outcomes(said([np.nan, 0.6]), {"BTCUSDT": bars([1, 1])})
    assert joined["state"].tolist() == ["silent", "joined"]
    assert joined["up"].isna().tolist() == [True, False]


def test_each_symbol_meets_its_own_bars():
    both = pd.concat([said([0.6, 0.6]), said([0.6, 0.6], name="gru/ETHUSDT")], ignore_index=True)
    joined = join_outcomes(both, {"BTCUSDT": bars([1, 0]), "ETHUSDT": bars([0, 1])})
    assert joined.loc[joined["symbol"] == "BTCUSDT", "up"].tolist() == [1.0, 0.0]
    assert joined.loc[joined["symbol"] == "ETHUSDT", "up"].tolist() == [0.0, 1.0]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([1, 0, None]), min_size=2, max_size=30),
    st.sets(st.integers(0, 30)),
    st.integers(1, 4),
    st.integers(1, 30),
)
def test_only_whole_windows_of_real_bars_are_joined_and_the_future_changes_nothing(moves, gone, horizon, cut):
    frame = bars(moves)
    frame = frame[[i not in gone for i in range(len(frame))]]
    predictions = said([0.6] * len(moves), horizon=horizon)
    joined = join_outcomes(predictions, {"BTCUSDT": frame})
    closes = dict(zip(frame.index.as_unit("us").asi8 + HOUR_US, frame["close"], strict=True))
    for row in joined.itertuples():
        window = [row.decided_us + i * HOUR_US for i in range(horizon + 1)]
        if row.state == "joined":
            assert all(close in closes for close in window)
            assert row.up == float(closes[window[-1]] > closes[window[0]])
        elif row.state == "flat":
            assert closes[window[-1]] == closes[window[0]]
        elif row.state == "missing":
            assert not all(close in closes for close in window)
        else:
            assert row.realised_us > max(closes, default=0)
    earlier = join_outcomes(predictions, {"BTCUSDT": frame.iloc[:cut]})
    settled = earlier["state"].isin(["joined", "flat"])
    pd.testing.assert_frame_equal(earlier[settled], joined[settled])
