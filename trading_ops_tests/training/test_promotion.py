"""Does the better model win, the equal one hardly ever, and the worse one never?"""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops.training.paired import compare
from trading_ops.training.promotion import FEWEST, InvalidPredictions, Verdict, judge

DAYS = 30
TIMES = np.arange(24 * DAYS) * HOUR_US


def noise(random: np.random.Generator, swing: float, count: int = len(TIMES)) -> np.ndarray:
    """Deviation 1; each hour is near `swing` times the one before."""
    return lfilter([np.sqrt(1 - swing**2)], [1, -swing], random.normal(size=count + 200))[200:]


def month(
    random: np.random.Generator, *, signal: float, ours: float, theirs: float, swing: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Challenger, champion, outcomes: log-odds of deviation `signal`, of which each sees a share and noise of 0.1."""
    true = signal * noise(random, swing)
    up = (random.random(len(TIMES)) < 1 / (1 + np.exp(-true))).astype("float64")
    said = (1 / (1 + np.exp(-(share * true + 0.1 * noise(random, swing)))) for share in (ours, theirs))
    return next(said), next(said), up


def verdict(
    challenger: np.ndarray, champion: np.ndarray | None, up: np.ndarray, *, age: float | None = 10.0, looks: int = 1
) -> Verdict:
    return judge(
        challenger, champion, up, TIMES[: len(up)], base_rate=0.5, looks=looks, champion_age_days=age
    )  # fmt: skip


def promoted(count: int, *, age: float = 10.0, **shape: float) -> tuple[float, list[Verdict]]:
    random = np.random.default_rng(int(1000 * sum(shape.values())) + int(age))
    found = [verdict(*month(random, **shape), age=age) for _ in range(count)]
    return sum(one.promote for one in found) / count, found


@pytest.mark.parametrize("swing", [0.0, 0.9])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_of_two_equally_good_models_the_new_one_is_promoted_in_about_five_of_100_months(share: float, swing: float):
    rate, found = promoted(500, signal=0.2, ours=share, theirs=share, swing=swing)
    assert rate <= 0.075  # 5 %, and 2.5 standard errors of 500 months
    p = np.array([one.p_value for one in found])
    assert 0.02 <= np.mean(p <= 0.05) <= 0.08
    assert np.median(p) == pytest.approx(0.5, abs=0.1)


def test_a_really_better_challenger_is_promoted_and_a_worse_one_is_not():
    better, _ = promoted(100, signal=0.6, ours=1.0, theirs=0.0)
    assert better >= 0.9
    worse, _ = promoted(100, signal=0.6, ours=0.0, theirs=1.0)
    assert worse == 0.0


def test_an_old_champion_gives_way_to_its_equal_but_not_to_a_worse_one():
    equal, _ = promoted(100, age=31.0, signal=0.6, ours=1.0, theirs=1.0)
    assert equal >= 0.9
    worse, found = promoted(100, age=31.0, signal=0.6, ours=0.0, theirs=1.0)
    assert worse <= 0.1
    assert any("days old, but the challenger is worse" in one.reason for one in found)


def test_the_smallest_difference_that_can_be_found_is_found_in_about_80_of_100_months():
    random = np.random.default_rng(12)
    spread = 0.02 * random.normal(size=(400, len(TIMES)))
    usual = np.mean([compare(gains, TIMES, 0.05).minimum_detectable for gains in spread])
    assert np.mean([compare(gains + usual, TIMES, 0.05).p_better <= 0.05 for gains in spread]) == pytest.approx(
        0.8, abs=0.08
    )


@pytest.mark.parametrize("days", [14, 30, 90])
def test_intervals_hold_the_truth_in_about_95_of_100_periods(days: int):
    random = np.random.default_rng(days)
    times = np.arange(24 * days) * HOUR_US
    found = [compare(random.normal(0.3, 1.0, len(times)), times, 0.05).interval for _ in range(400)]
    assert np.mean([low <= 0.3 <= high for low, high in found]) >= 0.92


def test_the_figures_are_those_of_a_hand_worked_month():
    """Outcomes up, down, up, down, ...; the challenger says 0.6 and 0.4, the champion always 0.6.

    Brier: 0.16 at every hour; (0.16 + 0.36) / 2 = 0.26. Gains are 0 and 0.2 in turn: mean 0.1, and every block of
    seven days (168 hours) holds as many of the one as of the other, so nothing is left to chance.
    """
    up = np.tile([1.0, 0.0], len(TIMES) // 2)
    found = verdict(np.where(up == 1, 0.6, 0.4), np.full(len(up), 0.6), up)
    assert found.promote
    assert found.brier_challenger == pytest.approx(0.16)
    assert found.brier_champion == pytest.approx(0.26)
    assert found.brier_base_rate == pytest.approx(0.25)
    assert found.skill_over_base_rate == pytest.approx(1 - 0.16 / 0.25)
    assert (found.accuracy_challenger, found.accuracy_champion) == (1.0, 0.5)
    assert found.difference == pytest.approx(0.10)
    assert (found.n, found.hours, found.void, found.alpha) == (720, 720, 0, 0.05)


def test_every_further_look_divides_the_five_percent():
    random = np.random.default_rng(21)
    months = [month(random, signal=0.6, ours=0.7, theirs=0.0) for _ in range(60)]
    once = [verdict(*one) for one in months]
    often = [verdict(*one, looks=20) for one in months]
    assert [one.alpha for one in often] == [0.0025] * 60
    assert all(one.promote == (one.p_value <= 0.0025) for one in often if one.skill_over_base_rate > 0)
    assert 0 < sum(one.promote for one in often) < sum(one.promote for one in once)
    assert all(o.minimum_detectable_effect > i.minimum_detectable_effect for o, i in zip(often, once, strict=True))
    # looks never make it easier to be not worse than an old champion
    assert [verdict(*one, looks=20, age=99.0).promote for one in months] == [
        verdict(*one, age=99.0).promote for one in months
    ]


def test_what_is_worse_than_the_base_rate_is_never_promoted():
    up = np.tile([1.0, 0.0], len(TIMES) // 2)
    loud_guess = np.where(np.arange(len(up)) % 4 < 2, 0.9, 0.1)  # right as often as not
    far_worse = 1 - np.where(up == 1, 0.95, 0.05)
    for champion, age in ((None, None), (far_worse, 10.0), (far_worse, 99.0)):
        found = verdict(loud_guess, champion, up, age=age)
        assert not found.promote
        assert found.reason.startswith("worse than always saying 0.500")
        assert found.skill_over_base_rate < 0


def test_without_a_champion_the_base_rate_is_all_there_is_to_beat():
    up = np.tile([1.0, 0.0], len(TIMES) // 2)
    found = verdict(np.full(len(up), 0.5), None, up, age=None)
    assert found.promote  # not below it: as good as
    assert found.skill_over_base_rate == 0.0
    assert found.reason.startswith("no champion")
    assert (found.p_value, found.difference, found.brier_champion, found.interval) == (None,) * 4


def test_a_challenger_that_says_the_same_replaces_an_old_champion_only():
    _, same, up = month(np.random.default_rng(3), signal=0.6, ours=1.0, theirs=1.0)
    assert not verdict(same, same, up, age=30.0).promote
    assert not verdict(same, same, up, age=None).promote
    assert verdict(same, same, up, age=30.1).promote
    assert verdict(same, same, up).p_value == 1.0


def test_on_too_little_nothing_is_promoted_and_the_reason_says_how_much_is_needed():
    challenger, champion, up = month(np.random.default_rng(3), signal=2.0, ours=1.0, theirs=0.0)
    found = verdict(challenger[:99], None, up[:99], age=None)
    assert (found.promote, found.reason) == (False, "too few outcomes to judge by: 99 of at least 100")
    assert verdict(challenger[:FEWEST], None, up[:FEWEST], age=None).promote
    for age in (10.0, 99.0):
        found = verdict(challenger[:335], champion[:335], up[:335], age=age)
        assert not found.promote
        assert found.reason.startswith("335 hours are too few")
        assert found.brier_champion is not None
        assert verdict(challenger[:336], champion[:336], up[:336], age=age).p_value is not None
    assert verdict(np.zeros(0), None, np.zeros(0), age=None).reason.startswith("too few outcomes to judge by: 0")


def test_void_outcomes_are_left_out_and_counted():
    challenger, champion, up = month(np.random.default_rng(3), signal=0.6, ours=1.0, theirs=0.5)
    up[100:110] = np.nan
    found, known = verdict(challenger, champion, up), np.isfinite(up)
    alone = judge(
        challenger[known], champion[known], up[known], TIMES[known], base_rate=0.5, looks=1, champion_age_days=10.0
    )
    assert (found.n, found.void) == (710, 10)
    assert (found.p_value, found.difference) == (alone.p_value, alone.difference)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.0, 1.0), st.integers(1, 50), st.none() | st.floats(0, 400), st.booleans())
def test_every_verdict_keeps_to_the_rules_and_can_be_stored(
    seed: int, base_rate: float, looks: int, age: float | None, first: bool
):
    random = np.random.default_rng(seed)
    challenger, champion, up = month(random, signal=random.random(), ours=random.random(), theirs=random.random())
    found = judge(
        challenger, None if first else champion, up, TIMES, base_rate=base_rate, looks=looks, champion_age_days=age
    )
    assert json.loads(json.dumps(found.document, allow_nan=False)) == found.document
    if found.promote:
        assert found.brier_challenger <= found.brier_base_rate + 1e-12
    if found.promote and not first:
        assert found.p_value_worse > 0.05 if age is not None and age > 30 else found.p_value <= 0.05 / looks
    if not first:
        assert found.interval[0] <= found.difference <= found.interval[1]
        assert found.p_value + found.p_value_worse == pytest.approx(1.0)
        assert found.difference == pytest.approx(found.brier_champion - found.brier_challenger)
    again = judge(
        challenger, None if first else champion, up, TIMES, base_rate=base_rate, looks=looks, champion_age_days=age
    )
    assert again == found


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"challenger": np.full(719, 0.5)}, r"challenger has the shape \(719,\) for 720 times"),
        ({"champion": np.full((720, 1), 0.5)}, r"champion has the shape \(720, 1\)"),
        ({"challenger": np.where(TIMES == 5 * HOUR_US, np.nan, 0.5)}, r"challenger\[5\] is nan"),
        ({"champion": np.full(720, np.nan)}, r"champion\[0\] is nan"),
        ({"challenger": np.full(720, 1.01)}, r"challenger\[0\] is 1.01; a probability from 0 to 1"),
        ({"champion": np.full(720, -0.01)}, r"champion\[0\] is -0.01"),
        ({"outcomes": np.full(720, 0.5)}, r"outcomes\[0\] is 0.5; 1, 0 or NaN"),
        ({"outcomes": np.full(720, np.inf)}, r"outcomes\[0\] is inf"),
        ({"outcomes": np.zeros(719)}, r"outcomes have the shape \(719,\), times \(720,\)"),
        ({"times_us": np.zeros(720, "int64")}, "times_us has 0 twice"),
        ({"times_us": TIMES / 1e6}, "times_us are float64; int64 microseconds"),
        ({"looks": 0}, "looks is 0"),
        ({"base_rate": 51.2}, "base_rate is 51.2; a share from 0 to 1"),
        ({"base_rate": float("nan")}, "base_rate is nan"),
        ({"champion_age_days": float("nan")}, "champion_age_days is nan"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_what_would_be_right(changed: dict, message: str):
    fitting = {
        "challenger": np.full(720, 0.5),
        "champion": np.full(720, 0.5),
        "outcomes": np.tile([1.0, 0.0], 360),
        "times_us": TIMES,
        "base_rate": 0.5,
        "looks": 1,
        "champion_age_days": 3.0,
    }
    with pytest.raises(InvalidPredictions, match=message):
        judge(**{**fitting, **changed})
