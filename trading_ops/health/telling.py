"""What are people told of a component that is bad?"""

from __future__ import annotations

from datetime import datetime

from trading_ops.health.rules import Status, Verdict
from trading_ops.notifications.alert import Alert

# why it matters, and what to do
ADVICE = {
    "engine": (
        "Until it answers, its trades and equity cannot be read, nor its strategies stopped from here; days without"
        " equity near 24:00 UTC are rebuilt from closed trades.",
        "See that the bot runs: its own log, then `trading-ops doctor`.",
    ),
    "ai_service": ("What the bot decides with it is not decided, or late.", "See that the AI service runs: its log."),
    "frontend": ("People cannot look at the bot.", "See that the web server runs: its log."),
    "document_db": (
        "Records wait in the spool of this machine, and no LLM call starts; nothing is lost.",
        "See that mongod runs and has a primary (rs.status() in mongosh), then `trading-ops doctor`.",
    ),
    "cache": ("What the bot or the workers keep in Redis cannot be had.", "See that Redis runs: its log, its memory."),
    "broker": (
        "Training, backtests and optimisations that go through queues wait or are late.",
        "See that RabbitMQ and the workers run: `rabbitmqctl list_queues name messages consumers`.",
    ),
    "disk": (
        "A full disk stops the audit trail, the spool and the alerts on this machine.",
        "Free some space, or move TRADING_OPS_DATA_DIR; `make clean` removes everything, so do not use it for this.",
    ),
    "memory": ("A machine out of memory kills processes at random.", "See what uses it: `ps aux --sort=-rss | head`."),
    "candles": (
        "The bot trades on candles that are old, incomplete or wrong, or does not trade at all.",
        "See the feed at the bot; of a folder: `trading-ops candles check`, then `trading-ops candles download`.",
    ),
}


def incident_of(component: str) -> str:
    """The incident that a component's outage is."""
    return f"health/{component}"


def alert_of(verdict: Verdict, at: datetime, link: str | None = None) -> Alert | None:
    """What is told of a component; None where it is well, or nobody can say."""
    severity = verdict.status.severity
    if severity is None:
        return None
    matters, what_to_do = ADVICE[verdict.component]
    latency = {} if verdict.latency_ms is None else {"latency_ms": verdict.latency_ms}
    where = [f"at {verdict.address}"] if verdict.address else []
    tried = [f"looked at {verdict.tries} times" if verdict.tries > 1 else "looked at once"]
    return Alert(
        severity=severity,
        dedup_key=f"{incident_of(verdict.component)}/{at:%Y-%m-%d}/{verdict.status}",
        what=verdict.found,
        why=f"{', '.join([*where, *tried])}. {matters}",
        what_to_do=what_to_do,
        day=f"{at:%Y-%m-%d}",
        numbers={**verdict.numbers, **latency},
        link=link,
        incident=incident_of(verdict.component),
    )


def is_well(verdict: Verdict) -> bool:
    """Whether an incident is over: also where nobody wants to look any more, not where nobody can say."""
    return verdict.status in (Status.HEALTHY, Status.NOT_CONFIGURED)
