"""Does Dagster's instance work, and do the daemons that run schedules and sensors?"""

from collections.abc import Iterator

import dagster as dg
from dagster._daemon.controller import get_daemon_statuses

from trading_ops.doctor.diagnosis import Diagnosis


def examine_instance() -> Iterator[Diagnosis]:
    """Dagster's storage can be read, and its daemons beat."""
    try:
        with dg.DagsterInstance.get() as instance:
            runs = instance.get_runs_count()
            statuses = get_daemon_statuses(instance, instance.get_required_daemon_types())
    except Exception as error:  # noqa: BLE001  # a storage of any kind, each with errors of its own
        yield Diagnosis("Dagster", "failed", f"its storage cannot be used: {error}", "See dagster.yaml.")
        return
    silent = [name for name, status in statuses.items() if not status.healthy]
    if len(silent) == len(statuses):
        said = f"{runs} runs stored; no daemon runs, so schedules and sensors do not"
        yield Diagnosis("Dagster", "warning", said, "Start it: make ui")
    elif silent:
        problem = f"no sign of life from {', '.join(silent).lower()}"
        yield Diagnosis("Dagster", "failed", problem, "Start the daemon again: make ui, or dagster-daemon run.")
    else:
        yield Diagnosis("Dagster", "ok", f"{runs} runs stored, {len(statuses)} daemons run")
