"""How is a search's document shown to a person, in tables?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def findings(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What came of it on the folds and in the final period, beside holding the coin, a row each."""
    final, folds = document["final"], document["periods"]["folds"]
    rows = (
        ("selection", folds[0]["first"], document["walk_forward"]),
        ("holding", folds[0]["first"], document["buy_and_hold"]),
        ("winner", final["first"], final["winner"]),
        ("holding", final["first"], final["buy_and_hold"]),
    )
    return [{"traded": what, "from": first, **_figures(told)} for what, first, told in rows if told is not None]


def top_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The best sets, a row each: Sharpe ratio on the training days, and all figures on the folds."""
    return [
        {"rank": row["rank"], "set": shown(row["parameters"]), "train": row["in_sample"]["sharpe_ratio"]}
        | _figures(row["out_of_sample"])
        for row in document["top"]
    ]


def fold_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The folds, a row each: what was chosen before it, and what came of it."""
    return [
        {
            "fold": fold["first"],
            "set": "none" if fold["parameters"] is None else shown(fold["parameters"]),
            "before": fold["sharpe_before"],
            "Sharpe": fold["sharpe_ratio"],
            "return %": fold["total_return_pct"],
        }
        for fold in document["walk_forward"]["folds"]
    ]


def shown(parameters: Mapping[str, Any]) -> str:
    """A set in a few characters, in the order of its parameters.

    >>> shown({"period": 14, "oversold": 30.0, "stop_loss_pct": None})
    '14 30 off'
    """
    return " ".join("off" if value is None else f"{value:g}" for value in parameters.values())


def luck(document: Mapping[str, Any]) -> str:
    """How much of the best result may be luck, in a line."""
    deflated, overfitting, trials = document["deflated_sharpe"], document["overfitting"], document["trials"]
    pbo = "not computed" if overfitting is None else f"{overfitting['probability']:.2f}"
    return (
        f"{trials['total']:,} trials so far: deflated Sharpe ratio"
        f" {'undefined' if deflated is None else f'{deflated:.2f}'}, probability of overfitting {pbo},"
        f" looks at the final period {document['final']['looks']}"
    )


def _figures(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Sharpe": figures["sharpe_ratio"],
        "+-": figures["sharpe_standard_error"],
        "return %": figures["total_return_pct"],
        "trades": figures["total_trades"],
        "win %": figures["win_rate_pct"],
        "fall %": figures["max_drawdown_pct"],
    }
