"""What happens in one check: look, record, tell, and say how the last 30 days were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import StoreError
from trading_ops.health.components import check_components
from trading_ops.health.history import HISTORY, document_of, read_checks, record_check
from trading_ops.health.rules import Status, Verdict
from trading_ops.health.telling import alert_of, incident_of, is_well
from trading_ops.health.uptime import Checks

if TYPE_CHECKING:
    from trading_ops.notifications.alert import Alert
    from trading_ops.services import Services


@dataclass(frozen=True, slots=True)
class Check:
    """A check, where it is `kept` in words, and each component's `past`; empty while the store is down."""

    document: Mapping[str, Any]
    verdicts: Sequence[Verdict]
    kept: str
    recorded: bool
    past: Mapping[str, Checks]


def check(services: Services, at: datetime, link: str | None = None) -> Check:
    """The check that was due `at`: recorded first, then told, also where it cannot be recorded; `link` shows its run.

    What is down is found, never raised. Raises StoreUnavailable only where nobody can be told either.
    """
    verdicts = check_components(services)
    document_db = next(verdict for verdict in verdicts if verdict.component == "document_db")
    if services.spooled_store is not None and document_db.status is Status.DOWN:
        services.spooled_store.leave_alone(document_db.found)  # it would cost as long again to find that out
    document = document_of(verdicts, at)
    recorded, kept = _record(services, document)
    for verdict in verdicts:
        if (alert := alert_of(verdict, at, link)) or is_well(verdict):
            tell(services, verdict, alert)
    return Check(document, verdicts, kept, recorded, past_of(services, at))


def tell(services: Services, verdict: Verdict, alert: Alert | None) -> None:
    """Open or update the component's incident, or (None) end it."""
    if alert is None:
        services.incidents.recover(incident_of(verdict.component))
    else:
        services.incidents.observe(alert, {str(verdict.status): alert.severity})


def _record(services: Services, document: Mapping[str, Any]) -> tuple[bool, str]:
    try:
        receipt = record_check(services.store, document)
    except StoreError as error:
        return False, f"not recorded: {error}"
    return True, "waits in the spool" if receipt.spooled else f"{HISTORY} record {receipt.seq}"


def past_of(services: Services, until: datetime) -> Mapping[str, Checks]:
    """Each component's last 30 days; nothing while the store is down, for nobody knows then."""
    try:
        return read_checks(services.store, until)
    except StoreError:
        return {}
