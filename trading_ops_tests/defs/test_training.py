"""Do train_model, adaptive_retrain and predict_price train, judge, promote, forecast and tell, as real runs?"""

import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from shutil import rmtree
from typing import Any

import dagster as dg
import pytest
from filelock import FileLock

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.defs.training import adaptive_retrain, predict_price, train_model
from trading_ops.market.candles import CandleSource
from trading_ops.market.parquet import ParquetCandles
from trading_ops.market.replayed import ReplayedCandles
from trading_ops.services import Services
from trading_ops.training.predict import predict_price as predict
from trading_ops.training.preparation import prepare
from trading_ops.training.request import TrainingRequest
from trading_ops.training.retrain import Trigger, leak_of, retrain
from trading_ops.training.train import train
from trading_ops.training.trainer import Progress
from trading_ops_tests.audit.unreliable import UnreliableStore
from trading_ops_tests.conftest import NOON
from trading_ops_tests.training.markets import folder_of, walk

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
FEW = {"days_of_data": 60, "epochs": 5}
SMALL = {**FEW, "batch_size": 64}


@pytest.fixture
def market_of(tmp_path: Path, make_services: Callable[..., Services]) -> Services:
    """TOLDUSDT can be foretold, WALKUSDT cannot, NEWUSDT is three weeks old."""
    end = NOON.replace(minute=0)
    folder = folder_of(
        tmp_path / "candles",
        TOLDUSDT=walk(end, 200, told=0.6),
        WALKUSDT=walk(end, 200, seed=2),
        NEWUSDT=walk(end, 21, seed=3),
    )
    return make_services(candles=folder, symbols=("TOLDUSDT", "WALKUSDT", "NEWUSDT"))


def run(job: Any, services: Services, op: str, *, fails: bool = False, **config: Any) -> dg.ExecuteInProcessResult:
    result = job.execute_in_process(
        resources={"services": services},
        run_config={**QUIET, "ops": {op: {"config": config}}},
        raise_on_error=False,
    )
    assert result.success is not fails, error(result)
    return result


def error(result: dg.ExecuteInProcessResult) -> str:
    said = []
    for event in result.all_events:
        info = event.step_failure_data.error if event.is_step_failure else None
        while info is not None:
            said.append(info.message)
            info = info.cause
    return "".join(said)


def rows_of(result: dg.ExecuteInProcessResult, step: str, name: str) -> list[dict[str, Any]]:
    outputs = [e.step_output_data for e in result.all_events if e.is_successful_output and e.step_key == step]
    return [record.data for output in outputs for record in output.metadata[name].records]


def retrained(services: Services, *, fails: bool = False, **config: Any) -> dict[str, dict[str, Any]]:
    """What retrain_history holds of each model after adaptive_retrain, newest decision last."""
    run(adaptive_retrain, services, "choose_models", fails=fails, **{**FEW, **config})
    return {record.body["name"]: record.body for record in services.store.read("retrain_history")}


def alerts(services: Services) -> list[dict[str, Any]]:
    return [delivery["alert"] for delivery in services.outbox.deliveries()]


@pytest.mark.parametrize("model_type", ["lstm", "gru", "transformer"])
def test_each_network_finds_what_can_be_foretold_and_is_registered_with_its_baselines(market_of, model_type):
    result = run(train_model, market_of, "train_models", model_type=model_type, symbol="TOLDUSDT", **SMALL)
    (entry,) = market_of.registry.entries()
    assert (entry.state, entry.card.name) == ("candidate", f"{model_type}/TOLDUSDT")
    scores = entry.card.metrics
    assert scores["model"]["interval"][0] > 0.55
    assert scores["model"]["skill"] > 0.02
    assert scores["logistic"]["n"] == scores["base_rate"]["n"] == scores["model"]["n"] > 600
    assert scores["walk_forward"]["skill"] > 0.02
    assert scores["base_rate"]["skill"] == pytest.approx(0.0)
    assert [row["of"] for row in rows_of(result, "train_models", "models")] == [
        "the model",
        "logistic",
        "base rate",
        "logistic before",
    ]
    assert entry.card.trained_until <= NOON.replace(hour=0, minute=0) - 30 * (NOON - NOON.replace(day=9))


