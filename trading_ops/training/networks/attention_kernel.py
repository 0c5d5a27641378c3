"""How do a batch's loss and gradients follow from the Transformer's weights, in machine code?

The network of transformer.py forward and backward, a few windows at a time, so that what becomes of their bars stays in
the processor's cache. One file, though long: numba keeps its machine code until this file changes, whatever else does.

Bars lie in columns, [width, N] with N = windows * T, so that loops over bars run in the processor's vectors; `rows` are
turned, [N, width]. `of_x` is the slope of the loss along x; with `weight` [out, in] and y = weight x, of_weight is
of_y x^T and of_x is weight^T of_y. Two identities save work:

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
from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from trading_ops.machine_code import compiled

HEADS = 4
TOGETHER = 400  # bars at a time, of 8 windows of 48: what becomes of them takes a megabyte
EPSILON = np.float32(1e-5)  # of torch.nn.LayerNorm
LANES = 16 if binding.get_host_cpu_features().get("avx512f") else 8  # floats in a vector

Array = np.ndarray
Decorator = Callable[[Any], Any]

_part: Decorator = numba.njit(nogil=True, error_model="numpy", fastmath={"contract"})
_summing: Decorator = numba.njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz"})  # in lanes
_within: Decorator = numba.njit(inline="always")  # compiled as part of what calls it, which is quicker
_emitted: Decorator = intrinsic


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
    total, together = 0.0, max(1, TOGETHER // max(1, windows.shape[1]))
    for start in range(0, len(windows), together):
        stop = min(start + together, len(windows))
        total += _learn_some(windows[start:stop], labels[start:stop], places, net, slopes)
    return total


@_within
def _learn_some(windows: Array, labels: Array, places: Array, net: Network, slopes: Network) -> Any:
    count, bars, features = windows.shape
    rows = windows.reshape(count * bars, features)
    state = _embed(rows, places, net, count)
    attended, read, queries, shares, found = _attend(state, net.first, count)
    fed, forward, bent, steep = _feed(attended, net.first)
    asked, last_read, query, pulls, last_shares, seen, last_found = _ask(fed, net.last, count)
    last_fed, last_forward, last_bent, last_steep = _feed(asked, net.last)
    total, slope = _judge(last_fed, labels, net, slopes)
    _feed_slopes(slope, last_forward, last_bent, last_steep, net.last, slopes.last)
    slope = _ask_slopes(slope, last_read, query, pulls, last_shares, seen, last_found, net.last, slopes.last)
    _feed_slopes(slope, forward, bent, steep, net.first, slopes.first)
    _attend_slopes(slope, read, queries, shares, found, net.first, slopes.first)
    _product(slope, rows, slopes.embed, True)
    _add_row_sums(slope, slopes.embed_bias)
    return total


# The network's parts: each gives its state and what its slopes will need.


@_within
def _embed(rows: Array, places: Array, net: Network, count: int) -> Array:
    """Bars [N, k] to their first states [width, N]."""
    width, bars = places.shape
    state = np.empty((width, count * bars), np.float32)
    for i in range(width):
        for window in range(count):
            for t in range(bars):
                state[i, window * bars + t] = places[i, t] + net.embed_bias[i]
    _product(net.embed, _turned(rows), state, True)
    return state


@_within
def _judge(state: Array, labels: Array, net: Network, slopes: Network) -> Any:
    """Last bars' states [width, windows] to the sum of losses and its slope along them."""
    said, rate = _normed(state)
    total, miss = _loss(_linear(net.head, net.head_bias, said), labels)
    _learn_linear(miss, said, slopes.head, slopes.head_bias)
    moved, slope = _times(net.head.T, miss), np.zeros_like(state)
    _add_norm_slopes(moved, said, rate, slope)
    return total, slope


