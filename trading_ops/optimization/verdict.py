"""What should a person believe of a search's result?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MIN_DEFLATED_SHARPE = 0.95
MAX_PROBABILITY_OF_OVERFITTING = 0.5


def judge(document: Mapping[str, Any], min_trades: int) -> list[str]:
    """Everything that speaks against using the winner, a sentence each; none is as good as it gets.

    `document` is that of `optimise.optimise`, without its verdict.
    """
    said = []
    walked, held = document["walk_forward"], document["buy_and_hold"]
    top, final = document["top"], document["final"]
    if not top:
        return [
            f"No set closed {min_trades} trades a fold, on average, on the days the search did not see:"
            " there is nothing to choose."
        ]
    best = top[0]["out_of_sample"]
    if not _beats(best, held):
        said.append(
            "Nothing beats buy-and-hold out of sample: the best set's Sharpe ratio is"
            f" {_sharpe(best)} against {_sharpe(held)}."
        )
    elif not _beats(walked, held):
        said.append(
            "Out of sample, choosing by the past does not beat buy-and-hold: Sharpe ratio"
            f" {_sharpe(walked)} against {_sharpe(held)}."
        )
    if walked["sharpe_ratio"] is None or walked["sharpe_ratio"] <= 0:
        said.append(f"Out of sample, choosing by the past does not earn anything: Sharpe ratio {_sharpe(walked)}.")
    if not _beats(final["winner"], final["buy_and_hold"]):
        said.append(
            "In the final period the winner does not beat buy-and-hold: Sharpe ratio"
            f" {_sharpe(final['winner'])} against {_sharpe(final['buy_and_hold'])}."
        )
    if final["winner"]["total_return_pct"] <= 0:
        said.append(
            f"In the final period the winner does not earn anything: {final['winner']['total_return_pct']:.1f} %."
        )
    if not final["winner"]["total_trades"]:
        said.append("In the final period the winner closed no trade: it proves nothing.")
    deflated, trials = document["deflated_sharpe"], document["trials"]["total"]
    if deflated is None or deflated < MIN_DEFLATED_SHARPE:
        shown = "unknown" if deflated is None else f"{deflated:.3f}"
        said.append(
            f"After {trials:,} trials the winner cannot be told from luck: deflated Sharpe ratio {shown},"
            f" {MIN_DEFLATED_SHARPE} is needed."
        )
    overfitting = document["overfitting"]
    if overfitting and overfitting["probability"] > MAX_PROBABILITY_OF_OVERFITTING:
        said.append(
            "Choosing the best of this grid is overfitting: its probability is"
            f" {overfitting['probability']:.3f}, above {MAX_PROBABILITY_OF_OVERFITTING}."
        )
    if final["looks"] > 1:
        said.append(
            f"Days of the final period were looked at {final['looks']} times by now: they prove less each time."
        )
    return said


def _beats(figures: Mapping[str, Any], held: Mapping[str, Any]) -> bool:
    """Whether the Sharpe ratio is above the other's; one that is undefined earned nothing, so it is 0."""
    return (figures["sharpe_ratio"] or 0.0) > (held["sharpe_ratio"] or 0.0)


def _sharpe(figures: Mapping[str, Any]) -> str:
    value, error = figures["sharpe_ratio"], figures["sharpe_standard_error"]
    return "undefined" if value is None else f"{value:.2f} +- {error:.1f}"
