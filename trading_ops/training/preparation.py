"""Which candles does a training learn from, and which are kept back?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from trading_ops.market.candles import (
    HOUR,
    CandleSource,
    StaleSymbol,
    UnknownSymbol,
    digest_of,
    require_known,
    split_fresh,
    why_stale,
)
from trading_ops.training.request import FEWEST_BARS, InvalidRequest, TrainingRequest

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.training.samples import Samples
    from trading_ops.training.splits import Split

# what the weights follow from; with another text in one of these it is another model
LEARNT_BY = ("features.py", "samples.py", "splits.py", "calibration.py", "trainer.py", "loop.py", "learner.py",
             "descent.py", "repeatable.py", "model.py", "networks", "../machine_code.py")  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A training whose candles are there: it learns from [start, holdout) and is judged on [holdout, end)."""

    request: TrainingRequest
    symbol: str
    candles: pd.DataFrame
    samples: Samples
    split: Split
    start: datetime
    holdout: datetime
    end: datetime
    label: str
    digests: dict[str, str]

    @property
    def name(self) -> str:
        return f"{self.request.model_type}/{self.symbol}"

    @property
    def model_id(self) -> str:
        """Of what it is made: the same candles, code, parameters and seed give the same id."""
        made_of = json.dumps([self.digests, self.request.seed], sort_keys=True)
        return f"{self.request.model_type}-{self.symbol}-{sha256(made_of.encode()).hexdigest()[:12]}"


def prepare(request: TrainingRequest, symbol: str, source: CandleSource) -> Prepared:
    """Fetch the bars and split them. Raises InvalidRequest for a period the source cannot serve, CandleError else.

    The end is a UTC midnight, so that a training that was killed goes on with the same bars all day.
    """
    from trading_ops.training.features import WARM_UP, samples_of
    from trading_ops.training.samples import LOOKBACK
    from trading_ops.training.splits import TooFewRows, holdout_start, split

    spans = source.survey().spans
    try:
        require_known(symbol, spans, source.label)
    except UnknownSymbol as error:
        raise InvalidRequest(f"symbol {error}") from error
    span = spans[symbol]
    if request.end is None and symbol in split_fresh(spans)[1]:
        raise StaleSymbol(f"{symbol}: {why_stale(symbol, spans, source.label)}; set end to a day up to then")
    last = datetime.combine(span.end.date(), time(), span.end.tzinfo)
    end = request.end_at or last
    if not span.first < end <= last:
        raise InvalidRequest(
            f"end is {end:%Y-%m-%d}, itself left out; the {source.label} candles of {symbol} go from"
            f" {span.first:%Y-%m-%d %H:%M} to {span.end:%Y-%m-%d %H:%M} UTC, so a day up to {last:%Y-%m-%d} would be"
            " right"
        )
    holdout = holdout_start(end, request.holdout_days)
    start = max(span.first, holdout - timedelta(days=request.days_of_data))
    candles = source.candles(symbol, max(span.first, start - (WARM_UP + LOOKBACK) * HOUR), end)
    bars = int((candles.index >= start).sum())
    if bars < FEWEST_BARS or start >= holdout:
        raise InvalidRequest(
            f"{symbol} has {bars} bars from {start:%Y-%m-%d} to {end:%Y-%m-%d}, of which the newest"
            f" {request.holdout_days} days are kept back; at least {FEWEST_BARS}, and some before those days, would be"
            " right: choose more days_of_data, a smaller holdout_days, or a symbol with a longer past"
        )
    samples = samples_of(symbol, candles, horizon=request.horizon_hours)
    made_of = json.dumps({**request.parameters, "model_type": request.model_type}, sort_keys=True)
    digests = {
        "data": digest_of(candles),
        "code": code_digest(),
        "parameters": sha256(made_of.encode()).hexdigest(),
    }
    try:
        parts = split(samples, start, holdout, request.validation_split)
    except TooFewRows as error:
        raise InvalidRequest(str(error)) from error
    return Prepared(request, symbol, candles, samples, parts, start, holdout, end, source.label, digests)


@cache
def code_digest() -> str:
    """SHA-256 (hex) of the modules that the weights follow from, and of torch's version."""
    folder, digest = Path(__file__).parent, sha256()
    for name in LEARNT_BY:
        for path in sorted((folder / name).rglob("*.py")) if (folder / name).is_dir() else [folder / name]:
            digest.update(path.name.encode() + path.read_bytes())
    try:
        digest.update(version("torch").encode())
    except PackageNotFoundError:
        digest.update(b"no torch")
    return digest.hexdigest()
