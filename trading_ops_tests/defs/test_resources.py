"""Is a range of days stored day by day, however long it is and however large its documents are?"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import Entry, InvalidRecord, Receipt, StoreUnavailable
from trading_ops.defs.resources import AuditIOManager
from trading_ops.services import Services

YEAR = dg.DailyPartitionsDefinition("2024-01-01", end_date="2025-01-01")
DAYS = YEAR.get_partition_keys()


class Noting(SqliteStore):
    """A store that notes how many entries each call brought, and is away after some."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.calls: list[int] = []
        self.fails_after = 1_000

    def append(
        self, collection: str, entries: Sequence[Entry], *, recorded_at: datetime | None = None
    ) -> list[Receipt]:
        if len(self.calls) >= self.fails_after:
            raise StoreUnavailable("away")
        self.calls.append(len(entries))
        return super().append(collection, entries, recorded_at=recorded_at)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Noting]:
    with Noting(tmp_path / "audit.db") as store:
        yield store


def said(store: Noting, documents: Mapping[str, Mapping[str, Any]]) -> str:
    """What the run of a year that gives these documents says about the audit store."""

    @dg.asset(partitions_def=YEAR, backfill_policy=dg.BackfillPolicy.single_run(), io_manager_key="audit")
    def closed_trades() -> Mapping[str, Mapping[str, Any]]:
        return documents

    services = cast("Services", SimpleNamespace(store=store, bot=SimpleNamespace(source="paper")))
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            [closed_trades],
            instance=instance,
            resources={"audit": AuditIOManager(services)},
            tags={"dagster/asset_partition_range_start": DAYS[0], "dagster/asset_partition_range_end": DAYS[-1]},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        (stored, *_) = result.asset_materializations_for_node("closed_trades")
        return str(stored.metadata["audit"].value)


def test_a_year_is_appended_a_hundred_days_at_a_time_and_in_order(store: Noting) -> None:
    assert said(store, {day: {"n": n} for n, day in enumerate(DAYS)}) == (
        "366 of 366 days appended, the rest stored already"
    )
    assert store.calls == [100, 100, 100, 66]
    found = [(record.seq, record.partition, record.body) for record in store.read("closed_trades")]
    assert found == [(n + 1, day, {"n": n, "source": "paper"}) for n, day in enumerate(DAYS)]
    assert store.verify() == []


def test_large_days_come_fewer_at_a_time_and_one_beyond_the_bound_alone(store: Noting) -> None:
    sizes = [1_500_000, 1_500_000, 1_500_000, 5_000_000, *[1] * (len(DAYS) - 4)]
    said(store, {day: {"text": "x" * size} for day, size in zip(DAYS, sizes, strict=True)})
    assert store.calls == [2, 1, 1, 100, 100, 100, 62]


def test_a_range_that_failed_half_way_is_completed_by_doing_it_again(store: Noting) -> None:
    documents = {day: {"n": n} for n, day in enumerate(DAYS)}
    store.fails_after = 2
    with pytest.raises(StoreUnavailable, match="away"):
        said(store, documents)
    assert len(store.read("closed_trades")) == 200
    store.fails_after = 1_000
    assert said(store, documents) == "166 of 366 days appended, the rest stored already"
    assert said(store, documents) == "0 of 366 days appended, the rest stored already"
    assert len(store.read("closed_trades", all_revisions=True)) == 366


def test_a_document_that_is_not_json_is_refused_before_any_day_is_stored(store: Noting) -> None:
    documents = {day: {"rate": 1.5 if day < "2024-12-31" else float("nan")} for day in DAYS}
    with pytest.raises(InvalidRecord, match=r"^rate: NaN is not allowed; use null .*2024-12-31"):
        said(store, documents)
    assert (store.calls, store.read("closed_trades")) == ([], [])
