"""What comes of a day when a source is slow, broken or empty? docs/outcomes.md says it, row by row; so it is."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from trading_ops.audit.store import StoreUnavailable, open_store
from trading_ops.bot.http import CLOSED_TRADES, HEALTH, PORTFOLIO, STRATEGIES, USAGE
from trading_ops.definitions import defs
from trading_ops.defs.notifications import run_failure_alert_sensor
from trading_ops.defs.resources import AuditIOManager
from trading_ops.portfolio.snapshots import record_snapshot
from trading_ops.services import Services
from trading_ops_tests.conftest import NEWEST, NOON, ROOT, QuietSettings
from trading_ops_tests.fakes import NO_USAGE, trade
from trading_ops_tests.servers.bot import Asked, Says, ScriptedServer, serving

ASSETS = {
    "closed_trades": ("closed_trades", "outcome"),
    "performance_metrics": ("performance_metrics", "outcome"),
    "strategy_risk": ("strategy_risk", "status"),
    "portfolio_report": ("portfolio_reports", "outcome"),
    "api_costs": ("api_cost_history", "outcome"),
    "model_accuracy": ("model_accuracy_history", "outcome"),
}
WINNERS = [trade(str(i), f"2025-03-0{3 + i % 7}T{i:02}:00:00+00:00", 30.0) for i in range(14)]
ACCOUNT = {
    "as_of": "2025-03-10T12:30:00Z", "initial_usdt": 10_000.0, "balance_usdt": 10_000.0, "equity_usdt": 10_000.0,
    "total_return_pct": 0.0, "total_trades": 0, "winning_trades": 0, "initial_by_strategy": {"rsi": 10_000.0},
}  # fmt: skip
BARS = [
    {"time": (NOON.replace(minute=0) - timedelta(hours=i)).isoformat(), "open": 100.0, "high": 101.0, "low": 99.0,
     "close": 100.0, "volume": 5.0}
    for i in range(200, 0, -1)
]  # fmt: skip
WELL: dict[str, Any] = {
    HEALTH: {"healthy": True, "now": NOON.isoformat()},
    CLOSED_TRADES: WINNERS,
    PORTFOLIO: ACCOUNT,
    STRATEGIES: [{"name": "rsi", "enabled": True}],
    USAGE: NO_USAGE,
    "/api/market/chart/BTCUSDT/1h": BARS,
}
ERROR_500 = Says("<html>Internal Server Error</html>", 500, content_type="text/html")
REFUSED = {"success": False, "error": "the database is locked"}


def cut_off(asked: Asked) -> dict[str, Any]:
    return {"success": True, "data": WINNERS[:5], "has_more": True}  # whatever is asked for


WEATHER: dict[str, Mapping[str, Any]] = {
    "all is well": {},
    "no trade was closed": {CLOSED_TRADES: []},
    "three trades in seven days": {CLOSED_TRADES: WINNERS[-3:]},
    "the bot is down": {"down": True},
    "its trades are slow": {CLOSED_TRADES: "slow"},
    "its trades fail (HTTP 500)": {CLOSED_TRADES: ERROR_500},
    "its trades fail (`success: false`)": {CLOSED_TRADES: REFUSED},
    "its trades are no list": {CLOSED_TRADES: {"trades": "none"}},
    "its list of trades is cut off": {CLOSED_TRADES: cut_off},
    "one trade cannot be true": {CLOSED_TRADES: [*WINNERS[:-1], {**WINNERS[-1], "pnl_usdt": 9_999.0}]},
    "no snapshot around midnight": {"snapshots": False},
    "its account is empty (`{}`)": {PORTFOLIO: {}},
    "its account is slow": {PORTFOLIO: "slow"},
    "its strategies fail": {STRATEGIES: ERROR_500},
    "its AI costs fail": {USAGE: ERROR_500},
    "its AI costs are empty (`{}`)": {USAGE: {}},
    "it has no candles": {"/api/market/chart/BTCUSDT/1h": []},
    "the audit store is down": {"store": False},
}


def rows() -> list[list[str]]:
    table = re.findall(r"^\| (.+) \|$", (ROOT / "docs" / "outcomes.md").read_text(), re.M)
    return [[cell.strip() for cell in line.split(" | ")] for line in table[1:]]


@pytest.fixture
def server() -> Iterator[tuple[ScriptedServer, str]]:
    scripted = ScriptedServer(WELL)
    with serving(scripted) as address:
        yield scripted, address


@pytest.fixture
def day(server: tuple[ScriptedServer, str], tmp_path: Path) -> Callable[[Mapping[str, Any]], list[str]]:
    """Runs the whole day in some weather; its row of the table, but for the first cell."""

    def run(weather: Mapping[str, Any]) -> list[str]:
        scripted, address = server
        for path, answer in weather.items():
            scripted.script[path] = slow if answer == "slow" else answer
        services = Services(
            QuietSettings(
                data_dir=tmp_path / "var",
                symbols=("BTCUSDT",),
                bot_url="http://127.0.0.1:9" if "down" in weather else address,
                bot_timeout_s=0.5 if "slow" in weather.values() else 20.0,
                bot_since="2025-02-01",
                mongodb_uri=None if weather.get("store", True) else "mongodb://127.0.0.1:9/?timeoutMS=300",
            ),
            now=lambda: NOON,
        )
        for end in ("2025-03-09", "2025-03-10") if weather.get("snapshots", True) else ():
            record_snapshot(services.store, snapshot(f"{end}T00:00:10+00:00", services.bot.source))
        return measured(services)

    return run


async def slow(asked: Asked) -> Any:
    await asyncio.sleep(5)
    return []


def snapshot(as_of: str, source: str) -> dict[str, Any]:
    worth = 10_000.0 if as_of < "2025-03-10" else 10_060.0  # two winners on the 9th
    return {
        "as_of": as_of, "source": source, "candles": "live", "equity_usdt": worth, "balance_usdt": worth,
        "net_deposits_usdt": None, "strategies": {"rsi": {"equity_usdt": worth, "unrealised_usdt": 0.0}},
    }  # fmt: skip


def measured(services: Services) -> list[str]:
    with dg.DagsterInstance.ephemeral() as instance:
        selection = dg.AssetSelection.assets(*ASSETS) | dg.AssetSelection.checks_for_assets("candles")
        result = (
            dg.Definitions(
                jobs=[dg.define_asset_job("the_day", selection=selection)],
                assets=defs.assets,
                asset_checks=defs.asset_checks,
                resources={"services": services, "audit": AuditIOManager(services)},
                executor=dg.in_process_executor,
            )
            .resolve_job_def("the_day")
            .execute_in_process(
                tags={"dagster/partition": NEWEST},
                instance=instance,
                raise_on_error=False,
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
        )
        if not result.success:
            run_failure_alert_sensor(dg.build_sensor_context(instance, resources={"services": services}))
    services.now = lambda: NOON + timedelta(minutes=1)  # what is held back to be told together is told by now
    services.incidents.tick()
    stored = []
    for collection, field in ASSETS.values():
        records = services.store.read(collection, partitions=[NEWEST], key="") if has(services, collection) else []
        stored.append(f"{records[0].body[field]}{' (spooled)' if records[0].seq == 0 else ''}" if records else "-")
    alerts = sorted({(d["alert"]["severity"], told(d["alert"])) for d in deliveries(services)})
    said = "; ".join(f"{severity}: {what}" for severity, what in alerts if severity != "INFO")
    return [*stored, "succeeds" if result.success else "fails", said or "-"]


def has(services: Services, collection: str) -> bool:
    try:
        services.store.read(collection, partitions=[NEWEST], key="")
    except StoreUnavailable:
        return False
    return True


def deliveries(services: Services) -> list[Mapping[str, Any]]:
    """What was published, in the audit store or, while it is down, on this machine."""
    local = services.settings.data_dir / "outbox.db"
    if not local.exists():
        return services.outbox.deliveries()
    with open_store(f"sqlite:///{local}") as store:
        return [document.body for document in store.list_state("outbox")]


def told(alert: Mapping[str, Any]) -> str:
    return (
        str(alert["what"])
        .removesuffix(" (live candles)")
        .removesuffix(f", {NEWEST}")
        .replace("the_day", "the run")
        .replace(f" for {NEWEST}", "")
    )


@pytest.mark.parametrize("name", WEATHER)
def test_a_day_in_this_weather_ends_as_the_table_says(day: Callable[[Mapping[str, Any]], list[str]], name: str):
    expected = {row[0]: row[1:] for row in rows()}
    assert day(WEATHER[name]) == expected[name]


def test_the_table_has_no_row_that_is_not_tested():
    assert [row[0] for row in rows()] == list(WEATHER)
