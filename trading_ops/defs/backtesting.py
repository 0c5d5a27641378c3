"""What would a strategy have earned? `backtest_strategy`, on demand."""

from typing import Any

import dagster as dg
from pydantic import Field

from trading_ops.backtesting.figures import figure_rows, trade_rows, verdict
from trading_ops.backtesting.keeping import keep_document, keep_tear_sheet, said_of
from trading_ops.backtesting.request import BacktestRequest, InvalidRequest
from trading_ops.defs.partitions import MAX_RUNTIME, MAX_RUNTIME_S
from trading_ops.defs.presenting import table_of
from trading_ops.market.candles import CandleError
from trading_ops.services import Services

QUEUE = {"dagster-celery/queue": "backtesting"}
SHOWN_TRADES = 20


def _asked(name: str, **changes: Any) -> Any:
    """A field of the request: its description, bounds and default."""
    field = BacktestRequest.model_fields[name]
    return Field(**{"default": field.default, "description": field.description, "strict": True} | changes)


class BacktestConfig(dg.Config):
    """What to backtest; without any setting rsi on the last 365 days of the first symbol."""

    strategy: str = _asked("strategy")
    symbol: str | None = _asked("symbol")
    start: str | None = _asked("start")
    end: str | None = _asked("end")
    parameters: dict = _asked("parameters")
    fee_pct: float = _asked("fee_pct")
    slippage_pct: float = _asked("slippage_pct")
    lot_step: float | None = _asked("lot_step")
    min_notional_usdt: float | None = _asked("min_notional_usdt")
    funding_pct: float = _asked("funding_pct")
    side: str = _asked("side")
    market: str = _asked("market")
    latency_bars: int = _asked("latency_bars")
    equity_pct: float = _asked("equity_pct")
    initial_usdt: float = _asked("initial_usdt")
    tear_sheet: bool = Field(True, description="Whether to write the tear sheet, an HTML page of 5 MB")


@dg.op(out=dg.Out(dg.Nothing), tags=QUEUE)
def backtest(context: dg.OpExecutionContext, services: dg.ResourceParam[Services], config: BacktestConfig) -> None:
    """Trades the strategy on the candles in use, after costs and beside buying and holding.

    Stored in the audit store's collection `backtests`. Formula: trading_ops/backtesting/report.py
    """
    from trading_ops.backtesting.charts import plot
    from trading_ops.backtesting.preparation import prepare
    from trading_ops.backtesting.report import run_backtest

    try:
        request = BacktestRequest.parse(config.model_dump(exclude={"tear_sheet"}))
        found = run_backtest(prepare(request, services.candles, services.settings.symbols))
    except (InvalidRequest, CandleError) as error:  # trying again helps nobody
        raise dg.Failure(str(error), allow_retries=False) from error
    document, kept = found.document, keep_document(services.store, found)
    sheet = keep_tear_sheet(services.settings.data_dir, found) if config.tear_sheet else None
    context.log.info(f"{document['title']}: {verdict(document)}")
    if kept.spooled:
        context.log.warning(f"the document {said_of(kept)}")
    numbers = {name: value for name, value in document["metrics"].items() if isinstance(value, int | float)}
    context.add_output_metadata(
        {
            **numbers,
            "candles": document["candles"],
            "verdict": verdict(document),
            "figures": table_of([row._asdict() for row in figure_rows(document)]),
            "last_trades": table_of(trade_rows(document["trades"])[:SHOWN_TRADES]),
            "equity_and_drawdown": dg.MetadataValue.md(plot(found)),
            "tear_sheet": dg.MetadataValue.path(str(sheet.resolve())) if sheet else "not asked for",
            "audit": said_of(kept),
            "formula": dg.MetadataValue.path("trading_ops/backtesting/report.py"),
        }
    )


@dg.job(
    description="What would a strategy have earned on the candles in use, after costs and beside buying and holding?"
    " On demand; without any setting rsi on the last 365 days of the first symbol.",
    tags={MAX_RUNTIME: MAX_RUNTIME_S},
)
def backtest_strategy() -> None:
    backtest()


defs = dg.Definitions(jobs=[backtest_strategy])
