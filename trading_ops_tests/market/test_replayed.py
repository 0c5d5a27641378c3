"""Do recorded bars come back at the same weekday and hour, up to now and never later?"""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.market.candles import FIELDS, Span, SpannedCandles, StaleSymbol, UnknownSymbol
from trading_ops.market.replayed import ReplayedCandles

START = datetime(2024, 1, 1, tzinfo=UTC)
LONG_AFTER = datetime(2026, 6, 1, tzinfo=UTC)


class Recording(SpannedCandles):
    """Bars from START, as many as stated per symbol; their close is the hour since START."""

    label = "recorded"

    def __init__(self, **hours: int) -> None:
        super().__init__(lambda: LONG_AFTER)
        self._hours = hours

    def spans(self) -> dict[str, Span]:
        return {symbol: Span(START, START + timedelta(hours=hours)) for symbol, hours in self._hours.items()}

    def _bars(self, symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        index = pd.date_range(START, periods=self._hours[symbol], freq="h", name="time")
        bars = pd.DataFrame({field: np.arange(float(len(index))) for field in FIELDS}, index=index)
        return bars[(bars.index >= start) & (bars.index < end)]


@settings(max_examples=50, deadline=None)
@given(minutes=st.integers(-2_000_000, 3_000_000))
def test_a_replay_ends_in_the_last_seven_days_at_the_same_weekday_and_hour(minutes: int):
    now = START + timedelta(minutes=minutes)
    replay = ReplayedCandles(Recording(AUSDT=500), ["AUSDT"], lambda: now)
    bars = replay.candles("AUSDT")
    end = bars.index[-1] + timedelta(hours=1)
    assert now - timedelta(days=7) < end <= now
    assert list(bars.close) == list(range(500))
    last = START + timedelta(hours=499)
    assert (bars.index[-1].weekday(), bars.index[-1].hour) == (last.weekday(), last.hour)
    assert (replay.coverage(["AUSDT"]).first, replay.coverage(["AUSDT"]).end) == (bars.index[0], end)
    assert bars.index.name == "time"
    assert str(bars.index.dtype) == "datetime64[us, UTC]"
    assert replay.label == f"replayed {(end - START - timedelta(hours=500)) // timedelta(weeks=1):+d} weeks"


def test_a_replay_of_all_there_is_may_be_asked_for_from_the_first_date_on():
    replay = ReplayedCandles(Recording(AUSDT=500), ["AUSDT"], lambda: LONG_AFTER)
    every = replay.candles("AUSDT", datetime.min.replace(tzinfo=UTC), LONG_AFTER)
    assert list(every.close) == list(range(500))
    assert replay.candles("AUSDT", every.index[-1], LONG_AFTER).index.equals(every.index[-1:])


def test_a_replay_is_cut_at_now_where_a_symbol_goes_on_longer():
    now = datetime(2025, 1, 6, tzinfo=UTC)  # as START a Monday 00:00, so that AUSDT's week ends just now
    replay = ReplayedCandles(Recording(AUSDT=168, BUSDT=190), ["AUSDT", "BUSDT"], lambda: now)
    for symbol in ("AUSDT", "BUSDT"):
        assert replay.candles(symbol).index[-1] == now - timedelta(hours=1)
    assert replay.coverage(["AUSDT", "BUSDT"]).end == now


def test_a_period_of_a_replay_is_half_open_and_may_lie_outside():
    now = START + timedelta(weeks=50)
    replay = ReplayedCandles(Recording(AUSDT=168), ["AUSDT"], lambda: now)
    start = now - timedelta(hours=10)
    assert list(replay.candles("AUSDT", start, start + timedelta(hours=3)).close) == [158.0, 159.0, 160.0]
    assert replay.candles("AUSDT", now + timedelta(days=3)).empty
    assert replay.candles("AUSDT", end=now - timedelta(weeks=30)).empty


def test_a_symbol_stale_in_the_recording_is_fresh_when_replayed():
    recording = Recording(OLDUSDT=500, NEWUSDT=5000)
    assert recording.symbols() == ["NEWUSDT"]
    replay = ReplayedCandles(recording, ["OLDUSDT"], lambda: LONG_AFTER)
    assert replay.symbols() == ["OLDUSDT"]
    assert len(replay.candles("OLDUSDT")) == 500


def test_replaying_together_what_did_not_end_together_is_refused():
    recording = Recording(OLDUSDT=500, NEWUSDT=5000)
    with pytest.raises(StaleSymbol, match="OLDUSDT"):
        ReplayedCandles(recording, ["OLDUSDT", "NEWUSDT"], lambda: LONG_AFTER).symbols()
    with pytest.raises(UnknownSymbol, match="XUSDT: no recorded candles; there are NEWUSDT, OLDUSDT"):
        ReplayedCandles(recording, ["XUSDT"], lambda: LONG_AFTER).symbols()
