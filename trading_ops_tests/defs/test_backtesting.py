"""Does `backtest_strategy` show and store what was asked for, and say what cannot be?"""

from typing import Any

import dagster as dg
import pytest

from trading_ops.backtesting.preparation import prepare
from trading_ops.backtesting.report import run_backtest
from trading_ops.backtesting.request import BacktestRequest
from trading_ops.definitions import defs
from trading_ops.defs.backtesting import BacktestConfig, backtest, backtest_strategy
from trading_ops.services import Services

SHORT = {"start": "2024-11-01", "end": "2025-02-01"}


def run(services: Services, raise_on_error: bool = True, **config: Any) -> dg.ExecuteInProcessResult:
    return backtest_strategy.execute_in_process(
        resources={"services": services},
        run_config={
            "ops": {"backtest": {"config": config}},
            "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
        },
        raise_on_error=raise_on_error,
    )


def shown(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = [e for e in result.all_node_events if e.event_type == dg.DagsterEventType.STEP_OUTPUT]
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def test_without_any_config_it_is_rsi_on_the_last_365_days_of_the_first_symbol(services):
    result = backtest_strategy.execute_in_process(resources={"services": services})
    (record,) = services.store.read("backtests")
    assert record.body["title"] == "rsi on BTCUSDT, 2024-03-10 to 2025-03-10, simulated candles"
    metadata = shown(result)
    assert metadata["candles"] == "simulated"
    assert metadata["total_return_pct"] == record.body["metrics"]["total_return_pct"]
    figures = [row.data for row in metadata["figures"].records]
    assert [row["figure"] for row in figures][:3] == ["total return %", "without costs %", "Sharpe ratio"]
    assert figures[0]["buy_and_hold"] == f"{record.body['buy_and_hold']['total_return_pct']:+,.2f}"
    assert 0 < len(metadata["last_trades"].records) <= 20
    assert metadata["equity_and_drawdown"].startswith("![equity and drawdown](data:image/png;base64,")
    sheet = services.settings.data_dir / "reports" / "backtests" / f"{record.key}.html"
    assert metadata["tear_sheet"] == str(sheet.resolve())
    assert sheet.is_file()


def test_what_is_stored_is_what_the_plain_functions_say(services):
    asked = SHORT | {"strategy": "macd", "symbol": "ETHUSDT", "parameters": {"fast": 10, "stop_loss_pct": 4.0},
                     "fee_pct": 0.2, "side": "short", "market": "futures", "funding_pct": 0.01}  # fmt: skip
    result = run(services, **asked, tear_sheet=False)
    (record,) = services.store.read("backtests")
    assert record.body == run_backtest(prepare(BacktestRequest.parse(asked), services.candles, ())).document
    assert shown(result)["tear_sheet"] == "not asked for"
    assert not (services.settings.data_dir / "reports").exists()


def test_the_same_backtest_again_stores_nothing_and_changes_no_byte_of_its_page(services):
    page = shown(run(services, **SHORT))["tear_sheet"]
    with open(page, "rb") as file:
        before = file.read()
    again = shown(run(services, **SHORT, symbol="BTCUSDT", parameters={"period": 14}))
    assert again["audit"] == "backtests record 1, stored before"
    with open(again["tear_sheet"], "rb") as file:
        assert file.read() == before
    assert len(services.store.read("backtests", all_revisions=True)) == 1


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"strategy": "rsy"}, "strategy 'rsy' is unknown; there are bollinger, macd, rsi, volume"),
        ({"symbol": "DOGEUSDT"}, "symbol 'DOGEUSDT' is unknown"),
        ({"start": "2025-03-01", "end": "2025-02-01"}, "start 2025-03-01 is not before end 2025-02-01"),
        ({"start": "2020-01-01"}, "cover the complete UTC days 2024-01-01 to 2025-03-09"),
        ({"parameters": {"period": "ten"}}, "rsi: period is 'ten'; a whole number from 2 to 1000 would be right"),
        ({"parameters": {"stop_loss_pct": -1}}, "rsi: stop_loss_pct is -1; a number from 0.01 to 99 would be right"),
        ({"fee_pct": -1.0}, "fee_pct is -1.0; a percentage from 0 to below 100 would be right"),
        ({"fee_pct": float("nan")}, "fee_pct is nan"),
        ({"latency_bars": 200}, "latency_bars is 200; a whole number from 0 to 168 would be right"),
    ],
)
def test_bad_input_fails_the_run_with_a_clear_message(services, config, said):
    result = run(services, raise_on_error=False, **config)
    assert not result.success
    (failed,) = [e for e in result.all_node_events if e.event_type == dg.DagsterEventType.STEP_FAILURE]
    assert said in failed.step_failure_data.error.message
    assert services.store.read("backtests") == []


def test_what_cannot_be_is_not_tried_again(services):
    @dg.job
    def stubborn() -> None:
        backtest.with_retry_policy(dg.RetryPolicy(max_retries=2))()

    result = stubborn.execute_in_process(
        resources={"services": services},
        run_config={"ops": {"backtest": {"config": {"strategy": "rsy"}}}},
        raise_on_error=False,
    )
    assert not result.success
    assert dg.DagsterEventType.STEP_UP_FOR_RETRY not in [event.event_type for event in result.all_node_events]


def test_parameters_may_be_switched_off_and_left_out(services):
    assert run(services, **SHORT, parameters={"period": 10, "stop_loss_pct": None}, tear_sheet=False).success
    (record,) = services.store.read("backtests")
    assert record.body["request"]["parameters"] == {"period": 10, "oversold": 30.0, "overbought": 70.0}


def test_an_audit_store_that_is_down_is_told_and_the_page_is_written(make_services):
    services = make_services(mongodb_uri="mongodb://127.0.0.1:9/x?timeoutMS=100")
    metadata = shown(run(services, **SHORT))
    assert metadata["audit"] == "waits in the spool until the audit store is back: see `trading-ops doctor`"
    assert metadata["tear_sheet"].endswith(".html")


def test_every_setting_of_a_request_is_in_the_launchpad_with_its_description_and_default():
    ours = {name: field for name, field in BacktestConfig.model_fields.items() if name != "tear_sheet"}
    assert set(ours) == set(BacktestRequest.model_fields)
    for name, field in BacktestRequest.model_fields.items():
        assert (ours[name].description, ours[name].default) == (field.description, field.default), name


def test_the_job_goes_to_its_queue_and_has_a_time_limit():
    job = defs.resolve_job_def("backtest_strategy")
    assert int(job.tags["dagster/max_runtime"]) > 0
    (op,) = job.nodes
    assert op.definition.tags["dagster-celery/queue"] == "backtesting"
