"""Does a day's document say how right the models were, and what it could not count?"""

import numpy as np
import pandas as pd
import pytest

from trading_ops.accuracy.joining import join_outcomes
from trading_ops.accuracy.plot import accuracy_plot
from trading_ops.accuracy.report import Deployed, accuracy_days
from trading_ops.accuracy.scoring import score
from trading_ops.audit.chain import canonical_json
from trading_ops_tests.accuracy.worlds import DAY, bars, said, us

NAME = "lstm/BTCUSDT"
BEFORE = "2025-03-08T23"  # the bar whose close, 00:00, has its outcome at 01:00; that of 23:00 is realised at 00:00


def document(frame: pd.DataFrame, moves=(1, 0) * 12, first=f"{DAY}T00", deployed=None):
    joined = join_outcomes(frame, {symbol: bars(moves, first) for symbol in set(frame["symbol"])})
    return accuracy_days(joined, deployed or {}, [DAY], label="recorded")[DAY]


def weeks(shares, name=NAME, seed=1, **kind):
    """Weeks of predictions up to the end of DAY, of which this share is right, and the bars they are about."""
    rng = np.random.default_rng(seed)
    hours = 168 * len(shares)
    up = rng.integers(0, 2, hours)
    right = rng.random(hours) < np.repeat(shares, 168)
    first = pd.Timestamp(DAY) + pd.Timedelta(days=1) - pd.Timedelta(hours=hours + 1)
    probabilities = np.where(up == right, 0.55, 0.45)
    frame = said(probabilities, str(first.to_datetime64()), name=name, **kind)
    return frame, bars(up.tolist(), str(first - pd.Timedelta(hours=1)))


def test_a_day_is_scored_on_the_labels_realised_in_it():
    probabilities = [0.6] * 10 + [0.4] * 13  # closes 00:00 to 22:00, realised at 01:00 to 23:00
    frame = said(probabilities, f"{DAY}T00")
    row = document(frame, [1, 0] * 12, BEFORE)["models"][NAME]
    up = np.array([1, 0] * 12, float)[:23]
    expected = score(probabilities, up, reference=0.5)
    assert (row["n"], row["unpredicted"], row["outcome"]) == (23, 1, "measured")
    assert row["accuracy"] == expected.accuracy
    assert row["brier"] == pytest.approx(expected.brier)
    assert row["interval"] == pytest.approx(list(expected.interval))
    assert (row["f1"], row["base_rate"], row["skill"]) == (expected.f1, expected.base_rate, expected.skill)
    assert (row["deployed"], row["model_age_days"]) == (False, None)


def test_a_label_realised_at_midnight_belongs_to_the_day_that_begins():
    frame = said([0.6, 0.6], "2025-03-08T22")  # realised at 23:00 on the 8th and at 00:00 on the 9th
    joined = join_outcomes(frame, {"BTCUSDT": bars([1, 1], "2025-03-08T21")})
    documents = accuracy_days(joined, {}, ["2025-03-08", DAY], label="recorded")
    assert [d["models"][NAME]["n"] for d in documents.values()] == [1, 1]
    assert documents[DAY]["models"][NAME]["outcome"] == "too_few"


def test_every_hour_of_the_day_is_accounted_for():
    frame = said([0.6, np.nan] + [0.6] * 17, f"{DAY}T00")
    candles = bars([1, 0, 1, None, None] + [1] * 13, BEFORE)  # the last bar closes at 18:00
    joined = join_outcomes(frame, {"BTCUSDT": candles.drop(candles.index[8])})
    row = accuracy_days(joined, {}, [DAY], label="recorded")[DAY]["models"][NAME]
    assert {k: row[k] for k in ("n", "silent", "flat", "missing", "void", "unrealised", "unpredicted")} == {
        "n": 13, "silent": 1, "flat": 2, "missing": 2, "void": 4, "unrealised": 1, "unpredicted": 5,
    }  # fmt: skip
    assert sum(row[k] for k in ("n", "silent", "void", "unrealised", "unpredicted")) == 24


def test_no_champion_no_predictions_yet_and_too_few_are_different_outcomes():
    none = said([])
    assert document(none)["outcome"] == "no_champion"
    assert document(none)["models"] == {}
    assert document(none)["pooled"] is None
    champion = {DAY: {NAME: Deployed("m1", us("2025-02-07"))}}
    waiting = document(none, deployed=champion)
    assert waiting["outcome"] == "no_predictions"
    assert (waiting["models"][NAME]["n"], waiting["models"][NAME]["accuracy"]) == (0, None)
    assert waiting["models"][NAME]["model_age_days"] == 31.0
    assert document(said([0.6] * 11), deployed=champion)["outcome"] == "too_few"
    assert document(said([0.6] * 12), deployed=champion)["outcome"] == "measured"


def test_the_champion_at_the_days_end_is_named_and_reconstructed_hours_are_counted():
    both = pd.concat([said([0.6] * 6, reconstructed=True), said([0.6] * 6, f"{DAY}T07", model_id="m2")])
    row = document(both.reset_index(drop=True))["models"][NAME]
    assert (row["model_id"], row["n"], row["reconstructed"]) == ("m2", 12, 6)
    champion = {DAY: {NAME: Deployed("m3", us("2025-03-01"))}}
    assert document(both.reset_index(drop=True), deployed=champion)["models"][NAME]["model_id"] == "m3"