@_within
def _attend(state: Array, layer: Layer, count: int) -> Any:
    """Attention of all bars to all of their window, states [width, N] to such; heads and windows on their own.

    Scores lie with the bar that asks in columns, so that softmax goes down them.
    """
    width, columns = state.shape
    bars, deep = columns // count, width // HEADS
    read = _normed(state)
    queries = _linear(layer.read, layer.read_bias, read[0])  # and keys and values
    shares = np.empty((count, bars, HEADS * bars), np.float32)  # [window, bar read, head and bar asking]
    found = np.empty((width, columns), np.float32)
    for window in range(count):
        share, start = shares[window], window * bars
        for head in range(HEADS):
            query = _block(queries, head * deep, deep, start, bars)
            key = _block(queries, width + head * deep, deep, start, bars)
            _product(key.T, query, _block(share, 0, bars, head * bars, bars), False)
        _softmax(share)
        for head in range(HEADS):
            value = _block(queries, 2 * width + head * deep, deep, start, bars)
            out = _block(found, head * deep, deep, start, bars)
            _product(value, _block(share, 0, bars, head * bars, bars), out, False)
    return _added(state, layer.out, layer.out_bias, found), read, queries, shares, found


@_within
def _attend_slopes(
    slope: Array, read: Any, queries: Array, shares: Array, found: Array, layer: Layer, slopes: Layer
) -> None:
    """From the slope of what _attend gave to that of its state, in place."""
    width, columns = slope.shape
    count, bars = shares.shape[:2]
    deep = width // HEADS
    normed, rate = read
    _learn_linear(slope, found, slopes.out, slopes.out_bias)
    of_found = _times(layer.out.T, slope)
    of_found_rows, rows = _turned(of_found), _turned(queries[: 2 * width])
    of_rows = np.empty((columns, 3 * width), np.float32)  # of queries, keys and values
    of_share = np.empty((bars, HEADS * bars), np.float32)
    for window in range(count):
        share, start = shares[window], window * bars
        for head in range(HEADS):
            at, here = head * deep, _block(of_share, 0, bars, head * bars, bars)
            value = _block(queries, 2 * width + at, deep, start, bars)
            _product(value.T, _block(of_found, at, deep, start, bars), here, False)
            of_value = _block(of_rows, start, bars, 2 * width + at, deep)
            here = _block(share, 0, bars, head * bars, bars)
            _product(here, _block(of_found_rows, start, bars, at, deep), of_value, False)
        _softmax_slopes(of_share, share)
        for head in range(HEADS):
            at, of_score = head * deep, _block(of_share, 0, bars, head * bars, bars)
            of_query, of_key = _block(of_rows, start, bars, at, deep), _block(of_rows, start, bars, width + at, deep)
            _product(of_score.T, _block(rows, start, bars, width + at, deep), of_query, False)
            _product(of_score, _block(rows, start, bars, at, deep), of_key, False)
    _product(of_rows.T, _turned(normed), slopes.read, True)
    _add_column_sums(of_rows, slopes.read_bias)
    moved = _times(of_rows, layer.read)
    _add_norm_slopes(_turned(moved), normed, rate, slope)


@_within
def _ask(state: Array, layer: Layer, count: int) -> Any:
    """Attention of each window's last bar to all of its window, states [width, N] to [width, windows]."""
    width, columns = state.shape
    bars, deep = columns // count, width // HEADS
    normed, rate = _normed(state)
    rows = _turned(normed)
    query = _linear(layer.read[:width], layer.read_bias[:width], _last(normed, bars))  # of last bars
    pulls = np.empty((HEADS * width, count), np.float32)  # K^T q
    for head in range(HEADS):
        at = head * deep
        key = _block(layer.read, width + at, deep, 0, width)
        _product(key.T, _block(query, at, deep, 0, count), _block(pulls, head * width, width, 0, count), False)
    shares = np.empty((count, HEADS, bars), np.float32)
    seen = np.empty((count, HEADS * width), np.float32)  # sums of p_t x_t
    pull = pulls.reshape(HEADS, width, count)
    for window in range(count):
        share, start = shares[window], window * bars
        _product(pull[:, :, window], _block(normed, 0, width, start, bars), share, False)
        _softmax_rows(share)
        _product(share, _block(rows, start, bars, 0, width), seen[window].reshape(HEADS, width), False)
    found = np.empty((width, count), np.float32)
    _fill(found, layer.read_bias[2 * width :])
    seen_columns = _turned(seen)
    for head in range(HEADS):
        at, out = head * deep, _block(found, head * deep, deep, 0, count)
        value = _block(layer.read, 2 * width + at, deep, 0, width)
        _product(value, _block(seen_columns, head * width, width, 0, count), out, True)
    asked = _added(_last(state, bars), layer.out, layer.out_bias, found)
    return asked, (normed, rate, rows), query, pulls, shares, seen, found


