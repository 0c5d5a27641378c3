"""What was done about a strategy, how far did it get, and what may follow?

One document a strategy and bot. `episode` counts from one resume to the next: a breach that goes on, also after a
restart, is the same episode and so the same action. `turn` counts the stops of an episode: a strategy that was enabled
behind the guard's back is stopped again. A document only moves on, so two that grew apart are joined, never compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

Action = dict[str, Any]

WATCHING, OBSERVED, REQUESTED, SENT = "watching", "observed", "requested", "sent"
ESCALATED, GONE, CONFIRMED, RESUMING = "escalated", "gone", "confirmed", "resuming"
SEEN = "seen"  # when the look that led to the stop was done; no state
ORDER = (WATCHING, OBSERVED, REQUESTED, SENT, ESCALATED, GONE, CONFIRMED, RESUMING)
PENDING = (REQUESTED, SENT, ESCALATED)  # the strategy is to be stopped and is not known to be
STOPPED = (*PENDING, GONE, CONFIRMED)  # it stays stopped until a person resumes it
CONFIRM_WITHIN = timedelta(seconds=30)  # a stop, and a resume
BY_HAND, RESUMED, DISABLED_ELSEWHERE = "by_hand", "resumed", "disabled_elsewhere"
ENABLED_ELSEWHERE, ENTERED_WHILE_STOPPED = "enabled_elsewhere", "entered_while_stopped"
UNRECORDED, MOST_UNRECORDED = "unrecorded", 5
NOT_RESUMED, BACK_AGAIN = "not_resumed", "back_again"


def watching(source: str, strategy: str) -> Action:
    """A strategy that nothing was done about; `since` is when counting began, None: with its first trade."""
    return {"source": source, "strategy": strategy, "episode": 1, "turn": 0, "state": WATCHING, "since": None}


def action_id(action: Action) -> str:
    """Names one stop, for people, for the run that follows it up, and (with the attempt) for the bot."""
    name = hashlib.sha256(f"{action['source']}\n{action['strategy']}".encode()).hexdigest()[:12]
    return f"guard-{name}-{action['episode']}-{action['turn']}"


def idempotency_key(action: Action) -> str:
    """The same for every try of one stop; another once the bot answered and the strategy stayed enabled."""
    return f"{action_id(action)}-{action.get('attempt', 0)}"


def request(
    action: Action,
    now: datetime,
    *,
    rule: str,
    why: str,
    observe_only: bool = False,
    numbers: Mapping[str, Any] | None = None,
    trades: Sequence[Mapping[str, Any]] = (),
    by: str | None = None,
    seen_at: datetime | None = None,
) -> Action:
    """A strategy is to be stopped (or, when the guard only observes, would be); `by` is the person, None: the guard."""
    state = OBSERVED if observe_only else REQUESTED
    return {
        **{name: action[name] for name in ("source", "strategy", "episode", "since")},
        **{name: action[name] for name in ("since_equity_usdt", "since_unrealised_usdt") if name in action},
        "turn": action["turn"] + 1,
        "state": state,
        "trigger": {"rule": rule, "why": why, "by": by},
        "numbers": dict(numbers or {}),
        "trades": list(trades),
        "attempt": 0,
        "at": {**({SEEN: seen_at.isoformat()} if seen_at else {}), state: now.isoformat()},
        "why": "",
        "told": [],
        "recorded": [],
        **_unrecorded(action),
    }


def resumed(action: Action, now: datetime) -> Action:
    """A person's resume is done: the next episode, counting from the moment that was written down with it."""
    resume = action["resume"]
    return {
        "source": action["source"],
        "strategy": action["strategy"],
        "episode": action["episode"] + 1,
        "turn": 0,
        "state": WATCHING,
        "since": resume["at"],
        "since_equity_usdt": resume["equity_usdt"],
        "since_unrealised_usdt": resume["unrealised_usdt"],
        "trigger": {"rule": RESUMED, "why": resume["reason"], "by": resume["by"]},
        "numbers": resume["numbers"],
        "trades": [],
        "attempt": 0,
        "at": {WATCHING: now.isoformat()},
        "why": "",
        "told": [],
        "recorded": [],
        **_unrecorded(action),
    }


def not_resumed(action: Action, now: datetime, why: str) -> Action:
    """A person's resume was not completed: it is over, and the strategy is to be stopped as before (or, where that was
    only observed, would be)."""
    ended = {**action, "episode": action["episode"] + 1, "turn": 0}
    told = f"{action['trigger']['why']}; its resume by {action['resume']['by']} was not completed: {why}"
    only = action["resume"].get("before") == OBSERVED
    figures = {"numbers": action["numbers"], "trades": action["trades"]}
    return request(ended, now, rule=NOT_RESUMED, why=told, observe_only=only, **figures)


