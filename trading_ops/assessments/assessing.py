"""What was asked, answered and decided on a day? The document that a decision is replayed from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from trading_ops.assessments.decision import Decision, decide
from trading_ops.assessments.evidence import Evidence, digest_of
from trading_ops.assessments.prompt import Prompt, build_prompt
from trading_ops.assessments.rules import Limits, skipped
from trading_ops.assessments.schema import Assessment
from trading_ops.costs.usage import COLLECTION as LEDGER

if TYPE_CHECKING:
    from trading_ops.assessments.gpt4 import Consultation
    from trading_ops.audit.store import AuditStore

PURPOSE = "gpt4_assessment"
Consult = Callable[[Prompt, str], "Consultation"]  # the prompt, and what the call is for


def assess(evidence: Evidence, consult: Consult, limits: Limits = Limits()) -> dict[str, Any]:
    """Ask GPT-4 where there is something to ask, decide, and put down all that led to it.

    `outcome`: asked (a valid reply), skipped (nobody was asked), unavailable (there was no valid reply).
    """
    why = skipped(evidence, limits)
    prompt = build_prompt(evidence) if why is None else None
    attempts: tuple[dict[str, Any], ...] = ()
    if prompt is None:
        opinion = Assessment.none(f"not asked: {why}")
    else:
        consultation = consult(prompt, f"{PURPOSE}/{evidence.day}")
        opinion, attempts = consultation.assessment, consultation.attempts
    decision = decide(evidence, opinion, limits)
    return {
        "day": evidence.day,
        "candles": evidence.candles,
        "outcome": outcome_of(opinion, asked=prompt is not None),
        "decision_id": decision_id(evidence, opinion, decision),
        "decision": decision.document,
        "opinion": opinion.model_dump(mode="json"),
        "evidence": evidence.model_dump(mode="json"),
        "evidence_digest": evidence.digest,
        "prompt": None if prompt is None else asdict(prompt),
        "attempts": list(attempts),
        "cost_usd": sum(attempt.get("cost_usd") or 0.0 for attempt in attempts),
        "tokens": tokens_of(attempts),
        "limits": asdict(limits),
    }


def paid_reply(store: AuditStore, day: str, model: str, prompt_sha256: str) -> str | None:
    """The model's valid reply to this very prompt, paid for since the end of `day` by a run that was killed."""
    for record in store.read(LEDGER, first=day):
        call = record.body
        if (call.get("prompt_sha256"), call.get("model"), call.get("outcome")) == (prompt_sha256, model, "ok"):
            return (call.get("detail") or {}).get("raw")
    return None


def decision_id(evidence: Evidence, opinion: Assessment, decision: Decision) -> str:
    """The day and ten digits of the digest of what was seen, said and decided."""
    said = [evidence.digest, opinion.model_dump(mode="json"), decision.document]
    return f"{evidence.day}-{digest_of(said)[:10]}"


def stands(document: Mapping[str, Any] | None, *, present: bool, forced: bool) -> bool:
    """Whether a recorded decision is the day's. Of a day that is `present` it must have been made in the present, on
    complete evidence; forced, with an opinion too."""
    if document is None:
        return False
    if present and (document["evidence"]["missing"] or not document["evidence"]["present"]):
        return False
    return not forced or document["outcome"] == "asked"


def outcome_of(opinion: Assessment, *, asked: bool) -> str:
    """asked, skipped or unavailable, as `assess` tells."""
    if not asked:
        return "skipped"
    return "asked" if opinion.unavailable is None else "unavailable"


def tokens_of(attempts: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The tokens of all attempts, by class."""
    total: dict[str, int] = {}
    for attempt in attempts:
        for name, count in (attempt.get("tokens") or {}).items():
            total[name] = total.get(name, 0) + count
    return total