@_within
def _ask_slopes(
    slope: Array,
    read: Any,
    query: Array,
    pulls: Array,
    shares: Array,
    seen: Array,
    found: Array,
    layer: Layer,
    slopes: Layer,
) -> Array:
    """From the slope of what _ask gave, [width, windows], to that of its state."""
    normed, rate, rows = read
    width, columns = normed.shape
    count, _, bars = shares.shape
    deep = width // HEADS
    _learn_linear(slope, found, slopes.out, slopes.out_bias)
    of_found = _times(layer.out.T, slope)
    _add_row_sums(of_found, slopes.read_bias[2 * width :])
    of_seen = np.empty((HEADS * width, count), np.float32)
    for head in range(HEADS):
        at, here = 2 * width + head * deep, _block(of_found, head * deep, deep, 0, count)
        value, of_value = _block(layer.read, at, deep, 0, width), _block(slopes.read, at, deep, 0, width)
        _product(here, _block(seen, 0, count, head * width, width), of_value, True)
        _product(value.T, here, _block(of_seen, head * width, width, 0, count), False)
    moved = np.empty((width, columns), np.float32)
    of_pulls = np.empty((count, HEADS * width), np.float32)
    of_scores = np.empty((HEADS, bars), np.float32)
    of_see, pull = of_seen.reshape(HEADS, width, count), pulls.reshape(HEADS, width, count)
    for window in range(count):
        share, start = shares[window], window * bars
        here, out = of_see[:, :, window], _block(moved, 0, width, start, bars)
        _product(here, _block(normed, 0, width, start, bars), of_scores, False)
        _softmax_rows_slopes(of_scores, share)
        _product(of_scores, _block(rows, start, bars, 0, width), of_pulls[window].reshape(HEADS, width), False)
        _product(here.T, share, out, False)
        _product(pull[:, :, window].T, of_scores, out, True)
    of_query = np.empty((width, count), np.float32)
    of_pull_columns = _turned(of_pulls)
    for head in range(HEADS):
        at, out = head * deep, _block(of_query, head * deep, deep, 0, count)
        key, of_key = _block(layer.read, width + at, deep, 0, width), _block(slopes.read, width + at, deep, 0, width)
        _product(_block(query, at, deep, 0, count), _block(of_pulls, 0, count, head * width, width), of_key, True)
        _product(key, _block(of_pull_columns, head * width, width, 0, count), out, False)
    _learn_linear(of_query, _last(normed, bars), slopes.read[:width], slopes.read_bias[:width])
    of_asking = _times(layer.read[:width].T, of_query)
    _add_last(moved, of_asking, bars)
    whole = np.zeros((width, columns), np.float32)
    _add_last(whole, slope, bars)
    _add_norm_slopes(moved, normed, rate, whole)
    return whole


@_within
def _feed(state: Array, layer: Layer) -> Any:
    """The feed-forward part, with gelu and its slope."""
    forward = _normed(state)
    wide = _linear(layer.widen, layer.widen_bias, forward[0])
    bent = np.empty_like(wide)
    _gelu(wide.reshape(-1), bent.reshape(-1))  # `wide` is the slope now
    return _added(state, layer.narrow, layer.narrow_bias, bent), forward, bent, wide


