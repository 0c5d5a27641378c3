"""How far do the weights go after each batch? AdamW as machine code; imported where a training runs on a CPU."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from trading_ops.machine_code import compiled

_F = np.float32
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8  # torch's betas and eps


@partial(compiled, fused=True)
def descend(weights, gradient, mean, square, step, clip, rate, decay):  # type: ignore[no-untyped-def]
    """One step of AdamW (Loshchilov and Hutter, arXiv 1711.05101) in place; all float32 [n] but `step`, a float32.

    gradient g is first scaled to a norm of at most `clip`, then, as torch.optim.AdamW does it:
    mean m = 0.9 m + 0.1 g, square v = 0.999 v + 0.001 g^2, and
    w = w (1 - rate decay) - rate m / (1 - 0.9^step) / (sqrt(v / (1 - 0.999^step)) + 1e-8).
    """
    total = 0.0
    for p in range(len(gradient)):
        total += np.float64(gradient[p]) * gradient[p]
    shrunk = _F(min(1.0, clip / (math.sqrt(total) + 1e-6)))
    step[0] += _F(1.0)
    kept = _F(1.0 - rate * decay)
    far = _F(rate / (1.0 - _FIRST ** step[0]))
    wide = _F(1.0 / math.sqrt(1.0 - _SECOND ** step[0]))
    for p in range(len(gradient)):
        g = gradient[p] * shrunk
        mean[p] += (g - mean[p]) * _F(1.0 - _FIRST)
        square[p] = square[p] * _F(_SECOND) + g * g * _F(1.0 - _SECOND)
        weights[p] = weights[p] * kept - far * mean[p] / (np.sqrt(square[p]) * wide + _F(_TINY))
