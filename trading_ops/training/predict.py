"""What does a champion say of the next hours, and may it be acted on?"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.accuracy.predictions import signal_of
from trading_ops.audit.store import AuditStore, Entry
from trading_ops.market.candles import HOUR, CandleSource, require_known
from trading_ops.training.forecast import VOLATILITY_BARS, forecast
from trading_ops.training.samples import EPOCH

if TYPE_CHECKING:
    from trading_ops.training.registry import Registry

COLLECTION = "forecasts"
UNSEEN_DAYS = 180  # of those the model never saw, the newest so many give the residuals


def predict_price(
    name: str, hours: int, source: CandleSource, registry: Registry, store: AuditStore, *, stale_days: float
) -> dict[str, Any]:
    """The forecast of the next `hours` hours by the champion of this name; stored, and given as its document.

    Raises RegistryError where there is no champion, CandleError, and TooFewWindows.
    """
    from trading_ops.training.features import WARM_UP, samples_of

    card = registry.require_champion(name)
    model = registry.model(card.model_id)
    spans = source.survey().spans
    require_known(card.symbol, spans, source.label)
    end = spans[card.symbol].end
    unseen = max(card.trained_until, end - timedelta(days=UNSEEN_DAYS))
    warm_up = (WARM_UP + card.lookback + VOLATILITY_BARS) * HOUR
    candles = source.candles(card.symbol, max(spans[card.symbol].first, unseen - warm_up), end)
    samples = samples_of(card.symbol, candles, horizon=card.horizon_hours, lookback=card.lookback)
    rows = samples.decidable()
    said = np.full(len(samples.times), np.nan)
    said[rows] = model.probabilities(samples, rows)
    decided_at = samples.decided_at(len(samples.times) - 1)
    ahead = forecast(
        samples.times,
        candles["close"].to_numpy("float64"),
        np.log(said) - np.log1p(-said),
        unseen_from=(unseen - EPOCH) // timedelta(microseconds=1),
        horizon=card.horizon_hours,
        hours=hours,
    )
    age = card.age_days(decided_at)
    up = float(said[-1])
    signal, why = signal_of(up, age_days=age, stale_days=stale_days)
    document = {
        "name": name,
        "model_id": card.model_id,
        "symbol": card.symbol,
        "decided_at": decided_at.isoformat(),
        "close": float(candles["close"].iloc[-1]),
        "probability_up": round(up, 4),
        "horizon_hours": card.horizon_hours,
        "signal": signal,
        "model_age_days": round(age, 2),
        "hours": [hour.document for hour in ahead],
        "candles": source.label,
        "sentence": f"{card.symbol} rises within {card.horizon_hours} h with probability {up:.1%} ({name},"
        f" {decided_at:%Y-%m-%d %H:%M} UTC): {signal}{f', {why}' if why else ''}",
    }
    store.append(COLLECTION, [Entry(decided_at.date().isoformat(), f"{name}/{decided_at:%H}", document)])
    return document
