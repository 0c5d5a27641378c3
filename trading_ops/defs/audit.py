"""Does every record reach the audit store, also the one that was down when it was written?"""

import dagster as dg

from trading_ops.notifications.alert import Alert, Severity
from trading_ops.services import Services

WAITING, REFUSED = "spool/waiting", "spool/refused"


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
    day = str(services.now().date())
    advice = f"See that the audit store runs: `trading-ops doctor`. Keep {backlog.path} until they are stored."
    if backlog.waiting and backlog.oldest is not None:
        services.incidents.observe(
            Alert(
                severity=Severity.ERROR,
                incident=WAITING,
                dedup_key=f"{WAITING}/{backlog.oldest.isoformat()}",
                what=f"{backlog.waiting} records wait for the audit store, since {backlog.oldest:%Y-%m-%d %H:%M} UTC",
                why=backlog.shared_error or "they are being shipped",
                what_to_do=advice,
                day=day,
                numbers={"waiting_records": backlog.waiting},
                done="They were kept on this machine, to be shipped in order once the audit store is back.",
            )
        )
    else:
        services.incidents.recover(WAITING)
    if backlog.refused:
        services.incidents.observe(
            Alert(
                severity=Severity.ERROR,
                incident=REFUSED,
                dedup_key=f"{REFUSED}/{backlog.refused}",
                what=f"{backlog.refused} records were refused by the audit store",
                why=backlog.refusal or "no reason was recorded",
                what_to_do=f"Correct what wrote them, and keep {backlog.path}: it alone has them.",
                day=day,
                numbers={"refused_records": backlog.refused},
                done="They were kept on this machine; the others are not held up.",
            ),
            {f"{backlog.refused} records": Severity.ERROR},
        )
    else:
        services.incidents.recover(REFUSED)
    return dg.SkipReason(f"{shipped} records shipped, {backlog.waiting} wait, {backlog.refused} were refused")


defs = dg.Definitions(sensors=[spool_sensor])
