"""Does a history query return exactly the days asked for, readable and newest first?"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.audit.history import History
from trading_ops.audit.store import COLLECTIONS, AuditStore, Entry, open_store

MIDNIGHT = datetime(2025, 3, 8, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AuditStore]:
    with open_store(f"sqlite:///{tmp_path}/audit.db") as store:
        yield store


def at(store: AuditStore, now: datetime = MIDNIGHT) -> History:
    return History(store, lambda: now)


def remember(store: AuditStore, collection: str, *days: str) -> None:
    store.append(collection, [Entry(day, "", {"day": day}) for day in days])


def days_of(records: list[dict[str, Any]]) -> list[str]:
    return [record["partition"] for record in records]


def test_nested_metrics_are_readable_at_the_top_B128(store: AuditStore) -> None:
    store.append("performance_metrics", [Entry("2025-03-07", "rsi", {"metrics": {"win_rate": 52.3, "n": 4}, "n": 5})])
    (record,) = at(store).get_performance_metrics_history()
    assert record["win_rate"] == 52.3
    assert record["n"] == 5
    assert record["metrics"] == {"win_rate": 52.3, "n": 4}
    assert (record["partition"], record["key"], record["revision"]) == ("2025-03-07", "rsi", 1)
    assert datetime.fromisoformat(record["recorded_at"]).utcoffset() == timedelta(0)


def test_metrics_that_are_no_document_are_left_alone(store: AuditStore) -> None:
    store.append("performance_metrics", [Entry("2025-03-07", "", {"metrics": None}), Entry("2025-03-07", "x", {})])
    assert [record.get("metrics", "absent") for record in at(store).get_performance_metrics_history()] == [
        "absent",
        None,
    ]


@pytest.mark.parametrize(
    ("now", "days"),
    [
        (MIDNIGHT, ["2025-03-02", "2025-03-01"]),
        (MIDNIGHT + timedelta(microseconds=1), ["2025-03-02"]),
        (MIDNIGHT - timedelta(microseconds=1), ["2025-03-02", "2025-03-01"]),
        (MIDNIGHT.astimezone(datetime.strptime("-0500", "%z").tzinfo), ["2025-03-02", "2025-03-01"]),
    ],
)
def test_a_record_exactly_seven_days_old_is_included_B130(store: AuditStore, now: datetime, days: list[str]) -> None:
    remember(store, "api_cost_history", "2025-02-28", "2025-03-01", "2025-03-02")
    assert days_of(at(store, now).get_api_cost_history(days=7)) == days


def test_a_record_without_partition_is_as_old_as_its_recording_B130(store: AuditStore) -> None:
    for age in (timedelta(days=7), timedelta(days=7, microseconds=1), timedelta(0)):
        store.append("llm_calls", [Entry("", str(age), {})], recorded_at=MIDNIGHT - age)
    assert [record["key"] for record in at(store).get_history("llm_calls", days=7)] == ["0:00:00", "7 days, 0:00:00"]


def test_the_newest_comes_first_whatever_the_order_of_writing(store: AuditStore) -> None:
    remember(store, "gpt4_analysis_history", "2025-03-05", "2025-03-07", "2025-03-06")
    store.append("gpt4_analysis_history", [Entry("", "extra", {})], recorded_at=datetime(2025, 3, 6, 12, tzinfo=UTC))
    assert days_of(at(store).get_gpt4_analysis_history()) == ["2025-03-07", "", "2025-03-06", "2025-03-05"]


def test_only_the_newest_revision_is_told(store: AuditStore) -> None:
    for outcome in ("running", "promoted"):
        store.append("retrain_history", [Entry("2025-03-07", "lstm", {"outcome": outcome})])
    assert [(r["outcome"], r["revision"]) for r in at(store).get_retrain_history()] == [("promoted", 2)]


def test_model_accuracy_can_be_asked_for_one_model(store: AuditStore) -> None:
    bodies: dict[str, dict[str, Any]] = {
        "a": {"model_type": "lstm"},
        "b": {"metrics": {"model_type": "gru"}},
        "c": {},
    }
    store.append("model_accuracy_history", [Entry("2025-03-07", key, body) for key, body in bodies.items()])
    assert [record["key"] for record in at(store).get_model_accuracy_history("lstm")] == ["a"]
    assert [record["key"] for record in at(store).get_model_accuracy_history(model_type="gru", days=1)] == ["b"]
    assert [record["key"] for record in at(store).get_model_accuracy_history()] == ["c", "b", "a"]


def test_a_day_of_several_models_shows_those_of_the_type_alone(store: AuditStore) -> None:
    rows = {name: {"model_type": name.split("/")[0], "accuracy": 0.52} for name in ("lstm/BTCUSDT", "gru/BTCUSDT")}
    bodies = {"2025-03-07": rows, "2025-03-06": {"gru/BTCUSDT": rows["gru/BTCUSDT"]}, "2025-03-05": {}}
    for day, models in bodies.items():
        store.append("model_accuracy_history", [Entry(day, "", {"models": models, "pooled": {"n": 48}})])
    (lstm,) = at(store).get_model_accuracy_history("lstm")
    assert (lstm["partition"], lstm["models"]) == ("2025-03-07", {"lstm/BTCUSDT": rows["lstm/BTCUSDT"]})
    assert lstm["pooled"] is None  # that is of all types
    assert days_of(at(store).get_model_accuracy_history("gru")) == ["2025-03-07", "2025-03-06"]
    everything = at(store).get_model_accuracy_history()
    assert [sorted(record["models"]) for record in everything] == [["gru/BTCUSDT", "lstm/BTCUSDT"], ["gru/BTCUSDT"], []]


@pytest.mark.parametrize(
    ("method", "collection"),
    [
        (History.get_gpt4_analysis_history, "gpt4_analysis_history"),
        (History.get_performance_metrics_history, "performance_metrics"),
        (History.get_model_accuracy_history, "model_accuracy_history"),
        (History.get_api_cost_history, "api_cost_history"),
        (History.get_retrain_history, "retrain_history"),
    ],
)
def test_each_question_reads_its_collection(
    store: AuditStore, method: Callable[..., list[dict[str, Any]]], collection: str
) -> None:
    for name in COLLECTIONS:
        store.append(name, [Entry("2025-02-06", "", {"from": name}), Entry("2025-02-05", "", {})])
    (record,) = method(at(store))
    assert (record["from"], record["partition"]) == (collection, "2025-02-06")


@pytest.mark.parametrize("days", [0, -1])
def test_fewer_than_one_day_is_refused(store: AuditStore, days: int) -> None:
    with pytest.raises(ValueError, match=rf"days is {days}"):
        at(store).get_api_cost_history(days=days)


def test_more_days_than_the_calendar_has_means_everything(store: AuditStore) -> None:
    remember(store, "bot_usage", "0001-01-01", "2025-03-07")
    assert days_of(at(store).get_history("bot_usage", days=10**9)) == ["2025-03-07", "0001-01-01"]


def test_an_unknown_collection_is_refused_naming_the_known_ones(store: AuditStore) -> None:
    with pytest.raises(ValueError, match=r"'api_costs'.*api_cost_history.*strategy_risk"):
        at(store).get_history("api_costs")


def test_a_collection_of_ones_own_can_be_read_once_it_is_stored(store: AuditStore) -> None:
    remember(store, "my_notes", "2025-03-07")
    assert days_of(at(store).get_history("my_notes")) == ["2025-03-07"]


def test_a_known_collection_without_records_is_empty(store: AuditStore) -> None:
    assert at(store).get_history("backtests") == []


def test_a_clock_without_time_zone_is_refused(store: AuditStore) -> None:
    with pytest.raises(ValueError, match="without a time zone"):
        at(store, MIDNIGHT.replace(tzinfo=None)).get_retrain_history()
