"""Is the tear sheet one page that shows what the document says, the same every time, whatever the texts in it are?"""

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.backtesting.charts import MOST_POINTS, curves_figure, plot, returns_figure
from trading_ops.backtesting.keeping import keep_document, keep_tear_sheet, said_of
from trading_ops.backtesting.preparation import prepare
from trading_ops.backtesting.report import Backtest, run_backtest
from trading_ops.backtesting.request import BacktestRequest
from trading_ops.backtesting.tear_sheet import tear_sheet
from trading_ops.files import FileNotWritten
from trading_ops.market.simulated import SimulatedCandles
from trading_ops_tests.conftest import NOON

SOURCE = SimulatedCandles(lambda: NOON, ["BTCUSDT"])
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>&\"'"


def run(**asked: Any) -> Backtest:
    values = {"start": "2024-11-15", "end": "2025-02-15"} | asked
    return run_backtest(prepare(BacktestRequest.parse(values), SOURCE, ["BTCUSDT"]))


@pytest.fixture(scope="module")
def found() -> Backtest:
    return run()


class Page(HTMLParser):
    """The page's tags, and its texts outside scripts and styles."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data + " "


def test_the_page_tells_the_figures_and_what_was_asked(found):
    text = " ".join(Page(tear_sheet(found)).text.split())
    metrics, held = found.document["metrics"], found.document["buy_and_hold"]
    assert "rsi on BTCUSDT" in text
    assert "2024-11-15 to 2025-02-15 UTC, 2,208 hourly bars simulated candles" in text
    assert f"{metrics['total_return_pct']:+,.2f} {held['total_return_pct']:+,.2f}" in text
    assert f"{metrics['sharpe_ratio']:.2f} +- {metrics['sharpe_standard_error']:.2f}" in text
    assert "oversold 30 overbought 70 fee % 0.1 slippage % 0.05 lot step none" in text
    assert found.document["candles_digest"][:16] in text
    assert found.digest in text
    for trade in found.document["trades"]:
        assert f"{trade['pnl_usdt']:+,.2f} {trade['pnl_pct']:+.2f}" in text
    assert re.search(r"2024 \+?-?[\d.]+ \+?-?[\d.]+ ", text)  # a row of months


def test_it_needs_nothing_but_itself(found):
    page = Page(tear_sheet(found))
    assert [tag for tag, attributes in page.tags if {"src", "href"} & set(attributes)] == []
    assert not {"link", "iframe", "img", "base"} & {tag for tag, _ in page.tags}
    assert "@import" not in tear_sheet(found).split("<script>")[0]


def test_the_same_backtest_gives_the_same_bytes(found):
    assert tear_sheet(found) == tear_sheet(run())
    assert plot(found) == plot(run())


def test_every_text_is_escaped(found):
    document = found.document | {"candles": EVIL, "title": EVIL, "candles_digest": EVIL, "digest": EVIL}
    document["request"] = document["request"] | dict.fromkeys(
        ("symbol", "strategy", "start", "end", "side", "market"), EVIL
    )
    document["request"]["parameters"] = {EVIL: EVIL}
    document["trades"] = [trade | {"close_reason": EVIL, "entry_time": EVIL} for trade in document["trades"]]
    trades = found.trades.assign(close_reason=EVIL)
    honest, evil = Page(tear_sheet(found)), Page(tear_sheet(replace(found, document=document, trades=trades)))
    names = [[tag for tag, _ in page.tags if tag in ("script", "img")] for page in (honest, evil)]
    assert names[0] == names[1]
    assert EVIL in evil.text
    drawn = curves_figure(replace(found, document=document, trades=trades)).to_json()
    assert "alert(1)" in drawn
    assert not re.search(r"(<|\\u003c)(img|script)", drawn)  # charts draw tags that they find in texts


def test_a_run_without_trades_has_a_page_too():
    found = run(parameters={"oversold": 1, "overbought": 99})
    text = " ".join(Page(tear_sheet(found)).text.split())
    assert "Sharpe ratio - " in text
    assert "Trades, newest first none" in text
    assert plot(found).startswith("![equity and drawdown](data:image/png;base64,")


def test_a_trade_open_at_the_end_and_a_short_are_drawn():
    found = run(strategy="macd", side="short", market="futures", funding_pct=0.01, end="2025-02-10")
    marks = [trace for trace in curves_figure(found).data if trace.mode == "markers"]
    assert sum(len(trace.x) for trace in marks) == 2 * len(found.trades)
    assert {trace.marker.symbol for trace in marks} == {"triangle-down", "x"}
    assert "funding USDT" in Page(tear_sheet(found)).text


def test_curves_are_thinned_to_what_a_screen_shows_and_keep_the_last_point_and_the_deepest_fall():
    found = run(start="2024-01-01", end="2025-03-01")
    curves = {(trace.name, trace.yaxis): trace for trace in curves_figure(found).data if trace.mode is None}
    assert len(found.equity) > MOST_POINTS
    equity, fall = curves["strategy", "y"], curves["strategy", "y2"]
    assert len(equity.y) <= MOST_POINTS
    assert equity.y[-1] == round(found.equity.iloc[-1], 2)
    assert -min(fall.y) == pytest.approx(found.document["metrics"]["max_drawdown_pct"], abs=1e-3)


def test_no_bar_of_the_histogram_mixes_gains_and_losses(found):
    closed = found.trades.loc[~found.trades["open_at_end"], "pnl_pct"]
    (bars,) = returns_figure(found).data
    assert sum(bars.y) == len(closed)
    gains = [count for middle, count in zip(bars.x, bars.y, strict=True) if middle > 0]
    assert sum(gains) == np.count_nonzero(closed > 0)


def test_the_document_is_stored_once_under_its_digest(found, tmp_path):
    with SqliteStore(tmp_path / "audit.db") as store:
        first, again = keep_document(store, found), keep_document(store, run())
        assert (first.appended, again.appended) == (True, False)
        assert (said_of(first), said_of(again)) == ("backtests record 1", "backtests record 1, stored before")
        (record,) = store.read("backtests")
    assert (record.partition, record.key, record.body) == ("", found.digest, found.document)


def test_the_page_is_written_whole_and_again_over_itself(found, tmp_path):
    path = keep_tear_sheet(tmp_path, found)
    assert path == tmp_path / "reports" / "backtests" / f"{found.digest}.html"
    path.write_text("half a page")
    assert keep_tear_sheet(tmp_path, found).read_text() == tear_sheet(found)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_folder_that_cannot_be_is_named(found, tmp_path):
    (tmp_path / "reports").write_text("a file")
    with pytest.raises(FileNotWritten, match=r"reports/backtests/.*html: cannot be written: "):
        keep_tear_sheet(tmp_path, found)
