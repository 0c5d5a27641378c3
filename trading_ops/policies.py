"""Which limits and rules does this configuration set?"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trading_ops.assessments.rules import Limits as RetrainLimits
    from trading_ops.costs.budget import Limits as CostLimits
    from trading_ops.guard.switch import Policy as GuardPolicy
    from trading_ops.notifications.incident import Policy as IncidentPolicy
    from trading_ops.performance.verdict import Limits as PerformanceLimits
    from trading_ops.settings import Settings
    from trading_ops.training.trainer import Limits as TrainingLimits


def performance_limits(settings: Settings) -> PerformanceLimits:
    """What is good, and what is critical."""
    from trading_ops.performance.verdict import Limits

    return Limits(
        win_rate_target_pct=settings.win_rate_target_pct,
        win_rate_critical_pct=settings.win_rate_critical_pct,
        avg_profit_target_pct=settings.avg_profit_target_pct,
        avg_profit_critical_pct=settings.avg_profit_critical_pct,
        sharpe_target=settings.sharpe_target,
        sharpe_critical=settings.sharpe_critical,
        min_trades=settings.min_trades,
    )


def cost_limits(settings: Settings) -> CostLimits:
    """The LLM spend that warns, and that no call may pass."""
    from trading_ops.costs.budget import Limits

    return Limits(
        day_warning_usd=settings.cost_day_warning_usd,
        day_critical_usd=settings.cost_day_critical_usd,
        month_warning_usd=settings.cost_month_warning_usd,
        month_critical_usd=settings.cost_month_critical_usd,
    )


def guard_policy(settings: Settings) -> GuardPolicy:
    """What stops a strategy; what it has no limit of its own for is held to the limit of all."""
    from trading_ops.guard.drawdown import PortfolioLimits
    from trading_ops.guard.rules import Limits
    from trading_ops.guard.switch import Policy

    limits = Limits(
        daily_loss_pct=settings.guard_daily_loss_pct,
        consecutive_losses=settings.guard_consecutive_losses,
        recent_win_rate_pct=settings.guard_recent_win_rate_pct,
    )
    return Policy(
        limits=limits,
        own_limits={
            name: Limits(
                daily_loss_pct=own.get("daily_loss_pct", limits.daily_loss_pct),
                consecutive_losses=int(own.get("consecutive_losses", limits.consecutive_losses)),
                recent_win_rate_pct=own.get("recent_win_rate_pct", limits.recent_win_rate_pct),
            )
            for name, own in settings.guard_limits.items()
        },
        portfolio=PortfolioLimits(settings.guard_portfolio_from_peak_pct, settings.guard_portfolio_from_start_pct),
        observe_only=settings.guard_mode == "observe_only",
    )


def incident_policy(settings: Settings, *, updates_are_shown: bool) -> IncidentPolicy:
    """When people hear of an incident again; updates are made where a channel shows them."""
    from trading_ops.notifications.incident import Policy

    return Policy(
        escalate_after=timedelta(minutes=settings.notification_escalate_minutes),
        escalation_steps=max(len(settings.notification_escalation), 1),
        update_every=Policy().update_every if updates_are_shown else None,
    )


def retrain_limits(settings: Settings) -> RetrainLimits:
    """When a retrain is allowed and when it is due; what is critical is what it is elsewhere."""
    from trading_ops.assessments.rules import Limits

    return Limits(
        win_rate_pct=settings.win_rate_critical_pct,
        sharpe=settings.sharpe_critical,
        min_trades=settings.min_trades,
    )


def training_limits(settings: Settings) -> TrainingLimits:
    """What the training of one model may take."""
    from trading_ops.training.trainer import Limits

    return Limits(seconds=settings.training_max_s, memory_mb=settings.training_max_memory_mb)
