"""What does a champion say of the next hours, and may it be acted on?"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np

from trading_ops.accuracy.predictions import signal_of
from trading_ops.audit.store import AuditStore, Entry
from trading_ops.market.candles import HOUR, CandleError, CandleSource, require_known
from trading_ops.training.forecast import VOLATILITY_BARS, forecast
from trading_ops.training.samples import EPOCH
from trading_ops.training.saying import same_market

if TYPE_CHECKING:
    from trading_ops.training.registry import Registry

COLLECTION = "forecasts"
LATE = 2 * HOUR  # the hour that is not over, and one for a source that is behind
UNSEEN_DAYS = 180  # of those the model never saw, the newest so many give the residuals


def predict_price(
    name: str,
    hours: int,
    source: CandleSource,
    registry: Registry,
    store: AuditStore,
    *,
    now: datetime,
    stale_days: float,
) -> dict[str, Any]:
    """The forecast of the next `hours` hours by the champion of this name; stored, and given as its document.

    HOLD, with the reason, as the hourly predictions say it: late candles, another market, a stale model. Raises
    RegistryError where there is no champion, CandleError, and TooFewWindows.
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
    if not np.isfinite(said[-1]):
        raise CandleError(f"{name} can say nothing at {decided_at:%Y-%m-%d %H:%M} UTC: a bar is missing in its window")
    ahead = forecast(
        samples.times,
        candles["close"].to_numpy("float64"),
        np.log(said) - np.log1p(-said),
        unseen_from=(unseen - EPOCH) // timedelta(microseconds=1),
        horizon=card.horizon_hours,
        hours=hours,
    )
    age = card.age_days(now)
    up, unknown = float(said[-1]), ""
    if not same_market(card.candles, source.label):
        unknown = f"the model learnt from {card.candles} candles, and these are {source.label}"
    elif now - decided_at > LATE:
        unknown = f"the candles are late: the newest bar closed at {decided_at:%Y-%m-%d %H:%M} UTC"
    signal, why = signal_of(None if unknown else up, age_days=age, stale_days=stale_days, unknown=unknown)
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
