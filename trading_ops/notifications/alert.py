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


@dataclass(frozen=True, slots=True)
class Alert:
    """One message to people: what happened, why it matters, what to do.

    `dedup_key` names the thing told about; the outbox tells each key once. `day` is the UTC day concerned, `numbers`
    the figures behind it (plain JSON values).
    """

    severity: Severity
    dedup_key: str
    what: str
    why: str
    what_to_do: str
    day: str | None = None
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The key also names documents: a file's name in it may be no text that a store can compare.
        object.__setattr__(self, "dedup_key", plain(self.dedup_key).replace("\0", "\\0"))

    def to_document(self) -> dict[str, Any]:
        """The alert as plain JSON values."""
        return {
            "severity": str(self.severity),
            "dedup_key": self.dedup_key,
            "what": plain(self.what),
            "why": plain(self.why),
            "what_to_do": plain(self.what_to_do),
            "day": plain(self.day),
            "numbers": plain(self.numbers),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Alert:
        """The inverse of `to_document`; of what only a newer version knows, a level stays and a field is left out."""
        level = document["severity"]
        known = {field.name: document[field.name] for field in fields(cls) if field.name in document}
        return cls(**{**known, "severity": Severity(level) if level in set(Severity) else level})
