"""How do a batch's loss and gradients follow from the Transformer's weights, in machine code?

The network of transformer.py forward and backward, a window at a time: what becomes of its T bars stays in the
processor's cache, and OpenBLAS starts no threads for products as small as these: up to 4 * 65536 multiplications, and
so 85 bars of width 32. One file: numba keeps its machine code until this file changes, whatever else does.

Bars lie in columns, [width, T]: loops over bars run in the processor's vectors, and the rows of a head are contiguous.
`of_x` is the slope of the loss along x; with `weight` [out, in] and y = weight x, of_weight is of_y x^T and of_x is
weight^T of_y. Two identities save work:

- The last layer asks for one bar only, so that no bar's key or value is needed: q . (K x) = (K^T q) . x, and
  sum_t p_t V x_t = V sum_t p_t x_t. A key's bias adds the same to all scores, which softmax ignores.
- Phi, the normal distribution in gelu (Hendrycks and Gimpel, arXiv 1606.08415), takes one exponential in Abramowitz
  and Stegun's 7.1.26, right to 1e-7, and so does the slope of gelu: the same one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np

from trading_ops.machine_code import compiled

HEADS = 4
EPSILON = np.float32(1e-5)  # of torch.nn.LayerNorm

Array = np.ndarray
Decorator = Callable[[Any], Any]

_part: Decorator = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
_summing: Decorator = numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})  # in lanes
_within: Decorator = numba.njit(inline="always")  # as part of what calls it, which compiles sooner


class Layer(NamedTuple):
    """Weights of a layer, each [out, in], and biases [out]; or their slopes."""

    read: Array  # query, key and value below each other, [3 * width, width]
    read_bias: Array
    out: Array
    out_bias: Array
    widen: Array
    widen_bias: Array
    narrow: Array
    narrow_bias: Array


class Network(NamedTuple):
    """All weights, for bars normalised without gain and shift and queries that are scaled; or their slopes."""

    embed: Array  # [width, k]
    embed_bias: Array
    first: Layer
    last: Layer
    head: Array  # [1, width]
    head_bias: Array


@compiled
def learn(windows: Array, labels: Array, places: Array, net: Network, slopes: Network) -> float:
    """The sum of the losses of windows [B, T, k] with labels [B]; `slopes` grow by its gradients.

    `places` [width, T] are the codes of the bars' positions.
    """
    total = 0.0
    for at in range(len(windows)):
        state = _added(places, net.embed, net.embed_bias, windows[at].T)
        attended, for_attend = _attend(state, net.first)
        fed, for_feed = _feed(attended, net.first)
        asked, for_ask = _ask(fed, net.last)
        last, for_last = _feed(asked, net.last)
        said, rate = _normed(last)
        loss, miss = _loss(_linear(net.head, net.head_bias, said), labels[at])
        total += loss
        slope = np.zeros_like(last)
        _add_norm_slopes(_linear_slopes(miss, said, net.head, slopes.head, slopes.head_bias), said, rate, slope)
        _feed_slopes(slope, for_last, net.last, slopes.last)
        slope = _ask_slopes(slope, for_ask, net.last, slopes.last)
        _feed_slopes(slope, for_feed, net.first, slopes.first)
        _attend_slopes(slope, for_attend, net.first, slopes.first)
        _add(np.dot(slope, windows[at]), slopes.embed)
        _add_row_sums(slope, slopes.embed_bias)
    return total


# The network's parts: each gives its state and what its slopes will need.


@_within
def _attend(state: Array, layer: Layer) -> Any:
    """Attention of all bars to all, states [width, T] to such.

    Scores lie with the bar that asks in columns, so that softmax goes down them.
    """
    width, bars = state.shape
    normed, rate = _normed(state)
    read = _linear(layer.read, layer.read_bias, normed).reshape(3, HEADS, width // HEADS, bars)
    query, key, value = read[0], read[1], read[2]
    shares = np.empty((HEADS, bars, bars), np.float32)  # [head, bar read, bar asking]
    found = np.empty((HEADS, width // HEADS, bars), np.float32)
    for head in range(HEADS):
        np.dot(key[head].T, query[head], shares[head])
        _softmax(shares[head])
        np.dot(value[head], shares[head], found[head])
    together = found.reshape(width, bars)
    return _added(state, layer.out, layer.out_bias, together), (normed, rate, read, shares, together)


@_within
def _attend_slopes(slope: Array, known: Any, layer: Layer, slopes: Layer) -> None:
    """From the slope of what _attend gave to that of its state, in place, [width, T]."""
    normed, rate, read, shares, found = known
    query, key, value = read[0], read[1], read[2]
    of_found = _linear_slopes(slope, found, layer.out, slopes.out, slopes.out_bias).reshape(query.shape)
    of_read, of_share = np.empty_like(read), np.empty_like(shares[0])
    of_query, of_key, of_value = of_read[0], of_read[1], of_read[2]
    for head in range(HEADS):
        np.dot(value[head].T, of_found[head], of_share)
        np.dot(of_found[head], shares[head].T, of_value[head])
        _softmax_slopes(of_share, shares[head])
        np.dot(key[head], of_share, of_query[head])
        np.dot(query[head], of_share.T, of_key[head])
    together = of_read.reshape(len(layer.read), len(slope[0]))
    _add_norm_slopes(_linear_slopes(together, normed, layer.read, slopes.read, slopes.read_bias), normed, rate, slope)


@_within
def _ask(state: Array, layer: Layer) -> Any:
    """Attention of the last bar to all, states [width, T] to [width, 1]."""
    width = len(state)
    key, value = layer.read[width : 2 * width], layer.read[2 * width :]
    normed, rate = _normed(state)
    query = _apart(_linear(layer.read[:width], layer.read_bias[:width], _last(normed)))
    pulls = np.dot(query, key)  # K^T q, [head, width]
    shares = np.dot(normed.T, pulls.T)  # [T, head]
    _softmax(shares)
    seen = np.dot(shares.T, normed.T)  # sums of p_t x_t, [head, width]
    found = _together(np.dot(seen, value.T))
    _add_bias(found, layer.read_bias[2 * width :])
    asked = _added(_last(state), layer.out, layer.out_bias, found)
    return asked, (normed, rate, query, pulls, shares, seen, found)


@_within
def _ask_slopes(slope: Array, known: Any, layer: Layer, slopes: Layer) -> Array:
    """From the slope of what _ask gave, [width, 1], to that of its state, [width, T]."""
    normed, rate, query, pulls, shares, seen, found = known
    width = len(normed)
    key, value = layer.read[width : 2 * width], layer.read[2 * width :]
    of_one = _linear_slopes(slope, found, layer.out, slopes.out, slopes.out_bias)
    _add_row_sums(of_one, slopes.read_bias[2 * width :])
    of_found = _apart(of_one)
    _add(np.dot(of_found.T, seen), slopes.read[2 * width :])
    of_seen = np.dot(of_found, value)
    of_scores = np.dot(normed.T, of_seen.T)
    _softmax_slopes(of_scores, shares)
    of_pulls = np.dot(of_scores.T, normed.T)
    _add(np.dot(query.T, of_pulls), slopes.read[width : 2 * width])
    of_query = _together(np.dot(of_pulls, key.T))
    ask, of_ask, of_ask_bias = layer.read[:width], slopes.read[:width], slopes.read_bias[:width]
    of_asking = _linear_slopes(of_query, _last(normed), ask, of_ask, of_ask_bias)
    moved, whole = np.dot(of_seen.T, shares.T), np.zeros_like(normed)
    _add(np.dot(pulls.T, of_scores.T), moved)
    for i in range(width):  # the last bar is read twice: it asks
        moved[i, -1] += of_asking[i, 0]
        whole[i, -1] = slope[i, 0]
    _add_norm_slopes(moved, normed, rate, whole)
    return whole


@_within
def _feed(state: Array, layer: Layer) -> Any:
    """The feed-forward part, states [width, N] to such."""
    normed, rate = _normed(state)
    wide = _linear(layer.widen, layer.widen_bias, normed)
    bent = np.empty_like(wide)
    _gelu(wide, bent)  # `wide` is the slope now
    return _added(state, layer.narrow, layer.narrow_bias, bent), (normed, rate, bent, wide)


@_within
def _feed_slopes(slope: Array, known: Any, layer: Layer, slopes: Layer) -> None:
    """From the slope of what _feed gave to that of its state, in place, [width, N]."""
    normed, rate, bent, steep = known
    of_bent = _linear_slopes(slope, bent, layer.narrow, slopes.narrow, slopes.narrow_bias)
    _scale_by(of_bent, steep)
    _add_norm_slopes(_linear_slopes(of_bent, normed, layer.widen, slopes.widen, slopes.widen_bias), normed, rate, slope)


# Parts of layers.


@_within
def _linear(weight: Array, bias: Array, x: Array) -> Array:
    """weight [out, in] x [in, N] + bias [out]."""
    out = np.dot(weight, x)
    _add_bias(out, bias)
    return out


@_within
def _added(state: Array, weight: Array, bias: Array, x: Array) -> Array:
    """state [out, N] + weight [out, in] x [in, N] + bias [out]."""
    out = _linear(weight, bias, x)
    _add(state, out)
    return out


@_within
def _linear_slopes(slope: Array, x: Array, weight: Array, of_weight: Array, of_bias: Array) -> Array:
    """From the slope [out, N] along weight x + bias to that along x [in, N]; those of weight and bias grow."""
    _add(np.dot(slope, x.T), of_weight)
    _add_row_sums(slope, of_bias)
    return np.dot(weight.T, slope)


@_part
def _normed(x: Array) -> Any:
    """Each column of [width, N] less its mean, over its deviation; and one over that, [N]."""
    width, columns = x.shape
    out, mean, rate = np.empty_like(x), np.zeros(columns, np.float32), np.zeros(columns, np.float32)
    part = np.float32(1) / np.float32(width)
    for i in range(width):
        for j in range(columns):
            mean[j] += x[i, j] * part
    for i in range(width):
        for j in range(columns):
            out[i, j] = x[i, j] - mean[j]
            rate[j] += out[i, j] * out[i, j] * part
    for j in range(columns):
        rate[j] = np.float32(1) / np.sqrt(rate[j] + EPSILON)
    for i in range(width):
        for j in range(columns):
            out[i, j] *= rate[j]
    return out, rate


@_part
def _add_norm_slopes(slope: Array, normed: Array, rate: Array, out: Array) -> None:
    """out += rate (slope - mean(slope) - normed mean(slope normed)), column by column of [width, N]."""
    width, columns = slope.shape
    mean, along = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
    part = np.float32(1) / np.float32(width)
    for i in range(width):
        for j in range(columns):
            mean[j] += slope[i, j] * part
            along[j] += slope[i, j] * normed[i, j] * part
    for i in range(width):
        for j in range(columns):
            out[i, j] += rate[j] * (slope[i, j] - mean[j] - normed[i, j] * along[j])


@_part
def _softmax(scores: Array) -> None:
    """Each column's exponentials over their sum, [N, M], in place."""
    rows, columns = scores.shape
    most, total = np.full(columns, -np.inf, np.float32), np.zeros(columns, np.float32)
    for i in range(rows):
        for j in range(columns):
            most[j] = scores[i, j] if scores[i, j] > most[j] else most[j]
    for i in range(rows):
        for j in range(columns):
            scores[i, j] -= most[j]
    _exp(scores)
    for i in range(rows):
        for j in range(columns):
            total[j] += scores[i, j]
    for j in range(columns):
        total[j] = np.float32(1) / total[j]
    for i in range(rows):
        for j in range(columns):
            scores[i, j] *= total[j]


