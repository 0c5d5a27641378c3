"""How good is a model, in rows and in a sentence?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trading_ops.training.card import Card

if TYPE_CHECKING:
    from trading_ops.training.trainer import Progress

ROWS = {"model": "the model", "logistic": "logistic", "base_rate": "base rate", "walk_forward": "logistic before"}


def figure_rows(card: Card) -> list[dict[str, Any]]:
    """Of the hold-out, a row each for the model, the logistic baseline and the base rate; and what it did before."""
    rows = []
    for key, title in ROWS.items():
        scores = card.metrics.get(key)
        if scores is not None:
            low, high = scores["interval"]
            rows.append(
                {
                    "model": card.name,
                    "of": title,
                    "n": scores["n"],
                    "accuracy %": round(100 * scores["accuracy"], 2),
                    "95 %": f"{100 * low:.1f}-{100 * high:.1f}",
                    "Brier": round(scores["brier"], 5),
                    "skill %": None if scores["skill"] is None else round(100 * scores["skill"], 2),
                    "rises %": round(100 * scores["base_rate"], 1),
                }
            )
    return rows


def verdict(card: Card) -> str:
    """Whether it says more than the share of rises in its training days does."""
    scores = card.metrics.get("model")
    if scores is None:
        return "the hold-out has no window, so nothing is known of it"
    low, high = scores["interval"]
    skill = scores["skill"]
    worth = (
        "no better than the base rate" if skill is None or skill <= 0 else f"{100 * skill:.2f} % above the base rate"
    )
    return (
        f"accuracy {100 * scores['accuracy']:.1f} % ({100 * low:.1f}-{100 * high:.1f}) on {scores['n']} unseen hours,"
        f" Brier {scores['brier']:.4f}, {worth}"
    )


def said_of(progress: Progress) -> str:
    """How far a training is, in words."""
    last = progress.last
    if last is None:
        return f"{progress.share:.0%}, first of {progress.epochs} epochs"
    of = f"epoch {last.number} of {progress.epochs}, validation loss {last.validation_loss:.4f}"
    return f"{progress.share:.0%}, {of} (best: epoch {progress.best_epoch})"
