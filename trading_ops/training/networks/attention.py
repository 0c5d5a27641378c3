"""What do the Transformer's weights learn from a batch on a processor? Imported only where they learn: numba takes half
a second.

A layer norm's gain g and shift s, and the 1 / sqrt(width / heads) of attention (Vaswani et al., arXiv 1706.03762), are
folded into the weights that read them: W (g x + s) + b = (W g) x + (W s + b). So the kernel has none of them, and the
chain rule carries its gradients back: with U = W g and c = W s + b, dW = dU g + dc s^T, dg = sum over rows of dU W,
ds = W^T dc.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from trading_ops.training.networks.attention_kernel import HEADS, Layer, Network, learn
from trading_ops.training.networks.transformer import positions

_LAYERS = ("layers.0.", "layers.1.")

Arrays = Mapping[str, np.ndarray]


def step(weights: Arrays, windows: np.ndarray, labels: np.ndarray, gradients: Arrays) -> float:
    """The sum of the binary cross-entropies of windows [B, T, k] with labels [B]; its gradients overwrite `gradients`.

    Both are named as the parameters of Transformer(k). All are float32 and contiguous. Threads may call it side by
    side, and the same batch gives the same bits.
    """
    network = _folded(weights)
    slopes = Network(*map(_zeros, network))
    loss = learn(windows, labels, _places(windows.shape[1], len(network.embed)), network, slopes)
    _unfold(slopes, weights, gradients)
    return float(loss)


def loss(weights: Arrays, windows: np.ndarray, labels: np.ndarray) -> float:
    """The same sum; its gradients, which come with it, are left aside: a pass without them is no kernel of its own."""
    return step(weights, windows, labels, {name: np.empty_like(value) for name, value in weights.items()})


def _zeros(part: Any) -> Any:
    return Layer(*map(np.zeros_like, part)) if isinstance(part, Layer) else np.zeros_like(part)


@lru_cache(maxsize=8)
def _places(bars: int, width: int) -> np.ndarray:
    """The code of each bar's position, [width, T]."""
    return np.ascontiguousarray(positions(bars, width).numpy().T)


@lru_cache(maxsize=8)
def _scale(width: int) -> np.ndarray:
    """What queries, keys and values are multiplied by, [3 * width, 1]."""
    scale = np.ones((3 * width, 1), np.float32)
    scale[:width] = (width / HEADS) ** -0.5
    return scale


def _folded(weights: Arrays) -> Network:
    first, last = (_folded_layer(weights, at) for at in _LAYERS)
    head = _normless(*_linear(weights, "head"), weights, "norm")
    return Network(*_linear(weights, "embed"), first, last, *head)


def _folded_layer(weights: Arrays, at: str) -> Layer:
    parts = (_linear(weights, at + "query"), _linear(weights, at + "key_value"))
    read, read_bias = map(np.concatenate, zip(*parts, strict=True))
    read, read_bias = _normless(read, read_bias, weights, at + "norm_attention")
    scale = _scale(read.shape[1])
    widen = _normless(*_linear(weights, at + "widen"), weights, at + "norm_forward")
    out, narrow = _linear(weights, at + "out"), _linear(weights, at + "narrow")
    return Layer(read * scale, read_bias * scale[:, 0], *out, *widen, *narrow)


def _linear(arrays: Arrays, name: str) -> tuple[np.ndarray, np.ndarray]:
    return arrays[name + ".weight"], arrays[name + ".bias"]


def _normless(weight: np.ndarray, bias: np.ndarray, weights: Arrays, norm: str) -> tuple[np.ndarray, np.ndarray]:
    """The weight and bias that read bars normalised without the gain and shift of `norm`."""
    gain, shift = _linear(weights, norm)
    return weight * gain, weight @ shift + bias


def _unfold(slopes: Network, weights: Arrays, gradients: Arrays) -> None:
    """The gradients of `weights` from the slopes of what they were folded to."""
    _copy(gradients, "embed", slopes.embed, slopes.embed_bias)
    for at, layer in zip(_LAYERS, (slopes.first, slopes.last), strict=True):
        width = len(layer.out)
        read, read_bias = layer.read * _scale(width), layer.read_bias * _scale(width)[:, 0]
        _unnorm(gradients, at + "query", read[:width], read_bias[:width], weights, at + "norm_attention")
        _unnorm(gradients, at + "key_value", read[width:], read_bias[width:], weights, at + "norm_attention", True)
        _copy(gradients, at + "out", layer.out, layer.out_bias)
        _unnorm(gradients, at + "widen", layer.widen, layer.widen_bias, weights, at + "norm_forward")
        _copy(gradients, at + "narrow", layer.narrow, layer.narrow_bias)
    _unnorm(gradients, "head", slopes.head, slopes.head_bias, weights, "norm")


def _copy(gradients: Arrays, name: str, of_weight: np.ndarray, of_bias: np.ndarray) -> None:
    gradients[name + ".weight"][:], gradients[name + ".bias"][:] = of_weight, of_bias


def _unnorm(
    gradients: Arrays,
    name: str,
    of_folded: np.ndarray,
    of_bias: np.ndarray,
    weights: Arrays,
    norm: str,
    add: bool = False,
) -> None:
    """The gradients of the weight and bias `name` and of the gain and shift they read; `add` to those there are."""
    weight = weights[name + ".weight"]
    gain, shift = _linear(weights, norm)
    of_gain, of_shift = _linear(gradients, norm)
    if not add:
        of_gain[:], of_shift[:] = 0, 0
    np.add(of_folded * gain, of_bias[:, None] * shift, out=gradients[name + ".weight"])
    gradients[name + ".bias"][:] = of_bias
    of_gain += np.add.reduce(of_folded * weight)
    of_shift += of_bias @ weight
