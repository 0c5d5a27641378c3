"""What did a model say at the close of an hour? Written down when it is said, once, and never changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from trading_ops.audit.store import Entry, StoreUnavailable

if TYPE_CHECKING:
    import pandas as pd

    from trading_ops.audit.store import AuditStore, Receipt, Record

COLLECTION = "predictions"
LONGEST_HORIZON = 168  # hours
Role = Literal["champion", "shadow"]
Signal = Literal["BUY", "SELL", "HOLD"]
# of a frame of predictions; `against` names the champion that took a shadow's place, "" for a champion
COLUMNS = {
    "name": "object", "model_id": "object", "symbol": "object", "role": "object", "against": "object",
    "decided_us": "int64", "horizon_hours": "int64", "probability_up": "float64", "base_rate": "float64",
    "reconstructed": "bool",
}  # fmt: skip
_TYPES = {
    "model_id": str, "model_type": str, "symbol": str, "role": str, "decided_at": str, "made_at": str,
    "horizon_hours": int, "base_rate": float, "trained_until": str, "candles_until": str,
}  # fmt: skip
_MOMENTS = ("decided_at", "made_at", "trained_until", "candles_until")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prediction:
    """Whether `symbol` rises within `horizon_hours` of `decided_at`, the close of a bar, UTC.

    `probability_up` is None where the model could say nothing; HOLD always has its `reason`. `base_rate`,
    `trained_until` and `candles_until` are the model's; `source` and `candles` say whose bars these are. `against`: of
    a shadow, the model that took its place.
    """

    model_id: str
    model_type: str
    symbol: str
    role: Role
    decided_at: datetime
    made_at: datetime
    horizon_hours: int
    probability_up: float | None
    signal: Signal
    reason: str
    base_rate: float
    trained_until: datetime
    candles_until: datetime
    candles: str
    source: str
    against: str = ""

    @property
    def name(self) -> str:
        """What it is a prediction of, such as lstm/BTCUSDT."""
        return f"{self.model_type}/{self.symbol}"

    @property
    def key(self) -> str:
        """Its place within the UTC day of `decided_at`: a name has one champion, and a model is a shadow once."""
        who = self.name if self.role == "champion" else f"shadow/{self.model_id}"
        return f"{who}/{self.decided_at:%H}"

    @property
    def entry(self) -> Entry:
        moments = {name: getattr(self, name).isoformat() for name in _MOMENTS}
        return Entry(str(self.decided_at.date()), self.key, {**asdict(self), **moments})


def signal_of(
    probability_up: float | None, *, age_days: float, stale_days: float, unknown: str = ""
) -> tuple[Signal, str]:
    """What to do on it, and why not where that is nothing: unknown, or of a model that is too old.

    >>> signal_of(0.53, age_days=40, stale_days=45)
    ('BUY', '')
    >>> signal_of(0.53, age_days=46, stale_days=45)
    ('HOLD', 'the model is 46 days old, more than 45: train it anew')
    """
    if probability_up is None:
        return "HOLD", unknown
    if age_days > stale_days:
        return "HOLD", f"the model is {age_days:.0f} days old, more than {stale_days:g}: train it anew"
    if probability_up == 0.5:
        return "HOLD", "a rise is as probable as none"
    return ("BUY" if probability_up > 0.5 else "SELL"), ""


def record_predictions(store: AuditStore, predictions: Sequence[Prediction]) -> list[Receipt]:
    """Write those whose hour and model have none yet; receipts of these.

    Two processes at once may both write: readers believe the first. While the store is down all are spooled.
    """
    days = sorted({str(p.decided_at.date()) for p in predictions})
    known: set[tuple[str, str, str]] = set()
    with suppress(StoreUnavailable):
        records = store.read(COLLECTION, partitions=days, all_revisions=True) if days else []
        known = {(r.partition, r.key, str(r.body.get("source"))) for r in records}
    fresh = [entry for p in predictions if ((entry := p.entry).partition, entry.key, p.source) not in known]
    return store.append(COLLECTION, fresh) if fresh else []


def read_predictions(store: AuditStore, first: date, last: date, *, source: str) -> pd.DataFrame:
    """What was said of bars of this source that closed from `first` to `last`, both included; COLUMNS, in order of
    time.

    Of several that claim one hour the first written counts. One that was made when its outcome was known already is
    none, and one that cannot be read is left out and logged.
    """
    records = store.read(COLLECTION, first=str(first), last=str(last), all_revisions=True)
    rows: dict[tuple[str, str], Mapping[str, Any]] = {}
    for record in records:
        if record.body.get("source") != source:
            continue
        if (wrong := _unusable(record)) is not None:
            _log.warning("%s %s %s is left out: %s", COLLECTION, record.partition, record.key, wrong)
            continue
        rows.setdefault((record.partition, record.key), record.body)
    return _frame(list(rows.values()))


def no_predictions() -> pd.DataFrame:
    """A frame of predictions without any."""
    return _frame([])


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    def moments(field: str) -> pd.Series:
        stamps = pd.to_datetime([row[field] for row in rows], utc=True, format="ISO8601")
        return pd.Series(stamps.as_unit("us").asi8, dtype="int64")

    frame = pd.DataFrame(
        {
            "name": [f"{row['model_type']}/{row['symbol']}" for row in rows],
            **{field: [row[field] for row in rows] for field in ("model_id", "symbol", "role", "horizon_hours")},
            "against": [row.get("against") or "" for row in rows],
            "probability_up": [
                float("nan") if row["probability_up"] is None else row["probability_up"] for row in rows
            ],
            "base_rate": [row["base_rate"] for row in rows],
            "decided_us": moments("decided_at"),
            "reconstructed": False,
        }
    )
    realised = frame["decided_us"] + frame["horizon_hours"] * pd.Timedelta(hours=1) // pd.Timedelta(1, "us")
    frame = frame[moments("made_at") < realised].astype(COLUMNS)[list(COLUMNS)]
    return frame.sort_values(["decided_us", "name", "role", "model_id"], ignore_index=True)


def _unusable(record: Record) -> str | None:
    """What is wrong with a stored prediction, None where nothing is."""
    body = record.body
    for name, kind in _TYPES.items():
        if not isinstance(body.get(name), (int, float) if kind is float else kind):
            return f"{name} is {body.get(name)!r:.40}; a {kind.__name__} is needed"
    if not 0.0 <= body["base_rate"] <= 1.0:
        return f"base_rate is {body['base_rate']!r:.40}; from 0 to 1 is needed"
    if not 1 <= body["horizon_hours"] <= LONGEST_HORIZON:
        return f"horizon_hours is {body['horizon_hours']!r:.40}; 1 to {LONGEST_HORIZON} is needed"
    if body["role"] not in get_args(Role) or not isinstance(body.get("against", ""), str):
        return f"role is {body['role']!r:.40}, against {body.get('against')!r:.40}"
    if "probability_up" not in body:
        return "probability_up is missing"
    said = body["probability_up"]
    if said is not None and not (isinstance(said, (int, float)) and 0.0 <= said <= 1.0):
        return f"probability_up is {said!r:.40}; from 0 to 1 is needed"
    try:
        moments = [datetime.fromisoformat(body[name]) for name in _MOMENTS]
    except ValueError as error:
        return str(error)
    if any(moment.utcoffset() != timedelta(0) for moment in moments):
        return "a time is not in UTC"
    return None
