"""What do equity, drawdown, prices and trades of a backtest look like?"""

from __future__ import annotations

import base64
import io
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.backtesting.report import Backtest

MOST_POINTS = 4_000  # drawn of a curve: more than a screen has
OURS, THEIRS, GOOD, BAD, INK, GRID = "#2563eb", "#8b95a5", "#0f9d6b", "#d6453d", "#1f2937", "#e8ebf0"


def plot(backtest: Backtest) -> str:
    """Markdown with one embedded PNG: equity beside buying and holding, and how far each is below its peak."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    for name, curve, colour in _curves(backtest):
        times, values = _thinned(curve)
        top.plot(times, values, label=name, color=colour, linewidth=1.2)
        times, falls = _thinned(_below_peak(curve, backtest), worst=True)
        bottom.fill_between(times, falls, color=colour, alpha=0.35, linewidth=0)
    top.set_ylabel("equity, USDT")
    bottom.set_ylabel("below peak, %")
    locator = AutoDateLocator()
    bottom.xaxis.set_major_locator(locator)
    bottom.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    for axes in (top, bottom):
        axes.grid(alpha=0.3)
    top.legend(fontsize="small", frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=90)
    return f"![equity and drawdown](data:image/png;base64,{base64.b64encode(image.getvalue()).decode()})"


def curves_figure(backtest: Backtest) -> Any:
    """Plotly: equity, drawdown, and the price with every entry and exit, one below the other over one time axis."""
    from plotly.subplots import make_subplots

    figure = make_subplots(
        rows=3,
        shared_xaxes=True,
        vertical_spacing=0.05,
        row_heights=[0.42, 0.18, 0.40],
        subplot_titles=("Equity, USDT", "Below the peak so far, %", "Price, USDT, and trades"),
    )
    for name, curve, colour in reversed(list(_curves(backtest))):
        times, values = _thinned(curve)
        line = {"color": colour, "width": 2 if colour == OURS else 1.4}
        figure.add_scatter(x=times, y=values.round(2), name=name, line=line, legendgroup=name, row=1, col=1)
        times, falls = _thinned(_below_peak(curve, backtest), worst=True)
        shade = {"fill": "tozeroy", "line": {"color": colour, "width": 1}}
        figure.add_scatter(
            x=times, y=falls.round(3), name=name, legendgroup=name, showlegend=False, **shade, row=2, col=1
        )
    times, closes = _thinned(_closes(backtest))
    price = {"color": "#5b6675", "width": 1.1}
    figure.add_scatter(x=times, y=closes, name="price", line=price, showlegend=False, row=3, col=1)
    _add_trades(figure, backtest)
    figure.update_layout(**_look(height=860), hovermode="x unified", legend={"orientation": "h", "y": 1.08, "x": 0})
    begin, *_, end = _plain_times(backtest.equity.index)
    figure.update_xaxes(range=[str(begin), str(end)])
    figure.update_xaxes(gridcolor=GRID, zeroline=False, showspikes=True, spikethickness=1, spikecolor="#c3c9d4")
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    figure.update_annotations(font={"size": 13, "color": INK}, x=0, xanchor="left")
    return figure


def returns_figure(backtest: Backtest) -> Any:
    """Plotly: how many closed trades gained or lost how much, in percent."""
    import plotly.graph_objects as go

    closed = backtest.trades.loc[~backtest.trades["open_at_end"], "pnl_pct"].to_numpy()
    figure = go.Figure()
    if len(closed):
        edges = np.histogram_bin_edges(closed, bins=min(40, max(8, len(closed) // 3)))
        # an edge at 0, so that no bar mixes gains and losses
        width = edges[1] - edges[0]
        edges = np.arange(np.floor(closed.min() / width), np.floor(closed.max() / width) + 2) * width
        counts, edges = np.histogram(closed, edges)
        middles = (edges[:-1] + edges[1:]) / 2
        colours = [GOOD if middle > 0 else BAD for middle in middles]
        spans = [f"{low:+.2f} to {high:+.2f} %" for low, high in pairwise(edges)]
        figure.add_bar(
            x=middles,
            y=counts,
            width=np.full(len(counts), width),
            marker={"color": colours, "line": {"color": "white", "width": 1}},
            customdata=spans,
            hovertemplate="%{customdata}: %{y} trades<extra></extra>",
        )
        mean = float(closed.mean())
        figure.add_vline(x=mean, line={"color": INK, "dash": "dot", "width": 1.5})
        figure.add_annotation(x=mean, y=1.06, yref="paper", text=f"mean {mean:+.2f} %", showarrow=False, xanchor="left")
    figure.update_layout(**_look(height=260), bargap=0, showlegend=False)
    figure.update_xaxes(gridcolor=GRID, zeroline=True, zerolinecolor=INK)
    figure.update_yaxes(title="trades", gridcolor=GRID)
    return figure


def _add_trades(figure: Any, backtest: Backtest) -> None:
    """A line from each entry to its exit, green for a gain and red for a loss, with a mark at both ends."""
    trades, long = backtest.trades, backtest.document["request"]["side"] == "long"
    gained = trades["pnl_usdt"].to_numpy() > 0
    size = 9 if len(trades) <= 150 else 6  # smaller marks where they would hide the price
    for name, colour, which in (("gain", GOOD, gained), ("loss", BAD, ~gained)):
        chosen = trades[which]
        if chosen.empty:
            continue
        ends = [_plain_times(chosen[column]) for column in ("entry_time", "exit_time")]
        fills = [chosen[column].to_numpy() for column in ("entry_price", "exit_price")]
        # a hole after each trade keeps its line from running on to the next
        times = np.column_stack((*ends, np.full(len(chosen), np.datetime64("NaT", "us")))).ravel()
        prices = np.column_stack((*fills, np.full(len(chosen), np.nan))).ravel()
        line = {"mode": "lines", "line": {"color": colour, "width": 1.6}, "opacity": 0.8, "hoverinfo": "skip"}
        figure.add_scatter(x=times, y=prices, showlegend=False, legendgroup=name, **line, row=3, col=1)
        reasons = (escape(reason.replace("_", " ")) for reason in chosen["close_reason"])  # plotly draws tags
        said = [f"{percent:+.2f} %, {reason}" for percent, reason in zip(chosen["pnl_pct"], reasons, strict=True)]
        marks = (("entry", "triangle-up" if long else "triangle-down"), ("exit", "x"))
        for at, price, (where, symbol) in zip(ends, fills, marks, strict=True):
            figure.add_scatter(
                x=at,
                y=price,
                mode="markers",
                marker={
                    "symbol": symbol,
                    "size": size - 2 * (where == "exit"),
                    "color": colour,
                    "line": {"color": "white", "width": 0.8},
                },
                customdata=said,
                hovertemplate=f"{where} %{{y:,.8~g}} (%{{customdata}})<extra></extra>",
                name=name,
                legendgroup=name,
                showlegend=where == "entry",
                row=3,
                col=1,
            )


def _curves(backtest: Backtest) -> tuple[tuple[str, pd.Series, str], ...]:
    return (("strategy", backtest.equity, OURS), ("buy and hold", backtest.held, THEIRS))


def _closes(backtest: Backtest) -> pd.Series:
    return backtest.candles["close"].set_axis(backtest.equity.index)


def _below_peak(curve: pd.Series, backtest: Backtest) -> pd.Series:
    """How far each point is below the highest before it, in percent (0 or less); the start's capital counts too."""
    peaks = np.maximum.accumulate(np.maximum(curve, backtest.document["request"]["initial_usdt"]))
    return 100.0 * (curve / peaks - 1.0)


def _thinned(curve: pd.Series, *, worst: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Times (UTC, without a zone) and values of at most MOST_POINTS: the last, or the lowest, of each stretch."""
    values, times = curve.to_numpy(), _plain_times(curve.index)
    step = -(-len(values) // MOST_POINTS)
    if step == 1:
        return times, values
    begins = np.arange(0, len(values), step)
    ends = np.append(begins[1:], len(values)) - 1
    return times[ends], np.minimum.reduceat(values, begins) if worst else values[ends]


def _plain_times(times: Any) -> np.ndarray:
    import pandas as pd

    return pd.DatetimeIndex(times).tz_convert(None).to_numpy()


def _look(height: int) -> dict[str, Any]:
    font = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 12, "color": INK}
    margin = {"l": 64, "r": 16, "t": 40, "b": 44}
    return {"height": height, "template": "none", "font": font, "margin": margin, "paper_bgcolor": "white",
            "plot_bgcolor": "white", "hoverlabel": {"bgcolor": "white"}}  # fmt: skip
