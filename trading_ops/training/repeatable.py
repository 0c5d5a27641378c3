"""How does torch give the same bits again, and share the machine with others?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

deterministic: Any = torch.utils.deterministic  # its attributes are properties that the type checker cannot see


@contextmanager
def repeatable(threads: int) -> Iterator[None]:
    """Sums in the same order each time, as far as torch knows how; afterwards all is set as before."""
    threads_before, strict_before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fills_before = deterministic.fill_uninitialized_memory
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic.fill_uninitialized_memory = False  # an aid for debugging that writes all memory once more
    try:
        yield
    finally:
        torch.set_num_threads(threads_before)
        torch.use_deterministic_algorithms(strict_before)
        deterministic.fill_uninitialized_memory = fills_before
