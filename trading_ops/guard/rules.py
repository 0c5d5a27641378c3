"""How close is a strategy to being stopped, and has it crossed a limit?"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.portfolio.equity import strategies_of

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.portfolio.equity import DailyEquity

WARN_AT = 0.8  # of a hard limit
RECENT_TRADES = 20
GUARD_BLIND = "guard_blind"


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
    guard_blind where the loss cannot be known. `distance` tells what is left to each hard limit, in its own unit.
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
    log = _Log.of(trades)
    if day is None:
        start = log.closed_at[-1].astype("datetime64[D]") if log.closed_at.size else np.datetime64("NaT")
    else:
        start = np.datetime64(str(day), "D")
    return _judge_day(log, start, equity_at_midnight, limits, unrealised_now, unrealised_at_midnight)


@dataclass(frozen=True, slots=True)
class _Log:
    """One strategy's trades and positions in order: times, profits, and the streak after each position."""

    closed_at: np.ndarray
    profits: np.ndarray
    flat_at: np.ndarray
    results: np.ndarray
    streaks: np.ndarray

    @classmethod
    def of(cls, trades: pd.DataFrame) -> _Log:
        profits = trades["pnl_usdt"].to_numpy(float)
        if not np.isfinite(profits).all():
            row = int(np.argmin(np.isfinite(profits)))
            raise ValueError(f"trades row {row}: pnl_usdt is {profits[row]}; a finite number is needed")
        flat_at, results = positions(trades)
        closed_at = trades["closed_at"].to_numpy("datetime64[us]")
        order = np.argsort(closed_at, kind="stable")
        return cls(closed_at[order], profits[order], flat_at, results, losing_streaks(results))


def positions(trades: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(closed_at, profit) of each position, by (closed_at, id); the partial exits of one count once, at the last.

    >>> import pandas as pd
    >>> at = pd.to_datetime(["2025-03-01T01:00Z", "2025-03-01T02:00Z", "2025-03-01T03:00Z"])
    >>> frame = pd.DataFrame({"trade_id": list("abc"), "closed_at": at, "pnl_usdt": [-5.0, 8.0, 1.0],
    ...                       "position_id": ["p", "p", None]})
    >>> positions(frame)[1].tolist()
    [3.0, 1.0]
    """
    if trades.empty:
        return np.empty(0, "datetime64[us]"), np.empty(0)
    ordered = trades.sort_values(["closed_at", "trade_id"])
    # the prefixes keep a position from meeting a trade that happens to carry the same id
    identity = "t:" + ordered["trade_id"].astype(str)
    if "position_id" in ordered:
        known = ordered["position_id"].notna()
        identity = identity.where(~known, "p:" + ordered["position_id"].astype(str))
    grouped = ordered.groupby(identity.to_numpy(), sort=False).agg(
        closed_at=("closed_at", "last"), trade_id=("trade_id", "last"), profit=("pnl_usdt", "sum")
    )
    grouped = grouped.sort_values(["closed_at", "trade_id"])
    return grouped["closed_at"].to_numpy("datetime64[us]"), grouped["profit"].to_numpy(float)


def losing_streaks(profits: np.ndarray) -> np.ndarray:
    """Consecutive losses up to and including each position; a zero neither breaks nor extends the streak.

    >>> losing_streaks(np.array([-1.0, 0.0, -1.0, 2.0, -3.0])).tolist()
    [1, 1, 2, 0, 1]
    """
    losses = np.cumsum(profits < 0)
    at_last_win = np.maximum.accumulate(np.where(profits > 0, losses, 0)) if profits.size else losses
    return losses - at_last_win


def judge_days(
    trades: pd.DataFrame,
    daily: DailyEquity,
    days: Sequence[str],
    limits: Limits,
    *,
    label: str,
    incomplete: Collection[str] = (),
    allocated: Mapping[str, float | None] | None = None,
) -> dict[str, dict[str, Any]]:
    """`judge` at the end of each UTC day for every strategy; each strategy's history is ordered and counted once.

    `trades` reach back as far as a streak may; `daily` begins a day before the first of `days`. `incomplete`: the days
    with quarantined or missing trades, whose figures are then at best a lower bound. `allocated`: USDT a strategy was
    given, which stands in for an unknown equity.
    """
    import pandas as pd

    risks: dict[str, dict[str, StrategyRisk]] = {day: {} for day in days}
    for strategy in strategies_of(trades, daily):
        own = trades[trades["strategy"] == strategy]
        whole = None if _exits_on_several_days(own) else _Log.of(own)
        given = (allocated or {}).get(strategy)
        for day in days:
            at = pd.Timestamp(day, tz="UTC")
            before = at - timedelta(days=1)
            # a position still partly open on that day must not be dated by an exit that was yet to come
            log = whole or _Log.of(own[own["closed_at"] < at + timedelta(days=1)])
            known = _at(daily.equity, before, strategy)
            risk = _judge_day(
                log, np.datetime64(day, "D"), given if known is None else known, limits,
                _at(daily.unrealised, at, strategy), _at(daily.unrealised, before, strategy),
            )  # fmt: skip
            basis = (
                "allocation" if known is None and given else "closed_only" if daily.rebuilt(strategy, before) else None
            )
            risks[day][strategy] = replace(risk, equity_basis=basis) if basis else risk
    return {
        day: {
            "day": day,
            "candles": label,
            "status": _status(list(found.values()), incomplete=day in incomplete),
            "incomplete": day in incomplete,
            "limits": asdict(limits),
            "strategies": {strategy: asdict(risk) for strategy, risk in found.items()},
        }
        for day, found in risks.items()
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
    if rule.startswith("daily_loss"):
        return f"lost {loss:.2f} % today, the limit is {limits['daily_loss_pct']:g} %"
    if rule.startswith("consecutive_losses"):
        return f"{streak} losses in a row, the limit is {limits['consecutive_losses']}"
    return f"won {rate:.0f} % of its last {RECENT_TRADES} trades, {limits['recent_win_rate_pct']:g} % is low"


def _judge_day(
    log: _Log,
    day: np.datetime64,
    equity_at_midnight: float | None,
    limits: Limits,
    unrealised_now: float | None,
    unrealised_at_midnight: float | None,
) -> StrategyRisk:
    bounds = np.array([day, day + 1], "datetime64[us]")
    start, end = (0, 0) if np.isnat(day) else np.searchsorted(log.closed_at, bounds)
    positions_until = 0 if np.isnat(day) else int(np.searchsorted(log.flat_at, bounds[1]))
    marks = _difference(unrealised_now, unrealised_at_midnight)
    equity = equity_at_midnight if equity_at_midnight and 0 < equity_at_midnight < np.inf else None
    change = float(log.profits[start:end].sum()) + (marks or 0.0)
    loss = None if equity is None else 100 * max(0.0, -change) / float(equity)
    streak = int(log.streaks[positions_until - 1]) if positions_until else 0
    recent = log.results[max(0, positions_until - RECENT_TRADES) : positions_until]
    win_rate = 100.0 * int(np.count_nonzero(recent > 0)) / RECENT_TRADES if recent.size == RECENT_TRADES else None
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
        "daily_loss_near_limit": loss is not None and round(loss - WARN_AT * limits.daily_loss_pct, 9) >= 0,
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
