"""Can records and alerts be written, and what waits?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from trading_ops.audit.store import Conflict
from trading_ops.doctor.diagnosis import Diagnosis, milliseconds

if TYPE_CHECKING:
    from trading_ops.services import Services


SHIPPING_S = 5.0  # what a person may wait; the daemon's sensor ships the rest


def audit_store(services: Services) -> Iterator[Diagnosis]:
    """The audit store can be read and written."""
    began = time.monotonic()
    heads = services.store.heads()
    known = services.store.get_state("doctor", "write")
    with suppress(Conflict):  # somebody else has just written it, so it can be written
        services.store.put_state("doctor", "write", {}, expected_version=known.version if known else 0)
    records = sum(head.seq for head in heads)
    said = f"{records:,} records in {len(heads)} collections, read and written in {milliseconds(began)}"
    yield Diagnosis("audit store", "ok", f"{services.store_label}: {said}")


def spool(services: Services) -> Iterator[Diagnosis]:
    """Records that wait on this machine for a shared store; what can be shipped is shipped."""
    if services.spooled_store is None:
        return
    shipped, backlog = services.spooled_store.ship(patience_s=SHIPPING_S), services.spooled_store.backlog()
    if backlog.refused:
        advice = "Keep that file, and correct what wrote them; the others are not held up."
        yield Diagnosis("spool", "failed", f"{backlog.refused} records were refused ({backlog.path})", advice)
    elif backlog.waiting:
        since = f" since {backlog.oldest:%Y-%m-%d %H:%M} UTC" if backlog.oldest else ""
        advice = "They are shipped in order once the audit store is back; keep this file until then."
        yield Diagnosis("spool", "warning", f"{backlog.waiting} records wait{since} in {backlog.path}", advice)
    else:
        yield Diagnosis("spool", "ok", f"{shipped} records shipped now, nothing waits" if shipped else "nothing waits")


def outbox(services: Services) -> Iterator[Diagnosis]:
    """Alerts that have not reached people."""
    from trading_ops.notifications.dead_letters import is_obituary
    from trading_ops.notifications.delivery import given_up, quiet_until, undelivered, unsettled

    chosen = services.channels
    bodies = [b for b in services.outbox.undelivered() if not is_obituary(b)]
    dead = sum(any(name in chosen for name in given_up(body)) for body in bodies)
    waits = [[body["channels"][name] for name in unsettled(body) if name in chosen] for body in bodies]
    held = [bool(some) and all(quiet_until(one, services.now()) for one in some) for some in waits]
    waiting, quiet = sum(map(bool, waits)) - sum(held), sum(held)
    former = sorted({name for body in bodies for name in undelivered(body) if name not in chosen})
    if dead:
        said = f"{counted(dead, 'was', 'were')} given up on a channel" + (
            f", {waiting} wait for one" if waiting else ""
        )
        advice = "trading-ops alerts list --state dead says why; then: trading-ops alerts retry"
        yield Diagnosis("alerts", "warning", said, advice)
    elif waiting:
        said = f"{counted(waiting, 'waits', 'wait')} for a channel"
        yield Diagnosis("alerts", "warning", said, "They are sent again by themselves.")
    elif former:
        count = sum(any(name not in chosen for name in undelivered(body)) for body in bodies)
        said = f"{counted(count, 'is', 'are')} for {', '.join(former)}, where alerts do not go any more"
        advice = "They are kept; who is to get them is named in NOTIFICATION_CHANNELS again."
        yield Diagnosis("alerts", "warning", said, advice)
    else:
        but = f" but {quiet} that wait{'s' if quiet == 1 else ''} for the end of quiet hours" if quiet else ""
        yield Diagnosis("alerts", "ok", f"every alert was delivered{but}")


def counted(count: int, one: str, several: str) -> str:
    """
    >>> counted(1, "was", "were"), counted(2, "was", "were")
    ('1 alert was', '2 alerts were')
    """
    return f"{count} alert {one}" if count == 1 else f"{count} alerts {several}"


def channels(services: Services) -> Iterator[Diagnosis]:
    """Who is told of what, and a line a channel; nobody is asked: `trading-ops alerts test` does that."""
    from trading_ops.notifications.configuration import NEEDS

    settings = services.settings
    after = timedelta(minutes=settings.notification_escalate_minutes)
    off = "" if settings.notifications_enabled else " (NOTIFICATIONS_ENABLED=false)"
    yield Diagnosis("who is told", "ok", f"{settings.routes.described(services.channels, after)}{off}")
    for name in NEEDS:
        if name in services.channels and (unused := "; ".join(settings.unused(name))):
            said = f"configured: {services.channels[name].target}; {unused}"
            yield Diagnosis(f"channel {name}", "warning", said, "Set what is missing, or remove what is not used.")
        elif name in services.channels:
            yield Diagnosis(f"channel {name}", "ok", f"configured: {services.channels[name].target}")
        else:
            yield Diagnosis(f"channel {name}", "ok", "not configured")
