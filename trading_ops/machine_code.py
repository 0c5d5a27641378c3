"""How does a loop become machine code? Imported only where loops run: numba takes half a second."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """The loop compiled at its first call, with the machine code kept on disk; other threads run beside it.

    A division by zero gives infinity or NaN, as in numpy.
    """
    try:
        return numba.njit(nogil=True, error_model="numpy", cache=True)(loop)
    except RuntimeError:  # no folder to keep it in, as in a read-only container
        return numba.njit(nogil=True, error_model="numpy")(loop)
