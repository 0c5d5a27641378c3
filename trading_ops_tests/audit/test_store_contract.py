"""Does every audit store keep the promises of the protocol?"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trading_ops.audit.chain import canonical_json
from trading_ops.audit.store import AuditStore, Conflict, Entry, Head, InvalidRecord, Receipt, open_store

NOON = datetime(2025, 3, 1, 12, tzinfo=UTC)
ADDRESSES: dict[str, Callable[[pytest.FixtureRequest, Path], str]] = {
    "sqlite": lambda request, folder: f"sqlite:///{folder}/audit.db",
    "mongodb": lambda request, folder: request.getfixturevalue("mongod").address(f"contract_{uuid4().hex}"),
}

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=15)
bodies = st.dictionaries(st.text(), values, max_size=5)


@pytest.fixture(params=sorted(ADDRESSES))
def open_another(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], AuditStore]]:
    """Opens one and the same store, as often as it is called."""
    opened: list[AuditStore] = []
    address = ADDRESSES[request.param](request, tmp_path)

    def opener() -> AuditStore:
        opened.append(open_store(address))
        return opened[-1]

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_another: Callable[[], AuditStore]) -> AuditStore:
    return open_another()


def entry(value: Any, key: str = "rsi", partition: str = "2025-03-01") -> Entry:
    return Entry(partition, key, {"value": value})


def said(store: AuditStore, collection: str = "c", **filters: Any) -> list[tuple[str, str, int, Any]]:
    return [(r.partition, r.key, r.revision, r.body["value"]) for r in store.read(collection, **filters)]


def test_receipts_tell_where_each_entry_went(store: AuditStore) -> None:
    first, second = store.append("c", [entry(1, "rsi"), entry(1, "macd")])
    (other,) = store.append("d", [entry(1)])
    assert (first.seq, first.revision, first.appended) == (1, 1, True)
    assert (second.seq, second.revision, second.appended) == (2, 1, True)
    assert (other.seq, other.revision, other.appended) == (1, 1, True)
    assert [(r.seq, r.hash) for r in store.read("c", key="macd")] == [(2, second.hash)]


def test_the_same_thing_twice_is_one_record_B133(store: AuditStore) -> None:
    (first,) = store.append(
        "portfolio_reports", [Entry("2025-03-01", "", {"equity": 1.5, "cash": 2})], recorded_at=NOON
    )
    (again,) = store.append("portfolio_reports", [Entry("2025-03-01", "", {"cash": 2, "equity": 1.5})])
    assert again == Receipt(first.seq, first.revision, False, first.hash)
    (record,) = store.read("portfolio_reports", all_revisions=True)
    assert record.recorded_at == NOON


def test_a_certain_revision_is_written_once_and_overtakes_nothing(store: AuditStore) -> None:
    (first,) = store.append("c", [entry("A")], revision=1)
    assert store.append("c", [entry("A")], revision=1) == [Receipt(first.seq, 1, False, first.hash)]
    for late in (entry("B"), entry("C", "macd")):
        with pytest.raises(Conflict, match="no place for revision"):
            store.append("c", [late], revision=3 if late.key == "rsi" else 2)
    store.append("c", [entry("B")], revision=2)
    for wanted, value in ((1, "A"), (2, "A"), (1, "B")):
        with pytest.raises(Conflict, match="no place for revision"):
            store.append("c", [entry("other", "macd"), entry(value)], revision=wanted)
    assert said(store, all_revisions=True) == [("2025-03-01", "rsi", 1, "A"), ("2025-03-01", "rsi", 2, "B")]


def test_content_that_changes_and_changes_back_is_three_revisions(store: AuditStore) -> None:
    receipts = [store.append("c", [entry(value)])[0] for value in ("A", "B", "A")]
    assert [(r.seq, r.revision, r.appended) for r in receipts] == [(1, 1, True), (2, 2, True), (3, 3, True)]
    assert [found[2:] for found in said(store, all_revisions=True)] == [(1, "A"), (2, "B"), (3, "A")]
    assert [found[2:] for found in said(store)] == [(3, "A")]


def test_one_batch_may_say_several_things_about_one_key(store: AuditStore) -> None:
    store.append("c", [entry("A")])
    receipts = store.append("c", [entry("A"), entry("B"), entry("B"), entry(0, "macd"), entry("A"), entry(0, "macd")])
    assert [(r.seq, r.revision, r.appended) for r in receipts] == [
        (1, 1, False), (2, 2, True), (2, 2, False), (3, 1, True), (4, 3, True), (3, 1, False),
    ]  # fmt: skip
    assert receipts[1].hash == receipts[2].hash
    assert store.verify() == []


def test_an_empty_batch_changes_nothing(store: AuditStore) -> None:
    assert store.append("c", []) == []
    assert (store.collections(), store.heads(), store.head("c"), store.read("c")) == ([], [], None, [])


def test_nan_is_refused_with_its_path_and_nothing_of_the_batch_is_stored(store: AuditStore) -> None:
    bad = Entry("2025-03-02", "rsi", {"metrics": {"win_rate": 52.3, "sharpe_ratio": float("nan")}})
    with pytest.raises(InvalidRecord, match=r"^metrics\.sharpe_ratio: NaN is not allowed; use null .*2025-03-02.*rsi"):
        store.append("performance_metrics", [entry(1), bad, entry(2)])
    assert store.collections() == []


@pytest.mark.parametrize("partition", ["2025-3-1", "20250301", "2025-02-30", "2025-03-01T00:00:00", "latest"])
def test_a_partition_that_is_no_day_is_refused(store: AuditStore, partition: str) -> None:
    with pytest.raises(InvalidRecord, match="is not a UTC day"):
        store.append("c", [entry(1, partition=partition)])


def test_zero_is_kept_as_zero_B129(store: AuditStore) -> None:
    store.append("performance_metrics", [Entry("2025-03-01", "", {"avg_profit": 0.0, "trades": 0, "note": ""})])
    (record,) = store.read("performance_metrics")
    assert record.body == {"avg_profit": 0.0, "trades": 0, "note": ""}
    assert [type(value) for value in record.body.values()] == [float, str, int]


def test_reading_is_ordered_and_bounded_on_both_ends_inclusively(store: AuditStore) -> None:
    days = ["2025-03-03", "2025-03-01", "", "2025-03-02"]
    store.append("c", [entry(day, key, day) for day in days for key in ("b", "a")])
    assert [found[:2] for found in said(store)] == [(day, key) for day in sorted(days) for key in ("a", "b")]
    assert [f[0] for f in said(store, first="2025-03-02", key="a")] == ["2025-03-02", "2025-03-03"]
    assert [f[0] for f in said(store, first="2025-03-01", last="2025-03-02", key="b")] == ["2025-03-01", "2025-03-02"]
    assert [f[0] for f in said(store, partitions=["2025-03-03", ""], key="a")] == ["", "2025-03-03"]
    assert said(store, partitions=[]) == []
    assert said(store, key="no such key") == said(store, "no such collection") == []


def test_ten_years_of_partitions_can_be_asked_for_at_once(store: AuditStore) -> None:
    days = [(NOON + timedelta(days=n)).date().isoformat() for n in range(3_650)]
    store.append("c", [entry(n, partition=day) for n, day in enumerate(days)])
    assert [found[3] for found in said(store, partitions=days[1:])] == list(range(1, 3_650))


def test_recorded_at_is_kept_in_utc_and_defaults_to_now(store: AuditStore) -> None:
    store.append("c", [entry(1)], recorded_at=NOON.astimezone(timezone(timedelta(hours=5, minutes=30))))
    before = datetime.now(UTC)
    store.append("c", [entry(2)])
    given, default = (record.recorded_at for record in store.read("c", all_revisions=True))
    assert given == NOON
    assert given.utcoffset() == timedelta(0)
    assert before <= default <= datetime.now(UTC)


def test_a_time_without_zone_is_refused(store: AuditStore) -> None:
    with pytest.raises(ValueError, match="2025-03-01T12:00:00 has no time zone"):
        store.append("c", [entry(1)], recorded_at=NOON.replace(tzinfo=None))
    assert store.collections() == []


def test_heads_are_the_last_records_by_collection_name(store: AuditStore) -> None:
    (*_, last) = store.append("b", [entry(1, "x"), entry(1, "y")])
    (only,) = store.append("a", [entry(1)])
    assert store.collections() == ["a", "b"]
    assert store.heads() == [Head("a", 1, only.hash), Head("b", 2, last.hash)]
    assert store.head("b") == Head("b", 2, last.hash)


def test_a_noted_head_betrays_a_cut_tail_and_a_rewritten_history(store: AuditStore) -> None:
    store.append("c", [entry(n) for n in range(5)])
    head = store.head("c")
    assert head is not None
    assert store.verify(expected=[head]) == store.verify("c", expected=[head]) == []
    (cut,) = store.verify(expected=[head, Head("c", 7, "f" * 64)])
    assert (cut.collection, cut.seq, cut.reason) == ("c", 6, "ends at 5, head 7 was noted")
    (rewritten,) = store.verify(expected=[Head("c", 3, "f" * 64)])
    assert (rewritten.seq, "rewritten" in rewritten.reason) == (3, True)
    (gone,) = store.verify(expected=[Head("gone", 2, "f" * 64)])
    assert (gone.collection, gone.seq, gone.reason) == ("gone", 1, "ends at 0, head 2 was noted")
    assert store.verify("c", expected=[Head("gone", 2, "f" * 64)]) == []


def test_a_state_document_counts_its_versions(store: AuditStore) -> None:
    assert store.get_state("guard", "rsi") is None
    first = store.put_state("guard", "rsi", {"disabled": False, "since": (1, 2)}, expected_version=0)
    second = store.put_state("guard", "rsi", {"disabled": True}, expected_version=1)
    assert (first.version, first.body) == (1, {"disabled": False, "since": [1, 2]})
    assert (second.version, second.body, second.updated_at.utcoffset()) == (2, {"disabled": True}, timedelta(0))
    assert store.get_state("guard", "rsi") == second


@pytest.mark.parametrize("expected", [0, 1, 3])
def test_a_lost_compare_and_set_names_both_versions(store: AuditStore, expected: int) -> None:
    store.put_state("guard", "rsi", {"n": 1}, expected_version=0)
    kept = store.put_state("guard", "rsi", {"n": 2}, expected_version=1)
    with pytest.raises(Conflict, match=rf"guard, 'rsi': expected version {expected}, found 2"):
        store.put_state("guard", "rsi", {"n": 3}, expected_version=expected)
    assert store.get_state("guard", "rsi") == kept


def test_a_state_document_that_is_not_there_has_version_zero(store: AuditStore) -> None:
    with pytest.raises(Conflict, match="expected version 1, found 0"):
        store.put_state("guard", "rsi", {}, expected_version=1)


def test_state_is_listed_by_prefix_literally_and_in_order(store: AuditStore) -> None:
    for key in ("b", "a%2", "a%1", "a_", "A%1", "a"):
        store.put_state("outbox", key, {}, expected_version=0)
    assert [document.key for document in store.list_state("outbox")] == ["A%1", "a", "a%1", "a%2", "a_", "b"]
    assert [document.key for document in store.list_state("outbox", "a%")] == ["a%1", "a%2"]
    assert store.list_state("inbox") == []


def test_state_refuses_what_is_not_json(store: AuditStore) -> None:
    with pytest.raises(InvalidRecord, match=r"^limit: Infinity is not allowed; use null"):
        store.put_state("guard", "rsi", {"limit": float("inf")}, expected_version=0)
    assert store.get_state("guard", "rsi") is None


def test_what_is_written_together_is_there_and_what_is_refused_in_between_spoils_nothing(open_another) -> None:
    store = open_another()
    with store.together():
        store.put_state("guard", "rsi", {"n": 1}, expected_version=0)
        with pytest.raises(Conflict):
            store.put_state("guard", "rsi", {"n": 2}, expected_version=0)
        with pytest.raises(InvalidRecord):
            store.append("c", [entry(float("inf"))])
        assert [receipt.seq for value in (1, 2) for receipt in store.append("c", [entry(value)])] == [1, 2]
        store.put_state("guard", "rsi", {"n": 3}, expected_version=1)
    other = open_another()
    assert [found[2:] for found in said(other, all_revisions=True)] == [(1, 1), (2, 2)]
    assert (other.get_state("guard", "rsi").body, other.verify()) == ({"n": 3}, [])


def test_state_is_no_history(store: AuditStore) -> None:
    store.put_state("guard", "rsi", {}, expected_version=0)
    assert store.collections() == []


def test_what_one_opener_writes_another_reads(open_another: Callable[[], AuditStore]) -> None:
    with open_another() as one, open_another() as two:
        one.append("c", [entry(1)])
        two.append("c", [entry(2)])
        assert said(one, all_revisions=True) == said(two, all_revisions=True)
        assert [found[2] for found in said(one, all_revisions=True)] == [1, 2]
    with open_another() as later:
        assert len(later.read("c", all_revisions=True)) == 2


def test_threads_share_a_store_without_losing_a_record(store: AuditStore) -> None:
    def work(worker: int) -> list[Receipt]:
        return [store.append("c", [entry(n, f"{worker}"), entry([worker, n], "shared")])[0] for n in range(20)]

    with ThreadPoolExecutor(4) as pool:
        receipts = [receipt for batch in pool.map(work, range(4)) for receipt in batch]
    assert len({receipt.seq for receipt in receipts}) == 80
    assert sorted(record.seq for record in store.read("c", all_revisions=True)) == list(range(1, 161))
    assert store.verify() == []


@given(body=bodies, unique=st.uuids())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_body_comes_back_identical(store: AuditStore, body: dict[str, Any], unique: Any) -> None:
    key = f"{unique}-{next(_keys)}"
    (receipt,) = store.append("c", [Entry("", key, body)])
    (record,) = store.read("c", key=key)
    assert record.body == body
    assert canonical_json(record.body) == canonical_json(body)  # also tells 0 from 0.0, -0.0 and False
    (again,) = store.append("c", [Entry("", key, record.body)])
    assert again == Receipt(receipt.seq, 1, False, receipt.hash)


@given(key=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_can_be_a_key(store: AuditStore, key: str) -> None:
    store.append("c", [entry(key, key)])
    assert [record.body["value"] for record in store.read("c", key=key)] == [key]
    assert store.append("c", [entry(key, key)])[0].appended is False


_keys = count()
