"""Is a model trained anew better than the champion? Trained, checked for leaks, judged, and promoted only then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import AuditStore, Entry
from trading_ops.training.request import InvalidRequest, TrainingRequest
from trading_ops.training.train import Holdout, Trained, Workshop, holdout_of, learn, train

if TYPE_CHECKING:
    from trading_ops.market.candles import CandleSource
    from trading_ops.training.card import Card
    from trading_ops.training.preparation import Prepared
    from trading_ops.training.promotion import Verdict
    from trading_ops.training.samples import Samples
    from trading_ops.training.splits import Split
    from trading_ops.training.trainer import Progress

COLLECTION = "retrain_history"
BY = "adaptive_retrain"
CANARY_EPOCHS = 5


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why it is trained anew: by whose decision (an assessment's id, or a person's), and their reason."""

    decision: str
    reason: str
    by: str = BY


def request_for(name: str, champion: Card | None, changes: dict[str, Any]) -> TrainingRequest:
    """What the champion was trained with, and `changes`. Raises InvalidRequest for a name that is none."""
    model_type, slash, symbol = name.partition("/")
    if not (slash and symbol) or "," in symbol:
        raise InvalidRequest(f"model {name!r}: a type and a symbol, such as lstm/BTCUSDT, would be right")
    kept = {key: value for key, value in (champion.parameters if champion else {}).items() if key != "holdout_days"}
    return TrainingRequest.parse({**kept, "model_type": model_type, "symbol": symbol, **changes})


def retrain(
    name: str,
    trigger: Trigger,
    source: CandleSource,
    workshop: Workshop,
    store: AuditStore,
    *,
    changes: dict[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """One model: its document, as stored in `retrain_history` under <decision>/<name>.

    Of a decision each model has one outcome: a run that is started again goes on with those that have none, or failed.
    Raises InvalidRequest, CandleError or TrainingFailed where there is no challenger; the champion stays then.
    """
    from trading_ops.training.preparation import prepare

    registry = workshop.registry
    if (done := _done(store, name, trigger)) is not None:
        return done
    champion = registry.champion(name)
    request = request_for(name, champion, changes or {})
    prepared = prepare(request, request.symbols[0], source)
    trained = train(prepared, workshop, parent=champion.model_id if champion else None, progress=progress)
    challenger, before = trained.card.model_id, champion.model_id if champion else None
    if challenger == before:
        change = registry.last_change(name)
        mine = (change.get("verdict") or {}).get("decision") == trigger.decision  # killed before it was recorded
        verdict = change["verdict"] if mine else {}
        before = change["replaced"] if mine else before
        why_not = None if mine else "the champion is this very model: the same candles, code, parameters and seed"
    else:
        looks = registry.look(name, prepared.holdout, prepared.end, key=challenger)
        found = judged(prepared, trained, champion, workshop, looks)
        why_not = (leak_of(prepared, workshop) if found.promote else found.reason) or None
        verdict = {**found.document, "decision": trigger.decision}
        if why_not is None:
            why = f"{trigger.reason} (decision {trigger.decision}): {found.reason}"
            registry.promote(challenger, by=trigger.by, why=why, expected=before, verdict=verdict)
    document = {
        "name": name,
        "model_type": request.model_type,
        "symbol": prepared.symbol,
        "trigger": asdict(trigger),
        "outcome": "deployed" if why_not is None else "kept",
        "deployed": why_not is None,
        "why": verdict["reason"] if why_not is None else why_not,
        "challenger": challenger,
        "champion": before,
        "verdict": verdict,
        "holdout": [prepared.holdout.isoformat(), prepared.end.isoformat()],
        "cost_cpu_s": trained.card.cost_cpu_s,
        "candles": prepared.label,
    }
    keep(store, trigger, document, prepared.end)
    return document


def _done(store: AuditStore, name: str, trigger: Trigger) -> dict[str, Any] | None:
    """What this decision came to for this model already, unless it failed."""
    records = [r.body for r in store.read(COLLECTION, key=_key(trigger, name)) if r.body["outcome"] != "failed"]
    return records[-1] if records else None


def failed(store: AuditStore, name: str, trigger: Trigger, why: str, moment: datetime) -> dict[str, Any]:
    """The document of a model that could not be trained anew; stored like the others."""
    model_type, _, symbol = name.partition("/")
    document = {
        "name": name,
        "model_type": model_type,
        "symbol": symbol,
        "trigger": asdict(trigger),
        "outcome": "failed",
        "deployed": False,
        "why": why,
    }
    keep(store, trigger, document, moment)
    return document


def keep(store: AuditStore, trigger: Trigger, document: dict[str, Any], moment: datetime) -> None:
    store.append(COLLECTION, [Entry(moment.date().isoformat(), _key(trigger, document["name"]), document)])


def _key(trigger: Trigger, name: str) -> str:
    return f"{trigger.decision}/{name}"


def judged(prepared: Prepared, trained: Trained, champion: Card | None, workshop: Workshop, looks: int) -> Verdict:
    """Challenger against champion on the same windows, none of which either was trained on.

    A champion that was made for other features or another horizon cannot predict any more and defends nothing.
    """
    from trading_ops.training.promotion import judge

    card = trained.card
    comparable = champion is not None and (champion.features, champion.lookback, champion.horizon_hours) == (
        card.features,
        card.lookback,
        card.horizon_hours,
    )
    held, theirs, age = trained.holdout, None, None
    if champion is not None and comparable:
        since = champion.trained_until + timedelta(hours=champion.horizon_hours)
        held = holdout_of(prepared, trained.model, since)
        theirs = workshop.registry.model(champion.model_id).probabilities(held.samples, held.rows)
        age = champion.age_days(prepared.end)
    return judge(
        held.probabilities,
        theirs,
        held.outcomes,
        held.decided_us,
        base_rate=card.base_rate,
        looks=looks,
        champion_age_days=age,
    )


def leak_of(prepared: Prepared, workshop: Workshop) -> str | None:
    """Why the network knows what it cannot know; None where it guesses. A few epochs are enough to tell.

    Taught shuffled labels, it would know them if it had learnt from the days kept back. Taught a market whose bars are
    shuffled, it would foretell them if a feature had seen them too early.
    """
    from trading_ops.training.canary import leaks, shuffled, shuffled_bars
    from trading_ops.training.features import samples_of
    from trading_ops.training.splits import split

    def taught(samples: Samples, parts: Split) -> Holdout:
        blind = replace(prepared, samples=samples, split=parts)
        epochs = min(CANARY_EPOCHS, prepared.request.epochs)
        return holdout_of(blind, learn(blind, samples, workshop.limits, epochs=epochs)[0])

    def labels(seed: int) -> Holdout:
        return taught(replace(prepared.samples, labels=shuffled(prepared.samples.labels, seed)), prepared.split)

    def market(seed: int) -> Holdout:
        bars = shuffled_bars(prepared.candles, seed)
        samples = samples_of(prepared.symbol, bars, horizon=prepared.request.horizon_hours)
        return taught(samples, split(samples, prepared.start, prepared.holdout, prepared.request.validation_split))

    return leaks(labels) or leaks(market, "a shuffled market")
