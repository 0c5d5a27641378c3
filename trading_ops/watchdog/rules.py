"""What has stopped ticking, and what is to be done about it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from trading_ops.notifications.alert import Severity
from trading_ops.watchdog.heartbeat import Daemon, DaemonHeartbeat, GuardHeartbeat, Heartbeat, Outage, Ticker

DAEMON_SILENT = timedelta(minutes=5)  # each of Dagster's daemons gives a sign every 30 s, later while it is busy
DAEMON_ERRORS = 3  # within five minutes: it does not get through its work
WATCHDOG_SILENT = timedelta(minutes=5)
GUARD = "guard"
GUARD_SILENT = timedelta(seconds=60)  # its watcher gives a sign twice a second, every 10 s while the bot hangs
# a failed tick of a schedule is a day lost, one of a sensor is made up for by the next
FAILURES = {"schedule": 1, "sensor": 3}
TELL_OF_THEIR_TICKS = ("SCHEDULER", "SENSOR")  # what fails there is a tick, which names its schedule or sensor


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that should tick and does not, under a name that stays the same while it lasts."""

    name: str
    severity: Severity
    since: datetime
    what: str
    why: str
    what_to_do: str


def overdue(
    heartbeat: DaemonHeartbeat | None, now: datetime, *, watching_since: datetime, stale_s: float, why: str = ""
) -> list[Finding]:
    """What does not tick any more, by the daemon's heartbeat; `why` says what keeps that from being read.

    The daemon has `stale_s` from its last heartbeat, and from when somebody began to watch: after a night both start
    together. Its schedules and sensors are judged as of the heartbeat, each with the same patience after it was due.
    """
    patience = timedelta(seconds=stale_s)
    if heartbeat is None or not beats(heartbeat, now, stale_s):
        return [_silent(heartbeat, now, watching_since, why)] if now - watching_since > patience else []
    found = [finding for daemon in heartbeat.daemons for finding in _daemon(daemon, heartbeat)]
    scheduler_is_silent = any(finding.name == "daemon/scheduler" for finding in found)
    for ticker in heartbeat.tickers:
        if ticker.running and not (scheduler_is_silent and ticker.kind == "schedule"):
            found += _ticker(ticker, heartbeat, patience)
    return found


def beats(heartbeat: Heartbeat | None, now: datetime, stale_s: float) -> bool:
    """Whether a heartbeat is of now; one from the future was written before the clock was set back."""
    return heartbeat is not None and abs(now - heartbeat.at) <= timedelta(seconds=stale_s)


def guard_overdue(
    heartbeat: GuardHeartbeat | None,
    now: datetime,
    *,
    watching_since: datetime,
    stale_s: float,
    why: str = "",
    expected_since: datetime | None = None,
) -> list[Finding]:
    """Whether the guard's watcher stopped looking, or cannot see; None is one that never ran, unless there is a `why`.

    Both are given `stale_s`, silence at most a minute; silence counts from when somebody began to watch, too. One that
    never ran is missed `stale_s` after `expected_since`; None: it need not run.
    """
    patience = timedelta(seconds=stale_s)
    if heartbeat is None and not why and expected_since is not None:
        since = max(watching_since, expected_since)
        return [_guard_absent(since)] if now - since > patience else []
    silent = min(GUARD_SILENT, patience)
    if heartbeat is None or abs(now - heartbeat.at) > silent:
        if (heartbeat is None and not why) or now - watching_since <= silent:
            return []
        since = heartbeat.at if heartbeat else watching_since
        return [_guard_silent(since, why)]
    seen_at = heartbeat.seen_at or heartbeat.since
    if heartbeat.at - max(seen_at, watching_since) <= patience:
        return []
    return [
        Finding(
            GUARD,
            Severity.CRITICAL,
            seen_at,
            f"The guard has not seen the bot since {shown(seen_at)}",
            f"Its watcher runs, but: {heartbeat.problem or 'it does not say why'}",
            "See that the bot runs and answers: `trading-ops doctor`. Until then watch its strategies by hand.",
        )
    ]


def _guard_absent(since: datetime) -> Finding:
    return Finding(
        GUARD,
        Severity.CRITICAL,
        since,
        "The guard's watcher never looked",
        "It is expected to run and wrote no heartbeats/guard.json in the data folder. Until it does, a strategy that"
        " bleeds is stopped only by Dagster's sensor, if its daemon runs.",
        "See that it starts: `make ui`, or `docker compose up -d guard`; what it prints says why it ended. If it is not"
        " wanted, run the watchdog without --expect-guard.",
    )


def _guard_silent(since: datetime, why: str) -> Finding:
    said = why or "Until it does, a strategy that bleeds is stopped only by Dagster's sensor, if its daemon runs."
    return Finding(
        GUARD,
        Severity.CRITICAL,
        since,
        f"The guard's watcher has not looked since {shown(since)}",
        said,
        "Start it again: `make ui`, or `docker compose up -d guard`; what it prints says why it ended. If it is not"
        " wanted any more, remove its file heartbeats/guard.json from the data folder.",
    )


def guard_ended(
    known: Mapping[str, Outage],
    heartbeat: GuardHeartbeat | None,
    findings: Sequence[Finding],
    *,
    expected: bool = False,
) -> set[str]:
    """The guard's outage once it has seen the bot again, or is not wanted any more, where it is not `expected`."""
    if GUARD not in known or any(finding.name == GUARD for finding in findings):
        return set()
    if heartbeat is None:
        return set() if expected else {GUARD}
    return {GUARD} if heartbeat.seen_at is not None and heartbeat.seen_at > known[GUARD].since else set()


