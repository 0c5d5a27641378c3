"""What do the LSTM and the GRU learn from a batch? Their loss and its gradients as machine code.

lstm.py and gru.py say what is calculated; this says it again, forwards and backwards through time (Werbos, Proceedings
of the IEEE 78 (1990)), for a CPU: LANES windows at once, one a lane, so that each instruction serves all of them.

A state [H, LANES] and a bar [k, LANES] lie one above the other, `read` [K, LANES] with rows of zeros up to a multiple
of LANES. One product, `weights` [4H, K] by `read`, then gives all four gates. The LSTM's are in torch's order: input,
forget, cell, output. The GRU's: reset, update, and the two parts of its new state, which the reset gate weighs apart:
that from the state, with no weights for the bar, and that from the bar, with no weights for the state.

The same arrays give the same bits: no order of summation depends on anything but shapes. Imported where a training
runs: numba takes half a second.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from trading_ops.machine_code import compiled

LANES = 16
_ROWS = 8  # of a product at once: their sums and what they are made of fit the registers
_PARAMETERS = (
    "layer.weight_hh_l0", "layer.weight_ih_l0", "layer.bias_hh_l0", "layer.bias_ih_l0", "head.weight", "head.bias",
)  # fmt: skip
_F = np.float32
_fused = partial(compiled, fused=True)
_typed_by_itself: Any = intrinsic  # called without its first argument, which the type checker cannot see
_STEP_UP = _F(12582912.0)  # 1.5 * 2^23: added and taken away again it rounds
_TO_BITS, _ONE_BITS = np.int32(23), np.int32(127)  # where a float has its exponent


@_typed_by_itself
def _product(typing_context: Any, total: Any, left: Any, right: Any, add: Any) -> Any:
    """total [M, N] = left [M, K] @ right [K, N], added to what it was where `add`; of left only the first K columns.

    C-contiguous float32, M and N multiples of _ROWS. A block of _ROWS x LANES sums stays in registers, each row a
    vector, which LLVM does not find by itself; what is left of N has vectors of _ROWS.
    """
    matrix, one = types.Array(types.float32, 2, "C"), ir.FloatType()

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        arrays = [context.make_array(matrix)(context, builder, value) for value in arguments[:3]]
        totals, lefts, rights = (array.data for array in arrays)
        shapes = [cgutils.unpack_tuple(builder, array.shape) for array in arrays]
        (height, width), (_, stride), (depth, _) = shapes
        size = height.type

        def at(data: Any, row: Any, columns: Any, column: Any, kind: Any) -> Any:
            place = builder.gep(data, [builder.add(builder.mul(row, columns), column)])
            return builder.bitcast(place, kind.as_pointer())

        def block(top: Any, column: Any, sums: list[Any]) -> None:
            vector = sums[0].type.pointee
            rows = [builder.add(top, size(row)) for row in range(_ROWS)]
            for row, found in zip(rows, sums, strict=True):
                before = builder.load(at(totals, row, width, column, vector), align=4)
                builder.store(builder.select(arguments[3], before, ir.Constant(vector, [0.0] * vector.count)), found)
            with cgutils.for_range(builder, depth) as along:
                factors = builder.load(at(rights, along.index, width, column, vector), align=4)
                for row, found in zip(rows, sums, strict=True):
                    factor = builder.load(at(lefts, row, stride, along.index, one))
                    single = builder.insert_element(ir.Constant(vector, ir.Undefined), factor, ir.IntType(32)(0))
                    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
                    spread = builder.shuffle_vector(single, single, everywhere)
                    product = builder.fmul(spread, factors, flags=("contract",))
                    builder.store(builder.fadd(builder.load(found), product, flags=("contract",)), found)
            for row, found in zip(rows, sums, strict=True):
                builder.store(builder.load(found), at(totals, row, width, column, vector), align=4)

        wide, narrow = (
            [cgutils.alloca_once(builder, ir.VectorType(one, count)) for _ in range(_ROWS)] for count in (LANES, _ROWS)
        )
        whole = builder.udiv(width, size(LANES))
        rest = builder.mul(whole, size(LANES))
        with cgutils.for_range(builder, builder.udiv(height, size(_ROWS))) as down:
            top = builder.mul(down.index, size(_ROWS))
            with cgutils.for_range(builder, whole) as across:
                block(top, builder.mul(across.index, size(LANES)), wide)
            with builder.if_then(builder.icmp_unsigned("<", rest, width)):
                block(top, rest, narrow)
        return context.get_dummy_value()

    return types.void(matrix, matrix, matrix, types.boolean), generate


@_fused
def _exp(x):  # type: ignore[no-untyped-def]
    """e^x, float32, at most 2 units of its last place off: 2^n e^r with |r| <= ln(2) / 2, e^r by its Taylor series.

    No branch and no call, so that a loop of it runs on vectors; beyond -87 and 88 as at them.
    """
    x = _F(88.0) if x > _F(88.0) else x
    x = _F(-87.0) if x < _F(-87.0) else x
    n = (x * _F(1.44269504) + _STEP_UP) - _STEP_UP  # the nearest whole number
    r = (x - n * _F(0.693359375)) + n * _F(2.12194440e-4)  # ln(2) in two parts, the first times n exact
    series = ((_F(1 / 5040) * r + _F(1 / 720)) * r + _F(1 / 120)) * r + _F(1 / 24)
    series = (((series * r + _F(1 / 6)) * r + _F(0.5)) * r + _F(1.0)) * r + _F(1.0)
    return series * np.int32((np.int32(n) + _ONE_BITS) << _TO_BITS).view(_F)


@_fused
def _sigmoid(x):  # type: ignore[no-untyped-def]
    return _F(1.0) / (_F(1.0) + _exp(-x))


@_fused
def _tanh(x):  # type: ignore[no-untyped-def]
    shrunk = _exp(_F(-2.0) * x)
    return (_F(1.0) - shrunk) / (_F(1.0) + shrunk)


@_fused
def _lstm_step(z, cell, cell_after, shown, state):  # type: ignore[no-untyped-def]
    """One bar of the LSTM: z [4, H * LANES] becomes the gates, `shown` is tanh(cell_after), `state` is what is told."""
    for p in range(len(state)):
        taken = _sigmoid(z[0, p])
        kept = _sigmoid(z[1, p])
        new = _tanh(z[2, p])
        told = _sigmoid(z[3, p])
        after = kept * cell[p] + taken * new
        seen = _tanh(after)
        z[0, p], z[1, p], z[2, p], z[3, p] = taken, kept, new, told
        cell_after[p], shown[p] = after, seen
        state[p] = told * seen


@_fused
def _lstm_back(z, cell, shown, d_state, d_cell):  # type: ignore[no-untyped-def]
    """Its gradients: z's gates become the gradients of what they were made of, d_cell that of the cell before."""
    for p in range(len(d_state)):
        taken, kept, new, told = z[0, p], z[1, p], z[2, p], z[3, p]
        d_told = d_state[p] * shown[p] * told * (_F(1.0) - told)
        d_after = d_cell[p] + d_state[p] * told * (_F(1.0) - shown[p] * shown[p])
        d_taken = d_after * new * taken * (_F(1.0) - taken)
        d_kept = d_after * cell[p] * kept * (_F(1.0) - kept)
        d_new = d_after * taken * (_F(1.0) - new * new)
        z[0, p], z[1, p], z[2, p], z[3, p] = d_taken, d_kept, d_new, d_told
        d_cell[p] = d_after * kept