def settled(action: Action) -> Action:
    """A breach that was only observed is over."""
    kept = {name: value for name, value in action.items() if name.startswith(("since", "source", "strategy"))}
    turn = action["turn"] + 1
    return {**kept, "episode": action["episode"], "turn": turn, "state": WATCHING, **_unrecorded(action)}


def _unrecorded(before: Action) -> dict[str, list[Action]]:
    """What a document takes along of those before it: the stops that the history could not take yet."""
    known = list(before.get(UNRECORDED, ()))
    if "at" in before and before["state"] not in before["recorded"]:
        known.append({name: value for name, value in before.items() if name != UNRECORDED})
    return {UNRECORDED: known[-MOST_UNRECORDED:]} if known else {}


def require_sound(action: Action) -> None:
    """Raises KeyError, TypeError or ValueError where this is no document of ours."""
    if not isinstance(action["strategy"], str) or action["state"] not in ORDER:
        raise ValueError(f"strategy {action['strategy']!r:.40}, state {action['state']!r:.40}")
    numbers = (action["episode"], action["turn"], action.get("attempt", 0))
    if not all(isinstance(number, int) for number in numbers):
        raise TypeError(f"episode, turn and attempt are {numbers!r:.80}")
    times = [action["since"]] if action["since"] is not None else []
    if "at" in action or action["state"] != WATCHING:
        times += action["at"].values()
        if missing := {"trigger", "numbers", "trades", "why", "told", "recorded"} - action.keys():
            raise KeyError(*sorted(missing))
        kinds = {"trigger": dict, "numbers": dict, "at": dict, "trades": list, "told": list, "recorded": list}
        if wrong := [name for name, kind in kinds.items() if not isinstance(action[name], kind)]:
            raise TypeError(f"{', '.join(wrong)}: of another type")
        if not {"rule", "why", "by"} <= action["trigger"].keys():
            raise KeyError("trigger")
    if action["state"] == RESUMING:
        times.append(action["resume"]["at"])
    if any(datetime.fromisoformat(moment).tzinfo is None for moment in times):
        raise ValueError("a time without a zone")
    for before in action.get(UNRECORDED, ()):
        require_sound(before)


def reached(action: Action, state: str, now: datetime, **facts: Any) -> Action:
    """The action with what was found out; a phase keeps the time at which it was first reached."""
    return {**action, **facts, "state": state, "at": {state: now.isoformat(), **action["at"]}}


def overdue(action: Action, now: datetime) -> bool:
    """Whether a stop should be confirmed by now, or a resume completed."""
    asked = (
        action["resume"]["asked_at"] if action["state"] == RESUMING else action["at"].get(REQUESTED, begun_at(action))
    )
    return now - datetime.fromisoformat(asked) >= CONFIRM_WITHIN


def begun_at(action: Action) -> str:
    """The earliest time that is known of an action."""
    return min(action["at"].values())


def join(one: Action | None, other: Action | None) -> Action | None:
    """The document that says more; of the same stop the earliest time of each phase, and all that was told."""
    if one is None or other is None:
        return one or other
    less, more = sorted((one, other), key=_progress)
    if (less["episode"], less["turn"]) != (more["episode"], more["turn"]) or "at" not in more:
        return more
    times = {**more["at"], **less.get("at", {})}
    earliest = {phase: min(a["at"][phase] for a in (one, other) if phase in a.get("at", {})) for phase in times}
    listed = {name: sorted({*less.get(name, ()), *more[name]}) for name in ("told", "recorded")}
    disabled = {name: less[name] for name in ("disabled_at",) if name in less}
    return {**disabled, **more, **listed, "at": earliest}


def beyond(one: Action, other: Action) -> bool:
    """Whether one got further than the other: a later phase, stop or episode."""
    return _reach(one) > _reach(other)


def _progress(action: Action) -> tuple[Any, ...]:
    return *_reach(action), action.get("attempt", 0), bool(action.get("disabled_at"))


def _reach(action: Action) -> tuple[int, int, int]:
    return action["episode"], action["turn"], ORDER.index(action["state"])


def latencies(action: Action) -> dict[str, float | None]:
    """Seconds from the last trade to the request, and from the request to each later phase; None: not reached."""
    at = {phase: datetime.fromisoformat(time) for phase, time in action["at"].items()}
    began = at.get(REQUESTED)
    newest = max((datetime.fromisoformat(trade["closed_at"]) for trade in action["trades"]), default=None)

    def seconds(since: datetime | None, until: datetime | None) -> float | None:
        return (until - since).total_seconds() if since and until else None

    return {
        "trade_to_request_s": seconds(newest, began),
        **{f"request_to_{phase}_s": seconds(began, at.get(phase)) for phase in (SENT, CONFIRMED, ESCALATED)},
    }
