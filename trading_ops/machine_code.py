"""How does a loop become machine code? Imported only where loops run: numba takes half a second."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(loop: Callable[..., Any], *, fused: bool = False) -> Callable[..., Any]:
    """The loop compiled at its first call, with the machine code kept on disk; other threads run beside it.

    A division by zero gives infinity or NaN, as in numpy. `fused`: x * y + z may be rounded once instead of twice, as
    the processor can; the same machine gives the same bits either way.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"} if fused else False}
    try:
        return numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # no folder to keep it in, as in a read-only container
        return numba.njit(**options)(loop)
