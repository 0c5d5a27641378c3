"""Evidence and opinions for the tests: a quiet day on which nothing is due, and what is changed about it."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from trading_ops.assessments.evidence import Attempts, Breach, Day, Evidence, Market, Model
from trading_ops.assessments.schema import Assessment

DAY = "2025-03-09"
AS_OF = datetime(2025, 3, 10, 3, tzinfo=UTC)


def day_of(back: int = 0, *, trades: int = 10, wins: int = 7, **changes: Any) -> Day:
    figures = {
        "day": str(date.fromisoformat(DAY) - timedelta(days=back)),
        "trades": trades,
        "wins": wins,
        "win_rate_pct": 100 * wins / trades if trades else None,
        "window_trades": 70,
        "window_win_rate_pct": 70.0,
        "window_win_rate_interval_pct": (58.5, 79.5),
        "window_avg_profit_pct": 2.7,
        "window_avg_profit_interval_pct": (1.9, 3.5),
        "window_sharpe_ratio": 2.2,
        "window_sharpe_standard_error": 7.0,
        "accuracy": 0.52,
        "accuracy_n": 24,
    }
    return Day(**{**figures, **changes})


def model_of(name: str = "lstm/BTCUSDT", **changes: Any) -> Model:
    figures = {
        "name": name, "model_id": f"{name.replace('/', '-')}-000000000001", "age_days": 10.0, "new_bars": 240,
        "n_7d": 168, "accuracy_7d": 0.52, "drop_7d_pp": 0.5, "drop_7d_interval_pp": (-9.0, 10.0), "drift": False,
    }  # fmt: skip
    return Model(**{**figures, **changes})


def breach_of(*, strategy: str = "rsi", confirmed: bool = True) -> Breach:
    return Breach(
        strategy=strategy, metric="win_rate_pct", value=30.0, limit=55.0, interval=(15.0, 50.0), confirmed=confirmed
    )


def evidence_of(**changes: Any) -> Evidence:
    """A quiet day: ten days old models, a good week, nothing missing, no attempt before."""
    figures: dict[str, Any] = {
        "day": DAY,
        "as_of": AS_OF,
        "present": True,
        "forced": False,
        "source": "test",
        "candles": "simulated",
        "days": tuple(day_of(back) for back in reversed(range(7))),
        "models": (model_of(),),
        "market": (Market(symbol="BTCUSDT", bars_7d=168, volatility_24h_pct=0.5, volatility_7d_pct=0.6,
                          change_24h_pct=1.0, change_7d_pct=-3.0, volume_ratio=1.1),),
        "links": {"rsi": ("lstm/BTCUSDT",)},
    }  # fmt: skip
    return Evidence(**{**figures, **changes})


def attempted(hours_ago: float | None, last_7_days: int = 1) -> Attempts:
    return Attempts(hours_since_last=hours_ago, last_7_days=0 if hours_ago is None else last_7_days)


def opinion(recommendation: str = "retrain", confidence: float = 0.71, urgency: str = "medium") -> Assessment:
    return Assessment(
        recommendation=recommendation, confidence=confidence, urgency=urgency, reasoning="because",
        suggested_actions=("look at rsi",), estimated_improvement=None,
    )  # fmt: skip