@_fused
def _gru_step(z, before, state):  # type: ignore[no-untyped-def]
    """One bar of the GRU: z [4, H * LANES] becomes reset, update, the part from the state, the new state."""
    for p in range(len(state)):
        reset = _sigmoid(z[0, p])
        kept = _sigmoid(z[1, p])
        part = z[2, p]
        new = _tanh(z[3, p] + reset * part)
        z[0, p], z[1, p], z[2, p], z[3, p] = reset, kept, part, new
        state[p] = new + kept * (before[p] - new)


@_fused
def _gru_back(z, before, d_state, d_before):  # type: ignore[no-untyped-def]
    """Its gradients: z becomes those of what the gates were made of; d_before what passes by the gates."""
    for p in range(len(d_state)):
        reset, kept, part, new = z[0, p], z[1, p], z[2, p], z[3, p]
        d_new = d_state[p] * (_F(1.0) - kept) * (_F(1.0) - new * new)
        d_kept = d_state[p] * (before[p] - new) * kept * (_F(1.0) - kept)
        d_reset = d_new * part * reset * (_F(1.0) - reset)
        d_part = d_new * reset
        z[0, p], z[1, p], z[2, p], z[3, p] = d_reset, d_kept, d_part, d_new
        d_before[p] = d_state[p] * kept


