"""What do people hear from the guard, and what can they do by hand?"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import StoreError, StoreUnavailable
from trading_ops.guard.actions import (
    BY_HAND,
    CONFIRMED,
    ESCALATED,
    GONE,
    OBSERVED,
    REQUESTED,
    RESUMED,
    RESUMING,
    SENT,
    WATCHING,
    Action,
    action_id,
    begun_at,
    latencies,
)
from trading_ops.guard.rules import GUARD_BLIND, StrategyRisk, describe
from trading_ops.notifications.alert import Alert, Severity, Step

if TYPE_CHECKING:
    from trading_ops.notifications.desk import IncidentDesk

STOPPING = "stopping"
RESUME = "It stays stopped until a person resumes it: `trading-ops strategies resume {name} --reason ...`."
STOP_BY_HAND = (
    "Stop {name} by hand, at the bot's own interface or by stopping the bot, cancel its entry orders at the exchange,"
    " and leave its exits. The guard goes on trying, and says when it is confirmed."
)
SHOWN = 5
UNREADABLE, DOUBTS = "guard/unreadable", "guard/doubts"
_log = logging.getLogger(__name__)
Tell = Callable[[Alert], object]
SOFT = (GUARD_BLIND, "daily_loss_near_limit", "consecutive_losses_near_limit", "recent_win_rate_low")


def through(desk: IncidentDesk) -> Callable[[Alert], None]:
    """Tells by the incident desk, so that what nobody answers escalates.

    Each message is a finding of its own, so none passes for a repetition. Raises StoreError where it must be retried.
    """

    def tell(alert: Alert) -> None:
        assert alert.incident is not None
        if alert.step is not Step.RESOLVED:
            desk.observe(alert, {alert.dedup_key: alert.severity})
            return
        desk.recover(alert.incident)
        if desk.store_error:
            raise StoreUnavailable(desk.store_error)

    return tell


def news(action: Action) -> str | None:
    """What there is to tell of an action that was not told yet: a phase, or nothing."""
    state = action["state"]
    phase = STOPPING if state in (REQUESTED, SENT) else RESUMED if state == WATCHING else state
    return None if phase == RESUMING or phase in action["told"] else phase


def alert_of(action: Action, phase: str) -> Alert:
    """The message about a phase: told once, as part of the one incident of its strategy."""
    name, trigger = action["strategy"], action["trigger"]
    waited = latencies(action)["request_to_confirmed_s"]
    exits = action.get("open_positions", 0)
    kept = f"; {exits} open position{' keeps its' if exits == 1 else 's keep their'} exits" if exits else ""
    what, done, what_to_do = {
        STOPPING: (
            f"{name} is being stopped",
            "The bot was asked to disable it; that is not confirmed yet.",
            "Wait half a minute for the confirmation; without it there will be another message.",
        ),
        CONFIRMED: (
            f"{name} was stopped",
            f"{name} disabled, confirmed after {waited or 0:.1f} s{kept}.",
            f"See why; close positions by hand if you do not trust their exits. {RESUME.format(name=name)}",
        ),
        ESCALATED: (
            f"{name} could not be stopped",
            f"NOT confirmed: {action['why'] or 'the bot did not answer'}.",
            STOP_BY_HAND.format(name=name),
        ),
        GONE: (
            f"{name} is not at the bot any more",
            "It could not be stopped, for the bot does not list it; that is not tried any more. Once it is back, it is"
            " stopped.",
            f"See under which name the bot trades on. Look for open positions and orders of {name} at the exchange.",
        ),
        OBSERVED: (
            f"{name} should be stopped",
            "Nothing was done: the guard only observes (observe_only).",
            f"Decide whether to stop it: `trading-ops strategies disable {name} --reason ...`.",
        ),
        RESUMED: (f"{name} was resumed", "", "Nothing: its losses count from now on, trades before do not."),
    }[phase]
    calm = trigger["rule"] == BY_HAND and phase != ESCALATED
    severity = Severity.INFO if phase == RESUMED else Severity.WARNING if calm else Severity.CRITICAL
    return Alert(
        severity=severity,
        dedup_key=f"guard/{action_id(action)}/{phase}",
        what=what,
        why=f"{trigger['why']} (by {trigger['by']})" if trigger["by"] else trigger["why"],
        what_to_do=what_to_do,
        day=begun_at(action)[:10],
        numbers=action["numbers"],
        done=done,
        incident=f"guard/{name}",
        step=Step.RESOLVED if phase == RESUMED else Step.OPENED,
        since=begun_at(action),
    )


def warning_of(strategy: str, rule: str) -> str:
    """The incident of a limit that is near."""
    return f"guard/{strategy}/{rule}"


def warnings(name: str, risk: StrategyRisk, limits: Mapping[str, Any], day: str) -> list[Alert]:
    """The soft lane: one message a day for each limit that is near, and a guard that cannot see is CRITICAL."""
    figures = {
        "daily_loss_pct": risk.daily_loss_pct,
        "consecutive_losses": risk.consecutive_losses,
        "recent_win_rate_pct": risk.recent_win_rate_pct,
    }
    return [
        Alert(
            severity=Severity.CRITICAL if rule == GUARD_BLIND else Severity.WARNING,
            dedup_key=f"guard/{name}/{rule}/{day}",
            what=f"The guard is blind for {name}" if rule == GUARD_BLIND else f"{name} comes near a limit",
            why=f"{name}: {describe(rule, figures, limits)}",
            what_to_do="Give the strategy an equity at the bot (docs/bot-interface.md, Portfolio): until then only its"
            " losses in a row can stop it."
            if rule == GUARD_BLIND
            else "Nothing was done. Look at its open positions; `trading-ops strategies list` shows what is left.",
            day=day,
            numbers=figures,
            incident=warning_of(name, rule),
        )
        for rule in risk.warnings
    ]


def doubted(doubts: Sequence[tuple[Any, str]], day: str) -> Alert:
    """Trades that were not believed, and so cannot stop anybody."""
    digest = hashlib.sha256(repr(sorted(map(str, doubts))).encode()).hexdigest()[:16]
    more = len(doubts) - SHOWN
    lines = [reason for _, reason in doubts[:SHOWN]] + ([f"and {more} more"] if more > 0 else [])
    return Alert(
        severity=Severity.ERROR,
        dedup_key=f"guard/doubts/{digest}",
        what=f"{len(doubts)} trade{'s' if len(doubts) > 1 else ''} of today cannot be true and do not count",
        why="\n".join(lines),
        what_to_do="Correct them at the bot: until then a strategy is only stopped by its other trades and its equity.",
        day=day,
        incident=DOUBTS,
    )


def unreadable(why: str, since: datetime, source: str) -> Alert:
    """The bot cannot be read: nobody knows what its strategies lose."""
    return Alert(
        severity=Severity.CRITICAL,
        dedup_key=f"guard/{source}/unreadable/{since:%Y-%m-%dT%H:%M}",
        what="The guard is blind: the bot cannot be read",
        why=why,
        what_to_do="See that the bot runs and answers: `trading-ops doctor`. Until then watch its strategies by hand.",
        day=str(since.date()),
        incident=UNREADABLE,
        since=since.isoformat(),
    )


def over(incident: str) -> Alert:
    """What the incident is about is well (again); it is told where people were told of it."""
    return Alert(Severity.INFO, f"{incident}/over", "It is over", "", "", incident=incident, step=Step.RESOLVED)


def said(tell: Tell, alert: Alert) -> bool:
    """Whether it could be told; what could not is told by a later step."""
    try:
        tell(alert)
    except StoreError as error:
        level = logging.DEBUG if alert.step == Step.RESOLVED else logging.ERROR
        _log.log(level, "%s: not told, tried again: %s", alert.what, error)
        return False
    except Exception:  # noqa: BLE001  # what is to be stopped does not wait for it
        _log.exception("%s: not told, tried again", alert.what)
        return False
    return True
