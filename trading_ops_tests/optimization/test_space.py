"""Which sets does a space hold, and what is said of one that cannot be?"""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.optimization.space import DEFAULT_SPACES, build_space
from trading_ops.strategies.signals import STRATEGIES, InvalidParameters, check_parameters


def test_every_strategy_has_a_space_of_its_own_around_its_defaults():
    assert set(DEFAULT_SPACES) == set(STRATEGIES)
    for name, strategy in STRATEGIES.items():
        space = build_space(name)
        assert set(space.names) == set(strategy.defaults)
        assert 10 <= space.size <= 200  # a default search is a grid
        for parameter, values in space.values.items():
            assert values[0] <= strategy.defaults[parameter] <= values[-1]


def test_ranges_include_both_ends_and_lists_are_sorted_once():
    space = build_space("bollinger", {"period": [30, 20, 20.0], "deviations": {"low": 1.5, "high": 1.8, "step": 0.1}})
    assert space.values == {"period": (20.0, 30.0), "deviations": (1.5, 1.6, 1.7, 1.8)}


def test_one_value_fixes_a_parameter_and_those_left_out_are_tried_over_their_defaults():
    space = build_space("rsi", {"period": 14})
    assert space.values["period"] == (14.0,)
    assert len(space.values["oversold"]) == 5


@pytest.mark.parametrize("off", [None, "off", "OFF"])
def test_a_stop_that_is_off_is_the_widest(off):
    space = build_space("volume", {"stop_loss_pct": [5, off, 2]})
    assert space.values["stop_loss_pct"][:2] == (2.0, 5.0)
    assert np.isnan(space.values["stop_loss_pct"][2])
    assert space.parameters([0, 0, 2])["stop_loss_pct"] is None
    assert space.parameters([0, 0, 0]) == {"period": 10, "multiplier": 1.5, "stop_loss_pct": 2.0}


@given(
    st.lists(st.integers(5, 60), min_size=1, max_size=9),
    st.lists(st.integers(5, 60), min_size=1, max_size=9),
    st.lists(st.integers(2, 20), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_the_grid_holds_every_possible_set_once_and_no_other(fast, slow, signal):
    wanted = [(f, s, g) for f in sorted(set(fast)) for s in sorted(set(slow)) for g in sorted(set(signal)) if f < s]
    given = {"fast": fast, "slow": slow, "signal": signal}
    if not wanted:
        with pytest.raises(InvalidParameters, match="fast must be below slow"):
            build_space("macd", given)
        return
    space = build_space("macd", given)
    rows = [tuple(space.parameters(places).values()) for places in space.grid()]
    assert rows == wanted
    assert space.size == len(wanted)
    assert space.possible(space.grid()).all()
    columns = space.columns(space.grid())
    assert list(zip(*columns.values(), strict=True)) == wanted


def test_a_space_of_billions_is_counted_and_drawn_from_without_being_listed():
    wide = {"low": 2, "high": 1000, "step": 1}
    space = build_space("macd", {"fast": wide, "slow": wide, "signal": wide, "stop_loss_pct": [1, 2, 3]})
    assert space.size == 999 * 998 // 2 * 999 * 3
    places = space.draw(np.random.default_rng(0), 5000)
    assert space.possible(places).all()
    fast, slow = (space.columns(places)[name] for name in ("fast", "slow"))
    # of pairs drawn alike, the lower is a third up on average and the higher two thirds
    assert fast.mean() == pytest.approx(2 + 998 / 3, rel=0.03)
    assert slow.mean() == pytest.approx(2 + 998 * 2 / 3, rel=0.03)


def test_every_drawn_set_is_one_of_the_grid():
    space = build_space("rsi")
    grid = set(map(tuple, space.grid().tolist()))
    drawn = set(map(tuple, space.draw(np.random.default_rng(1), 3000).tolist()))
    assert drawn == grid
    for places in list(drawn)[:20]:
        check_parameters("rsi", space.parameters(places))


@pytest.mark.parametrize(
    ("strategy", "given", "said"),
    [
        ("scalper", {}, "strategy 'scalper' is unknown; there are"),
        ("rsi", {"periode": [14]}, "rsi: parameter 'periode' is unknown; there are period, oversold"),
        ("rsi", {"period": []}, "rsi: period is an empty list"),
        ("rsi", {"period": [14, 14.5]}, "period is 14.5; a whole number from 2 to 1000 would be right"),
        ("rsi", {"period": [True]}, "period is True; a whole number"),
        ("rsi", {"oversold": ["30"]}, "oversold is '30'; a number from 1 to 99"),
        ("rsi", {"oversold": [float("nan")]}, "oversold is nan; a number"),
        ("rsi", {"period": None}, "period is None; a whole number"),
        ("rsi", {"stop_loss_pct": [0]}, "stop_loss_pct is 0; a number from 0.01 to 99"),
        ("rsi", {"oversold": [70], "overbought": [60, 70]}, "no oversold (70) is below any overbought (60, 70)"),
        ("rsi", {"period": {"low": 5, "high": 20}}, "numbers low, high and step, would be right"),
        ("rsi", {"period": {"low": 5, "high": 20, "step": 0}}, "a step above 0"),
        ("rsi", {"period": {"low": 20, "high": 5, "step": 1}}, "low up to high would be right"),
        ("rsi", {"oversold": {"low": 10, "high": 40, "step": 1e-9}}, "more than 1000 values; take a larger step"),
        ("rsi", {"oversold": {"low": 10, "high": 40, "step": 1e-320}}, "more than 1000 values"),
        ("rsi", {"oversold": list(np.linspace(1, 40, 1001))}, "has 1001 values; 1000 or fewer"),
    ],
)
def test_a_space_that_cannot_be_is_refused_by_name_and_value(strategy, given, said):
    with pytest.raises(InvalidParameters, match=re.escape(said)):
        build_space(strategy, given)
