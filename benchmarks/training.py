"""How fast does a training learn, against the loop one would write first?

The reference is a loop over torch.utils.data.DataLoader with its default settings (shuffled, batches of the same size),
torch.optim.Adam and BCEWithLogitsLoss, validation batch by batch. Its network is made of torch.nn's own layers (LSTM,
GRU, TransformerEncoderLayer) and given the same weights as ours: that both say the same of a batch is checked first.
Ours is trainer.fit as train_model calls it: machine code in two threads, gradients clipped, validated and its best
weights kept. Wall time of one epoch, all that fit does before and after included but the compilation, whose code is
kept on disk; the best of each, in turn.

<type>_vs_reference: windows learnt a second, ours over the reference's, in torch's default number of threads or in one,
whichever is faster: where others use the cores, threads wait for each other and the reference loses up to sixtyfold.
That is real (<type>_vs_default_threads shows it) but says more of the machine than of the loops; `load` is how many
others there were. vs_reference_loop is the least of the first: who trains one model waits for that one.
<type>_cpu_vs_reference: CPU time, the reference in one thread; other work on the machine bears least on this.
<type>_vs_same_module: the reference loop in one thread around our own network module.
<type>_all_cores_vs_reference: as many trainings side by side as there are cores, a process each, as adaptive_retrain
runs them, over one reference loop.

Candles: DAYS (a year) of BTCUSDT, recorded ones beside the checkout where they are, else simulated. Says what misses a
target and ends non-zero then.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, Dataset  # noqa: E402

from trading_ops.market.candles import CandleSource  # noqa: E402
from trading_ops.market.parquet import ParquetCandles  # noqa: E402
from trading_ops.market.simulated import SimulatedCandles  # noqa: E402
from trading_ops.training.card import MODEL_TYPES  # noqa: E402
from trading_ops.training.features import samples_of  # noqa: E402
from trading_ops.training.model import scaled, scaler  # noqa: E402
from trading_ops.training.networks.build import build  # noqa: E402
from trading_ops.training.networks.compiled import loss_of, step_of  # noqa: E402
from trading_ops.training.networks.transformer import positions  # noqa: E402
from trading_ops.training.samples import Samples  # noqa: E402
from trading_ops.training.splits import Split, holdout_start, split  # noqa: E402
from trading_ops.training.trainer import Plan, fit  # noqa: E402

MARKET = ROOT.parent / "shared" / "data" / "market"
NOW = datetime(2025, 9, 19, 23, 30, tzinfo=UTC)
DAYS = int(os.environ.get("DAYS", "365"))
ROUNDS = int(os.environ.get("ROUNDS", "7"))
BATCH = int(os.environ.get("BATCH", str(Plan("lstm").batch_size)))
CORES = len(os.sched_getaffinity(0))
TARGETS = {"vs_reference_loop": 3.0}
STOCK_NAMES = {
    "out": "self_attn.out_proj", "widen": "linear1", "narrow": "linear2", "norm_attention": "norm1",
    "norm_forward": "norm2",
}  # fmt: skip


class Stock(nn.Module):
    """Our networks of torch.nn's own layers: windows [B, T, k] to log-odds [B]."""

    def __init__(self, model_type: str, ours: nn.Module, features: int) -> None:
        super().__init__()
        self.head = ours.head
        weights = ours.state_dict()
        if model_type == "transformer":
            self.embed, self.norm = ours.embed, ours.norm
            layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True)
            self.layer: nn.Module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.layer.load_state_dict(stock_names(weights))
        else:
            self.layer = {"lstm": nn.LSTM, "gru": nn.GRU}[model_type](features, 32, batch_first=True)
            self.layer.load_state_dict({name[6:]: weights[name] for name in weights if name.startswith("layer.")})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.layer, nn.TransformerEncoder):
            states = self.layer(self.embed(x) + positions(x.shape[1], 32))
            return self.head(self.norm(states[:, -1])).squeeze(-1)
        states, _ = self.layer(x)
        return self.head(states[:, -1]).squeeze(-1)