@_within
def _feed_slopes(slope: Array, forward: Any, bent: Array, steep: Array, layer: Layer, slopes: Layer) -> None:
    """From the slope of what _feed gave to that of its state, in place."""
    normed, rate = forward
    _learn_linear(slope, bent, slopes.narrow, slopes.narrow_bias)
    wide = _times(layer.narrow.T, slope)
    _scale_by(wide.reshape(-1), steep.reshape(-1))
    _learn_linear(wide, normed, slopes.widen, slopes.widen_bias)
    moved = _times(layer.widen.T, wide)
    _add_norm_slopes(moved, normed, rate, slope)


# Parts of layers.


@_within
def _linear(weight: Array, bias: Array, x: Array) -> Array:
    """weight x + bias."""
    out = np.empty((len(weight), x.shape[1]), np.float32)
    _fill(out, bias)
    _product(weight, x, out, True)
    return out


@_within
def _added(state: Array, weight: Array, bias: Array, x: Array) -> Array:
    """state + weight x + bias."""
    out = np.empty_like(state)
    for i in range(len(state)):
        for j in range(state.shape[1]):
            out[i, j] = state[i, j] + bias[i]
    _product(weight, x, out, True)
    return out


@_within
def _learn_linear(slope: Array, x: Array, of_weight: Array, of_bias: Array) -> None:
    """The gradients of weight and bias grow by those from y = weight x + bias with this slope along y."""
    _product(slope, _turned(x), of_weight, True)
    _add_row_sums(slope, of_bias)


@_part
def _normed(x: Array) -> Any:
    """Each column less its mean, over its deviation; and one over that."""
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
    """out += rate (slope - mean(slope) - normed mean(slope normed)), column by column."""
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
    """Each column's exponentials over their sum, in place."""
    rows, columns = scores.shape
    most, total = scores[0].copy(), np.zeros(columns, np.float32)
    for i in range(1, rows):
        for j in range(columns):
            most[j] = scores[i, j] if scores[i, j] > most[j] else most[j]
    for i in range(rows):
        for j in range(columns):
            scores[i, j] = _exp(scores[i, j] - most[j])
            total[j] += scores[i, j]
    for j in range(columns):
        total[j] = np.float32(1) / total[j]
    for i in range(rows):
        for j in range(columns):
            scores[i, j] *= total[j]


@_part
def _softmax_slopes(slope: Array, shares: Array) -> None:
    """From the slope of shares to that of scores, column by column, in place."""
    rows, columns = slope.shape
    mean = np.zeros(columns, np.float32)
    for i in range(rows):
        for j in range(columns):
            mean[j] += slope[i, j] * shares[i, j]
    for i in range(rows):
        for j in range(columns):
            slope[i, j] = shares[i, j] * (slope[i, j] - mean[j])


@_summing
def _softmax_rows(scores: Array) -> None:
    """Each row's exponentials over their sum, in place."""
    rows, columns = scores.shape
    for i in range(rows):
        most, total = scores[i, 0], np.float32(0)
        for j in range(columns):
            most = max(most, scores[i, j])
        for j in range(columns):
            scores[i, j] = _exp(scores[i, j] - most)
        for j in range(columns):
            total += scores[i, j]
        total = np.float32(1) / total
        for j in range(columns):
            scores[i, j] *= total


@_summing
def _softmax_rows_slopes(slope: Array, shares: Array) -> None:
    """From the slope of shares to that of scores, row by row, in place."""
    rows, columns = slope.shape
    for i in range(rows):
        mean = np.float32(0)
        for j in range(columns):
            mean += slope[i, j] * shares[i, j]
        for j in range(columns):
            slope[i, j] = shares[i, j] * (slope[i, j] - mean)


