"""Which symbols' candles does the check demand of a bot that is not ours?"""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from trading_ops.bot.http import CHART, CLOSED_TRADES, HEALTH, OPEN_TRADES
from trading_ops.definitions import defs
from trading_ops.defs.resources import AuditIOManager
from trading_ops.services import Services
from trading_ops_tests.conftest import NOON, QuietSettings
from trading_ops_tests.fakes import trade
from trading_ops_tests.servers.bot import Says, ScriptedServer, serving

BARS = [
    {"time": (NOON.replace(minute=0) - timedelta(hours=i)).isoformat(), "open": 100.0, "high": 101.0, "low": 99.0,
     "close": 100.0, "volume": 5.0}
    for i in range(200, 0, -1)
]  # fmt: skip
POSITION = {
    "position_id": "p", "strategy": "rsi", "symbol": "SOLUSDT", "side": "long", "quantity": 1.0, "entry_price": 100.0,
    "mark_price": 101.0, "opened_at": "2025-03-10T10:00:00Z", "unrealised_usdt": 1.0,
}  # fmt: skip
TRADES = [
    trade("old", "2025-02-20T10:00:00+00:00", symbol="DOGEUSDT"),  # more than a week ago
    trade("new", "2025-03-09T10:00:00+00:00", symbol="ETHUSDT"),
]


@pytest.fixture
def bot() -> Iterator[tuple[ScriptedServer, str]]:
    health = {"healthy": True, "now": NOON.isoformat()}
    scripted = ScriptedServer({HEALTH: health, CLOSED_TRADES: TRADES, OPEN_TRADES: [POSITION]})
    with serving(scripted) as address:
        yield scripted, address


def watching(address: str, folder: Path, **settings: Any) -> Services:
    return Services(
        QuietSettings(data_dir=folder / "var", bot_url=address, bot_since="2025-02-01", **settings), now=lambda: NOON
    )


def candles_sound(services: Services) -> Any:
    job = dg.define_asset_job("candles_check", selection=dg.AssetSelection.checks_for_assets("candles"))
    result = (
        dg.Definitions(
            assets=defs.assets,
            asset_checks=defs.asset_checks,
            jobs=[job],
            resources={"services": services, "audit": AuditIOManager(services)},
            executor=dg.in_process_executor,
        )
        .resolve_job_def("candles_check")
        .execute_in_process(run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}})
    )
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_another_bot_is_asked_for_the_symbols_it_holds_or_traded_in_a_week(bot, tmp_path):
    scripted, address = bot
    scripted.script |= {f"{CHART}/ETHUSDT/1h": BARS, f"{CHART}/SOLUSDT/1h": BARS}
    services = watching(address, tmp_path)
    assert services.bot_symbols() == ("ETHUSDT", "SOLUSDT")
    evaluation = candles_sound(services)
    assert evaluation.passed
    assert [row.data["symbol"] for row in evaluation.metadata["symbols"].value.records] == ["ETHUSDT", "SOLUSDT"]
    assert services.outbox.deliveries() == []


def test_a_bot_that_does_not_tell_its_positions_is_known_by_its_trades(bot, tmp_path):
    scripted, address = bot
    scripted.script[OPEN_TRADES] = Says("not found", 404)
    assert watching(address, tmp_path).bot_symbols() == ("ETHUSDT",)


def test_the_symbols_that_the_operator_names_are_demanded_of_any_bot(bot, tmp_path):
    scripted, address = bot
    scripted.script |= {f"{CHART}/BTCUSDT/1h": BARS, f"{CHART}/XRPUSDT/1h": []}
    evaluation = candles_sound(watching(address, tmp_path, symbols=("BTCUSDT", "XRPUSDT")))
    assert not evaluation.passed
    (row,) = evaluation.metadata["findings"].value.records
    assert row.data["finding"].startswith("XRPUSDT: ")


def test_a_bot_that_traded_nothing_passes_and_the_check_says_why(bot, tmp_path):
    scripted, address = bot
    scripted.script |= {CLOSED_TRADES: [], OPEN_TRADES: []}
    evaluation = candles_sound(watching(address, tmp_path))
    assert evaluation.passed
    assert "no symbol is known" in evaluation.metadata["symbols"].value


def test_a_bot_whose_symbols_cannot_be_learnt_fails_the_check_with_its_reason(bot, tmp_path):
    scripted, address = bot
    scripted.script[CLOSED_TRADES] = {"success": False, "error": "the database is locked"}
    evaluation = candles_sound(watching(address, tmp_path))
    assert not evaluation.passed
    (row,) = evaluation.metadata["findings"].value.records
    assert "the database is locked" in row.data["finding"]


def test_the_paper_bots_symbols_are_the_settings(make_services):
    assert make_services(symbols=("BTCUSDT",)).bot_symbols() == ("BTCUSDT",)
    assert len(make_services().bot_symbols()) == 5
