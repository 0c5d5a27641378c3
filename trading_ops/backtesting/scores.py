"""What came of each of many parameter sets, traded as the engine would each of them?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trading_ops.backtesting.bars import bars_of
from trading_ops.backtesting.orders import AT_ONCE, DEFAULT_COSTS, INITIAL_USDT, Costs, Execution, terms_of
from trading_ops.market.soundness import require_sound
from trading_ops.performance.metrics import sharpe_ratios
from trading_ops.strategies.indicators import Indicators
from trading_ops.strategies.signals import (
    STOPS,
    STRATEGIES,
    InvalidParameters,
    Rule,
    Strategy,
    check_names,
    check_value,
    out_of_order,
)

MEASURES = (
    "total_trades",
    "win_rate_pct",
    "total_return_pct",
    "sharpe_ratio",
    "max_drawdown_pct",
    "profit_factor",
    "avg_duration_hours",
)
MOST_AT_ONCE, LEAST_AT_ONCE = 5_000, 250  # sets scored by one thread in one go


@dataclass(frozen=True, eq=False)
class Scores:
    """What came of N parameter sets, by set and, for sums over any days, by block of days (B blocks).

    `figures`: MEASURES, (N,) each, NaN where undefined. `block_days` (B,): days in each block. (N, B): `block_returns`
    and `block_squares`, sums of the days' equity returns and of their squares; `block_trades`, trades closed.
    """

    figures: dict[str, np.ndarray]
    block_days: np.ndarray
    block_returns: np.ndarray
    block_squares: np.ndarray
    block_trades: np.ndarray


def score_sets(
    candles: pd.DataFrame,
    strategy: str,
    sets: Mapping[str, Any],
    costs: Costs = DEFAULT_COSTS,
    *,
    execution: Execution = AT_ONCE,
    day_blocks: np.ndarray | None = None,
    threads: int = 1,
) -> Scores:
    """Trade N parameter sets, as `backtest` would each of them.

    `sets`: columns of equal length, the strategy's parameters and stops (NaN or None: off); others take their default.
    `day_blocks`: for each UTC day that the candles touch, in order, its block from 0, or -1 to leave the day out.
    `threads`: how many cores to use. Raises InvalidParameters before anything runs where one set cannot be.
    """
    from trading_ops.backtesting import kernel

    if threads < 1:
        raise ValueError(f"threads is {threads}; 1 or more would be right")
    require_sound(candles, "candles")
    columns, numbers = _checked_sets(strategy, sets)
    bars, terms = bars_of(candles, costs), terms_of(costs, execution, INITIAL_USDT)
    blocks = np.full(len(bars.day_end), -1) if day_blocks is None else np.asarray(day_blocks, dtype=np.int64)
    if blocks.shape != bars.day_end.shape:
        raise ValueError(f"day_blocks has shape {blocks.shape}; a block for each of {len(bars.day_end)} days is needed")
    count, block_count = len(next(iter(columns.values()))), int(blocks.max(initial=-1)) + 1
    out = np.empty((count, kernel.COLUMNS))
    sums = [np.zeros((count, block_count)) for _ in range(3)]
    rule, indicators = STRATEGIES[strategy], Indicators(candles)

    sides = [(side, _same(side.parameters, numbers)) for side in rule.rules(execution.side)]
    # neighbours share indicators and signals, in whatever order the sets are given; a grid is in order already
    order = np.argsort(_same(columns, numbers), kind="stable")

    def work(at: np.ndarray) -> None:
        enter, leave = (_rows(side, rule, indicators, columns, at, same[at]) for side, same in sides)
        stops = [columns[name][at] / 100.0 for name in STOPS]
        part = np.empty((len(at), kernel.COLUMNS)), *(np.zeros((len(at), block_count)) for _ in sums)
        kernel.score(bars, terms, *enter, *leave, *stops, blocks, *part)
        for everything, piece in zip((out, *sums), part, strict=True):
            everything[at] = piece

    chunks = list(_shares(order, threads))
    if threads == 1:
        for chunk in chunks:
            work(chunk)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, chunks))
    return Scores(_figures(kernel, out), np.bincount(blocks[blocks >= 0], minlength=block_count), *sums)


def _shares(order: np.ndarray, threads: int) -> Iterator[np.ndarray]:
    """What the threads take one after the other: much at first, less towards the end, where none should wait long."""
    begin = 0
    while begin < len(order):
        left = len(order) - begin
        size = min(MOST_AT_ONCE, max(LEAST_AT_ONCE, left // (4 * threads)), -(-len(order) // threads))
        yield order[begin : begin + size]
        begin += size


def _checked_sets(strategy: str, sets: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The full columns of the sets, float64, NaN where a stop is off, and a number for each of a column's values.

    Raises InvalidParameters.
    """
    rule = check_names(strategy, sets)
    count = len(next(iter(sets.values()))) if sets else 0
    if not count:
        raise InvalidParameters(f"{strategy}: there is no set; a column of values for each parameter would be right")
    columns, numbers = {}, {}
    for name in (*rule.defaults, *STOPS):
        if name not in sets:
            columns[name] = np.full(count, float(rule.defaults.get(name, np.nan)))
            numbers[name] = np.zeros(count, dtype=np.int64)
            continue
        if len(sets[name]) != count:
            raise InvalidParameters(f"{strategy}: {name} has {len(sets[name])} values, the first parameter {count}")
        numbers[name], values = pd.factorize(pd.Series(sets[name]), use_na_sentinel=name in STOPS)
        known = np.array([*(check_value(strategy, name, value) for value in values), np.nan], dtype="float64")
        columns[name] = known[numbers[name]]  # number -1 is the NaN at the end
    if rule.ascending:
        low, high = (columns[name] for name in rule.ascending)
        for at in np.flatnonzero(low >= high)[:1]:
            raise out_of_order(rule, {name: values[at] for name, values in columns.items()})
    return columns, numbers


def _same(names: Iterable[str], numbers: Mapping[str, np.ndarray]) -> np.ndarray:
    """A number a set, equal where the parameters of these names are."""
    same = np.zeros(len(next(iter(numbers.values()))), dtype=np.int64)
    for name in names:
        same = same * (numbers[name].max() + 1) + numbers[name]
    return same


def _rows(
    rule: Rule,
    strategy: Strategy,
    indicators: Indicators,
    columns: Mapping[str, np.ndarray],
    at: np.ndarray,
    same: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each different signal of the sets `at` once: its bars end to end, where each begins, a row a set.

    `same`: equal where two sets' signals are.
    """
    _, first, row = np.unique(same, return_index=True, return_inverse=True)
    kinds = {name: "int64" if name in strategy.integers else "float64" for name in rule.parameters}
    sets = {name: columns[name][at[first]].astype(kind).tolist() for name, kind in kinds.items()}
    return *rule.bars(indicators, sets), row


def _figures(kernel: Any, out: np.ndarray) -> dict[str, np.ndarray]:
    """MEASURES of each set from what the kernel wrote of it; the same formulas as `_trade`'s."""
    trades, wins, gains, losses, hours, final, worst, mean, deviation = out.T
    with np.errstate(divide="ignore", invalid="ignore"):
        values = (
            trades.astype("int64"),
            100.0 * wins / trades,
            100.0 * (final / INITIAL_USDT - 1.0),
            sharpe_ratios(mean, deviation),
            100.0 * worst,
            np.where(losses > 0, gains / losses, np.nan),
            hours / trades,
        )
    return dict(zip(MEASURES, values, strict=True))
