"""How close is a strategy to being stopped, and has it crossed a limit?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.guard.positions import Log
from trading_ops.portfolio.equity import strategies_of

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.portfolio.equity import DailyEquity

WARN_AT = 0.8  # of a hard limit
RECENT_TRADES = 20
GUARD_BLIND, EQUITY_FELL, NOT_LISTED = "guard_blind", "equity_fell", "not_listed"
NEAR_LOSS = "daily_loss_near_limit"


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits stop a strategy when exceeded; the win rate over the last 20 trades only warns."""

    daily_loss_pct: float = 10.0
    consecutive_losses: int = 10
    recent_win_rate_pct: float = 30.0


@dataclass(frozen=True, slots=True)
class StrategyRisk:
    """One strategy's risk on one UTC day; percentages in percent, None where unknown or not applicable.

    `breach`: daily_loss or consecutive_losses, the hard limit that was exceeded. `warnings`: the soft lane, and
    guard_blind where the loss cannot be known; equity_fell where the loss may be a withdrawal, and not_listed where the
    bot does not list the strategy, so that it cannot be stopped. `distance` tells what is left to each hard limit, in
    its own unit.
    """

    daily_loss_pct: float | None
    consecutive_losses: int
    recent_win_rate_pct: float | None
    breach: str | None
    warnings: tuple[str, ...]
    equity_at_midnight_usdt: float | None
    distance: dict[str, float | None]
    basis: str
    equity_basis: str = "equity"


def judge(
    trades: pd.DataFrame,
    equity_at_midnight: float | None,
    limits: Limits = Limits(),
    *,
    day: date | str | None = None,
    unrealised_now: float | None = 0.0,
    unrealised_at_midnight: float | None = 0.0,
    since: datetime | None = None,
) -> StrategyRisk:
    """Judge one strategy by its closed trades (any order; `trade_id`, `closed_at`, `pnl_usdt`, maybe `position_id`).

    Trades after `day` (None: the last trade's UTC day) and before `since` (its resume) do not count. Without both
    unrealised figures (None) the loss is of closed trades only.
    """
    if since is not None:
        trades = trades[trades["closed_at"] >= since]
    if day is not None:
        trades = trades[trades["closed_at"] < datetime.fromisoformat(f"{day}T00:00:00+00:00") + timedelta(days=1)]
    log = Log.of(trades)
    if day is None:
        start = log.closed_at[-1].astype("datetime64[D]") if log.closed_at.size else np.datetime64("NaT")
    else:
        start = np.datetime64(str(day), "D")
    return _judge_day(log, start, equity_at_midnight, limits, unrealised_now, unrealised_at_midnight)


def judge_days(
    trades: pd.DataFrame,
    daily: DailyEquity,
    days: Sequence[str],
    limits: Limits,
    *,
    label: str,
    own_limits: Mapping[str, Limits] | None = None,
    incomplete: Collection[str] = (),
    allocated: Mapping[str, float | None] | None = None,
) -> dict[str, dict[str, Any]]:
    """`judge` at the end of each UTC day for every strategy; each strategy's history is ordered and counted once.

    `trades` reach back as far as a streak may; `daily` begins a day before the first of `days`. `incomplete`: the days
    with quarantined or missing trades, whose figures are then at best a lower bound. `allocated`: USDT a strategy was
    given, which stands in for an unknown equity. `own_limits`: of the strategies that have limits of their own.
    """
    import pandas as pd

    risks: dict[str, dict[str, StrategyRisk]] = {day: {} for day in days}
    for strategy in strategies_of(trades, daily):
        own = trades[trades["strategy"] == strategy]
        whole = None if _exits_on_several_days(own) else Log.of(own)
        given = (allocated or {}).get(strategy)
        held_to = (own_limits or {}).get(strategy, limits)
        for day in days:
            at = pd.Timestamp(day, tz="UTC")
            before = at - timedelta(days=1)
            # a position still partly open on that day must not be dated by an exit that was yet to come
            log = whole or Log.of(own[own["closed_at"] < at + timedelta(days=1)])
            known = _at(daily.equity, before, strategy)
            risk = _judge_day(
                log, np.datetime64(day, "D"), given if known is None else known, held_to,
                _at(daily.unrealised, at, strategy), _at(daily.unrealised, before, strategy),
            )  # fmt: skip
            basis = (
                "allocation" if known is None and given else "closed_only" if daily.rebuilt(strategy, before) else None
            )
            risks[day][strategy] = replace(risk, equity_basis=basis) if basis else risk
    return {
        day: document(day, found, limits, own_limits or {}, label=label, incomplete=day in incomplete)
        for day, found in risks.items()
    }


