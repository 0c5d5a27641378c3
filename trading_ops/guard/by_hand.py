"""What can a person do: stop a strategy, let it trade again, and see how things stand?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trading_ops.bot.client import BotError, BotUnreachable, UnknownStrategy
from trading_ops.commands import command
from trading_ops.guard.actions import (
    BY_HAND,
    CONFIRMED,
    DISABLED_ELSEWHERE,
    GONE,
    NOT_RESUMED,
    OBSERVED,
    PENDING,
    RESUMING,
    STOPPED,
    WATCHING,
    Action,
    action_id,
    idempotency_key,
    not_resumed,
    reached,
    request,
    resumed,
)
from trading_ops.guard.deposits import with_deposits
from trading_ops.guard.pursuits import finish
from trading_ops.guard.switch import Guard, account_risk, count_account_anew
from trading_ops.guard.watch import View

if TYPE_CHECKING:
    from trading_ops.bot.records import StrategyState

FIGURES = ("daily_loss_pct", "consecutive_losses", "recent_win_rate_pct", "equity_at_midnight_usdt")


class NothingToResume(ValueError):
    """The strategy is not stopped."""


class NotResumed(BotError):
    """A resume that was begun was not completed: the strategy stays stopped; the message says why."""


def look(guard: Guard) -> View:
    """The bot as it is now; nothing is acted on. Raises BotError."""
    guard.watch.look_round_next()
    view = guard.watch.look(guard.bot, guard.memory.shared, guard.memory.load(), guard.policy.limits_of)
    return replace(view, account=with_deposits(view.account, guard.memory, guard.watch))


def disable(
    guard: Guard,
    names: Sequence[str],
    *,
    reason: str,
    by: str,
    within_s: float,
    on_end: Callable[[Action], object] = lambda action: None,
) -> list[Action]:
    """Stop these strategies whatever their figures, and follow that for a while; what is stopped already stays so.

    Written down before the bot is told: a guard goes on with it. So are names that a silent bot cannot confirm; those
    that turn out to be none are closed as gone. `on_end`: as for `follow`. Raises UnknownStrategy.
    """
    guard.memory.load()
    try:
        require_known(guard, names)
    except UnknownStrategy:
        raise
    except BotError:
        pass  # each stop says so, until it is confirmed
    for name in names:
        action = guard.memory.get(name)
        if action["state"] not in STOPPED:
            guard.memory.advance(action, request(action, guard.watch.now(), rule=BY_HAND, why=reason, by=by))
    return follow(guard, names, within_s, on_end)


def follow(
    guard: Guard, names: Sequence[str], within_s: float, on_end: Callable[[Action], object] = lambda action: None
) -> list[Action]:
    """Try to confirm these stops, side by side, until that succeeds or the time is over.

    A pause of a second lies between two tries. `on_end` hears of each stop once: when it is over, or the time is.
    """
    until, left = time.monotonic() + within_s, list(dict.fromkeys(names))
    while True:
        guard.pursuits.drive(guard.bot, guard.memory, guard.watch.now, guard.tell)
        actions = guard.memory.load()
        time_is_over = time.monotonic() >= until
        for name in list(left):
            if time_is_over or actions[name]["state"] not in PENDING:
                on_end(actions[name])
                left.remove(name)
        if not left:
            return [actions[name] for name in names]
        time.sleep(1.0)


def require_known(guard: Guard, names: Sequence[str]) -> None:
    known = [state.name for state in guard.bot.strategies()]
    for name in names:
        if name not in known:
            raise UnknownStrategy(f"strategy {name!r} is unknown; there are {', '.join(known) or 'none'}")


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a resume would mean. `changed`: (what, when it was stopped, now)."""

    strategy: str
    state: str
    enabled: bool
    stopped_because: str
    changed: tuple[tuple[str, Any, Any], ...]
    concerns: tuple[str, ...]


def preflight(guard: Guard, name: str) -> Preflight:
    """What has changed since the strategy was stopped, and what speaks against a resume. Raises BotError."""
    require_known(guard, [name])
    view = look(guard)
    action, risk, state = guard.memory.get(name), asdict(view.risks[name]), view.strategies[name]
    then = action.get("numbers", {})
    changed = [(figure, then.get(figure), risk[figure]) for figure in FIGURES]
    limits = asdict(guard.policy.limits_of(name))
    held_to = then.get("limits", {})
    changed += [(f"limit {r}", held_to[r], limit) for r, limit in limits.items() if held_to.get(r, limit) != limit]
    positions = [position for position in guard.bot.open_positions() if position.strategy == name]
    orders = [order for order in guard.bot.open_orders() if order.strategy == name and order.intent == "entry"]
    changed.append(("open positions", action.get("open_positions"), len(positions)))
    account = account_risk(guard.memory, view.account, guard.policy)
    concerns = {
        "it is not known to be stopped: the stop is still being tried": action["state"] in PENDING,
        f"{len(orders)} entry orders are left": bool(orders),
        "trades of today cannot be believed": view.incomplete,
        f"the account crossed its limit ({account.breach}); its drawdowns will count anew": account.breach is not None,
        "the bot's data is not fresh: nothing would stop it again": not view.fresh,
        "its equity is not known: only losses in a row would stop it again": _equity(view, name) is None,
    }
    return Preflight(
        strategy=name,
        state=action["state"],
        enabled=state.enabled,
        stopped_because=action.get("trigger", {}).get("why", state.reason or ""),
        changed=tuple(changed),
        concerns=tuple(text for text, true in concerns.items() if true),
    )


