"""What does an alert's picture look like?"""

from __future__ import annotations

import io
import json
import logging
import math
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from trading_ops.notifications.text import fit, one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "picture.png"
MOST_POINTS, MOST_LINES = 1_000, 8
WIDTH, HEIGHT, DPI = 4.8, 2.7, 200  # inches; words as large as a phone needs them
COLOURS = ("#2f80ed", "#eb8a2f", "#27ae60", "#9b51e0", "#b7791f", "#56ccf2", "#828282", "#d6409f")
LIMITS = ("#b7791f", "#b00020")  # the first that is passed, and those above it
_ONE_AT_A_TIME = threading.Lock()  # channels send side by side; matplotlib's fonts are shared
_log = logging.getLogger(__name__)


def picture_of(document: Mapping[str, Any] | None) -> bytes | None:
    """The picture as PNG; None where there is none, or where it cannot be drawn: the words count for more.

    `document` is plain JSON: {"title", "unit", "days": [ISO days], "series": {name: [number or None a day]},
    "limits": {name: number}}, "limits" being optional. What is not known is a gap.
    """
    if not document:
        return None
    try:
        with _ONE_AT_A_TIME:
            return _drawn(json.dumps(document, sort_keys=True))
    except Exception as error:  # noqa: BLE001  # whatever is wrong with a picture, the alert is told
        _log.warning("an alert's picture cannot be drawn: %s", type(error).__name__)
        return None


@lru_cache(maxsize=4)
def _drawn(text: str) -> bytes:
    """The same picture goes to several channels."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
    from matplotlib.figure import Figure

    document = json.loads(text)
    days = document["days"][-MOST_POINTS:]
    series = {
        name: _numbers(values[-MOST_POINTS:], len(days))
        for name, values in list(document["series"].items())[:MOST_LINES]
    }
    limits = {name: float(at) for name, at in list((document.get("limits") or {}).items())[:MOST_LINES] if _known(at)}
    if not any(math.isfinite(value) for values in series.values() for value in values):
        raise ValueError("there is no number to draw")
    moments = date2num([_midnight(day) for day in days])
    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.1)
    axes = figure.subplots()
    for (name, values), colour in zip(series.items(), COLOURS, strict=False):
        # with markers, for a day between two gaps has no line
        axes.plot(moments, values, color=colour, linewidth=2, marker="o", markersize=2.5, label=_label(name, values))
    for index, (name, at) in enumerate(sorted(limits.items(), key=lambda limit: limit[1])):
        colour = LIMITS[min(index, len(LIMITS) - 1)]
        axes.axhline(at, color=colour, linestyle="--", linewidth=1.2, label=_label(name, [at]))
    locator = AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    _finish(figure, axes, str(document.get("title", "")), str(document.get("unit", "")))
    image = io.BytesIO()
    figure.savefig(image, format="png")
    return image.getvalue()


def _finish(figure: Figure, axes: Axes, title: str, unit: str) -> None:
    """Words and frame; a $ in a name is a dollar, no formula."""
    axes.set_title(fit(one_line(title), 80), loc="left", fontsize=11, fontweight="bold", parse_math=False)
    axes.set_ylabel(fit(one_line(unit), 20), fontsize=9, parse_math=False)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    axes.tick_params(labelsize=9)
    axes.grid(alpha=0.25)
    axes.margins(x=0.01)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(axes.lines) > 1:
        legend = figure.legend(fontsize=8, frameon=False, ncols=3, loc="outside lower center")
        for text in legend.get_texts():
            text.set_parse_math(False)


def _midnight(day: str) -> Any:
    from datetime import UTC, datetime

    return datetime.fromisoformat(day).replace(tzinfo=UTC)


def _numbers(values: Sequence[Any], count: int) -> list[float]:
    """One number a day, NaN where it is not known."""
    known = [float(value) if _known(value) else math.nan for value in values[:count]]
    return [*known, *[math.nan] * (count - len(known))]


def _known(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _label(name: str, values: Sequence[float]) -> str:
    """The name with its last number, as `equity 10,010`."""
    last = next((value for value in reversed(values) if math.isfinite(value)), None)
    shown = fit(one_line(name).lstrip("_"), 30) or "-"
    return shown if last is None else f"{shown} {f'{last:,.2f}'.removesuffix('.00')}"
