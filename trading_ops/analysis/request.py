"""What may be asked of a bulk analysis? One validation for the job and the command."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Any

MOST_SYMBOLS = 5_000
LOOKBACK = (50, 5_000)
LOOKBACK_BARS = 500
CHUNKS = (1, 1_000)
THREADS = (1, 64)
STEPS = (1, 64)
PROGRESS_STEPS = 10  # it is told every 10 %


class InvalidRequest(ValueError):
    """Something was asked for that cannot be; the message names field, value and what would be right."""


@dataclass(frozen=True)
class Request:
    """What is asked for. `symbols` sorted, each once; None: all that the source has. `doubled`: named more than once.

    Only symbols, lookback_bars and min_score decide what comes out; the rest decides how fast.
    """

    symbols: tuple[str, ...] | None
    lookback_bars: int = LOOKBACK_BARS
    min_score: float = 0.0
    chunk_size: int | None = None
    threads: int | None = None
    doubled: tuple[str, ...] = ()

    def chunks(self, symbols: Sequence[str]) -> list[Sequence[str]]:
        """The symbols in pieces of the chunk size, which is a tenth of them at most, so that progress can be told."""
        most = max(1, ceil(len(symbols) / PROGRESS_STEPS))
        size = min(most, self.chunk_size or CHUNKS[1])
        return [symbols[i : i + size] for i in range(0, len(symbols), size)]

    @property
    def workers(self) -> int:
        """Threads: as asked, else one a processor; the compiled part of the work runs in parallel."""
        return self.threads or min(os.cpu_count() or 1, THREADS[1])


def make_request(
    symbols: Sequence[str] | None = None,
    *,
    all_symbols: bool = False,
    default: Sequence[str] | None = None,
    lookback_bars: int = LOOKBACK_BARS,
    min_score: float = 0.0,
    chunk_size: int | None = None,
    threads: int | None = None,
) -> Request:
    """The request, checked; raises InvalidRequest. `default` are the symbols where neither they nor all are named."""
    if all_symbols and symbols is not None:
        raise InvalidRequest(f"all_symbols is true and symbols names {len(symbols)}; one of the two would be right")
    named = default if symbols is None else symbols
    chosen, doubled = (None, ()) if all_symbols or named is None else _symbols(named)
    _check_whole("lookback_bars", lookback_bars, LOOKBACK)
    if chunk_size is not None:
        _check_whole("chunk_size", chunk_size, CHUNKS)
    if threads is not None:
        _check_whole("threads", threads, THREADS)
    number = isinstance(min_score, int | float) and not isinstance(min_score, bool) and isfinite(min_score)
    if not number or not 0.0 <= min_score <= 1.0:
        raise InvalidRequest(f"min_score is {min_score!r}; a number from 0 to 1 would be right")
    return Request(chosen, int(lookback_bars), float(min_score), chunk_size, threads, doubled)


def require_count(count: int) -> None:
    """Raises InvalidRequest unless so many symbols can be analysed at once."""
    if not 1 <= count <= MOST_SYMBOLS:
        raise InvalidRequest(
            f"symbols: {count:,} are asked for; 1 to {MOST_SYMBOLS:,} would be right, such as BTCUSDT,ETHUSDT"
        )


def _symbols(given: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if isinstance(given, str):
        raise InvalidRequest(f"symbols is {given!r}; a list such as ['BTCUSDT', 'ETHUSDT'] would be right")
    for at, symbol in enumerate(given):
        text = symbol.strip() if isinstance(symbol, str) else ""
        if not text.isascii() or not text.replace("-", "").replace("_", "").isalnum():
            raise InvalidRequest(f"symbols[{at}] is {symbol!r}; letters, digits, - and _ would be right: BTCUSDT")
    counted = Counter(symbol.strip().upper() for symbol in given)
    require_count(len(counted))
    return tuple(sorted(counted)), tuple(sorted(symbol for symbol, times in counted.items() if times > 1))


def _check_whole(name: str, value: Any, bounds: tuple[int, int]) -> None:
    low, high = bounds
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidRequest(f"{name} is {value!r}; a whole number from {low:,} to {high:,} would be right")