@_part
def _softmax_slopes(slope: Array, shares: Array) -> None:
    """From the slope of shares to that of scores, column by column of [N, M], in place."""
    rows, columns = slope.shape
    mean = np.zeros(columns, np.float32)
    for i in range(rows):
        for j in range(columns):
            mean[j] += slope[i, j] * shares[i, j]
    for i in range(rows):
        for j in range(columns):
            slope[i, j] = shares[i, j] * (slope[i, j] - mean[j])


@_part
def _gelu(x: Array, bent: Array) -> None:
    """x Phi(x) to `bent`, each [width, N]; x becomes its slope, Phi(x) + x phi(x)."""
    rows, columns = x.shape
    bell = np.empty_like(x)
    for i in range(rows):
        for j in range(columns):
            bell[i, j] = np.float32(-0.5) * x[i, j] * x[i, j]
    _exp(bell)
    for i in range(rows):
        for j in range(columns):
            at = x[i, j]
            t = np.float32(1) / (np.float32(1) + np.float32(0.3275911 * 0.5**0.5) * abs(at))
            tail = np.float32(1.061405429 / 2) * t + np.float32(-1.453152027 / 2)
            tail = tail * t + np.float32(1.421413741 / 2)
            tail = tail * t + np.float32(-0.284496736 / 2)
            tail = (tail * t + np.float32(0.254829592 / 2)) * t * bell[i, j]  # 1 - Phi(|x|)
            below = tail if at < 0 else np.float32(1) - tail
            bent[i, j] = at * below
            x[i, j] = below + np.float32(0.3989422804) * at * bell[i, j]


