"""A bot bleeds for three days: is that analysed the same day, and is its model trained anew, by Dagster's daemon?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.bot.records import ClosedTrades
from trading_ops.bot.server import create_app
from trading_ops.market.parquet import ParquetCandles
from trading_ops.paper.bot import PaperBot
from trading_ops_tests.platform import DAEMON, Platform
from trading_ops_tests.servers.bot import serving
from trading_ops_tests.servers.openai import GOOD, KEY, OpenAiServer
from trading_ops_tests.servers.vendors import VendorServer, webhook
from trading_ops_tests.test_cli import bodies, command, new_home

MODEL = "gru/BTCUSDT"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "BNBUSDT")
DAYS = 150
BLEEDING = timedelta(days=3)
LOST = 0.97  # of the entry price, what every trade of these days is closed at


def now() -> datetime:
    return datetime.now(UTC)


def midnight() -> datetime:
    return now().replace(hour=0, minute=0, second=0, microsecond=0)


class Bleeding(PaperBot):
    """Of the last three complete days every trade lost 3 %, and its costs."""

    def closed_trades(self, start: datetime, end: datetime) -> ClosedTrades:
        frame = super().closed_trades(start, end).frame.copy()
        late = frame["closed_at"] >= midnight() - BLEEDING
        frame.loc[late, "exit_price"] = frame.loc[late, "entry_price"] * LOST
        notional = frame["quantity"] * frame["entry_price"]
        profit = frame["quantity"] * (frame["exit_price"] - frame["entry_price"])
        profit = profit - frame["fee_usdt"] - frame["funding_usdt"]
        frame.loc[late, "pnl_usdt"] = profit[late]
        frame.loc[late, "pnl_pct"] = (100 * profit / notional)[late]
        return ClosedTrades(frame)


@pytest.fixture
def candles(market: Path, tmp_path: Path) -> Path:
    """A folder of the recorded candles, moved to the present and a day beyond, so that they go on while this runs."""
    folder = tmp_path / "candles"
    folder.mkdir()
    for symbol in SYMBOLS:
        bars = pd.read_parquet(market / f"{symbol}-1h.parquet").tail(DAYS * 24)
        end = pd.Timestamp(midnight() + timedelta(days=2)) - pd.Timedelta(hours=1)
        bars["ts"] = bars["ts"] + (end - bars["ts"].iloc[-1])
        bars.to_parquet(folder / f"{symbol}-1h.parquet")
    return folder


@pytest.fixture
def bleeding(candles: Path, tmp_path: Path) -> Iterator[str]:
    """The address of the bot that trades on these candles."""
    with SqliteStore(tmp_path / "bot.db") as memory:
        bot = Bleeding(ParquetCandles(candles, now, symbols=SYMBOLS), lambda: memory, SYMBOLS, now)
        with serving(create_app(bot)) as address:
            yield address


def documents(home: Path, collection: str) -> list[dict[str, Any]]:
    return [json.loads(body) for _, _, body in bodies(home, collection)]


def done(home: Path, line: list[str], settings: dict[str, str]) -> None:
    ran = command(line, home, **settings)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("key", [KEY, ""], ids=["with GPT-4", "without a key"])
def test_a_model_is_trained_anew_on_the_day_its_strategy_is_seen_to_bleed(
    key: str, bleeding: str, candles: Path, tmp_path: Path
):
    home, newest = new_home(tmp_path), str((midnight() - timedelta(days=1)).date())
    with VendorServer(webhook) as people, OpenAiServer() as gpt:
        platform = Platform(
            home, people, bleeding, TRADING_OPS_CANDLES=str(candles),
            TRADING_OPS_SYMBOLS=",".join(SYMBOLS), TRADING_OPS_BOT_SINCE=str((midnight() - timedelta(days=30)).date()),
            TRADING_OPS_STRATEGY_MODELS=f"rsi={MODEL}", TRADING_OPS_GUARD_MODE="observe_only",
            OPENAI_API_KEY=key, OPENAI_BASE_URL=gpt.url,
        )  # fmt: skip
        learnt = str((midnight() - timedelta(days=12)).date())
        train = ["trading-ops", "models", "train", "gru", "BTCUSDT", "--days", "60", "--epochs", "2", "--end", learnt]
        done(home, train, platform.settings)
        (champion,) = [document["model_id"] for document in documents(home, "model_registry")]
        promote = ["trading-ops", "models", "promote", champion, "--reason", "to see it replaced"]
        done(home, promote, platform.settings)
        first, last = (str((midnight() - timedelta(days=back)).date()) for back in (8, 2))
        done(home, ["trading-ops", "backfill", "--first", first, "--last", last], platform.settings)
        assert not documents(home, "retrain_history")
        with platform.running(DAEMON):
            analysis = [
                "dagster",
                "job",
                "execute",
                "-m",
                "trading_ops.definitions",
                "-j",
                "daily_performance_analysis",
            ]
            done(home, analysis, platform.settings)
            platform.until(lambda: documents(home, "retrain_history"), 240)
            platform.until(lambda: _over(platform, "adaptive_retrain"), 120)
    (decided,) = [d for d in documents(home, "gpt4_analysis_history") if d["day"] == newest]
    assert decided["evidence"]["forced"]
    assert decided["decision"]["action"] == "retrain"
    assert decided["decision"]["models"] == [MODEL]
    assert "3 days with trades below 55 % wins: 0 %, 0 %, 0 %" in decided["decision"]["due_because"]
    assert decided["decision"]["rules_alone"] == "retrain"
    calls = [call for call in documents(home, "llm_calls") if call["outcome"] != "reserved"]
    if key:
        assert (decided["outcome"], decided["opinion"]["confidence"]) == ("asked", GOOD["confidence"])
        assert (decided["decision"]["gpt_says_retrain"], decided["decision"]["agreed"]) == (True, True)
        assert [call["outcome"] for call in calls] == ["ok"] * len(gpt.asked) == ["ok"]
        assert decided["cost_usd"] == calls[0]["cost_usd"] > 0
    else:
        assert decided["decision"]["decided_by"] == "rules (no OPENAI_API_KEY is set)"
        assert (calls, gpt.asked) == ([], [])
    (retrained,) = documents(home, "retrain_history")
    assert retrained["trigger"]["decision"] == decided["decision_id"]
    assert (retrained["name"], retrained["champion"]) == (MODEL, champion)
    past = [d for d in documents(home, "gpt4_analysis_history") if d["day"] != newest]
    assert len(past) == 7
    assert not any(d["evidence"]["present"] for d in past)


def _over(platform: Platform, job: str) -> bool:
    """Exactly one run of the job there is, and it is over."""
    (run,) = platform.runs(dg.RunsFilter(job_name=job))
    return run.is_finished
