"""How are many past days measured in one run, from the terminal?"""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta

import dagster as dg

from trading_ops.defs.alerting import root_cause, stored, summarise_backfill
from trading_ops.defs.partitions import RANGE_END, RANGE_START, REREAD_DAYS
from trading_ops.services import Services

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


class BackfillError(ValueError):
    """The days asked for cannot be measured; the message says which can."""


@dataclass(frozen=True, slots=True)
class Backfill:
    """What a backfill did; `failed_checks` are those about any of its days."""

    first: str
    last: str
    days: int
    assets: int
    run_id: str
    succeeded: bool
    failed_checks: tuple[str, ...]
    errors: tuple[str, ...]
    seconds: float

    def sentence(self) -> str:
        outcome = "measured" if self.succeeded else "FAILED to measure"
        return (
            f"{outcome} {self.days} days ({self.first} to {self.last}) x {self.assets} assets"
            f" in {self.seconds:.1f} s, run {self.run_id[:8]}"
        )


def choose_days(
    services: Services, days: int | None, first: date | None, last: date | None, *, missing: bool
) -> tuple[date, date]:
    """The first and last day to measure, within what the bot covers."""
    calendar = services.bot.calendar()
    if days is not None and first is not None:
        raise BackfillError("give either --days or --first, not both")
    last = last or calendar.last_day
    first = first or max(calendar.first_day, last - timedelta(days=(days or 1) - 1))
    if not calendar.first_day <= first <= last <= calendar.last_day:
        raise BackfillError(
            f"{first} to {last} cannot be measured: the bot covers {calendar.first_day} to {calendar.last_day}"
        )
    if not missing:
        return first, last
    wanted = [str(first + timedelta(days=i)) for i in range((last - first).days + 1)]
    documents = [stored(services, c, wanted) for c in ("performance_metrics", "strategy_risk", "portfolio_reports")]
    measured = [
        d for d in wanted if all(day_of.get(d, {}).get("source") == services.bot.source for day_of in documents)
    ]
    unmeasured = [date.fromisoformat(day) for day in wanted if day not in set(measured)]
    reread = max(first, last - timedelta(days=REREAD_DAYS - 1))
    return min([*unmeasured, reread]), last


def run_backfill(
    defs: dg.Definitions,
    services: Services,
    instance: dg.DagsterInstance,
    first: date,
    last: date,
    *,
    progress: bool = True,
) -> Backfill:
    """Materialise every daily asset for the days as one run of this process, and tell people once."""
    assets = [spec.key for spec in defs.resolve_all_asset_specs() if spec.partitions_def is not None]
    days, run_id, began = (last - first).days + 1, str(uuid.uuid4()), time.monotonic()
    checks = dg.AssetSelection.checks_for_assets("candles")
    job = dg.define_asset_job("backfill", selection=dg.AssetSelection.assets(*assets) | checks)
    with _progress(instance, run_id, days * len(assets), enabled=progress):
        result = (
            dg.Definitions.merge(defs, dg.Definitions(jobs=[job]))
            .resolve_job_def("backfill")
            .execute_in_process(
                instance=instance,
                tags={RANGE_START: str(first), RANGE_END: str(last)},
                run_config=QUIET,
                raise_on_error=False,
                run_id=run_id,
            )
        )
    seconds = time.monotonic() - began
    if result.success:
        summarise_backfill(instance, result.dagster_run, services)
    failures = [event for event in result.all_events if event.is_step_failure]
    return Backfill(
        first=str(first),
        last=str(last),
        days=days,
        assets=len(assets),
        run_id=run_id,
        succeeded=result.success,
        failed_checks=tuple(
            sorted(
                f"{e.asset_key.to_user_string()}/{e.check_name}"
                for e in result.get_asset_check_evaluations()
                if not e.passed
            )
        ),
        errors=tuple(f"{event.step_key}: {root_cause(event.step_failure_data.error)}" for event in failures),
        seconds=seconds,
    )


@contextmanager
def _progress(instance: dg.DagsterInstance, run_id: str, total: int, *, enabled: bool) -> Iterator[None]:
    """A progress bar on standard error, fed by the run's materialisations as they are stored."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("measuring"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("days x assets"),
        TimeElapsedColumn(),
    )
    finished = threading.Event()
    with Progress(*columns, console=console, disable=not enabled or not console.is_terminal) as bar:
        task = bar.add_task("measuring", total=total)

        def follow() -> None:
            cursor = None
            while not finished.wait(1.0):
                page = instance.get_records_for_run(
                    run_id, cursor, dg.DagsterEventType.ASSET_MATERIALIZATION, limit=5000
                )
                bar.advance(task, len(page.records))
                cursor = page.cursor

        follower = threading.Thread(target=follow, daemon=True)
        if not bar.disable:
            follower.start()
        try:
            yield
        finally:
            finished.set()
            if follower.is_alive():
                follower.join()
            bar.update(task, completed=total)
