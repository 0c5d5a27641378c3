"""May the models be retrained, and is it due? What the figures alone say, without GPT-4."""

from __future__ import annotations

from dataclasses import dataclass

from trading_ops.assessments.evidence import Evidence, Model
from trading_ops.performance.verdict import READ


@dataclass(frozen=True, slots=True)
class Limits:
    """When a retrain is allowed, when it is due, and how sure GPT-4 must be; each strictly, but for the counts.

    `hours_between` and `new_bars` are reached at their value; `most_in_7_days` is allowed, one more is not.
    """

    confidence: float = 0.70
    hours_between: float = 72.0
    most_in_7_days: int = 2
    new_bars: int = 168
    losing_days: int = 3
    win_rate_pct: float = 55.0
    sharpe: float = 1.0
    drop_pp: float = 5.0
    model_age_days: float = 30.0
    veto_days: int = 7
    min_trades: int = 10


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a retrain is due, in words, and the models it is about; none: all that a strategy uses, or all there are."""

    rule: str
    why: str
    models: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ruling:
    """`blocked`: why no retrain is allowed now, in words. `due`: the causes. `aged`: models too old, whoever vetoes."""

    blocked: tuple[str, ...]
    due: tuple[Cause, ...]
    aged: tuple[Cause, ...]

    @property
    def allowed(self) -> bool:
        return not self.blocked


def judge(evidence: Evidence, limits: Limits = Limits()) -> Ruling:
    """The rules on their own (DESIGN.md, Retrain): allowed, due, and the models that are simply old."""
    return Ruling(
        tuple(_blocked(evidence, limits)),
        tuple(cause for cause in (_losing_days(evidence, limits), *_confirmed(evidence), *_of_models(evidence, limits))
              if cause is not None),
        tuple(
            Cause("model_age", f"{model.name} is {model.age_days:.1f} days old, more than {limits.model_age_days:g}",
                  (model.name,))
            for model in evidence.models
            if model.age_days > limits.model_age_days
        ),
    )  # fmt: skip


def skipped(evidence: Evidence, limits: Limits = Limits()) -> str | None:
    """Why GPT-4 is not asked about this day; None where it is.

    A forced analysis asks in any case. Otherwise it takes 10 trades in the seven days, and a win rate or a Sharpe ratio
    below its critical limit; an unknown ratio is not bad.
    """
    current = evidence.current
    if not evidence.present:
        return "a past day: GPT-4 is asked about the present one alone"
    if evidence.forced or current is None:
        return None
    trades = current.window_trades
    if trades is None:
        return f"the metrics of {current.day} are missing"
    if trades < limits.min_trades:
        return f"not enough data: {trades} closed trades in 7 days, {limits.min_trades} are needed"
    win_rate, sharpe = current.window_win_rate_pct, current.window_sharpe_ratio
    if (win_rate is None or win_rate >= limits.win_rate_pct) and (sharpe is None or sharpe >= limits.sharpe):
        said = [] if win_rate is None else [f"win rate {win_rate:.1f} %"]
        said += [] if sharpe is None else [f"Sharpe {sharpe:.2f}"]
        return f"performance acceptable: {', '.join(said) or 'no metric is known to be bad'}"
    return None


def targets(evidence: Evidence, causes: tuple[Cause, ...], limits: Limits) -> tuple[str, ...]:
    """The models to train anew for these causes, each with new bars enough, by name.

    A cause that names none is about the models that strategies use; where none is linked, about all that are deployed;
    where none is deployed either, about an lstm of each symbol.
    """
    known = {model.name: model for model in evidence.models}
    wanted: set[str] = set()
    for cause in causes:
        wanted.update(cause.models or everyone(evidence))
    return tuple(sorted(name for name in wanted if _has_bars(known.get(name), limits)))


def everyone(evidence: Evidence) -> tuple[str, ...]:
    """The models strategies use, else all that are deployed, else an lstm of each symbol."""
    linked = {name for names in evidence.links.values() for name in names}
    return tuple(sorted(linked or {model.name for model in evidence.models})) or tuple(
        f"lstm/{market.symbol}" for market in evidence.market
    )


def _has_bars(model: Model | None, limits: Limits) -> bool:
    return model is None or model.new_bars >= limits.new_bars


def _blocked(evidence: Evidence, limits: Limits) -> list[str]:
    found = [f"{what} is missing" for what in evidence.missing]
    since, recent = evidence.attempts.hours_since_last, evidence.attempts.last_7_days
    if since is not None and since < limits.hours_between:
        found.append(f"the last retrain was {since:.1f} h ago, {limits.hours_between:g} h must lie between")
    if recent >= limits.most_in_7_days:
        found.append(f"{recent} retrains in the last 7 days, at most {limits.most_in_7_days} are allowed")
    known = {model.name for model in evidence.models}
    bars = max((model.new_bars for model in evidence.models), default=0)
    if known and known.issuperset(everyone(evidence)) and bars < limits.new_bars:
        found.append(f"{bars} new bars since the models were trained, {limits.new_bars} are needed")
    if not evidence.trainable and not evidence.models and not evidence.links:
        found.append("no model is deployed, no strategy names one, and training is not installed (make ml)")
    return found


def _losing_days(evidence: Evidence, limits: Limits) -> Cause | None:
    traded = [day for day in evidence.days if day.trades][-limits.losing_days :]
    if len(traded) < limits.losing_days or any((day.win_rate_pct or 0.0) >= limits.win_rate_pct for day in traded):
        return None
    rates = ", ".join(f"{day.win_rate_pct or 0.0:.0f} %" for day in traded)
    return Cause("losing_days", f"{limits.losing_days} days with trades below {limits.win_rate_pct:g} % wins: {rates}")


def _confirmed(evidence: Evidence) -> list[Cause]:
    return [
        Cause(
            "critical_metric",
            f"{breach.strategy}: {READ[breach.metric][0]} {breach.value:.2f}{READ[breach.metric][1]}"
            f" below {breach.limit:g}, confirmed",
            evidence.links.get(breach.strategy, ()),
        )
        for breach in evidence.breaches
        if breach.confirmed
    ]


def _of_models(evidence: Evidence, limits: Limits) -> list[Cause]:
    found = []
    for model in evidence.models:
        if model.drop_7d_pp is not None and round(model.drop_7d_pp, 9) > limits.drop_pp:
            fell = f"accuracy of {model.name} fell by {model.drop_7d_pp:.1f} points, more than {limits.drop_pp:g}"
            found.append(Cause("accuracy_drop", fell, (model.name,)))
        if model.drift:
            found.append(Cause("drift", f"the errors of {model.name} drifted upwards", (model.name,)))
    return found
