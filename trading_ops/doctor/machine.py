"""Is this machine fit: versions, variables, permissions, disk?"""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

from trading_ops.commands import shell
from trading_ops.doctor.diagnosis import Diagnosis, state_of
from trading_ops.settings import overruled_variables, unknown_variables

if TYPE_CHECKING:
    from trading_ops.services import Services


def packages(services: Services) -> Iterator[Diagnosis]:
    """Python and the packages that trading_ops needs."""
    from packaging.requirements import Requirement

    needed = [Requirement(line) for line in requires("trading-ops") or []]
    wrong = []
    for requirement in needed:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            there = version(requirement.name)
        except PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(there, prereleases=True):
            wrong.append(f"{requirement.name} is {there}, {requirement.specifier} is needed")
    here = f"trading_ops {version('trading-ops')}, Dagster {version('dagster')}, Python {platform.python_version()}"
    if wrong:
        yield Diagnosis("versions", "failed", "; ".join(wrong), "Install again: make clean, then make run.")
    else:
        yield Diagnosis("versions", "ok", here)


def configuration(services: Services) -> Iterator[Diagnosis]:
    """Variables that are set but read by nobody, most often a slip of the pen, or by some processes only."""
    if unknown := unknown_variables():
        yield Diagnosis(
            "configuration",
            "failed",
            f"nothing reads {', '.join(unknown)}",
            "Correct the name or remove it; .env.example lists every variable.",
        )
    elif overruled := overruled_variables():
        yield Diagnosis(
            "configuration",
            "failed",
            f".env says something else than the environment of {', '.join(overruled)}",
            "Take the line out of .env: Dagster's own processes (make ui, dagster job execute) prefer it.",
        )
    else:
        yield Diagnosis("configuration", "ok", "every variable is known and valid")


def permissions(services: Services) -> Iterator[Diagnosis]:
    """The data folder can be written, and files that hold secrets or the trail are nobody else's to read."""
    folder = services.settings.data_dir
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        advice = "Move that file away, or set TRADING_OPS_DATA_DIR to a folder."
        yield Diagnosis("permissions", "failed", f"{existing} is no folder", advice)
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Diagnosis("permissions", "failed", f"{existing} cannot be written", "Give this user the folder.")
        return
    private = [path for path in (Path(".env"), *sorted(folder.glob("*.db"))) if path.exists()]
    open_ones = [str(path) for path in private if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    if open_ones and os.name == "posix":
        yield Diagnosis(
            "permissions", "failed", f"others may read {' '.join(open_ones)}", shell("chmod", "600", *open_ones)
        )
    else:
        yield Diagnosis("permissions", "ok", f"{folder} can be written; .env and the audit files are private")


def disk(services: Services) -> Iterator[Diagnosis]:
    """Room where the audit trail and the spool are written."""
    from trading_ops.health.components import limits_of
    from trading_ops.health.machine import look_at_disk

    folder = services.settings.data_dir
    verdict = look_at_disk(folder, limits_of(services))
    advice = f"Free some space, or move TRADING_OPS_DATA_DIR from {folder}." if verdict.status.severity else ""
    yield Diagnosis(
        "disk", state_of(verdict.status), f"{verdict.found}, {verdict.numbers['free_gib']} GiB free", advice
    )
