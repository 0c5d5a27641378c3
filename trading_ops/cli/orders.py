"""How are costs and orders given on the command line? The same options for every command that trades."""

from typing import Annotated

import typer

_PANEL = "Costs and orders"

Fee = Annotated[float, typer.Option(help="Percent of a fill.", rich_help_panel=_PANEL)]
Slippage = Annotated[float, typer.Option(help="Percent of a fill.", rich_help_panel=_PANEL)]
LotStep = Annotated[float | None, typer.Option(help="Step of quantities.", rich_help_panel=_PANEL)]
MinNotional = Annotated[float | None, typer.Option(help="Least order, USDT.", rich_help_panel=_PANEL)]
Funding = Annotated[float, typer.Option(help="Of a future, percent of notional every 8 h.", rich_help_panel=_PANEL)]
Side = Annotated[str, typer.Option(help="long, or short on futures.", rich_help_panel=_PANEL)]
Market = Annotated[str, typer.Option(help="spot or futures.", rich_help_panel=_PANEL)]
Latency = Annotated[int, typer.Option(help="Bars that an order comes late, 0-168.", rich_help_panel=_PANEL)]
Equity = Annotated[float, typer.Option(help="Percent of the equity an order takes.", rich_help_panel=_PANEL)]
Initial = Annotated[float, typer.Option(help="Capital at the start, USDT.", rich_help_panel=_PANEL)]