@_part
def _exp(x: Array) -> None:
    """exp(x), x <= 0, [N, M] in place, within 1e-7 of it: Cephes' expf.

    2^n times a polynomial in what is left, |r| <= log(2) / 2; n is added to the exponent's bits.
    """
    bits = x.view(np.int32)
    for i in range(len(x)):
        for j in range(x.shape[1]):
            least = max(x[i, j], np.float32(-87))
            near = least * np.float32(1.44269504088896341) + np.float32(12582912)  # 1.5 * 2^23: rounds
            whole = near - np.float32(12582912)
            r = least - whole * np.float32(0.693359375) - whole * np.float32(-2.12194440e-4)
            p = np.float32(1.9875691500e-4) * r + np.float32(1.3981999507e-3)
            p = p * r + np.float32(8.3334519073e-3)
            p = p * r + np.float32(4.1665795894e-2)
            p = p * r + np.float32(1.6666665459e-1)
            p = p * r + np.float32(5.0000001201e-1)
            x[i, j] = p * r * r + r + np.float32(1)
            bits[i, j] += np.int32(whole) << 23


@_part
def _loss(logit: Array, label: float) -> Any:
    """Binary cross-entropy of a logit [1, 1] and its slope, [1, 1]."""
    said, slope = float(logit[0, 0]), np.empty_like(logit)
    small = np.exp(-abs(said))
    slope[0, 0] = (1.0 if said > 0 else small) / (1.0 + small) - label
    return max(said, 0.0) - said * label + np.log1p(small), slope


