"""How does everybody see that a message is only of a drill?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trading_ops.notifications.alert import Alert

MARK = "DRILL: "
PREFIX = "drill/"  # of keys and incidents: a page for a real one is neither repeated nor resolved
NOTHING_TO_DO = "This is a fire drill on a bot of its own; no real strategy is concerned. Nothing is to be done."


def as_drill(tell: Callable[[Alert], object]) -> Callable[[Alert], object]:
    """Tells the same, marked."""
    return lambda alert: tell(
        replace(
            alert,
            what=f"{MARK}{alert.what}",
            what_to_do=NOTHING_TO_DO,
            dedup_key=f"{PREFIX}{alert.dedup_key}",
            incident=f"{PREFIX}{alert.incident}",
        )
    )
