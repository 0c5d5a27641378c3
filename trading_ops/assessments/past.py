"""What was decided before, what was tried of it, and since when is a retrain held back?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

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
        body = record.body
        retrained = body.get("source") == source and body["decision"]["action"] == "retrain"
        if retrained and body["evidence"]["present"]:
            tried = found.setdefault(body["decision_id"], Try())
            tried.decided.append(datetime.fromisoformat(body["evidence"]["as_of"]))
    for record in store.read(RETRAINS, first=first):
        body = record.body
        told = body.get("at") or (body.get("holdout") or ["", ""])[1]
        at = datetime.fromisoformat(told) if told else midnight(record.partition)
        found.setdefault(body["trigger"]["decision"], Try()).recorded.append(at)
    return list(found.values())


def attempts(known: Sequence[Try], as_of: datetime) -> Attempts:
    """A decision counts once, when it was last tried before `as_of`."""
    times = (tried.last(as_of) for tried in known)
    last = [at for at in times if at is not None and at > as_of - PAST_DAYS * ONE_DAY]
    return Attempts(
        hours_since_last=round((as_of - max(last)).total_seconds() / 3600, 4) if last else None,
        last_7_days=sum(as_of - at < WEEK * ONE_DAY for at in last),
    )


def vetoed_since(decided: Mapping[str, Record], day: str) -> str | None:
    """The first of the unbroken days up to the one before, on which GPT-4 held back what was due."""
    since = None
    for back in range(1, PAST_DAYS + 1):
        before = str(date.fromisoformat(day) - back * ONE_DAY)
        decision = decided[before].body["decision"] if before in decided else {"due": False}
        held = decision["due"] and (decision["gpt_vetoes"] or decision["veto_expired"])
        if not held or decision["action"] == "retrain":
            break
        since = before
    return since