@_fused
def _rows(is_lstm, row, hidden):  # type: ignore[no-untyped-def]
    """Which rows of the weights for the state and for the bar are row `row` of `weights`; -1 for neither."""
    if is_lstm or row < 2 * hidden:
        return row, row
    return (row, -1) if row < 3 * hidden else (-1, row - hidden)


@_fused
def _packed(is_lstm, of_state, of_bar, state_bias, bar_bias):  # type: ignore[no-untyped-def]
    """weights [4H, K]: a column a unit of the state, one a feature, then the bias and what a product needs of zeros."""
    hidden, features = of_state.shape[1], of_bar.shape[1]
    weights = np.zeros((4 * hidden, ((hidden + features) // _ROWS + 1) * _ROWS), np.float32)
    for row in range(4 * hidden):
        from_state, from_bar = _rows(is_lstm, row, hidden)
        if from_state >= 0:
            for column in range(hidden):
                weights[row, column] = of_state[from_state, column]
            weights[row, hidden + features] += state_bias[from_state]
        if from_bar >= 0:
            for column in range(features):
                weights[row, hidden + column] = of_bar[from_bar, column]
            weights[row, hidden + features] += bar_bias[from_bar]
    return weights


@_fused
def _unpack(is_lstm, weights, of_state, of_bar, state_bias, bar_bias):  # type: ignore[no-untyped-def]
    """What `_packed` was made of, of gradients: a bias that is a sum gives its gradient to both."""
    hidden, features = of_state.shape[1], of_bar.shape[1]
    for row in range(4 * hidden):
        from_state, from_bar = _rows(is_lstm, row, hidden)
        if from_state >= 0:
            for column in range(hidden):
                of_state[from_state, column] = weights[row, column]
            state_bias[from_state] = weights[row, hidden + features]
        if from_bar >= 0:
            for column in range(features):
                of_bar[from_bar, column] = weights[row, hidden + column]
            bar_bias[from_bar] = weights[row, hidden + features]


@_fused
def _run(is_lstm, learn, network, windows, labels, gradients):  # type: ignore[no-untyped-def]
    """The sum of the losses of `windows` [B, T, k]; both tuples are in the order of _PARAMETERS.

    The gradients are overwritten where `learn`, else only the loss is calculated.
    """
    of_state, of_bar, state_bias, bar_bias, head, head_bias = network
    d_of_state, d_of_bar, d_state_bias, d_bar_bias, d_head, d_head_bias = gradients
    weights = _packed(is_lstm, of_state, of_bar, state_bias, bar_bias)
    d_weights = np.zeros_like(weights)
    count, bars, features = windows.shape
    hidden, depth = head.shape[1], weights.shape[1]
    size, beside = hidden * LANES, hidden + features
    back = np.ascontiguousarray(weights[:, :hidden].T)  # [H, 4H]
    read = np.empty((bars + 1, depth, LANES), np.float32)  # before each bar: the state, below it the bar and a 1
    read[0, :hidden], read[:, beside] = 0.0, 1.0
    turned = np.zeros((LANES, depth), np.float32)
    turned[:, beside] = 1.0
    gates = np.empty((bars, 4, size), np.float32)
    cells, shown = np.zeros((bars + 1, size), np.float32), np.empty((bars, size), np.float32)
    d_state, d_before, d_cell = np.empty(size, np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    d_logits = np.empty(LANES, np.float32)
    loss = 0.0
    if learn:
        d_head[:], d_head_bias[:] = 0.0, 0.0
    for first in range(0, count, LANES):
        used = min(LANES, count - first)
        if used < LANES:  # the other lanes read zeros, and teach nothing
            read[:, hidden:beside] = 0.0
        for t in range(bars):
            for lane in range(used):
                for feature in range(features):
                    read[t, hidden + feature, lane] = windows[first + lane, t, feature]
            z = gates[t]
            _product(z.reshape(4 * hidden, LANES), weights, read[t, : beside + 1], False)
            before, state = read[t].reshape(depth * LANES)[:size], read[t + 1].reshape(depth * LANES)[:size]
            if is_lstm:
                _lstm_step(z, cells[t], cells[t + 1], shown[t], state)
            else:
                _gru_step(z, before, state)
        last = read[bars]
        d_logits[:] = 0.0
        for lane in range(used):
            logit = np.float64(head_bias[0])
            for unit in range(hidden):
                logit += head[0, unit] * last[unit, lane]
            shrunk = math.exp(-abs(logit))
            loss += max(logit, 0.0) - logit * labels[first + lane] + math.log1p(shrunk)
            d_logits[lane] = (1.0 if logit >= 0.0 else shrunk) / (1.0 + shrunk) - labels[first + lane]
        if not learn:
            continue
        for lane in range(LANES):
            d_head_bias[0] += d_logits[lane]
            for unit in range(hidden):
                d_head[0, unit] += d_logits[lane] * last[unit, lane]
                d_state[unit * LANES + lane] = d_logits[lane] * head[0, unit]
        d_cell[:] = 0.0
        for t in range(bars - 1, -1, -1):
            z, before = gates[t], read[t]
            if is_lstm:
                _lstm_back(z, cells[t], shown[t], d_state, d_cell)
            else:
                _gru_back(z, before.reshape(depth * LANES)[:size], d_state, d_before)
                d_state[:] = d_before
            for lane in range(LANES):
                for row in range(hidden):
                    turned[lane, row] = before[row, lane]
            for lane in range(used):
                turned[lane, hidden:beside] = windows[first + lane, t]
            flat = z.reshape(4 * hidden, LANES)
            _product(d_weights, flat, turned, True)
            if t > 0:
                _product(d_state.reshape(hidden, LANES), back, flat, not is_lstm)
    if learn:
        _unpack(is_lstm, d_weights, d_of_state, d_of_bar, d_state_bias, d_bar_bias)
    return loss


def lstm(
    weights: dict[str, np.ndarray],
    windows: np.ndarray,
    labels: np.ndarray,
    gradients: dict[str, np.ndarray] | None = None,
) -> float:
    """A step of lstm.py's network, as `compiled.Step` says; without `gradients` only the loss."""
    return _ran(True, weights, windows, labels, gradients)


def gru(
    weights: dict[str, np.ndarray],
    windows: np.ndarray,
    labels: np.ndarray,
    gradients: dict[str, np.ndarray] | None = None,
) -> float:
    """A step of gru.py's network, as `compiled.Step` says; without `gradients` only the loss."""
    return _ran(False, weights, windows, labels, gradients)


def _ran(
    is_lstm: bool,
    weights: dict[str, np.ndarray],
    windows: np.ndarray,
    labels: np.ndarray,
    gradients: dict[str, np.ndarray] | None,
) -> float:
    network = tuple([weights[name] for name in _PARAMETERS])
    found = tuple([(gradients or weights)[name] for name in _PARAMETERS])
    return _run(is_lstm, gradients is not None, network, windows, labels, found)
