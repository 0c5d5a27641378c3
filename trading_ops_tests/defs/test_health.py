"""Is the account's worth recorded every quarter of an hour, and a bot that cannot be read told once?"""

from typing import Any

import dagster as dg
import pytest

from trading_ops.defs.health import system_health_check
from trading_ops.services import Services
from trading_ops_tests.fakes import ScriptedBot

ACCOUNT = {
    "as_of": "2025-03-10T00:00:20Z", "initial_usdt": 10_000.0, "balance_usdt": 10_000.0, "equity_usdt": 10_250.0,
    "total_return_pct": 2.5, "total_trades": 4, "winning_trades": 3,
}  # fmt: skip


def check(services: Services, bot: Any = None) -> dg.ExecuteInProcessResult:
    if bot is not None:
        services.__dict__["bot"] = bot  # a cached property holds what was put there
    config = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return system_health_check.execute_in_process(resources={"services": services}, run_config=config)


def test_the_accounts_equity_is_recorded_under_its_quarter_of_an_hour(services):
    assert check(services, ScriptedBot(account=ACCOUNT)).success
    (record,) = services.store.read("equity_snapshots")
    assert (record.partition, record.key) == ("2025-03-10", "00:00")
    assert (record.body["equity_usdt"], record.body["balance_usdt"]) == (10_250.0, 10_000.0)
    assert record.body["source"] == "scripted-1"


def test_the_paper_bots_snapshot_tells_every_strategy(services):
    assert check(services).success
    (record,) = services.store.read("equity_snapshots")
    worth = sum(strategy["equity_usdt"] for strategy in record.body["strategies"].values())
    assert sorted(record.body["strategies"]) == ["bollinger", "macd", "rsi", "volume"]
    assert worth == pytest.approx(record.body["equity_usdt"])
    open_profit = sum(strategy["unrealised_usdt"] for strategy in record.body["strategies"].values())
    assert open_profit == pytest.approx(record.body["equity_usdt"] - record.body["balance_usdt"])


@pytest.mark.parametrize("account", [{}, None, ACCOUNT | {"equity_usdt": float("nan")}], ids=["empty", "null", "NaN"])
def test_an_account_that_is_none_is_told_once_a_day_and_recorded_as_nothing(services, account):
    for _ in range(3):
        assert check(services, ScriptedBot(account=account)).success
    assert services.store.read("equity_snapshots") == []
    (told,) = services.outbox.deliveries()
    assert told["alert"]["severity"] == "ERROR"
    assert "Portfolio: " in told["alert"]["why"]


def test_an_unreachable_bot_is_told_once_a_day_and_the_run_goes_on(services):
    for _ in range(2):
        assert check(services, ScriptedBot(reachable=False)).success
    (told,) = services.outbox.deliveries()
    assert "connection refused" in told["alert"]["why"]