def test_models_are_rows_of_their_own_and_the_pool_is_of_all():
    btc, eth = said([0.6] * 12), said([0.4] * 12, name="gru/ETHUSDT")
    doc = document(pd.concat([btc, eth], ignore_index=True), [1] * 12)
    assert [row["accuracy"] for row in doc["models"].values()] == [0.0, 1.0]  # gru said a fall each time
    assert {name: (row["model_type"], row["symbol"]) for name, row in doc["models"].items()} == {
        "gru/ETHUSDT": ("gru", "ETHUSDT"), NAME: ("lstm", "BTCUSDT"),
    }  # fmt: skip
    assert (doc["pooled"]["n"], doc["pooled"]["accuracy"]) == (24, 0.5)
    assert doc["pooled"]["interval"] is None  # Wilson's takes symbols for independent


def test_outcomes_that_share_hours_have_no_interval_that_takes_each_for_itself():
    row = document(said([0.6] * 12, horizon=4), [1, 0, 0] * 8)["models"][NAME]
    assert (row["n"] > 0, row["interval"], row["pt_p_value_90d"]) == (True, None, None)


def test_a_drop_of_thirty_points_is_confirmed_and_one_of_three_is_not():
    frame, candles = weeks([0.75, 0.45])
    row = accuracy_days(join_outcomes(frame, {"BTCUSDT": candles}), {}, [DAY], label="recorded")[DAY]["models"][NAME]
    assert row["drop_7d_pp"] == pytest.approx(30, abs=8)
    low, high = row["drop_7d_interval_pp"]
    assert 5 < low < row["drop_7d_pp"] < high
    assert row["drop_7d_confirmed"]
    assert row["n_7d"] == 168
    frame, candles = weeks([0.53, 0.50])
    row = accuracy_days(join_outcomes(frame, {"BTCUSDT": candles}), {}, [DAY], label="recorded")[DAY]["models"][NAME]
    assert row["drop_7d_interval_pp"][0] < 0 < row["drop_7d_interval_pp"][1]
    assert not row["drop_7d_confirmed"]


def test_a_week_of_which_half_is_missing_gives_no_drop():
    frame, candles = weeks([0.7, 0.4])
    half = frame.iloc[np.r_[0:168, 168 + 85 : 336]]
    joined = join_outcomes(half.reset_index(drop=True), {"BTCUSDT": candles})
    row = accuracy_days(joined, {}, [DAY], label="recorded")[DAY]["models"][NAME]
    assert (row["n_7d"], row["drop_7d_pp"], row["drop_7d_interval_pp"]) == (83, None, None)


def test_models_that_lose_nothing_hardly_ever_have_a_confirmed_drop():
    """Ten models a day, on thirty days: at 5 % each, a quarter of the days and more would tell of one."""
    told = 0
    for seed in range(30):
        worlds = [weeks([0.52, 0.52], name=f"lstm/S{i}", seed=100 * seed + i) for i in range(10)]
        joined = join_outcomes(
            pd.concat([frame for frame, _ in worlds], ignore_index=True),
            {f"S{i}": candles for i, (_, candles) in enumerate(worlds)},
        )
        rows = accuracy_days(joined, {}, [DAY], label="recorded")[DAY]["models"].values()
        told += any(row["drop_7d_confirmed"] and row["drop_7d_pp"] > 5 for row in rows)
    assert told <= 4


def test_ninety_days_have_an_interval_over_blocks_of_seven():
    frame, candles = weeks([0.54] * 14)
    doc = accuracy_days(join_outcomes(frame, {"BTCUSDT": candles}), {}, [DAY], label="recorded")[DAY]
    for figures in (doc["pooled"], doc["models"][NAME]):
        assert figures["n_90d"] == 90 * 24
        low, high = figures["interval_90d"]
        assert low < figures["accuracy_90d"] < high
        assert figures["skill_90d"] == pytest.approx(1 - figures["brier_90d"] / 0.25)
    short = accuracy_days(join_outcomes(*_first(frame, candles, 300)), {}, ["2024-12-10"], label="recorded")
    assert all(row["interval_90d"] is None for row in short["2024-12-10"]["models"].values())


def _first(frame, candles, hours):
    return frame.iloc[:hours].reset_index(drop=True), {"BTCUSDT": candles}


def test_a_range_says_of_each_day_what_the_day_alone_says():
    frame, candles = weeks([0.6, 0.5, 0.52])
    joined = join_outcomes(frame, {"BTCUSDT": candles})
    days = [str(day.date()) for day in pd.date_range("2025-03-01", DAY)]
    together = accuracy_days(joined, {}, days, label="recorded")
    for day in days:
        assert canonical_json(accuracy_days(joined, {}, [day], label="recorded")[day]) == canonical_json(together[day])


def test_the_plot_is_drawn_where_there_is_something_to_draw():
    frame, candles = weeks([0.6, 0.5])
    days = [str(day.date()) for day in pd.date_range("2025-02-25", DAY)]
    documents = accuracy_days(join_outcomes(frame, {"BTCUSDT": candles}), {}, days, label="recorded")
    assert accuracy_plot(documents).startswith("![accuracy](data:image/png;base64,")
    assert accuracy_plot({DAY: document(said([]))}) is None
