"""How does a check's finding become a verdict in Dagster and an alert to people? Only the present is told at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256
from typing import Any

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from trading_ops.audit.store import Record, StoreError, StoreUnavailable
from trading_ops.bot.client import BotError
from trading_ops.defs.partitions import RANGE_END, RANGE_START
from trading_ops.defs.presenting import table_of
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.text import fit, one_line
from trading_ops.services import Services

SHOWN = 50  # findings listed in a check's metadata
TOLD = 5  # findings spelled out in an alert
MOST_TITLE = 120  # characters of the worst finding: a phone shows no more


@dataclass(frozen=True, slots=True)
class Finding:
    """Something on a UTC day that should not be so; `about` names who and which rule, without figures.

    `text` says who, the figure and its limit in words: the worst one is the title of the alert, without its `detail`.
    """

    day: str
    severity: Severity
    about: str
    text: str
    detail: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.text, self.detail)))


def days_of(tags: Mapping[str, str]) -> list[str]:
    """The UTC days a run is about, by its tags; none for a run without partitions."""
    if "dagster/partition" in tags:
        return [tags["dagster/partition"]]
    if RANGE_START not in tags:
        return []
    first, last = date.fromisoformat(tags[RANGE_START]), date.fromisoformat(tags[RANGE_END])
    return [str(first + timedelta(days=i)) for i in range((last - first).days + 1)]


def present_day(services: Services) -> str | None:
    """The newest complete day by the bot's clock, which may alert and act; None where its data is not fresh."""
    calendar = services.bot.calendar()
    return str(calendar.last_day) if calendar.live else None


def checked_days(context: dg.AssetCheckExecutionContext, services: Services) -> list[str]:
    """The UTC days this check is about; a check executed by itself is about the newest day."""
    return days_of(context.run.tags) or [str(services.bot.calendar().last_day)]


def run_link(services: Services, run_id: str) -> str:
    """The run's page in the Dagster UI."""
    return f"{str(services.settings.ui_url).rstrip('/')}/runs/{run_id}"


def root_cause(error: SerializableErrorInfo | None) -> str:
    """What went wrong in our own words, which say what to do, else in the innermost error's; without the stack."""
    messages = []
    while error is not None:
        messages.append(error.message.strip())
        error = error.cause
    ours = [message for message in messages if message.startswith("trading_ops.")]
    return (ours or messages or ["unknown error"])[-1]