def ended(known: Mapping[str, Outage], heartbeat: DaemonHeartbeat, findings: Sequence[Finding]) -> set[str]:
    """The outages that a fresh heartbeat shows to be over: what is only given time again has not ticked yet."""
    last = {f"{ticker.kind}/{ticker.name}": ticker.last for ticker in heartbeat.tickers if ticker.running}
    last |= {_name_of(daemon): daemon.last for daemon in heartbeat.daemons}
    last["daemon"] = heartbeat.at
    still = {finding.name for finding in findings}

    def ticked(name: str) -> bool:
        moment = last[name]
        return moment is not None and moment >= known[name].since

    of_the_daemon = known.keys() - {GUARD}
    return {name for name in of_the_daemon if name not in still and (name not in last or ticked(name))}


def watchdog_overdue(
    watchdog: Heartbeat | None, now: datetime, *, alive_since: datetime, why: str = ""
) -> list[Finding]:
    """Whether the watchdog stopped looking; None is one that never ran. The daemon asks, alive since `alive_since`.

    `why` says what keeps its heartbeat from being read.
    """
    if watchdog is None or now - max(watchdog.at, alive_since) <= WATCHDOG_SILENT:
        return []
    return [
        Finding(
            "watchdog",
            Severity.ERROR,
            watchdog.at,
            f"The watchdog has not looked since {shown(watchdog.at)}",
            "\n".join(filter(None, (why, "While it does not run, nobody notices when Dagster's daemon stops."))),
            "Start it again: `trading-ops watchdog` (`make ui` and `docker compose up` do). If it is not wanted any"
            " more, remove its file heartbeats/watchdog.json from the data folder.",
        )
    ]


def shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


def _silent(heartbeat: DaemonHeartbeat | None, now: datetime, watching_since: datetime, why: str) -> Finding:
    if heartbeat is None:
        since, what = watching_since, "Dagster's daemon has not ticked"
        said = why or "There is no heartbeat."
    elif heartbeat.at > now:
        since, what = heartbeat.at, "Dagster's daemon does not tick"
        said = f"Its last heartbeat is from the future ({shown(heartbeat.at)}), so the clock was set back."
    else:
        since, what = heartbeat.at, f"Dagster's daemon has not ticked since {shown(heartbeat.at)}"
        said = f"Its last heartbeat is {(now - heartbeat.at).total_seconds():.0f} s old."
    return Finding(
        "daemon",
        Severity.CRITICAL,
        since,
        what,
        f"{said} No schedule or sensor runs, nothing is measured, and no strategy that bleeds is stopped"
        " unless `trading-ops guard watch` runs.",
        "See that it runs and can load its code: `trading-ops doctor`, then `make ui` or `docker compose up -d daemon`,"
        " whose first lines say what is wrong. What was due meanwhile is made up for.",
    )


def _name_of(daemon: Daemon) -> str:
    return f"daemon/{daemon.name.lower()}"


def _daemon(daemon: Daemon, heartbeat: DaemonHeartbeat) -> Iterator[Finding]:
    name = daemon.name.replace("_", " ").lower()
    last = max(daemon.last or heartbeat.since, heartbeat.since)
    if heartbeat.at - last > DAEMON_SILENT:
        yield Finding(
            _name_of(daemon),
            Severity.ERROR,
            last,
            f"Dagster's {name} daemon has given no sign of life since {shown(last)}",
            "The other daemons run; what this one does is not done.",
            "Start the daemon again (`make ui`, or `docker compose restart daemon`) and read what it prints.",
        )
    elif daemon.errors >= DAEMON_ERRORS and daemon.name not in TELL_OF_THEIR_TICKS:
        yield Finding(
            _name_of(daemon),
            Severity.ERROR,
            heartbeat.at,
            f"Dagster's {name} daemon fails again and again",
            daemon.error or "no error was recorded",
            "See the daemon's own log; what it does may not be done meanwhile.",
        )


def _ticker(ticker: Ticker, heartbeat: DaemonHeartbeat, patience: timedelta) -> Iterator[Finding]:
    due = max(ticker.due or heartbeat.since, heartbeat.since)
    if heartbeat.at - due > patience:
        last = f"Its last tick was at {shown(ticker.last)}." if ticker.last else "It has never ticked."
        yield Finding(
            f"{ticker.kind}/{ticker.name}",
            Severity.ERROR,
            ticker.due or heartbeat.since,
            f"{ticker.name} has not ticked since it was due at {shown(due)}",
            f"{last} The daemon itself runs.",
            f"See the {ticker.kind} in the Dagster UI (Automation); if it stays so, start the daemon again.",
        )
    elif ticker.failures >= FAILURES[ticker.kind] and ticker.failing_since is not None:
        if ticker.kind == "schedule" and heartbeat.at - ticker.failing_since <= patience:
            return  # the daemon tries a tick again while its code is being loaded
        yield Finding(
            f"{ticker.kind}/{ticker.name}",
            Severity.ERROR,
            ticker.failing_since,
            f"{ticker.name} fails at every tick since {shown(ticker.failing_since)}",
            ticker.error or "no error was recorded",
            f"See its ticks in the Dagster UI (Automation) and remove the cause. {_MEANWHILE[ticker.kind]}",
        )


_MEANWHILE = {
    "schedule": "The run that it should have launched was not: launch it by hand for that day.",
    "sensor": "What it has not seen yet, it sees when it works again.",
}
