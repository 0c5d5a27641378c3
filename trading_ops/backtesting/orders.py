"""What does an order cost, and how is it placed?"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from trading_ops.strategies.signals import Side, is_number

Market = Literal["spot", "futures"]
MAX_LATENCY_BARS = 168
INITIAL_USDT = 10_000.0
LEAST_LOT, LEAST_EQUITY_PCT, LEAST_USDT = 1e-12, 0.01, 0.01  # below, rounding would be all there is


class InvalidCosts(ValueError):
    """Costs or capital that cannot be; the message names field, value and what would be right."""


class InvalidExecution(ValueError):
    """A way of placing orders that cannot be; the message names field, value and what would be right."""


@dataclass(frozen=True)
class Costs:
    """What trading costs: fee and slippage in percent of a fill, the exchange's lot step and least order if known.

    `funding_pct`: of a future's notional, at 00:00, 08:00 and 16:00 UTC; above 0 longs pay shorts.
    """

    fee_pct: float = 0.1
    slippage_pct: float = 0.05
    lot_step: float | None = None
    min_notional_usdt: float | None = None
    funding_pct: float = 0.0

    def __post_init__(self) -> None:
        for name in ("fee_pct", "slippage_pct"):
            value = getattr(self, name)
            if not is_number(value) or not 0 <= value < 100:
                raise InvalidCosts(f"{name} is {value!r}; a percentage from 0 to below 100 would be right")
        if self.lot_step is not None and (not is_number(self.lot_step) or self.lot_step < LEAST_LOT):
            raise InvalidCosts(
                f"lot_step is {self.lot_step!r}; a quantity of {LEAST_LOT:g} or more, or None, would be right"
            )
        if self.min_notional_usdt is not None and (not is_number(self.min_notional_usdt) or self.min_notional_usdt < 0):
            raise InvalidCosts(f"min_notional_usdt is {self.min_notional_usdt!r}; 0 or more, or None, would be right")
        if not is_number(self.funding_pct) or not -5 <= self.funding_pct <= 5:
            raise InvalidCosts(f"funding_pct is {self.funding_pct!r}; a percentage from -5 to 5 would be right")


@dataclass(frozen=True)
class Execution:
    """How orders are placed: which side of which market, how many bars late, and with how much of the equity.

    A signal at the close of bar i fills at the open of bar i + 1 + latency_bars.
    """

    side: Side = "long"
    market: Market = "spot"
    latency_bars: int = 0
    equity_pct: float = 100.0

    def __post_init__(self) -> None:
        for name, kind in (("side", Side), ("market", Market)):
            if getattr(self, name) not in get_args(kind):
                raise InvalidExecution(
                    f"{name} is {getattr(self, name)!r}; {' or '.join(get_args(kind))} would be right"
                )
        if self.side == "short" and self.market == "spot":
            raise InvalidExecution("side is 'short' on market 'spot', which cannot go short; give market 'futures'")
        late = self.latency_bars
        if not is_number(late) or late != int(late) or not 0 <= late <= MAX_LATENCY_BARS:
            raise InvalidExecution(
                f"latency_bars is {late!r}; a whole number from 0 to {MAX_LATENCY_BARS} would be right"
            )
        if not is_number(self.equity_pct) or not LEAST_EQUITY_PCT <= self.equity_pct <= 100:
            raise InvalidExecution(
                f"equity_pct is {self.equity_pct!r}; a percentage from {LEAST_EQUITY_PCT:g} to 100 would be right"
            )


DEFAULT_COSTS = Costs()
AT_ONCE = Execution()


class Terms(NamedTuple):
    """Costs and execution as the loops read them: fractions, not percent; 0 switches lot step and least order off."""

    side: float
    fee: float
    slip: float
    lot_step: float
    min_notional: float
    share: float
    latency: int
    initial: float


def terms_of(costs: Costs, execution: Execution, initial_usdt: float) -> Terms:
    """Costs and execution as the kernel reads them. Raises InvalidCosts."""
    if not is_number(initial_usdt) or initial_usdt < LEAST_USDT:
        raise InvalidCosts(f"initial_usdt is {initial_usdt!r}; an amount of {LEAST_USDT:g} or more would be right")
    if costs.funding_pct and execution.market == "spot":
        raise InvalidCosts(
            f"funding_pct is {costs.funding_pct!r} on market 'spot', which has no funding; 0 would be right"
        )
    return Terms(
        side=1.0 if execution.side == "long" else -1.0,
        fee=costs.fee_pct / 100.0,
        slip=costs.slippage_pct / 100.0,
        lot_step=float(costs.lot_step or 0.0),
        min_notional=float(costs.min_notional_usdt or 0.0),
        share=execution.equity_pct / 100.0,
        latency=int(execution.latency_bars),
        initial=float(initial_usdt),
    )


def fraction(percent: float | None) -> float:
    """A stop or target as the kernel reads it: NaN is off."""
    return np.nan if percent is None else percent / 100.0
