"""What does a symbol's candle file hold already, and how does it grow bar by bar?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trading_ops.market.candles import FIELDS, CandleError, InvalidCandles
from trading_ops.market.parquet import SUFFIX, ParquetCandles, read_footer, write_candles
from trading_ops.market.soundness import check_candles, require_sound

if TYPE_CHECKING:
    import pandas as pd

_EXCHANGE, _ASKED_FROM = "trading_ops.exchange", "trading_ops.asked_from"


class Recording:
    """One symbol's file while it grows; `asked_from` is the hour from which on the exchange was asked for bars."""

    def __init__(self, folder: Path, symbol: str, exchange_id: str, now: Callable[[], datetime]) -> None:
        import pandas as pd

        self.symbol, self.path = symbol, folder / f"{symbol}{SUFFIX}"
        self.corrected: list[str] = []
        self.rejected: list[str] = []
        self.asked_from: datetime | None = None
        self._exchange_id = exchange_id
        nothing = pd.DatetimeIndex([], dtype="datetime64[us, UTC]", name="time")
        self.bars = pd.DataFrame({field: pd.Series(dtype="float64") for field in FIELDS}).set_axis(nothing)
        if self.path.exists():
            self._read(now)
        self._bars_before = len(self.bars)
        self._saved: tuple[pd.DataFrame, datetime | None] = (self.bars, self.asked_from)

    @property
    def first(self) -> datetime | None:
        return None if self.bars.empty else self.bars.index[0].to_pydatetime()

    @property
    def last(self) -> datetime | None:
        return None if self.bars.empty else self.bars.index[-1].to_pydatetime()

    @property
    def new_bars(self) -> int:
        return len(self.bars) - self._bars_before

    def add(self, bars: pd.DataFrame) -> None:
        """Take a page in: impossible bars are left out, recorded ones compared and replaced."""
        import pandas as pd

        good, problems = _possible(bars, self.symbol)
        self.rejected += problems
        again = good.index.intersection(self.bars.index)
        for time in again[(good.loc[again] != self.bars.loc[again]).any(axis=1)]:
            changes = [
                f"{field} {self.bars.at[time, field]:.10g} is now {good.at[time, field]:.10g}"
                for field in FIELDS
                if self.bars.at[time, field] != good.at[time, field]
            ]
            self.corrected.append(f"{self.symbol} {time:%Y-%m-%d %H:%M} UTC: {', '.join(changes)}")
        if not good.empty and not good.equals(self.bars.loc[again]):
            self.bars = pd.concat([self.bars.drop(again), good]).sort_index()

    def save(self) -> None:
        """Put what changed into the file, durably."""
        if self.bars.empty or (self.bars is self._saved[0] and self.asked_from == self._saved[1]):
            return
        assert self.asked_from is not None
        notes = {_EXCHANGE: self._exchange_id, _ASKED_FROM: self.asked_from.isoformat()}
        write_candles(self.path, require_sound(self.bars, self.symbol), notes)
        self._saved = (self.bars, self.asked_from)

    def _read(self, now: Callable[[], datetime]) -> None:
        footer = read_footer(self.path)
        if further := sorted(set(footer.columns) - {"ts", *FIELDS}):
            raise CandleError(
                f"{self.path}: has further columns ({', '.join(further)}), which a download would lose;"
                " name another folder"
            )
        owner = footer.notes.get(_EXCHANGE, self._exchange_id)
        if owner != self._exchange_id:
            raise CandleError(
                f"{self.path}: holds bars of {owner}, which those of {self._exchange_id} must not continue;"
                f" download from {owner}, or into another folder"
            )
        if not footer.bars:
            return
        bars = ParquetCandles(self.path.parent, now, symbols=[self.symbol]).candles(self.symbol)
        try:
            self.bars = require_sound(bars, self.symbol)
        except InvalidCandles as error:
            raise InvalidCandles(f"{self.path}: {error}; repair it, or move it away and download it anew") from error
        noted = footer.notes.get(_ASKED_FROM)
        self.asked_from = (
            min(datetime.fromisoformat(noted), self.bars.index[0].to_pydatetime()) if noted else self.first
        )


def _possible(bars: pd.DataFrame, symbol: str) -> tuple[pd.DataFrame, list[str]]:
    """The bars without those that cannot be, and what is wrong with each of these (found by halving)."""
    import pandas as pd

    report = check_candles(bars, symbol)
    if report.sound:
        return bars, []
    if len(bars) == 1:
        return bars[:0], [report.problems[0]]
    middle = len(bars) // 2
    (early, wrong), (late, wrong_too) = _possible(bars[:middle], symbol), _possible(bars[middle:], symbol)
    return pd.concat([early, late]), wrong + wrong_too
