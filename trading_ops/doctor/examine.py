"""Can everything that is configured be used here and now, and if not, what has to be done?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from trading_ops.doctor.bot import bot, local_candles
from trading_ops.doctor.diagnosis import Diagnosis, looked
from trading_ops.doctor.life import guard, heartbeat, watchdog
from trading_ops.doctor.machine import configuration, disk, packages, permissions
from trading_ops.doctor.records import audit_store, channels, outbox, spool
from trading_ops.doctor.surroundings import surroundings

if TYPE_CHECKING:
    from trading_ops.services import Services


def examine(services: Services) -> Iterator[Diagnosis]:
    """Look at everything, one after the other; what cannot be reached is a diagnosis, never an exception."""
    looks: dict[str, Callable[[Services], Iterator[Diagnosis]]] = {
        "versions": packages,
        "configuration": configuration,
        "permissions": permissions,
        "disk": disk,
        "audit store": audit_store,
        "spool": spool,
        "alerts": outbox,
        "channels": channels,
        "bot": bot,
        "candles": local_candles,
        "services": surroundings,
        "heartbeat": heartbeat,
        "guard": guard,
        "watchdog": watchdog,
    }
    for subject, look in looks.items():
        yield from looked(subject, look, services)
