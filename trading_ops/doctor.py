"""Can everything that is configured be used here and now, and if not, what has to be done?"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from trading_ops.audit.store import StoreError
from trading_ops.bot.client import BotError
from trading_ops.market.candles import CandleError
from trading_ops.services import Services
from trading_ops.settings import unknown_variables

State = Literal["ok", "warning", "failed"]
CLOCK_TOLERANCE = timedelta(seconds=60)
LIVE = "live"  # the label of a bot that trades on the present, not on candles that have an end
DISK_WARNING_PCT, DISK_CRITICAL_PCT = 80, 90


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One line: what was looked at, how it is, what was found, and what to do where it is not ok."""

    subject: str
    state: State
    found: str
    what_to_do: str = ""


def examine(services: Services) -> Iterator[Diagnosis]:
    """Look at everything, one after the other; what cannot be reached is a diagnosis, never an exception."""
    for look in (packages, configuration, permissions, disk, audit_store, spool, outbox, bot, clocks, candles):
        yield from look(services)


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
    """Variables that are set but read by nobody: most often a slip of the pen."""
    if unknown := unknown_variables():
        yield Diagnosis(
            "configuration",
            "failed",
            f"nothing reads {', '.join(unknown)}",
            "Correct the name or remove it; .env.example lists every variable.",
        )
    else:
        yield Diagnosis("configuration", "ok", "every variable is known and valid")


def permissions(services: Services) -> Iterator[Diagnosis]:
    """The data folder can be written, and files that hold secrets or the trail are nobody else's to read."""
    folder = services.settings.data_dir
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Diagnosis("permissions", "failed", f"{existing} cannot be written", "Give this user the folder.")
        return
    private = [path for path in (Path(".env"), *sorted(folder.glob("*.db"))) if path.exists()]
    open_ones = [str(path) for path in private if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)]
    if open_ones and os.name == "posix":
        names = " ".join(open_ones)
        yield Diagnosis("permissions", "failed", f"others may read {names}", f"chmod 600 {names}")
    else:
        yield Diagnosis("permissions", "ok", f"{folder} can be written; .env and the audit files are private")


def disk(services: Services) -> Iterator[Diagnosis]:
    """Room where the audit trail and the spool are written."""
    folder = services.settings.data_dir
    usage = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists()))
    used = 100 * (1 - usage.free / usage.total)
    state: State = "failed" if used > DISK_CRITICAL_PCT else "warning" if used > DISK_WARNING_PCT else "ok"
    advice = "" if state == "ok" else f"Free some space, or move TRADING_OPS_DATA_DIR from {folder}."
    yield Diagnosis("disk", state, f"{used:.0f} % used, {usage.free / 2**30:.1f} GiB free", advice)


def audit_store(services: Services) -> Iterator[Diagnosis]:
    """The audit store can be read and written."""
    began = time.monotonic()
    try:
        store = services.store
        heads = store.heads()
        known = store.get_state("doctor", "write")
        store.put_state("doctor", "write", {}, expected_version=known.version if known else 0)
    except StoreError as error:
        yield Diagnosis("audit store", "failed", str(error), "Until then records wait in the spool; nothing is lost.")
        return
    records = sum(head.seq for head in heads)
    said = f"{records:,} records in {len(heads)} collections, read and written in {_ms(began)}"
    yield Diagnosis("audit store", "ok", f"{services.store_label}: {said}")


def spool(services: Services) -> Iterator[Diagnosis]:
    """Records that wait on this machine for a shared store; what can be shipped is shipped."""
    if services.spooled_store is None:
        return
    shipped, backlog = services.spooled_store.ship(), services.spooled_store.backlog()
    if backlog.refused:
        advice = "Keep that file, and correct what wrote them; the others are not held up."
        yield Diagnosis("spool", "failed", f"{backlog.refused} records were refused ({backlog.path})", advice)
    elif backlog.waiting:
        since = f" since {backlog.oldest:%Y-%m-%d %H:%M} UTC" if backlog.oldest else ""
        advice = "They are shipped in order once the audit store is back; keep this file until then."
        yield Diagnosis("spool", "warning", f"{backlog.waiting} records wait{since} in {backlog.path}", advice)
    else:
        yield Diagnosis("spool", "ok", f"{shipped} records shipped now, nothing waits" if shipped else "nothing waits")