def resume(guard: Guard, name: str, *, reason: str, by: str, seen: Preflight) -> Action:
    """Let a strategy trade again; its losses count from now on. Completed here or not at all.

    The intent is written before the bot is told. Raises BotError where the bot cannot be read, and NotResumed where it
    does not enable the strategy, or somebody else was first. A step ends what a killed process left, as not resumed.
    """
    view = look(guard)
    finish(guard.memory, guard.tell)  # what people were not told of the stop yet comes before its end
    now, before = guard.watch.now(), guard.memory.get(name)
    stop = before
    if before["state"] == WATCHING:
        if view.strategies[name].enabled:
            raise NothingToResume(f"{name} is not stopped")
        stop = request(before, now, rule=DISABLED_ELSEWHERE, why=view.strategies[name].reason or "by the bot itself")
    facts = {
        "before": before["state"],
        "by": by,
        "reason": reason,
        "asked_at": now.isoformat(),
        "at": view.at.isoformat(),
        "equity_usdt": _equity(view, name),
        "unrealised_usdt": (view.account.unrealised_by_strategy or {}).get(name),
        "numbers": {what: after for what, _, after in seen.changed},
    }
    resuming = guard.memory.advance(before, reached(stop, RESUMING, now, resume=facts))
    if resuming.get("resume") != facts:
        raise NotResumed(f"{name} was not resumed: it is {resuming['state']} since a moment ago; look again")
    finish(guard.memory, guard.tell)
    if account_risk(guard.memory, view.account, guard.policy).breach is not None:
        count_account_anew(guard.memory, view.account)
    try:
        _enable(guard, resuming, before)
    except BotError as error:
        raise _not_resumed(guard, resuming, str(error)) from error
    action = guard.memory.advance(resuming, resumed(resuming, guard.watch.now()))
    if action["state"] != WATCHING:
        raise _not_resumed(guard, resuming, "that took too long")
    finish(guard.memory, guard.tell)
    return action


def _not_resumed(guard: Guard, resuming: Action, why: str) -> NotResumed:
    """Stop it once more: whatever the bot said, it may have enabled the strategy, or be about to."""
    name, now = resuming["strategy"], guard.watch.now()
    action = guard.memory.advance(resuming, not_resumed(resuming, now, why))
    if action["state"] in (CONFIRMED, GONE):  # by a step that took the resume for broken off
        told = f"{action['trigger']['why']} ({why})"
        guard.memory.advance(action, request(action, now, rule=NOT_RESUMED, why=told))
    (action,) = follow(guard, [name], 0.0)
    doubt = ", which is NOT confirmed" if action["state"] in PENDING else ""
    stays = "; nothing stops it, as the guard only observes" if action["state"] == OBSERVED else " and stays stopped"
    return NotResumed(f"{name} was not resumed{stays}{doubt}: {why}")


def _enable(guard: Guard, resuming: Action, before: Action) -> None:
    """Raises BotError. The key of the stop is used up first, so that no try still on its way can land after this."""
    name, resume = resuming["strategy"], resuming["resume"]
    if before["state"] in STOPPED:
        try:
            guard.bot.disable_strategy(name, reason=before["trigger"]["why"], idempotency_key=idempotency_key(before))
        except BotUnreachable:
            raise
        except BotError:
            pass  # it got the key, and says that it stays enabled
    # a key of its own for each try: a person asked for it now
    key = f"{action_id(resuming)}-resume-{int(datetime.fromisoformat(resume['asked_at']).timestamp() * 1000)}"
    guard.bot.enable_strategy(name, reason=f"{resume['reason']} (by {resume['by']})", idempotency_key=key)


def overview(guard: Guard, view: View) -> list[dict[str, Any]]:
    """A row a strategy: how it stands, and what is left to each limit."""
    rows = []
    for name, risk in view.risks.items():
        action, state = guard.memory.get(name), view.strategies.get(name)
        rows.append({
            "strategy": name,
            "enabled": state.enabled if state else None,
            "guard": action["state"],
            "daily_loss_pct": risk.daily_loss_pct,
            "left_pct": risk.distance["daily_loss_pct"],
            "consecutive_losses": risk.consecutive_losses,
            "left": risk.distance["consecutive_losses"],
            "recent_win_rate_pct": risk.recent_win_rate_pct,
            **dict(zip(("why", "next"), _explained(action, state), strict=True)),
        })  # fmt: skip
    return rows


def _explained(action: Action, state: StrategyState | None) -> tuple[str, str]:
    """Why a strategy does not trade, or should not, and what a person can do about it; empty where it does."""
    name, phase = action["strategy"], action["state"]
    resume = command("strategies resume", name, reason="...")
    if phase == WATCHING:
        if state is None or state.enabled:
            return "", ""
        return state.reason or "disabled at the bot, not by the guard", f"to let it trade: {resume}"
    return action["trigger"]["why"], {
        OBSERVED: f"to stop it: {command('strategies disable', name, reason='...')}",
        GONE: "not at the bot any more; once it is back, it is stopped",
        CONFIRMED: f"to let it trade again: {resume}",
        RESUMING: f"being resumed; where that is broken off: {resume}",
    }.get(phase, f"not confirmed yet: {action['why'] or 'the bot was told'}")


def _equity(view: View, name: str) -> float | None:
    own = (view.account.equity_by_strategy or {}).get(name)
    state = view.strategies.get(name)
    return own if own is not None else state.allocated_usdt if state else None
