"""Does the shadow report say whether the retrain was worth it, and only when that is known?"""

import numpy as np
import pandas as pd
import pytest

from trading_ops.accuracy.joining import join_outcomes
from trading_ops.accuracy.shadow import shadow_report
from trading_ops_tests.accuracy.worlds import bars, said

FIRST = "2025-03-01T01"


def report(new_right, old_right, *, days=30, seed=2, **shadow_kind):
    """Champion m2 and its shadow m1, right in these shares of the hours of so many days."""
    rng = np.random.default_rng(seed)
    up = rng.integers(0, 2, 24 * days)
    new, old = (np.where((rng.random(len(up)) < share) == (up == 1), 0.56, 0.44) for share in (new_right, old_right))
    shadow = {"model_id": "m1", "role": "shadow", "against": "m2", **shadow_kind}
    frame = pd.concat([said(new, FIRST, model_id="m2"), said(old, FIRST, **shadow)], ignore_index=True)
    return shadow_report(join_outcomes(frame, {"BTCUSDT": bars(up.tolist(), "2025-03-01T00")}))


def test_a_better_model_was_worth_it():
    (row,) = report(0.62, 0.50)
    assert row["worth_it"] == "yes"
    assert (row["name"], row["champion"], row["shadow"], row["n"]) == ("lstm/BTCUSDT", "m2", "m1", 720)
    assert row["accuracy_gain_pp"] == pytest.approx(100 * (row["accuracy_champion"] - row["accuracy_shadow"]))
    assert row["brier_gain"] == pytest.approx(row["brier_shadow"] - row["brier_champion"])
    assert 0 < row["brier_gain_interval"][0] < row["brier_gain"] < row["brier_gain_interval"][1]
    assert row["accuracy_gain_interval_pp"][0] > 0
    assert (row["since"], row["until"]) == ("2025-03-01T02:00:00+00:00", "2025-03-31T01:00:00+00:00")


def test_a_worse_one_was_not_and_an_equal_one_is_not_shown():
    assert report(0.48, 0.60)[0]["worth_it"] == "no"
    assert report(0.52, 0.52)[0]["worth_it"] == "not_shown"


def test_within_two_weeks_it_is_too_early():
    (row,) = report(0.9, 0.1, days=13)
    assert (row["worth_it"], row["brier_gain_interval"], row["accuracy_gain_interval_pp"]) == ("too_early", None, None)
    assert row["brier_gain"] > 0  # told all the same


def test_only_hours_that_both_predicted_are_compared_and_only_with_its_own_successor():
    frame = pd.concat(
        [
            said([0.6] * 10, FIRST, model_id="m2"),
            said([0.6] * 5, "2025-03-01T06", model_id="m1", role="shadow", against="m2"),
            said([0.6] * 10, FIRST, model_id="m0", role="shadow", against="m1"),  # m1's turn was over before
            said([0.6] * 5, "2025-03-01T09", model_id="m2", name="gru/BTCUSDT"),
        ],
        ignore_index=True,
    )
    (row,) = shadow_report(join_outcomes(frame, {"BTCUSDT": bars([1, 0] * 8, "2025-03-01T00")}))
    assert (row["shadow"], row["n"]) == ("m1", 5)


def test_what_was_reconstructed_later_proves_nothing():
    assert report(0.9, 0.1, reconstructed=True) == []


def test_without_shadows_there_is_nothing_to_report():
    frame = said([0.6] * 5, FIRST)
    assert shadow_report(join_outcomes(frame, {"BTCUSDT": bars([1] * 5, "2025-03-01T00")})) == []
    assert shadow_report(join_outcomes(said([]), {})) == []
