"""The guard from the terminal: real processes that watch a real server, and a lab that needs none."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.bot.client import BotUnreachable
from trading_ops.bot.records import OpenOrder
from trading_ops.bot.server import create_app
from trading_ops_tests.guard.bots import TradingBot
from trading_ops_tests.servers.bot import serving
from trading_ops_tests.test_cli import BIN, command, new_home

SINCE = str(datetime.now(UTC).date() - timedelta(days=3))
NOBODY = "mongodb://127.0.0.1:9/trail?serverSelectionTimeoutMS=200"


@pytest.fixture
def bot() -> TradingBot:
    return TradingBot(lambda: datetime.now(UTC))


@pytest.fixture
def url(bot: TradingBot) -> Iterator[str]:
    with serving(create_app(bot)) as address:
        yield address


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return new_home(tmp_path)


def ops(home: Path, url: str, *line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return command(
        ["trading-ops", *line], home, TRADING_OPS_BOT_URL=url, TRADING_OPS_BOT_SINCE=SINCE,
        **environment,
    )  # fmt: skip


def environment_of(home: Path, url: str) -> dict[str, str]:
    return {
        "PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "DAGSTER_HOME": str(home), "TRADING_OPS_BOT_URL": url,
        "TRADING_OPS_BOT_SINCE": SINCE,
    }  # fmt: skip


def test_a_person_stops_looks_and_resumes(bot: TradingBot, home: Path, url: str):
    done = ops(home, url, "strategies", "disable", "rsi", "--reason", "the feed is wrong", "--by", "ana")
    assert done.returncode == 0, done.stderr
    assert "rsi was stopped" in done.stderr  # the alert, on the terminal where no channel is chosen
    assert "rsi is stopped, confirmed after" in done.stdout
    assert bot.switched == [("rsi", False)]

    rows = {row["strategy"]: row for row in json.loads(ops(home, url, "strategies", "list", "--json").stdout)}
    assert (rows["rsi"]["enabled"], rows["rsi"]["guard"], rows["macd"]["guard"]) == (False, "confirmed", "watching")
    shown = ops(home, url, "strategies", "list").stdout
    assert "rsi: the feed is wrong\n  to let it trade again: trading-ops strategies resume rsi --reason ..." in shown
    assert max(map(len, shown.splitlines())) <= 80

    asked = ops(home, url, "strategies", "resume", "rsi", "--reason", "it is right again")
    assert asked.returncode == 1  # nobody said yes
    assert "because the feed is wrong" in asked.stdout
    assert bot.switched == [("rsi", False)]
    done = ops(home, url, "strategies", "resume", "rsi", "--reason", "it is right again", "--by", "ana", "--yes")
    assert done.returncode == 0, done.stderr
    assert bot.switched == [("rsi", False), ("rsi", True)]
    assert "not stopped" in ops(home, url, "strategies", "resume", "rsi", "--reason", "again", "--yes").stderr

    with SqliteStore(home / "var" / "audit.db") as store:
        states = [
            (r.body["state"], r.body["trigger"]["by"]) for r in store.read("strategy_actions", all_revisions=True)
        ]
    assert sorted(states) == [("confirmed", "ana"), ("resuming", "ana"), ("watching", "ana")]


def test_halt_stops_everything_and_only_with_all(bot: TradingBot, home: Path, url: str):
    refused = ops(home, url, "strategies", "halt", "--reason", "storm")
    assert (refused.returncode, bot.switched) == (2, [])
    done = ops(home, url, "strategies", "halt", "--all", "--reason", "storm", "--json")
    assert done.returncode == 0
    assert [action["state"] for action in json.loads(done.stdout)] == ["confirmed"] * 2
    assert sorted(bot.switched) == [("macd", False), ("rsi", False)]


def test_halt_waits_for_all_at_once_and_says_of_each_when_it_is_stopped(bot: TradingBot, home: Path, url: str):
    order = OpenOrder(order_id="o1", strategy="rsi", symbol="BTCUSDT", intent="entry", created_at=bot.clock())
    bot.orders = [order]  # with it rsi is not confirmed
    line = [BIN / "trading-ops", "strategies", "halt", "--all", "--reason", "storm", "--wait", "600"]
    with subprocess.Popen(line, cwd=home, env=environment_of(home, url), stdout=subprocess.PIPE, text=True) as halt:
        assert halt.stdout is not None
        assert halt.stdout.readline().startswith("macd is stopped, confirmed after")  # while rsi is being tried
        bot.orders = []
        assert halt.stdout.readline().startswith("rsi is stopped, confirmed after")
        assert halt.wait(timeout=300) == 0
    assert sorted(bot.switched) == [("macd", False), ("rsi", False)]


def test_a_stop_by_hand_that_the_bot_does_not_hear_is_written_down_and_carried_out_by_the_guard(
    bot: TradingBot, home: Path, url: str
):
    """With the audit store away as well, so that this machine's disk alone remembers it."""

    def away(method: str) -> None:
        raise BotUnreachable("the exchange is away")

    bot.before = away
    asked = ("strategies", "disable", "rsi", "--reason", "storm", "--wait", "0")
    done = ops(home, url, *asked, MONGODB_URI=NOBODY, TRADING_OPS_BOT_TIMEOUT_S="1")
    assert done.returncode == 1, done.stderr
    assert "rsi is NOT confirmed to be stopped" in done.stderr
    bot.before = lambda method: None
    assert ops(home, url, "guard", "watch", "--looks", "1").returncode == 0  # the store is another one, and there
    assert bot.switched == [("rsi", False)]
    with SqliteStore(home / "var" / "audit.db") as store:
        (document,) = store.list_state("guard_actions")
    assert (document.body["state"], document.body["trigger"]["why"]) == ("confirmed", "storm")


