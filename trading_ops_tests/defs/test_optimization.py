"""Does the job search on the configured candles, say how far it is, and store what came of it once?"""

import base64
from typing import Any

import dagster as dg
import pytest
import yaml

from trading_ops.definitions import defs
from trading_ops.defs.optimization import OptimizeStrategyConfig, optimize_strategy
from trading_ops.optimization.optimise import run_optimization
from trading_ops.optimization.request import OptimizationRequest
from trading_ops.services import Services
from trading_ops_tests.conftest import ROOT

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def run(services: Services, config: dict[str, Any] | None = None, **options: Any) -> dg.ExecuteInProcessResult:
    ops = {} if config is None else {"ops": {"search_parameters": {"config": config}}}
    return optimize_strategy.execute_in_process(resources={"services": services}, run_config=ops | QUIET, **options)


def shown(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (output,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    return output.event_specific_data.metadata


def test_the_job_works_without_any_config_on_simulated_candles(services):
    result = run(services)
    assert result.success
    (record,) = services.store.read("optimizations")
    body = record.body
    assert (body["strategy"], body["symbol"], body["candles"], body["sets"]) == ("rsi", "BTCUSDT", "simulated", 150)
    assert (body["method"], body["trials"]["total"]) == ("grid", 150)
    metadata = shown(result)
    assert set(metadata) >= {"verdict", "findings", "sets", "folds", "heat map"}
    for sentence in body["verdict"]:
        assert sentence in metadata["verdict"].value
    picture = metadata["heat map"].value.split("base64,")[1].rstrip(")")
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    (kept,) = services.settings.data_dir.glob("optimizations/*/heat_map.png")
    assert kept.read_bytes() == base64.b64decode(picture)


def test_the_same_job_again_scores_and_stores_nothing_anew(services):
    for _ in range(2):
        assert run(services).success
    assert len(services.store.read("optimizations", all_revisions=True)) == 1


def test_progress_is_logged_with_the_best_so_far(services, capfd):
    space = {"period": {"low": 5, "high": 25, "step": 1}, "oversold": {"low": 20, "high": 40, "step": 1}}
    config = {"sets": 3000, "space": space, "strategy": "rsi"}
    ops = {"ops": {"search_parameters": {"config": config}}}
    assert optimize_strategy.execute_in_process(resources={"services": services}, run_config=ops).success
    said = [line for line in capfd.readouterr().err.splitlines() if "best Sharpe ratio of the training days" in line]
    shares = [int(line.split("sets (")[1].split("%")[0]) for line in said]
    assert shares[-1] == 100
    assert max(after - before for before, after in zip([0, *shares], shares, strict=False)) <= 10


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"sets": 0}, "sets is 0; 10-100000 would be right"),
        ({"space": {"period": [0]}}, "period is 0; a whole number from 2 to 1000 would be right"),
        ({"symbol": "NOPEUSDT"}, "NOPEUSDT: no simulated candles; there are BNBUSDT"),
        ({"start": "2025-02-01"}, "the candles have 37 whole days, and 90 are needed"),
    ],
)
def test_what_cannot_be_searched_fails_the_run_with_the_reason_B147(services, config, said):
    result = run(services, config, raise_on_error=False)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert said in str(failure.step_failure_data)
    assert services.store.read("optimizations") == []


def test_while_the_audit_store_is_down_nothing_is_counted_and_the_search_is_kept_for_when_it_is_back(make_services):
    away = make_services(mongodb_uri="mongodb://127.0.0.1:9/x?timeoutMS=100")
    result = run(away, {"end": "2025-03-09"}, raise_on_error=False)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "StoreUnavailable" in str(failure.step_failure_data)
    back, told = make_services(), []
    found = run_optimization(
        OptimizationRequest(end="2025-03-09"),
        back.candles,
        back.store,
        back.settings.data_dir,
        default_symbol="BTCUSDT",
        told=told.append,
    )
    assert found.resumed_sets == 150
    assert all(progress.resumed for progress in told)
    assert found.document["trials"]["total"] == 150


def test_the_launchpad_shows_every_field_with_a_description_and_a_default():
    assert set(OptimizeStrategyConfig.model_fields) == set(OptimizationRequest.model_fields)
    for name, field in OptimizeStrategyConfig.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


def test_the_example_is_a_search(services):
    example = yaml.safe_load((ROOT / "examples" / "optimize_strategy.yaml").read_text())
    (config,) = (op["config"] for op in example["ops"].values())
    assert OptimizationRequest(**config).search_space.size == 240
    assert run(services, config | {"sets": 10, "space": {"period": 14}}).success


def test_the_job_has_its_queue_and_its_limit():
    job = defs.resolve_job_def("optimize_strategy")
    assert int(job.run_tags["dagster/max_runtime"]) > 0
    (node,) = job.nodes
    assert node.definition.tags["dagster-celery/queue"] == "optimization"
