"""Is a row of days read in the right direction, and does a person see it?"""

import io

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.console import Console

from trading_ops.performance.summary import performance_table
from trading_ops.performance.trend import trend


def rows(*old_to_new: float | None) -> list[dict[str, float | None]]:
    """History rows, newest first, as the store gives them."""
    return [{"win_rate_pct": value} for value in reversed(old_to_new)]


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        pytest.param(rows(65, 60, 55, 50), "declining", id="B070-declining"),
        pytest.param(rows(50, 55, 60, 65), "improving", id="B070-improving"),
        pytest.param(rows(60, 60, 60, 60), "stable", id="B070-flat"),
        pytest.param(rows(60, 60), "insufficient_data", id="B070-two rows"),
        pytest.param([], "insufficient_data", id="B070-no row"),
        pytest.param(None, "unknown", id="B070-the store is down"),
        pytest.param(rows(50, 51, 52), "improving", id="three rows are enough"),
        pytest.param(rows(50, 50.4, 50.8), "stable", id="slope 0.4"),
        pytest.param(rows(50, 49.4, 48.8), "declining", id="slope -0.6"),
        pytest.param(rows(70, 40, 70), "stable", id="up and down again"),
        pytest.param(rows(None, 50, None, 55, 60), "improving", id="days without a rate are left out"),
        pytest.param(rows(None, 50, None, 55), "insufficient_data", id="and do not count"),
    ],
)
def test_the_trend_is_the_slope_from_old_to_new(history: list | None, expected: str):
    assert trend(history) == expected


def test_any_metric_has_a_trend_and_a_row_without_it_is_left_out():
    history = [{"sharpe_ratio": 3.0}, {}, {"sharpe_ratio": 2.0}, {"sharpe_ratio": 1.0}]
    assert trend(history, "sharpe_ratio") == "improving"
    assert trend(history) == "insufficient_data"


def test_B070_a_slope_of_exactly_half_a_point_is_stable():
    for slope in (0.5, -0.5):
        for count in (3, 7, 30):
            assert trend(rows(*(50 + slope * day for day in range(count)))) == "stable", (slope, count)


@given(st.lists(st.floats(0, 100), min_size=3, max_size=30))
def test_the_mirrored_days_have_the_opposite_trend(values: list[float]):
    at = np.arange(len(values)) - (len(values) - 1) / 2
    assume(abs(abs(at @ np.array(values) / (at @ at)) - 0.5) > 1e-9)
    opposite = {"improving": "declining", "declining": "improving", "stable": "stable"}
    assert trend(rows(*values[::-1])) == opposite[trend(rows(*values))]


def scope(**changes: object) -> dict[str, object]:
    figures = {
        "status": "good", "total_trades": 12, "win_rate_pct": 75.0, "avg_profit_pct": 2.6, "sharpe_ratio": 2.1,
        "sharpe_standard_error": 7.8, "sharpe_ratio_90d": None,
    }  # fmt: skip
    return figures | changes


def document(day: str, **strategies: dict[str, object]) -> dict[str, object]:
    return {"day": day, "candles": "simulated", "portfolio": scope(), "strategies": strategies}


def shown(newest: dict[str, object], history: list[dict[str, object]]) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(performance_table(newest, history))
    return console.file.getvalue()


def test_the_table_fits_80_columns_and_shows_verdict_trend_and_what_is_unknown():
    history = [document(f"2025-03-0{day}", rsi=scope(win_rate_pct=40.0 + 5 * day)) for day in (4, 3, 2, 1)]
    text = shown(document("2025-03-04", rsi=scope(status="critical", win_rate_pct=None)), history)
    assert max(map(len, text.splitlines())) <= 80
    (line,) = [line for line in text.splitlines() if "rsi" in line]
    assert line.split() == ["rsi", "12", "-", "+2.60", "2.1", "+-8", "-", "improving", "critical"]


def test_a_strategy_that_began_yesterday_does_not_break_the_table():
    history = [document("2025-03-02", rsi=scope(), grid=scope()), document("2025-03-01", rsi=scope())]
    assert "grid" in shown(history[0], history)


def test_a_strategy_name_with_brackets_is_shown_as_it_is():
    newest = document("2025-03-02", **{"rsi[fast]": scope()})
    assert "rsi[fast]" in shown(newest, [newest])
