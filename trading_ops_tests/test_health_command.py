"""Does `trading-ops health` show every component, and exit 1 where something is critical?"""

import json

import pytest

from trading_ops_tests.servers.bot import ScriptedServer, serving
from trading_ops_tests.test_cli import command, new_home

ROOMY = {f"TRADING_OPS_HEALTH_{what}_{level}_PCT": "100"
         for what in ("DISK", "MEMORY") for level in ("WARNING", "CRITICAL")}  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return new_home(tmp_path_factory.mktemp("home"))


def test_a_machine_in_order_is_shown_within_80_columns_and_nothing_is_recorded(home):
    with serving(ScriptedServer({"/": {}})) as address:
        done = command(["trading-ops", "health"], home, TRADING_OPS_FRONTEND_URL=address, **ROOMY)
    assert done.returncode == 0, done.stderr
    for word in ("engine", "AI service", "document DB", "candles", "not configured", "overall: healthy"):
        assert word in done.stdout, word
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert command(["trading-ops", "audit", "heads"], home).stdout.count("health_history") == 0


def test_what_is_down_exits_1_and_is_told_to_a_program_without_a_password(home):
    broker = {"TRADING_OPS_BROKER_URL": "amqp://ops:geheim@127.0.0.1:9//"}
    done = command(["trading-ops", "health", "--json"], home, **broker, **ROOMY)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert (document["overall"], document["components"]["broker"]["status"]) == ("critical", "down")
    assert set(document["uptime"]["broker"]) == {"24 h", "7 d", "30 d"}
    assert "geheim" not in done.stdout + done.stderr
