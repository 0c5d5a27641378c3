"""Is a model trained anew better than the champion? Trained, checked for leaks, judged, and promoted only then."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from trading_ops.audit.store import AuditStore, Entry
from trading_ops.training.request import InvalidRequest, TrainingRequest
from trading_ops.training.saying import same_market
from trading_ops.training.train import Holdout, Trained, Workshop, holdout_of, learn, train

if TYPE_CHECKING:
    from trading_ops.market.candles import CandleSource
    from trading_ops.training.card import Card
    from trading_ops.training.preparation import Prepared
    from trading_ops.training.promotion import Verdict
    from trading_ops.training.registry import Registry
    from trading_ops.training.samples import Samples
    from trading_ops.training.splits import Split
    from trading_ops.training.trainer import Progress

COLLECTION = "retrain_history"
BY = "adaptive_retrain"
REAL = "recorded"
_log = logging.getLogger(__name__)
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
    learnt = _usable(registry, registry.champion_id(name))
    request = request_for(name, learnt, changes or {})
    prepared = prepare(request, request.symbols[0], source)
    trained = train(prepared, workshop, parent=learnt.model_id if learnt else None, progress=progress)
    challenger = trained.card.model_id
    before = registry.champion_id(name)  # the one it is compared with is the one it replaces, whoever came meanwhile
    scores: dict[str, Any] = {}
    verdict: dict[str, Any] = {}
    why_not: str | None = None
    if (change := _promoted(registry, store, name, challenger, trigger)) is not None:
        verdict, before = change["verdict"], change["replaced"]
    elif challenger == before:
        why_not = "the champion is this very model: the same candles, code, parameters and seed"
    elif (why_not := _made_up(registry, before, prepared.label)) is None:
        looks = registry.look(name, prepared.holdout, prepared.end, key=challenger)
        found, scores = judged(prepared, trained, _usable(registry, before), workshop, looks)
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
        "scores": scores,
        "holdout": [prepared.holdout.isoformat(), prepared.end.isoformat()],
        "cost_cpu_s": trained.card.cost_cpu_s,
        "candles": prepared.label,
    }
    keep(store, trigger, document, prepared.end)
    return document


def _usable(registry: Registry, model_id: str | None) -> Card | None:
    """That champion's card, None where there is none or it cannot be used: then it predicts nothing to defend."""
    from trading_ops.training.model import InvalidModel
    from trading_ops.training.model_files import DamagedModel, UnknownModel

    if model_id is None:
        return None
    try:
        card = registry.card(model_id)
        registry.model(model_id)._network.eval()  # built: weights of another version's network are no model any more
    except (DamagedModel, UnknownModel, InvalidModel) as error:
        _log.warning("the champion %s cannot be used: %s", model_id, error)
        return None
    return card


def _promoted(
    registry: Registry, store: AuditStore, name: str, challenger: str, trigger: Trigger
) -> Mapping[str, Any] | None:
    """The change by which this decision made the challenger champion, of a run that was killed before it recorded that.

    It counts also where a person went back since: what was decided once is not decided again.
    """
    changes: list[Mapping[str, Any]] = [record.body for record in store.read("promotions")]
    if registry.champion_id(name) is not None:
        changes.append(registry.last_change(name))  # the record of it may still be missing
    for change in reversed(changes):
        decision = (change.get("verdict") or {}).get("decision")
        done = (change["kind"], change["name"], change["model_id"], decision)
        if done == ("promote", name, challenger, trigger.decision):
            return change
    return None


def _made_up(registry: Registry, champion: str | None, label: str) -> str | None:
    """Why a challenger of candles with that label may not replace this champion, whatever it scores on them."""
    from trading_ops.training.model_files import DamagedModel, UnknownModel

    if champion is None or same_market(label, REAL):
        return None
    try:
        learnt = registry.card(champion).candles
    except (DamagedModel, UnknownModel):
        return None
    if not same_market(learnt, REAL):
        return None
    return (
        f"it learnt from {label} candles and the champion from {learnt} ones, whose market it does not know; "
        "a retrain on recorded candles would be right"
    )


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
    """Store a model's document under the UTC day of `moment`, the end of its candles or the bot's present."""
    document["at"] = moment.isoformat()
    store.append(COLLECTION, [Entry(moment.date().isoformat(), _key(trigger, document["name"]), document)])


def _key(trigger: Trigger, name: str) -> str:
    return f"{trigger.decision}/{name}"


def judged(
    prepared: Prepared, trained: Trained, champion: Card | None, workshop: Workshop, looks: int
) -> tuple[Verdict, dict[str, Any]]:
    """Challenger against champion on the same windows, none of which either was trained on; and the scores of each.

    A champion that was made for other features or another horizon cannot predict any more and defends nothing, and
    nor does one of another market, such as a simulated one.
    """
    from trading_ops.accuracy.scoring import score
    from trading_ops.training.promotion import judge

    card, held = trained.card, trained.holdout
    said = {"challenger": held.probabilities}
    age = None
    if champion is not None and _shape(champion) == _shape(card) and same_market(champion.candles, prepared.label):
        since = champion.trained_until + timedelta(hours=champion.horizon_hours)
        held = holdout_of(prepared, trained.model, since)
        theirs = workshop.registry.model(champion.model_id).probabilities(held.samples, held.rows)
        said = {"challenger": held.probabilities, "champion": theirs}
        age = champion.age_days(prepared.end)
    verdict = judge(
        held.probabilities,
        said.get("champion"),
        held.outcomes,
        held.decided_us,
        base_rate=card.base_rate,
        looks=looks,
        champion_age_days=age,
    )
    scores = {who: score(p, held.outcomes, reference=card.base_rate) for who, p in said.items()}
    return verdict, {who: found and asdict(found) for who, found in scores.items()}


def _shape(card: Card) -> tuple[Any, ...]:
    return card.features, card.lookback, card.horizon_hours


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
