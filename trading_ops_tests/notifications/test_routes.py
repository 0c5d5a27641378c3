"""Does an alert go to the channels of its severity, and may only an INFO wait for the morning?"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.outbox import Outbox
from trading_ops.notifications.routes import Routes, parse_escalation, parse_quiet_hours, parse_routes
from trading_ops_tests.notifications.test_configuration import WHOLE, load, refused
from trading_ops_tests.notifications.test_outbox import Recorder

CHOSEN = ("slack", "email", "telegram", "pagerduty")
ROUTES = Routes(parse_routes("INFO=email; WARNING=slack,email"), parse_escalation("telegram; pagerduty"))
MIDNIGHT = datetime(2025, 3, 1, tzinfo=UTC)


def alert(severity: Severity = Severity.CRITICAL, step: Step = Step.OPENED, escalation: int = 0) -> Alert:
    key = f"{severity}/{step}/{escalation}"
    return Alert(severity, key, "what", "why", "do", incident="guard/rsi", step=step, escalation=escalation)


class Kept:
    """A channel that keeps what it was told."""

    deduplicates = updates = False
    reports = True
    target = "nobody"

    def __init__(self, name: str) -> None:
        self.name = name
        self.told: list[Alert] = []

    def send(self, alert: Alert, **_: object) -> None:
        self.told.append(alert)


@pytest.mark.parametrize(
    ("told", "channels"),
    [
        (alert(Severity.INFO), ["email"]),
        (alert(Severity.WARNING), ["slack", "email"]),
        (alert(Severity.ERROR), ["slack", "email"]),  # not named: all but the escalation's own
        (alert(), ["slack", "email"]),
        (alert(step=Step.ESCALATED, escalation=1), ["telegram"]),
        (alert(step=Step.ESCALATED, escalation=2), ["pagerduty"]),
        (alert(step=Step.ESCALATED, escalation=3), ["pagerduty"]),
        (alert(step=Step.RESOLVED, escalation=1), ["slack", "email", "telegram"]),  # who heard of it hears of its end
        (alert(step=Step.RESOLVED, escalation=2), ["slack", "email", "telegram", "pagerduty"]),
    ],
)
def test_a_severity_has_its_channels_and_an_escalation_the_next(told, channels):
    assert ROUTES.channels_of(told, CHOSEN) == channels


@pytest.mark.parametrize(
    ("step", "channels"),
    [
        (Step.UPDATED, ["slack", "email"]),
        (Step.RESOLVED, ["slack", "email"]),
        (Step.REMINDED, ["email"]),  # it goes to its own severity's
    ],
)
def test_what_goes_on_or_is_over_concerns_who_heard_of_the_incident(step, channels):
    routes = Routes(parse_routes("INFO=telegram; WARNING=slack; ERROR=email; CRITICAL=pagerduty"))
    told = replace(alert(Severity.ERROR, step), told=(Severity.WARNING, Severity.ERROR))
    assert routes.channels_of(told, CHOSEN) == channels
    assert routes.channels_of(Alert.from_document(told.to_document()), CHOSEN) == channels


def test_without_routes_everything_goes_everywhere_and_an_escalation_is_told_again():
    for told in (alert(Severity.INFO), alert(), alert(step=Step.ESCALATED, escalation=1)):
        assert Routes().channels_of(told, CHOSEN) == list(CHOSEN)


def test_a_level_that_only_a_newer_version_knows_goes_where_critical_does():
    stored = Alert.from_document(alert().to_document() | {"severity": "FATAL"})
    assert Routes(parse_routes("CRITICAL=pagerduty")).channels_of(stored, CHOSEN) == ["pagerduty"]


@pytest.mark.parametrize(
    ("hours", "at", "wait"),
    [
        ("22:00-07:00", 21.9, None),
        ("22:00-07:00", 22, 9),
        ("22:00-07:00", 23.5, 7.5),
        ("22:00-07:00", 0, 7),
        ("22:00-07:00", 6.75, 0.25),
        ("22:00-07:00", 7, None),
        ("1:00-5:30", 0.99, None),
        ("1:00-5:30", 1, 4.5),
        ("1:00-5:30", 5.5, None),
    ],
)
def test_quiet_hours_have_an_end_also_over_midnight(hours, at, wait):
    now = MIDNIGHT + timedelta(hours=at)
    ends = parse_quiet_hours(hours).over_at(now)
    assert ends == (None if wait is None else now + timedelta(hours=wait))


def test_only_an_info_waits_and_it_is_told_in_the_morning(tmp_path):
    now = MIDNIGHT
    chat = Kept("chat")
    routes = Routes(quiet_hours=parse_quiet_hours("22:00-07:00"))
    outbox = Outbox(SqliteStore(tmp_path / "audit.db"), {"chat": chat}, lambda: now, routes=routes)
    for severity in Severity:
        outbox.publish(alert(severity))
    assert [told.severity for told in chat.told] == [Severity.WARNING, Severity.ERROR, Severity.CRITICAL]
    now = MIDNIGHT + timedelta(hours=6, minutes=59)
    assert outbox.drain() == 0
    assert outbox.waiting() == 1
    now = MIDNIGHT + timedelta(hours=7)
    assert outbox.drain() == 1
    assert chat.told[-1].severity == Severity.INFO


def test_a_person_can_have_it_told_before_the_morning(tmp_path):
    chat = Kept("chat")
    routes = Routes(quiet_hours=parse_quiet_hours("22:00-07:00"))
    outbox = Outbox(SqliteStore(tmp_path / "audit.db"), {"chat": chat}, lambda: MIDNIGHT, routes=routes)
    outbox.publish(alert(Severity.INFO))
    assert outbox.retry() == []
    assert chat.told == []
    outbox.retry(alert(Severity.INFO).dedup_key)
    assert len(chat.told) == 1


def test_a_retry_of_everything_leaves_the_channel_that_waits_for_the_morning(tmp_path):
    chat, mail = Kept("chat"), Kept("mail")
    routes = Routes(quiet_hours=parse_quiet_hours("22:00-07:00"))
    key, store = alert(Severity.INFO).dedup_key, SqliteStore(tmp_path / "audit.db")
    Outbox(store, {"chat": chat, "mail": mail}, lambda: MIDNIGHT, routes=routes).publish(alert(Severity.INFO))
    refuses = Recorder("chat", DeliveryError("refused", permanent=True))
    Outbox(store, {"chat": refuses, "mail": mail}, lambda: MIDNIGHT).retry(key, "chat")  # a person wants it there now
    (tried,) = Outbox(store, {"chat": chat, "mail": mail}, lambda: MIDNIGHT).retry()
    assert {name: channel["state"] for name, channel in tried["channels"].items()} == {
        "chat": "sent",
        "mail": "pending",
    }
    assert mail.told == []


def test_the_settings_say_what_goes_where(monkeypatch):
    settings = load(
        monkeypatch,
        NOTIFICATION_CHANNELS="slack, discord",
        NOTIFICATION_ROUTES=" info = slack ;CRITICAL=slack, Discord",
        NOTIFICATION_ESCALATION="discord",
        NOTIFICATION_QUIET_HOURS=" 22:00 - 7:00 ",
        **WHOLE["slack"],
        **WHOLE["discord"],
    )
    routes = settings.routes
    assert routes.channels_of(alert(Severity.INFO), settings.active_channels) == ["slack"]
    assert routes.channels_of(alert(), settings.active_channels) == ["slack", "discord"]
    assert routes.quiet_hours == parse_quiet_hours("22:00-07:00")


@pytest.mark.parametrize(
    ("slip", "says"),
    [
        ({"NOTIFICATION_ROUTES": "FATAL=slack"}, "'FATAL=slack' is no route"),
        ({"NOTIFICATION_ROUTES": "INFO"}, "'INFO' is no route"),
        ({"NOTIFICATION_ROUTES": "INFO=slack;info=slack"}, "INFO is given twice"),
        (
            {"NOTIFICATION_ROUTES": "INFO=slak"},
            "NOTIFICATION_ROUTES: no channel is called slak; give any of console, slack",
        ),
        ({"NOTIFICATION_ROUTES": "INFO=email"}, "NOTIFICATION_ROUTES names email; name it in NOTIFICATION_CHANNELS"),
        ({"NOTIFICATION_ROUTES": "CRITICAL="}, "CRITICAL reaches no channel"),
        ({"NOTIFICATION_ESCALATION": "pagerduty"}, "NOTIFICATION_ESCALATION names pagerduty"),
        (
            {"NOTIFICATION_ESCALATION": "slack"},
            "the channel slack is named in NOTIFICATION_ESCALATION only, so nobody hears of INFO, WARNING, ERROR,"
            " CRITICAL; name it in NOTIFICATION_ROUTES too",
        ),
        (
            {
                "NOTIFICATION_ESCALATION": "slack; console",
                "NOTIFICATION_ROUTES": "INFO=",
                "NOTIFICATION_CHANNELS": "slack,console",
            },
            "the channels slack, console are named in NOTIFICATION_ESCALATION only, so nobody hears of WARNING, ERROR,"
            " CRITICAL; name them in NOTIFICATION_ROUTES too",
        ),
        ({"NOTIFICATION_QUIET_HOURS": "22-7"}, "'22-7' are no hours"),
        ({"NOTIFICATION_QUIET_HOURS": "25:00-07:00"}, "'25:00-07:00' are no hours"),
        ({"NOTIFICATION_QUIET_HOURS": "07:00-07:00"}, "'07:00-07:00' are no hours"),
        ({"NOTIFICATION_ESCALATE_MINUTES": "0"}, "NOTIFICATION_ESCALATE_MINUTES"),
    ],
)
def test_a_slip_is_named(monkeypatch, slip, says):
    message = refused(monkeypatch, **{"NOTIFICATION_CHANNELS": "slack", **WHOLE["slack"], **slip})
    assert says in message
    assert "Value error" not in message


@pytest.mark.parametrize(
    ("routes", "says"),
    [
        (Routes(), "INFO…CRITICAL: slack, email, telegram, pagerduty; CRITICAL after 30 min: the same again"),
        (
            ROUTES,
            "INFO: email; WARNING…CRITICAL: slack, email; CRITICAL after 30 min: telegram, then pagerduty",
        ),
        (
            Routes(parse_routes("INFO=;WARNING=email"), (), parse_quiet_hours("22:00-07:00")),
            "INFO: nobody; WARNING: email; ERROR…CRITICAL: slack, email, telegram, pagerduty;"
            " CRITICAL after 30 min: the same again; INFO waits from 22:00 to 07:00 UTC",
        ),
    ],
)
def test_who_is_told_of_what_is_one_line(routes, says):
    assert routes.described(CHOSEN, timedelta(minutes=30)) == says


def test_somebody_may_choose_not_to_hear_of_info(monkeypatch):
    settings = load(monkeypatch, NOTIFICATION_CHANNELS="slack", NOTIFICATION_ROUTES="INFO=", **WHOLE["slack"])
    assert settings.routes.channels_of(alert(Severity.INFO), settings.active_channels) == []
