"""What can a person do: stop a strategy, let it trade again, and see how things stand?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from trading_ops.bot.client import UnknownStrategy
from trading_ops.guard.actions import (
    BY_HAND,
    DISABLED_ELSEWHERE,
    PENDING,
    RESUMING,
    STOPPED,
    WATCHING,
    Action,
    action_id,
    reached,
    request,
    resumed,
)
from trading_ops.guard.deposits import with_deposits
from trading_ops.guard.switch import Guard, account_risk, count_account_anew, finish, stop_pending
from trading_ops.guard.watch import View

FIGURES = ("daily_loss_pct", "consecutive_losses", "recent_win_rate_pct", "equity_at_midnight_usdt")


class NothingToResume(ValueError):
    """The strategy is not stopped."""


def look(guard: Guard) -> View:
    """The bot as it is now; nothing is acted on. Raises BotError."""
    guard.watch.look_round_next()
    view = guard.watch.look(guard.bot, guard.memory.shared, guard.memory.load(), guard.policy.limits_of)
    return replace(view, account=with_deposits(view.account, guard.memory, guard.watch))


def disable(guard: Guard, names: Sequence[str], *, reason: str, by: str, within_s: float) -> list[Action]:
    """Stop these strategies whatever their figures, and follow that for a while; what is stopped already stays so.

    Raises BotError where the bot cannot say which strategies there are, UnknownStrategy for another name.
    """
    require_known(guard, names)
    guard.memory.load()
    for name in names:
        action = guard.memory.get(name)
        if action["state"] not in STOPPED:
            guard.memory.save(request(action, guard.watch.now(), rule=BY_HAND, why=reason, by=by))
    return [follow(guard, name, within_s) for name in names]


def follow(guard: Guard, name: str, within_s: float) -> Action:
    """Try to confirm a stop until that succeeds or the time is over; a pause of a second between two tries."""
    until = time.monotonic() + within_s
    while True:
        stop_pending(guard.bot, guard.memory, guard.watch.now, guard.tell)
        action = guard.memory.get(name)
        if action["state"] not in PENDING or time.monotonic() >= until:
            return action
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
    """Let a strategy trade again; its losses count from now on. Raises BotError where the bot does not enable it.

    The intent is written before the bot is told; a step finishes what a killed process left.
    """
    view = look(guard)
    finish(guard.memory, guard.tell)  # what people were not told of the stop yet comes before its end
    now, action = guard.watch.now(), guard.memory.get(name)
    if action["state"] == WATCHING:
        if view.strategies[name].enabled:
            raise NothingToResume(f"{name} is not stopped")
        action = request(action, now, rule=DISABLED_ELSEWHERE, why=view.strategies[name].reason or "by the bot itself")
    facts = {
        "by": by,
        "reason": reason,
        "at": view.at.isoformat(),
        "equity_usdt": _equity(view, name),
        "unrealised_usdt": (view.account.unrealised_by_strategy or {}).get(name),
        "numbers": {what: after for what, _, after in seen.changed},
    }
    action = guard.memory.save(reached(action, RESUMING, now, resume=facts))
    finish(guard.memory, guard.tell)
    if account_risk(guard.memory, view.account, guard.policy).breach is not None:
        count_account_anew(guard.memory, view.account)
    # a key of its own for each try: a person asked for it now
    key = f"{action_id(action)}-resume-{int(now.timestamp() * 1000)}"
    guard.bot.enable_strategy(name, reason=f"{reason} (by {by})", idempotency_key=key)
    action = guard.memory.save(resumed(action, guard.watch.now()))
    finish(guard.memory, guard.tell)
    return action


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
            "why": action["trigger"]["why"] if action["state"] != WATCHING else "",
        })  # fmt: skip
    return rows


def _equity(view: View, name: str) -> float | None:
    own = (view.account.equity_by_strategy or {}).get(name)
    state = view.strategies.get(name)
    return own if own is not None else state.allocated_usdt if state else None
