"""At which bars does a series cross each of many levels? A loop that runs as machine code, beside other threads.

Imported where it is used: numba takes half a second.
"""

import numpy as np

from trading_ops.machine_code import compiled


def crossing_bars(values: np.ndarray, levels: np.ndarray, *, above: bool) -> tuple[np.ndarray, np.ndarray]:
    """The bars where `values` crosses each of L levels, ascending, level after level, and where each begins (L + 1,).

    Above: at or below the level one bar ago, above it now; below: the other way round. NaN crosses nothing.

    >>> bars, begins = crossing_bars(np.array([3.0, 1.0, 2.0, 0.5]), np.array([2.5, 1.0]), above=False)
    >>> bars.tolist(), begins.tolist()
    ([1, 3], [0, 1, 2])
    """
    order = np.argsort(levels)
    return _crossing_bars(values, levels[order], order, above)


@compiled
def _crossing_bars(values, ascending, order, above):  # type: ignore[no-untyped-def]
    """`ascending` levels, each of which was level number `order`. Two rounds: how many bars each has, then which."""
    begins = np.zeros(len(ascending) + 1, np.int64)
    bars = np.empty(0, np.int64)
    for filling in (False, True):
        if filling:
            begins[1:] = np.cumsum(begins[1:])
            bars = np.empty(begins[-1], np.int64)
            free = begins[:-1].copy()
        place, known = 0, False  # how many levels the bar before had passed, and whether it was defined
        for i in range(len(values)):
            value = values[i]
            if np.isnan(value):
                known = False
                continue
            before = place
            if above:  # levels < value were passed
                while place < len(ascending) and ascending[place] < value:
                    place += 1
                while place > 0 and ascending[place - 1] >= value:
                    place -= 1
                first, end = before, place
            else:  # levels <= value were not yet passed
                while place < len(ascending) and ascending[place] <= value:
                    place += 1
                while place > 0 and ascending[place - 1] > value:
                    place -= 1
                first, end = place, before
            if known:
                for k in range(first, end):
                    if filling:
                        bars[free[order[k]]] = i
                        free[order[k]] += 1
                    else:
                        begins[order[k] + 1] += 1
            known = True
    return bars, begins