def test_the_same_training_again_is_the_same_model_and_trains_nothing(market_of):
    run(train_model, market_of, "train_models", symbol="TOLDUSDT", **SMALL)
    before = market_of.registry.entries()
    run(train_model, market_of, "train_models", symbol="TOLDUSDT", **SMALL)
    assert market_of.registry.entries() == before


def test_a_symbol_that_cannot_be_trained_fails_the_run_and_keeps_no_other_from_it(market_of):
    result = run(train_model, market_of, "train_models", symbol="NEWUSDT,NOUSDT,WALKUSDT", fails=True, **SMALL)
    said = error(result)
    assert "NEWUSDT has 492 bars" in said
    assert "at least 720" in said
    assert "NOUSDT: no recorded candles" in said
    assert [entry.card.symbol for entry in market_of.registry.entries()] == ["WALKUSDT"]


@pytest.mark.parametrize(
    ("config", "said"),
    [({"batch_size": 100}, "a power of two from 8 to 65536"), ({"model_type": "prophet"}, "lstm, gru, transformer")],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(market_of, config, said):
    assert said in error(run(train_model, market_of, "train_models", fails=True, **config))


def test_a_retrain_deploys_what_is_better_keeps_the_rest_and_tells_once(market_of):
    names = ["lstm/TOLDUSDT", "lstm/WALKUSDT", "lstm/NEWUSDT"]
    found = retrained(market_of, models=names, decision="2025-03-10/a1", reason="accuracy fell")
    assert [found[name]["outcome"] for name in names] == ["deployed", "kept", "failed"]
    told, walked, new = (found[name] for name in names)
    assert market_of.registry.champion("lstm/TOLDUSDT").model_id == told["challenger"]
    assert market_of.registry.champion("lstm/WALKUSDT") is None
    assert told["trigger"] == {"decision": "2025-03-10/a1", "reason": "accuracy fell", "by": "adaptive_retrain"}
    assert walked["verdict"]["promote"] is False
    assert told["scores"]["challenger"]["interval"][0] > 0.55
    assert "worse than always saying" in walked["why"]
    assert "492 bars" in new["why"]
    (alert,) = alerts(market_of)
    assert (alert["severity"], alert["what"]) == ("WARNING", "1 of 3 models deployed after a retrain, 1 failed")
    retrained(market_of, models=names, decision="2025-03-10/a1", reason="accuracy fell")
    assert len(alerts(market_of)) == 1  # the same decision is told once


def test_a_challenger_that_is_no_better_leaves_the_champion_where_it_is(market_of):
    first = retrained(market_of, models=["lstm/TOLDUSDT"], decision="a")["lstm/TOLDUSDT"]
    again = retrained(market_of, models=["lstm/TOLDUSDT"], decision="b", epochs=1, days_of_data=30)["lstm/TOLDUSDT"]
    assert again["outcome"] == "kept"
    assert again["champion"] == first["challenger"] != again["challenger"]
    assert (again["verdict"]["looks"], again["verdict"]["alpha"]) == (2, 0.025)
    assert market_of.registry.champion("lstm/TOLDUSDT").model_id == first["challenger"]


def test_a_decision_that_is_carried_out_again_has_the_outcome_it_had(market_of):
    first = retrained(market_of, models=["lstm/TOLDUSDT"], decision="a")
    again = retrained(market_of, models=["lstm/TOLDUSDT"], decision="a")
    assert first == again
    assert len(market_of.store.read("retrain_history", all_revisions=True)) == 1
    other = retrained(market_of, models=["lstm/TOLDUSDT"], decision="b")["lstm/TOLDUSDT"]
    assert (other["outcome"], other["why"].partition(":")[0]) == ("kept", "the champion is this very model")


def test_a_decision_killed_between_promotion_and_record_is_recorded_as_deployed(market_of):
    retrained(market_of, models=["lstm/TOLDUSDT"], decision="a")
    (record,) = market_of.store.read("retrain_history")
    fresh = SqliteStore(market_of.settings.data_dir / "history-lost.db")
    market = market_of.candles_among(["TOLDUSDT"])
    trigger = Trigger(**record.body["trigger"])
    again = retrain("lstm/TOLDUSDT", trigger, market, market_of.workshop, fresh, changes=FEW)
    assert again == {**record.body, "scores": {}}


def test_a_champion_whose_files_are_damaged_is_replaced(market_of):
    first = retrained(market_of, models=["lstm/TOLDUSDT"], decision="a")["lstm/TOLDUSDT"]["challenger"]
    (market_of.settings.data_dir / "models" / first / "weights.safetensors").write_bytes(b"")
    again = retrained(market_of, models=["lstm/TOLDUSDT"], decision="b", epochs=6)["lstm/TOLDUSDT"]
    assert (again["outcome"], again["champion"]) == ("deployed", first)
    assert market_of.registry.champion("lstm/TOLDUSDT").model_id == again["challenger"]


def test_a_champion_whose_weights_the_network_does_not_take_any_more_is_replaced(market_of):
    registry = market_of.registry
    first = retrained(market_of, models=["lstm/TOLDUSDT"], decision="a")["lstm/TOLDUSDT"]["challenger"]
    card, (_, *fewer) = registry.card(first), registry.weights(first).items()
    rmtree(market_of.settings.data_dir / "models" / first)
    registry.add(card, dict(fewer))  # whole files, of a network of other code
    again = retrained(market_of, models=["lstm/TOLDUSDT"], decision="b", epochs=6)["lstm/TOLDUSDT"]
    assert (again["outcome"], again["champion"]) == ("deployed", first)
    assert registry.champion_id("lstm/TOLDUSDT") == again["challenger"]


def test_a_champion_promoted_during_the_training_is_compared_before_it_is_replaced(market_of):
    market, registry = market_of.candles_among(["TOLDUSDT"]), market_of.registry
    other = train(prepare(TrainingRequest(symbol="TOLDUSDT", **SMALL), "TOLDUSDT", market), market_of.workshop).card

    def meanwhile(_: Progress) -> None:
        registry.promote(other.model_id, by="somebody", why="by hand")

    found = retrain(
        "lstm/TOLDUSDT", Trigger("a", "aged"), market, market_of.workshop, market_of.store, changes=FEW,
        progress=meanwhile,
    )  # fmt: skip
    assert found["champion"] == other.model_id
    assert found["verdict"]["brier_champion"] is not None
    assert (found["outcome"], registry.champion_id("lstm/TOLDUSDT")) == ("kept", other.model_id)


def test_candles_that_are_made_up_and_real_ones_are_two_markets_and_only_the_real_one_takes_the_others_place(market_of):
    class MadeUp(ParquetCandles):
        label = "simulated"

    made_up = MadeUp(market_of.settings.candles, market_of.bot.now, symbols=["TOLDUSDT"])
    real = market_of.candles_among(["TOLDUSDT"])

    def challenged(decision: str, source: CandleSource, epochs: int) -> dict[str, Any]:
        changes, trigger = {**FEW, "epochs": epochs}, Trigger(decision, "aged")
        return retrain("lstm/TOLDUSDT", trigger, source, market_of.workshop, market_of.store, changes=changes)

    assert challenged("a", made_up, 5)["outcome"] == "deployed"
    replaced = challenged("b", real, 6)
    assert (replaced["outcome"], replaced["verdict"]["brier_champion"]) == ("deployed", None)
    kept = challenged("c", made_up, 5)
    assert (kept["outcome"], kept["champion"]) == ("kept", replaced["challenger"])
    assert "learnt from simulated candles and the champion from recorded ones" in kept["why"]
    assert market_of.registry.champion_id("lstm/TOLDUSDT") == replaced["challenger"]


def test_a_decision_killed_before_its_record_is_not_carried_out_again_after_a_person_went_back(market_of):
    market, registry = market_of.candles_among(["TOLDUSDT"]), market_of.registry
    request = TrainingRequest(symbol="TOLDUSDT", horizon_hours=2, **{**SMALL, "epochs": 1})
    first = train(prepare(request, "TOLDUSDT", market), market_of.workshop).card.model_id
    registry.promote(first, by="somebody", why="the first")
    lost = SqliteStore(market_of.settings.data_dir / "history-lost.db")
    changes, trigger = {**FEW, "horizon_hours": 1}, Trigger("a", "aged")
    done = retrain("lstm/TOLDUSDT", trigger, market, market_of.workshop, lost, changes=changes)
    assert (done["outcome"], done["champion"]) == ("deployed", first)
    registry.rollback("lstm/TOLDUSDT", by="somebody", why="it lost money")
    again = retrain("lstm/TOLDUSDT", trigger, market, market_of.workshop, market_of.store, changes=changes)
    assert again == {**done, "scores": {}}
    assert registry.champion_id("lstm/TOLDUSDT") == first


def test_where_models_cannot_be_written_every_model_fails_and_people_are_told(market_of):
    models = market_of.settings.data_dir / "models"
    models.parent.mkdir()
    models.write_text("no folder")
    found = retrained(market_of, models=["lstm/TOLDUSDT", "lstm/NOUSDT"], epochs=1, fails=True)
    assert {document["outcome"] for document in found.values()} == {"failed"}
    assert found["lstm/TOLDUSDT"]["why"].startswith(f"{models}: cannot be written")
    assert [alert["severity"] for alert in alerts(market_of)] == ["CRITICAL"]


def test_what_nobody_foresaw_fails_one_model_and_a_repeat_that_ends_better_is_told_too(market_of):
    lock = market_of.registry.lock("lstm-TOLDUSDT")
    lock.mkdir()
    names = ["lstm/TOLDUSDT", "lstm/WALKUSDT"]
    found = retrained(market_of, models=names, decision="a")
    assert [found[name]["outcome"] for name in names] == ["failed", "kept"]
    assert str(lock) in found["lstm/TOLDUSDT"]["why"]
    lock.rmdir()
    for _ in range(2):
        assert retrained(market_of, models=names, decision="a")["lstm/TOLDUSDT"]["outcome"] == "deployed"
    assert [alert["what"] for alert in alerts(market_of)] == [
        "0 of 2 models deployed after a retrain, 1 failed",
        "1 of 2 models deployed after a retrain",
    ]


def test_a_name_that_is_none_fails_alone_and_one_written_twice_is_trained_once(market_of):
    names = ["LSTM/newusdt", "lstm/NEWUSDT ", "lstn/NEWUSDT", "gru/A-B", "gru/A_B", "nothing"]
    found = retrained(market_of, models=names, fails=True)
    assert sorted(found) == ["gru/A-B", "gru/A_B", "lstm/NEWUSDT", "lstn/NEWUSDT", "nothing"]
    assert "492 bars" in found["lstm/NEWUSDT"]["why"]
    assert "lstm, gru, transformer" in found["lstn/NEWUSDT"]["why"]
    assert "a type and a symbol" in found["nothing"]["why"]


def test_without_a_config_a_champion_whose_card_cannot_be_read_is_trained_anew_like_the_others(market_of):
    for symbol in ("TOLDUSDT", "WALKUSDT"):
        run(train_model, market_of, "train_models", symbol=symbol, **{**SMALL, "epochs": 1})
    for entry in market_of.registry.entries():
        market_of.registry.promote(entry.card.model_id, by="somebody", why="by hand")
    damaged = market_of.registry.champion_id("lstm/TOLDUSDT")
    (market_of.settings.data_dir / "models" / damaged / "card.json").write_text("{")
    assert set(retrained(market_of, epochs=1)) == {"lstm/TOLDUSDT", "lstm/WALKUSDT"}


def test_when_every_model_fails_the_champions_stay_and_people_are_told_as_critical(market_of):
    champion = retrained(market_of, models=["lstm/TOLDUSDT"])["lstm/TOLDUSDT"]["challenger"]
    found = retrained(market_of, models=["lstm/NEWUSDT", "gru/NOUSDT"], decision="c", fails=True)
    assert {found[name]["outcome"] for name in ("lstm/NEWUSDT", "gru/NOUSDT")} == {"failed"}
    assert market_of.registry.champion("lstm/TOLDUSDT").model_id == champion
    assert [(alert["severity"], alert["what"]) for alert in alerts(market_of) if alert["severity"] != "INFO"] == [
        ("CRITICAL", "Every model failed to retrain; the champions stay")
    ]


def test_networks_taught_what_cannot_be_known_guess_so_that_nothing_is_held_back(market_of):
    prepared = prepare(TrainingRequest(symbol="WALKUSDT", **SMALL), "WALKUSDT", market_of.candles)
    assert leak_of(prepared, market_of.workshop) is None


def test_a_store_that_is_away_for_a_moment_costs_a_retrain_a_minute_and_no_model(market_of, tmp_path, monkeypatch):
    monkeypatch.setattr("trading_ops.defs.training.STORE_BACK_S", 0.0)
    (tmp_path / "shared").mkdir()
    market_of.__dict__["store"] = store = UnreliableStore(tmp_path / "shared")
    store.lost = 1
    assert retrained(market_of, models=["lstm/TOLDUSDT"])["lstm/TOLDUSDT"]["outcome"] == "deployed"
    assert store.lost == 0


def test_a_retrain_that_is_killed_is_started_again_and_one_that_failed_is_not():
    assert adaptive_retrain.tags["dagster/max_retries"] == "2"
    assert adaptive_retrain.tags["dagster/retry_on_asset_or_op_failure"] == "false"


def test_a_forecast_has_the_champions_probability_and_quantiles_of_every_hour(market_of):
    said = error(run(predict_price, market_of, "predict", symbol="TOLDUSDT", fails=True))
    assert "no champion" in said
    retrained(market_of, models=["lstm/TOLDUSDT"])
    result = run(predict_price, market_of, "predict", symbol="TOLDUSDT", hours=6)
    (record,) = market_of.store.read("forecasts")
    document = record.body
    assert [hour["hour"] for hour in document["hours"]] == [1, 2, 3, 4, 5, 6]
    assert document["hours"][0]["probability_up"] == document["probability_up"]
    assert document["decided_at"] == "2025-03-10T12:00:00+00:00"
    assert document["signal"] in ("BUY", "SELL", "HOLD")
    assert len(rows_of(result, "predict", "hours")) == 6


def test_a_second_training_of_a_model_waits_and_says_so(market_of):
    prepared = prepare(TrainingRequest(symbol="TOLDUSDT", **SMALL), "TOLDUSDT", market_of.candles)
    said: list[str | None] = []
    begun = threading.Event()

    def told(progress: Progress) -> None:
        said.append(progress.note)
        begun.set()

    with FileLock(market_of.registry.lock("lstm-TOLDUSDT")):
        training = threading.Thread(target=train, args=(prepared, market_of.workshop), kwargs={"progress": told})
        training.start()
        assert begun.wait(300)
        assert market_of.registry.entries() == []
    training.join()
    assert said[0] == "another training of lstm/TOLDUSDT runs; this one waits for it"
    assert len(market_of.registry.entries()) == 1


def test_a_forecast_on_which_nothing_may_be_done_says_hold_and_why(market_of):
    retrained(market_of, models=["lstm/TOLDUSDT"])
    store, registry = market_of.store, market_of.registry

    def said(now: datetime, source: Any = None, stale_days: float = 45.0) -> str:
        forecast = predict(
            "lstm/TOLDUSDT", 1, source or market_of.candles, registry, store, now=now, stale_days=stale_days
        )
        assert forecast["signal"] == "HOLD"
        return forecast["sentence"]

    assert "the candles are late: the newest bar closed at 2025-03-10 12:00 UTC" in said(NOON + timedelta(hours=2))
    assert "days old, more than 0.5" in said(NOON, stale_days=0.5)
    replayed = ReplayedCandles(market_of.candles, ["TOLDUSDT"], lambda: NOON + timedelta(days=21))
    assert "learnt from recorded candles, and these are replayed +3 weeks" in said(NOON + timedelta(days=21), replayed)


def test_checkpoints_nobody_came_back_to_are_removed(market_of):
    folder = market_of.settings.data_dir / "training"
    folder.mkdir(parents=True)
    old, young, other = (
        folder / f"{name}.checkpoint" for name in ("lstm-TOLDUSDT-1", "lstm-TOLDUSDT-2", "gru-TOLDUSDT-1")
    )
    for path in (old, young, other):
        path.write_bytes(b"x")
    for path in (old, other):
        os.utime(path, (0, 0))
    run(train_model, market_of, "train_models", symbol="TOLDUSDT", **SMALL)
    assert [path.exists() for path in (old, young, other)] == [False, True, True]
