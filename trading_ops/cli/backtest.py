"""`trading-ops backtest`: what would a strategy have earned?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli import orders
from trading_ops.cli.terminal import Json, open_services, reported, show, show_json

if TYPE_CHECKING:
    from rich.table import Table


def backtest(
    strategy: Annotated[str, typer.Argument(help="rsi, macd, bollinger or volume.")] = "rsi",
    symbol: Annotated[str | None, typer.Argument(help="Default: the first of TRADING_OPS_SYMBOLS.")] = None,
    start: Annotated[str | None, typer.Option(help="First UTC day. Default: 365 days before the end.")] = None,
    end: Annotated[str | None, typer.Option(help="UTC day, left out itself. Default: all there is.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A parameter, such as period=14; repeat it.")
    ] = None,
    stop_loss: Annotated[float | None, typer.Option(help="Percent of the entry, 0.01-99. Default: off.")] = None,
    take_profit: Annotated[float | None, typer.Option(help="Percent of the entry, 0.01-1000. Default: off.")] = None,
    fee: orders.Fee = 0.1,
    slippage: orders.Slippage = 0.05,
    lot_step: orders.LotStep = None,
    min_notional: orders.MinNotional = None,
    funding: orders.Funding = 0.0,
    side: orders.Side = "long",
    market: orders.Market = "spot",
    latency: orders.Latency = 0,
    equity: orders.Equity = 100.0,
    initial: orders.Initial = 10_000.0,
    tear_sheet: Annotated[bool, typer.Option(help="Write the HTML page.")] = True,
    as_json: Json = False,
) -> None:
    """Trade a strategy on the candles in use, after costs and beside buying and holding.

    Parameters and their bounds: trading-ops strategies describe.
    """
    from trading_ops.backtesting.figures import verdict
    from trading_ops.backtesting.keeping import keep_document, keep_tear_sheet, said_of
    from trading_ops.backtesting.preparation import prepare
    from trading_ops.backtesting.report import run_backtest
    from trading_ops.backtesting.request import BacktestRequest, InvalidRequest
    from trading_ops.files import FileNotWritten

    services = open_services()
    with reported(InvalidRequest, code=2):
        parameters = read_settings(settings or [], {"stop_loss_pct": stop_loss, "take_profit_pct": take_profit})
        request = BacktestRequest.parse(
            {
                "strategy": strategy, "symbol": symbol, "start": start, "end": end, "parameters": parameters,
                "fee_pct": fee, "slippage_pct": slippage, "lot_step": lot_step, "min_notional_usdt": min_notional,
                "funding_pct": funding, "side": side, "market": market, "latency_bars": latency,
                "equity_pct": equity, "initial_usdt": initial,
            }
        )  # fmt: skip
        found = run_backtest(prepare(request, services.candles, services.settings.symbols))
    with reported(FileNotWritten):
        kept = keep_document(services.store, found)
        sheet = keep_tear_sheet(services.settings.data_dir, found) if tear_sheet else None
    if as_json:
        show_json({"backtest": found.document, "tear_sheet": sheet and str(sheet)})
        return
    show(figures_table(found.document))
    show(verdict(found.document))
    typer.echo(f"audit trail: {said_of(kept)}")
    if sheet:
        typer.echo(f"tear sheet:  {sheet}")


def read_settings(settings: Sequence[str], options: Mapping[str, float | None]) -> dict[str, Any]:
    """The parameters of NAME=VALUE texts and of options that are given; raises InvalidRequest where one is twice."""
    from trading_ops.backtesting.request import InvalidRequest

    parameters: dict[str, Any] = {}
    for text in settings:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not name or not equals:
            raise InvalidRequest(f"--set {text!r}: NAME=VALUE would be right, such as period=14")
        if name in parameters:
            raise InvalidRequest(f"--set {text!r}: {name} is {parameters[name]!r} already; once would be right")
        parameters[name] = _number(value)
    for name, option in options.items():
        if option is not None and name in parameters:
            raise InvalidRequest(f"{name} is given by --set and by its own option; once would be right")
        if option is not None:
            parameters[name] = option
    return parameters


def figures_table(document: Mapping[str, Any]) -> Table:
    """The figures beside those of buying and holding, readable at 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from trading_ops.backtesting.figures import figure_rows

    table = Table("", title=escape(document["title"]), box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("strategy", "buy and hold", "difference"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in figure_rows(document):
        table.add_row(*map(escape, row))
    return table


def _number(text: str) -> int | float | str:
    """The number, or the text as it is, about which the request's validation then says what would be right."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
