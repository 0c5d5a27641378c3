"""Is an alert's picture drawn from plain numbers, whatever they are, and does a wrong one stop nothing?"""

from __future__ import annotations

import logging
import struct
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trading_ops.notifications.picture import picture_of

DAYS = ["2025-03-07", "2025-03-08", "2025-03-09"]
PICTURE = {"title": "Equity", "unit": "USDT", "days": DAYS, "series": {"equity": [1.0, None, 3.0]}}


def size_of(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    return struct.unpack(">II", png[16:24])


def test_days_and_numbers_become_a_png_of_a_phones_width():
    png = picture_of(PICTURE)
    assert png is not None
    assert size_of(png) == (960, 540)
    assert len(png) < 100_000


def test_the_same_document_is_the_same_picture_and_another_number_another():
    assert picture_of(PICTURE) == picture_of({**PICTURE})
    assert picture_of(PICTURE) != picture_of({**PICTURE, "series": {"equity": [1.0, None, 4.0]}})


def test_a_limit_is_drawn():
    assert picture_of({**PICTURE, "limits": {"critical above": 2.0}}) != picture_of(PICTURE)


@pytest.mark.parametrize("title", ["$x_2$ and $", "a\nb\0\x1b", "\u202eevil", "x" * 100_000, "日本語 🚨"])
def test_a_text_in_a_picture_is_data(title):
    png = picture_of({**PICTURE, "title": title, "unit": title, "series": {title: [1, 2, 3], "_hidden": [3, 2, 1]}})
    assert png is not None
    assert size_of(png) == (960, 540)


def test_a_series_that_is_too_long_is_cut_to_its_newest_days():
    long = {**PICTURE, "days": ["2025-03-09"] * 50_000, "series": {str(i): [1.0] * 50_000 for i in range(50)}}
    png = picture_of(long)
    assert png is not None
    assert len(png) < 200_000


@pytest.mark.parametrize(
    "wrong",
    [{"days": DAYS}, {**PICTURE, "days": ["yesterday"]}, {**PICTURE, "days": 7}, {**PICTURE, "limits": [1]},
     {**PICTURE, "series": {"a": [None] * 3}}, {**PICTURE, "series": {"a": "text"}}],
)  # fmt: skip
def test_what_cannot_be_drawn_is_no_picture_and_is_noted(wrong, caplog):
    with caplog.at_level(logging.WARNING):
        assert picture_of(wrong) is None
    assert "cannot be drawn" in caplog.text


@pytest.mark.parametrize("nothing", [None, {}])
def test_an_alert_without_a_picture_has_none(nothing, caplog):
    assert picture_of(nothing) is None
    assert caplog.text == ""


@settings(max_examples=15, deadline=None)
@given(st.lists(st.none() | st.floats() | st.integers() | st.booleans() | st.text(max_size=3), max_size=8))
def test_whatever_a_series_holds_nothing_is_raised(values):
    png = picture_of({**PICTURE, "series": {"a": values}})
    assert png is None or size_of(png) == (960, 540)


def test_channels_that_draw_at_once_get_the_same_picture():
    drawn = []
    document = {**PICTURE, "title": "at once"}
    threads = [threading.Thread(target=lambda: drawn.append(picture_of(document))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(drawn) == 6
    assert drawn[0] is not None
    assert len(set(drawn)) == 1
