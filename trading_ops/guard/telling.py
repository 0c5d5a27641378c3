"""What do people hear from the guard, and what can they do by hand?"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import StoreError, StoreUnavailable
from trading_ops.commands import beside_commands, command
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
from trading_ops.guard.rules import EQUITY_FELL, GUARD_BLIND, NOT_LISTED, WARN_AT, StrategyRisk, describe
from trading_ops.notifications.alert import Alert, Severity, Step

if TYPE_CHECKING:
    from trading_ops.notifications.desk import IncidentDesk

STOPPING = "stopping"
STOP_BY_HAND = (
    "Stop {name} by hand, at the bot's own interface or by stopping the bot, cancel its entry orders at the exchange,"
    " and leave its exits. The guard goes on trying, and says when it is confirmed."
)
SHOWN = 5
UNREADABLE, DOUBTS, IMPAIRED, FLOW = "guard/unreadable", "guard/doubts", "guard/impaired", "guard/flow"
STOPS = f"At {100 * WARN_AT:g} % of the limit the guard warns; what exceeds it stops the strategy."
BEYOND = {
    "daily_loss_near_limit": STOPS,
    "consecutive_losses_near_limit": STOPS,
    "recent_win_rate_low": "A low win rate alone stops nothing.",
}
SOFT = (GUARD_BLIND, EQUITY_FELL, NOT_LISTED, *BEYOND)
_log = logging.getLogger(__name__)
Tell = Callable[[Alert], object]


def through(desk: IncidentDesk) -> Callable[[Alert], None]:
    """Tells by the incident desk, so that what nobody answers escalates.

    Each message is a finding of its own, so none passes for a repetition. Raises StoreError where it must be retried.
    """

    def tell(alert: Alert) -> None:
        assert alert.incident is not None
        if alert.step is not Step.RESOLVED:
            desk.observe(alert, {alert.dedup_key: alert.severity})
            return
        outcome = desk.recover(alert.incident)
        if not outcome.noted:
            raise StoreUnavailable(outcome.problem)

    return tell


def news(action: Action) -> str | None:
    """What there is to tell of an action that was not told yet: a phase, or nothing."""
    state = action["state"]
    phase = STOPPING if state in (REQUESTED, SENT) else RESUMED if state == WATCHING else state
    return None if phase == RESUMING or phase in action["told"] else phase


def alert_of(action: Action, phase: str) -> Alert:
    """The message about a phase: told once, as part of the one incident of its strategy."""
    strategy, trigger = action["strategy"], action["trigger"]
    name, unconfirmed = beside_commands(strategy), beside_commands(action["why"] or "")
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
            f"See why; close positions by hand if you do not trust their exits. It stays stopped until a"
            f" person resumes it: `{command('strategies resume', strategy, reason='...')}`.",
        ),
        ESCALATED: (
            f"{name} could not be stopped",
            f"NOT confirmed: {unconfirmed or 'the bot did not answer'}.",
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
            f"Decide whether to stop it: `{command('strategies disable', strategy, reason='...')}`.",
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
        incident=incident_of(strategy),
        step=Step.RESOLVED if phase == RESUMED else Step.OPENED,
        since=begun_at(action),
    )


def incident_of(strategy: str) -> str:
    """The incident of what is done about a strategy."""
    return f"guard/{strategy}"


def warning_of(strategy: str, rule: str) -> str:
    """The incident of a limit that is near."""
    return f"guard/{strategy}/{rule}"


def warnings(name: str, risk: StrategyRisk, limits: Mapping[str, Any], day: str) -> list[Alert]:
    """The soft lane: one message a day for each limit that is near, and a guard that cannot see is CRITICAL. That the
    bot does not list a strategy is told once."""
    figures = {
        "daily_loss_pct": risk.daily_loss_pct,
        "consecutive_losses": risk.consecutive_losses,
        "recent_win_rate_pct": risk.recent_win_rate_pct,
    }
    stop = f"`{command('strategies disable', name, reason='...')}`"
    titles = {
        GUARD_BLIND: f"The guard is blind for {name}",
        EQUITY_FELL: f"{name} may have lost more than its trades show",
        NOT_LISTED: f"{name} lost, and the bot does not list it",
    }
    advice = {
        GUARD_BLIND: "Give the strategy an equity at the bot (docs/bot-interface.md, Portfolio): until then only its"
        " losses in a row can stop it.",
        EQUITY_FELL: "Correct the trades that are in doubt, and note what was paid out: `trading-ops flow`. If it was a"
        f" loss: {stop}.",
        NOT_LISTED: "The guard can only stop what the bot lists: see that it trades no more.",
    }
    near = f"Look at its open positions; `trading-ops strategies list` shows what is left, {stop} stops it."
    return [
        Alert(
            severity=Severity.CRITICAL if rule == GUARD_BLIND else Severity.WARNING,
            dedup_key=f"guard/{name}/{rule}" + ("" if rule == NOT_LISTED else f"/{day}"),
            what=titles.get(rule, f"{name} comes near a limit: {describe(rule, figures, limits)}"),
            why=BEYOND.get(rule, f"{name}: {describe(rule, figures, limits)}"),
            what_to_do=advice.get(rule, near),
            done="" if rule == GUARD_BLIND else "Nothing was done.",
            day=day,
            numbers=figures,
            incident=warning_of(name, rule),
        )
        for rule in risk.warnings
    ]


def doubted(doubts: Sequence[tuple[Any, str]], day: str) -> Alert:
    """Trades that were not believed, and so cannot stop anybody."""
    digest = hashlib.sha256(repr(sorted(map(str, doubts))).encode()).hexdigest()[:16]
    more, several = len(doubts) - SHOWN, len(doubts) > 1
    lines = [reason for _, reason in doubts[:SHOWN]] + ([f"and {more} more"] if more > 0 else [])
    return Alert(
        severity=Severity.ERROR,
        dedup_key=f"guard/doubts/{digest}",
        what=f"{len(doubts)} trade{'s' if several else ''} cannot be true and {'do' if several else 'does'} not count",
        why="\n".join(lines),
        what_to_do=f"Correct {'them' if several else 'it'} at the bot: until then a strategy is only stopped by its"
        " other trades and its equity.",
        day=day,
        incident=DOUBTS,
    )


def impaired(why: str, day: str) -> Alert:
    """The guard goes on with less than it should know."""
    digest = hashlib.sha256(why.encode()).hexdigest()[:16]
    return Alert(
        severity=Severity.ERROR,
        dedup_key=f"guard/impaired/{digest}",
        what="The guard reads records that cannot be used, and goes on without them",
        why=why,
        what_to_do="Find the damaged record with `trading-ops audit verify`.",
        day=day,
        incident=IMPAIRED,
    )


def assumed_flow(fact: Mapping[str, Any], day: str) -> Alert:
    """The account moved by what no trade explains; `fact`: as trading_ops/guard/deposits.py keeps it."""
    jump = fact["jump"]
    return Alert(
        severity=Severity.WARNING,
        dedup_key=f"guard/flow/{fact['number']}",
        what=f"The account {'rose' if jump > 0 else 'fell'} by {abs(jump):,.2f} USDT that no trade explains",
        why="It is taken for a deposit or withdrawal, because the bot tells none: it counts in no drawdown.",
        what_to_do="If it was a loss, stop what made it: `trading-ops strategies disable`. Let the bot tell its"
        " net_deposits_usdt (docs/bot-interface.md, Portfolio), so that nothing needs to be assumed.",
        day=day,
        numbers={"jump_usdt": jump, "assumed_net_deposits_usdt": fact["assumed"]},
        incident=FLOW,
    )


def blind(why: str, since: datetime, source: str, *, stale: bool) -> Alert:
    """The bot cannot be read, or (`stale`) shows no present: nobody knows what its strategies lose."""
    return Alert(
        severity=Severity.CRITICAL,
        dedup_key=f"guard/{source}/{'stale' if stale else 'unreadable'}/{since:%Y-%m-%dT%H:%M}",
        what=f"The guard is blind: the bot {'shows no fresh data' if stale else 'cannot be read'}",
        why=why,
        what_to_do="See that the bot runs and answers: `trading-ops doctor`. Until then watch its strategies by hand.",
        done="Nothing: until it is seen again no strategy is judged.",
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