@_part
def _gelu(x: Array, bent: Array) -> None:
    """x Phi(x) to `bent`; x becomes its slope, Phi(x) + x phi(x)."""
    for i in range(len(x)):
        size = abs(x[i])
        bell = _exp(np.float32(-0.5) * x[i] * x[i])
        t = np.float32(1) / (np.float32(1) + np.float32(0.3275911 * 0.5**0.5) * size)
        tail = np.float32(1.061405429 / 2) * t + np.float32(-1.453152027 / 2)
        tail = tail * t + np.float32(1.421413741 / 2)
        tail = tail * t + np.float32(-0.284496736 / 2)
        tail = (tail * t + np.float32(0.254829592 / 2)) * t * bell  # 1 - Phi(|x|)
        below = tail if x[i] < 0 else np.float32(1) - tail
        bent[i] = x[i] * below
        x[i] = below + np.float32(0.3989422804) * x[i] * bell


@_part
def _loss(logits: Array, labels: Array) -> Any:
    """Binary cross-entropy, summed, and its slope, [1, windows]."""
    total, slope = 0.0, np.empty_like(logits)
    for window in range(len(labels)):
        said, label = float(logits[0, window]), float(labels[window])
        small = np.exp(-abs(said))
        total += max(said, 0.0) - said * label + np.log1p(small)
        slope[0, window] = (1.0 if said > 0 else small) / (1.0 + small) - label
    return total, slope


@_part
def _fill(out: Array, bias: Array) -> None:
    for i in range(len(out)):
        out[i, :] = bias[i]


@_part
def _scale_by(x: Array, by: Array) -> None:
    for i in range(len(x)):
        x[i] *= by[i]


@_summing
def _add_row_sums(x: Array, out: Array) -> None:
    for i in range(len(x)):
        total = np.float32(0)
        for j in range(x.shape[1]):
            total += x[i, j]
        out[i] += total


@_part
def _add_column_sums(x: Array, out: Array) -> None:
    for i in range(len(x)):
        for j in range(x.shape[1]):
            out[j] += x[i, j]


