"""Whose candles does this configuration use, and where are they downloaded from?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trading_ops.market.candles import CandleSource
    from trading_ops.market.exchange import ExchangeCandles
    from trading_ops.settings import Settings


def configured_candles(
    settings: Settings, symbols: tuple[str, ...] | None, now: Callable[[], datetime]
) -> CandleSource:
    """Simulated, recorded or replayed candles of these symbols, or (None) of all that are recorded."""
    from trading_ops.market.parquet import ParquetCandles
    from trading_ops.market.replayed import ReplayedCandles
    from trading_ops.market.simulated import SimulatedCandles

    own = settings.symbols
    if settings.candles is None:
        return SimulatedCandles(now, own)
    recorded = ParquetCandles(settings.candles, now, symbols=symbols)
    return ReplayedCandles(recorded, own, now, others=symbols != own) if settings.replay else recorded


def configured_exchange(settings: Settings, name: str) -> ExchangeCandles:
    """An exchange's candles; a mirror stands in for the configured exchange only."""
    from trading_ops.market.exchange import ExchangeCandles

    mirrored = settings.exchange_url is not None and name == settings.exchange
    return ExchangeCandles(name, api_url=str(settings.exchange_url) if mirrored else None)
