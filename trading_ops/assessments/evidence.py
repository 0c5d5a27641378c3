"""What is a decision on retraining based on? Plain figures of seven days, oldest to newest, with their sample sizes."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from trading_ops.audit.chain import canonical_json

VERSION = 1
Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]
Span = tuple[Number, Number] | None


class _Figures(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Day(_Figures):
    """One UTC day: the trades closed on it, and the account's metrics over the seven days ending with it."""

    day: str
    trades: Count
    wins: Count
    win_rate_pct: Number | None
    window_trades: Count | None
    window_win_rate_pct: Number | None
    window_win_rate_interval_pct: Span
    window_avg_profit_pct: Number | None
    window_avg_profit_interval_pct: Span
    window_sharpe_ratio: Number | None
    window_sharpe_standard_error: Number | None
    accuracy: Share | None
    accuracy_n: Count


class TradeGroup(_Figures):
    """Trades of the seven days that have strategy, symbol, side and close reason in common; all four are the bot's."""

    strategy: str
    symbol: str
    side: str
    close_reason: str
    trades: Count
    wins: Count
    avg_profit_pct: Number


class Breach(_Figures):
    """A strategy's metric past its critical limit over the seven days; confirmed: its 95 % interval excludes it."""

    strategy: str
    metric: str
    value: Number
    limit: Number
    interval: Span
    confirmed: bool


class Model(_Figures):
    """A deployed model: the age and bars since the end of its candles, and how right it was."""

    name: str
    model_id: str
    age_days: Number
    new_bars: Count
    n_7d: Count
    accuracy_7d: Share | None
    drop_7d_pp: Number | None
    drop_7d_interval_pp: Span
    drift: bool | None


class Market(_Figures):
    """A symbol up to the end of the day; percentages in percent, volatility a standard deviation of hourly returns."""

    symbol: str
    bars_7d: Count
    volatility_24h_pct: Number | None
    volatility_7d_pct: Number | None
    change_24h_pct: Number | None
    change_7d_pct: Number | None
    volume_ratio: Number | None


class Attempts(_Figures):
    """Retrains before now, whatever came of them: hours since the last, and how many within seven days."""

    hours_since_last: Number | None = None
    last_7_days: Count = 0


class Adviser(_Figures):
    """What GPT-4's word counts for: `deciding`, or `advisory` where its confidence did not come true, and why."""

    standing: str = Field("deciding", pattern="^(deciding|advisory)$")
    why: str = ""
    scored: Count = 0
    brier: Number | None = None


class Evidence(_Figures):
    """All that a decision may depend on. `days` and the daily figures run oldest to newest; the current day is last.

    `missing` says in words which input is not there; `links`: the models each strategy uses; `trainable`: whether this
    installation trains models; `vetoed_since`: the first of the days up to the day before on which GPT-4 held back a
    retrain that was due. `present`: the newest complete day, on which alone anything is done. `digests`: SHA-256 of
    each input.
    """

    version: int = VERSION
    day: str
    as_of: datetime
    present: bool
    forced: bool
    source: str
    candles: str
    days: tuple[Day, ...]
    trades: tuple[TradeGroup, ...] = ()
    breaches: tuple[Breach, ...] = ()
    sharpe_ratio_90d: Number | None = None
    sharpe_standard_error_90d: Number | None = None
    models: tuple[Model, ...] = ()
    market: tuple[Market, ...] = ()
    links: dict[str, tuple[str, ...]] = {}
    trainable: bool = True
    attempts: Attempts = Attempts()
    vetoed_since: str | None = None
    adviser: Adviser = Adviser()
    missing: tuple[str, ...] = ()
    digests: dict[str, str] = {}

    @property
    def current(self) -> Day | None:
        """The day that is decided on; None where nothing is recorded of it."""
        return self.days[-1] if self.days and self.days[-1].day == self.day else None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the evidence as canonical JSON."""
        return digest_of(self.model_dump(mode="json"))


def digest_of(value: Any) -> str:
    """SHA-256 (hex) of a JSON value in its canonical form."""
    return sha256(canonical_json(value).encode()).hexdigest()
