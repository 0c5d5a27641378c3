"""Everything written is registered, loads anywhere, and is scheduled in UTC."""

import importlib
import pkgutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

import trading_ops.defs
from trading_ops.bot.client import Calendar
from trading_ops.definitions import defs
from trading_ops.defs.partitions import RANGE_END, RANGE_START, daily_partitions
from trading_ops_tests.conftest import ROOT

DAILY = [spec for spec in defs.resolve_all_asset_specs() if spec.partitions_def is not None]
HEAVY = ("pandas", "numba", "scipy", "matplotlib", "talib", "openai", "pymongo", "plotly", "ccxt", "torch", "rich",
         "httpx", "starlette")  # fmt: skip
CRONS = {
    "daily_performance_analysis": "0 1 * * *",
    "gpt4_self_analysis": "0 3 * * *",
    "daily_portfolio_report": "0 8 * * *",
    "daily_api_cost_report": "0 9 * * *",
}
OTHER_CRONS = {
    "reread_recent_days": "45 0 * * *",
    "system_health_check": "*/15 * * * *",
    "record_predictions": "2 * * * *",
}


def bare(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter with nothing but PATH and HOME."""
    env = {"PATH": "/usr/bin:/bin", "HOME": str(folder), **environment}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True, check=False
    )


def test_definitions_load_in_a_bare_interpreter_without_a_word(tmp_path):
    done = bare("from trading_ops.definitions import defs; defs.validate_loadable(defs)", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []  # looking at the definitions writes nothing


@pytest.mark.parametrize("candles", ["simulated", "recorded"])
def test_loading_the_definitions_imports_nothing_heavy(tmp_path, request, candles):
    environment = {} if candles == "simulated" else {"TRADING_OPS_CANDLES": str(request.getfixturevalue("market"))}
    code = f"import sys, trading_ops.definitions; print([m for m in {HEAVY} if m in sys.modules])"
    assert bare(code, tmp_path, **environment).stdout == "[]\n"


def test_a_wrong_setting_is_named_when_the_definitions_load(tmp_path):
    done = bare("import trading_ops.definitions", tmp_path, TRADING_OPS_MIN_TRADES="ten")
    assert done.returncode == 1
    assert "TRADING_OPS_MIN_TRADES: Input should be a valid integer" in done.stderr.splitlines()[-1]


def test_limits_in_the_wrong_order_are_named_when_the_definitions_load(tmp_path):
    done = bare("import trading_ops.definitions", tmp_path, TRADING_OPS_WIN_RATE_CRITICAL_PCT="80")
    assert "TRADING_OPS_WIN_RATE_CRITICAL_PCT 80.0 must not exceed TRADING_OPS_WIN_RATE_TARGET_PCT" in done.stderr


def test_a_bot_or_a_store_that_is_down_does_not_keep_the_definitions_from_loading(tmp_path):
    code = "from trading_ops.definitions import defs; defs.validate_loadable(defs)"
    nobody = {"TRADING_OPS_BOT_URL": "http://127.0.0.1:9", "MONGODB_URI": "mongodb://127.0.0.1:9/x"}
    done = bare(code, tmp_path, **nobody)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_bot_behind_an_address_is_measured_from_its_first_day_on(tmp_path):
    code = "from trading_ops.defs.partitions import DAYS; print(DAYS.start, DAYS.end)"
    done = bare(code, tmp_path, TRADING_OPS_BOT_URL="http://127.0.0.1:9", TRADING_OPS_BOT_SINCE="2025-03-01")
    assert done.stdout == "2025-03-01 00:00:00+00:00 None\n"


def test_a_folder_without_candles_is_named_when_the_definitions_load(tmp_path):
    done = bare("import trading_ops.definitions", tmp_path, TRADING_OPS_CANDLES=str(tmp_path / "nowhere"))
    assert done.returncode == 1
    assert "nowhere: no such folder" in done.stderr


def test_every_page_of_defs_is_merged():
    pages = [
        importlib.import_module(f"trading_ops.defs.{m.name}") for m in pkgutil.iter_modules(trading_ops.defs.__path__)
    ]
    given = [asset for page in pages if hasattr(page, "defs") for asset in page.defs.assets or []]
    written = {key for asset in given for key in getattr(asset, "keys", None) or [asset.key]}
    assert written == defs.resolve_asset_graph().get_all_asset_keys()
    for kind, merged in (
        ("jobs", {job.name for job in defs.jobs}),
        ("schedules", {schedule.name for schedule in defs.schedules}),
        ("sensors", {sensor.name for sensor in defs.sensors}),
        ("asset_checks", {str(check.check_keys) for check in defs.asset_checks}),
    ):
        for page in pages:
            given = getattr(page.defs, kind) or [] if hasattr(page, "defs") else []
            assert {str(g.check_keys) if kind == "asset_checks" else g.name for g in given} <= merged, (page, kind)


def test_every_daily_asset_has_a_check_a_single_run_backfill_and_a_page_of_its_groups_name():
    checked = {key.asset_key for key in defs.resolve_asset_graph().asset_check_keys}
    for spec in DAILY:
        assert spec.key in checked, spec.key
        assert (ROOT / "trading_ops" / "defs" / f"{spec.group_name}.py").is_file(), spec.key
        assert (ROOT / "trading_ops" / str(spec.group_name)).is_dir(), spec.key
        assert defs.resolve_asset_graph().get(spec.key).backfill_policy == dg.BackfillPolicy.single_run()


def test_every_daily_assets_description_states_its_grain_and_ends_with_its_formulas_path():
    for spec in DAILY:
        text = " ".join((spec.description or "").split())
        assert "Grain: one document a day" in text, spec.key
        paths = text.split("Formula: ")[1].split(", ")
        assert (ROOT / paths[0]).is_file(), spec.key


def test_schedules_run_at_fixed_utc_times_B139():
    schedules = {s.job_name: s for s in defs.schedules}
    assert {name: s.cron_schedule for name, s in schedules.items()} == CRONS | OTHER_CRONS
    for schedule in schedules.values():
        assert schedule.execution_timezone == "UTC"
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING


def requests(name: str, at: datetime) -> Any:
    repository = defs.get_repository_def()
    with dg.build_schedule_context(
        dg.DagsterInstance.ephemeral(), scheduled_execution_time=at, repository_def=repository
    ) as context:
        return repository.get_schedule_def(f"{name}_schedule").evaluate_tick(context)


@pytest.fixture
def berlin(monkeypatch):
    """The host's clock shows Berlin's time."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_the_three_days_measured_last_are_read_again_before_the_new_one_is_measured():
    (again,) = requests("reread_recent_days", datetime(2026, 3, 10, 0, 45, tzinfo=UTC)).run_requests
    assert (again.run_key, again.tags[RANGE_START], again.tags[RANGE_END]) == (
        "2026-03-09 again",
        "2026-03-06",
        "2026-03-08",
    )


def test_a_night_without_the_bot_or_the_store_is_made_up_for_by_the_next_one():
    """Days that late trades arrive within are all read again, also where one night's run came to nothing."""
    read = []
    for night in (9, 11):  # not on the 10th
        (again,) = requests("reread_recent_days", datetime(2026, 3, night, 0, 45, tzinfo=UTC)).run_requests
        read += [(again.tags[RANGE_START], again.tags[RANGE_END])]
    assert read == [("2026-03-05", "2026-03-07"), ("2026-03-07", "2026-03-09")]


def test_reading_again_is_tried_again_until_the_newest_days_turn():
    (job,) = [job for job in defs.jobs if job.name == "reread_recent_days"]
    retry = job.op_retry_policy
    assert retry.max_retries == 3
    assert retry.max_retries * retry.delay < 15 * 60  # from 00:45 to 01:00


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize("name", CRONS)
def test_each_utc_day_gets_one_run_through_a_daylight_saving_change_B136(name):
    # Berlin lost an hour on 2026-03-29: local times move, UTC ticks and days do not
    hour = int(CRONS[name].split()[1])
    ticks = [datetime(2026, 3, 28, hour, tzinfo=UTC) + timedelta(days=i) for i in range(3)]
    runs = [requests(name, tick).run_requests for tick in ticks]
    assert [[r.partition_key for r in run] for run in runs] == [["2026-03-27"], ["2026-03-28"], ["2026-03-29"]]


def test_a_tick_that_comes_late_or_twice_asks_for_the_same_run():
    tick = datetime(2026, 3, 10, 8, tzinfo=UTC)
    (late,), (again,) = (requests("daily_portfolio_report", tick).run_requests for _ in range(2))
    assert late.run_key == again.run_key == late.partition_key == "2026-03-09"


def test_a_day_without_candles_is_skipped_with_the_reason():
    data = requests("daily_portfolio_report", datetime(2020, 1, 10, 8, tzinfo=UTC))
    assert data.run_requests == []
    assert "2020-01-09 is not covered by the bot's candles" in str(data.skip_message)


def test_days_of_a_recording_end_with_it_and_days_of_a_live_bot_go_on():
    first, last = datetime(2025, 1, 1).date(), datetime(2025, 3, 9).date()  # noqa: DTZ001
    assert str(daily_partitions(Calendar(first, last, live=False)).end.date()) == "2025-03-10"
    assert daily_partitions(Calendar(first, last, live=True)).end is None


def test_every_job_has_a_time_limit_and_works_on_the_newest_day_by_default():
    for name in CRONS:
        tags = defs.resolve_job_def(name).run_tags
        assert int(tags["dagster/max_runtime"]) > 0
        assert tags["dagster/partition"] == DAILY[0].partitions_def.get_last_partition_key()
