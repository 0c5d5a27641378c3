"""Do models predict every hour, once, and is each day told how right they were? Real networks, registry and store."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import numpy as np
import pytest

from trading_ops.accuracy.predictions import COLLECTION, Prediction, record_predictions
from trading_ops.audit.chain import canonical_json
from trading_ops.definitions import defs
from trading_ops.defs.accuracy import HISTORY
from trading_ops.defs.partitions import RANGE_END, RANGE_START
from trading_ops.defs.resources import AuditIOManager
from trading_ops.services import Services
from trading_ops.training.card import Card
from trading_ops.training.features import FEATURES
from trading_ops_tests.conftest import NEWEST, NOON, QuietSettings
from trading_ops_tests.defs.test_assets import check, error_of, stored
from trading_ops_tests.fakes import ScriptedCandles

HOUR = timedelta(hours=1)
MIDNIGHT = NOON.replace(hour=0, minute=0)  # the end of NEWEST
LEARNT = NOON.replace(minute=0) - timedelta(days=30)
NAME = "gru/BTCUSDT"


def weights_of(model_type: str = "gru", seed: int = 1) -> dict[str, np.ndarray]:
    """An untrained network: what it says is as good as chance, and the same each time."""
    import torch

    from trading_ops.training.networks.build import build

    torch.manual_seed(seed)
    network = build(model_type, len(FEATURES))
    arrays = {f"net.{name}": value.numpy() for name, value in network.state_dict().items()}
    return {**arrays, "scaler.mean": np.zeros(len(FEATURES)), "scaler.std": np.ones(len(FEATURES)),
            "calibration": np.array([3.0, 0.0])}  # fmt: skip


def card_of(number: int = 1, **changes: Any) -> Card:
    fields = {
        "model_id": f"gru-BTCUSDT-{number:012x}", "model_type": "gru", "symbol": "BTCUSDT", "horizon_hours": 1,
        "lookback": 48, "features": FEATURES, "created_at": NOON, "trained_from": LEARNT - timedelta(days=90),
        "trained_until": LEARNT, "candles_until": NOON.replace(minute=0),
        "base_rate": 0.51, "seed": number, "parameters": {}, "digests": {},
        "candles": "simulated", "metrics": {}, "cost_cpu_s": 1.0,
    }  # fmt: skip
    return Card(**{**fields, **changes})


def deploy(services: Services, number: int = 1, **changes: Any) -> Card:
    card = services.registry.add(card_of(number, **changes), weights_of(seed=number))
    services.registry.promote(card.model_id, by="test", why="to see it predict")
    return card


def at(services: Services, moment: Any) -> Services:
    """The clock goes on: a service of that moment over the same store and models."""
    return Services(services.settings, now=lambda: moment)


def said(services: Services) -> list[dict[str, Any]]:
    return [dict(record.body) for record in services.store.read(COLLECTION)]


def executed(services: Services, name: str, **tags: str) -> dg.ExecuteInProcessResult:
    result = (
        dg.Definitions(
            assets=defs.assets,
            asset_checks=defs.asset_checks,
            resources={"services": services, "audit": AuditIOManager(services)},
            executor=dg.in_process_executor,
        )
        .resolve_implicit_global_asset_job_def()
        .execute_in_process(
            asset_selection=[dg.AssetKey(name)],
            tags=tags,
            instance=dg.DagsterInstance.ephemeral(),
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
    )
    assert result.success, error_of(result)
    return result


def predicted(services: Services) -> dg.ExecuteInProcessResult:
    return executed(services, "predictions")


def measured(services: Services, first: str = NEWEST, last: str = "") -> dg.ExecuteInProcessResult:
    days = {RANGE_START: first, RANGE_END: last} if last else {"dagster/partition": first}
    return executed(services, "model_accuracy", **days)


def told_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.asset_materializations_for_node("predictions")
    return str(event.metadata["predictions"].value)


# every hour


def test_a_machine_without_models_needs_no_torch(tmp_path):
    code = (
        "import sys\n"
        "for name in ('torch', 'safetensors'):\n"
        "    sys.modules[name] = None  # as if not installed\n"
        "from trading_ops.definitions import SERVICES, defs\n"
        "import dagster as dg\n"
        "instance, day = dg.DagsterInstance.ephemeral(), SERVICES.bot.calendar().last_day\n"
        "result = defs.resolve_job_def('record_predictions').execute_in_process(instance=instance)\n"
        "(event,) = result.asset_materializations_for_node('predictions')\n"
        "print(result.success, event.metadata['predictions'].value)\n"
        "job = dg.define_asset_job('measured', selection=['model_accuracy'])\n"
        "job = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def('measured')\n"
        "result = job.execute_in_process(instance=instance, partition_key=str(day))\n"
        "(event,) = result.asset_materializations_for_node('model_accuracy')\n"
        "print(result.success, event.metadata['outcome'].value)\n"
    )
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == [
        "True no champion predicts yet: trading-ops models train, then trading-ops models promote",
        "True no_champion",
    ], done.stderr


def test_a_champion_predicts_at_the_close_of_the_newest_bar_once_an_hour(services):
    card = deploy(services)
    predicted(services)
    (first,) = said(services)
    assert (first["model_id"], first["role"], first["horizon_hours"]) == (card.model_id, "champion", 1)
    assert first["decided_at"] == "2025-03-10T12:00:00+00:00"  # the bar that opened at 11:00
    assert first["made_at"] == NOON.isoformat()
    assert 0.0 < first["probability_up"] < 1.0
    assert first["signal"] == ("BUY" if first["probability_up"] > 0.5 else "SELL")
    assert (first["candles"], first["source"]) == ("simulated", services.bot.source)
    predicted(at(services, NOON + timedelta(minutes=20)))
    assert said(services) == [first]
    predicted(at(services, NOON + HOUR))
    assert [row["decided_at"][11:16] for row in said(services)] == ["12:00", "13:00"]


def test_what_was_said_follows_from_the_bars_alone(services):
    from trading_ops.training.features import samples_of

    card = deploy(services)
    predicted(services)
    frame = services.candles.candles("BTCUSDT", NOON - timedelta(days=20), NOON + timedelta(days=2))
    samples = samples_of("BTCUSDT", frame)
    (row,) = np.flatnonzero(samples.times == (NOON.timestamp() // 3600 - 1) * 3.6e9)
    (probability,) = services.registry.model(card.model_id).probabilities(samples, np.array([row]))
    assert said(services)[0]["probability_up"] == probability


def test_the_replaced_champion_predicts_on_beside_the_new_one_for_thirty_days(services):
    old, new = deploy(services), deploy(services, 2)
    predicted(services)
    rows = {row["role"]: row for row in said(services)}
    assert (rows["champion"]["model_id"], rows["shadow"]["model_id"]) == (new.model_id, old.model_id)
    assert rows["shadow"]["against"] == new.model_id
    predicted(at(services, NOON + timedelta(days=31)))
    assert [row["role"] for row in said(services) if row["decided_at"] > "2025-03-11"] == ["champion"]


def test_a_model_that_is_too_old_says_hold(services):
    deploy(services, candles_until=NOON - timedelta(days=46))
    predicted(services)
    (row,) = said(services)
    assert row["signal"] == "HOLD"
    assert row["reason"] == "the model is 46 days old, more than 45: train it anew"
    assert row["probability_up"] is not None  # it is still known how right it would be


def test_late_candles_a_hole_and_an_unknown_symbol_say_hold_with_the_reason(make_services):
    source = make_services().candles
    whole = source.candles("BTCUSDT", NOON - timedelta(days=30), NOON)
    frames = {"BTCUSDT": whole.drop(whole.index[-5]), "ETHUSDT": whole.iloc[:-2]}
    services = make_services(symbols=("BTCUSDT", "ETHUSDT"))
    scripted = ScriptedCandles(frames, NOON)
    services._sources[("BTCUSDT", "ETHUSDT")] = scripted
    for number, symbol in enumerate(("BTCUSDT", "ETHUSDT", "XYZUSDT"), 1):
        deploy(services, number, symbol=symbol, model_id=f"gru-{symbol}-{number:012x}", candles="scripted")
    predicted(services)
    rows = {row["symbol"]: row for row in said(services)}
    assert {row["signal"] for row in rows.values()} == {"HOLD"}
    assert {row["probability_up"] for row in rows.values()} == {None}
    assert rows["BTCUSDT"]["reason"].startswith("features are unknown: a bar of BTCUSDT is missing in the last")
    assert rows["ETHUSDT"]["reason"] == "the candles are late: the newest bar of ETHUSDT closed at 2025-03-10 10:00 UTC"
    assert rows["XYZUSDT"]["reason"].startswith("no candles: XYZUSDT: ")


def test_a_champion_that_cannot_be_used_is_an_incident_until_it_can_and_stops_no_other(services):
    deploy(services)
    broken = deploy(services, 2, symbol="ETHUSDT", model_id="gru-ETHUSDT-000000000002")
    path = services.settings.data_dir / "models" / broken.model_id / "weights.safetensors"
    kept = path.read_bytes()
    path.write_bytes(kept[:-8])
    predicted(services)
    assert {row["symbol"]: row["signal"] == "HOLD" for row in said(services)} == {"BTCUSDT": False, "ETHUSDT": True}
    (delivery,) = services.outbox.deliveries()
    assert (delivery["alert"]["severity"], delivery["alert"]["what"]) == ("ERROR", "gru/ETHUSDT cannot predict")
    path.write_bytes(kept)
    later = at(services, NOON + HOUR)
    predicted(later)
    assert [d["alert"]["step"] for d in later.outbox.deliveries()] == ["opened", "resolved"]


def test_a_model_of_simulated_candles_does_not_speak_of_recorded_ones(services):
    deploy(services, candles="recorded")
    predicted(services)
    assert said(services)[0]["signal"] == "HOLD"
    assert "the model learnt from recorded candles, and these are simulated" in said(services)[0]["reason"]


def test_a_recording_of_the_past_is_not_predicted(make_services, market):
    services = make_services(candles=market, symbols=("BTCUSDT",))
    services.now = lambda: NOON + timedelta(days=3_000)
    deploy(services)
    assert "that is the past" in told_of(predicted(services))
    assert said(services) == []


def test_ticks_ask_for_one_run_an_hour():
    repository = defs.get_repository_def()
    schedule = repository.get_schedule_def("record_predictions_schedule")
    keys = []
    for minute in (2, 2, 62):
        with dg.build_schedule_context(
            dg.DagsterInstance.ephemeral(), scheduled_execution_time=NOON.replace(minute=0) + timedelta(minutes=minute)
        ) as context:
            keys += [request.run_key for request in schedule.evaluate_tick(context).run_requests]
    assert keys == ["2025-03-10T12", "2025-03-10T12", "2025-03-10T13"]


# every day


def saying(services: Services, card: Card, close: datetime, probability: float, **role: Any) -> Prediction:
    """What the hourly job would have written."""
    return Prediction(
        model_id=card.model_id, model_type="gru", symbol=card.symbol, role=role.get("role", "champion"),
        decided_at=close, made_at=close + timedelta(minutes=2), horizon_hours=1, probability_up=probability,
        signal="BUY", reason="", base_rate=card.base_rate, trained_until=card.trained_until,
        candles_until=card.candles_until, candles="simulated", source=services.bot.source,
        against=role.get("against", ""),
    )  # fmt: skip


def closes_before(midnight: datetime, hours: int) -> list[datetime]:
    """The closes whose outcomes are the last ones realised before midnight."""
    return [midnight - HOUR * back for back in range(hours + 1, 1, -1)]


def test_a_machine_without_models_is_measured_at_once_and_says_no_champion(services):
    result = measured(services)
    document = stored(services, HISTORY)[NEWEST]
    assert (document["outcome"], document["models"], document["pooled"]) == ("no_champion", {}, None)
    assert check(result, "accuracy_has_not_dropped").passed
    assert check(result, "models_fresh").passed


def test_hours_nobody_recorded_are_reconstructed_by_a_model_that_had_not_seen_them(services):
    deploy(services)
    measured(services)
    row = stored(services, HISTORY)[NEWEST]["models"][NAME]
    assert (row["outcome"], row["n"] + row["void"], row["reconstructed"]) == ("measured", 24, row["n"])
    assert row["n_90d"] <= 30 * 24  # what it learnt from is not among it
    assert row["n_90d"] > 28 * 24
    assert row["interval_90d"][0] < row["accuracy_90d"] < row["interval_90d"][1]
    assert not row["deployed"]  # it was promoted the day after


def test_before_a_models_learning_ended_nothing_is_reconstructed(services):
    deploy(services)
    day = str((LEARNT + timedelta(hours=1)).date())
    measured(services, first="2025-02-01", last=str((LEARNT + timedelta(days=1)).date()))
    documents = stored(services, HISTORY)
    assert documents["2025-02-01"]["outcome"] == "no_champion"
    row = documents[day]["models"][NAME]
    assert row["n"] + row["void"] == 24 - 13  # learnt until 12:00: the first close is 12:00, realised at 13:00
    assert row["unpredicted"] == 13


def test_what_was_recorded_counts_and_is_not_made_up_again(services):
    card = deploy(services)
    closes = closes_before(MIDNIGHT, 24)  # 23:00 on the 8th to 22:00 on the 9th
    record_predictions(services.store, [saying(services, card, close, 0.6) for close in closes])
    measured(services)
    row = stored(services, HISTORY)[NEWEST]["models"][NAME]
    candles = services.candles.candles("BTCUSDT", NOON - timedelta(days=3), NOON)
    prices = candles["close"].loc["2025-03-08 22:00":"2025-03-09 22:00"].to_numpy()
    assert len(prices) == 25
    assert (row["n"], row["reconstructed"], row["unpredicted"]) == (24, 0, 0)
    assert row["accuracy"] == pytest.approx(float((np.diff(prices) > 0).mean()))
    assert row["base_rate"] == row["accuracy"]  # it always said a rise


def test_a_range_in_one_run_stores_the_same_bytes_as_day_by_day(make_services, tmp_path):
    one, each = (make_services(store=f"sqlite:///{tmp_path}/{name}.db") for name in ("one", "each"))
    days = [f"2025-03-{day:02}" for day in range(6, 10)]
    for services in (one, each):
        card = deploy(services)
        hours = closes_before(MIDNIGHT - timedelta(days=1), 30)
        record_predictions(services.store, [saying(services, card, close, 0.6) for close in hours])
    measured(one, first=days[0], last=days[-1])
    for day in days:
        measured(each, first=day)
    assert canonical_json(stored(one, HISTORY)) == canonical_json(stored(each, HISTORY))
    head = one.store.head(HISTORY)
    measured(one, first=days[0], last=days[-1])
    assert one.store.head(HISTORY) == head


def test_a_champion_without_a_prediction_is_not_a_day_without_a_champion(services):
    deploy(services, trained_until=NOON, candles="recorded")
    later = at(services, NOON + timedelta(days=1))
    measured(later, first="2025-03-10")
    document = stored(later, HISTORY)["2025-03-10"]
    assert document["outcome"] == "no_predictions"
    assert document["models"][NAME]["deployed"]


def test_an_old_champion_warns_and_a_fresh_one_does_not(services):
    deploy(services, candles_until=NOON - timedelta(days=50))
    later = at(services, NOON + timedelta(days=1))
    found = check(measured(later, first="2025-03-10"), "models_fresh")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    (delivery,) = later.outbox.deliveries()
    assert delivery["alert"]["severity"] == "WARNING"
    said = "gru/BTCUSDT is 50 days old, more than 45: it predicts HOLD"
    assert delivery["alert"]["what"] == f"{said}, 2025-03-10 (simulated candles)"


def test_a_confirmed_drop_of_more_than_five_points_warns(services):
    """The week before every hour was called right, in the last one every other one."""
    card = deploy(services)
    candles = services.candles.candles("BTCUSDT", NOON - timedelta(days=20), NOON)["close"]
    rows = []
    for place, close in enumerate(closes_before(MIDNIGHT, 24 * 14)):
        right = place < 24 * 7 or place % 2 == 0
        rise = candles[close] > candles[close - HOUR]
        rows.append(saying(services, card, close, 0.55 if right == rise else 0.45))
    record_predictions(services.store, rows)
    result = measured(services)
    row = stored(services, HISTORY)[NEWEST]["models"][NAME]
    assert row["drop_7d_pp"] > 40
    found = check(result, "accuracy_has_not_dropped")
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    what = f"{NAME}: accuracy over 7 days fell by {row['drop_7d_pp']:.1f} points, more than 5"
    assert what in "".join(delivery["alert"]["what"] for delivery in services.outbox.deliveries())


def test_the_shadow_report_of_three_weeks_is_in_the_document_and_on_the_asset(services):
    old, new = deploy(services), deploy(services, 2)
    candles = services.candles.candles("BTCUSDT", NOON - timedelta(days=30), NOON)["close"]
    closes, rows = closes_before(MIDNIGHT, 24 * 21), []
    for close in closes:
        rows.append(saying(services, new, close, 0.55 if candles[close] > candles[close - HOUR] else 0.45))
        rows.append(saying(services, old, close, 0.5, role="shadow", against=new.model_id))
    record_predictions(services.store, rows)
    result = measured(services)
    (row,) = stored(services, HISTORY)[NEWEST]["shadows"]
    moved = sum(candles[close] != candles[close - HOUR] for close in closes)
    assert (row["worth_it"], row["n"], row["shadow"]) == ("yes", moved, old.model_id)
    (event,) = result.asset_materializations_for_node("model_accuracy")
    (shown,) = event.metadata["was_the_retrain_worth_it"].records
    assert shown.data["worth it"] == "yes"
    assert "data:image/png" in event.metadata["accuracy_plot"].value
    assert [record.data["model"] for record in event.metadata["models"].records] == [NAME, "all"]


def test_history_tells_each_model_types_days(services):
    deploy(services)
    measured(services)
    assert [day["partition"] for day in services.history.get_model_accuracy_history("gru")] == [NEWEST]
    assert services.history.get_model_accuracy_history("lstm") == []


def test_a_symbol_whose_candles_cannot_be_read_says_so_and_keeps_no_other_from_it(make_services):
    whole = make_services().candles.candles("BTCUSDT", NOON - timedelta(days=120), NOON)
    broken = whole.copy()
    broken.loc[broken.index[-40], "high"] = 0.0
    services = make_services(symbols=("BTCUSDT", "ETHUSDT"))
    services._sources[("BTCUSDT", "ETHUSDT")] = ScriptedCandles({"BTCUSDT": whole, "ETHUSDT": broken}, NOON)
    for number, symbol in enumerate(("BTCUSDT", "ETHUSDT"), 1):
        before = at(services, NOON - timedelta(days=3))
        deploy(before, number, symbol=symbol, model_id=f"gru-{symbol}-{number:012x}", candles="scripted")
    found = check(measured(services), "accuracy_has_not_dropped")
    rows = stored(services, HISTORY)[NEWEST]["models"]
    assert (rows[NAME]["outcome"], rows[NAME]["deployed"]) == ("measured", True)
    assert (rows["gru/ETHUSDT"]["outcome"], rows["gru/ETHUSDT"]["n"]) == ("no_candles", 0)
    assert "high" in rows["gru/ETHUSDT"]["error"]
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "gru/ETHUSDT: its outcomes are unknown" in str(found.metadata["findings"].records[0].data["finding"])


@pytest.mark.chaos
def test_the_job_killed_at_any_moment_leaves_one_whole_prediction_an_hour(tmp_path):
    settings = QuietSettings(data_dir=tmp_path / "var")
    deploy(Services(settings), candles_until=datetime.now(UTC))
    code = (
        "from trading_ops.definitions import defs\n"
        "import dagster as dg\n"
        "job = defs.resolve_job_def('record_predictions')\n"
        "job.execute_in_process(instance=dg.DagsterInstance.ephemeral())\n"
    )
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "TRADING_OPS_DATA_DIR": str(tmp_path / "var")}
    for moment in np.random.default_rng(7).uniform(1.5, 7.0, 12):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=env, stderr=subprocess.DEVNULL)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True)
    services = Services(settings)
    records = services.store.read(COLLECTION, all_revisions=True)
    assert {record.revision for record in records} == {1}
    assert len(records) == len({(record.partition, record.key) for record in records}) >= 1
    assert services.store.verify() == []
