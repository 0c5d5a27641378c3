"""Which model predicts? `train_model`, `adaptive_retrain` and `predict_price`, on demand or by decision."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import dagster as dg
from pydantic import Field

from trading_ops.audit.store import StoreError
from trading_ops.defs.alerting import run_link
from trading_ops.defs.partitions import MAX_RUNTIME
from trading_ops.defs.presenting import table_of
from trading_ops.defs.steps import steps_executor
from trading_ops.files import FileNotWritten
from trading_ops.market.candles import CandleError
from trading_ops.services import Services
from trading_ops.training.card import MODEL_TYPES
from trading_ops.training.request import NO_TORCH, InvalidRequest, TrainingRequest

if TYPE_CHECKING:
    from trading_ops.training.retrain import Trigger
    from trading_ops.training.trainer import Progress

QUEUE = {"dagster-celery/queue": "ml_training"}
POOL = "ml_training"  # without a limit unless the operator sets one: one training a model holds in any case
TOLD_EVERY = 0.05
STORE_BACK_S = 60.0


class TrainModelConfig(TrainingRequest, dg.Config):
    """The request as the Launchpad shows it."""


@dg.op(out=dg.Out(dg.Nothing), tags=QUEUE, pool=POOL)
def train_models(
    context: dg.OpExecutionContext, config: TrainModelConfig, services: dg.ResourceParam[Services]
) -> None:
    """Trains a model of each symbol, measures it on days it never saw, and registers it as a candidate.

    A symbol that cannot be trained keeps no other from it, and fails the run at the end. Killed and started again the
    same day, it goes on from its last checkpoint. Formula: trading_ops/training/train.py
    """
    from trading_ops.training.figures import figure_rows, verdict
    from trading_ops.training.preparation import prepare
    from trading_ops.training.train import train

    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    for symbol in config.symbols or services.settings.symbols[:1]:
        try:
            with _told_plainly():
                prepared = prepare(config, symbol, services.candles_among([symbol]))
                trained = train(prepared, services.workshop, progress=_telling(context.log.info, prepared.name))
        except dg.Failure as error:
            problems.append(str(error.description))
            context.log.error(str(error.description))
            continue
        context.log.info(f"{trained.card.model_id}: {verdict(trained.card)}{' (trained before)' * trained.again}")
        rows += figure_rows(trained.card)
    context.add_output_metadata(
        {"models": table_of(rows), "formula": dg.MetadataValue.path("trading_ops/training/train.py")}
    )
    if problems:
        raise dg.Failure("; ".join(problems), allow_retries=False)


@dg.job(tags={MAX_RUNTIME: "14400"})
def train_model() -> None:
    """Trains lstm, gru or transformer on a symbol's hourly candles. Without a config: lstm on the first symbol.

    The model is a candidate: `trading-ops models promote` or `adaptive_retrain` makes it predict.
    """
    train_models()


class RetrainConfig(dg.Config):
    """Which models are trained anew, and by whose decision."""

    models: list[str] = Field(
        [], description="Such as [lstm/BTCUSDT]; default all champions, without any lstm of each of TRADING_OPS_SYMBOLS"
    )
    decision: str = Field("", description="The assessment's id; default: this run, by hand")
    reason: str = Field("started by hand", description="Why, for the audit trail")
    days_of_data: int | None = Field(None, description="7-1460; default as the champion was trained, or 365")
    epochs: int | None = Field(None, description="1-1000; default as the champion was trained, or 30")
    parallel_steps: int = Field(
        1, ge=1, le=16, description="Models trained at the same time, each in a process of its own; 1: in the run's own"
    )


class Challenge(NamedTuple):
    """One model to train anew, for one step."""

    name: str
    trigger: "Trigger"
    changes: dict[str, Any]


@dg.op(out=dg.DynamicOut(), tags=QUEUE)
def choose_models(
    context: dg.OpExecutionContext, config: RetrainConfig, services: dg.ResourceParam[Services]
) -> Iterator[dg.DynamicOutput]:
    """Which models: one step each."""
    from trading_ops.training.retrain import BY, Trigger

    by = BY if config.decision else "by hand"
    trigger = Trigger(config.decision or f"run-{context.run_id}", config.reason, by)
    changes = {k: v for k in ("days_of_data", "epochs") if (v := getattr(config, k)) is not None}
    with _told_plainly():
        TrainingRequest.parse(changes)
        there = [*services.registry.champions(), *services.registry.damaged_champions()]
    wanted = config.models or there or [f"lstm/{symbol}" for symbol in services.settings.symbols]
    for number, name in enumerate(dict.fromkeys(map(_as_named, wanted))):
        key = re.sub(r"\W", "_", name[:80], flags=re.ASCII)
        yield dg.DynamicOutput(Challenge(name, trigger, changes), mapping_key=f"{key}_{number}")


def _as_named(name: str) -> str:
    """As the registry writes it, lstm/BTCUSDT for LSTM/btcusdt; what is no name stays, and its step says why."""
    from trading_ops.training.retrain import request_for

    try:
        request = request_for(name.strip(), None, {})
    except InvalidRequest:
        return name.strip()
    return f"{request.model_type}/{request.symbol}"


@dg.op(tags=QUEUE, pool=POOL)
def challenge_champion(
    context: dg.OpExecutionContext, services: dg.ResourceParam[Services], challenge: Challenge
) -> dict:
    """Trains a challenger, compares it with the champion on days neither saw, and promotes it where it is better.

    Its document is stored in `retrain_history` whatever came of it. Formula: trading_ops/training/promotion.py
    """
    name = challenge.name
    try:
        document = _challenged(context, services, challenge)
    except StoreError as error:  # where nothing can be recorded; what was trained by then is not trained again
        raise dg.RetryRequested(max_retries=2, seconds_to_wait=STORE_BACK_S) from error
    context.log.info(f"{name}: {document['outcome']}, {document['why']}")
    context.add_output_metadata({k: v for k, v in document.items() if isinstance(v, str | int | float)})
    return document


def _challenged(context: dg.OpExecutionContext, services: Services, challenge: Challenge) -> dict:
    """The outcome, a failure too: the others go on. Raises StoreError where it cannot be recorded."""
    from trading_ops.training.retrain import failed, request_for, retrain

    name, trigger, changes = challenge
    told = _telling(context.log.info, name)
    try:
        with _told_plainly():
            source = services.candles_among([request_for(name, None, changes).symbol])
            return retrain(name, trigger, source, services.workshop, services.store, changes=changes, progress=told)
    except StoreError:
        raise
    except dg.Failure as error:
        context.log.error(str(error.description))
        return failed(services.store, name, trigger, str(error.description), services.bot.now())
    except Exception as error:  # whatever it is, people are told
        context.log.exception(f"{name} could not be trained anew")
        return failed(services.store, name, trigger, f"{type(error).__name__}: {error}", services.bot.now())


@dg.op(out=dg.Out(dg.Nothing), tags=QUEUE)
def tell_retrain(context: dg.OpExecutionContext, services: dg.ResourceParam[Services], documents: list[dict]) -> None:
    """Tells people once what came of the decision. Every model failed: CRITICAL, and so does the run."""
    from trading_ops.training.message import INCIDENT, line, retrain_alert
    from trading_ops.training.retrain import Trigger

    trigger = Trigger(**documents[0]["trigger"])
    alert = retrain_alert(documents, trigger, run_link(services, context.run_id))
    if alert.incident:
        services.incidents.observe(alert)
    else:
        services.incidents.recover(INCIDENT)
        services.outbox.publish(alert)
    columns = ("name", "outcome", "challenger", "champion", "why", "cost_cpu_s")
    context.add_output_metadata({"models": table_of([{c: d.get(c) for c in columns} for d in documents])})
    if alert.incident:
        raise dg.Failure("; ".join(map(line, documents)), allow_retries=False)


@dg.job(
    executor_def=steps_executor,
    tags={MAX_RUNTIME: "14400", "dagster/max_retries": "2", "dagster/retry_on_asset_or_op_failure": "false"},
)
def adaptive_retrain() -> None:
    """Trains challengers of the named models and promotes those that are better. Without a config: all champions.

    A run that was killed is started again and goes on from its checkpoints; one in which all models failed is not.
    """
    tell_retrain(choose_models().map(challenge_champion).collect())


class PredictPriceConfig(dg.Config):
    """Whose price, by which model, how far ahead."""

    model_type: str = Field("lstm", description=f"{', '.join(MODEL_TYPES)}: the champion of this type predicts")
    symbol: str = Field("", description="Such as BTCUSDT; default the first of TRADING_OPS_SYMBOLS")
    hours: int = Field(24, ge=1, le=168, description="Hours ahead, 1-168")


@dg.op(out=dg.Out(dg.Nothing), tags=QUEUE)
def predict(context: dg.OpExecutionContext, config: PredictPriceConfig, services: dg.ResourceParam[Services]) -> None:
    """The champion's probability of a rise, and quantiles of the price in each hour ahead, from what it was wrong by.

    Stored in `forecasts`. Formula: trading_ops/training/forecast.py
    """
    from trading_ops.training.predict import predict_price

    symbol = (config.symbol or services.settings.symbols[0]).strip().upper()
    with _told_plainly():
        document = predict_price(
            f"{config.model_type.strip().lower()}/{symbol}",
            config.hours,
            services.candles_among([symbol]),
            services.registry,
            services.store,
            now=services.now(),
            stale_days=services.settings.model_stale_days,
        )
    context.log.info(document["sentence"])
    context.add_output_metadata(
        {
            **{k: document[k] for k in ("sentence", "model_id", "decided_at", "close", "signal", "candles")},
            "hours": table_of(document["hours"]),
            "formula": dg.MetadataValue.path("trading_ops/training/forecast.py"),
        }
    )


@dg.job(tags={MAX_RUNTIME: "1800"})
def predict_price() -> None:
    """Where may the price be in the next hours? Without a config: the first symbol's next 24, by its lstm champion."""
    predict()


@contextmanager
def _told_plainly() -> Iterator[None]:
    """What cannot be done fails with its own words, and is not tried again."""
    from trading_ops.training.forecast import TooFewWindows
    from trading_ops.training.model import InvalidModel
    from trading_ops.training.model_files import RegistryError
    from trading_ops.training.trainer import TrainingFailed

    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise dg.Failure(NO_TORCH, allow_retries=False) from error
    except (
        InvalidRequest, CandleError, TrainingFailed, TooFewWindows, RegistryError, InvalidModel, FileNotWritten
    ) as error:  # fmt: skip
        raise dg.Failure(str(error), allow_retries=False) from error


def _telling(say: Callable[[str], None], name: str) -> Callable[["Progress"], None]:
    """Says how far a training is, at every TOLD_EVERY of it."""
    told = 0.0

    def tell(progress: "Progress") -> None:
        nonlocal told
        from trading_ops.training.figures import said_of

        if progress.note:
            say(f"{name}: {progress.note}")
        if progress.share >= told + TOLD_EVERY or progress.share >= 1.0:
            told = progress.share
            say(f"{name}: {said_of(progress)}")

    return tell


defs = dg.Definitions(jobs=[train_model, adaptive_retrain, predict_price])
