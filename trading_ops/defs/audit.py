"""Does every record reach the audit store, also the one that was down when it was written?"""

import dagster as dg

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.services import Services


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Ships the records that waited on this machine while the audit store was down, and tells of them.",
)
def spool_sensor(services: dg.ResourceParam[Services]) -> dg.SkipReason:
    spooled = services.spooled_store
    if spooled is None:
        return dg.SkipReason("the audit store is a file on this machine: nothing is spooled")
    shipped, backlog = spooled.ship(), spooled.backlog()
    if backlog.waiting or backlog.refused:
        day = str(services.now().date())
        services.outbox.publish(
            Alert(
                severity=Severity.ERROR,
                dedup_key=f"spool/{day}/{'refused' if backlog.refused else 'waiting'}",
                what=f"{backlog.waiting} records wait for the audit store, {backlog.refused} were refused",
                why=backlog.shared_error or backlog.refusal or "they are being shipped",
                what_to_do=f"See `trading-ops doctor`; keep {backlog.path} until they are stored.",
                day=day,
            )
        )
    return dg.SkipReason(f"{shipped} records shipped, {backlog.waiting} wait, {backlog.refused} were refused")


defs = dg.Definitions(sensors=[spool_sensor])
