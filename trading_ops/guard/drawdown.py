"""How far is the whole account below its start and its peak?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trading_ops.guard.rules import WARN_AT

if TYPE_CHECKING:
    from trading_ops.bot.records import Portfolio

FROM_PEAK, FROM_START = "portfolio_drawdown_from_peak", "portfolio_drawdown_from_start"


@dataclass(frozen=True, slots=True)
class PortfolioLimits:
    """A drawdown of the account above one of these stops every strategy; None: it is only shown."""

    from_peak_pct: float | None = None
    from_start_pct: float | None = None


@dataclass(frozen=True, slots=True)
class PortfolioRisk:
    """The account's drawdowns in percent, None where they are no percentage; `breach`, `warnings`, `distance` as a
    strategy's."""

    drawdown_from_peak_pct: float | None
    drawdown_from_start_pct: float | None
    breach: str | None
    warnings: tuple[str, ...]
    distance: dict[str, float | None]


def earned(account: Portfolio) -> float:
    """Equity less what was paid in since the start, USDT: a deposit is no profit, a withdrawal no loss."""
    return account.equity_usdt - (account.net_deposits_usdt or 0.0)


def drawdown(account: Portfolio, start_usdt: float, peak_usdt: float, limits: PortfolioLimits) -> PortfolioRisk:
    """The account's drawdowns; `start_usdt` and `peak_usdt` are figures of `earned`.

    drawdown % = 100 * max(0, then - now) / (then + deposits), with deposits those up to now: as if all of the present
    capital had been there then.
    """
    return below(earned(account), account.net_deposits_usdt or 0.0, start_usdt, peak_usdt, limits)


def below(
    now: float, deposits: float, start_usdt: float, peak_usdt: float, limits: PortfolioLimits = PortfolioLimits()
) -> PortfolioRisk:
    """`drawdown` of plain figures in USDT: `now` as `earned` gives it."""
    from_peak, from_start = (
        100 * max(0.0, then - now) / (then + deposits) if then + deposits > 0 else None
        for then in (max(peak_usdt, now), start_usdt)
    )
    found = {FROM_PEAK: (from_peak, limits.from_peak_pct), FROM_START: (from_start, limits.from_start_pct)}
    known = {rule: (pct, limit) for rule, (pct, limit) in found.items() if pct is not None and limit is not None}
    return PortfolioRisk(
        drawdown_from_peak_pct=from_peak,
        drawdown_from_start_pct=from_start,
        breach=next((rule for rule, (pct, limit) in known.items() if round(pct - limit, 9) > 0), None),
        warnings=tuple(f"{r}_near_limit" for r, (pct, limit) in known.items() if round(pct - WARN_AT * limit, 9) >= 0),
        distance={rule: known[rule][1] - known[rule][0] if rule in known else None for rule in found},
    )


def rises(now: float, level: float) -> bool:
    """Whether the account's peak is noted anew; only a thousandth more is worth writing down."""
    return now > level + abs(level) / 1000


def describe_account(risk: PortfolioRisk, limits: PortfolioLimits) -> str:
    """The account's breach in words, with the figure and its limit."""
    pct, limit, since = (
        (risk.drawdown_from_peak_pct, limits.from_peak_pct, "peak")
        if risk.breach == FROM_PEAK
        else (risk.drawdown_from_start_pct, limits.from_start_pct, "start")
    )
    return f"trades in an account that is {pct or 0:.2f} % below its {since}, the limit is {limit or 0:g} %"
