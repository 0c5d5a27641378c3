"""A store as the daily assets fill it: trades, metrics and accuracy of two weeks, and what was decided in them."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from trading_ops.accuracy.joining import join_outcomes
from trading_ops.accuracy.report import Deployed, accuracy_days
from trading_ops.assessments.assessing import assess
from trading_ops.assessments.evidence import Evidence
from trading_ops.assessments.gathering import Setting, gather
from trading_ops.assessments.past import COLLECTION
from trading_ops.assessments.schema import Assessment
from trading_ops.audit.store import AuditStore, Entry
from trading_ops.market.candles import FIELDS, UnknownSymbol
from trading_ops.performance.trades import trades_by_day
from trading_ops.performance.verdict import Limits
from trading_ops.performance.window import measure_days
from trading_ops.portfolio.equity import daily_equity
from trading_ops_tests.accuracy.worlds import said, us
from trading_ops_tests.assessments.examples import AS_OF, DAY, evidence_of
from trading_ops_tests.fakes import ScriptedBot, trade

SOURCE, MODEL = "test", "lstm/BTCUSDT"
HOUR, ONE_DAY = timedelta(hours=1), timedelta(days=1)
END = datetime(2025, 3, 10, tzinfo=UTC)  # of DAY
FIRST_DAY = date(2025, 2, 24)
DAYS = [str(FIRST_DAY + ONE_DAY * number) for number in range(14)]  # up to DAY
TRAINED_UNTIL = datetime(2025, 2, 20, 13, tzinfo=UTC)  # the end of the deployed model's candles


class Scripted:
    """Who says `opinion` to everyone, and what was asked."""

    def __init__(self, opinion: Assessment) -> None:
        self.assessment, self.attempts = opinion, ({"cost_usd": 0.01, "tokens": {"prompt": 900}},)
        self.asked: list[tuple[Any, str]] = []

    def consult(self, prompt: Any, purpose: str, **_: Any) -> Any:
        self.asked.append((prompt, purpose))
        return self


def market(hours: int = 24 * 60, end: datetime = END + 12 * HOUR, seed: int = 1) -> pd.DataFrame:
    """Hourly bars of a random walk, up to and beyond the day."""
    index = pd.date_range(end=end - HOUR, periods=hours, freq="h", tz="UTC", name="time", unit="us")
    close = 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.005, hours)))
    return pd.DataFrame({**dict.fromkeys(FIELDS, close), "volume": 1.0}, index=index)


@cache
def documents() -> dict[str, dict[str, Any]]:
    """What the assets give of the days: 12 trades a day of which 7 win, of two strategies, and one model's accuracy."""
    rows = [
        trade(f"{day}-{n}", f"{day}T{n:02}:30:00+00:00", 10.0 if n < 7 else -10.0, "rsi" if n % 2 else "macd",
              close_reason="signal" if n < 9 else "stop_loss", side="long")
        for day in DAYS for n in range(12)
    ]  # fmt: skip
    bot = ScriptedBot(rows, equity={day: 10_000.0 + number for number, day in enumerate(DAYS)})
    closed = bot.closed_trades(END - 30 * ONE_DAY, END)
    daily = daily_equity(bot.equity_history(END - 30 * ONE_DAY, END + ONE_DAY), FIRST_DAY, date.fromisoformat(DAY))
    rng = np.random.default_rng(2)
    frame = said(list(rng.choice([0.45, 0.55], 24 * 16)), "2025-02-22T00", name=MODEL)
    joined = join_outcomes(frame, {"BTCUSDT": market()})
    deployed = {day: {MODEL: Deployed("lstm-BTCUSDT-000000000001", us("2025-02-20T13"))} for day in DAYS}
    return {
        "closed_trades": trades_by_day(closed, DAYS, label="simulated"),
        "performance_metrics": measure_days(closed.frame, daily, DAYS, Limits(), label="simulated"),
        "model_accuracy_history": accuracy_days(joined, deployed, DAYS, label="simulated"),
    }


def record(store: AuditStore, collection: str, of_days: Mapping[str, Mapping[str, Any]], source: str = SOURCE) -> None:
    """As the IO manager appends them."""
    store.append(collection, [Entry(day, "", {**body, "source": source}) for day, body in of_days.items()])


def record_all(
    store: AuditStore, *, without: tuple[tuple[str, str], ...] = (), last: str = DAY, source: str = SOURCE
) -> None:
    """All documents up to a day, `without` those (collection, day)."""
    for name, of_days in documents().items():
        record(store, name, {d: body for d, body in of_days.items() if d <= last and (name, d) not in without}, source)


def bars_of(frames: Mapping[str, pd.DataFrame]) -> Callable[[str, datetime, datetime], pd.DataFrame]:
    """A source of these bars that knows no other symbol."""

    def bars(symbol: str, start: datetime, end: datetime) -> pd.DataFrame:
        if symbol not in frames:
            raise UnknownSymbol(f"{symbol}: no candles; there are {', '.join(frames)}")
        frame = frames[symbol]
        return frame[(frame.index >= start) & (frame.index < end)]

    return bars


def setting(**changes: Any) -> Setting:
    figures = {
        "source": SOURCE, "candles": "simulated", "symbols": ("BTCUSDT",), "first_day": FIRST_DAY, "now": AS_OF,
        "present": DAY, "links": {"rsi": (MODEL,)},
    }  # fmt: skip
    return Setting(**{**figures, **changes})


def gathered(
    store: AuditStore, *days: str, frames: Mapping[str, pd.DataFrame] | None = None, **changes: Any
) -> Evidence:
    """The evidence of the last of these days, gathered with the others; of DAY where none is named."""
    wanted = list(days) or [DAY]
    found = gather(store, bars_of({"BTCUSDT": market()} if frames is None else frames), wanted, setting(**changes))
    assert list(found) == wanted
    return found[wanted[-1]]


def decide_on(
    store: AuditStore, day: str, opinion: Assessment, *, source: str = SOURCE, hour: int = 3, **changes: Any
) -> dict[str, Any]:
    """Record what is decided with this opinion at that hour after the day, of a quiet day and these changes."""
    end = datetime.fromisoformat(f"{day}T00:00:00+00:00") + ONE_DAY
    evidence = evidence_of(**{"day": day, "as_of": end + hour * HOUR, "forced": True, "source": source, **changes})
    document = assess(evidence, Scripted(opinion).consult)
    record(store, COLLECTION, {day: document}, source)
    return document
