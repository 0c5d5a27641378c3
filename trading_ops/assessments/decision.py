"""Are the models retrained? What the rules allow, what they call due, and what GPT-4 says, in one decision."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import date
from typing import Any

from trading_ops.assessments.evidence import Evidence
from trading_ops.assessments.rules import Cause, Limits, Ruling, judge, targets
from trading_ops.assessments.schema import Assessment

URGENT = ("medium", "high")
ACTS = ("model_age", "gpt", "due")  # the rules that retrain
SETTING = "TRADING_OPS_STRATEGY_MODELS"
GENERAL = Cause("gpt", "")  # what GPT-4 says is about no model in particular


@dataclass(frozen=True, slots=True)
class Decision:
    """`action` is retrain, wait or optimize_parameters (which is told to people and launches nothing).

    `rule` is what settled it: blocked, model_age, gpt, due, veto or nothing. `decided_by`: gpt where it would have been
    another decision without GPT-4's word, rules, or rules (why) where GPT-4 gave no word that counts. `agreed`: whether
    both say the same of a retrain, None without an opinion. `models` are those to train anew.
    """

    action: str
    rule: str
    why: str
    decided_by: str
    models: tuple[str, ...]
    allowed: bool
    blocked: tuple[str, ...]
    due: bool
    due_because: tuple[str, ...]
    aged: tuple[str, ...]
    gpt_says_retrain: bool
    gpt_vetoes: bool
    veto_expired: bool
    rules_alone: str
    agreed: bool | None
    notes: tuple[str, ...]

    @property
    def retrain(self) -> bool:
        return self.action == "retrain"

    @property
    def document(self) -> dict[str, Any]:
        """As JSON values."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}


def decide(evidence: Evidence, assessment: Assessment, limits: Limits = Limits()) -> Decision:
    """act = allowed and (a model is older than 30 days, or GPT-4 says retrain, or (due and no veto)).

    GPT-4 says retrain with a confidence strictly above 0.70 and an urgency of medium or high; with the same confidence
    in anything else it holds back what is merely due, for 7 days at most. No reply, and an adviser whose confidence did
    not come true, do neither. Source: DESIGN.md section 4, Retrain.
    """
    ruling = judge(evidence, limits)
    heard = assessment.unavailable is None and evidence.adviser.standing == "deciding"
    sure = heard and assessment.confidence > limits.confidence
    says = sure and assessment.recommendation == "retrain" and assessment.urgency in URGENT
    holds = sure and assessment.recommendation != "retrain"
    expired = holds and _veto_is_over(evidence, limits)
    vetoes = holds and not expired
    able = _with_bars(ruling, evidence, limits) if ruling.allowed else ruling
    due = () if vetoes and able.aged else able.due  # an old model takes no other along that is held back
    models = targets(evidence, (*able.aged, *due) or (GENERAL,) * says, limits)
    if ruling.allowed and not models and (ruling.aged or ruling.due or says):
        able = replace(ruling, blocked=(f"the models in question have less than {limits.new_bars} new bars",))
    rule, why = _settled(able, assessment, says=says, vetoes=vetoes)
    alone = _settled(able, assessment, says=False, vetoes=False)[0]
    retrain, without = rule in ACTS, alone in ACTS
    moved = retrain != without or (retrain and models != targets(evidence, (*able.aged, *able.due), limits))
    suggests = sure and assessment.recommendation == "optimize_parameters"
    return Decision(
        action="retrain" if retrain else "optimize_parameters" if suggests else "wait",
        rule=rule,
        why=why,
        decided_by="gpt" if moved else _rules(evidence, assessment),
        models=models if retrain else (),
        allowed=able.allowed,
        blocked=able.blocked,
        due=bool(ruling.due),
        due_because=tuple(cause.why for cause in ruling.due),
        aged=tuple(cause.why for cause in ruling.aged),
        gpt_says_retrain=says,
        gpt_vetoes=vetoes,
        veto_expired=expired,
        rules_alone="retrain" if without else "wait",
        agreed=None if assessment.unavailable is not None else (assessment.recommendation == "retrain") == without,
        notes=tuple(_notes(evidence)) if retrain else (),
    )


def _with_bars(ruling: Ruling, evidence: Evidence, limits: Limits) -> Ruling:
    """The ruling without the causes whose models have too few new bars."""

    def able(causes: tuple[Cause, ...]) -> tuple[Cause, ...]:
        return tuple(cause for cause in causes if targets(evidence, (cause,), limits))

    return replace(ruling, due=able(ruling.due), aged=able(ruling.aged))


def _settled(ruling: Ruling, assessment: Assessment, *, says: bool, vetoes: bool) -> tuple[str, str]:
    """The rule that fires, and why in words."""
    due = "; ".join(cause.why for cause in ruling.due)
    aged = "; ".join(cause.why for cause in ruling.aged)
    said = f"GPT-4 says {assessment.recommendation} with confidence {assessment.confidence:.2f}"
    if not ruling.allowed:
        wanted = aged or due or (said if says else "")
        return "blocked", f"not allowed: {'; '.join(ruling.blocked)}{f' (otherwise: {wanted})' if wanted else ''}"
    if aged:
        return "model_age", aged
    if says:
        return "gpt", f"{said}, urgency {assessment.urgency}{f'; also due: {due}' if due else ''}"
    if due and vetoes:
        return "veto", f"{said}, which holds back what is due: {due}"
    if due:
        return "due", due
    return "nothing", "nothing is due"


def _notes(evidence: Evidence) -> list[str]:
    if not evidence.links:
        return [f"no strategy names a model it uses ({SETTING}): retraining may not help"]
    failing = {breach.strategy for breach in evidence.breaches if breach.confirmed}
    return [
        f"{strategy} names no model it uses ({SETTING}): retraining may not help it"
        for strategy in sorted(failing - evidence.links.keys())
    ]


def _rules(evidence: Evidence, assessment: Assessment) -> str:
    if assessment.unavailable is not None:
        return f"rules ({assessment.unavailable})"
    if evidence.adviser.standing != "deciding":
        return "rules (GPT-4 is advisory)"
    return "rules"


def _veto_is_over(evidence: Evidence, limits: Limits) -> bool:
    if evidence.vetoed_since is None:
        return False
    held = date.fromisoformat(evidence.day) - date.fromisoformat(evidence.vetoed_since)
    return held.days >= limits.veto_days
