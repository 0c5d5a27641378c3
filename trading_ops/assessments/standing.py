"""From which day on does GPT-4's word count, or no longer? Noted down when it changes."""

from __future__ import annotations

from datetime import date

from trading_ops.assessments.calibration import read_calibration
from trading_ops.assessments.evidence import Adviser
from trading_ops.assessments.past import ONE_DAY
from trading_ops.audit.store import AuditStore, Entry, Record

STANDINGS = "adviser_standings"


def adviser_on(store: AuditStore, source: str, day: str) -> Adviser:
    """What GPT-4's word counts for on a day, by what is recorded up to the day before; a change is noted down.

    Raises StoreUnavailable.
    """
    adviser = read_calibration(store, source, str(date.fromisoformat(day) - ONE_DAY)).adviser()
    record_standing(store, source, day, adviser)
    return adviser


def record_standing(store: AuditStore, source: str, day: str, adviser: Adviser) -> bool:
    """Note down the standing of this bot's adviser where it is another than before; whether it was noted.

    Before the first note its word counts. Raises StoreUnavailable.
    """
    known = last_standing(store, source)
    before = Adviser().standing if known is None else known.body["standing"]
    if adviser.standing == before:
        return False
    body = {"day": day, "source": source, "before": before, **adviser.model_dump(mode="json")}
    store.append(STANDINGS, [Entry(day, source, body)])
    return True


def last_standing(store: AuditStore, source: str) -> Record | None:
    """The last change, None where there was none. Raises StoreUnavailable."""
    return max(store.read(STANDINGS, key=source), key=lambda record: record.seq, default=None)