@_part
def _last(x: Array, bars: int) -> Array:
    """The columns of last bars."""
    out = np.empty((len(x), x.shape[1] // bars), np.float32)
    for i in range(len(x)):
        for window in range(out.shape[1]):
            out[i, window] = x[i, (window + 1) * bars - 1]
    return out


@_part
def _add_last(x: Array, last: Array, bars: int) -> None:
    """The columns of last bars grow by `last`."""
    for i in range(len(x)):
        for window in range(last.shape[1]):
            x[i, (window + 1) * bars - 1] += last[i, window]


@_part
def _turned(x: Array) -> Array:
    """A transposed copy."""
    rows, columns = x.shape
    out = np.empty((columns, rows), np.float32)
    whole_rows, whole_columns = rows - rows % 8, columns - columns % 8
    for j in range(0, whole_columns, 8):
        for i in range(0, whole_rows, 8):
            _turn_square(x, out, i, j)
    for j in range(columns):
        for i in range(whole_rows if j < whole_columns else 0, rows):
            out[j, i] = x[i, j]
    return out


@_emitted
def _turn_square(context: Any, x: Any, out: Any, i: Any, j: Any) -> Any:
    """out[j : j + 8, i : i + 8] = x[i : i + 8, j : j + 8].T: swaps halves, quarters and eighths across the diagonal."""
    vector, index = ir.VectorType(ir.FloatType(), 8), ir.IntType(32)

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        x, out = (
            context.make_array(kind)(context, builder, value)
            for kind, value in zip(signature.args[:2], args[:2], strict=True)
        )
        i, j = args[2:]
        lines = [builder.load(at, align=4) for at in _lines(builder, vector, x, i, j)]
        for far in (4, 2, 1):
            for line in (n for n in range(8) if not n & far):
                upper, lower = lines[line], lines[line + far]
                takes = [
                    [n + 8 - far if n & far else n for n in range(8)],
                    [n + 8 if n & far else n + far for n in range(8)],
                ]
                picks = [ir.Constant(ir.VectorType(index, 8), take) for take in takes]
                lines[line], lines[line + far] = (builder.shuffle_vector(upper, lower, pick) for pick in picks)
        for line, at in zip(lines, _lines(builder, vector, out, j, i), strict=True):
            builder.store(line, at, align=4)
        return context.get_dummy_value()

    return types.void(x, out, types.intp, types.intp), code


def _lines(builder: ir.IRBuilder, vector: ir.VectorType, array: Any, i: Any, j: Any) -> list[Any]:
    """Where array[i + n, j : j + 8] lie, n < 8."""
    rows = [builder.add(i, ir.IntType(64)(n)) for n in range(8)]
    return [builder.bitcast(_place(builder, array, row, j), vector.as_pointer()) for row in rows]


def _place(builder: ir.IRBuilder, array: Any, row: Any, column: Any) -> Any:
    """Where array[row, column] lies."""
    strides = cgutils.unpack_tuple(builder, array.strides, 2)
    far = builder.add(builder.mul(row, strides[0]), builder.mul(column, strides[1]))
    return cgutils.pointer_add(builder, array.data, far, array.data.type)


# The exponential, and products of matrices.


@_part
def _exp(x: Any) -> Any:
    """exp(x) of float32 within 1e-7 of it: 2^n times a polynomial in what is left, |r| <= log(2) / 2. Cephes' expf."""
    x = max(x, np.float32(-87))
    near = x * np.float32(1.44269504088896341) + np.float32(12582912)  # 1.5 * 2^23: rounds, its last bits are n
    whole = near - np.float32(12582912)
    r = x - whole * np.float32(0.693359375) - whole * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4) * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    return _doubled(p * r * r + r + np.float32(1), near)


@_emitted
def _doubled(context: Any, value: Any, near: Any) -> Any:
    """value * 2^n, n the last bits of `near`."""

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        bits = ir.IntType(32)
        value, near = (builder.bitcast(number, bits) for number in args)
        return builder.bitcast(builder.add(value, builder.shl(near, bits(23))), ir.FloatType())

    return types.float32(value, near), code


@_within
def _product(a: Array, b: Array, out: Array, add: bool) -> None:
    """out = a @ b, or grows by it. The columns of b and out lie side by side, those of a anywhere."""
    _multiply(_strided(a), _strided(b), _strided(out), bool(add))


@_within
def _times(a: Array, b: Array) -> Array:
    """a @ b."""
    out = np.empty((len(a), b.shape[1]), np.float32)
    _product(a, b, out, False)
    return out


@_emitted
def _block(context: Any, array: Any, row: Any, rows: Any, column: Any, columns: Any) -> Any:
    """array[row : row + rows, column : column + columns], all there: numba's own slices take long to compile."""
    kind = types.Array(array.dtype, 2, "A")

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        whole = context.make_array(signature.args[0])(context, builder, args[0])
        row, rows, column, columns = (
            context.cast(builder, value, given, types.intp)
            for value, given in zip(args[1:], signature.args[1:], strict=True)
        )
        strides = cgutils.unpack_tuple(builder, whole.strides, 2)
        block, start = context.make_array(kind)(context, builder), _place(builder, whole, row, column)
        populate_array(block, start, [rows, columns], strides, whole.itemsize, whole.meminfo, whole.parent)
        return impl_ret_borrowed(context, builder, kind, block._getvalue())

    return kind(array, row, rows, column, columns), code


@_emitted
def _strided(context: Any, array: Any) -> Any:
    """The array as one of any strides, so that _multiply is compiled once."""
    kind = types.Array(array.dtype, 2, "A")

    def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return impl_ret_borrowed(context, builder, kind, args[0])

    return kind(array), code


def _tile(rows: int, lanes: int, wide: int = 1) -> Any:
    """One block of a product, `rows` by `wide` vectors of `lanes`, held in registers while a and b pass once.

    Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008; numba's own loops keep no sums in
    registers, and a BLAS called for matrices this small takes up to three times as long.
    """
    real, index = ir.FloatType(), ir.IntType(32)
    vector = ir.VectorType(real, lanes)
    none, zero = ir.Constant(vector, ir.Undefined), ir.Constant(vector, [0.0] * lanes)
    first = ir.Constant(ir.VectorType(index, lanes), [0] * lanes)

    @_emitted
    def tile(context: Any, a: Any, b: Any, out: Any, i: Any, j: Any, add: Any) -> Any:
        def code(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            whole = context.get_value_type(types.intp)
            pairs = zip(signature.args[:3], args[:3], strict=True)
            left, right, result = (context.make_array(kind)(context, builder, value) for kind, value in pairs)
            i, j, add = args[3:]

            def vectors(array: Any, row: Any) -> list[Any]:
                start = builder.bitcast(_place(builder, array, row, j), vector.as_pointer())
                return [builder.gep(start, [whole(n)]) for n in range(wide)]

            below = [builder.add(i, whole(row)) for row in range(rows)]
            targets = [at for row in below for at in vectors(result, row)]
            sums = [cgutils.alloca_once(builder, vector) for _ in targets]
            for at, total in zip(targets, sums, strict=True):
                builder.store(builder.select(add, builder.load(at, align=4), zero), total)
            depth = cgutils.unpack_tuple(builder, right.shape, 2)[0]
            with cgutils.for_range(builder, depth) as loop:
                these = [builder.load(at, align=4) for at in vectors(right, loop.index)]
                for row in range(rows):
                    entry = builder.load(_place(builder, left, below[row], loop.index))
                    spread = builder.shuffle_vector(builder.insert_element(none, entry, index(0)), none, first)
                    for this, total in zip(these, sums[row * wide : (row + 1) * wide], strict=True):
                        more = builder.fmul(spread, this, flags=["contract"])
                        builder.store(builder.fadd(builder.load(total), more, flags=["contract"]), total)
            for at, total in zip(targets, sums, strict=True):
                builder.store(builder.load(total), at, align=4)
            return context.get_dummy_value()

        return types.void(a, b, out, types.intp, types.intp, types.boolean), code

    return tile


_tile_3, _tile_2, _tile_1, _tile_8 = _tile(4, LANES, 3), _tile(4, LANES, 2), _tile(8, LANES), _tile(8, 8)
_row_8, _cell = _tile(1, 8), _tile(1, 1)


@_part
def _multiply(a: Array, b: Array, out: Array, add: bool) -> None:
    """out [m, n] = a [m, l] @ b [l, n], or grows by it: strips of columns, the widest first."""
    rows, columns = out.shape
    by_4, by_8, j = rows - rows % 4, rows - rows % 8, np.intp(0)
    while j + 3 * LANES <= columns:
        for i in range(0, by_4, 4):
            _tile_3(a, b, out, i, j, add)
        _multiply_rows(a, b, out, by_4, j, j + 3 * LANES, add)
        j += 3 * LANES
    while j + 2 * LANES <= columns:
        for i in range(0, by_4, 4):
            _tile_2(a, b, out, i, j, add)
        _multiply_rows(a, b, out, by_4, j, j + 2 * LANES, add)
        j += 2 * LANES
    while j + LANES <= columns:
        for i in range(0, by_8, 8):
            _tile_1(a, b, out, i, j, add)
        _multiply_rows(a, b, out, by_8, j, j + LANES, add)
        j += LANES
    while j + 8 <= columns:
        for i in range(0, by_8, 8):
            _tile_8(a, b, out, i, j, add)
        _multiply_rows(a, b, out, by_8, j, j + 8, add)
        j += 8
    _multiply_rows(a, b, out, np.intp(0), j, columns, add)


@_part
def _multiply_rows(a: Array, b: Array, out: Array, start: int, first: int, end: int, add: bool) -> None:
    """The rows from `start` on, in the columns from `first` to `end`."""
    for i in range(start, len(out)):
        for j in range(first, end - 7, 8):
            _row_8(a, b, out, i, j, add)
        for j in range(end - (end - first) % 8, end):
            _cell(a, b, out, i, j, add)