def document(
    day: str,
    risks: Mapping[str, StrategyRisk],
    limits: Limits,
    own_limits: Mapping[str, Limits],
    *,
    label: str,
    incomplete: bool,
) -> dict[str, Any]:
    """The value of `strategy_risk` on one UTC day."""
    return {
        "day": day,
        "candles": label,
        "status": _status(list(risks.values()), incomplete=incomplete),
        "incomplete": incomplete,
        "limits": asdict(limits),
        "own_limits": {name: asdict(own) for name, own in own_limits.items()},
        "strategies": {strategy: asdict(risk) for strategy, risk in risks.items()},
    }


def _exits_on_several_days(trades: pd.DataFrame) -> bool:
    if "position_id" not in trades or trades["position_id"].isna().all():
        return False
    days = trades["closed_at"].dt.floor("D").groupby(trades["position_id"].astype(str)).nunique()
    return bool((days > 1).any())


def describe(rule: str, risk: Mapping[str, Any], limits: Mapping[str, Any]) -> str:
    """A breach or warning in words, with the figure and its limit; `risk` and `limits` as in a stored document."""
    loss, streak, rate = risk["daily_loss_pct"], risk["consecutive_losses"], risk["recent_win_rate_pct"]
    if rule == GUARD_BLIND:
        return "its loss is unknown: no equity at 00:00 UTC"
    if rule == EQUITY_FELL:
        return (
            f"by its equity it lost {loss:.2f} % today, the limit is {limits['daily_loss_pct']:g} %; its trades do not"
            " show that, and it may have been paid out"
        )
    if rule == NOT_LISTED:
        return "it crossed a limit, and the bot does not list it any more"
    if rule.startswith("daily_loss"):
        return f"lost {loss:.2f} % today, the limit is {limits['daily_loss_pct']:g} %"
    if rule.startswith("consecutive_losses"):
        return f"{streak} losses in a row, the limit is {limits['consecutive_losses']}"
    return f"won {rate:.0f} % of its last {RECENT_TRADES} trades, {limits['recent_win_rate_pct']:g} % is low"


def with_unseen(by_trades: StrategyRisk, by_equity: StrategyRisk, *, sure: bool) -> StrategyRisk:
    """The verdict where trades are in doubt: the larger loss counts. One that may be a withdrawal only warns."""
    if (by_equity.daily_loss_pct or 0.0) <= (by_trades.daily_loss_pct or 0.0):
        return by_trades
    found = replace(by_equity, basis="equity", equity_basis=by_trades.equity_basis)
    if sure:
        return found
    if NEAR_LOSS not in by_equity.warnings:
        return by_trades
    return replace(found, breach=by_trades.breach, warnings=(*by_trades.warnings, EQUITY_FELL))


def unlisted(risk: StrategyRisk) -> StrategyRisk:
    """The verdict on a strategy that the bot does not list: it cannot be stopped, so it is no breach but a warning."""
    return replace(risk, breach=None, warnings=() if risk.breach is None else (NOT_LISTED,))


