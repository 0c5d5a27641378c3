"""What is so about something that went wrong, and what were people told of it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from trading_ops.audit.plain import plain
from trading_ops.notifications.alert import Alert, Severity

ACTIONS = "incident_actions"  # a record each time that a person acknowledges, resolves, silences, or ends a silence


@dataclass(frozen=True, slots=True)
class Policy:
    """When people hear of an incident again, and when they are left in peace."""

    flapping_openings: int = 4  # so many within `flapping_within` are told once, as flapping
    flapping_within: timedelta = timedelta(hours=1)
    steady_after: timedelta = timedelta(minutes=30)  # without a change: no flapping, and a finding that left is new
    group_within: timedelta = timedelta(seconds=60)
    escalate_after: timedelta = timedelta(minutes=15)
    escalation_steps: int = 1
    remind_repeat_after: timedelta = timedelta(hours=12)  # what is seen on a new UTC day
    remind_after: timedelta = timedelta(hours=25)  # what nobody looks at; a daily check that is late comes first
    update_every: timedelta | None = timedelta(hours=1)  # at most, and of what changed; None: no channel shows updates


@dataclass(frozen=True, slots=True)
class Incident:
    """What is so (`alert`: as last seen; `findings`: each, and since when it is gone), and what people were told.

    `unsent` is the write-ahead of messages: they are published, then taken out.
    """

    key: str
    alert: Alert
    open: bool
    episode: int  # how often it has opened
    opened_at: datetime  # what people know by one opening is one: it flapped, or was silenced in between
    changed_at: datetime  # opened or ended
    seen_at: datetime
    count: int = 0
    findings: Mapping[str, datetime | None] = field(default_factory=dict)
    openings: tuple[datetime, ...] = ()
    flapping: bool = False
    held_until: datetime | None = None  # told by a tick, together with others

    told_open: bool = False
    told_at: datetime | None = None
    told: tuple[Severity, ...] = ()  # as what, since it was told as open
    opening: str | None = None  # the message that people know it by
    group: str | None = None  # the message about several by which they do where none is its own
    also: tuple[str, ...] = ()  # others that opened it too, while nobody could look it up
    news: bool = False  # a finding that was not told yet
    steadied: bool = False  # no longer flapping, which was not told yet
    announced: bool = False  # that it flaps
    updated_at: datetime | None = None
    outdated: bool = False  # what people were shown of it
    acknowledged_by: str | None = None
    acknowledged_at: datetime | None = None
    unanswered_since: datetime | None = None  # told as CRITICAL
    escalated: int = 0  # steps since somebody or nobody answered
    reached: int = 0  # steps whose channels heard of it
    messages: int = 0  # of this episode
    unsent: tuple[Alert, ...] = ()

    @property
    def level(self) -> Severity:
        """How urgent it is."""
        return self.alert.level

    @property
    def goes_on(self) -> bool:
        """Whether it is open, or people still think so."""
        return self.open or self.told_open

    @property
    def told_severity(self) -> Severity:
        """The most urgent it was told as."""
        return max(self.told, key=lambda severity: severity.rank, default=self.level)

    @property
    def urgent(self) -> bool:
        """Whether it waits for nothing."""
        return self.level is Severity.CRITICAL

    def to_document(self) -> dict[str, Any]:
        """The incident as plain JSON values."""
        known: dict[str, Any] = plain(
            {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("alert", "unsent")}
        )
        unsent = [alert.to_document() for alert in self.unsent]
        return {**known, "alert": self.alert.to_document(), "unsent": unsent, "created_at": str(self.opened_at)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Incident:
        """The inverse of `to_document`; what only a newer version knows is left out.

        Raises LookupError, TypeError, ValueError or AttributeError where it is none.
        """
        known = {f.name: document[f.name] for f in fields(cls) if f.name in document}
        for f in fields(cls):
            if f.type in ("str", "bool", "int") and type(known.get(f.name, f.default)).__name__ != f.type:
                raise TypeError(f"{f.name} is {known.get(f.name)!r:.40}")
            if f.type == "str | None" and not isinstance(known.get(f.name), str | None):
                raise TypeError(f"{f.name} is {known[f.name]!r:.40}")
            if f.type == "datetime" and not known[f.name]:
                raise TypeError(f"{f.name} is {known[f.name]!r:.40}")
        for name in known.keys() & MOMENTS:
            known[name] = _moment(known[name])
        if not all(isinstance(key, str) for key in document.get("also", ())):
            raise TypeError(f"also is {document['also']!r:.40}")
        return cls(
            **known
            | {
                "alert": Alert.from_document(document["alert"]),
                "unsent": tuple(Alert.from_document(alert) for alert in document["unsent"]),
                "openings": tuple(filter(None, map(_moment, document["openings"]))),
                "findings": {about: _moment(gone) for about, gone in document["findings"].items()},
                "also": tuple(document.get("also", ())),
                "told": tuple(Severity(level) for level in document.get("told", ())),
            }
        )


def unsettled(document: Mapping[str, Any]) -> bool:
    """Whether something may come of an incident by itself."""
    return bool(document["open"] or document["told_open"] or document["unsent"])


MOMENTS = {"opened_at", "changed_at", "seen_at", "held_until", "told_at", "updated_at", "acknowledged_at",
           "unanswered_since"}  # fmt: skip


def _moment(text: str | None) -> datetime | None:
    moment = datetime.fromisoformat(text) if text else None
    if moment and moment.tzinfo is None:
        raise ValueError(f"{text} says no time zone")
    return moment
