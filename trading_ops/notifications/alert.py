"""What is one thing people must hear about?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from trading_ops.audit.plain import plain


class Severity(StrEnum):
    """How urgent an alert is, in rising order."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"

    @property
    def rank(self) -> int:
        return list(Severity).index(self)


def known_level(level: str) -> Severity:
    return Severity(level) if level in set(Severity) else Severity.CRITICAL


class Step(StrEnum):
    """What a message says about its incident: it began, went on, waits for somebody, ended."""

    OPENED = "opened"
    UPDATED = "updated"  # nothing that must be heard anew: the channels that can show it in the opening message
    REMINDED = "reminded"
    ESCALATED = "escalated"
    RESOLVED = "resolved"
    SEVERAL = "several"  # not one but some incidents that began together
    GROUPED = "grouped"  # it began, as one of several: for channels that page for each by itself


_KINDS: dict[str, Any] = {"str": str, "str | None": str | None, "int": int, "Mapping[str, Any]": Mapping}


@dataclass(frozen=True, slots=True)
class Alert:
    """One message to people: what happened, why it matters, what to do.

    `dedup_key` names the message; the outbox tells each key once. `day` is the UTC day concerned, `numbers` the figures
    behind it (plain JSON values), `done` what was done about it already, `link` where to look.

    `incident`: what and where (`performance_metrics/win_rate_on_target`), None for a message of its own such as a daily
    report; `step` is what this message says about it, `opening` the dedup key of the message that opened it (None:
    this one), `group` that of the message about several which told its beginning (None: none did), `also` those of
    others that opened it while nobody could look it up, `since` when it began (ISO, UTC), `escalation` how often nobody
    answered, `told` the severities as which it was told before. `picture` is what to draw: see notifications.picture.
    """

    severity: Severity
    dedup_key: str
    what: str
    why: str
    what_to_do: str
    day: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)
    done: str = ""
    link: str | None = None
    incident: str | None = None
    step: Step = Step.OPENED
    opening: str | None = None
    group: str | None = None
    also: tuple[str, ...] = ()
    since: str | None = None
    escalation: int = 0
    told: tuple[Severity, ...] = ()
    picture: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        # The key also names documents: a file's name in it may be no text that a store can compare.
        for name in ("dedup_key", "incident", "opening", "group"):
            if (key := getattr(self, name)) is not None:
                object.__setattr__(self, name, plain(key).replace("\0", "\\0"))

    @property
    def level(self) -> Severity:
        """How urgent it is; a level that only a newer version knows counts as the highest."""
        return known_level(self.severity)

    def to_document(self) -> dict[str, Any]:
        """The alert as plain JSON values."""
        known = {field.name: plain(getattr(self, field.name)) for field in fields(self)}
        return {**known, "severity": str(self.severity), "step": str(self.step)}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Alert:
        """The inverse of `to_document`; of what only a newer version knows, a level stays and a field is left out.

        Raises LookupError, TypeError, ValueError or AttributeError where it is none.
        """
        level = document["severity"]
        known = {field.name: document[field.name] for field in fields(cls) if field.name in document}
        known["severity"] = Severity(level) if level in set(Severity) else level
        known["also"] = tuple(known.get("also", ()))
        known["told"] = tuple(known_level(told) for told in known.get("told", ()))
        step = known.get("step", Step.OPENED)
        known["step"] = Step(step) if step in set(Step) else Step.UPDATED
        alert = cls(**known)
        for one in fields(cls):
            if not isinstance(value := getattr(alert, one.name), _KINDS.get(str(one.type), object)):
                raise TypeError(f"{one.name} is {value!r:.40}, not {one.type}")
        if not all(isinstance(key, str) for key in alert.also):
            raise TypeError(f"also is {alert.also!r:.40}, not texts")
        return alert
