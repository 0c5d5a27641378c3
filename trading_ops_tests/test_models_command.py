"""`trading-ops models` and the training jobs, as real processes in a home of their own."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from trading_ops_tests.conftest import NOON
from trading_ops_tests.test_cli import BIN, command, new_home
from trading_ops_tests.training.markets import folder_of, walk

SMALL = ["--days", "60", "--epochs", "4", "--batch-size", "64"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with candles of TOLDUSDT, which can be foretold."""
    folder = new_home(tmp_path_factory.mktemp("home"))
    candles = folder_of(folder / "candles", TOLDUSDT=walk(NOON.replace(minute=0), 120, told=0.6))
    (folder / ".env").write_text(f"TRADING_OPS_CANDLES={candles}\nTRADING_OPS_SYMBOLS=TOLDUSDT\n")
    return folder


def models(home: Path, *line: str) -> tuple[int, str, str]:
    done = command(["trading-ops", "models", *line], home)
    return done.returncode, done.stdout, done.stderr


def trained(home: Path, *line: str) -> str:
    """The id of a model trained with this seed and more."""
    code, said, wrong = models(home, "train", "lstm", "TOLDUSDT", *SMALL, *line, "--json")
    assert (code, wrong) == (0, "")
    (card,) = json.loads(said)["models"]
    return card["model_id"]


def test_a_model_is_trained_shown_promoted_and_rolled_back(home: Path):
    """The rollback drill: two models, the second promoted by mistake, one command back."""
    code, said, wrong = models(home, "list")
    assert (code, said.strip(), wrong) == (0, "no model yet: trading-ops models train lstm BTCUSDT", "")
    code, said, wrong = models(home, "train", "lstm", "toldusdt", *SMALL)
    assert (code, wrong) == (0, "")
    for part in ("the model", "logistic", "base rate", "unseen hours, Brier", "Candidates do not predict"):
        assert part in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80
    good, bad = trained(home), trained(home, "--seed", "2", "--epochs", "1")
    assert good != bad
    for model_id, replaced in ((good, ""), (bad, f", in place of {good}")):
        code, said, wrong = models(home, "promote", model_id, "--reason", "drill", "--by", "ana")
        assert (code, wrong) == (0, "")
        assert " ".join(said.split()) == f"{model_id} is the champion of lstm/TOLDUSDT{replaced}"
    code, said, wrong = models(home, "rollback", "lstm/TOLDUSDT", "--reason", "it lost money", "--json")
    assert (code, json.loads(said)["champion"], json.loads(said)["replaced"]) == (0, good, bad)
    listed = models(home, "list")[1]
    assert max(map(len, listed.splitlines())) <= 80
    assert good in listed, "an id is copied from here"
    states = {row["model_id"]: row["state"] for row in json.loads(models(home, "list", "--json")[1])}
    assert states == {good: "champion", bad: "archived"}
    (home / "predict.yaml").write_text("ops: {predict: {config: {symbol: TOLDUSDT, hours: 3}}}")
    line = f"dagster job execute -m trading_ops.definitions -j predict_price -c {home / 'predict.yaml'}"
    done = command(line.split(), home)
    assert done.returncode == 0, done.stderr[-2000:]
    (forecast,) = json.loads(command(["trading-ops", "history", "forecasts", "--json"], home).stdout)
    assert (forecast["model_id"], len(forecast["hours"])) == (good, 3)
    code, said, wrong = models(home, "rollback", "lstm/TOLDUSDT", "--reason", "again")
    assert code == 2
    assert "no champion before this one" in wrong
    code, said, _ = models(home, "show", good)
    assert code == 0
    for part in ("champion since", "it lost money", "rises there", "epochs 4", "CPU-seconds"):
        assert part in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= 80


def test_a_champion_whose_card_is_damaged_can_be_left_by_rollback_and_by_promotion(home: Path):
    one, two = trained(home, "--seed", "7", "--epochs", "1"), trained(home, "--seed", "8", "--epochs", "1")
    for model_id in (one, two):
        assert models(home, "promote", model_id, "--reason", "drill")[0] == 0
    card = home / "var" / "models" / two / "card.json"
    whole = card.read_bytes()
    card.write_bytes(b"{")
    code, said, wrong = models(home, "rollback", "lstm/TOLDUSDT", "--reason", "damaged")
    assert (code, wrong) == (0, "")
    assert " ".join(said.split()) == f"{one} is the champion of lstm/TOLDUSDT again, in place of {two}"
    card.write_bytes(whole)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["train", "prophet"], "model_type is 'prophet': lstm, gru, transformer would be right"),
        (["train", "lstm", "NOUSDT"], "NOUSDT: no recorded candles; there are TOLDUSDT"),
        (["train", "lstm", "TOLDUSDT", "--end", "2031-01-01"], "end is 2031-01-01, itself left out"),
        (["train", "lstm", "TOLDUSDT", "--batch-size", "100"], "a power of two from 8 to 65536"),
        (["show", "lstm-X"], "lstm-X: no such model"),
        (["promote", "lstm-X", "--reason", "why"], "lstm-X: no such model"),
    ],
)
def test_bad_input_exits_2_with_what_would_be_right(home: Path, line: list[str], said: str):
    code, out, wrong = models(home, *line)
    assert (code, out) == (2, "")
    assert said in wrong


def job(home: Path, **config: object) -> list[str]:
    file = home / "job.yaml"
    file.write_text(yaml.safe_dump({"ops": {"train_models": {"config": config}}}))
    return f"dagster job execute -m trading_ops.definitions -j train_model -c {file}".split()


def test_a_training_job_that_is_killed_goes_on_and_ends_with_the_same_weights(home: Path, tmp_path: Path):
    config = {"symbol": "TOLDUSDT", "days_of_data": 60, "epochs": 22, "batch_size": 64, "seed": 5, "model_type": "gru"}
    whole = new_home(tmp_path)
    (whole / ".env").write_text((home / ".env").read_text())
    assert command(job(whole, **config), whole).returncode == 0
    line, checkpoint = job(home, **config), home / "var" / "training"
    environment = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(home), "DAGSTER_HOME": str(home)}
    with subprocess.Popen(
        [BIN / line[0], *line[1:]],
        cwd=home,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as first:
        deadline = time.monotonic() + 300
        while not list(checkpoint.glob("gru-*.checkpoint")) and time.monotonic() < deadline and first.poll() is None:
            time.sleep(0.01)
        os.killpg(first.pid, signal.SIGKILL)
    assert first.returncode == -signal.SIGKILL
    assert list(checkpoint.glob("gru-*.checkpoint"))
    done = command(line, home)
    assert done.returncode == 0, done.stderr[-2000:]
    (one,) = (home / "var" / "models").glob("gru-*/weights.safetensors")
    (other,) = (whole / "var" / "models").glob("gru-*/weights.safetensors")
    assert one.read_bytes() == other.read_bytes()
    assert not list(checkpoint.glob("gru-*.checkpoint"))
