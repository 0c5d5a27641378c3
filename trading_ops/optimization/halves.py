"""How do all sets do in one half of the blocks, and how does the best of it rank in the other? A loop of machine code.

Imported where it is used: numba takes half a second.
"""

import numpy as np

from trading_ops.machine_code import compiled


@compiled
def _sharpe(days, returns, squares, rounding):  # type: ignore[no-untyped-def]
    """`moments.sharpe_per_day` of one set; NaN where undefined."""
    mean = returns / days
    left = squares - returns * mean
    if days < 2 or not left > rounding * squares:
        return np.nan
    return mean / np.sqrt(left / (days - 1))


@compiled
def judge_halves(days, returns, squares, trades, halves, min_trades, rounding, out):  # type: ignore[no-untyped-def]
    """For each half (a row of booleans, (splits, B)) and its complement, a row of `out` (2 * splits, 3).

    The rank in the other half, from 0 to 1, of the set that is best in this one, its Sharpe ratio a day here, and
    there; NaN where no set can be chosen. Sets that earned nothing there count as 0, and of equals each as half.
    """
    n, blocks = returns.shape
    ratio, sums = np.empty((2, n)), np.empty((2, 3))
    for split in range(len(halves)):
        side_days = np.zeros(2)
        for b in range(blocks):
            side_days[0 if halves[split, b] else 1] += days[b]
        best = np.full(2, -1)
        for s in range(n):
            sums[:] = 0.0
            for b in range(blocks):
                side = 0 if halves[split, b] else 1
                sums[side, 0] += returns[s, b]
                sums[side, 1] += squares[s, b]
                sums[side, 2] += trades[s, b]
            for side in range(2):
                value = _sharpe(side_days[side], sums[side, 0], sums[side, 1], rounding)
                ratio[side, s] = value
                eligible = not np.isnan(value) and sums[side, 2] >= min_trades
                if eligible and (best[side] < 0 or value > ratio[side, best[side]]):
                    best[side] = s
        for side in range(2):
            row, there = 2 * split + side, ratio[1 - side]
            if best[side] < 0:
                out[row] = np.nan
                continue
            its = there[best[side]]
            its = 0.0 if np.isnan(its) else its
            below, equal = 0, -1
            for s in range(n):
                value = 0.0 if np.isnan(there[s]) else there[s]
                below += value < its
                equal += value == its
            out[row, 0] = (below + equal / 2.0 + 1.0) / (n + 1.0)
            out[row, 1], out[row, 2] = ratio[side, best[side]], its
