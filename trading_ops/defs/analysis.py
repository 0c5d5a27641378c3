"""Which of many symbols look worth buying or selling right now? The job `bulk_analysis`, on demand."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import dagster as dg
from pydantic import Field

from trading_ops.analysis.bulk import AnalysisFailed, Plan, Progress, Share, conclude, make_plan, record, sentence
from trading_ops.analysis.bulk import analyse_share as analyse_symbols
from trading_ops.analysis.request import (
    CHUNKS,
    LOOKBACK,
    LOOKBACK_BARS,
    MOST_SYMBOLS,
    STEPS,
    THREADS,
    InvalidRequest,
    Request,
    make_request,
)
from trading_ops.defs.partitions import MAX_RUNTIME, MAX_RUNTIME_S
from trading_ops.defs.presenting import table_of
from trading_ops.defs.steps import steps_executor
from trading_ops.market.candles import CandleError, Span
from trading_ops.services import Services

QUEUE = {"dagster-celery/queue": "bulk_analysis"}
TOP = 20
SHOWN_FAILURES = 50
COLUMNS = ("rank", "symbol", "signal", "score", "rsi", "bollinger_position", "macd_histogram_pct", "volume_ratio",
           "return_24h_pct", "volatility_pct", "close", "as_of")  # fmt: skip


class BulkAnalysis(dg.Config):
    """What to analyse; without any of it the bot's symbols (TRADING_OPS_SYMBOLS)."""

    symbols: list[str] | None = Field(
        None, description=f"1 to {MOST_SYMBOLS:,} symbols, such as [BTCUSDT, ETHUSDT]; default TRADING_OPS_SYMBOLS"
    )
    all_symbols: bool = Field(False, description="All symbols that the candle source has, instead of `symbols`")
    lookback_bars: int = Field(
        LOOKBACK_BARS, ge=LOOKBACK[0], le=LOOKBACK[1], description="Hours that each symbol's indicators look back"
    )
    min_score: float = Field(0.0, ge=0.0, le=1.0, description="Symbols with a lower score are counted, not listed")
    parallel_steps: int = Field(
        1,
        ge=STEPS[0],
        le=STEPS[1],
        description="Steps, each a process of its own: about 4 s each to start, so for thousands of symbols only."
        " 1: everything in the run's process",
    )
    threads: int | None = Field(
        None, ge=THREADS[0], le=THREADS[1], description="Threads of a process; default one a processor"
    )
    chunk_size: int | None = Field(
        None, ge=CHUNKS[0], le=CHUNKS[1], description="Symbols a thread takes at a time, at most; default a tenth"
    )

    def request(self, services: Services) -> Request:
        """Checked; raises InvalidRequest."""
        return make_request(
            self.symbols,
            all_symbols=self.all_symbols,
            default=services.settings.symbols,
            lookback_bars=self.lookback_bars,
            min_score=self.min_score,
            chunk_size=self.chunk_size,
            threads=self.threads,
        )


class Work(NamedTuple):
    """A share of the plan's symbols, for one step."""

    plan: Plan
    spans: dict[str, Span]
    share: int
    shares: int


@dg.op(tags=QUEUE, out={"plan": dg.Out(), "work": dg.DynamicOut()})
def choose_symbols(
    context: dg.OpExecutionContext, config: BulkAnalysis, services: dg.ResourceParam[Services]
) -> Iterator[Any]:
    """Which symbols are asked for, there and fresh; one share of them a step."""
    with _told_plainly():
        request = config.request(services)
        plan = make_plan(services.candles_among(request.symbols), request)
    if request.doubled:
        context.log.warning(f"named more than once, analysed once: {', '.join(request.doubled)}")
    context.log.info(f"{len(plan.spans)} of {plan.asked} symbols to analyse on {plan.label} candles")
    yield dg.Output(plan, "plan", metadata={"asked": plan.asked, "doubled": ", ".join(request.doubled) or "none"})
    shares = plan.shares(config.parallel_steps)
    for at, spans in enumerate(shares, start=1):
        yield dg.DynamicOutput(Work(plan, spans, at, len(shares)), mapping_key=f"share_{at}", output_name="work")


@dg.op(tags=QUEUE)
def analyse_share(context: dg.OpExecutionContext, services: dg.ResourceParam[Services], work: Work) -> Share:
    """Reads, calculates and judges one share of the symbols. Formulas: trading_ops/analysis/indicators.py, rule.py"""
    source = services.candles_among(work.plan.request.symbols)
    return analyse_symbols(source, work.plan, work.spans, _progress(context, work))


@dg.op(tags=QUEUE, out=dg.Out(dg.Nothing))
def rank_symbols(
    context: dg.OpExecutionContext, services: dg.ResourceParam[Services], plan: Plan, shares: list[Share]
) -> None:
    """Ranks by score and stores the document in `bulk_analyses`. Fails where every symbol did, and says why."""
    with _told_plainly():
        document = conclude(plan, shares)
    receipt = record(services.store, document)
    where = "waits in the spool" if receipt.spooled else f"record {receipt.seq} of bulk_analyses"
    context.log.info(f"{sentence(document)}: {where}{'' if receipt.appended else ', stored already'}")
    context.add_output_metadata(
        {
            "top": table_of([{name: row[name] for name in COLUMNS} for row in document["rows"][:TOP]]),
            **{name: document[name] for name in ("asked", "analysed", "below_min_score", "as_of", "candles")},
            **document["signals"],
            "failed": len(document["failed"]),
            "failures": table_of(document["failed"][:SHOWN_FAILURES]),
            "rule": dg.MetadataValue.path("trading_ops/analysis/rule.py"),
        }
    )


@contextmanager
def _told_plainly() -> Iterator[None]:
    """What cannot be done fails the run with its own words, and is not tried again."""
    try:
        yield
    except (InvalidRequest, AnalysisFailed, CandleError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _progress(context: dg.OpExecutionContext, work: Work) -> Progress:
    whose = f"share {work.share} of {work.shares}: " if work.shares > 1 else ""

    def tell(done: int, total: int) -> None:
        context.log.info(f"{whose}{done} of {total} symbols, {100 * done // total} %")

    return tell


@dg.job(executor_def=steps_executor, tags={MAX_RUNTIME: MAX_RUNTIME_S})
def bulk_analysis() -> None:
    """Signals for 1 to 5,000 symbols, ranked by score; without a config for TRADING_OPS_SYMBOLS."""
    plan, work = choose_symbols()
    rank_symbols(plan, work.map(analyse_share).collect())


defs = dg.Definitions(jobs=[bulk_analysis])
