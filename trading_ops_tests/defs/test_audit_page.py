"""Is each outage of the audit store told once, and each refusal, even where a day has several?"""

from pathlib import Path

import pytest

from trading_ops.audit.spool import SpooledStore
from trading_ops.audit.store import Entry
from trading_ops.defs.audit import REFUSED, WAITING, spool_sensor
from trading_ops.services import Services
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore


class Outage:
    """A shared store that can be stopped and started, behind the services' spool."""

    def __init__(self, services: Services, folder: Path) -> None:
        self.shared, self.services, self.time = UnreliableStore(folder), services, 0.0
        self.spooled = SpooledStore(self.shared, folder / "spool.db", clock=lambda: self.time)
        services.__dict__["spooled_store"] = self.spooled
        self.count = 0

    def be(self, mode: str) -> None:
        self.shared.be(mode)
        self.time += 60  # past the half minute in which a store that failed is left alone

    def record(self, text: str = "x") -> None:
        self.count += 1
        self.spooled.append("closed_trades", [Entry("2025-03-01", str(self.count), {"text": text})])

    def look(self) -> None:
        spool_sensor(services=self.services)

    def told(self) -> list[tuple[str, str]]:
        """Severity and title of every alert, with the store up."""
        self.be(UP)
        self.services.outbox.drain()
        return [(d["alert"]["severity"], d["alert"]["what"]) for d in self.services.outbox.deliveries()]


@pytest.fixture
def outage(make_services, tmp_path: Path) -> Outage:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "mode").write_text(UP)
    (tmp_path / "var").mkdir()
    return Outage(make_services(mongodb_uri="mongodb://127.0.0.1:9/unused"), folder)


def test_an_outage_is_told_once_however_often_it_is_looked_at(outage: Outage):
    outage.be(DOWN)
    outage.record()
    for _ in range(3):
        outage.look()
        outage.record()
    ((severity, what),) = outage.told()
    assert (severity, what.split(",")[0]) == ("ERROR", "1 records wait for the audit store")


def test_what_waits_and_what_was_refused_say_what_was_done_with_it_and_what_to_do(outage: Outage):
    outage.shared.largest = 5_000
    outage.be(DOWN)
    outage.record("y" * 6_000)
    outage.look()
    outage.be(UP)
    outage.look()
    outage.told()
    deliveries = outage.services.outbox.deliveries()
    waiting, refused = (
        next(a for d in deliveries if (a := d["alert"])["incident"] == incident and a["step"] == "opened")
        for incident in (WAITING, REFUSED)
    )
    assert (waiting["numbers"], refused["numbers"]) == ({"waiting_records": 1}, {"refused_records": 1})
    assert "shipped in order" in waiting["done"]
    assert "the others are not held up" in refused["done"]
    for alert in (waiting, refused):
        assert str(outage.spooled.backlog().path) in alert["what_to_do"]
    assert "trading-ops doctor" in waiting["what_to_do"]
    assert refused["what_to_do"].startswith("Correct what wrote them")


def test_the_end_of_an_outage_is_told_and_a_second_one_on_the_same_day_too(outage: Outage):
    for _ in range(2):
        outage.be(DOWN)
        outage.record()
        outage.look()
        outage.be(UP)
        outage.look()
        assert outage.spooled.backlog().waiting == 0
    assert {what.split(",")[0] for _, what in outage.told()} == {"1 records wait for the audit store"}
    steps = [delivery["alert"]["step"] for delivery in outage.services.outbox.deliveries()]
    assert sorted(steps) == ["opened", "opened", "resolved", "resolved"]


def test_what_is_refused_is_told_once_for_each_count_beside_what_waits(outage: Outage):
    outage.shared.largest = 5_000
    for _ in range(2):
        outage.be(DOWN)
        outage.record("y" * 6_000)
        outage.be(UP)
        for _ in range(2):
            outage.look()
    assert outage.told() == [
        ("ERROR", "1 records were refused by the audit store"),
        ("ERROR", "More: 2 records were refused by the audit store"),
    ]
