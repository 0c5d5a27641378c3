"""What was decided before, what was tried of it, and since when is a retrain held back?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

from trading_ops.assessments.evidence import Attempts
from trading_ops.audit.store import AuditStore, Record
from trading_ops.performance.trades import midnight

COLLECTION = "gpt4_analysis_history"
RETRAINS = "retrain_history"
ONE_DAY = timedelta(days=1)
WEEK = 7
PAST_DAYS = 14  # what was tried or held back longer ago keeps nothing from being done
LAUNCHED_WITHIN = ONE_DAY  # of a decision: the sensor launches those of the newest day alone


@dataclass(slots=True)
class Try:
    """A decision to retrain: when it was decided, in the present, and when its retrains were recorded."""

    decided: list[datetime] = field(default_factory=list)
    recorded: list[datetime] = field(default_factory=list)

    def last(self, as_of: datetime) -> datetime | None:
        """When it was last tried before `as_of`, whatever came of it; None where nothing was, nor can be any more."""
        known = [at for at in self.recorded if at <= as_of]
        known += [at for at in self.decided if at <= as_of < at + LAUNCHED_WITHIN]
        return max(known, default=None)


def long_before(day: str) -> str:
    """The day of the oldest record that counts; what is done about a day may come one day after it."""
    return str(date.fromisoformat(day) - (PAST_DAYS + 2) * ONE_DAY)


def tries(store: AuditStore, day: str, source: str) -> list[Try]:
    """Each decision of this bot's that may count on `day` or later, and each retrain by hand."""
    first = long_before(day)
    found: dict[str, Try] = {}
    for record in store.read(COLLECTION, first=first, all_revisions=True):
        if record.body.get("source") == source and (at := retrain_decided_at(record.body)) is not None:
            found.setdefault(str(record.body.get("decision_id")), Try()).decided.append(at)
    for record in store.read(RETRAINS, first=first):
        told = record.body.get("at") or (record.body.get("holdout") or ["", ""])[1]
        decision = part_of(record.body, "trigger").get("decision", record.key)  # another program may have written it
        found.setdefault(str(decision), Try()).recorded.append(_moment(told) or midnight(record.partition))
    return list(found.values())


def retrain_decided_at(body: Mapping[str, Any]) -> datetime | None:
    """When a recorded day was decided in the present, if it was to retrain; None otherwise."""
    evidence = part_of(body, "evidence")
    if part_of(body, "decision").get("action") != "retrain" or not evidence.get("present"):
        return None
    return _moment(evidence.get("as_of"))


def part_of(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A part of a recorded document; an empty one where that is none."""
    part = body.get(name)
    return part if isinstance(part, dict) else {}


def _moment(told: Any) -> datetime | None:
    """An aware time from ISO text; None for anything else."""
    try:
        at = datetime.fromisoformat(told)
    except (TypeError, ValueError):
        return None
    return at if at.tzinfo is not None else None


def attempts(known: Sequence[Try], as_of: datetime, *, under_way: bool = False) -> Attempts:
    """A decision counts once, when it was last tried before `as_of`; a retrain that is under way is tried now."""
    times = (tried.last(as_of) for tried in known)
    last = [at for at in times if at is not None and at > as_of - PAST_DAYS * ONE_DAY]
    if under_way and not any(as_of - at < LAUNCHED_WITHIN for at in last):
        last.append(as_of)
    return Attempts(
        hours_since_last=round((as_of - max(last)).total_seconds() / 3600, 4) if last else None,
        last_7_days=sum(as_of - at < WEEK * ONE_DAY for at in last),
    )


def vetoed_since(decided: Mapping[str, Record], day: str) -> str | None:
    """The first of the unbroken days up to the one before, on which GPT-4 held back what was due, or a part of it."""
    since = None
    for back in range(1, PAST_DAYS + 1):
        before = str(date.fromisoformat(day) - back * ONE_DAY)
        decision = decided[before].body["decision"] if before in decided else {}
        held = decision.get("due") and (decision.get("gpt_vetoes") or decision.get("veto_expired"))
        if not held or (decision.get("action") == "retrain" and not decision.get("gpt_vetoes")):
            break
        since = before
    return since
