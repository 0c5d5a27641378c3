"""Does a browser without a network draw the tear sheet, and complain about nothing?"""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from trading_ops.backtesting.keeping import keep_tear_sheet
from trading_ops.backtesting.preparation import prepare
from trading_ops.backtesting.report import run_backtest
from trading_ops.backtesting.request import BacktestRequest
from trading_ops.market.simulated import SimulatedCandles
from trading_ops_tests.conftest import NOON
from trading_ops_tests.ui.test_ui import chromium  # noqa: F401


@pytest.fixture
def sheet(tmp_path: Path) -> Path:
    asked = BacktestRequest.parse({"symbol": "BTCUSDT", "start": "2024-06-01", "end": "2024-12-01"})
    return keep_tear_sheet(
        tmp_path, run_backtest(prepare(asked, SimulatedCandles(lambda: NOON, ["BTCUSDT"]), ("BTCUSDT",)))
    )


def test_a_browser_draws_every_chart_and_asks_for_nothing(chromium: Browser, sheet: Path) -> None:  # noqa: F811
    context = chromium.new_context(viewport={"width": 1280, "height": 1000}, offline=True)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(sheet.as_uri())
    expect(page.get_by_role("heading", name="rsi on BTCUSDT")).to_be_visible()
    expect(page.locator("#curves .scatterlayer .trace")).not_to_have_count(0)
    expect(page.locator("#returns .barlayer .point").first).to_be_visible()
    assert page.locator("#curves .subplot").count() == 3
    assert said == []
    assert asked == [sheet.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    context.close()
