"""Is a prediction written once, when it is made, and read as it was?"""

import multiprocessing
import os
import signal
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from trading_ops.accuracy.predictions import (
    COLLECTION,
    COLUMNS,
    Prediction,
    no_predictions,
    read_predictions,
    record_predictions,
    signal_of,
)
from trading_ops.audit.store import Entry, open_store

CLOSE = datetime(2025, 3, 9, 23, tzinfo=UTC)
SAID = Prediction(
    model_id="lstm-BTCUSDT-0123456789ab", model_type="lstm", symbol="BTCUSDT", role="champion", decided_at=CLOSE,
    made_at=CLOSE + timedelta(minutes=2), horizon_hours=1, probability_up=0.53, signal="BUY", reason="",
    base_rate=0.505, trained_until=CLOSE - timedelta(days=31), candles_until=CLOSE - timedelta(days=1),
    candles="simulated", source="paper-1",
)  # fmt: skip
SHADOW = replace(SAID, role="shadow", model_id="lstm-BTCUSDT-ba9876543210", against=SAID.model_id, probability_up=None)


@pytest.fixture
def store(tmp_path: Path):
    with open_store(f"sqlite:///{tmp_path}/audit.db") as store:
        yield store


def read(store, first=CLOSE.date(), last=CLOSE.date(), source="paper-1"):
    return read_predictions(store, first, last, source=source)


def test_what_was_said_is_read_as_it_was(store):
    record_predictions(store, [SAID, SHADOW])
    frame = read(store)
    assert frame["name"].tolist() == ["lstm/BTCUSDT"] * 2
    assert frame["role"].tolist() == ["champion", "shadow"]
    assert frame["against"].tolist() == ["", SAID.model_id]
    assert frame["probability_up"].isna().tolist() == [False, True]
    champion = frame.iloc[0]
    assert (champion["probability_up"], champion["base_rate"], champion["horizon_hours"]) == (0.53, 0.505, 1)
    assert champion["decided_us"] == CLOSE.timestamp() * 1e6
    assert not frame["reconstructed"].any()


def test_places_are_the_day_and_hour_of_the_bars_close(store):
    record_predictions(store, [SAID, SHADOW])
    records = store.read(COLLECTION)
    assert [(r.partition, r.key) for r in records] == [
        ("2025-03-09", "lstm/BTCUSDT/23"),
        ("2025-03-09", "shadow/lstm-BTCUSDT-ba9876543210/23"),
    ]


def test_an_hour_is_predicted_once_however_often_it_is_asked_for(store):
    assert len(record_predictions(store, [SAID])) == 1
    later = replace(SAID, made_at=SAID.made_at + timedelta(minutes=9), probability_up=0.9)
    assert record_predictions(store, [later, SHADOW])[0].revision == 1  # the shadow's alone
    assert read(store)["probability_up"].tolist()[0] == 0.53
    assert len(store.read(COLLECTION, all_revisions=True)) == 2


def test_of_two_that_were_written_at_once_the_first_counts(store):
    other = replace(SAID, probability_up=0.9)
    store.append(COLLECTION, [SAID.entry])
    store.append(COLLECTION, [other.entry])  # the other process had seen none either
    assert read(store)["probability_up"].tolist() == [0.53]


def test_a_record_with_a_damaged_source_or_no_probability_stops_no_other(store):
    entry = SAID.entry
    store.append(COLLECTION, [Entry(entry.partition, entry.key, {**entry.body, "source": ["paper-1"]})])
    cut = {name: value for name, value in entry.body.items() if name != "probability_up"}
    store.append(COLLECTION, [Entry(entry.partition, "lstm/ETHUSDT/23", {**cut, "symbol": "ETHUSDT"})])
    assert len(record_predictions(store, [SAID])) == 1
    assert read(store)["name"].tolist() == ["lstm/BTCUSDT"]


