"""Which model may speak of an hour that nobody recorded, and of which bars?"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops.bot.client import BotError, BotUnreachable
from trading_ops.market.candles import HOUR, CandleError
from trading_ops.training.card import Card
from trading_ops.training.features import FEATURES
from trading_ops.training.measuring import read_bars
from trading_ops.training.samples import EPOCH
from trading_ops.training.saying import same_market, speakers_at
from trading_ops_tests.training.markets import walk

START = datetime(2025, 3, 1, tzinfo=UTC)


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def card(model_id: str, learnt_until: float) -> Card:
    return Card(
        model_id=model_id, model_type="lstm", symbol="BTCUSDT", horizon_hours=1, lookback=48, features=FEATURES,
        created_at=at(learnt_until + 30), trained_from=at(learnt_until - 90), trained_until=at(learnt_until),
        candles_until=at(learnt_until + 30), base_rate=0.5, seed=1, parameters={}, digests={}, candles="recorded",
        metrics={}, cost_cpu_s=1.0,
    )  # fmt: skip


def speakers(days: list[float], cards: list[Card], *reigns: tuple[str, float]) -> list[str]:
    closes = np.array([us(at(day)) for day in days])
    return speakers_at(closes, {c.model_id: c for c in cards}, [(m, at(since)) for m, since in reigns]).tolist()


def test_the_champion_of_the_moment_speaks_and_before_the_first_the_one_that_had_learnt_last():
    a, b = card("a", 0), card("b", 20)
    assert speakers([-1, 0, 19, 20, 29, 30, 49, 50, 60], [a, b], ("a", 30), ("b", 50)) == [
        "", "a", "a", "b", "b", "a", "a", "b", "b",
    ]  # fmt: skip


def test_a_rollback_gives_the_hours_back_to_the_model_before():
    a, b = card("a", 0), card("b", 20)
    assert speakers([45, 55, 65], [a, b], ("a", 30), ("b", 50), ("a", 60)) == ["a", "b", "a"]


def test_a_champion_that_is_gone_or_had_not_stopped_learning_says_nothing():
    a = card("a", 0)
    assert speakers([35, 55], [a], ("lost", 30), ("a", 50)) == ["", "a"]
    assert speakers([10], [card("late", 20)], ("late", 5)) == [""]
    assert speakers([10], []) == [""]


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=20),
    st.lists(st.tuples(st.sampled_from("abcd"), st.floats(-50, 50)), max_size=5),
    st.lists(st.floats(-50, 50), min_size=4, max_size=4),
)
def test_nobody_speaks_of_an_hour_that_it_may_have_learnt(days, reigns, learnt):
    cards = [card(name, until) for name, until in zip("abcd", learnt, strict=True)]
    ordered = sorted(reigns, key=lambda reign: reign[1])
    until = {c.model_id: c.trained_until for c in cards}
    for day, speaker in zip(days, speakers(days, cards, *ordered), strict=True):
        assert speaker == "" or us(until[speaker]) <= us(at(day))


@pytest.mark.parametrize(
    ("learnt", "label", "same"),
    [
        ("recorded", "live", True),
        ("live", "recorded", True),
        ("recorded", "simulated", False),
        ("simulated", "live", False),
        ("replayed +50 weeks", "replayed +51 weeks", False),
        ("replayed +50 weeks", "replayed +50 weeks", True),
    ],
)
def test_what_is_made_up_or_shifted_otherwise_is_another_market(learnt, label, same):
    assert same_market(learnt, label) is same


def chart(reach_days: int):
    """A bot's chart that goes so far back, as an HTTP bot answers."""
    frame = walk(at(0), 120)

    def bars(symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        if start < at(0) - timedelta(days=reach_days):
            raise BotError(f"{symbol}: the bot's bars begin later")
        return frame[(frame.index >= start) & (frame.index < end)]

    return bars


@pytest.mark.parametrize(("reach_days", "got"), [(120, 90), (20, 14), (5, 1)])
def test_bars_are_read_as_far_back_as_the_chart_goes(reach_days, got):
    frames, unreadable = read_bars(chart(reach_days), ["BTCUSDT"], at(-1), at(0), warm_up=24)
    assert unreadable == {}
    first = at(-1) - timedelta(days=got) - 24 * HOUR
    assert frames["BTCUSDT"].index[0] == first
    assert frames["BTCUSDT"].index.as_unit("us").asi8[-1] == us(at(0)) - HOUR_US


def test_a_symbol_without_bars_or_with_impossible_ones_is_named_and_a_silent_bot_fails():
    broken = walk(at(0), 120)
    broken.loc[broken.index[-3], "low"] = -1.0

    def bars(symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        if symbol == "NONEUSDT":
            raise CandleError("NONEUSDT: no such file")
        if symbol == "DOWNUSDT":
            raise BotUnreachable("refused")
        return broken

    frames, unreadable = read_bars(bars, ["NONEUSDT", "BADUSDT"], at(-1), at(0), 24)
    assert frames == {}
    assert unreadable["NONEUSDT"] == "NONEUSDT: no such file"
    assert "low" in unreadable["BADUSDT"]
    with pytest.raises(BotUnreachable):
        read_bars(bars, ["DOWNUSDT"], at(-1), at(0), 24)
