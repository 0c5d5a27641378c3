"""Recorded decisions of many days, as different as days can be; the same seed gives the same."""

import json
from datetime import date, timedelta
from random import Random
from types import SimpleNamespace
from typing import Any

from trading_ops.assessments.assessing import assess
from trading_ops.assessments.evidence import Adviser, Evidence
from trading_ops.assessments.schema import Assessment, InvalidReply, parse_reply
from trading_ops_tests.assessments.examples import AS_OF, DAY, attempted, breach_of, day_of, evidence_of, model_of

CHOICES = ("retrain", "wait", "optimize_parameters")


def some_evidence(chance: Random, number: int) -> Evidence:
    """Of the day that comes `number` days after DAY."""
    day = str(date.fromisoformat(DAY) + timedelta(days=number))
    names = chance.sample(["lstm/BTCUSDT", "gru/ETHUSDT", "transformer/SOLUSDT"], chance.randint(0, 3))
    win_rate = chance.choice([None, chance.uniform(0, 100)])
    return evidence_of(
        day=day,
        as_of=AS_OF + timedelta(days=number),
        present=chance.random() < 0.95,
        forced=chance.random() < 0.2,
        days=tuple(
            day_of(back - number, trades=(trades := chance.randint(0, 12)), wins=chance.randint(0, trades),
                   window_trades=chance.randint(0, 80), window_win_rate_pct=win_rate,
                   window_sharpe_ratio=chance.choice([None, chance.gauss(0, 7)]))
            for back in reversed(range(chance.randint(0, 7)))
        ),
        models=tuple(
            model_of(name, age_days=chance.uniform(0, 50), new_bars=chance.randint(0, 900),
                     drop_7d_pp=chance.choice([None, chance.gauss(0, 6)]), drift=chance.choice([None, False, True]))
            for name in names
        ),
        attempts=attempted(chance.choice([None, None, chance.uniform(0, 300)]), chance.randint(1, 3)),
        breaches=chance.choice([(), (breach_of(),), (breach_of(confirmed=False),)]),
        missing=chance.choice([()] * 9 + [("the market of BTCUSDT",)]),
        vetoed_since=chance.choice([None, str(date.fromisoformat(day) - timedelta(days=chance.randint(1, 9)))]),
        links=chance.choice([{}, {"rsi": tuple(names)}]),
        adviser=chance.choice([Adviser(), Adviser(), Adviser(standing="advisory", why="its confidence did not hold")]),
    )  # fmt: skip


def reply(recommendation: str = "retrain", confidence: float = 0.9, urgency: str = "high", reasoning: str = "") -> str:
    """What GPT-4 answers, as it comes."""
    return json.dumps({
        "recommendation": recommendation, "confidence": confidence, "urgency": urgency, "reasoning": reasoning,
        "suggested_actions": ["look at rsi"], "estimated_improvement": None,
    })  # fmt: skip


def answering(*replies: str | None) -> Any:
    """A client that makes an attempt for each reply; None is one that found nobody. The last one is what it says."""

    def consult(_prompt: Any, _purpose: str) -> SimpleNamespace:
        said, attempts = Assessment.none("no OPENAI_API_KEY is set"), []
        for raw in replies:
            row = {"raw": raw or "", "outcome": "ok", "cost_usd": 0.01, "tokens": {"input": 2000, "output": 200}}
            if raw is None:
                row |= {"outcome": "dropped", "tokens": None}
                said = Assessment.none("the server dropped the connection")
            else:
                try:
                    said = parse_reply(raw)
                except InvalidReply as error:
                    row["outcome"], said = "malformed", Assessment.none(str(error))
            attempts.append(row)
        return SimpleNamespace(assessment=said, attempts=tuple(attempts))

    return consult


def some_document(chance: Random, number: int) -> dict[str, Any]:
    """What is stored of that day."""
    said = reply(chance.choice(CHOICES), chance.random(), chance.choice(["low", "medium", "high"]), "because\n\x1b[2J")
    fenced = f"Here it is:\n```json\n{said}\n```"
    consult = answering(
        *chance.choice([(said,), (fenced,), ("no idea", said), (None, said), (None,), ("no", "no"), ()])
    )
    return recorded(some_evidence(chance, number), consult)


def recorded(evidence: Evidence, consult: Any) -> dict[str, Any]:
    """As the audit store gives it back."""
    return json.loads(json.dumps({**assess(evidence, consult), "source": evidence.source}))