def stored(services: Services, collection: str, days: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The newest revision of each day's document; days that are not stored are absent."""
    records = services.store.read(collection, partitions=days, key="")
    return {record.partition: record.body for record in records}


def conclude(
    context: dg.AssetCheckExecutionContext,
    services: Services,
    findings: Sequence[Finding],
    *,
    what_to_do: str,
    metadata: Mapping[str, Any] | None = None,
) -> dg.AssetCheckResult:
    """Fail the check where there are findings; those of the newest complete day are its incident, none end it.

    Findings about the past are recorded here and told once, in the backfill's summary. Whether anybody could be told
    changes no verdict.
    """
    days = days_of(context.run.tags)  # none: the newest day alone
    try:
        _go_on(context, services, days, findings, what_to_do)
    except StoreError as error:
        context.log.error(f"nobody could be told what was found, and nothing notes it: {error}")
    except BotError as error:
        context.log.error(f"nobody is told what was found, because which day is the present one is unknown: {error}")
    worst = max((finding.severity for finding in findings), key=lambda s: s.rank, default=Severity.INFO)
    failed = sorted({finding.day for finding in findings})
    listed = [f for day in reversed(failed) for f in _by_severity([f for f in findings if f.day == day])][:SHOWN]
    table = [{"day": f.day, "severity": str(f.severity), "finding": str(f)} for f in listed]
    return dg.AssetCheckResult(
        passed=not findings,
        severity=dg.AssetCheckSeverity.ERROR if worst.rank >= Severity.ERROR.rank else dg.AssetCheckSeverity.WARN,
        description=f"{len(failed)} of {len(days) or 1} days failed" if findings else None,
        metadata={
            "failed_days": len(failed),
            **(
                {"what_to_do": what_to_do, "findings": table_of(table), "failed_on": " ".join(failed)}
                if findings
                else {}
            ),
            **(metadata or {}),
        },
    )


def _go_on(
    context: dg.AssetCheckExecutionContext,
    services: Services,
    days: Sequence[str],
    findings: Sequence[Finding],
    what_to_do: str,
) -> None:
    """The check's incident with what was found on the newest day; untouched where that day was not checked."""
    newest = present_day(services)
    if newest is None or (days and newest not in days):
        return
    (key,) = context.op_execution_context.selected_asset_check_keys
    name = f"{key.asset_key.to_user_string()}/{key.name}"
    present = [finding for finding in findings if finding.day == newest]
    if not present:
        services.incidents.recover(name)
        return
    worst: dict[str, Severity] = {}
    for finding in sorted(present, key=lambda finding: finding.severity.rank):
        worst[finding.about] = finding.severity
    services.incidents.observe(
        Alert(
            severity=max(worst.values(), key=lambda severity: severity.rank),
            dedup_key=f"{name}/{newest}/{_digest(present)}",
            what=f"{_worst(present)}, {newest} ({services.bot.label} candles)",
            why=f"The check {name} failed:\n{_worst_first(present)}",
            what_to_do=what_to_do,
            day=newest,
            link=run_link(services, context.run.run_id),
            incident=name,
        ),
        worst,
    )


def _digest(findings: Sequence[Finding]) -> str:
    """The same for the same findings, whatever their figures."""
    return sha256("\n".join(sorted(f"{f.severity} {f.about}" for f in findings)).encode()).hexdigest()[:16]


def _by_severity(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: -finding.severity.rank)


def _worst(findings: Sequence[Finding]) -> str:
    """The worst finding, and how many others there are."""
    more = len(findings) - 1
    return f"{fit(one_line(_by_severity(findings)[0].text), MOST_TITLE)}{f' (and {more} more)' if more else ''}"


def _worst_first(findings: Sequence[Finding]) -> str:
    """The worst findings a line each, and how many more there are."""
    return "\n".join(_shortened([str(finding) for finding in _by_severity(findings)]))


def _shortened(lines: Sequence[str]) -> list[str]:
    more = len(lines) - TOLD
    return [*lines[:TOLD], *([f"and {more} more: open the run"] if more > 0 else [])]


def summarise_backfill(instance: dg.DagsterInstance, run: dg.DagsterRun, services: Services) -> Alert | None:
    """Tell once what the checks of a run over past days found; None where it recorded nothing new about the past."""
    days = days_of(run.tags)
    if not days:
        return None
    newest = _newest_day(services)
    past = [day for day in days if day != newest]
    if not past:
        return None
    written: list[Record] = []
    try:
        written = _written(instance, run, services, past)
    except StoreUnavailable as error:
        corrected = [f"the audit store is down: {error}"]
    else:
        if not written:
            return None
        corrected = sorted(
            f"{r.collection} of {r.partition} changed: revision {r.revision}" for r in written if r.revision > 1
        )
    entries = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    evaluations = [entry.get_dagster_event().asset_check_evaluation_data for entry in entries]
    failed = sorted(
        f"{e.asset_key.to_user_string()}/{e.check_name} failed on {len(on)} of {_days(past)}"
        for e in evaluations
        if "failed_on" in e.metadata and (on := set(past).intersection(str(e.metadata["failed_on"].value).split()))
    )
    span = past[0] if len(past) == 1 else f"{past[0]} to {past[-1]}"
    alert = Alert(
        severity=Severity.INFO,
        dedup_key=f"backfill/{run.run_id}",
        what=f"{_days(past, 'past ')} measured, {span}{_candles(services, written)}",
        why="\n".join([*_shortened(corrected), *failed]) or "every check passed",
        what_to_do="Nothing: the past is recorded, never acted on. The days are in the Dagster UI.",
        day=past[-1],
        link=run_link(services, run.run_id),
    )
    services.outbox.publish(alert)
    return alert


def _days(days: Sequence[str], which: str = "") -> str:
    return f"{len(days)} {which}day{'' if len(days) == 1 else 's'}"


def _newest_day(services: Services) -> str | None:
    """The day whose findings were told by its checks; where the bot is down now, our clock's."""
    try:
        return present_day(services)
    except BotError:
        return str(services.now().date() - timedelta(days=1))


def _candles(services: Services, written: Sequence[Record]) -> str:
    """What the figures are based on: the bot says it, else what was stored of them."""
    try:
        label = services.bot.label
    except BotError:
        label = next((record.body["candles"] for record in written if "candles" in record.body), "")
    return f" ({label} candles)" if label else ""


def _written(instance: dg.DagsterInstance, run: dg.DagsterRun, services: Services, days: Sequence[str]) -> list[Record]:
    """What the store got about these days since the run began."""
    stored_run = instance.get_run_record_by_id(run.run_id)
    began = (stored_run and stored_run.start_time) or 0.0
    return [
        record
        for collection in services.store.collections()
        for record in services.store.read(collection, partitions=days, key="")
        if record.recorded_at.timestamp() >= began
    ]
