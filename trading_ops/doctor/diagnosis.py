"""What does a look at one thing give, also where it cannot look?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trading_ops.audit.store import StoreError
from trading_ops.bot.client import BotError
from trading_ops.market.candles import CandleError
from trading_ops.notifications.alert import Severity

if TYPE_CHECKING:
    from trading_ops.health.rules import Status
    from trading_ops.services import Services

State = Literal["ok", "warning", "failed"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line: what was looked at, how it is, what was found, and what to do where it is not ok."""

    subject: str
    state: State
    found: str
    what_to_do: str = ""


def looked(
    subject: str, look: Callable[..., Iterator[Diagnosis]], services: Services, *more: Any
) -> Iterator[Diagnosis]:
    """What a look finds; where it cannot look, that is what it found."""
    try:
        yield from look(services, *more)
    except (StoreError, BotError, CandleError, ValueError, OSError) as error:
        yield Diagnosis(subject, "failed", str(error), _advice(subject, error, services))


def _advice(subject: str, error: Exception, services: Services) -> str:
    if subject == "audit store":
        return _meanwhile(services)
    if subject == "spool":
        return "Keep that file: what waits in it is nowhere else."
    if subject == "alerts":
        return "See the audit store above."
    if isinstance(error, BotError) and services.settings.bot_url is not None:
        return "See that the bot runs, then TRADING_OPS_BOT_URL in .env."
    if isinstance(error, CandleError | BotError):
        return "Correct TRADING_OPS_CANDLES in .env."
    if isinstance(error, StoreError):
        return "It holds which strategies of the paper bot were stopped; without that file all of them run again."
    return "Put that right, then look again."


def _meanwhile(services: Services) -> str:
    """What becomes of records while the audit store is away."""
    lost = "Until then nothing can be recorded; afterwards: trading-ops backfill --missing"
    try:
        if services.spooled_store is None:
            return lost
        services.spooled_store.backlog()
    except (StoreError, ValueError):
        return lost
    return "Until then records wait in the spool; nothing is lost."


def state_of(status: Status) -> State:
    """How a line says what a health probe found: what is told as CRITICAL has failed."""
    severity = status.severity
    return "ok" if severity is None else "failed" if severity is Severity.CRITICAL else "warning"


def ends_well(found: list[Diagnosis]) -> bool:
    """Whether nothing failed; warnings are no failure."""
    return all(diagnosis.state != "failed" for diagnosis in found)


def milliseconds(began: float) -> str:
    """How long it took since `time.monotonic()` was `began`."""
    return f"{1000 * (time.monotonic() - began):.0f} ms"
