"""Is the account's worth recorded every quarter of an hour, and a bot that cannot be read told once?"""

from datetime import timedelta
from typing import Any

import dagster as dg
import pytest

from trading_ops.defs.health import system_health_check
from trading_ops.services import Services
from trading_ops_tests.conftest import NOON
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
def test_an_account_that_is_none_is_told_once_and_recorded_as_nothing(services, account):
    for _ in range(3):
        assert check(services, ScriptedBot(account=account)).success
    assert services.store.read("equity_snapshots") == []
    (told,) = services.outbox.deliveries()
    assert told["alert"]["severity"] == "ERROR"
    assert "Portfolio: " in told["alert"]["why"]


def steps(services: Services) -> list[str]:
    return [delivery["alert"]["step"] for delivery in services.outbox.deliveries()]


def test_each_outage_of_the_bot_is_told_once_and_so_is_its_end_and_the_runs_go_on(services):
    for minute, reachable in enumerate([False, False, True, True, False, False, True]):
        services.now = lambda minute=minute: NOON + timedelta(minutes=15 * minute)
        bot = ScriptedBot(account=ACCOUNT | {"as_of": f"{services.now():%Y-%m-%dT%H:%M:20Z}"}, reachable=reachable)
        assert check(services, bot).success
    assert steps(services) == ["opened", "resolved"] * 2
    first, ended = (delivery["alert"] for delivery in services.outbox.deliveries()[:2])
    assert first["why"] == "connection refused"
    assert ended["why"] == "It lasted 30 min, until 2025-03-10 13:00 UTC, and was seen 2 times."


def test_an_outage_that_lasts_is_reminded_of_once_a_day(services):
    for hours in (0, 6, 24, 30, 48):
        services.now = lambda hours=hours: NOON + timedelta(hours=hours)
        assert check(services, ScriptedBot(reachable=False)).success
    assert steps(services) == ["opened", "reminded", "reminded"]


def test_an_unreachable_bot_is_told_while_the_audit_store_is_down_too(make_services, capsys):
    services = make_services(mongodb_uri="mongodb://127.0.0.1:9/x?timeoutMS=100")
    assert check(services, ScriptedBot(reachable=False)).success
    assert "The bot's equity could not be read" in "".join(capsys.readouterr())
