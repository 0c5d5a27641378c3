"""How do people hear of the alerts that were given up?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from typing import Any

from trading_ops.audit.store import StoreError
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.delivery import alert_of, given_up

KEY = "alerts_dead/"  # and the day
MONDAY = 0


def is_obituary(body: Mapping[str, Any]) -> bool:
    """Whether an alert only says that others were given up: it is never told about itself."""
    with suppress(StoreError):  # one that cannot be read says nothing
        return alert_of(body, KEY).dedup_key.startswith(KEY)
    return False


def obituary(bodies: Iterable[Mapping[str, Any]], channels: Collection[str], day: str) -> Alert | None:
    """One alert a day about those given up on these channels since the day before, and why; None where there are none.

    So each is told until people can have heard of it, and on Mondays with all others that are still dead. What was
    given up on a channel that is not chosen any more is listed by `trading-ops alerts`: nobody misses it.
    """
    reasons: Counter[str] = Counter()
    dead, today = 0, date.fromisoformat(day)
    first = date.min if today.weekday() == MONDAY else today - timedelta(days=1)
    for body in bodies:
        died = {name: datetime.fromisoformat(body["channels"][name]["at"]).date() for name in given_up(body)}
        names = [name for name in died if name in channels and died[name] >= first]
        if names and not is_obituary(body):
            dead += 1
            reasons.update(f"{name}: {body['channels'][name].get('error') or 'no reason was kept'}" for name in names)
    if not dead:
        return None
    return Alert(
        severity=Severity.ERROR,
        dedup_key=f"{KEY}{day}",
        what=f"{dead} alert{'s were' if dead > 1 else ' was'} given up and did not reach everybody",
        why="\n".join(f"{count} on {reason}" for reason, count in reasons.most_common()),
        what_to_do="See `trading-ops alerts list --state dead`; when the cause is gone, `trading-ops alerts retry`.",
        day=day,
    )