def stock_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The layers of our transformer under the names of torch.nn.TransformerEncoder."""
    pairs, found = STOCK_NAMES, {}
    for layer in range(2):
        for kind in ("weight", "bias"):
            here = {name: weights[f"layers.{layer}.{name}.{kind}"] for name in (*pairs, "query", "key_value")}
            found |= {f"layers.{layer}.{theirs}.{kind}": here[name] for name, theirs in pairs.items()}
            found[f"layers.{layer}.self_attn.in_proj_{kind}"] = torch.cat([here["query"], here["key_value"]])
    return found


class Windows(Dataset[Any]):
    """The window of each row, scaled, and its label."""

    def __init__(self, samples: Samples, rows: np.ndarray, bars: torch.Tensor) -> None:
        self.rows, self.bars, self.lookback = rows.tolist(), bars, samples.lookback
        self.labels = torch.from_numpy(samples.labels)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        row = self.rows[place]
        return self.bars[row - self.lookback + 1 : row + 1], self.labels[row]


def reference(samples: Samples, parts: Split, network: nn.Module, threads: int) -> Callable[[], None]:
    """One epoch of the plain loop, to be called."""
    fitted = scaler(samples.features[parts.train])
    bars = torch.from_numpy(scaled(samples.features, fitted["scaler.mean"], fitted["scaler.std"]))
    learnt = DataLoader(Windows(samples, parts.train, bars), batch_size=BATCH, shuffle=True)
    kept = DataLoader(Windows(samples, parts.validation, bars), batch_size=BATCH)
    optimiser, criterion = torch.optim.Adam(network.parameters(), lr=1e-3), nn.BCEWithLogitsLoss()

    def epoch() -> None:
        torch.set_num_threads(threads)
        network.train()
        total = 0.0
        for windows, labels in learnt:
            optimiser.zero_grad()
            loss = criterion(network(windows), labels)
            loss.backward()
            optimiser.step()
            total += loss.item()
        network.eval()
        with torch.no_grad():
            for windows, labels in kept:
                total += criterion(network(windows), labels).item()

    return epoch


def same(samples: Samples, model_type: str) -> tuple[nn.Module, nn.Module]:
    """Our network and the stock one with its weights; both say the same, and so does machine code in its place."""
    torch.manual_seed(0)
    ours = build(model_type, len(samples.names))
    stock = Stock(model_type, ours, len(samples.names))
    windows = torch.randn(64, samples.lookback, len(samples.names))
    answers = []
    for network in (ours, stock):
        said = network(windows)
        ours.head.zero_grad()
        said.sum().backward()
        answers.append((said.detach(), ours.head.weight.grad.clone()))
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    require_same_compiled(model_type, ours, stock, windows)
    return ours, stock


def require_same_compiled(model_type: str, ours: nn.Module, stock: nn.Module, windows: torch.Tensor) -> None:
    """Losses and gradients by machine code are those of the stock network."""
    labels = (torch.rand(len(windows)) > 0.5).float()
    stock.zero_grad()
    loss = nn.BCEWithLogitsLoss(reduction="sum")(stock(windows), labels)
    loss.backward()
    given = {name: value.detach().numpy() for name, value in ours.named_parameters()}, windows.numpy(), labels.numpy()
    np.testing.assert_allclose(loss_of(model_type)(*given), loss.item(), rtol=1e-5)
    found = {name: np.empty_like(value) for name, value in given[0].items()}
    np.testing.assert_allclose(step_of(model_type)(*given, found), loss.item(), rtol=1e-5)
    theirs = gradients_by_our_names(model_type, stock)
    assert found.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4 * np.abs(value).max(), err_msg=name)


def gradients_by_our_names(model_type: str, stock: nn.Module) -> dict[str, np.ndarray]:
    theirs = {name: value.grad for name, value in stock.named_parameters()}
    if model_type == "transformer":
        found = {name: value for name, value in theirs.items() if not name.startswith("layer.")}
        for layer in range(2):
            here = f"layer.layers.{layer}."
            for kind in ("weight", "bias"):
                for name, other in STOCK_NAMES.items():
                    found[f"layers.{layer}.{name}.{kind}"] = theirs[f"{here}{other}.{kind}"]
                query, key_value = theirs[f"{here}self_attn.in_proj_{kind}"].split([32, 64])
                found[f"layers.{layer}.query.{kind}"], found[f"layers.{layer}.key_value.{kind}"] = query, key_value
    else:
        found = theirs
    return {name: value.numpy() for name, value in found.items()}


def best(*works: Callable[[], Any]) -> tuple[list[float], list[float]]:
    """Wall and CPU seconds of each, the least of some rounds in turn, so that a busy moment meets all alike."""
    wall: list[list[float]] = [[] for _ in works]
    cpu: list[list[float]] = [[] for _ in works]
    for at in range(ROUNDS + 1):  # the first round warms and is left out
        for work, took, spent in zip(works, wall, cpu, strict=True):
            began, cpu_began = time.perf_counter(), time.process_time()
            work()
            if at:
                took.append(time.perf_counter() - began)
                spent.append(time.process_time() - cpu_began)
    return [min(times) for times in wall], [min(times) for times in cpu]


def ours_once(samples: Samples, parts: Split, model_type: str) -> None:
    fit(samples, parts, Plan(model_type, epochs=1, batch_size=BATCH), device="cpu")


def year() -> tuple[Samples, Split, str]:
    source: CandleSource = SimulatedCandles(lambda: NOW)
    if MARKET.is_dir():
        source = ParquetCandles(MARKET, lambda: NOW)
    candles = source.candles("BTCUSDT").iloc[-24 * DAYS :]
    samples = samples_of("BTCUSDT", candles)
    end = candles.index[-1].to_pydatetime() + timedelta(hours=1)
    return samples, split(samples, end - timedelta(days=DAYS), holdout_start(end), 0.2), source.label


def main() -> None:
    samples, parts, label = year()
    learnt, threads = len(parts.train), torch.get_num_threads()
    figures = {"load": round(os.getloadavg()[0], 1)}
    with ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn")) as cores:

        def all_cores(model_type: str) -> None:
            for running in [cores.submit(ours_once, samples, parts, model_type) for _ in range(CORES)]:
                running.result()

        for model_type in MODEL_TYPES:
            ours, stock = same(samples, model_type)
            (alone, together, default, single, around_ours), cpu = best(
                lambda name=model_type: ours_once(samples, parts, name),
                lambda name=model_type: all_cores(name),
                reference(samples, parts, stock, threads),
                reference(samples, parts, stock, 1),
                reference(samples, parts, ours, 1),
            )
            theirs = min(default, single)
            figures |= {
                f"{model_type}_vs_reference": round(theirs / alone, 2),
                f"{model_type}_cpu_vs_reference": round(cpu[3] / cpu[0], 2),
                f"{model_type}_vs_default_threads": round(default / alone, 2),
                f"{model_type}_vs_same_module": round(around_ours / alone, 2),
                f"{model_type}_all_cores_vs_reference": round(CORES * theirs / together, 2),
                f"{model_type}_samples_per_s": round(learnt / alone),
                f"{model_type}_all_cores_samples_per_s": round(CORES * learnt / together),
                f"{model_type}_reference_samples_per_s": round(learnt / theirs),
                f"{model_type}_default_threads_samples_per_s": round(learnt / default),
            }
    figures["vs_reference_loop"] = min(figures[f"{name}_vs_reference"] for name in MODEL_TYPES)
    figures["all_cores_vs_reference_loop"] = min(figures[f"{name}_all_cores_vs_reference"] for name in MODEL_TYPES)
    print(
        f"candles: {label}; {learnt} windows of {samples.lookback} bars, {len(samples.names)} features, in batches of "
        f"{BATCH}, {len(parts.validation)} for validation; wall time, the best of {ROUNDS}; {CORES} cores"
    )
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value}")
    missed = [f"{name} is {figures[name]}, below {least}" for name, least in TARGETS.items() if figures[name] < least]
    for text in missed:
        print(text, file=sys.stderr)
    print(json.dumps({"benchmark": "training", "candles": label, "figures": figures}))
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
