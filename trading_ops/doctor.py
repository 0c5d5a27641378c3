"""Can everything that is configured be used here and now, and if not, what has to be done?"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trading_ops.audit.store import Conflict, StoreError
from trading_ops.bot.client import BotError, BotUnreachable
from trading_ops.bot.http import LABEL as LIVE
from trading_ops.market.candles import FRESH_WITHIN, CandleError
from trading_ops.settings import unknown_variables

if TYPE_CHECKING:
    from trading_ops.bot.client import Calendar
    from trading_ops.bot.records import BotHealth
    from trading_ops.services import Services

State = Literal["ok", "warning", "failed"]
CLOCK_TOLERANCE = timedelta(seconds=60)
CANDLE = timedelta(hours=1)  # a bot on candles lives at the end of the last complete one
RECENT = timedelta(days=7)
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
    looks: dict[str, Callable[[Services], Iterator[Diagnosis]]] = {
        "versions": packages,
        "configuration": configuration,
        "permissions": permissions,
        "disk": disk,
        "audit store": audit_store,
        "spool": spool,
        "alerts": outbox,
        "bot": bot,
        "candles": local_candles,
    }
    for subject, look in looks.items():
        yield from _looked(subject, look, services)


def _looked(
    subject: str, look: Callable[..., Iterator[Diagnosis]], services: Services, *more: Any
) -> Iterator[Diagnosis]:
    """What a look finds; where it cannot look, that is what it found."""
    try:
        yield from look(services, *more)
    except (StoreError, BotError, CandleError, ValueError, OSError) as error:
        yield Diagnosis(subject, "failed", str(error), _advice(subject, error, services))


def _advice(subject: str, error: Exception, services: Services) -> str:
    if subject == "audit store":
        return _meanwhile(services)
    if subject == "spool":
        return "Keep that file: what waits in it is nowhere else."
    if subject == "alerts":
        return "See the audit store above."
    if isinstance(error, BotError) and services.settings.bot_url is not None:
        return "See that the bot runs, then TRADING_OPS_BOT_URL in .env."
    if isinstance(error, CandleError | BotError):
        return "Correct TRADING_OPS_CANDLES in .env."
    if isinstance(error, StoreError):
        return "It holds which strategies of the paper bot were stopped; without that file all of them run again."
    return "Put that right, then look again."


def _meanwhile(services: Services) -> str:
    """What becomes of records while the audit store is away."""
    lost = "Until then nothing can be recorded; afterwards: trading-ops backfill --missing"
    try:
        if services.spooled_store is None:
            return lost
        services.spooled_store.backlog()
    except (StoreError, ValueError):
        return lost
    return "Until then records wait in the spool; nothing is lost."


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
    heads = services.store.heads()
    known = services.store.get_state("doctor", "write")
    with suppress(Conflict):  # somebody else has just written it, so it can be written
        services.store.put_state("doctor", "write", {}, expected_version=known.version if known else 0)
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
    if waiting := services.outbox.waiting():
        said = f"{waiting} alerts wait for a channel"
        yield Diagnosis("alerts", "warning", said, "They are sent again by themselves.")
    else:
        yield Diagnosis("alerts", "ok", "every alert was delivered")


def bot(services: Services) -> Iterator[Diagnosis]:
    """The bot answers, says it is well, and is believed; its clock, and its candles where it has its own."""
    began = time.monotonic()
    health, ours = services.bot.health(), services.now()
    calendar = services.bot.calendar()
    answers = True
    for diagnosis in _looked("bot", _answers, services, health, calendar, began):
        answers = diagnosis.state != "failed"
        yield diagnosis
    yield from _looked("clocks", _clocks, services, health, calendar, ours)
    if answers and services.settings.bot_url is not None:  # a bot that hangs would hang once more for each symbol
        yield from _looked("candles", _bot_candles, services)


def _answers(services: Services, health: BotHealth, calendar: Calendar, began: float) -> Iterator[Diagnosis]:
    strategies = services.bot.strategies()
    services.bot.portfolio()
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


def _clocks(services: Services, health: BotHealth, calendar: Calendar, ours: datetime) -> Iterator[Diagnosis]:
    """The bot's clock against ours, as it was when it answered: the UTC days depend on both."""
    built_in = services.settings.bot_url is None
    if health.now is None and not built_in:
        advice = "Until /api/health gives `now`, compare both machines' clocks by hand: the UTC days depend on them."
        yield Diagnosis("clocks", "warning", "the bot does not tell its clock", advice)
        return
    theirs = health.now or services.bot.now()
    label = services.bot.label if built_in else health.label or LIVE
    ends = f"the bot's clock stands at {theirs:%Y-%m-%d %H:%M} UTC, where its {label} candles end"
    behind = ours - theirs
    if label != LIVE and not calendar.live:
        yield Diagnosis("clocks", "ok", ends)
    elif -CLOCK_TOLERANCE <= behind <= CLOCK_TOLERANCE + (CANDLE if label != LIVE else timedelta(0)):
        apart = f"the bot's and ours are {abs(behind).total_seconds():.0f} s apart"
        yield Diagnosis("clocks", "ok", apart if label == LIVE else ends)
    elif built_in:  # the same machine: only its candles can be late
        yield Diagnosis("clocks", "warning", ends, "Bring them up to now: trading-ops candles download")
    else:
        order = "behind" if behind > timedelta(0) else "ahead of"
        said = f"the bot's clock, {theirs:%Y-%m-%d %H:%M:%S} UTC, is {abs(behind).total_seconds():.0f} s {order} ours"
        also = "" if label == LIVE or order != "behind" else f"; or bring its {label} candles up to now"
        yield Diagnosis(
            "clocks", "failed", said, f"Synchronise both machines with NTP (timedatectl set-ntp true){also}."
        )


