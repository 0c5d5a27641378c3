"""Is the built-in bot, behind its own server, stopped for good and everything else left to trade on?"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pandas as pd

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.bot.http import HttpBot
from trading_ops.bot.server import create_app
from trading_ops.guard.actions import CONFIRMED
from trading_ops.guard.memory import STRATEGY_ACTIONS, GuardMemory
from trading_ops.guard.rules import Limits
from trading_ops.guard.switch import Policy, step
from trading_ops.guard.watch import Watch
from trading_ops.market.simulated import ANCHOR, SimulatedCandles
from trading_ops.notifications.alert import Alert
from trading_ops.paper.bot import PaperBot
from trading_ops_tests.guard.bots import Clock
from trading_ops_tests.servers.bot import serving

SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
TWO_LOSSES = Policy(limits=Limits(daily_loss_pct=100.0, consecutive_losses=1))


def second_loss(trades: pd.DataFrame, strategy: str) -> pd.Timestamp:
    """When the strategy first lost twice in a row in spring."""
    own = trades[(trades["strategy"] == strategy) & (trades["closed_at"] >= "2024-04-05")]
    lost = own["pnl_usdt"] < 0
    return own["closed_at"][lost & lost.shift(fill_value=False)].iloc[0]


def test_the_paper_bot_behind_its_server_is_stopped_for_good_B097(tmp_path: Path):
    clock = Clock("2024-05-20T12:20:00+00:00")
    with SqliteStore(tmp_path / "paper.db") as kept, SqliteStore(tmp_path / "audit.db") as store:
        paper = PaperBot(SimulatedCandles(clock), lambda: kept, SYMBOLS, clock)
        clock.at = second_loss(paper.closed_trades(ANCHOR, clock()).frame, "macd").to_pydatetime() + timedelta(
            minutes=20
        )
        told: list[Alert] = []
        with serving(create_app(paper)) as url:
            bot = HttpBot(url, now=clock)
            memory, watch = GuardMemory(store, lambda: store, bot.source), Watch(clock)
            seen = step(bot, memory, watch, TWO_LOSSES, told.append)
            stopped = {action["strategy"] for action in seen.actions}
            assert "macd" in stopped
            assert {action["state"] for action in seen.actions} == {CONFIRMED}
            assert {state.name for state in bot.strategies() if not state.enabled} == stopped
            assert {record.body["strategy"] for record in store.read(STRATEGY_ACTIONS)} == stopped
            assert f"{sorted(stopped)[0]} was stopped" in {alert.what for alert in told}

            stopped_at = clock()
            holding = {position.position_id for position in bot.open_positions() if position.strategy == "macd"}
            clock.go(6 * 24 * 3600)
            later = paper.closed_trades(stopped_at, clock()).frame
            assert set(later.loc[later["strategy"] == "macd", "position_id"]) <= holding  # exits, and nothing else
            assert not [p for p in paper.open_positions() if p.strategy == "macd" and p.opened_at > stopped_at]
            assert (later["opened_at"] > stopped_at).any() or len(stopped) == 4  # the others trade on
            step(bot, memory, watch, TWO_LOSSES, told.append)
            assert not [alert for alert in told if alert.what == "macd could not be stopped"]