def _judge_day(
    log: Log,
    day: np.datetime64,
    equity_at_midnight: float | None,
    limits: Limits,
    unrealised_now: float | None,
    unrealised_at_midnight: float | None,
) -> StrategyRisk:
    bounds = np.array([day, day + 1], "datetime64[us]")
    start, end = (0, 0) if np.isnat(day) else np.searchsorted(log.closed_at, bounds)
    positions_until = 0 if np.isnat(day) else int(np.searchsorted(log.flat_at, bounds[1]))
    return assess(
        limits,
        realised_usdt=float(log.profits[start:end].sum()),
        streak=int(log.streaks[positions_until - 1]) if positions_until else 0,
        recent=log.results[max(0, positions_until - RECENT_TRADES) : positions_until].tolist(),
        equity_at_midnight=equity_at_midnight,
        unrealised_now=unrealised_now,
        unrealised_at_midnight=unrealised_at_midnight,
    )


def assess(
    limits: Limits,
    *,
    realised_usdt: float,
    streak: int,
    recent: Sequence[float],
    equity_at_midnight: float | None,
    unrealised_now: float | None,
    unrealised_at_midnight: float | None,
) -> StrategyRisk:
    """The verdict on a day's figures.

    loss % = 100 * max(0, -(realised + unrealised now - unrealised at midnight)) / equity at midnight; None where that
    equity is unknown or not above 0. `recent`: the results of the last positions, at most 20; fewer give no win rate.
    """
    marks = _difference(unrealised_now, unrealised_at_midnight)
    equity = equity_at_midnight if equity_at_midnight and 0 < equity_at_midnight < np.inf else None
    loss = None if equity is None else 100 * max(0.0, -(realised_usdt + (marks or 0.0))) / float(equity)
    whole = len(recent) == RECENT_TRADES
    win_rate = 100.0 * sum(result > 0 for result in recent) / RECENT_TRADES if whole else None
    return StrategyRisk(
        daily_loss_pct=loss,
        consecutive_losses=streak,
        recent_win_rate_pct=win_rate,
        breach=_breach(loss, streak, limits),
        warnings=_warnings(loss, streak, win_rate, limits),
        equity_at_midnight_usdt=None if equity is None else float(equity),
        distance={
            "daily_loss_pct": None if loss is None else limits.daily_loss_pct - loss,
            "consecutive_losses": float(limits.consecutive_losses - streak),
        },
        basis="closed_only" if marks is None else "mark_to_market",
    )


def _breach(loss: float | None, streak: int, limits: Limits) -> str | None:
    if loss is not None and round(loss - limits.daily_loss_pct, 9) > 0:
        return "daily_loss"
    return "consecutive_losses" if streak > limits.consecutive_losses else None


def _warnings(loss: float | None, streak: int, win_rate: float | None, limits: Limits) -> tuple[str, ...]:
    found = {
        GUARD_BLIND: loss is None,
        NEAR_LOSS: loss is not None and round(loss - WARN_AT * limits.daily_loss_pct, 9) >= 0,
        "consecutive_losses_near_limit": streak >= WARN_AT * limits.consecutive_losses,
        "recent_win_rate_low": win_rate is not None and win_rate < limits.recent_win_rate_pct,
    }
    return tuple(name for name, true in found.items() if true)


def _status(risks: Sequence[StrategyRisk], *, incomplete: bool) -> str:
    if any(risk.breach or GUARD_BLIND in risk.warnings for risk in risks):
        return "critical"
    if incomplete or any(risk.warnings for risk in risks):
        return "warning"
    return "good" if risks else "unknown"


def _difference(now: float | None, before: float | None) -> float | None:
    """None where either is unknown."""
    if now is None or before is None or not np.isfinite(now) or not np.isfinite(before):
        return None
    return float(now) - float(before)


def _at(frame: pd.DataFrame, day: pd.Timestamp, strategy: str) -> float | None:
    """The figure of that day, None where it is unknown."""
    value = frame.at[day, strategy] if day in frame.index and strategy in frame else np.nan
    return None if np.isnan(value) else float(value)
