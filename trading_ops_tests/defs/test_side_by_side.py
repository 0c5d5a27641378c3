"""Do sensors that tick at the same time, in threads of one process, tell each incident once and lose none?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier

import dagster as dg
import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.defs.notifications import outbox_sensor
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.services import Services
from trading_ops_tests.conftest import QuietSettings
from trading_ops_tests.notifications.test_outbox import Recorder

TIMES = 4
KEYS = ("shared", "a", "b")


@pytest.fixture
def chat() -> Recorder:
    return Recorder()


@pytest.fixture
def services(tmp_path: Path, chat: Recorder) -> Iterator[Services]:
    """Nothing but the store is built before the threads ask for it, all at once."""
    services = Services(QuietSettings(data_dir=tmp_path / "var"), now=lambda: datetime.now(UTC))
    services.__dict__["channels"] = {"chat": chat}
    with SqliteStore(tmp_path / "audit.db", busy_timeout_s=300) as store:  # a busy machine lets nobody give up
        services.__dict__["store"] = store
        yield services


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_sensors_side_by_side_tell_each_message_once(services, chat, instance):
    together = Barrier(len(KEYS) + 2)

    def sees(own: str) -> Callable[[], None]:
        """A sensor that opens and ends an incident of its own and one that others see too."""

        def sees() -> None:
            together.wait(300)
            for _ in range(TIMES):
                for key in (own, "shared"):
                    alert = Alert(Severity.CRITICAL, f"{key}/local", f"{key} is bad", "", "", incident=key)
                    assert services.incidents.observe(alert).problem is None
                assert services.incidents.recover(own).problem is None

        return sees

    def ticks() -> None:
        together.wait(300)
        for _ in range(TIMES):
            said = outbox_sensor(dg.build_sensor_context(instance, resources={"services": services})).skip_message
            assert "left for later" not in said

    with ThreadPoolExecutor(len(KEYS) + 2) as threads:
        for done in [threads.submit(job) for job in [*map(sees, KEYS), ticks, ticks]]:
            done.result()
    services.incidents.recover("shared")
    services.incidents.tick()
    services.outbox.drain()
    assert max(Counter(alert.dedup_key for alert, _ in chat.told).values()) == 1
    assert {possible_duplicate for _, possible_duplicate in chat.told} == {False}
    assert (services.outbox.waiting(), services.outbox.without_store()) == (0, ([], []))
    for key in ("a", "b"):  # opened and ended so often; it flaps from the fourth time on, and is then told once
        steps = [alert.step for alert, _ in chat.told if alert.incident == key]
        assert steps[:6] == [Step.OPENED, Step.RESOLVED] * 3