@_part
def _apart(x: Array) -> Array:
    """A column [width, 1] to [HEADS, width]: each head's part in a row of its own, among zeros."""
    out, deep = np.zeros((HEADS, len(x)), np.float32), len(x) // HEADS
    for i in range(len(x)):
        out[i // deep, i] = x[i, 0]
    return out


@_part
def _together(x: Array) -> Array:
    """Of each head's row its part, [HEADS, width] to a column [width, 1]."""
    out, deep = np.empty((x.shape[1], 1), np.float32), x.shape[1] // HEADS
    for i in range(len(out)):
        out[i, 0] = x[i // deep, i]
    return out


@_part
def _last(x: Array) -> Array:
    """The last column of [width, T], [width, 1]."""
    out = np.empty((len(x), 1), np.float32)
    for i in range(len(x)):
        out[i, 0] = x[i, -1]
    return out


@_part
def _add(more: Array, out: Array) -> None:
    """out += more, [N, M]."""
    for i in range(len(out)):
        for j in range(out.shape[1]):
            out[i, j] += more[i, j]


@_part
def _add_bias(out: Array, bias: Array) -> None:
    """Each row of [N, M] grows by its bias, [N]."""
    for i in range(len(out)):
        for j in range(out.shape[1]):
            out[i, j] += bias[i]


@_summing
def _add_row_sums(x: Array, out: Array) -> None:
    """out [N] += the sums of the rows of x [N, M]."""
    for i in range(len(x)):
        total = np.float32(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        out[i] += total


@_part
def _scale_by(x: Array, by: Array) -> None:
    """x *= by, [N, M]."""
    for i in range(len(x)):
        for j in range(x.shape[1]):
            x[i, j] *= by[i, j]