def test_what_cannot_be_stopped_exits_1_and_says_what_to_do_by_hand(bot: TradingBot, home: Path, url: str):
    bot.deaf = True
    done = ops(
        home, url, "strategies", "disable", "rsi", "--reason", "storm", "--wait", "0", TRADING_OPS_BOT_TIMEOUT_S="1"
    )
    assert done.returncode == 1
    assert "rsi is NOT confirmed to be stopped" in done.stderr
    assert "Stop rsi by hand" in done.stderr
    unknown = ops(home, url, "strategies", "disable", "rsy", "--reason", "storm")
    assert (unknown.returncode, "there are rsi, macd" in unknown.stderr) == (2, True)
    assert ops(home, url, "strategies", "disable", "rsi", "--reason", " ").returncode == 2


def test_the_watcher_stops_a_strategy_without_dagster_and_without_the_audit_store_B097(
    bot: TradingBot, home: Path, url: str
):
    bot.lose("rsi", 1500.0)
    beat = home / "beat.json"
    done = ops(home, url, "guard", "watch", "--looks", "2", "--heartbeat", str(beat), MONGODB_URI=NOBODY)
    assert done.returncode == 0, done.stderr
    assert bot.switched == [("rsi", False)]
    assert "rsi confirmed: rsi lost 15.00 % today, the limit is 10 %" in done.stdout
    assert "the audit store: " in done.stdout
    assert json.loads(beat.read_text())["stopped"] == {"rsi": "confirmed"}
    with SqliteStore(home / "var" / "guard.db") as local:
        (document,) = local.list_state("guard_actions")
    assert document.body["state"] == "confirmed"
    with SqliteStore(home / "var" / "outbox.db") as local:
        assert "rsi was stopped" in [d.body["alert"]["what"] for d in local.list_state("outbox")]
    assert (home / "var" / "spool.db").exists()  # the record waits for the store


def test_the_watcher_stops_and_tells_although_the_audit_store_is_damaged(bot: TradingBot, home: Path, url: str):
    bot.lose("rsi", 1500.0)
    (home / "var").mkdir(exist_ok=True)
    (home / "var" / "audit.db").write_bytes(b"no database" * 2_000)
    done = ops(home, url, "guard", "watch", "--looks", "2")
    assert done.returncode == 0, done.stderr
    assert bot.switched == [("rsi", False)]
    assert "audit.db is damaged or no SQLite database" in done.stdout
    assert "CRITICAL  rsi was stopped" in done.stderr  # on the terminal where no channel is chosen
    with SqliteStore(home / "var" / "guard.db") as local:
        (document,) = local.list_state("guard_actions")
    assert document.body["state"] == "confirmed"


def test_a_heartbeat_that_cannot_be_written_is_said_once_and_the_watcher_goes_on(bot: TradingBot, home: Path, url: str):
    bot.lose("rsi", 1500.0)
    (home / "full").write_text("no folder")
    beat = home / "full" / "guard.json"
    done = ops(home, url, "guard", "watch", "--every", "0.1", "--looks", "3", "--heartbeat", str(beat))
    assert done.returncode == 0, done.stderr
    assert bot.switched == [("rsi", False)]
    assert done.stderr.count(f"{beat}: cannot be written: File exists; the guard goes on") == 1


