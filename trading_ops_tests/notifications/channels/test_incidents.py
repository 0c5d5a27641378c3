"""What does each channel make of an incident that goes on and ends, and of a report with a picture?"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from trading_ops.notifications.alert import Alert, Severity, Step
from trading_ops.notifications.channel import DeliveryError, concerns
from trading_ops.notifications.channels.console import ConsoleChannel
from trading_ops.notifications.channels.email import EmailChannel, mail_of, message_id
from trading_ops.notifications.channels.slack import EVENT, SlackChannel
from trading_ops.notifications.text import message_of
from trading_ops_tests.notifications.channels.rigs import RIGS
from trading_ops_tests.notifications.test_picture import PICTURE
from trading_ops_tests.servers import vendors
from trading_ops_tests.servers.vendors import CHANNEL, CHANNEL_ID, PNG, SLACK_TOKEN, Answer, VendorServer, slack_api

OPENED = Alert(
    Severity.CRITICAL, "strategy_risk/rsi/1", "rsi lost 12.3 %", "daily loss 12.3 % exceeds 10 %", "Look.",
    "2025-03-09", {"daily_loss_pct": 12.3, "limit_pct": 10.0}, done="rsi was stopped.",
    link="http://127.0.0.1:3000/runs/4d2f?a=1&b=(2)", incident="strategy_risk/rsi", since="2025-03-09T12:00:00+00:00",
)  # fmt: skip
REPORT = Alert(Severity.INFO, "report/portfolio/2025-03-09", "Portfolio", "10,010 USDT", "Nothing.", picture=PICTURE)


def then(step: Step, number: int = 2) -> Alert:
    return replace(OPENED, dedup_key=f"strategy_risk/rsi/{number}", step=step, opening=OPENED.dedup_key,
                   what=f"rsi {step} {number}")  # fmt: skip


def told(name: str, *alerts: Alert) -> tuple[list[Any], list[str | None]]:
    """What the service took, and how it named each message, of which the first is everybody's opening."""
    handles: list[str | None] = []
    with VendorServer(RIGS[name].judge) as server:
        channel = RIGS[name].make(server.url, 5.0)
        for alert in alerts:
            opening = handles[0] if handles and alert.opening else None
            handles.append(channel.send(alert, possible_duplicate=False, opening=opening))
        return server.taken, handles


@pytest.mark.parametrize("name", RIGS)
def test_a_message_says_since_when_what_was_done_and_where_to_look(name):
    (asked,), _ = told(name, OPENED)
    said = str(asked.document)
    for part in ("rsi lost 12.3 %", "2025-03-09", "12:00", "rsi was stopped.", "http://127.0.0.1:3000/runs/4d2f"):
        assert part in said, part
    assert "(2)" not in said  # a bracket would end a link of Discord's


def test_only_what_is_still_open_is_counted_to_the_moment_it_is_told():
    opened = message_of(OPENED, possible_duplicate=False, now=datetime(2025, 3, 9, 14, 5, tzinfo=UTC))
    over = message_of(then(Step.RESOLVED), possible_duplicate=False, now=datetime(2025, 3, 9, 14, 5, tzinfo=UTC))
    assert (opened.since, over.since) == ("2025-03-09 12:00 UTC, for 2 h 5 min", "2025-03-09 12:00 UTC")


ANSWER = "acknowledge: trading-ops alerts ack strategy_risk/rsi"


@pytest.mark.parametrize("step", [Step.OPENED, Step.UPDATED, Step.REMINDED, Step.GROUPED])
def test_what_is_critical_and_open_says_how_to_acknowledge_it_also_where_it_was_milder_before(step):
    message = message_of(replace(then(step), told=(Severity.WARNING,)), possible_duplicate=False)
    assert message.footer == f"2025-03-09 · strategy_risk/rsi/2 · {ANSWER}"


def test_what_is_over_or_milder_or_no_incident_asks_for_no_answer_and_an_escalation_not_twice():
    report, milder = replace(OPENED, incident=None), replace(OPENED, severity=Severity.ERROR)
    for alert in (then(Step.RESOLVED), then(Step.ESCALATED), report, milder):
        assert "acknowledge" not in message_of(alert, possible_duplicate=False).footer


