"""How right were the champions on these days? What they said, or would have said, against what came."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.accuracy.joining import join_outcomes
from trading_ops.accuracy.outcomes import HOUR_US
from trading_ops.accuracy.predictions import COLUMNS, read_predictions
from trading_ops.accuracy.report import LONG_DAYS, Deployed, accuracy_days
from trading_ops.bot.client import BotError, BotUnreachable
from trading_ops.market.candles import HOUR, CandleError
from trading_ops.market.soundness import require_sound
from trading_ops.training.samples import EPOCH
from trading_ops.training.saying import Bars, reconstruct

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.audit.store import AuditStore
    from trading_ops.training.card import Card
    from trading_ops.training.registry import Registry

DAY = timedelta(days=1)
REACHES = (LONG_DAYS, 14, 1)  # days back that are asked for: a bot's chart may not go as far as a folder does


def measure_accuracy(
    store: AuditStore, registry: Registry, bars: Bars, days: Sequence[str], *, label: str, source: str
) -> dict[str, dict[str, Any]]:
    """The document of each day, as `accuracy.report` describes it; `bars`, `label` and `source` are the bot's.

    An hour without a recorded prediction is reconstructed. Without champions and predictions no candle is read. Raises
    StoreUnavailable, BotUnreachable and RegistryError.
    """
    import pandas as pd

    first, until = _midnight(days[0]), _midnight(days[-1]) + DAY
    since = first - LONG_DAYS * DAY
    said = read_predictions(store, (since - DAY).date(), until.date(), source=source)
    cards = {entry.card.model_id: entry.card for entry in registry.entries()}
    champions = registry.champions()
    reigns = {name: registry.reigns(name) for name in champions}
    symbols = sorted({*said["symbol"], *(name.partition("/")[2] for name in reigns)})
    warm_up = max((_warm_up(card) for card in cards.values()), default=0)
    frames, unreadable = read_bars(bars, symbols, first, until, warm_up)
    unsaid = {card.name: _unsaid(said, card, frames, since, until) for card in champions.values()}
    again = reconstruct(registry, frames, unsaid, label=label) if unsaid else said[:0]
    known = pd.concat([said, again], ignore_index=True).astype(COLUMNS)
    deployed = {day: _deployed_at(_midnight(day) + DAY, reigns, cards) for day in days}
    return accuracy_days(join_outcomes(known, frames), deployed, days, label=label, unreadable=unreadable)


def read_bars(
    bars: Bars, symbols: Collection[str], first: datetime, until: datetime, warm_up: int
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Each symbol's sound bars, as far back as they are to be had, and why others have none. Raises BotUnreachable."""
    frames: dict[str, pd.DataFrame] = {}
    unreadable: dict[str, str] = {}
    for symbol in symbols:
        for reach in REACHES:
            try:
                start = first - reach * DAY - warm_up * HOUR
                frames[symbol] = require_sound(bars(symbol, start, until), symbol)
                unreadable.pop(symbol, None)
                break
            except BotUnreachable:
                raise
            except (BotError, CandleError) as error:
                unreadable[symbol] = str(error)
    return frames, unreadable


def _warm_up(card: Card) -> int:
    from trading_ops.training.features import WARM_UP

    return WARM_UP + card.lookback + card.horizon_hours


def _unsaid(
    said: pd.DataFrame, champion: Card, frames: Mapping[str, pd.DataFrame], since: datetime, until: datetime
) -> np.ndarray:
    """The closes of the symbol's bars whose outcome falls into [since, until), and of which nobody said anything."""
    if champion.symbol not in frames:
        return np.empty(0, "int64")
    closes = frames[champion.symbol].index.as_unit("us").asi8 + HOUR_US
    realised = closes + champion.horizon_hours * HOUR_US
    wanted = closes[(realised >= _us(since)) & (realised < _us(until))]
    told = said.loc[(said["name"] == champion.name) & (said["role"] == "champion"), "decided_us"]
    return np.setdiff1d(wanted, told.to_numpy())


def _deployed_at(
    moment: datetime, reigns: Mapping[str, list[tuple[str, datetime]]], cards: Mapping[str, Card]
) -> dict[str, Deployed]:
    """The champion of each name just before `moment`."""
    found = {}
    for name, turns in reigns.items():
        before = [model_id for model_id, since in turns if since < moment]
        if before and before[-1] in cards:
            found[name] = Deployed(before[-1], _us(cards[before[-1]].candles_until))
    return found


def _midnight(day: str) -> datetime:
    return datetime.combine(date.fromisoformat(day), time(), UTC)


def _us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)