def outbox(services: Services) -> Iterator[Diagnosis]:
    """Alerts that have not reached people."""
    try:
        waiting = services.outbox.waiting()
    except StoreError as error:
        yield Diagnosis("alerts", "failed", str(error), "See the audit store above.")
        return
    if waiting:
        yield Diagnosis(
            "alerts", "warning", f"{waiting} alerts wait for a channel", "They are sent again by themselves."
        )
    else:
        yield Diagnosis("alerts", "ok", "every alert was delivered")


def bot(services: Services) -> Iterator[Diagnosis]:
    """The bot answers, says it is well, and is believed."""
    began = time.monotonic()
    try:
        health = services.bot.health()
        strategies = services.bot.strategies()
        services.bot.portfolio()
        calendar = services.bot.calendar()
    except BotError as error:
        yield Diagnosis("bot", "failed", str(error), "See that the bot runs, then TRADING_OPS_BOT_URL in .env.")
        return
    running = sum(state.enabled for state in strategies)
    said = (
        f"{services.bot_label}: {running} of {len(strategies)} strategies enabled, days {calendar.first_day} to"
        f" {calendar.last_day}{'' if calendar.live else ', which is in the past'}, answered in {_ms(began)}"
    )
    if not health.healthy:
        yield Diagnosis("bot", "failed", f"it says it is not well: {health.detail}", "See the bot's own log.")
    elif not calendar.live:
        yield Diagnosis("bot", "warning", said, "Its data is not fresh, so nothing alerts or acts: see its candles.")
    else:
        yield Diagnosis("bot", "ok", said)


def clocks(services: Services) -> Iterator[Diagnosis]:
    """The bot's clock and ours: the UTC days depend on them."""
    try:
        label, theirs = services.bot.label, services.bot.now()
    except BotError:
        return  # told above
    if label != LIVE:
        yield Diagnosis("clocks", "ok", f"the bot's clock stands at {theirs:%Y-%m-%d %H:%M} UTC, where its candles end")
        return
    apart = abs(theirs - services.now())
    if apart > CLOCK_TOLERANCE:
        said = f"the bot's clock says {theirs:%Y-%m-%d %H:%M:%S} UTC, {apart.total_seconds():.0f} s from ours"
        yield Diagnosis("clocks", "failed", said, "Synchronise both machines with NTP (timedatectl set-ntp true).")
    else:
        yield Diagnosis("clocks", "ok", f"the bot's and ours are {apart.total_seconds():.0f} s apart")


def candles(services: Services) -> Iterator[Diagnosis]:
    """The symbols have candles up to the present."""
    source = services.candles
    try:
        present, stale = source.symbols(), source.stale_symbols()
    except CandleError as error:
        yield Diagnosis("candles", "failed", str(error), "Correct TRADING_OPS_CANDLES in .env.")
        return
    missing = [symbol for symbol in services.settings.symbols if symbol not in present]
    if missing:
        said = ", ".join(f"{s} (ends {stale[s]:%Y-%m-%d})" if s in stale else s for s in missing)
        yield Diagnosis("candles", "failed", f"{source.label} candles lack {said}", "trading-ops candles download")
    else:
        yield Diagnosis("candles", "ok", f"{len(services.settings.symbols)} symbols, {source.label}")


def ends_well(found: list[Diagnosis]) -> bool:
    """Whether nothing failed; warnings are no failure."""
    return all(diagnosis.state != "failed" for diagnosis in found)


def _ms(began: float) -> str:
    return f"{1000 * (time.monotonic() - began):.0f} ms"
