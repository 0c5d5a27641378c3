"""What every test may use: services on simulated candles with a clock that stands still, in a folder of their own."""

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings

# tests say themselves what is configured; a developer's environment or .env must not reach them
for name in [name for name in os.environ if name.startswith("TRADING_OPS_") and name != "TRADING_OPS_SCREENSHOTS"]:
    del os.environ[name]
for name in [name for name in os.environ if name == "DAGSTER_HOME" or name.startswith("MONGO")]:
    del os.environ[name]

from trading_ops.services import Services  # noqa: E402
from trading_ops.settings import Settings  # noqa: E402
from trading_ops_tests.servers.mongod import Mongod  # noqa: E402

for name in {str(field.validation_alias) for field in Settings.model_fields.values()} & os.environ.keys():
    del os.environ[name]

settings.register_profile("busy", deadline=None)  # an example may be slow because the machine is
settings.load_profile("busy")

ROOT = Path(__file__).resolve().parent.parent
MARKET = ROOT.parent / "shared" / "data" / "market"
NOON = datetime(2025, 3, 10, 12, 30, tzinfo=UTC)
NEWEST = "2025-03-09"  # the newest complete day at NOON
# begun first, so that at the end no core waits for a long file that another worker has just begun
LONGEST_FIRST = (
    "test_cli.py", "test_from_loss_to_retrain.py", "ui/test_ui.py", "watchdog/test_daemon.py", "test_models_command.py",
    "test_planted_secrets.py", "guard/test_faults.py", "defs/test_training.py", "defs/test_assets.py",
    "test_guard_command.py", "bot/test_server.py", "test_store_outage.py", "guard/test_supervision.py",
    "guard/test_storm.py", "watchdog/test_process.py", "training/test_kill.py", "guard/test_simulation.py",
    "audit/test_mongo.py", "defs/test_outcomes.py", "audit/test_spool_mongo.py", "guard/test_drill.py",
    "bot/test_paging.py", "bot/test_http.py", "doctor/test_doctor.py", "training/test_registry.py",
    "test_two_halves.py", "optimization/test_kill.py", "audit/test_spool.py",
    "notifications/channels/test_every_http_channel.py", "defs/test_assessments.py", "training/test_trainer.py",
    "guard/test_processes.py", "defs/test_health.py", "defs/test_accuracy.py", "test_alerts_command.py",
    "assessments/test_gpt4.py", "test_decisions_command.py", "test_incidents_command.py",
    "backtesting/test_engine_properties.py", "health/test_checkup.py", "test_definitions.py", "test_candles_command.py",
    "defs/test_analysis.py", "costs/test_storm.py", "defs/test_resources.py", "test_backtest_command.py",
    "notifications/test_delivery.py", "test_optimize_command.py", "test_up_command.py",
    "backtesting/test_parity_backtrader.py", "notifications/test_desk.py", "backtesting/test_parity_vectorbt.py",
    "defs/test_guard.py", "notifications/test_damage.py", "market/test_download.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {ROOT / "trading_ops_tests" / name: place for place, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two workers more than cores: for half of its time a test waits for a process, a server or a timeout."""
    return (os.cpu_count() or 1) + 2


class QuietSettings(Settings):
    """Settings from arguments and defaults alone, without a .env file."""

    model_config = {**Settings.model_config, "env_file": None}


@pytest.fixture
def make_services(tmp_path: Path) -> Callable[..., Services]:
    """Services with given settings; the store lies in the test's own folder."""
    return lambda **settings: Services(QuietSettings(data_dir=tmp_path / "var", **settings), now=lambda: NOON)


@pytest.fixture
def services(make_services: Callable[..., Services]) -> Services:
    return make_services()


@pytest.fixture
def market() -> Path:
    """The folder of recorded candles beside the checkout."""
    if not MARKET.is_dir():
        pytest.skip(f"recorded candles are not at {MARKET}")
    return MARKET


@pytest.fixture(scope="session")
def mongod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mongod]:
    """A real MongoDB replica set of one, shared by the tests of a worker: each takes a database name of its own."""
    with Mongod(tmp_path_factory.mktemp("mongod"), "--setParameter", "enableTestCommands=1") as server:
        yield server
