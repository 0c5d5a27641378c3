"""`trading-ops alerts` as a person uses it, over real sockets and in processes of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.cli.alerts import _try
from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.console import ConsoleChannel
from trading_ops.notifications.channels.slack import SlackChannel
from trading_ops.notifications.desk import IncidentDesk
from trading_ops.notifications.outbox import Outbox
from trading_ops.notifications.routes import Routes, parse_quiet_hours
from trading_ops_tests.notifications.test_damage import damaged
from trading_ops_tests.notifications.test_outbox import Clock, Recorder
from trading_ops_tests.servers.vendors import SLACK_PATH, Answer, VendorServer, slack_webhook
from trading_ops_tests.test_cli import command

KEY = "guard/rsi/2025-03-01"
ALERT = Alert(Severity.CRITICAL, KEY, "rsi lost [12] %", "above 10 %", "Look, then resume.", "2025-03-01", {"n": 12.0})


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").touch()
    return tmp_path


@pytest.fixture
def slack() -> Iterator[VendorServer]:
    with VendorServer(slack_webhook) as server:
        yield server


def run(home: Path, *line: str, slack: VendorServer | None = None, code: int = 0, **environment: str) -> str:
    if slack:
        environment |= {"NOTIFICATION_CHANNELS": "slack", "SLACK_WEBHOOK_URL": slack.url + SLACK_PATH}
    done = command(["trading-ops", "alerts", *line], home, **{"COLUMNS": "120", **environment})
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    assert "GEHEIM" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def published(home: Path, slack: VendorServer, *answers: Answer) -> None:
    slack.faults.extend(answers)
    with SqliteStore(home / "var" / "audit.db") as store:
        Outbox(store, {"slack": SlackChannel(webhook_url=slack.url + SLACK_PATH)}).publish(ALERT)


def test_a_test_message_that_is_taken_ends_with_a_green_line(home, slack):
    said = run(home, "test", "--channel", "slack", slack=slack, FORCE_COLOR="1")
    assert re.search("\x1b\\[32mslack: the test message was taken", said)
    (asked,) = slack.taken
    assert "test message of trading_ops" in asked.document["text"]
    assert not (home / "var" / "audit.db").exists()  # it goes past the outbox


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(Answer(404, b"no_service"), "slack: HTTP 404: no_service"), (Answer(503), "slack: HTTP 503"),
     (Answer(429, b"", {"Retry-After": "30"}), "slack: Rate limited (HTTP 429)"),
     (Answer(reset=True), "slack: the connection to 127.0.0.1 broke")],
)  # fmt: skip
def test_a_test_message_that_is_not_taken_ends_with_the_reason(home, slack, answer, reason):
    slack.faults.append(answer)
    assert reason in run(home, "test", slack=slack, code=1)


def test_an_error_that_no_channel_describes_is_told_by_its_kind_alone(services):
    class Chatty:
        def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> None:
            raise ValueError("timeout at https://api.telegram.org/bot123:GEHEIM/sendMessage")

    services.__dict__["channels"] = {"chatty": Chatty()}
    assert _try(services, "chatty") == "ValueError"


def test_a_channel_that_is_not_chosen_says_so(home):
    assert "slack is not configured: name it in NOTIFICATION_CHANNELS" in run(
        home, "test", "--channel", "slack", code=2
    )
    assert "no channel is called slak; give any of console, slack" in run(home, "test", "--channel", "slak", code=2)
    assert "no channel is called slak" in run(home, "retry", "--channel", "slak", code=2)


def test_without_any_configuration_the_terminal_is_tried(home):
    assert "console: the test message was taken" in run(home, "test")


def test_a_half_configured_channel_stops_every_command(home):
    said = run(home, "list", code=2, NOTIFICATION_CHANNELS="telegram", TELEGRAM_CHAT_ID="1")
    assert "the channel telegram lacks TELEGRAM_BOT_TOKEN" in said


def test_the_list_shows_each_channels_state_and_why(home, slack):
    assert "no alert" in run(home, "list")
    published(home, slack, Answer(404, b"no_service"))
    said = run(home, "list", slack=slack)
    assert "rsi lost [12] %" in said
    assert f"\n    {KEY}\n    slack: dead: HTTP 404: no_service; see SLACK_WEBHOOK_URL\n" in said
    assert "no alert is sent" in run(home, "list", "--state", "sent", slack=slack)
    assert KEY in run(home, "list", "--state", "dead", slack=slack)
    assert "any of pending" in run(home, "list", "--state", "lost", slack=slack, code=2)
    (document,) = json.loads(run(home, "list", "--json", slack=slack))
    assert document["channels"]["slack"]["state"] == "dead"


def test_what_waits_for_a_channel_that_is_no_longer_configured_says_so(home, slack):
    published(home, slack, Answer(500))
    said = run(home, "list")
    assert f"{KEY}\n    slack: failed: HTTP 500; the channel is not configured any more" in said
    assert "nothing to send again" in run(home, "retry")


def test_the_list_gives_the_key_of_an_alert_that_was_delivered_on_a_line_of_its_own(home, slack):
    published(home, slack)
    said = run(home, "list", slack=slack, COLUMNS="40").splitlines()
    assert [said[0][18:], *said[1:]] == ["CRITICAL  rsi lost [12] %", f"    {KEY}", "    sent: slack"]


def test_what_waits_for_the_end_of_quiet_hours_says_so_and_is_sent_by_its_key_alone(home, slack):
    now = datetime.now(UTC)
    hours = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    chosen = {"slack": slack, "NOTIFICATION_QUIET_HOURS": hours}
    with SqliteStore(home / "var" / "audit.db") as store:
        channels = {"slack": SlackChannel(webhook_url=slack.url + SLACK_PATH)}
        routes = Routes(quiet_hours=parse_quiet_hours(hours))
        Outbox(store, channels, routes=routes).publish(replace(ALERT, severity=Severity.INFO))
    waits = f"slack: waits until {now + timedelta(hours=2):%H:%M} UTC: quiet hours"
    assert waits in run(home, "list", **chosen)
    assert waits in run(home, "show", KEY, **chosen)
    assert "nothing to send again" in run(home, "retry", **chosen)
    said = command(["trading-ops", "doctor"], home, NOTIFICATION_CHANNELS="slack", COLUMNS="200",
                   SLACK_WEBHOOK_URL=slack.url + SLACK_PATH).stdout  # fmt: skip
    assert "ok      alerts: every alert was delivered but 1 that waits for the end of quiet hours" in said
    assert slack.taken == []
    assert "1 of 1 alerts are now sent" in run(home, "retry", KEY, **chosen)
    assert len(slack.taken) == 1


def test_a_test_names_what_nothing_reads_and_that_alerts_are_switched_off(home, slack):
    said = run(home, "test", slack=slack, NOTIFICATION_CHANELS="slack")
    assert "nothing reads NOTIFICATION_CHANELS: correct the name" in said
    off = {"slack": slack, "NOTIFICATIONS_ENABLED": "false"}
    said = run(home, "test", **off)
    assert "NOTIFICATIONS_ENABLED=false sends everything to the terminal" in said
    assert "console: the test message was taken" in said
    assert "slack is not used: NOTIFICATIONS_ENABLED=false" in run(home, "test", "--channel", "slack", code=2, **off)


def test_one_alert_is_shown_with_its_way(home, slack):
    published(home, slack, Answer(500))
    said = run(home, "show", KEY, slack=slack)
    for part in ("CRITICAL: rsi lost [12] %", "above 10 %", "What to do: Look, then resume.", "n: 12", "failed",
                 "slack: failed: HTTP 500"):  # fmt: skip
        assert part in said, part
    assert json.loads(run(home, "show", KEY, "--json", slack=slack))["alert"]["dedup_key"] == KEY
    assert "no alert has the key 'nothing'" in run(home, "show", "nothing", slack=slack, code=1)


def test_an_update_that_a_later_message_said_instead_names_that_message(home):
    clock = Clock()
    chat = Recorder("chat")
    chat.updates = True
    bad = Alert(Severity.ERROR, "risk/first", "risk is bad", "11 %, above 10 %", "", incident="risk")
    with SqliteStore(home / "var" / "audit.db") as store:
        desk = IncidentDesk(store, Outbox(store, {"chat": chat}, clock), clock)
        desk.observe(bad)
        clock.advance(timedelta(minutes=61))
        chat._errors = [DeliveryError("HTTP 503")]
        desk.observe(replace(bad, why="12 %, above 10 %"))
        clock.advance(timedelta(seconds=5))
        desk.recover("risk")
    said = run(home, "show", "risk/1/2")
    assert "chat: superseded by risk/1/3, which was told instead" in said
    assert "    risk/1/2\n    chat: superseded by risk/1/3" in run(home, "list")
    assert "risk/1/2\n" not in run(home, "list", "--state", "sent")
    assert "risk/1/2\n" in run(home, "list", "--state", "superseded")


def test_a_replay_sends_what_died_and_exits_1_while_it_does_not(home, slack):
    assert "nothing to send again" in run(home, "retry", slack=slack)
    published(home, slack, Answer(404, b"no_service"), Answer(404, b"no_service"))
    said = run(home, "retry", slack=slack, code=1)
    assert f"{KEY}  slack: dead: HTTP 404: no_service" in said
    assert "0 of 1 alerts are now sent" in said
    assert "1 of 1 alerts are now sent" in run(home, "retry", KEY, slack=slack)
    assert len(slack.taken) == 1
    assert "no alert has the key 'nothing'; trading-ops alerts list shows them" in run(
        home, "retry", "nothing", slack=slack, code=1
    )


def test_a_replay_says_what_it_did_not_send_because_its_end_was_told(home, slack):
    slack.faults.append(Answer(404, b"no_service"))
    with SqliteStore(home / "var" / "audit.db") as store:
        box = Outbox(store, {"slack": SlackChannel(webhook_url=slack.url + SLACK_PATH)})
        opening = replace(ALERT, dedup_key="risk/1/1", incident="risk")
        box.publish(opening)
        box.publish(replace(opening, dedup_key="risk/1/2", step=Step.RESOLVED, opening="risk/1/1"))
    said = run(home, "retry", slack=slack)
    assert (
        "risk/1/1  slack: not sent, superseded by risk/1/2, which was told instead\n0 of 1 alerts are now sent" in said
    )
    assert len(slack.taken) == 1


def test_the_doctor_says_who_is_told_of_what_and_names_a_way_that_was_begun(home, slack):
    said = command(["trading-ops", "doctor"], home, NOTIFICATION_CHANNELS="slack,console", COLUMNS="200",
                   SLACK_WEBHOOK_URL=slack.url + SLACK_PATH, SLACK_BOT_TOKEN="GEHEIM",
                   NOTIFICATION_ESCALATION="console", NOTIFICATION_ESCALATE_MINUTES="5").stdout  # fmt: skip
    assert "who is told: INFO…CRITICAL: slack; CRITICAL after 5 min: console" in said
    assert "warning channel slack: configured: a webhook at 127.0.0.1" in said
    assert "SLACK_BOT_TOKEN is not used without SLACK_CHANNEL" in said
    assert "GEHEIM" not in said


def test_the_doctor_has_a_line_for_each_channel_and_asks_none(home, slack):
    published(home, slack, Answer(404, b"no_service"))
    done = command(["trading-ops", "doctor"], home, NOTIFICATION_CHANNELS="slack",
                   SLACK_WEBHOOK_URL=slack.url + SLACK_PATH)  # fmt: skip
    said = " ".join(done.stdout.split())
    assert "ok channel slack: configured: a webhook at 127.0.0.1" in said
    assert "ok channel email: not configured" in said
    assert "warning alerts: 1 alert was given up on a channel" in said
    assert "GEHEIM" not in done.stdout + done.stderr
    assert len(slack.asked) == 1


@pytest.mark.parametrize("answer", [Answer(404, b"no_service"), Answer(503)], ids=["dead", "failed"])
def test_the_doctor_does_not_promise_what_a_channel_no_longer_chosen_cannot_keep(home, slack, answer):
    published(home, slack, answer)
    said = " ".join(command(["trading-ops", "doctor"], home, COLUMNS="200").stdout.split())
    assert "warning alerts: 1 alert is for slack, where alerts do not go any more" in said
    assert "NOTIFICATION_CHANNELS" in said
    assert "alerts retry" not in said
    assert "sent again by themselves" not in said


def test_a_damaged_alert_is_named_and_keeps_no_other_from_being_shown_and_sent(home, slack):
    published(home, slack, Answer(500))
    with SqliteStore(home / "var" / "audit.db") as store:
        box = Outbox(store, {"slack": SlackChannel(webhook_url=slack.url + SLACK_PATH)})
        for key in ("words", "way"):
            slack.faults.append(Answer(500))
            box.publish(replace(ALERT, dedup_key=key))
        damaged(store, "outbox", "words", lambda body: {**body, "alert": None})
        assert "UNKNOWN  (damaged)" in run(home, "list", slack=slack)
        damaged(store, "outbox", "way", lambda body: {**body, "channels": None})
    said = run(home, "retry", slack=slack, code=1)
    assert "(damaged)  slack: dead: the alert 'words' is damaged and cannot be read (TypeError)" in said
    assert "the alert 'way' is damaged" in said
    assert "1 of 2 alerts are now sent" in said
    assert "the alert 'words' is damaged" in run(home, "show", "words", slack=slack, code=1)
    assert "the alert 'way' is damaged" in run(home, "list", slack=slack, code=1)


def test_a_replay_counts_each_damaged_alert_and_no_key_is_obeyed_by_the_terminal(home, slack):
    with SqliteStore(home / "var" / "audit.db") as store:
        box = Outbox(store, {"slack": SlackChannel(webhook_url=slack.url + SLACK_PATH)})
        for key in ("a", "b", "run/\x1b[2Jc"):
            slack.faults.append(Answer(404, b"no_service"))
            box.publish(replace(ALERT, dedup_key=key))
        for key in ("a", "b"):
            damaged(store, "outbox", key, lambda body: {**body, "alert": None})
    slack.faults.append(Answer(404, b"no_service"))
    said = run(home, "retry", slack=slack, code=1)
    assert "run/�[2Jc  slack: dead: HTTP 404: no_service" in said
    assert "0 of 3 alerts are now sent" in said


def test_an_alert_of_a_later_version_is_shown(home):
    with SqliteStore(home / "var" / "audit.db") as store:
        Outbox(store, {"console": ConsoleChannel()}).publish(Alert("NOTICE", "k", "what", "", ""))  # type: ignore[arg-type]
    assert "NOTICE: what" in run(home, "show", "k")
