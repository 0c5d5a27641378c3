"""What happens in one check: look, record, tell, and say how the last 30 days were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import StoreUnavailable
from trading_ops.health.components import check_components
from trading_ops.health.history import HISTORY, document_of, read_checks, record_check
from trading_ops.health.rules import Status, Verdict
from trading_ops.health.telling import alert_of, is_well
from trading_ops.health.uptime import Checks

if TYPE_CHECKING:
    from trading_ops.notifications.alert import Alert
    from trading_ops.services import Services


@dataclass(frozen=True, slots=True)
class Check:
    """A check as recorded, where it is `kept`, and each component's `past`; empty while the store is down."""

    document: Mapping[str, Any]
    verdicts: Sequence[Verdict]
    kept: str
    past: Mapping[str, Checks]


def check(services: Services, at: datetime) -> Check:
    """The check that was due `at`: recorded first, then told. What is down is found, never raised.

    Raises StoreUnavailable only where neither the store nor its spool or outbox on this machine can be written.
    """
    verdicts = check_components(services)
    document_db = next(verdict for verdict in verdicts if verdict.component == "document_db")
    if services.spooled_store is not None and document_db.status is Status.DOWN:
        services.spooled_store.leave_alone(document_db.found)  # it would cost as long again to find that out
    document = document_of(verdicts, at)
    receipt = record_check(services.store, document)
    for verdict in verdicts:
        if (alert := alert_of(verdict, at)) or is_well(verdict):
            tell(services, verdict.component, alert)
    kept = "waits in the spool" if receipt.spooled else f"{HISTORY} record {receipt.seq}"
    return Check(document, verdicts, kept, past_of(services, at))


def tell(services: Services, component: str, alert: Alert | None) -> None:
    """Open or update the component's incident, or (None) end it."""
    if alert is not None:
        services.outbox.publish(alert)


def past_of(services: Services, until: datetime) -> Mapping[str, Checks]:
    """Each component's last 30 days; nothing while the store is down, for nobody knows then."""
    try:
        return read_checks(services.store, until)
    except StoreUnavailable:
        return {}
