"""What do the champions say at the close of the newest bar, and what would they have said of hours nobody recorded?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops.accuracy.predictions import COLUMNS, Prediction, no_predictions, signal_of
from trading_ops.bot.client import BotError
from trading_ops.market.candles import HOUR, CandleError
from trading_ops.training.card import Card
from trading_ops.training.request import NO_TORCH
from trading_ops.training.samples import EPOCH

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.training.registry import Registry
    from trading_ops.training.samples import Samples

Bars = Callable[[str, datetime, datetime], "pd.DataFrame"]  # of a symbol, opening in [start, end)
_log = logging.getLogger(__name__)
_ANOTHER_MARKET = ("simulated", "replayed")


@dataclass(frozen=True, slots=True)
class Said:
    """The predictions of an hour, and why a model could not be used at all, by its name."""

    predictions: list[Prediction]
    broken: dict[str, str]


class Unsaid(Exception):
    """A model says nothing this hour; the message says why."""


def say(registry: Registry, bars: Bars, now: datetime, *, stale_days: float, label: str, source: str) -> Said:
    """What each champion, and each that was replaced within 30 days, says at the last full hour.

    `bars`, `label`, `source` are the bot's. A model that can say nothing has a prediction all the same: HOLD, and why.
    """
    from trading_ops.training.features import WARM_UP

    decided_at = now.replace(minute=0, second=0, microsecond=0)
    speakers = [(card, "") for card in registry.champions().values()]
    speakers += [(shadow.card, shadow.replaced_by) for shadow in registry.shadows(now)]
    seen: dict[tuple[str, int, int], Samples | str] = {}
    predictions, broken = [], registry.damaged_champions()
    for card, against in speakers:
        shape = (card.symbol, card.horizon_hours, card.lookback)
        if shape not in seen:
            seen[shape] = _seen(bars, card, decided_at, WARM_UP + card.lookback)
        probability, unknown = None, ""
        try:
            probability = _probability(registry, card, seen[shape], label)
        except Unsaid as why:
            unknown = str(why)
            if isinstance(why, Broken):
                broken[f"{card.name}, shadow" if against else card.name] = unknown
        age = card.age_days(decided_at)
        signal, reason = signal_of(probability, age_days=age, stale_days=stale_days, unknown=unknown)
        predictions.append(
            Prediction(
                model_id=card.model_id, model_type=card.model_type, symbol=card.symbol,
                role="shadow" if against else "champion", decided_at=decided_at, made_at=now,
                horizon_hours=card.horizon_hours, probability_up=probability, signal=signal, reason=reason,
                base_rate=card.base_rate, trained_until=card.trained_until, candles_until=card.candles_until,
                candles=label, source=source, against=against,
            )
        )  # fmt: skip
    return Said(predictions, broken)


class Broken(Unsaid):
    """It will not say anything in the next hour either."""


def _seen(bars: Bars, card: Card, decided_at: datetime, hours: int) -> Samples | str:
    """The newest bars as the model sees them, or why it sees nothing."""
    from trading_ops.training.features import samples_of

    try:
        frame = bars(card.symbol, decided_at - hours * HOUR, decided_at)
        samples = samples_of(card.symbol, frame, horizon=card.horizon_hours, lookback=card.lookback)
    except (BotError, CandleError) as error:
        return f"no candles: {error}"
    if not len(samples.times):
        return f"the candles are late: no bar of {card.symbol} closed in the last {hours} h"
    newest = samples.decided_at(len(samples.times) - 1)
    if newest < decided_at:
        return f"the candles are late: the newest bar of {card.symbol} closed at {newest:%Y-%m-%d %H:%M} UTC"
    if len(samples.times) - 1 not in samples.decidable()[-1:]:
        return f"features are unknown: a bar of {card.symbol} is missing in the last {hours} h"
    return samples


def _probability(registry: Registry, card: Card, samples: Samples | str, label: str) -> float:
    """Raises Unsaid."""
    from trading_ops.training.model import InvalidModel
    from trading_ops.training.model_files import RegistryError

    if not same_market(card.candles, label):
        raise Broken(f"the model learnt from {card.candles} candles, and these are {label}: train it on these")
    if isinstance(samples, str):
        raise Unsaid(samples)
    try:
        row = np.array([len(samples.times) - 1])
        return float(registry.model(card.model_id).probabilities(samples, row)[0])
    except (InvalidModel, RegistryError) as error:
        raise Broken(f"the model cannot be used: {error}") from error
    except ModuleNotFoundError as error:
        raise Broken(NO_TORCH) from error


def same_market(learnt: str, label: str) -> bool:
    """Whether a model of candles with that label may speak of these; what is made up or shifted is a market of its own.

    >>> same_market("recorded", "live"), same_market("simulated", "live"), same_market("simulated", "simulated")
    (True, False, True)
    """
    return learnt == label or not (learnt.startswith(_ANOTHER_MARKET) or label.startswith(_ANOTHER_MARKET))


def reconstruct(
    registry: Registry, frames: Mapping[str, pd.DataFrame], unsaid: Mapping[str, np.ndarray], *, label: str
) -> pd.DataFrame:
    """What deployed models would have said at these closes; a frame of predictions, marked `reconstructed`.

    `frames`: the candles of each symbol, from a look-back before the first close on; `unsaid`: by name the closes in
    microseconds since 1970 UTC, ascending. Of each close speaks the champion of that moment, else the model of that
    name that was a champion at some time and had learnt last by then; none that had not stopped learning by then.
    """
    import pandas as pd

    from trading_ops.training.features import samples_of

    of_name: dict[str, list[Card]] = {}
    for entry in registry.entries():
        if entry.state != "candidate" and entry.files and same_market(entry.card.candles, label):
            of_name.setdefault(entry.card.name, []).append(entry.card)
    found, samples = [no_predictions()], {}
    for name, closes in unsaid.items():
        cards = {card.model_id: card for card in of_name.get(name, ())}
        speaker = speakers_at(closes, cards, registry.reigns(name))
        for model_id, card in cards.items():
            shape = (card.symbol, card.horizon_hours, card.lookback)
            theirs = closes[speaker == model_id]
            if not len(theirs) or card.symbol not in frames:
                continue
            if shape not in samples:
                symbol, horizon, lookback = shape
                samples[shape] = samples_of(symbol, frames[symbol], horizon=horizon, lookback=lookback)
            found.append(_reconstructed(registry, card, samples[shape], theirs))
    return pd.concat(found, ignore_index=True).astype(COLUMNS)


def speakers_at(closes: np.ndarray, cards: Mapping[str, Card], reigns: list[tuple[str, datetime]]) -> np.ndarray:
    """The id of the model that speaks at each close, "" where none may."""
    speaker = np.full(len(closes), "", dtype=object)
    for card in sorted(cards.values(), key=lambda card: (card.trained_until, card.created_at, card.model_id)):
        speaker[closes >= _us(card.trained_until)] = card.model_id
    for place, (model_id, since) in enumerate(reigns):
        until = _us(reigns[place + 1][1]) if place + 1 < len(reigns) else np.iinfo("int64").max
        learnt = _us(cards[model_id].trained_until) if model_id in cards else np.iinfo("int64").max
        reigned = (closes >= _us(since)) & (closes < until)
        speaker[reigned] = np.where(closes[reigned] >= learnt, model_id, "")
    return speaker


def _reconstructed(registry: Registry, card: Card, samples: Samples, closes: np.ndarray) -> pd.DataFrame:
    """A row of each close whose window is whole; a model that cannot be used any more has none."""
    import pandas as pd

    from trading_ops.training.model import InvalidModel
    from trading_ops.training.model_files import RegistryError

    rows = samples.decidable()
    rows = rows[np.isin(samples.times[rows] + HOUR_US, closes)]
    try:
        probabilities = registry.model(card.model_id).probabilities(samples, rows)
    except (InvalidModel, RegistryError, ModuleNotFoundError) as error:  # every hour tells of it, too
        _log.warning("%s hours of %s are not reconstructed: %s", len(rows), card.model_id, error)
        return no_predictions()
    frame = pd.DataFrame({"decided_us": samples.times[rows] + HOUR_US, "probability_up": probabilities})
    return frame.assign(
        name=card.name, model_id=card.model_id, symbol=card.symbol, role="champion", against="",
        horizon_hours=card.horizon_hours, base_rate=card.base_rate,
        reconstructed=True,
    )[list(COLUMNS)]  # fmt: skip


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
