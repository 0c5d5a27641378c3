"""Is every model registered whole or not at all, and is there exactly one champion, whoever is killed?"""

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from trading_ops import files
from trading_ops.audit.mongo import MongoStore
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import AuditStore, StoreUnavailable
from trading_ops.training import champions, model_files, registry
from trading_ops.training.card import Card
from trading_ops.training.champions import NothingBefore, PromotionLost
from trading_ops.training.model_files import DamagedModel, RegistryError, UnknownModel
from trading_ops.training.registry import NoChampion, Registry
from trading_ops_tests.servers.mongod import Mongod

BEGAN = datetime(2025, 3, 10, tzinfo=UTC)
NAME = "lstm/BTCUSDT"


class Clock:
    """Goes on an hour at each look."""

    def __init__(self) -> None:
        self.at = BEGAN

    def __call__(self) -> datetime:
        self.at += timedelta(hours=1)
        return self.at


def card(number: int, symbol: str = "BTCUSDT", **more: Any) -> Card:
    return Card(
        **{
            "model_id": f"lstm-{symbol}-{number:012x}", "model_type": "lstm", "symbol": symbol, "horizon_hours": 1,
            "lookback": 48, "features": ("a", "b"), "created_at": BEGAN + timedelta(minutes=number),
            "trained_from": BEGAN - timedelta(days=60), "trained_until": BEGAN - timedelta(days=30),
            "candles_until": BEGAN, "base_rate": 0.5, "seed": number, "parameters": {"epochs": 3},
            "digests": {"data": "d"}, "candles": "recorded", "metrics": {}, "cost_cpu_s": 1.5, **more,
        }
    )  # fmt: skip


def weights(number: int) -> dict[str, np.ndarray]:
    return {"net.w": np.full((3, 2), number, "float32"), "scaler.mean": np.arange(2.0)}


