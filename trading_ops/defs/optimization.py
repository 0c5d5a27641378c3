"""Which parameters would have earned most, with out-of-sample proof? `optimize_strategy`, on demand."""

import base64
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from trading_ops.defs.partitions import MAX_RUNTIME
from trading_ops.defs.presenting import table_of
from trading_ops.optimization.request import OptimizationRequest
from trading_ops.services import Services

if TYPE_CHECKING:
    from trading_ops.optimization.search import Progress

TOLD_EVERY = 0.05


class OptimizeStrategyConfig(OptimizationRequest, dg.Config):
    """The request as the Launchpad shows it."""


@dg.op(out=dg.Out(dg.Nothing), tags={"dagster-celery/queue": "optimization"})
def search_parameters(
    context: dg.OpExecutionContext, config: OptimizeStrategyConfig, services: dg.ResourceParam[Services]
) -> None:
    """Tries parameter sets, judges them on later days, and looks at the last days once; stores what came of it.

    Killed and started again with the same config, it goes on where it was. Formula: trading_ops/optimization/report.py
    """
    from trading_ops.market.candles import CandleError
    from trading_ops.optimization.optimise import run_optimization
    from trading_ops.optimization.periods import TooFewDays

    try:
        found = run_optimization(
            config,
            services.candles,
            services.store,
            services.settings.data_dir,
            default_symbol=services.settings.symbols[0],
            told=_telling(context.log.info),
        )
    except (CandleError, TooFewDays) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    document = found.document
    for sentence in document["verdict"] or ["Nothing speaks against the winner."]:
        context.log.info(sentence)
    context.add_output_metadata(_metadata(document) | ({"heat map": _embedded(found.picture)} if found.picture else {}))


def _telling(say: Callable[[str], None]) -> Callable[["Progress"], None]:
    """Says how far the search is, at every TOLD_EVERY of it."""
    told = 0.0

    def tell(progress: "Progress") -> None:
        nonlocal told
        share = progress.done / progress.total
        if share >= told + TOLD_EVERY or progress.done == progress.total:
            told = share
            best = "none yet" if progress.best_train_sharpe is None else f"{progress.best_train_sharpe:.2f}"
            say(
                f"{progress.done:,} of {progress.total:,} sets ({share:.0%}), best Sharpe ratio of the training days"
                f" {best}{' (from an earlier run)' if progress.resumed else ''}"
            )

    return tell


def _metadata(document: Mapping[str, Any]) -> dict[str, dg.MetadataValue]:
    from trading_ops.optimization.summary import findings, fold_rows, top_rows

    verdict = "\n".join(f"- {sentence}" for sentence in document["verdict"]) or "Nothing speaks against the winner."
    return {
        "verdict": dg.MetadataValue.md(verdict),
        "findings": table_of(findings(document)),
        "sets": table_of(top_rows(document)),
        "folds": table_of(fold_rows(document)),
        "digest": dg.MetadataValue.text(document["digest"]),
        "formula": dg.MetadataValue.path("trading_ops/optimization/report.py"),
    }


def _embedded(picture: Path) -> dg.MetadataValue:
    return dg.MetadataValue.md(f"![heat map](data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()})")


@dg.job(tags={MAX_RUNTIME: "14400"})
def optimize_strategy() -> None:
    """Parameter search with out-of-sample proof. Without a config: rsi's default space on the first symbol."""
    search_parameters()


defs = dg.Definitions(jobs=[optimize_strategy])