@pytest.mark.parametrize("name", [name for name in RIGS if name != "webhook"])
def test_every_channel_shows_how_to_acknowledge_an_incident_that_became_critical(name):
    warned = replace(OPENED, severity=Severity.WARNING)
    asked, _ = told(name, warned, replace(then(Step.REMINDED), told=(Severity.WARNING,)))
    assert [ANSWER in str(one.document) for one in asked] == [False, True]


def test_a_chat_shows_of_a_digest_what_compares_it_and_a_mail_and_a_webhook_all_of_it():
    head = f"closed_trades:7:{'ab12' * 16}"
    alert = replace(REPORT, numbers={"audit_heads": {"closed_trades": head}, "cost_by_model_usd": {}, "errors": []})
    shown = "audit heads:\n  closed trades: closed_trades:7:ab12ab12ab12ab12…"
    assert message_of(alert, possible_duplicate=False).figures == shown
    assert head in mail(alert).get_body(("plain",)).get_content()
    (asked,), _ = told("webhook", alert)
    assert asked.document["numbers"]["audit_heads"] == {"closed_trades": head}


@pytest.mark.parametrize("name", RIGS)
@pytest.mark.parametrize(
    "link", ["javascript:alert(1)", "file:///etc/passwd", "http://ops:GEHEIM@x.org/", "http://[", "no link"]
)
def test_what_is_no_web_address_is_no_link(name, link):
    (asked,), _ = told(name, replace(OPENED, link=link))
    assert link not in str(asked.document)
    assert "Open the run" not in str(asked.document)


def test_slack_tells_an_incident_in_one_thread_whose_end_everybody_sees():
    asked, handles = told("slack_bot", OPENED, then(Step.REMINDED), then(Step.RESOLVED, 3))
    opening, reminder, end = [one.document for one in asked]
    moment = vendors.slack_moment(0)
    assert handles[0] == f"{CHANNEL_ID}/{moment}"
    assert "thread_ts" not in opening
    assert opening["metadata"] == {"event_type": EVENT, "event_payload": {"dedup_key": OPENED.dedup_key}}
    for reply in (reminder, end):
        assert (reply["channel"], reply["thread_ts"], reply["reply_broadcast"]) == (CHANNEL_ID, moment, True)
    assert reminder["text"].startswith(":rotating_light: *CRITICAL, still open*")
    assert end["text"].startswith(":white_check_mark: *RESOLVED*")


def test_slack_shows_news_in_the_message_that_opened_the_incident():
    asked, handles = told("slack_bot", OPENED, then(Step.UPDATED))
    assert [one.path for one in asked] == ["/api/chat.postMessage", "/api/chat.update"]
    assert asked[1].document["ts"] == vendors.slack_moment(0)
    assert "rsi updated 2" in asked[1].document["text"]
    assert handles[0] == handles[1]


@pytest.mark.parametrize("error", ["message_not_found", "edit_window_closed", "cant_update_message"])
def test_slack_tells_nobody_anew_what_cannot_be_changed_any_more(error):
    with VendorServer(slack_api) as server:
        channel = RIGS["slack_bot"].make(server.url, 5.0)
        server.faults.append(Answer(200, {"ok": False, "error": error}))
        assert channel.send(then(Step.UPDATED), possible_duplicate=False, opening=f"{CHANNEL_ID}/1.1")
        server.faults.append(Answer(200, {"ok": False, "error": "invalid_auth"}))
        with pytest.raises(DeliveryError, match="invalid_auth"):
            channel.send(then(Step.UPDATED), possible_duplicate=False, opening=f"{CHANNEL_ID}/1.1")
        assert server.taken == []


@pytest.mark.parametrize("name", ["slack_bot", "telegram", "discord"])
def test_news_of_what_was_never_told_here_are_told_nobody(name):
    asked, handles = told(name, then(Step.UPDATED))
    assert (asked, handles) == ([], [None])


