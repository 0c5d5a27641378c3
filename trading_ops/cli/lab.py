"""`trading-ops guard lab`: would the guard have paid on past candles?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trading_ops.cli import orders
from trading_ops.cli.terminal import Json, minute, open_services, reported, show, show_json

if TYPE_CHECKING:
    from rich.table import Table

SHOWN_BREACHES = 40
UNITS = {
    "daily_loss": "% lost on the UTC day",
    "consecutive_losses": "losses in a row",
    "portfolio_drawdown_from_peak": "% down together, stops all",
    "portfolio_drawdown_from_start": "% down together, stops all",
}
SHORT = {
    "too few to tell": "too few", "hurts": "HURTS", "helps": "helps", "not shown to help": "unclear",
    "helps, no more than a stop at any hour": "as any",
}  # fmt: skip
LEGEND = (
    "USDT. hours: stopped. false: the strategy would have made money until the resume. chance: what as many stops at no"
    " particular hour bring. 95 %: of the net, by bootstrap over weeks. unclear: it contains 0, the rule is not shown"
    " to help; of 40 rules that do nothing one or two still look as if they hurt. as any: helps, no more than a stop at"
    " any hour. too few: fewer than 10 weeks in which a stop made a difference. *: the guard's own limit."
)


def lab(
    strategy: Annotated[list[str] | None, typer.Option(help="rsi, macd, bollinger or volume; repeat it.")] = None,
    symbol: Annotated[list[str] | None, typer.Option(help="Default: TRADING_OPS_SYMBOLS; repeat it.")] = None,
    days: Annotated[int, typer.Option(help="Complete UTC days, 2 or more.")] = 365,
    end: Annotated[str | None, typer.Option(help="UTC day, left out itself. Default: all there is.")] = None,
    resume_after: Annotated[int, typer.Option(help="Hours after a stop at which a person resumes.")] = 24,
    apart: Annotated[bool, typer.Option("--apart", help="Guard each symbol of a strategy by itself.")] = False,
    fee: orders.Fee = 0.1,
    slippage: orders.Slippage = 0.05,
    as_json: Json = False,
) -> None:
    """Replay the guard's rules on past candles: which stops, when, what each avoided and what it cost.

    The paper bot's strategies, each with 10,000 USDT spread evenly over the symbols. Kept in the audit trail.
    """
    from trading_ops.backtesting.request import InvalidRequest
    from trading_ops.paper.guard_lab import COLLECTION, LabRequest, keep, run_lab

    services = open_services()
    request = LabRequest(
        strategies=tuple(strategy or ()) or None,
        symbols=tuple(symbol or ()) or None,
        days=days,
        end=end,
        resume_after_h=resume_after,
        apart=apart,
        fee_pct=fee,
        slippage_pct=slippage,
    )
    with reported(InvalidRequest, code=2), _progress(hidden=as_json) as told:
        source = services.candles_among([name.strip().upper() for name in symbol or ()])
        document = run_lab(request, source, services.settings.symbols, services.guard_policy, told)
    with reported():
        kept = keep(services.store, document)
    if as_json:
        show_json(document)
        return
    _show(document)
    typer.echo(f"audit trail: {COLLECTION} record {kept.seq}" + ("" if kept.appended else ", stored before"))


def _show(document: Mapping[str, Any]) -> None:
    from rich.markup import escape

    show(escape(document["title"]))
    as_set, *lines = document["lines"]
    if as_set["breaches"]:
        show(_breaches(as_set))
    left_out = len(as_set["breaches"]) + as_set["breaches_cut"] - SHOWN_BREACHES
    if left_out > 0:
        show(f"{left_out} earlier stops are left out: --json")
    show(_said_of(as_set))
    for rule, unit in UNITS.items():
        own = [line for line in lines if line["rule"] == rule]
        stopped = [line for line in own if line["halts"] or line["in_use"]]
        if stopped:
            show(_rule_table(f"{rule}: {unit}", stopped))
        if quiet := [f"{line['limit']:g}" for line in own if line not in stopped]:
            show(f"{rule}: no stop at {', '.join(quiet)}")
    show(LEGEND)
    for line in document["lines"]:
        if line["verdict"] == "hurts":
            name = "the guard as it is set" if line["limit"] is None else f"{line['rule']} at {line['limit']:g}"
            show(f"[bold red]{name} hurts: {_span(line)} USDT[/bold red]")


def _said_of(line: Mapping[str, Any]) -> str:
    interval = line["interval_usdt"]
    sure = f" (95 %: {interval[0]:+,.0f} to {interval[1]:+,.0f})" if interval else ""
    return (
        f"The guard as it is set: {line['halts']} stops, {line['halted_hours']:,.0f} h. Loss avoided"
        f" {line['avoided_usdt']:,.0f}, profit forgone {line['forgone_usdt']:,.0f}, net {line['net_usdt']:+,.0f} USDT"
        f"{sure}: {line['verdict']}. {line['false_alarms']} false alarms; {line['idle']} stops in which nothing would"
        f" have been bought; {line['within_at_day_end']} on a day that would have ended within its limit. At the end"
        f" {line['final_usdt']:,.0f} USDT, without the guard {line['final_without_usdt']:,.0f}."
    )


def _breaches(line: Mapping[str, Any]) -> Table:
    rows = [
        [
            minute(halt["at"]),
            ", ".join(halt["strategies"]),
            _why(halt),
            f"{halt['earned_usdt']:+,.0f}",
            f"{halt['without_usdt']:+,.0f}",
            f"{halt['net_usdt']:+,.0f}",
            "within" if halt["within_at_day_end"] else "beyond",
        ]
        for halt in line["breaches"][-SHOWN_BREACHES:]
    ]
    columns = ["stopped at", "strategy", "why", "earned", "without", "net", "day end"]
    return _table("The guard as it is set: USDT until the resume", columns, rows, left=3)


def _why(halt: Mapping[str, Any]) -> str:
    if halt["rule"] == "consecutive_losses":
        return f"{halt['figure']:g} > {halt['limit']:g} losses"
    return f"{halt['figure']:.2f} > {halt['limit']:g} %"


def _rule_table(title: str, lines: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            f"{line['limit']:g}{'*' if line['in_use'] else ' '}",
            f"{line['halts']}",
            f"{line['halted_hours']:.0f}",
            f"{line['false_alarms']}",
            f"{line['avoided_usdt']:.0f}",
            f"{line['forgone_usdt']:.0f}",
            f"{line['net_usdt']:.0f}",
            _span(line),
            f"{line['any_hour_usdt']:.0f}",
            SHORT[line["verdict"]],
        ]
        for line in lines
    ]
    columns = ["limit", "stops", "hours", "false", "avoided", "forgone", "net", "95 %", "chance", "verdict"]
    return _table(title, columns, rows, left=0)


def _span(line: Mapping[str, Any]) -> str:
    interval = line["interval_usdt"]
    return "-" if interval is None else f"{interval[0]:.0f} to {interval[1]:.0f}"


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=0)
    for place, column in enumerate(columns):
        justify: Any = "left" if place < left or column == "verdict" else "right"
        table.add_column(column, justify=justify, no_wrap=column != "strategy")
    for row in rows:
        table.add_row(*row, style="bold red" if "HURTS" in row else None)
    return table


@contextmanager
def _progress(*, hidden: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr, for people only."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("replaying the guard"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, disable=hidden or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
