"""Do the services answer that only the health check looks at besides us?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from trading_ops.doctor.diagnosis import Diagnosis, state_of

if TYPE_CHECKING:
    from trading_ops.services import Services

OURS = ("ai_service", "frontend", "cache", "broker")  # the other components have looks of their own


def surroundings(services: Services) -> Iterator[Diagnosis]:
    """A line for each of them that has an address; the same probes as `system_health_check`, side by side."""
    from trading_ops.health.checkup import check_up
    from trading_ops.health.components import probes
    from trading_ops.health.telling import ADVICE

    chosen = [probe for probe in probes(services) if probe.component in OURS]
    for verdict in check_up(chosen, timeout_s=services.settings.health_timeout_s):
        advice = ADVICE[verdict.component][1] if verdict.status.severity else ""
        yield Diagnosis(verdict.label, state_of(verdict.status), f"{verdict.address}: {verdict.found}", advice)