def test_slack_answers_in_no_thread_that_was_deleted():
    with VendorServer(slack_api) as server:
        channel = RIGS["slack_bot"].make(server.url, 5.0)
        channel.send(then(Step.RESOLVED), possible_duplicate=False, opening=f"{CHANNEL_ID}/1.1")
        assert "thread_ts" not in server.taken[0].document


@pytest.mark.parametrize("opening", [None, OPENED])
def test_slack_posts_nothing_again_that_it_finds_among_its_messages(opening):
    alert = then(Step.REMINDED) if opening else OPENED
    with VendorServer(slack_api) as server:
        channel = SlackChannel(bot_token=SLACK_TOKEN, channel=CHANNEL_ID, base_url=f"{server.url}/api/", timeout_s=5.0)
        handle = channel.send(OPENED, possible_duplicate=False)
        first = channel.send(alert, possible_duplicate=False, opening=handle) if opening else handle
        count = len(server.taken)
        again = channel.send(alert, possible_duplicate=True, opening=handle if opening else None)
        assert (again, len(server.taken)) == (first, count)
        # another one is not there, and nobody is told that it may have been
        channel.send(then(Step.RESOLVED, 9), possible_duplicate=True, opening=handle)
        assert len(server.taken) == count + 1
        assert "possible duplicate" not in server.taken[-1].document["text"]


@pytest.mark.parametrize(
    "answer",
    [Answer(200, {"ok": False, "error": "missing_scope"}), Answer(200, {"ok": False, "error": "not_in_channel"}),
     Answer(200, {"ok": True, "messages": [], "has_more": True})],
)  # fmt: skip
def test_slack_says_possible_duplicate_where_it_cannot_look(answer):
    with VendorServer(slack_api) as server:
        server.faults.append(answer)
        RIGS["slack_bot"].make(server.url, 5.0).send(OPENED, possible_duplicate=True)
        assert "possible duplicate" in server.taken[0].document["text"]


def test_slack_looks_later_when_it_cannot_look_now():
    with VendorServer(slack_api) as server:
        server.faults.append(Answer(429, b"", {"Retry-After": "30"}))
        with pytest.raises(DeliveryError, match="Rate limited"):
            RIGS["slack_bot"].make(server.url, 5.0).send(OPENED, possible_duplicate=True)
        assert server.taken == []


def test_slack_by_a_webhook_has_plain_messages():
    asked, handles = told("slack", OPENED, then(Step.RESOLVED))
    assert handles == [None, None]
    assert asked[1].document["text"].startswith(":white_check_mark: *RESOLVED*")


def test_telegram_changes_the_opening_message_and_answers_it_in_the_end():
    asked, handles = told("telegram", OPENED, then(Step.UPDATED), then(Step.RESOLVED, 3))
    assert [one.path.rpartition("/")[2] for one in asked] == ["sendMessage", "editMessageText", "sendMessage"]
    assert handles[:2] == ["1", "1"]
    assert asked[1].document["message_id"] == 1
    assert asked[2].document["reply_parameters"] == {"message_id": 1, "allow_sending_without_reply": True}
    assert "reply_parameters" not in asked[0].document


def test_telegram_takes_the_same_news_twice_without_saying_it_twice():
    with VendorServer(vendors.telegram) as server:
        channel = RIGS["telegram"].make(server.url, 5.0)
        opening = channel.send(OPENED, possible_duplicate=False)
        news = replace(then(Step.UPDATED), since=None)  # how long it lasts goes on
        for doubt in (False, True):
            assert channel.send(news, possible_duplicate=doubt, opening=opening) == opening
        assert [asked.path.rpartition("/")[2] for asked in server.taken] == ["sendMessage", "editMessageText"]
        assert len(server.asked) == 3


@pytest.mark.parametrize("said", ["message to edit not found", "message can't be edited"])
def test_telegram_tells_nobody_anew_what_cannot_be_changed_any_more(said):
    with VendorServer(vendors.telegram) as server:
        channel = RIGS["telegram"].make(server.url, 5.0)
        server.faults.append(Answer(400, {"ok": False, "error_code": 400, "description": f"Bad Request: {said}"}))
        assert channel.send(then(Step.UPDATED), possible_duplicate=True, opening="7") == "7"
        server.faults.append(Answer(400, {"ok": False, "error_code": 400, "description": "chat not found"}))
        with pytest.raises(DeliveryError, match="chat not found"):
            channel.send(then(Step.UPDATED), possible_duplicate=False, opening="7")
        assert server.taken == []