def test_two_bots_keep_their_own_prediction_of_an_hour(store):
    other = replace(SAID, source="paper-2", probability_up=0.4)
    assert len(record_predictions(store, [SAID])) == len(record_predictions(store, [other])) == 1
    assert record_predictions(store, [SAID, other]) == []
    assert read(store)["probability_up"].tolist() == [0.53]
    assert read(store, source="paper-2")["probability_up"].tolist() == [0.4]


def test_a_prediction_made_when_its_outcome_was_known_is_none(store):
    record_predictions(store, [replace(SAID, made_at=CLOSE + timedelta(hours=1))])
    assert read(store).empty


def test_predictions_of_other_candles_are_not_mixed_in(store):
    record_predictions(store, [replace(SAID, source="paper-2")])
    assert read(store).empty
    assert len(read(store, source="paper-2")) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"probability_up": 1.5},
        {"probability_up": "high"},
        {"decided_at": "yesterday"},
        {"decided_at": "2025-03-09T23:00:00+01:00"},
        {"trained_until": "2025-03-09T23:00:00"},
        {"horizon_hours": None},
        {"base_rate": None},
        {"symbol": 7},
        {"base_rate": 1.5},
        {"role": "king"},
        {"against": ["x"]},
        {"horizon_hours": 0},
        {"horizon_hours": 10**15},
    ],
)
def test_a_record_that_cannot_be_read_is_left_out_and_logged(store, caplog, wrong):
    store.append(COLLECTION, [Entry("2025-03-09", "lstm/BTCUSDT/22", {**SAID.entry.body, **wrong})])
    record_predictions(store, [SAID])
    assert len(read(store)) == 1
    assert "lstm/BTCUSDT/22 is left out" in caplog.text


def test_days_outside_are_not_read_and_none_is_a_frame_without_rows(store):
    record_predictions(store, [SAID])
    empty = read(store, date(2025, 3, 10), date(2025, 3, 12))
    assert empty.empty
    assert {name: str(kind) for name, kind in empty.dtypes.items()} == COLUMNS
    assert list(no_predictions()) == list(COLUMNS)


@pytest.mark.parametrize(
    ("probability", "age", "unknown", "signal", "why"),
    [
        (0.5001, 10, "", "BUY", ""),
        (0.4999, 10, "", "SELL", ""),
        (0.5, 10, "", "HOLD", "a rise is as probable as none"),
        (0.9, 45, "", "BUY", ""),  # exactly at the cap
        (0.9, 45.6, "", "HOLD", "the model is 46 days old, more than 45: train it anew"),
        (None, 10, "the candles are late", "HOLD", "the candles are late"),
    ],
)
def test_only_a_fresh_model_that_leans_to_a_side_gives_a_signal(probability, age, unknown, signal, why):
    assert signal_of(probability, age_days=age, stale_days=45, unknown=unknown) == (signal, why)


def of_hour(back: int) -> Prediction:
    close = CLOSE - timedelta(hours=back)
    return replace(SAID, decided_at=close, made_at=close + timedelta(minutes=2))


def _write(uri: str, begun) -> None:
    with open_store(uri) as store:
        begun.set()
        for number in range(10_000):
            record_predictions(store, [of_hour(number % 48)])


def test_killed_at_any_moment_each_hour_has_one_whole_prediction(tmp_path):
    uri, context = f"sqlite:///{tmp_path}/audit.db", multiprocessing.get_context("spawn")
    begun = context.Event()
    writers = [context.Process(target=_write, args=(uri, begun)) for _ in range(2)]
    for writer in writers:
        writer.start()
    assert begun.wait(300)
    with open_store(uri) as store:
        while not store.read(COLLECTION):
            writers[0].join(0.02)
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            writer.join()
        record_predictions(store, [of_hour(back) for back in range(48)])
        frame = read(store, CLOSE.date() - timedelta(days=3))
        assert store.verify() == []
    assert len(frame) == 48
    assert frame["decided_us"].is_unique
