"""Does the job bulk_analysis analyse, rank, store and tell, without a config and with one, in several processes too?"""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from trading_ops.definitions import defs
from trading_ops.defs.analysis import bulk_analysis
from trading_ops.defs.steps import parallel_steps
from trading_ops.services import Services
from trading_ops_tests.conftest import ROOT
from trading_ops_tests.test_cli import command, new_home

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
SYMBOLS = ["BNBUSDT", "BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT"]


def run(services: Services, *, fails: bool = False, **config: Any) -> dg.ExecuteInProcessResult:
    result = bulk_analysis.execute_in_process(
        resources={"services": services},
        run_config={**QUIET, "ops": {"choose_symbols": {"config": config}}} if config else QUIET,
        raise_on_error=False,
    )
    assert result.success is not fails
    return result


def stored(services: Services) -> dict[str, Any]:
    (record,) = services.store.read("bulk_analyses")
    return record.body


def metadata(result: dg.ExecuteInProcessResult, step: str) -> dict[str, Any]:
    outputs = [e.step_output_data for e in result.all_events if e.is_successful_output and e.step_key == step]
    return {name: value.value for output in outputs for name, value in output.metadata.items()}


def error(result: dg.ExecuteInProcessResult) -> str:
    """What a failed run says, without stack traces."""
    said = []
    info: Any = next(event.step_failure_data.error for event in result.all_events if event.is_step_failure)
    while info is not None:
        said.append(info.message)
        info = info.cause
    return "".join(said)


def test_without_a_config_the_configured_symbols_are_ranked_and_stored(services):
    result = run(services)
    document = stored(services)
    assert sorted(row["symbol"] for row in document["rows"]) == SYMBOLS
    assert (document["as_of"], document["candles"]) == ("2025-03-10T12:00+00:00", "simulated")
    shown = metadata(result, "rank_symbols")
    assert [record.data["symbol"] for record in shown["top"].records] == [row["symbol"] for row in document["rows"]]
    assert (shown["asked"], shown["analysed"], shown["failed"]) == (5, 5, 0)
    assert shown["BUY"] + shown["SELL"] + shown["HOLD"] == 5


def test_the_same_analysis_is_stored_once_however_it_is_shared_out(services):
    run(services)
    before = json.dumps(stored(services))
    run(services, symbols=[*reversed(SYMBOLS), "BTCUSDT"], parallel_steps=3, threads=2, chunk_size=1)
    assert json.dumps(stored(services)) == before


def test_doubled_symbols_are_told_and_failed_ones_shown_with_the_reason_B141(services):
    result = run(services, symbols=["BTCUSDT", "NOPE", "btcusdt"])
    assert metadata(result, "choose_symbols")["doubled"] == "BTCUSDT"
    shown = metadata(result, "rank_symbols")
    assert (shown["asked"], shown["analysed"], shown["failed"]) == (2, 1, 1)
    assert [record.data for record in shown["failures"].records] == [
        {"symbol": "NOPE", "reason": "unknown: no simulated candles"}
    ]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"symbols": []}, "symbols: 0 are asked for; 1 to 5,000 would be right"),
        ({"symbols": ["BTC/USDT"]}, "symbols[0] is 'BTC/USDT'"),
        ({"symbols": ["BTCUSDT"], "all_symbols": True}, "one of the two would be right"),
        ({"symbols": ["FOO", "BAR"]}, "all 2 symbols failed, so there is no result:\nBAR: unknown: no simulated"),
        ({"lookback_bars": 10}, "greater than or equal to 50"),
        ({"min_score": 2.0}, "less than or equal to 1"),
        ({"parallel_steps": 0}, "greater than or equal to 1"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_input_and_failure_of_all_fail_the_run_and_say_why_B141(services, config, says):
    assert says in error(run(services, fails=True, **config))
    assert services.store.read("bulk_analyses") == []


def test_progress_is_told_every_10_percent_B142(make_services, caplog, capfd):
    symbols = tuple(f"C{i:02}USDT" for i in range(20))
    services = make_services(symbols=symbols)
    bulk_analysis.execute_in_process(resources={"services": services})
    told = re.findall(r"(\d+) of 20 symbols, (\d+) %", capfd.readouterr().err)
    assert told == [(str(2 * tenth), str(10 * tenth)) for tenth in range(1, 11)]


def test_the_job_has_a_limit_a_queue_and_a_described_bound_for_every_field():
    job = defs.resolve_job_def("bulk_analysis")
    assert int(job.tags["dagster/max_runtime"]) > 0
    for node in job.nodes:
        assert node.definition.tags["dagster-celery/queue"] == "bulk_analysis"
    fields = job.get_node_named("choose_symbols").definition.config_schema.as_field().config_type.fields
    assert all(field.description for field in fields.values())
    assert all(field.default_provided for field in fields.values())


def test_only_a_run_that_asks_for_parallel_steps_gets_processes():
    assert parallel_steps({}) == parallel_steps({"ops": {"choose_symbols": {"config": {"min_score": 0.1}}}}) == 1
    assert parallel_steps({"ops": {"choose_symbols": {"config": {"parallel_steps": 4}}}}) == 4


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_home(tmp_path_factory.mktemp("home"))


def execute(home: Path, config: str) -> str:
    line = f"dagster job execute -m trading_ops.definitions -j bulk_analysis -c {config}"
    done = command(line.split(), home)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr + done.stdout


def documents(home: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(home / "var" / "audit.db")) as db:
        return [json.loads(body) for (body,) in db.execute("SELECT body FROM history WHERE collection='bulk_analyses'")]


def test_the_example_runs_from_dagsters_command(home):
    file = ROOT / "examples" / "bulk_analysis.yaml"
    assert "RUN_SUCCESS" in execute(home, str(file))
    assert documents(home)[-1]["asked"] == len(
        yaml.safe_load(file.read_text())["ops"]["choose_symbols"]["config"]["symbols"]
    )


def test_parallel_steps_are_processes_of_their_own_and_come_to_the_same(home, tmp_path):
    config = tmp_path / "steps.yaml"
    config.write_text(yaml.safe_dump({"ops": {"choose_symbols": {"config": {"parallel_steps": 2}}}}))
    said = execute(home, str(config))
    processes = re.findall(r"- (\d+) - analyse_share\[share_(\d)\] - STEP_START", said)
    assert sorted(share for _, share in processes) == ["1", "2"]
    assert len({process for process, _ in processes}) == 2
    ours = command(["trading-ops", "analyze", "--json"], home)
    assert ours.returncode == 0, ours.stderr
    document = json.loads(ours.stdout)
    parallel = next(d for d in reversed(documents(home)) if d["asked"] == 5)
    if parallel["as_of"] == document["as_of"]:  # an hour may have passed in between
        assert parallel == document