def test_discord_changes_the_opening_message_and_posts_the_rest():
    asked, handles = told("discord", OPENED, then(Step.UPDATED), then(Step.RESOLVED, 3))
    assert [one.method for one in asked] == ["POST", "PATCH", "POST"]
    assert asked[1].path == f"{vendors.DISCORD_PATH}/messages/{handles[0]}"
    assert handles[0] == handles[1]
    assert asked[2].document["embeds"][0]["title"].endswith(" RESOLVED: rsi resolved 3")


def test_discord_tells_nobody_anew_what_was_deleted_but_says_where_the_webhook_is_gone():
    with VendorServer(vendors.discord) as server:
        channel = RIGS["discord"].make(server.url, 5.0)
        assert channel.send(then(Step.UPDATED), possible_duplicate=False, opening="99") == "99"
        server.faults.append(Answer(404, {"message": "Unknown Webhook", "code": 10015}))
        with pytest.raises(DeliveryError, match="Unknown Webhook"):
            channel.send(then(Step.UPDATED), possible_duplicate=False, opening="99")
        assert server.taken == []


def test_pagerduty_hears_of_one_incident_from_its_opening_to_its_end():
    asked, _ = told("pagerduty", OPENED, then(Step.UPDATED), then(Step.ESCALATED, 3), then(Step.RESOLVED, 4))
    events = [one.document for one in asked]
    assert {event["dedup_key"] for event in events} == {OPENED.dedup_key}
    assert [event["event_action"] for event in events] == ["trigger", "trigger", "trigger", "resolve"]
    assert events[0]["links"] == [{"href": "http://127.0.0.1:3000/runs/4d2f?a=1&b=%282%29", "text": "Open the run"}]
    assert events[0]["payload"]["custom_details"]["done"] == "rsi was stopped."


def test_the_webhook_says_which_incident_and_where_it_is():
    asked, _ = told("webhook", OPENED, then(Step.RESOLVED))
    opening, end = [one.document for one in asked]
    assert (opening["incident"], opening["step"], opening["opening"]) == (
        "strategy_risk/rsi",
        "opened",
        OPENED.dedup_key,
    )
    assert (end["step"], end["opening"], end["since"]) == ("resolved", OPENED.dedup_key, "2025-03-09T12:00:00+00:00")
    assert (end["done"], end["link"]) == ("rsi was stopped.", "http://127.0.0.1:3000/runs/4d2f?a=1&b=%282%29")
    assert asked[0].headers["idempotency-key"] != asked[1].headers["idempotency-key"]


def mail(alert: Alert) -> Any:
    return mail_of(alert, message_of(alert, possible_duplicate=False), "ops@example.org", ["a@example.org"])


def test_a_mail_answers_the_one_that_opened_the_incident():
    opening, reminder, end = mail(OPENED), mail(then(Step.REMINDED)), mail(then(Step.RESOLVED, 3))
    assert opening["In-Reply-To"] is None
    for later in (reminder, end):
        assert later["In-Reply-To"] == later["References"] == opening["Message-ID"]
        assert later["Message-ID"] != opening["Message-ID"]
    assert opening["Message-ID"] == message_id(OPENED.dedup_key, "ops@example.org")
    assert [m["Subject"] for m in (opening, reminder, end)] == [
        "[CRITICAL] rsi lost 12.3 %", "[CRITICAL, still open] rsi reminded 2", "RESOLVED: rsi resolved 3"
    ]  # fmt: skip


def test_a_mail_has_its_picture_inside_and_loads_nothing():
    sent = mail(REPORT)
    assert [part.get_content_type() for part in sent.walk()] == [
        "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"
    ]  # fmt: skip
    page = sent.get_body(("html",)).get_content()
    (picture,) = [part for part in sent.walk() if part.get_content_type() == "image/png"]
    assert f'src="cid:{picture["Content-ID"].strip("<>")}"' in page
    assert picture.get_content_disposition() == "inline"
    assert picture.get_content().startswith(PNG)
    assert "http" not in page
    assert 'alt="Portfolio"' in page