def _bot_candles(services: Services) -> Iterator[Diagnosis]:
    """The bot has the last days' candles of the symbols it trades."""
    now, symbols = services.bot.now(), services.bot_symbols()
    missing = {}
    for symbol in symbols:
        try:
            bars = services.bot.candles(symbol, now - RECENT, now)
            if bars.empty or now - bars.index[-1] > FRESH_WITHIN:
                missing[symbol] = f"none since {now - RECENT if bars.empty else bars.index[-1]:%Y-%m-%d %H:%M} UTC"
        except BotUnreachable:
            raise
        except BotError as error:
            missing[symbol] = str(error)
    if missing:
        said = f"the bot lacks candles of {', '.join(missing)}: {next(iter(missing.values()))}"
        yield Diagnosis("candles", "warning", said, "What is measured on them is left out until the bot has them.")
    else:
        yield Diagnosis("candles", "ok", f"{len(symbols)} symbols of {RECENT.days} days, the bot's own")


def local_candles(services: Services) -> Iterator[Diagnosis]:
    """The symbols have candles up to the present on this machine, where the bot or the operator uses those."""
    aside = services.settings.bot_url is not None  # the bot behind an address has candles of its own
    if aside and services.settings.candles is None:
        return
    bad: State
    subject, bad = ("local candles", "warning") if aside else ("candles", "failed")
    try:
        source = services.candles
        present, stale = source.symbols(), source.stale_symbols()
    except CandleError as error:
        yield Diagnosis(subject, bad, str(error), "Correct TRADING_OPS_CANDLES in .env.")
        return
    missing = [symbol for symbol in services.settings.symbols if symbol not in present]
    if missing:
        said = ", ".join(f"{s} (ends {stale[s]:%Y-%m-%d})" if s in stale else s for s in missing)
        yield Diagnosis(subject, bad, f"{source.label} candles lack {said}", "trading-ops candles download")
    else:
        yield Diagnosis(subject, "ok", f"{len(services.settings.symbols)} symbols, {source.label}")


def ends_well(found: list[Diagnosis]) -> bool:
    """Whether nothing failed; warnings are no failure."""
    return all(diagnosis.state != "failed" for diagnosis in found)


def _ms(began: float) -> str:
    return f"{1000 * (time.monotonic() - began):.0f} ms"
