"""Does `trading-ops costs` show what is spent, lift a stop on record, and price the past again?"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trading_ops.audit.store import Entry
from trading_ops.cli.main import app
from trading_ops.costs.ledger import CallRefused
from trading_ops.costs.overrides import COLLECTION as OVERRIDES
from trading_ops.costs.usage import COLLECTION
from trading_ops.services import Services
from trading_ops_tests.costs.worlds import SHA
from trading_ops_tests.test_cli import command, new_home

NOON = datetime(2025, 3, 10, 12, 30, tzinfo=UTC)


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, make_services, tmp_path: Path) -> Services:
    """Services at noon that a command finds instead of its own; nothing else is replaced."""
    services: Services = make_services(cost_day_critical_usd=1.0, cost_day_warning_usd=0.5,
                                       llm_prices={"plain": ("1", "0.5", "2")})  # fmt: skip
    monkeypatch.setattr("trading_ops.cli.costs.open_services", lambda: services)
    monkeypatch.setenv("COLUMNS", "120")
    return services


def reserve(services: Services, usd: float = 0.4):
    most = {"input": round(usd * 1_000_000), "output": 0}
    return services.ledger.reserve(purpose="assessment", model="plain", prompt_sha256=SHA, most_tokens=most)


def run(*line: str) -> Result:
    return CliRunner().invoke(app, ["costs", *line])


def test_it_shows_today_the_month_the_projection_and_the_last_calls(home: Services):
    old = {"model": "gpt-4o", "tokens": {"input": 1000}, "cost_usd": 2.0}
    home.store.append(COLLECTION, [Entry("2025-03-02", "old", old)])
    home.ledger.settle(reserve(home), outcome="answered", tokens={"input": 250_000, "output": 0}, latency_s=1.5,
                       detail={"reply": "a secret plan"})  # fmt: skip
    reserve(home, 0.3)
    done = run()
    assert done.exit_code == 0, done.output
    for told in ("0.5500", "2.5500", "7.9050", "100.0000", "0.4500", "2 calls started", "5 may", "answered", "reserved",
                 "250000/0", "0.250000", "costs $0.4500 at most may start"):  # fmt: skip
        assert told in done.output, told
    document = json.loads(run("--json").output)
    assert (document["day"]["spent_usd"], document["month"]["spent_usd"]) == (0.55, 2.55)
    assert document["month_projected_usd"] == pytest.approx(2.55 / 10 * 31)
    assert [call["outcome"] for call in document["calls"][:2]] in (["answered", "reserved"], ["reserved", "answered"])
    assert "a secret plan" not in done.output + json.dumps(document)


def test_a_fresh_store_has_no_calls(home: Services):
    done = run()
    assert done.exit_code == 0
    assert "no LLM call in this month" in done.output


def test_a_stop_is_shown_with_its_end_and_lifted_for_its_period_up_to_the_new_limit(home: Services):
    reserve(home, 1.0)
    with pytest.raises(CallRefused):
        reserve(home, 0.01)
    said = " ".join(run().output.split())
    assert "refused today: 1 (day)" in said
    assert "an LLM call that costs $0.0000 at most may start" in said
    with pytest.raises(CallRefused, match=r"lifts at 2025-03-11 00:00 UTC, or by `trading-ops costs allow --day`"):
        reserve(home, 0.01)
    assert "refused today: 2 (day)" in " ".join(run().output.split())
    done = run("allow", "--day", "--up-to", "1.5", "--reason", "release [day]", "--by", "ann")
    assert done.exit_code == 0, done.output
    assert "up to $1.50 this day, until 2025-03-11 00:00 UTC" in done.output
    reserve(home, 0.4)
    assert "ann allowed up to $1.50 this day until 2025-03-11 00:00 UTC: release [day]" in run().output
    (record,) = home.store.read(OVERRIDES)
    assert (record.partition, record.key, record.body["by"], record.body["reason"]) == (
        "2025-03-10", "day", "ann", "release [day]",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--up-to", "9", "--reason", "x"], "either --day or --month"),
        (["--day", "--month", "--up-to", "9", "--reason", "x"], "either --day or --month"),
        (["--day", "--up-to", "1", "--reason", "x"], "allows nothing: the day's limit is $1.00"),
        (["--month", "--up-to", "nan", "--reason", "x"], "allows nothing"),
        (["--day", "--up-to", "9", "--reason", " "], "reason is empty"),
        (["--day", "--up-to", "9"], "--reason"),
        (["--day", "--reason", "x"], "--up-to"),
    ],
)
def test_a_word_without_a_period_an_amount_or_a_reason_exits_2(home: Services, line: list[str], said: str):
    done = run("allow", *line)
    assert done.exit_code == 2
    assert said in done.output
    assert home.store.read(OVERRIDES) == []


def test_past_calls_are_priced_again_and_one_that_differs_exits_1(home: Services):
    for used in (1, 399_999):
        home.ledger.settle(reserve(home), outcome="answered", tokens={"input": used, "output": 0}, latency_s=1.0)
    reserve(home, 0.1)
    home.store.append(COLLECTION, [Entry("2025-02-20", "old", {"model": "gpt-4o", "cost_usd": 2.0})])
    done = run("reprice")
    assert done.exit_code == 0, done.output
    assert "4 calls since 2025-02-09" in done.output
    assert "3 identical, 1 without a dated price" in done.output
    assert json.loads(run("reprice", "--days", "1", "--json").output)["rows"] == 3
    (record, *_) = home.store.read(COLLECTION, partitions=["2025-03-10"])
    home.store.append(COLLECTION, [Entry("2025-03-10", record.key, record.body | {"cost_usd": 0.123})])
    done = run("reprice")
    assert done.exit_code == 1
    assert record.key in done.output.replace("\n", "")
    assert "the budget counts" in done.output
    document = json.loads(run("reprice", "--json").output)
    assert [row["cost_usd"] for row in document["different"]] == [0.123]
    assert document["days"][0]["day"] == "2025-03-10"


def test_the_installed_command_shows_the_costs_of_a_fresh_home(tmp_path: Path):
    home = new_home(tmp_path)
    done = command(["trading-ops", "costs", "--json"], home, fresh=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["llm_allowed"] is True
    done = command(["trading-ops", "costs", "allow", "--month", "--up-to", "120", "--reason", "move"], home, fresh=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(command(["trading-ops", "costs", "--json"], home).stdout)["month"]["limit_usd"] == 120.0