@pytest.mark.parametrize("name", ["slack", "webhook", "pagerduty"])
def test_where_there_is_no_place_for_a_picture_the_words_are_told(name):
    (asked,), _ = told(name, REPORT)
    assert "Portfolio" in str(asked.document)


def test_discord_shows_the_picture_in_the_message():
    (asked,), _ = told("discord", REPORT)
    assert asked.document["embeds"][0]["image"] == {"url": "attachment://picture.png"}
    assert asked.form["files[0]"].startswith(PNG)


def test_telegram_sends_the_picture_in_answer_to_the_words_and_without_a_sound():
    asked, handles = told("telegram", REPORT)
    assert [one.path.rpartition("/")[2] for one in asked] == ["sendMessage", "sendPhoto"]
    assert asked[1].form["disable_notification"] == b"true"
    assert b'"message_id": 1' in asked[1].form["reply_parameters"]
    assert handles == ["1"]


def test_slacks_bot_uploads_the_picture_below_the_words():
    asked, _ = told("slack_bot", REPORT)
    assert [one.path for one in asked] == ["/api/chat.postMessage", "/api/files.completeUploadExternal"]
    assert asked[1].document["channel_id"] == CHANNEL_ID


@pytest.mark.parametrize(("name", "call"), [("telegram", 1), ("slack_bot", 1), ("slack_bot", 2), ("slack_bot", 3)])
def test_a_picture_that_is_refused_tells_nothing_twice_and_is_noted(name, call, caplog):
    with VendorServer(RIGS[name].judge) as server:
        judge, number = server.judge, iter(range(9))
        refuses = Answer(400, {"ok": False, "error": "missing_scope", "description": "no photo"}, told=False)
        server.judge = lambda asked: refuses if next(number) == call else judge(asked)
        with caplog.at_level(logging.WARNING):
            assert RIGS[name].make(server.url, 5.0).send(REPORT, possible_duplicate=False) is not None
        assert "but not its picture" in caplog.text
        assert len(server.taken) == 1
    assert not any(secret in caplog.text for secret in RIGS[name].secrets)


@pytest.mark.parametrize("name", RIGS)
def test_a_picture_that_cannot_be_drawn_stops_no_words(name):
    asked, _ = told(name, replace(REPORT, picture={"series": "none"}))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("name", "updates"),
    [("slack", False), ("slack_bot", True), ("discord", True), ("telegram", True), ("pagerduty", True),
     ("webhook", True)],
)  # fmt: skip
def test_news_go_where_they_can_be_shown_without_telling_anew(name, updates):
    channel = RIGS[name].make("http://x", 1.0)
    assert channel.updates is updates
    assert concerns(channel, then(Step.UPDATED)) is updates
    assert concerns(channel, then(Step.REMINDED))
    assert concerns(channel, OPENED)


def test_a_mailbox_and_a_terminal_hear_no_news():
    for channel in (ConsoleChannel(), EmailChannel(host="h", sender="a@b.c", recipients=["d@e.f"])):
        assert not concerns(channel, then(Step.UPDATED))
        assert concerns(channel, REPORT)


def test_nobody_is_paged_for_a_report():
    pager = RIGS["pagerduty"].make("http://x", 1.0)
    assert not concerns(pager, REPORT)
    assert concerns(pager, replace(REPORT, severity=Severity.ERROR))
    assert concerns(pager, replace(REPORT, incident="a"))
    assert all(concerns(RIGS[name].make("http://x", 1.0), REPORT) for name in RIGS if name != "pagerduty")


def test_a_channel_is_named_by_name_or_id():
    for channel in (CHANNEL, CHANNEL_ID):
        with VendorServer(slack_api) as server:
            bot = SlackChannel(bot_token=SLACK_TOKEN, channel=channel, base_url=f"{server.url}/api/")
            assert bot.send(OPENED, possible_duplicate=False) == f"{CHANNEL_ID}/{vendors.slack_moment(0)}"
