"""When did daemon, guard and watchdog last show life, and what did they see then? Files that need no database."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from trading_ops.files import write_whole
from trading_ops.notifications.alert import Severity


class HeartbeatUnreadable(ValueError):
    """A heartbeat's file that cannot be read or holds something else; the message names it."""


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True)


class Ticker(_Document):
    """A schedule or sensor: when it ticked last, when it is due next, how often in a row it failed."""

    name: str
    kind: Literal["schedule", "sensor"]
    running: bool  # False: a person stopped it, or it is declared so
    last: AwareDatetime | None = None
    due: AwareDatetime | None = None
    failures: int = 0
    failing_since: AwareDatetime | None = None
    error: str | None = None


class Daemon(_Document):
    """One of Dagster's daemons (scheduler, run monitoring, ...) by the sign of life that it gives itself."""

    name: str
    last: AwareDatetime | None = None
    errors: int = 0  # of the last five minutes
    error: str | None = None


class Outage(_Document):
    """Something that people were told of and that has not ended: since when, by which message, and what it said."""

    since: AwareDatetime
    opening: str
    severity: Severity
    what: str


class Heartbeat(_Document):
    """Written at `at` by a process that has shown life without a long pause since `since`."""

    at: AwareDatetime
    since: AwareDatetime
    open: Mapping[str, Outage] = {}


class DaemonHeartbeat(Heartbeat):
    """What Dagster's daemon saw of its schedules, its sensors and itself."""

    tickers: tuple[Ticker, ...] = ()
    daemons: tuple[Daemon, ...] = ()


class GuardHeartbeat(Heartbeat):
    """What the guard's watcher saw. `seen_at`: when it last read the bot, None: not yet; `problem`: why it cannot, or
    why nothing acts; `stopped`: strategies that are stopped or being stopped, with how far that is."""

    pid: int
    seen_at: AwareDatetime | None = None
    problem: str | None = None
    stopped: Mapping[str, str] = {}


_Kind = TypeVar("_Kind", bound=Heartbeat)


class Heartbeats:
    """The files of one folder; each has one writer and is replaced whole."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemon_file, self.watchdog_file = folder / "daemon.json", folder / "watchdog.json"
        self.guard_file = folder / "guard.json"

    def daemon(self) -> DaemonHeartbeat | None:
        """The daemon's; None where it never wrote one. Raises HeartbeatUnreadable."""
        return _read(self.daemon_file, DaemonHeartbeat)

    def watchdog(self) -> Heartbeat | None:
        """The watchdog's; None where none ever ran. Raises HeartbeatUnreadable."""
        return _read(self.watchdog_file, Heartbeat)

    def guard(self) -> GuardHeartbeat | None:
        """That of the guard's watcher; None where none ever ran for this file. Raises HeartbeatUnreadable."""
        return _read(self.guard_file, GuardHeartbeat)

    def watchdog_touched(self) -> Heartbeat | None:
        """A sign of life of when the watchdog's file was written, where no more of it can be read; None: it is gone."""
        try:
            at = datetime.fromtimestamp(self.watchdog_file.stat().st_mtime, UTC)
        except FileNotFoundError:
            return None
        return Heartbeat(at=at, since=at)

    def write(self, heartbeat: Heartbeat) -> None:
        """Put it in its file; raises FileNotWritten."""
        path = self.daemon_file if isinstance(heartbeat, DaemonHeartbeat) else self.watchdog_file
        write_whole(path, heartbeat.model_dump_json(indent=2).encode())


def alive_since(previous: Heartbeat | None, now: datetime, pause_s: float) -> datetime:
    """Since when its writer has shown life without a longer pause; a machine that slept begins anew."""
    if previous is None or abs(now - previous.at) > timedelta(seconds=pause_s):
        return now
    return min(previous.since, now)


def _read(path: Path, kind: type[_Kind]) -> _Kind | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no heartbeat"
        raise HeartbeatUnreadable(f"{path} cannot be read: {why}") from error