@pytest.fixture(params=["sqlite", "mongodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AuditStore]:
    if request.param == "sqlite":
        with SqliteStore(tmp_path / "audit.db") as opened:
            yield opened
        return
    mongod: Mongod = request.getfixturevalue("mongod")
    with MongoStore(mongod.address(f"registry_{uuid4().hex}")) as opened:
        yield opened


@pytest.fixture
def models(store: AuditStore, tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models", store, Clock())


def three(models: Registry) -> list[str]:
    return [models.add(card(number), weights(number)).model_id for number in (1, 2, 3)]


def states(models: Registry) -> list[str]:
    return sorted(entry.state for entry in models.entries())


def promote(models: Registry, model_id: str, **more: Any) -> Card:
    return models.promote(model_id, by="ana", why="it is better", **more)


def test_a_model_is_given_back_as_it_was_registered(models: Registry, tmp_path: Path):
    stored = models.add(card(1), weights(1))
    assert stored.digests["weights"]
    assert models.card(stored.model_id) == stored
    found = models.weights(stored.model_id)
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in weights(1).items()}
    assert sorted(path.name for path in (tmp_path / "models" / stored.model_id).iterdir()) == [
        "card.json",
        "weights.safetensors",
    ]
    (entry,) = models.entries()
    assert (entry.state, entry.since, entry.files) == ("candidate", stored.created_at, True)


def test_a_model_that_is_there_stays_as_it_is(models: Registry):
    first = models.add(card(1), weights(1))
    again = models.add(card(1, cost_cpu_s=9.0), weights(2))
    assert again == first
    assert len(models.entries()) == 1


@pytest.mark.parametrize("name", ["weights.safetensors", "card.json"])
def test_a_damaged_model_is_replaced_by_the_same_one_made_again(models: Registry, tmp_path: Path, name: str):
    first = models.add(card(1), weights(1))
    (tmp_path / "models" / first.model_id / name).write_bytes(b"{")
    assert models.add(card(1), weights(1)) == first
    assert models.weights(first.model_id)["net.w"].tobytes() == weights(1)["net.w"].tobytes()


def test_of_a_name_there_is_one_champion_and_those_before_are_archived(models: Registry):
    one, two, _ = three(models)
    promote(models, one)
    assert models.champion(NAME).model_id == one
    promote(models, two)
    assert models.champion(NAME).model_id == two
    assert states(models) == ["archived", "candidate", "champion"]
    other = models.add(card(9, "ETHUSDT"), weights(9)).model_id
    promote(models, other)
    assert {name: found.model_id for name, found in models.champions().items()} == {NAME: two, "lstm/ETHUSDT": other}


def test_promotions_say_who_why_and_whom_they_replaced(models: Registry, store: AuditStore):
    one, two, _ = three(models)
    promote(models, one)
    models.promote(two, by="adaptive_retrain", why="better", expected=one, verdict={"p_value": 0.01})
    first, second = (record.body for record in store.read("promotions"))
    assert (first["number"], first["model_id"], first["replaced"], first["by"]) == (1, one, None, "ana")
    assert (second["number"], second["replaced"], second["verdict"]) == (2, one, {"p_value": 0.01})


def test_a_promotion_that_was_done_already_changes_nothing(models: Registry, store: AuditStore):
    one, _, _ = three(models)
    promote(models, one)
    promote(models, one, expected=None)
    assert len(store.read("promotions")) == 1


def test_a_promotion_that_expects_another_champion_is_told_whom_it_lost_to(models: Registry):
    one, two, three_ = three(models)
    promote(models, one)
    promote(models, two)
    with pytest.raises(PromotionLost, match=f"{two} became the champion of {NAME} .* by ana"):
        promote(models, three_, expected=one)
    with pytest.raises(PromotionLost):
        promote(models, three_, expected=None)
    assert models.champion(NAME).model_id == two


def test_a_rollback_goes_back_one_and_another_one_further(models: Registry, store: AuditStore):
    one, two, three_ = three(models)
    for model_id in (one, two, three_):
        promote(models, model_id)
    assert models.rollback(NAME, by="ana", why="it lost money").model_id == two
    assert models.rollback(NAME, by="ana", why="so did that").model_id == one
    with pytest.raises(NothingBefore, match="no champion before this one"):
        models.rollback(NAME, by="ana", why="again")
    assert [record.body["kind"] for record in store.read("promotions")] == ["promote"] * 3 + ["rollback"] * 2
    promote(models, three_)
    assert models.rollback(NAME, by="ana", why="no").model_id == one


def test_a_rollback_that_names_whom_it_leaves_goes_no_further_back_when_repeated(models: Registry):
    one, two, three_ = three(models)
    for model_id in (one, two, three_):
        promote(models, model_id)
    assert models.rollback(NAME, by="ana", why="no", expected=three_).model_id == two
    with pytest.raises(PromotionLost, match=f"{two} became the champion"):
        models.rollback(NAME, by="ana", why="no", expected=three_)
    assert models.champion(NAME).model_id == two


def test_what_killed_writers_left_is_swept_after_an_hour(models: Registry, tmp_path: Path):
    folder = tmp_path / "models"
    (folder / ".lstm-x.abc.part").mkdir(parents=True)
    left = [folder / ".lstm-x.abc.part", folder / "champions.json.abc.part"]
    left[1].write_text("{}")
    young = folder / "champions.json.young.part"
    young.write_text("{}")
    for path in left:
        os.utime(path, (0, 0))
    models.add(card(1), weights(1))
    assert [path.exists() for path in (*left, young)] == [False, False, True]


def test_a_rollback_to_a_model_that_cannot_be_used_is_refused(models: Registry, tmp_path: Path):
    one, two, _ = three(models)
    promote(models, one)
    promote(models, two)
    (tmp_path / "models" / one / "weights.safetensors").write_bytes(b"other bytes")
    with pytest.raises(DamagedModel, match="its SHA-256 is not the card's"):
        models.rollback(NAME, by="ana", why="no")
    assert models.champion(NAME).model_id == two


@pytest.mark.parametrize("name", ["weights.safetensors", "card.json"])
def test_a_damaged_file_is_named_and_keeps_no_other_model_from_predicting(models: Registry, tmp_path: Path, name: str):
    one, two, _ = three(models)
    promote(models, one)
    promote(models, models.add(card(9, "ETHUSDT"), weights(9)).model_id)
    (tmp_path / "models" / one / name).write_bytes(b"{")
    with pytest.raises(DamagedModel, match=f"{name} cannot be used.*roll back"):
        models.weights(one)
    assert NAME in models.damaged_champions()
    assert "lstm/ETHUSDT" in models.champions()
    assert two in [entry.card.model_id for entry in models.entries()]


def test_unknown_models_and_names_that_leave_the_folder_are_refused(models: Registry):
    three(models)
    with pytest.raises(UnknownModel, match="did you mean lstm-BTCUSDT-00000000000"):
        models.card("lstm-BTCUSDT-000000000004")
    for odd in ("../audit", "", ".hidden", "a/b"):
        with pytest.raises(UnknownModel):
            models.card(odd)
    with pytest.raises(RegistryError, match="letters, digits"):
        models.add(card(1, model_id="../up"), weights(1))
    with pytest.raises(NoChampion, match="has no champion"):
        models.require_champion("gru/BTCUSDT")


def test_a_model_whose_index_was_not_written_is_indexed_by_the_next_look(models: Registry, store: AuditStore):
    model_files.ModelFiles(models._files.folder).put(card(7), weights(7))
    assert store.read("model_registry") == []
    models.entries()
    (record,) = store.read("model_registry")
    assert record.key == card(7).model_id


def test_a_model_without_files_is_listed_as_such(models: Registry, tmp_path: Path):
    one, _, _ = three(models)
    for path in (tmp_path / "models" / one).iterdir():
        path.unlink()
    (tmp_path / "models" / one).rmdir()
    assert [entry.files for entry in models.entries()].count(False) == 1


def test_who_was_champion_when_is_known_and_the_replaced_one_is_a_shadow_for_thirty_days(models: Registry):
    one, two, _ = three(models)
    assert models.reigns(NAME) == []
    promote(models, one)
    since = next(entry.since for entry in models.entries() if entry.state == "champion")
    promote(models, two)
    until = next(entry.since for entry in models.entries() if entry.state == "archived")
    assert models.reigns(NAME) == [(one, since), (two, until)]
    (shadow,) = models.shadows(until + timedelta(days=29))
    assert (shadow.card.model_id, shadow.replaced_by) == (one, two)
    assert models.shadows(until + timedelta(days=30)) == []


def test_looks_that_overlap_are_counted_and_the_same_one_once(models: Registry):
    day = timedelta(days=1)
    assert models.look(NAME, BEGAN, BEGAN + 30 * day, key="a") == 1
    assert models.look(NAME, BEGAN, BEGAN + 30 * day, key="a") == 1
    assert models.look(NAME, BEGAN + 10 * day, BEGAN + 40 * day, key="b") == 2
    assert models.look(NAME, BEGAN + 40 * day, BEGAN + 70 * day, key="c") == 1
    assert models.look(NAME, BEGAN + 35 * day, BEGAN + 65 * day, key="d") == 3
    assert models.look("gru/BTCUSDT", BEGAN, BEGAN + 30 * day, key="a") == 1


def test_of_two_that_promote_at_once_one_wins_and_the_other_is_told(
    models: Registry, store: AuditStore, tmp_path: Path
):
    ids = three(models)
    said: list[str] = []
    start = threading.Barrier(3)

    def run(model_id: str) -> None:
        mine = Registry(tmp_path / "models", store, Clock())
        start.wait()
        try:
            mine.promote(model_id, by=model_id, why="race", expected=None)
            said.append("won")
        except PromotionLost:
            said.append("lost")

    threads = [threading.Thread(target=run, args=(model_id,)) for model_id in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == ["lost", "lost", "won"]
    assert len(store.read("promotions")) == 1


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"model_id": 5},
        {"past": None},
        {"since": "2025-03-10T00:00:00"},
        {"change": {}},
        {"past": [{"model_id": "m", "since": "2025-03-10T00:00:00+00:00", "by": "", "why": ""}]},
        {"stack": "abc"},
    ],
)
def test_a_damaged_document_of_one_champion_keeps_no_other_from_predicting(
    models: Registry, store: AuditStore, damage: dict[str, Any]
):
    one, two, _ = three(models)
    promote(models, one)
    promote(models, models.add(card(9, "ETHUSDT"), weights(9)).model_id)
    document = store.get_state("champions", NAME)
    assert document is not None
    body = {**document.body, **damage} if damage else {}
    store.put_state("champions", NAME, body, expected_version=document.version)
    assert list(models.champions()) == ["lstm/ETHUSDT"]
    assert "cannot be read" in models.damaged_champions()[NAME]
    assert (models.shadows(BEGAN), models.reigns(NAME), len(models.entries())) == ([], [], 4)
    promote(models, two, expected=None)
    assert models.champion(NAME).model_id == two
    assert [r.body["number"] for r in store.read("promotions") if r.body["name"] == NAME] == [1, 2]