def test_the_watcher_ends_between_two_looks_when_it_is_told_to(home: Path, url: str):
    beat = home / "beat.json"
    line: list[Any] = [BIN / "trading-ops", "guard", "watch", "--every", "0.2", "--heartbeat", beat]
    with subprocess.Popen(
        line, cwd=home, env=environment_of(home, url), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as watcher:
        until = time.monotonic() + 300
        while not beat.exists() or json.loads(beat.read_text())["problem"]:  # the first look may take its time
            assert time.monotonic() < until
            assert watcher.poll() is None
            time.sleep(0.05)
        assert json.loads(beat.read_text())["pid"] == watcher.pid
        os.kill(watcher.pid, signal.SIGTERM)
        said, wrong = watcher.communicate(timeout=300)
    assert (watcher.returncode, wrong) == (0, b"")
    assert b"every strategy is within its limits" in said


def test_the_lab_shows_stops_rules_and_verdicts_at_80_columns_and_keeps_them_once(home: Path):
    line = ["trading-ops", "guard", "lab", "--days", "40", "--symbol", "btcusdt", "--symbol", "ETHUSDT"]
    done = command(line, home, TRADING_OPS_GUARD_CONSECUTIVE_LOSSES="4", TRADING_OPS_GUARD_PORTFOLIO_FROM_PEAK_PCT="1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "simulated candles" in done.stdout
    assert "recorded" not in done.stdout
    assert re.search(r"^ \d{4}-\d\d-\d\d \d\d:00 (rsi|macd|bollinger|volume) +5 > 4 losses ", done.stdout, re.M)
    said = " ".join(done.stdout.split())
    assert re.search(
        r"The guard as it is set: \d+ stops, \d+ h\. Loss avoided [\d,]+, profit forgone [\d,]+, net", said
    )
    assert re.search(r"\d+ false alarms; \d+ stops in which nothing would have been bought;", said)
    for rule, own in {"daily_loss": "10", "consecutive_losses": "4", "portfolio_drawdown_from_peak": "1"}.items():
        table = done.stdout.split(f"{rule}: ", 1)[1]
        assert re.search(rf"^ +{own}\* +\d+ ", table, re.M), rule
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert re.search(r"^audit trail: guard_labs record 1$", done.stdout, re.M)
    again = command(line, home, TRADING_OPS_GUARD_CONSECUTIVE_LOSSES="4", TRADING_OPS_GUARD_PORTFOLIO_FROM_PEAK_PCT="1")
    assert "guard_labs record 1, stored before" in again.stdout
    assert "simulated candles" in " ".join(
        command(["trading-ops", "history", "guard_labs", "--days", "1"], home).stdout.split()
    )


def test_the_lab_as_json_is_one_document_of_what_was_asked(home: Path):
    line = [
        "guard",
        "lab",
        "--strategy",
        "rsi",
        "--symbol",
        "BTCUSDT",
        "--days",
        "30",
        "--end",
        "2025-03-01",
        "--apart",
    ]
    done = command(["trading-ops", *line, "--resume-after", "8", "--fee", "0.2", "--json"], home)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    asked = document["request"]
    assert (asked["start"], asked["end"], asked["resume_after_h"], asked["fee_pct"]) == (
        "2025-01-30", "2025-03-01", 8, 0.2,
    )  # fmt: skip
    assert (asked["strategies"], asked["symbols"], asked["apart"]) == (["rsi"], ["BTCUSDT"], True)
    assert {name for line in document["lines"] for b in line["breaches"] for name in b["strategies"]} == {"rsi BTCUSDT"}
    assert document["candles"] == "simulated"


def test_the_lab_tells_recorded_candles_as_such_and_a_rule_that_hurts(home: Path, market: Path):
    done = command(["trading-ops", "guard", "lab"], home, TRADING_OPS_CANDLES=str(market))
    assert done.returncode == 0, done.stderr
    assert "2024-09-19 to 2025-09-19, recorded candles" in " ".join(done.stdout.split())
    assert re.search(r"^ +7 +25 +600 .* HURTS", done.stdout, re.M)
    assert re.search(r"^consecutive_losses at 7 hurts: -\d+ to -\d+ USDT$", done.stdout, re.M)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--strategy", "rsy"], "strategy 'rsy' is unknown; there are bollinger, macd, rsi, volume"),
        (["--symbol", "BTCUSD"], "symbol 'BTCUSD' is unknown, did you mean BTCUSDT"),
        (["--resume-after", "0"], "resume_after_h is 0; 1 or more would be right"),
        (["--days", "many"], "Invalid value for '--days'"),
    ],
)
def test_what_the_lab_cannot_do_exits_2_and_says_what_would_be_right(home: Path, line: list[str], said: str):
    done = command(["trading-ops", "guard", "lab", *line], home)
    assert done.returncode == 2
    assert said in re.sub(r"[\s│]+", " ", done.stderr)
    assert "Traceback" not in done.stderr
