"""What does a backtest look like on one page that opens anywhere, without a network?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from trading_ops.backtesting.charts import curves_figure, returns_figure
from trading_ops.backtesting.figures import figure_rows, trade_rows, verdict

if TYPE_CHECKING:
    from trading_ops.backtesting.report import Backtest

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
FULL_COLOUR_PCT = 15.0  # a month of this return has the strongest colour
FIRST_ASKED = ("strategy", "symbol", "start", "end", "parameters")  # of the request, in the order of reading
TONES = {"+": ' class="good"', "-": ' class="bad"'}
STYLE = """
:root { --ink: #1f2937; --soft: #6b7280; --line: #e5e7eb; --good: #0f9d6b; --bad: #d6453d; --ours: #2563eb; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f6f8; color: var(--ink); font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto,
  sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { margin: 0; font-size: 26px; letter-spacing: -0.01em; }
h2 { margin: 0 0 10px; font-size: 15px; }
.about { margin: 4px 0 18px; color: var(--soft); }
.badge { padding: 1px 9px; border-radius: 99px; background: #fef3c7; color: #92400e; font-size: 12px; }
.badge.recorded { background: #dbeafe; color: #1e40af; }
.cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: 12px; }
@media (max-width: 760px) { .cards { grid-template-columns: repeat(2, 1fr); } }
.card, section { background: white; border: 1px solid var(--line); border-radius: 10px; }
.card { padding: 12px 14px; }
.card b { display: block; font-size: 22px; letter-spacing: -0.01em; }
.card small { font-size: 13px; font-weight: 500; }
.card span { color: var(--soft); font-size: 12px; }
section { margin-top: 14px; padding: 16px 18px; overflow-x: auto; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(440px, 1fr)); gap: 14px;
  align-items: start; }
.verdict { margin: 14px 0 0; padding: 10px 14px; border-left: 3px solid var(--ours); background: white; }
.good { color: var(--good); } .bad { color: var(--bad); }
table { border-collapse: collapse; width: 100%; }
th { color: var(--soft); font-weight: 500; text-align: right; }
th, td { padding: 4px 8px; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.months td, .months th { text-align: center; padding: 5px 2px; border: 2px solid white; border-radius: 6px; }
.months td:first-child { text-align: left; color: var(--soft); }
.scroll { max-height: 460px; overflow: auto; }
.scroll th { position: sticky; top: 0; background: white; }
.note { color: var(--soft); font-size: 12px; margin: 8px 0 0; }
@media print { body { background: white; } .scroll { max-height: none; } section { break-inside: avoid; } }
"""


def tear_sheet(backtest: Backtest) -> str:
    """One HTML page with its own script; the same backtest gives the same bytes, and every text is escaped."""
    from plotly.offline import get_plotlyjs

    document = backtest.document
    asked, label = document["request"], document["candles"]
    heading = f"{'short ' if asked['side'] == 'short' else ''}{asked['strategy']} on {asked['symbol']}"
    recorded = "" if label == "simulated" else " recorded"
    body = f"""<main>
<h1>{escape(heading)}</h1>
<p class="about">{escape(asked["start"])} to {escape(asked["end"])} UTC, {document["bars"]:,} hourly bars
<span class="badge{recorded}">{escape(label)} candles</span></p>
<div class="cards">{"".join(_cards(document))}</div>
<p class="verdict">{escape(verdict(document))}</p>
<section>{_chart(curves_figure(backtest), "curves", buttons=True)}</section>
<section><h2>Return of each month, %</h2>{_months(document["months"])}</section>
<section><h2>Profit of each closed trade, %</h2>{_chart(returns_figure(backtest), "returns")}</section>
<div class="two">
<section><h2>Figures</h2>{_table(("", "strategy", "buy and hold", "difference"), figure_rows(document))}
<p class="note">Sharpe ratio of daily equity returns, a year of 365 days, with its standard error. Exposure: bars at
whose close a position was open. Turnover: value of all entries and exits over the mean equity. Buying and holding: the
same capital, costs and period, bought at the first open that
follows a close. What is open at the end is marked to the last close.</p>
</section>
<section><h2>What was asked</h2>{_table(("", ""), _asked(document))}</section>
</div>
<section><h2>Trades, newest first{_cut(document)}</h2><div class="scroll">{_trades(document["trades"])}</div></section>
<p class="note">backtest {escape(backtest.digest)}</p>
</main>"""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(document['title'])}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head>\n<body>{body}</body></html>\n"
    )


def _cards(document: Mapping[str, Any]) -> Iterable[str]:
    ours, theirs, less = document["metrics"], document["buy_and_hold"], document["difference"]
    error, span = ours["sharpe_standard_error"], ours["win_rate_interval_pct"]
    yield _card("total return", ours["total_return_pct"], "+,.1f", " %", sign=True)
    yield _card(
        f"against buying and holding ({theirs['total_return_pct']:+,.1f} %)",
        less["total_return_pct"],
        "+,.1f",
        " points",
        sign=True,
    )
    yield _card("Sharpe ratio" + ("" if error is None else f" ± {error:.2f}"), ours["sharpe_ratio"], ".2f")
    yield _card(f"largest fall (held: {theirs['max_drawdown_pct']:,.1f} %)", ours["max_drawdown_pct"], ",.1f", " %")
    wins = "win rate" + ("" if span is None else f" (95 %: {span[0]:.0f} to {span[1]:.0f})")
    yield _card(wins, ours["win_rate_pct"], ".1f", " %")
    yield _card("trades", ours["total_trades"], ",d")
    yield _card("profit factor", ours["profit_factor"], ".2f")
    yield _card("cost of trading", document["without_costs"]["cost_of_trading_pct"], ",.1f", " points")


def _card(name: str, value: float | None, form: str, unit: str = "", *, sign: bool = False) -> str:
    tone = "" if value is None or not sign else ' class="good"' if value > 0 else ' class="bad"' if value < 0 else ""
    shown = "-" if value is None else f"{value:{form}}<small>{escape(unit)}</small>"
    return f'<div class="card"><b{tone}>{shown}</b><span>{escape(name)}</span></div>'


def _asked(document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    request = document["request"]
    first = {name: request[name] for name in FIRST_ASKED}
    for name, value in (first | request).items():
        for part, setting in value.items() if name == "parameters" else [(name, value)]:
            shown = "none" if setting is None else f"{setting:,.12g}" if isinstance(setting, float) else str(setting)
            yield part.replace("_pct", " %").replace("_usdt", " USDT").replace("_", " "), shown
    yield "bars missing in the period", f"{document['missing_bars']:,}"
    yield "bars before the start, to warm up", f"{document['warm_up_bars']:,}"
    yield "digest of the candles", document["candles_digest"][:16]


def _months(months: Sequence[Mapping[str, Any]]) -> str:
    """A row a year and a column a month, coloured by the return; the year's return is that of its months together."""
    years: dict[str, dict[int, float]] = {}
    for month in months:
        years.setdefault(month["month"][:4], {})[int(month["month"][5:])] = month["return_pct"]
    rows = []
    for year, returns in years.items():
        growth = 1.0
        for value in returns.values():
            growth *= 1.0 + value / 100.0
        cells = [_heat(returns.get(month)) for month in range(1, 13)]
        rows.append(f"<tr><td>{escape(year)}</td>{''.join(cells)}{_heat(100.0 * (growth - 1.0), bold=True)}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("", *MONTHS, "year"))
    return f'<table class="months"><tr>{head}</tr>{"".join(rows)}</table>'


def _heat(value: float | None, *, bold: bool = False) -> str:
    if value is None:
        return "<td></td>"
    strength = 0.55 * min(abs(value) / FULL_COLOUR_PCT, 1.0)
    colour = "15,157,107" if value > 0 else "214,69,61"
    shown = f"{value:+,.1f}" if value else "0.0"
    return f'<td style="background:rgba({colour},{strength:.2f})">{f"<b>{shown}</b>" if bold else shown}</td>'


def _trades(trades: Sequence[Mapping[str, Any]]) -> str:
    rows = trade_rows(trades)
    return _table(list(rows[0]), [list(row.values()) for row in rows], toned=True) if rows else "<p>none</p>"


def _cut(document: Mapping[str, Any]) -> str:
    return f" (the {document['trades_cut']:,} before them are not listed)" if document["trades_cut"] else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, toned: bool = False) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ("".join(_cell(cell, toned=toned) for cell in row) for row in rows)
    return f"<table><tr>{top}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(text: str, *, toned: bool) -> str:
    """In a toned table a signed number has the colour of its sign."""
    return f"<td{TONES.get(text[:1], '') if toned else ''}>{escape(text)}</td>"


def _chart(figure: Any, name: str, *, buttons: bool = False) -> str:
    config = {"displaylogo": False, "responsive": True, "displayModeBar": buttons}
    return str(figure.to_html(full_html=False, include_plotlyjs=False, div_id=name, config=config))