@pytest.mark.parametrize("copy", ["[1]", "null", '{"lstm/BTCUSDT": 1}', '{"lstm/BTCUSDT": {}}', "{"])
def test_a_copy_that_is_none_names_no_champion(models: Registry, tmp_path: Path, copy: str):
    promote(models, three(models)[0])
    (tmp_path / "models" / "champions.json").write_text(copy)
    cut = Registry(tmp_path / "models", Away(), Clock())  # type: ignore[arg-type]
    if copy.startswith('{"'):
        assert cut.champions() == {}
    else:
        with pytest.raises(RegistryError, match=r"champions\.json cannot be read"):
            cut.champions()


class Away:
    """A store that cannot be reached."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def called(*_: Any, **__: Any) -> Any:
            raise StoreUnavailable("the store is down")

        return called


def test_while_the_store_is_away_champions_predict_and_none_is_promoted(models: Registry, tmp_path: Path):
    one, two, _ = three(models)
    promote(models, one)
    cut = Registry(tmp_path / "models", Away(), Clock())  # type: ignore[arg-type]
    assert cut.champion(NAME).model_id == one
    assert list(cut.champions()) == [NAME]
    for refused in (lambda: promote(cut, two), lambda: cut.rollback(NAME, by="ana", why="no")):
        with pytest.raises(StoreUnavailable):
            refused()
    assert models.champion(NAME).model_id == one


WATCHED = {module.__file__ for module in (registry, champions, model_files, files)}


def killed_at(line: int, folder: Path) -> bool:
    """Whether a process that registers model 2 and promotes it was killed at that line of ours, counted as they run."""
    child = os.fork()
    if not child:
        left = line

        def trace(frame: FrameType, event: str, _: object) -> Any:
            nonlocal left
            if frame.f_code.co_filename not in WATCHED:
                return None
            left -= event == "line"
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return trace

        store = SqliteStore(folder / "audit.db")
        mine = Registry(folder / "models", store, Clock())
        sys.settrace(trace)
        mine.add(card(2), weights(2))
        mine.promote(card(2).model_id, by="ana", why="better", expected=card(1).model_id)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def prove_at(line: int, folder: Path) -> bool:
    """Kill there, look at what is left, and do it again; whether anybody was killed."""
    folder.mkdir()
    with SqliteStore(folder / "audit.db") as store:
        before = Registry(folder / "models", store, Clock())
        promote(before, before.add(card(1), weights(1)).model_id)
    killed = killed_at(line, folder)
    with SqliteStore(folder / "audit.db") as store:
        after = Registry(folder / "models", store, Clock())
        champion = after.champion(NAME)
        assert champion.model_id in (card(1).model_id, card(2).model_id)
        after.weights(champion.model_id)
        whole = [entry.card.model_id for entry in after.entries()]
        for model_id in whole:
            after.weights(model_id)
        assert states(after).count("champion") == 1
        after.add(card(2), weights(2))
        promote(after, card(2).model_id)
        assert after.champion(NAME).model_id == card(2).model_id
        assert states(after) == ["archived", "champion"]
        assert [record.body["number"] for record in store.read("promotions")] == [1, 2]
        copy = json.loads((folder / "models" / "champions.json").read_text())
        assert copy[NAME]["model_id"] == card(2).model_id
    return killed


def lines_until_done(folder: Path) -> int:
    """How many lines it takes when nobody is killed."""
    low, high = 1, 4096
    while low < high:
        middle = (low + high) // 2
        (folder / str(middle)).mkdir()
        with SqliteStore(folder / str(middle) / "audit.db") as store:
            before = Registry(folder / str(middle) / "models", store, Clock())
            promote(before, before.add(card(1), weights(1)).model_id)
        low, high = (middle + 1, high) if killed_at(middle, folder / str(middle)) else (low, middle)
    return low


def test_killed_at_any_line_there_is_one_champion_and_no_half_of_a_model(tmp_path: Path):
    lines = lines_until_done(tmp_path)
    assert lines > 100
    places = np.unique(np.linspace(1, lines - 1, 24).astype(int))
    assert all(prove_at(int(line), tmp_path / f"at-{line}") for line in places)


@pytest.mark.chaos
def test_killed_at_every_line_there_is_one_champion_and_no_half_of_a_model(tmp_path: Path):
    lines = lines_until_done(tmp_path)
    assert all(prove_at(line, tmp_path / f"at-{line}") for line in range(1, lines))
    assert not prove_at(lines, tmp_path / "done")
