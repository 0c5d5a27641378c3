"""At which bars does a strategy want to enter, and at which to leave?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import isfinite
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trading_ops.strategies.indicators import Indicators

if TYPE_CHECKING:
    import pandas as pd

Signals = tuple[np.ndarray, np.ndarray]
Side = Literal["long", "short"]
STOPS = {"stop_loss_pct": (0.01, 99.0), "take_profit_pct": (0.01, 1000.0)}  # optional for every strategy; None is off


class InvalidParameters(ValueError):
    """A strategy or parameter that cannot be; the message names field, value and what would be right."""


@dataclass(frozen=True)
class Whenever:
    """Act where the indicators and those parameters that it names say so: a bool a bar."""

    when: Callable[..., np.ndarray]
    parameters: tuple[str, ...]

    def bars(self, indicators: Indicators, sets: Mapping[str, Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
        """The bars at which each of N sets acts, ascending, set after set, and where each begins (N + 1,).

        `sets`: a column a parameter; quickest where neighbours have much alike.
        """
        columns = [sets[name] for name in self.parameters]
        found = [np.flatnonzero(self.when(indicators, *values)) for values in zip(*columns, strict=True)]
        return np.concatenate(found), np.cumsum([0, *map(len, found)])


@dataclass(frozen=True)
class Crossing:
    """Act where a series crosses a level, upwards or downwards: a parameter's, or 0."""

    series: Callable[..., np.ndarray]
    of: tuple[str, ...]
    level: str | None = None
    above: bool = False

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.of, self.level) if self.level else self.of

    def bars(self, indicators: Indicators, sets: Mapping[str, Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
        """As `Whenever.bars`; neighbours that differ in the level alone are looked at together."""
        from trading_ops.strategies.crossings import crossing_bars

        columns = [sets[name] for name in self.of]
        levels = np.asarray(sets[self.level], "float64") if self.level else np.zeros(len(columns[0]))
        found, counts, done = [], [np.zeros(1, np.int64)], 0
        for values, alike in groupby(zip(*columns, strict=True)):
            begin, done = done, done + sum(1 for _ in alike)
            bars, begins = crossing_bars(self.series(indicators, *values), levels[begin:done], above=self.above)
            found.append(bars)
            counts.append(np.diff(begins))
        return np.concatenate(found), np.cumsum(np.concatenate(counts))


Rule = Whenever | Crossing


@dataclass(frozen=True)
class Strategy:
    """What it does and what its parameters mean; its rules as (enter, leave) a side.

    Bounds are inclusive, `ascending` names a pair of which the first must be lower; `lookback` is the number of bars
    until its signals are defined.
    """

    name: str
    about: str
    meaning: Mapping[str, str]
    long: tuple[Rule, Rule]
    short: tuple[Rule, Rule]
    defaults: Mapping[str, float]
    bounds: Mapping[str, tuple[float, float]]
    integers: frozenset[str]
    lookback: Callable[[Mapping[str, Any]], int]
    ascending: tuple[str, str] | None = None

    def rules(self, side: Side) -> tuple[Rule, Rule]:
        return self.long if side == "long" else self.short


def signals(
    candles: pd.DataFrame, strategy: str, parameters: Mapping[str, Any] | None = None, *, side: Side = "long"
) -> Signals:
    """(entries, exits): one bool a bar, known at the bar's close and from no later bar.

    `candles` is a sound candle frame (market.candles). Where an indicator is undefined there is no signal.
    Raises InvalidParameters.
    """
    checked = check_parameters(strategy, parameters)
    if candles.empty:
        return np.zeros(0, dtype=bool), np.zeros(0, dtype=bool)
    indicators = Indicators(candles)
    one = {name: (value,) for name, value in checked.items()}
    enter, leave = (_flags(rule.bars(indicators, one)[0], len(candles)) for rule in STRATEGIES[strategy].rules(side))
    return enter, leave


def check_parameters(strategy: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The strategy's full parameters, defaults filled in, and the stops that are set. Raises InvalidParameters."""
    given = dict(parameters or {})
    rule = check_names(strategy, given)
    checked: dict[str, Any] = {
        name: check_value(strategy, name, given.get(name, default)) for name, default in rule.defaults.items()
    }
    checked |= check_stops(strategy, given)
    if rule.ascending and checked[rule.ascending[0]] >= checked[rule.ascending[1]]:
        raise out_of_order(rule, checked)
    return checked


def check_names(strategy: str, names: Any) -> Strategy:
    """The strategy of this name; raises InvalidParameters where it is unknown or has no parameter of these names."""
    if strategy not in STRATEGIES:
        raise InvalidParameters(f"strategy {strategy!r} is unknown; there are {', '.join(sorted(STRATEGIES))}")
    rule = STRATEGIES[strategy]
    for name in names:
        if name not in rule.bounds and name not in STOPS:
            known = ", ".join([*rule.bounds, *STOPS])
            raise InvalidParameters(f"{strategy}: parameter {name!r} is unknown; there are {known}")
    return rule


def check_stops(owner: str, given: Mapping[str, Any]) -> dict[str, float]:
    """Those of stop_loss_pct and take_profit_pct that are set (not None). Raises InvalidParameters."""
    return {name: _checked(owner, name, given[name], STOPS[name]) for name in STOPS if given.get(name) is not None}


def check_value(strategy: str, name: str, value: Any) -> float | int:
    """One parameter's value, or that of a stop, as it is used. Raises InvalidParameters."""
    rule = STRATEGIES[strategy]
    bounds = rule.bounds[name] if name in rule.bounds else STOPS[name]
    return _checked(strategy, name, value, bounds, whole=name in rule.integers)


def out_of_order(rule: Strategy, parameters: Mapping[str, Any]) -> InvalidParameters:
    """What to say of a set whose ascending pair does not ascend."""
    assert rule.ascending is not None
    low, high = rule.ascending
    return InvalidParameters(
        f"{rule.name}: {low} is {parameters[low]:g} and {high} is {parameters[high]:g}; {low} must be below {high}"
    )


def is_number(value: Any) -> bool:
    """Whether this is a finite number that a computer can calculate with, and no truth value."""
    try:
        return isinstance(value, Real) and not isinstance(value, (bool, np.bool_)) and isfinite(value)
    except OverflowError:
        return False


def _checked(owner: str, name: str, value: Any, bounds: tuple[float, float], *, whole: bool = False) -> float | int:
    low, high = bounds
    if not is_number(value) or not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise InvalidParameters(f"{owner}: {name} is {value!r}; {kind} from {low:g} to {high:g} would be right")
    return int(value) if whole else float(value)


def _flags(bars: np.ndarray, count: int) -> np.ndarray:
    flags = np.zeros(count, dtype=bool)
    flags[bars] = True
    return flags


def _spike_up(indicators: Indicators, period: int, multiplier: float) -> np.ndarray:
    return indicators.volume_spike(period, multiplier) & (indicators.close > indicators.opened)


def _spike_down(indicators: Indicators, period: int, multiplier: float) -> np.ndarray:
    return indicators.volume_spike(period, multiplier) & (indicators.close < indicators.opened)


def _faded(indicators: Indicators, period: int, multiplier: float) -> np.ndarray:
    fell, _ = _BELOW_MEAN.bars(indicators, {"period": (period,)})
    return _spike_down(indicators, period, multiplier) | _flags(fell, len(indicators.close))


def _recovered(indicators: Indicators, period: int, multiplier: float) -> np.ndarray:
    rose, _ = _ABOVE_MEAN.bars(indicators, {"period": (period,)})
    return _spike_up(indicators, period, multiplier) | _flags(rose, len(indicators.close))


_OVERSOLD = Crossing(Indicators.rsi, ("period",), "oversold")
_OVERBOUGHT = Crossing(Indicators.rsi, ("period",), "overbought", above=True)

_MACD = ("fast", "slow", "signal")
_MACD_UP, _MACD_DOWN = Crossing(Indicators.macd_gap, _MACD, above=True), Crossing(Indicators.macd_gap, _MACD)

_BANDS = ("period", "deviations")
_BELOW_BAND = Crossing(lambda i, period, wide: i.band_gap(period, -wide), _BANDS)
_ABOVE_BAND = Crossing(Indicators.band_gap, _BANDS, above=True)
_ABOVE_MEAN = Crossing(Indicators.mean_gap, ("period",), above=True)
_BELOW_MEAN = Crossing(Indicators.mean_gap, ("period",))

_SPIKES = ("period", "multiplier")
_SPIKE_UP, _SPIKE_DOWN = Whenever(_spike_up, _SPIKES), Whenever(_spike_down, _SPIKES)
_FADED, _RECOVERED = Whenever(_faded, _SPIKES), Whenever(_recovered, _SPIKES)

STRATEGIES: dict[str, Strategy] = {
    rule.name: rule
    for rule in (
        Strategy(
            name="rsi",
            about="Enter when RSI crosses below oversold (previous >= oversold > now), leave when it crosses above"
            " overbought; a short the other way round. Source: Wilder (1978).",
            meaning={
                "period": "bars over which rises and falls are smoothed",
                "oversold": "RSI below which a long is entered",
                "overbought": "RSI above which a long is left",
            },
            long=(_OVERSOLD, _OVERBOUGHT),
            short=(_OVERBOUGHT, _OVERSOLD),
            defaults={"period": 14, "oversold": 30.0, "overbought": 70.0},
            bounds={"period": (2, 1000), "oversold": (1.0, 99.0), "overbought": (1.0, 99.0)},
            integers=frozenset({"period"}),
            lookback=lambda p: int(p["period"]) + 1,
            ascending=("oversold", "overbought"),
        ),
        Strategy(
            name="macd",
            about="Enter when MACD = EMA(fast) - EMA(slow) crosses above EMA(MACD, signal), leave when below; a short"
            " the other way round. Source: Appel (1979).",
            meaning={
                "fast": "bars of the faster average of closes",
                "slow": "bars of the slower average of closes",
                "signal": "bars of the average of MACD itself",
            },
            long=(_MACD_UP, _MACD_DOWN),
            short=(_MACD_DOWN, _MACD_UP),
            defaults={"fast": 12, "slow": 26, "signal": 9},
            bounds={"fast": (2, 1000), "slow": (2, 1000), "signal": (2, 1000)},
            integers=frozenset({"fast", "slow", "signal"}),
            lookback=lambda p: int(p["slow"] + p["signal"]) - 1,
            ascending=("fast", "slow"),
        ),
        Strategy(
            name="bollinger",
            about="Enter when close crosses below mean - deviations * s, leave when it crosses above the mean; a short"
            " enters above the upper band. Source: Bollinger (2001).",
            meaning={
                "period": "bars of the mean and of the population deviation s",
                "deviations": "how many deviations the band is away from the mean",
            },
            long=(_BELOW_BAND, _ABOVE_MEAN),
            short=(_ABOVE_BAND, _BELOW_MEAN),
            defaults={"period": 20, "deviations": 2.0},
            bounds={"period": (2, 1000), "deviations": (0.1, 10.0)},
            integers=frozenset({"period"}),
            lookback=lambda p: int(p["period"]),
        ),
        Strategy(
            name="volume",
            about="Enter on a spike of volume that closes above its open; leave on one that closes below, or when close"
            " crosses below its mean; a short the other way round. Source: Granville (1963).",
            meaning={
                "period": "bars of the usual volume and of the mean close",
                "multiplier": "how many times the usual volume a spike is",
            },
            long=(_SPIKE_UP, _FADED),
            short=(_SPIKE_DOWN, _RECOVERED),
            defaults={"period": 20, "multiplier": 2.0},
            bounds={"period": (2, 1000), "multiplier": (0.1, 100.0)},
            integers=frozenset({"period"}),
            lookback=lambda p: int(p["period"]) + 1,
        ),
    )
}
