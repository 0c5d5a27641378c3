"""Does the check find what is wrong with candles, and nothing else?"""

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.market.candles import (
    CandleError,
    Coverage,
    InvalidCandles,
    Span,
    StaleSymbol,
    UnknownSymbol,
    common_coverage,
    split_fresh,
    utc,
)
from trading_ops.market.soundness import check_candles, require_sound

START = datetime(2024, 1, 1, tzinfo=UTC)


def at(hour: float) -> datetime:
    return START + timedelta(hours=hour)


def frame(hours: list[float]) -> pd.DataFrame:
    """Bars open 10, high 12, low 9, close 11, volume 5 at the given hours after 2024-01-01."""
    index = pd.DatetimeIndex([at(hour) for hour in hours], name="time", tz="UTC")
    row = {"open": 10.0, "high": 12.0, "low": 9.0, "close": 11.0, "volume": 5.0}
    return pd.DataFrame(row, index=index)


def test_sound_candles_have_no_problem():
    report = check_candles(frame([0, 1, 2]), "BTCUSDT")
    assert report.sound
    assert report.problems == ()
    assert report.gaps == ()
    assert (report.bars, report.first, report.last) == (3, at(0), at(2))


def test_missing_hours_are_gaps_and_still_sound():
    report = check_candles(frame([0, 1, 4, 5, 7]), "BTCUSDT")
    assert report.gaps == ((at(2), at(4), 2), (at(6), at(7), 1))
    assert report.missing_bars == 3
    assert report.sound


def test_duplicates_unsorted_and_off_grid_bars_are_counted_and_named():
    report = check_candles(frame([0, 2, 2, 1, 3.5]), "BTCUSDT")
    assert (report.duplicates, report.unsorted, report.off_grid, report.sound) == (1, 1, 1, False)
    assert "2024-01-01 02:00:00+00:00: this bar appears twice" in report.problems[0]
    assert "2024-01-01 01:00:00+00:00: follows the later 2024-01-01 02:00" in report.problems[1]
    assert "2024-01-01 03:30:00+00:00: time is not on the hour" in report.problems[2]


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("open", np.nan, "open is nan; it must be a finite number"),
        ("close", np.inf, "close is inf; it must be a finite number"),
        ("low", 10.5, "low is 10.5; it must be at most min(open, close)"),
        ("high", 10.5, "high is 10.5; it must be at least max(open, close)"),
        ("low", 0.0, "low is 0; it must be above 0"),
        ("volume", -1.0, "volume is -1; it must be 0 or more"),
        ("volume", np.nan, "volume is nan; it must be a finite number"),
    ],
)
def test_an_impossible_bar_is_named_with_field_and_value(field: str, value: float, says: str):
    bars = frame([0, 1, 2])
    bars.iloc[1, bars.columns.get_loc(field)] = value
    report = check_candles(bars, "ETHUSDT")
    assert report.impossible == 1
    assert not report.sound
    assert any(problem == f"ETHUSDT 2024-01-01 01:00:00+00:00: {says}" for problem in report.problems)
    with pytest.raises(InvalidCandles, match="ETHUSDT 2024-01-01 01:00"):
        require_sound(bars, "ETHUSDT")


def test_many_impossible_bars_are_counted_once_each_and_few_are_named():
    bars = frame(list(range(50)))
    bars["volume"] = -1.0
    bars["low"] = -1.0
    report = check_candles(bars, "BTCUSDT")
    assert report.impossible == 50
    assert len(report.problems) == 6
    with pytest.raises(InvalidCandles, match="the first of 50 faults"):
        require_sound(bars, "BTCUSDT")


def test_no_bars_are_sound_and_without_first_and_last():
    report = check_candles(frame([0])[:0], "BTCUSDT")
    assert report.sound
    assert report.bars == 0
    assert report.first is None
    assert report.last is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda bars: bars.drop(columns="volume"), "needs one column 'volume'"),
        (lambda bars: bars.assign(close="11"), "column 'close' is str; float64"),
        (lambda bars: bars.tz_localize(None), "in UTC would be right"),
        (lambda bars: bars.reset_index(drop=True), "the index is int64"),
        (lambda bars: bars.set_axis(pd.DatetimeIndex([at(0), pd.NaT], tz="UTC")), "NaT"),
    ],
)
def test_what_is_no_candle_frame_is_refused_with_what_would_be_right(change, says: str):
    with pytest.raises(InvalidCandles, match=says):
        check_candles(change(frame([0, 1])), "BTCUSDT")


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 60), min_size=1))
def test_bars_and_missing_bars_add_up_to_the_hours_between_first_and_last(hours: set[int]):
    report = check_candles(frame(sorted(hours)), "BTCUSDT")
    assert report.bars + report.missing_bars == max(hours) - min(hours) + 1
    assert report.missing_bars == sum((end - start) / timedelta(hours=1) for start, end, _ in report.gaps)


@pytest.mark.parametrize(
    ("first", "end", "days"),
    [
        (at(0), at(48), (date(2024, 1, 1), date(2024, 1, 2))),
        (at(1), at(71), (date(2024, 1, 2), date(2024, 1, 2))),
        (at(1), at(47), (None, None)),
        (at(0), at(24), (date(2024, 1, 1), date(2024, 1, 1))),
    ],
)
def test_coverage_tells_the_complete_days_within(first: datetime, end: datetime, days: tuple):
    coverage = Coverage(first, end)
    assert (coverage.first_day, coverage.last_day) == days


def test_a_symbol_is_stale_when_it_ends_more_than_48_hours_before_the_newest():
    spans = {"A": Span(at(0), at(100)), "B": Span(at(10), at(52)), "C": Span(at(0), at(51))}
    assert split_fresh(spans) == (["A", "B"], {"C": at(51)})
    assert common_coverage(["A", "B"], spans, "recorded") == Coverage(at(10), at(52))
    with pytest.raises(StaleSymbol, match=r"C: its recorded bars end at 2024-01-03 03:00 UTC, while A reaches"):
        common_coverage(["A", "C"], spans, "recorded")


def test_coverage_of_unknown_no_or_disjoint_symbols_is_refused():
    spans = {"A": Span(at(0), at(10)), "B": Span(at(10), at(30))}
    with pytest.raises(UnknownSymbol, match="X: no recorded candles; there are A, B"):
        common_coverage(["X"], spans, "recorded")
    with pytest.raises(CandleError, match="name at least one"):
        common_coverage([], spans, "recorded")
    with pytest.raises(CandleError, match="A, B have no hour in common"):
        common_coverage(["A", "B"], spans, "recorded")


def test_a_time_without_a_zone_is_refused():
    with pytest.raises(CandleError, match="start 2024-01-01 00:00:00 has no time zone"):
        utc(START.replace(tzinfo=None), "start")
