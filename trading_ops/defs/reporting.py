"""How does a daily report reach people: once a day and channel, of the newest complete day alone?"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import dagster as dg

from trading_ops.bot.client import BotError
from trading_ops.defs.alerting import checked_days, present_day, run_link, stored
from trading_ops.notifications.alert import Alert
from trading_ops.services import Services

Documents = Mapping[str, Mapping[str, Any]]  # by day


def report(
    context: dg.AssetCheckExecutionContext,
    services: Services,
    collection: str,
    shown_days: int,
    alert_of: Callable[[Documents, list[str]], Alert],
) -> None:
    """Tell what `alert_of` makes of the stored documents and the newest `shown_days` days; nothing of a backfill.

    Its dedup key names the report and the day, so that however often the day is measured it is told once.
    """
    try:
        newest, checked = present_day(services), checked_days(context, services)
    except BotError as error:  # the verdict is known all the same
        context.log.error(f"the report is not told, because which day is the present one is unknown: {error}")
        return
    if newest is None or checked != [newest]:
        return
    last = date.fromisoformat(newest)
    days = [str(last - timedelta(days=back)) for back in reversed(range(shown_days))]
    documents = stored(services, collection, days)
    if newest in documents:
        days = days[days.index(min(documents)) :]
        services.outbox.publish(replace(alert_of(documents, days), link=run_link(services, context.run.run_id)))
