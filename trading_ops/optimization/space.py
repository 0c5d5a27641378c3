"""Which parameter sets may be tried?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import floor, inf, isnan, prod
from typing import Any

import numpy as np

from trading_ops.strategies.signals import STOPS, STRATEGIES, InvalidParameters, check_names, check_value, is_number

MOST_VALUES = 1_000  # of one parameter
RANGE = ("low", "high", "step")
OFF = "off"

# Each strategy's own space: what its author and its users vary it by, 49 to 180 sets, so that a default search is a
# grid; whoever wants more names more values.
DEFAULT_SPACES: dict[str, dict[str, Any]] = {
    "rsi": {
        "period": [7, 10, 14, 18, 21, 28],
        "oversold": {"low": 20, "high": 40, "step": 5},
        "overbought": {"low": 60, "high": 80, "step": 5},
    },
    "macd": {
        "fast": {"low": 6, "high": 16, "step": 2},
        "slow": {"low": 20, "high": 40, "step": 4},
        "signal": {"low": 5, "high": 13, "step": 2},
    },
    "bollinger": {
        "period": {"low": 10, "high": 40, "step": 5},
        "deviations": {"low": 1.5, "high": 3.0, "step": 0.25},
    },
    "volume": {
        "period": {"low": 10, "high": 40, "step": 5},
        "multiplier": {"low": 1.5, "high": 4.0, "step": 0.25},
    },
}


@dataclass(frozen=True)
class Space:
    """Each parameter's values, ascending; a stop's NaN (off) is last, as the widest of all.

    A set is a row of places in these lists. `ascending` names two parameters of which the first must be the lower.
    """

    strategy: str
    values: Mapping[str, tuple[float, ...]]

    @property
    def ascending(self) -> tuple[str, str] | None:
        return STRATEGIES[self.strategy].ascending

    @property
    def names(self) -> list[str]:
        return list(self.values)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(values) for values in self.values.values())

    @cached_property
    def size(self) -> int:
        """How many sets there are, without listing them."""
        if not self.ascending:
            return prod(self.shape)
        low, high = (self.values[name] for name in self.ascending)
        pairs = int(sum(len(high) - np.searchsorted(high, low, side="right")))
        return pairs * prod(len(v) for name, v in self.values.items() if name not in self.ascending)

    def possible(self, places: np.ndarray) -> np.ndarray:
        """Which rows of places are sets that can be, (n,) booleans."""
        if not self.ascending:
            return np.ones(len(places), dtype=bool)
        low, high = (self._column(places, name) for name in self.ascending)
        return low < high

    def columns(self, places: np.ndarray) -> dict[str, np.ndarray]:
        """The sets of rows of places as columns of values, float64."""
        return {name: self._column(places, name) for name in self.values}

    def parameters(self, places: Sequence[int] | np.ndarray) -> dict[str, float | int | None]:
        """One set, whole numbers as such; a stop that is off is None."""
        integers = STRATEGIES[self.strategy].integers
        row = {name: self.values[name][int(place)] for name, place in zip(self.values, places, strict=True)}
        return {name: int(v) if name in integers else None if isnan(v) else float(v) for name, v in row.items()}

    def grid(self) -> np.ndarray:
        """Every set as a row of places, (size, parameters), the last parameter changing fastest."""
        places = self._joined(_product([np.arange(n) for n in self._free]))
        return places[np.lexsort(places.T[::-1])]

    def draw(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """`count` sets, each any with the same chance, as rows of places."""
        return self._joined(generator.integers(0, self._free, (count, len(self._free))))

    @property
    def _free(self) -> tuple[int, ...]:
        """What may be combined freely: the pairs in ascending order as one, then the other parameters."""
        others = tuple(n for name, n in zip(self.values, self.shape, strict=True) if name not in (self.ascending or ()))
        return (len(self._pairs), *others) if self.ascending else others

    @cached_property
    def _pairs(self) -> np.ndarray:
        low, high = (np.array(self.values[name]) for name in self.ascending or ())
        return np.argwhere(low[:, None] < high[None, :])

    def _joined(self, free: np.ndarray) -> np.ndarray:
        """Rows of places in the lists of `_free` as rows of places in those of `values`."""
        if not self.ascending:
            return free
        paired = [self.names.index(name) for name in self.ascending]
        places = np.empty((len(free), len(self.shape)), dtype=np.int64)
        places[:, paired] = self._pairs[free[:, 0]]
        places[:, [i for i in range(len(self.shape)) if i not in paired]] = free[:, 1:]
        return places

    def _column(self, places: np.ndarray, name: str) -> np.ndarray:
        return np.array(self.values[name], dtype="float64")[places[:, self.names.index(name)]]


def build_space(strategy: str, given: Mapping[str, Any] | None = None) -> Space:
    """The strategy's default space with `given` put over it, parameter by parameter.

    A parameter is a list of values, {"low", "high", "step"} (both ends included), or one value, which fixes it.
    stop_loss_pct and take_profit_pct are off where not given; None, or "off", among their values is off too.
    Raises InvalidParameters naming strategy, parameter and value.
    """
    wanted = dict(given or {})
    rule = check_names(strategy, wanted)
    chosen = {name: wanted.get(name, DEFAULT_SPACES[strategy][name]) for name in rule.defaults}
    chosen |= {name: wanted[name] for name in STOPS if name in wanted}
    space = Space(strategy, {name: _values(strategy, name, value) for name, value in chosen.items()})
    if not space.size:
        low, high = space.ascending or ("", "")
        raise InvalidParameters(
            f"{strategy}: no {low} ({_few(space.values[low])}) is below any {high} ({_few(space.values[high])});"
            f" {low} must be below {high}"
        )
    return space


def _values(strategy: str, name: str, given: Any) -> tuple[float, ...]:
    where = f"{strategy}: {name}"
    if isinstance(given, Mapping):
        listed: list[Any] = _range(where, given)
    elif isinstance(given, Sequence | np.ndarray) and not isinstance(given, str):
        listed = list(given)
    else:
        listed = [given]
    if not listed:
        raise InvalidParameters(f"{where} is an empty list; at least one value would be right")
    if len(listed) > MOST_VALUES:
        raise InvalidParameters(f"{where} has {len(listed)} values; {MOST_VALUES} or fewer would be right")
    values = {_checked(strategy, name, value) for value in listed}
    off = [value for value in values if value is None]
    return (*sorted(float(value) for value in values if value is not None), *(float("nan") for _ in off))


def _checked(strategy: str, name: str, value: Any) -> float | None:
    """The value within its bounds, None for a stop that is off."""
    if name in STOPS and (value is None or (isinstance(value, str) and value.lower() == OFF)):
        return None
    return float(check_value(strategy, name, value))


def _range(where: str, given: Mapping[str, Any]) -> list[float]:
    wrong = set(given) ^ set(RANGE)
    numbers = [given.get(part) for part in RANGE]
    if wrong or not all(is_number(n) for n in numbers):
        raise InvalidParameters(
            f"{where} is {dict(given)!r}; a list of values, or the numbers low, high and step, would be right"
        )
    low, high, step = (float(n) for n in numbers if n is not None)
    if step <= 0 or high < low:
        raise InvalidParameters(f"{where} is {dict(given)!r}; a step above 0 and low up to high would be right")
    count = (high - low) / step
    if count >= MOST_VALUES or count == inf:
        raise InvalidParameters(
            f"{where} from {low:g} to {high:g} by {step:g} has more than {MOST_VALUES} values; take a larger step"
        )
    # rounded, since 1.5 + 3 * 0.1 is not 1.8
    return [round(low + i * step, 10) for i in range(floor(count + 1e-9) + 1)]


def _product(lists: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(np.meshgrid(*lists, indexing="ij"), axis=-1).reshape(-1, len(lists))


def _few(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values[:3]) + (", ..." if len(values) > 3 else "")
