"""How much does the result hang on each parameter?"""

from __future__ import annotations

import io
from dataclasses import dataclass
from itertools import combinations
from math import isnan
from typing import Any

import numpy as np

from trading_ops.optimization.space import Space

MOST_TICKS = 12


@dataclass(frozen=True, eq=False)
class Surface:
    """Two parameters' values and the mean out-of-sample Sharpe ratio of the sets that have them, (rows, columns).

    NaN where no set was tried, or none of them has a Sharpe ratio.
    """

    rows: str
    columns: str
    row_values: tuple[float, ...]
    column_values: tuple[float, ...]
    mean_sharpe: np.ndarray


def surfaces(space: Space, places: np.ndarray, sharpe: np.ndarray) -> list[Surface]:
    """One for each pair of parameters that have more than one value; `sharpe`: (n,) of the sets in `places`."""
    varied = [i for i, n in enumerate(space.shape) if n > 1]
    found = []
    for i, j in combinations(varied, 2):
        shape = space.shape[i], space.shape[j]
        means = _means(places[:, i] * shape[1] + places[:, j], sharpe, shape[0] * shape[1])[0].reshape(shape)
        (rows, row_values), (columns, column_values) = (list(space.values.items())[at] for at in (i, j))
        found.append(Surface(rows, columns, row_values, column_values, means))
    return found


def sensitivity(space: Space, places: np.ndarray, sharpe: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """Of each parameter with more than one value: value, mean out-of-sample Sharpe ratio and number of such sets."""
    rows = {}
    for i, (name, values) in enumerate(space.values.items()):
        if len(values) > 1:
            means, counts = _means(places[:, i], sharpe, len(values))
            rows[name] = [
                {
                    "value": None if isnan(value) else value,
                    "mean_sharpe": None if isnan(mean) else float(mean),
                    "sets": int(count),
                }
                for value, mean, count in zip(values, means, counts, strict=True)
                if count
            ]
    return rows


def heat_map(pictured: list[Surface], title: str) -> bytes | None:
    """A PNG with one map a pair of parameters, all on one scale; None where fewer than two parameters vary."""
    if not pictured:
        return None
    from matplotlib.figure import Figure

    across = min(3, len(pictured))
    down = -(-len(pictured) // across)
    figure = Figure(figsize=(4.2 * across, 3.4 * down + 0.4), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False).ravel()
    known = np.concatenate([np.abs(s.mean_sharpe[np.isfinite(s.mean_sharpe)]) for s in pictured])
    most = float(known.max(initial=0.0)) or 1.0  # white is 0: neither earns nor loses
    for place, surface in zip(axes, pictured, strict=False):
        image = place.imshow(surface.mean_sharpe, cmap="RdYlGn", vmin=-most, vmax=most, aspect="auto", origin="lower")
        _ticks(place.xaxis, surface.columns, surface.column_values)
        _ticks(place.yaxis, surface.rows, surface.row_values)
        place.set_facecolor("lightgrey")
    for place in axes[len(pictured) :]:
        place.set_axis_off()
    figure.suptitle(title, fontsize="medium")
    figure.colorbar(image, ax=list(axes), label="mean out-of-sample Sharpe ratio")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=90, metadata={"Software": None})
    return picture.getvalue()


def _means(groups: np.ndarray, values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the known values of each group, NaN where there is none, and how many sets each group has."""
    known = np.isfinite(values)
    sums = np.bincount(groups[known], weights=values[known], minlength=count)
    with np.errstate(invalid="ignore"):
        means = sums / np.bincount(groups[known], minlength=count)
    return means, np.bincount(groups, minlength=count)


def _ticks(axis: Any, name: str, values: tuple[float, ...]) -> None:
    shown = np.unique(np.linspace(0, len(values) - 1, min(MOST_TICKS, len(values))).astype(int))
    axis.set_ticks(shown, ["off" if isnan(values[i]) else f"{values[i]:g}" for i in shown], fontsize="small")
    axis.set_label_text(name)
