"""Is a strategy that was to be stopped really stopped, and if not, what is there to do next?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from trading_ops.bot.client import Bot, BotError, BotUnreachable, UnknownStrategy
from trading_ops.bot.records import OpenOrder, OpenPosition, StrategyState
from trading_ops.guard.actions import (
    BACK_AGAIN,
    CONFIRM_WITHIN,
    CONFIRMED,
    ENABLED_ELSEWHERE,
    ENTERED_WHILE_STOPPED,
    ESCALATED,
    GONE,
    PENDING,
    REQUESTED,
    SENT,
    Action,
    action_id,
    idempotency_key,
    overdue,
    reached,
    request,
)

WHOLE_SECOND = timedelta(seconds=1)  # the precision of a bot that tells its changes in whole seconds
Now = Callable[[], datetime]
Save = Callable[[Action], Action]
_log = logging.getLogger(__name__)


def pursue(bot: Bot, action: Action, now: Now, save: Save) -> Action:
    """One try to stop the strategy and to confirm it; the action as it is then. `save` makes each step durable.

    Safe to be killed anywhere and to run in several processes at once: what is disabled already is not told again, the
    bot knows a repeated request by its key, and a stop that is over meanwhile is left as it is.
    """
    stop = action_id(action)

    def is_open(action: Action) -> bool:
        return action["state"] in PENDING and action_id(action) == stop

    at_the_end = ESCALATED
    try:
        states = bot.strategies()
        state = next((state for state in states if state.name == action["strategy"]), None)
        if state is None:
            # an empty list says nothing about this strategy: a bot that starts may not know its own yet
            since = action.get("unlisted_since") or now().isoformat()
            if states:
                action = {**action, "unlisted_since": since}
            at_the_end = GONE if states and now() - datetime.fromisoformat(since) >= CONFIRM_WITHIN else ESCALATED
            action = {**action, "why": f"the bot does not list {action['strategy']}"}
        else:
            action = {name: value for name, value in action.items() if name != "unlisted_since"}
        if state is not None and state.enabled:
            if not is_open(action := save(action)):
                return action
            action, state = _tell(bot, action, now)
        if state is not None:
            if not is_open(action := save(_shown_disabled(bot, action, state, now()))):
                return action
            rest = look_at_rest(what_is_left(bot), action)
            if rest.doubt is None:
                return save(reached(action, CONFIRMED, now(), why="", open_positions=rest.open_positions))
            action = {**action, "why": rest.doubt}
    except BotError as error:
        action = {**action, "why": str(error)}
    except Exception as error:  # noqa: BLE001  # tried again, and escalated
        _log.exception("%s could not be stopped, tried again", action["strategy"])
        action = {**action, "why": f"the try failed ({type(error).__name__})"}
    if overdue(action, now()):
        action = reached(action, at_the_end, now())
    return save(action)


@dataclass(frozen=True, slots=True)
class Left:
    """What is open at the bot, of every strategy."""

    orders: Sequence[OpenOrder]
    positions: Sequence[OpenPosition]


def what_is_left(bot: Bot) -> Left:
    """Raises BotError."""
    return Left(bot.open_orders(), bot.open_positions())


def look_again(
    left: Left | None,
    action: Action,
    state: StrategyState | None,
    last_entry: datetime | None,
    now: Now,
    *,
    observe_only: bool = False,
) -> Action:
    """A stop that is over, once more: what was enabled elsewhere, or is back, is to be stopped anew, and a later entry
    is escalated.

    `left`: None where the bot was not asked or does not tell it, which is an alert of its own.
    `last_entry`: when the newest of the closed trades was opened.
    """
    name = action["strategy"]
    if action["state"] == GONE:
        if state is None:
            return action
        why = f"{name} is at the bot again; {action['trigger']['why']}"
        return request(action, now(), rule=BACK_AGAIN, why=why, observe_only=observe_only)
    if state is not None and state.enabled:
        why = f"{name} was enabled at the bot without a resume ({state.reason or 'no reason given'})"
        return request(action, now(), rule=ENABLED_ELSEWHERE, why=why, observe_only=observe_only)
    if left is None:
        return action
    rest = look_at_rest(left, action)
    doubt, entered = rest.doubt, rest.entered_at
    if last_entry and last_entry > _stopped_after(action) and last_entry > (entered or last_entry - WHOLE_SECOND):
        doubt, entered = f"a position was opened at {last_entry}, after it was stopped", last_entry
    if doubt is None or (entered is not None and entered.isoformat() <= action.get("entered_at", "")):
        return action
    again = request(action, now(), rule=ENTERED_WHILE_STOPPED, why=f"{name} is shown as disabled, but {doubt}")
    told = entered.isoformat() if entered else action.get("entered_at", "")
    return reached(again, ESCALATED, now(), disabled_at=action["disabled_at"], why=doubt, entered_at=told)


@dataclass(frozen=True, slots=True)
class Rest:
    """What is left of a strategy shown as disabled. `doubt`: why it is not known to be stopped, None where it is."""

    doubt: str | None
    entered_at: datetime | None
    open_positions: int


def look_at_rest(left: Left, action: Action) -> Rest:
    """No entry order may be left and no position opened since; exits stay until flat."""
    name, since = action["strategy"], _stopped_after(action)
    orders = [order for order in left.orders if order.strategy == name and order.intent == "entry"]
    positions = [position for position in left.positions if position.strategy == name]
    later = max((p for p in positions if p.opened_at > since), key=lambda p: p.opened_at, default=None)
    doubt = None
    if later is not None:
        doubt = f"position {later.position_id} ({later.symbol}) was opened at {later.opened_at}, after it was stopped"
    if orders:
        doubt = f"{len(orders)} entry orders are left, such as {orders[0].order_id} ({orders[0].symbol})"
    return Rest(doubt, later.opened_at if later else None, len(positions))


def _tell(bot: Bot, action: Action, now: Now) -> tuple[Action, StrategyState | None]:
    """Tell the bot; the state it shows then, None where it does not show the strategy as disabled."""
    key = idempotency_key(action)
    try:
        state = bot.disable_strategy(action["strategy"], reason=action["trigger"]["why"], idempotency_key=key)
    except (BotUnreachable, UnknownStrategy) as error:
        return {**action, "why": str(error)}, None
    except BotError as error:
        # it answered and the strategy stayed enabled: the next try must not look like a repeat of this one
        told = {**_at_least_sent(action, now()), "attempt": action["attempt"] + 1, "why": str(error)}
        return told, None
    return action, state


def _shown_disabled(bot: Bot, action: Action, state: StrategyState, now: datetime) -> Action:
    if action.get("disabled_at"):
        return action
    since = state.changed_at or bot.now()
    return {**_at_least_sent(action, now), "disabled_at": since.isoformat()}


def _at_least_sent(action: Action, now: datetime) -> Action:
    return reached(action, SENT, now) if action["state"] == REQUESTED else action


def _stopped_after(action: Action) -> datetime:
    moment = datetime.fromisoformat(action["disabled_at"])
    return moment if moment.microsecond else moment + WHOLE_SECOND
