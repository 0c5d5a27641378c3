"""When is an alert sent again, when is it given up, and who waits for whom?"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import StateDocument, StoreError
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.backoff import Backoff
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.channels.discord import DiscordChannel
from trading_ops.notifications.channels.slack import SlackChannel
from trading_ops.notifications.channels.webhook import WebhookChannel
from trading_ops.notifications.dead_letters import KEY
from trading_ops.notifications.outbox import Outbox
from trading_ops.notifications.pace import WIDENS_AFTER
from trading_ops.notifications.rests import RESTING
from trading_ops.notifications.sending import CLAIM
from trading_ops.notifications.waiting import COMPLETE, INDEX, SHARDS, Waiting
from trading_ops_tests.audit.unreliable import DOWN, UP, UnreliableStore
from trading_ops_tests.conftest import ROOT
from trading_ops_tests.notifications.test_outbox import ALERT, Clock, Recorder, backed, outbox, states
from trading_ops_tests.servers.vendors import (
    DISCORD_PATH,
    SLACK_PATH,
    WEBHOOK_PATH,
    WEBHOOK_SECRET,
    Answer,
    VendorServer,
)
from trading_ops_tests.servers.vendors import discord as discord_rules
from trading_ops_tests.servers.vendors import slack_webhook as slack_rules
from trading_ops_tests.servers.vendors import webhook as webhook_rules

STEADY = Backoff(random=lambda: 1.0)  # the longest pauses


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "audit.db") as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


def alert(key: str) -> Alert:
    return Alert(Severity.ERROR, key, key, "", "")


# pauses


@pytest.mark.parametrize(
    ("attempts", "longest"), [(1, 15.0), (2, 30.0), (3, 60.0), (6, 480.0), (7, 900.0), (99, 900.0)]
)
def test_the_pause_doubles_up_to_a_quarter_of_an_hour_and_is_drawn_evenly_below(attempts, longest):
    draws = [Backoff(random=lambda share=share: share).wait_s(attempts, None) for share in (0.0, 0.25, 1.0)]
    assert draws == [0.0, longest / 4, longest]


@pytest.mark.parametrize(("asked", "pause"), [(0.0, 240.0), (1.5, 240.0), (3_600.0, 3_600.0), (1e12, 7 * 86_400.0)])
def test_a_receiver_that_asks_for_a_time_gets_no_less(asked, pause):
    assert STEADY.wait_s(5, asked) == pause


def test_a_receiver_that_asks_for_no_pause_at_all_is_given_up_after_about_a_day_too():
    policy = Backoff(random=lambda: 0.5)
    assert 20 < sum(policy.wait_s(n, 0.0) for n in range(1, policy.most_attempts)) / 3_600 < 30


def test_a_retry_after_that_is_over_is_no_reason_to_be_asked_without_a_pause(store, clock):
    chat = Recorder("chat", *[DeliveryError("HTTP 503", retry_after_s=0.0)] * 9)
    box = outbox(store, clock, chat, backoff=STEADY)
    box.publish(ALERT)
    assert (box.drain(), chat.tries) == (0, 2)
    clock.advance(timedelta(seconds=15))
    assert (box.drain(), chat.tries) == (0, 4)


def test_a_rest_is_not_made_shorter_by_who_was_asked_for_less(store, clock):
    """B is on its way when the channel asks A for two minutes; then it asks B for six seconds."""
    a = Recorder("chat", DeliveryError("HTTP 429", retry_after_s=120.0))
    b = Recorder("chat", DeliveryError("HTTP 429", retry_after_s=6.0),
                 during=lambda: outbox(store, clock, a).publish(alert("a")))  # fmt: skip
    outbox(store, clock, b).publish(alert("b"))
    chat = Recorder("chat")
    clock.advance(timedelta(seconds=119))
    assert states(outbox(store, clock, chat).publish(alert("c"))) == {"chat": "pending"}
    clock.advance(timedelta(seconds=1))
    assert outbox(store, clock, chat).drain() == 3


class Contended(SqliteStore):
    """Somebody else writes a channel's rest just before we do."""

    until: str | None = None

    def put_state(self, collection: str, key: str, body: Any, *, expected_version: int) -> StateDocument:
        if collection == RESTING and self.until:
            until, self.until = self.until, None
            super().put_state(collection, key, {"until": until}, expected_version=expected_version)
        return super().put_state(collection, key, body, expected_version=expected_version)


@pytest.mark.parametrize(("theirs", "kept"), [(6, 120), (600, 600)])
def test_of_two_rests_that_are_written_at_once_the_longer_one_is_kept(tmp_path, clock, theirs, kept):
    with Contended(tmp_path / "audit.db") as store:
        store.until = (clock() + timedelta(seconds=theirs)).isoformat()
        outbox(store, clock, Recorder("chat", DeliveryError("HTTP 429", retry_after_s=120.0))).publish(ALERT)
        rest = store.get_state(RESTING, "chat")
    assert rest is not None
    assert datetime.fromisoformat(rest.body["until"]) == clock() + timedelta(seconds=kept)


def test_a_clock_that_was_a_year_ahead_silences_no_channel_for_a_year(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 429", retry_after_s=60.0))
    clock.advance(timedelta(days=365))
    outbox(store, clock, chat).publish(alert("a"))
    clock.advance(timedelta(days=-365))
    box = outbox(store, clock, chat)
    assert states(box.publish(alert("b"))) == {"chat": "sent"}
    assert box.drain() == 1


@pytest.mark.parametrize("error", [DeliveryError("HTTP 429", retry_after_s=60.0), DeliveryError("HTTP 500")])
def test_what_a_clock_three_days_ahead_wrote_holds_nothing_back_for_three_days(store, clock, error):
    chat = Recorder("chat", error)
    clock.advance(timedelta(days=3))
    outbox(store, clock, chat, backoff=STEADY).publish(alert("a"))
    clock.advance(timedelta(days=-3))
    box = outbox(store, clock, chat, backoff=STEADY)
    assert states(box.publish(alert("b"))) == {"chat": "sent"}
    assert (box.drain(), box.waiting()) == (1, 0)


def test_a_torn_rest_keeps_no_alert_from_its_channel(store, clock, tmp_path):
    chat = Recorder("chat", DeliveryError("HTTP 429", retry_after_s=60.0))
    box = outbox(store, clock, chat)
    box.publish(alert("a"))
    with closing(sqlite3.connect(tmp_path / "audit.db")) as db, db:
        db.execute('UPDATE state SET body = \'{"until": "2025-\' WHERE collection = ?', (RESTING,))
    assert states(box.publish(alert("b"))) == {"chat": "sent"}
    clock.advance(timedelta(minutes=2))
    assert (box.drain(), box.waiting()) == (1, 0)


def test_what_is_critical_goes_before_older_warnings_and_takes_its_incident_along(store, clock):
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 6)
    box = outbox(store, clock, chat, backoff=STEADY)
    for number in range(3):
        box.publish(replace(alert(f"w{number}"), severity=Severity.WARNING))
    box.publish(replace(alert("x/1"), severity=Severity.WARNING, incident="x"))
    box.publish(replace(alert("x/2"), severity=Severity.CRITICAL, incident="x"))
    chat.told.clear()
    clock.advance(timedelta(hours=1))
    box.drain()
    assert [told.dedup_key for told, _ in chat.told][:2] == ["x/1", "x/2"]


def test_what_a_killed_process_may_have_sent_is_marked_also_when_who_took_over_was_refused(store, clock):
    class Killed(BaseException):
        pass

    def dies() -> None:
        raise Killed

    store.append = lambda *_, **__: dies()  # right after the send, before anything notes it
    with pytest.raises(Killed):
        outbox(store, clock, Recorder("chat")).publish(alert("a"))
    del store.append
    clock.advance(CLAIM + timedelta(seconds=1))
    chat = Recorder("chat", DeliveryError("HTTP 503"))
    box = outbox(store, clock, chat)
    assert (box.drain(), box.drain()) == (0, 1)
    assert [possible_duplicate for _, possible_duplicate in chat.told] == [True]


def test_of_what_is_published_together_the_critical_is_sent_first_and_takes_its_incident_along(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 500"))
    box = outbox(store, clock, chat, backoff=STEADY)
    box.publish(replace(alert("x/1"), severity=Severity.WARNING, incident="x"))
    several = [replace(alert(f"w{number}"), severity=Severity.WARNING) for number in range(3)]
    box.publish_all([*several, replace(alert("x/2"), severity=Severity.CRITICAL, incident="x")])
    assert [told.dedup_key for told, _ in chat.told] == ["x/1", "x/2", "w0", "w1", "w2"]


def test_the_longest_rest_is_kept_where_the_clock_is_a_little_behind(store, clock):
    outbox(store, clock, Recorder("chat", DeliveryError("HTTP 429", retry_after_s=1e12))).publish(alert("a"))
    clock.advance(timedelta(seconds=-30))
    chat = Recorder("chat")
    box = outbox(store, clock, chat)
    assert states(box.publish(alert("b"))) == {"chat": "pending"}
    assert (box.drain(), chat.tries) == (0, 0)


@pytest.mark.parametrize("damage", [{"link": "of a newer version"}, {"what": None, "numbers": 5}, {"severity": []}])
def test_an_alert_that_this_version_cannot_read_stops_no_other(store, clock, damage):
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 2)
    box = outbox(store, clock, chat)
    for key in ("a", "b"):
        box.publish(alert(key))
        clock.advance(timedelta(seconds=1))
    document = store.get_state("outbox", "a")
    body = {**document.body, "alert": {**document.body["alert"], **damage}}
    if "what" in damage:
        del body["alert"]["what"]
    store.put_state("outbox", "a", body, expected_version=document.version)
    box.drain()
    readable = "link" in damage
    assert states(box.delivery("a")) == {"chat": "sent" if readable else "dead"}
    assert readable or "cannot be read" in box.delivery("a")["channels"]["chat"]["error"]
    assert states(box.delivery("b")) == {"chat": "sent"}


def test_what_failed_is_not_tried_before_its_pause_is_over(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 500"))
    box = outbox(store, clock, chat, backoff=STEADY)
    next_at = box.publish(ALERT)["channels"]["chat"]["next_at"]
    assert datetime.fromisoformat(next_at) - clock() == timedelta(seconds=15)
    clock.advance(timedelta(seconds=14))
    box.publish(ALERT)
    assert (box.drain(), chat.tries) == (0, 1)
    clock.advance(timedelta(seconds=1))
    assert (box.drain(), chat.tries) == (1, 2)


def test_B108_a_rate_limit_is_kept_for_the_channels_other_alerts_and_by_other_processes(store, clock):
    chat = Recorder("chat", DeliveryError("Rate limited (HTTP 429)", retry_after_s=120.0))
    box = outbox(store, clock, chat)
    box.publish(alert("a"))
    other = outbox(store, clock, chat)
    assert states(other.publish(alert("b"))) == {"chat": "pending"}
    clock.advance(timedelta(seconds=119))
    assert (other.drain(), box.drain(), chat.tries) == (0, 0, 1)
    clock.advance(timedelta(seconds=1))
    assert (other.drain(), chat.tries) == (2, 3)
    assert [a.dedup_key for a, _ in chat.told] == ["a", "b"]


def test_B108_discord_asks_for_a_moment_and_is_told_after_it_at_once(store):
    with VendorServer(discord_rules) as server:
        server.faults.append(Answer(429, {"message": "slow down", "retry_after": 0.2}))
        box = Outbox(store, {"discord": DiscordChannel(webhook_url=server.url + DISCORD_PATH)})
        delivery = box.publish(ALERT)
    assert states(delivery) == {"discord": "sent"}
    assert (len(server.asked), delivery["channels"]["discord"]["attempts"]) == (2, 1)


def test_B108_who_keeps_being_limited_says_so(store):
    with VendorServer(discord_rules) as server:
        server.faults.extend([Answer(429, {"retry_after": 0.1}), Answer(429, {"retry_after": 60})])
        box = Outbox(store, {"discord": DiscordChannel(webhook_url=server.url + DISCORD_PATH)})
        told = box.publish(ALERT)["channels"]["discord"]
    assert (len(server.asked), told["state"], told["attempts"]) == (2, "failed", 1)
    assert "Rate limited" in told["error"]


# given up


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_what_is_refused_for_good_is_dead_at_once_and_never_tried_again_by_itself(store, clock, status):
    chat = Recorder("chat", DeliveryError(f"HTTP {status}", permanent=True))
    box = outbox(store, clock, chat)
    told = box.publish(ALERT)["channels"]["chat"]
    assert (told["state"], told["error"], told["next_at"]) == ("dead", f"HTTP {status}", None)
    clock.advance(timedelta(days=1))
    box.publish(ALERT)
    assert (box.drain(), chat.tries, box.waiting(), box.dead()) == (0, 1, 0, 1)


def test_what_failed_too_often_is_dead_and_says_how_often(store, clock):
    chat = Recorder("chat", *[DeliveryError("HTTP 503")] * 9)
    box = outbox(store, clock, chat, backoff=Backoff(first_s=0, most_attempts=3))
    box.publish(ALERT)
    for _ in range(5):
        box.drain()
    (told,) = [d["channels"]["chat"] for d in box.deliveries()]
    assert (chat.tries, told["state"], told["error"]) == (3, "dead", "HTTP 503; given up after 3 attempts")


def test_the_default_gives_up_after_about_a_day():
    policy = Backoff(random=lambda: 0.5)
    assert 20 < sum(policy.wait_s(n, None) for n in range(1, policy.most_attempts)) / 3_600 < 30


@pytest.mark.parametrize("which", [{}, {"key": ALERT.dedup_key}, {"channel": "chat"}])
def test_what_is_dead_or_failed_is_replayed_when_asked_for_whatever_its_pause(store, clock, which):
    chat = Recorder("chat", DeliveryError("HTTP 401", permanent=True))
    mail = Recorder("mail", DeliveryError("HTTP 500"))
    box = outbox(store, clock, chat, mail, backoff=STEADY)
    assert states(box.publish(ALERT)) == {"chat": "dead", "mail": "failed"}
    (replayed,) = box.retry(**which)
    assert states(replayed) == {"chat": "sent", "mail": "failed" if "channel" in which else "sent"}
    assert replayed["channels"]["chat"]["attempts"] == 1
    assert box.waiting() == ("channel" in which)
    assert chat.told == [(ALERT, False)]


def test_a_person_who_replays_does_not_wait_for_a_rate_limit(store, clock):
    chat = Recorder("chat", DeliveryError("Rate limited (HTTP 429)", retry_after_s=120.0))
    box = outbox(store, clock, chat)
    box.publish(ALERT)
    assert [states(d) for d in box.retry()] == [{"chat": "sent"}]


def test_a_replay_that_fails_again_is_tried_again_by_itself(store, clock):
    chat = Recorder("chat", DeliveryError("HTTP 401", permanent=True), DeliveryError("HTTP 500"))
    box = outbox(store, clock, chat)
    box.publish(ALERT)
    assert [states(d) for d in box.retry()] == [{"chat": "failed"}]
    assert (box.drain(), chat.tries) == (1, 3)


def test_what_is_sent_is_never_replayed_and_an_unknown_key_is_said(store, clock):
    chat = Recorder("chat")
    box = outbox(store, clock, chat)
    box.publish(ALERT)
    assert box.retry() == []
    assert [states(d) for d in box.retry(ALERT.dedup_key)] == [{"chat": "sent"}]
    assert chat.tries == 1
    with pytest.raises(LookupError, match="no alert has the key 'nothing'"):
        box.retry("nothing")


def test_what_died_during_an_outage_is_dead_afterwards_too(clock, tmp_path):
    with UnreliableStore(tmp_path) as main:
        main.be(DOWN)
        chat = Recorder("chat", DeliveryError("HTTP 404", permanent=True))
        box = backed(main, tmp_path / "local.db", clock, chat)
        assert states(box.publish(ALERT)) == {"chat": "dead"}
        main.be(UP)
        assert box.drain() == 0
        assert [states(d) for d in outbox(main, clock, chat).deliveries()] == [{"chat": "dead"}]
        assert chat.tries == 1


def limited(asked: float) -> DeliveryError:
    return DeliveryError("Rate limited (HTTP 429)", retry_after_s=asked)


@pytest.mark.parametrize("first", ["drain", "publish", "carry_over"])
def test_a_rest_that_a_channel_asks_for_in_an_outage_is_kept_after_it(clock, tmp_path, first):
    with UnreliableStore(tmp_path) as main:
        main.be(DOWN)
        chat = Recorder("chat", limited(120.0))
        backed(main, tmp_path / "local.db", clock, chat).publish(ALERT)
        main.be(UP)
        box = backed(main, tmp_path / "local.db", clock, chat)
        if first == "publish":
            assert states(box.publish(alert("b"))) == {"chat": "pending"}
        else:
            getattr(box, first)()
        box = outbox(main, clock, chat)  # a process that knows of no local store
        clock.advance(timedelta(seconds=119))
        assert states(box.publish(alert("c"))) == {"chat": "pending"}
        assert (box.drain(), chat.tries) == (0, 1)
        clock.advance(timedelta(seconds=1))
        assert box.drain() == len(box.deliveries())


def test_a_longer_rest_is_not_made_shorter_by_one_from_an_outage(clock, tmp_path):
    with UnreliableStore(tmp_path) as main:
        outbox(main, clock, Recorder("chat", limited(600.0))).publish(alert("a"))
        main.be(DOWN)
        backed(main, tmp_path / "local.db", clock, Recorder("chat", limited(60.0))).publish(alert("b"))
        main.be(UP)
        chat = Recorder("chat")
        box = backed(main, tmp_path / "local.db", clock, chat)
        clock.advance(timedelta(seconds=599))
        assert (box.drain(), chat.tries) == (0, 0)
        clock.advance(timedelta(seconds=1))
        assert box.drain() == 2


def test_a_person_who_replays_does_not_wait_for_a_rest_from_an_outage_and_nobody_does_afterwards(clock, tmp_path):
    with UnreliableStore(tmp_path) as main:
        main.be(DOWN)
        chat = Recorder("chat", limited(120.0))
        backed(main, tmp_path / "local.db", clock, chat).publish(ALERT)
        main.be(UP)
        box = backed(main, tmp_path / "local.db", clock, chat)
        assert [states(d) for d in box.retry()] == [{"chat": "sent"}]
        assert states(box.publish(alert("b"))) == {"chat": "sent"}


def damaged(local: Path, key: str) -> None:
    with sqlite3.connect(local) as db:
        db.execute("UPDATE state SET body = '{' WHERE collection = 'outbox' AND key = ?", (key,))


def test_one_damaged_local_alert_keeps_no_other_from_being_told_in_the_outage(clock, tmp_path):
    with UnreliableStore(tmp_path) as main:
        main.be(DOWN)
        chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 3)
        box = backed(main, tmp_path / "local.db", clock, chat)
        for key in "abc":
            box.publish(alert(key))
        damaged(tmp_path / "local.db", "b")
        assert box.drain() == 2
        assert [a.dedup_key for a, _ in chat.told] == ["a", "c"]
        assert "the alert 'b' is damaged and skipped" in str(box.store_error)


@pytest.mark.parametrize("by", ["drain", "retry", "carry_over"])
def test_one_damaged_local_alert_keeps_no_other_from_being_carried_over(clock, tmp_path, by):
    with UnreliableStore(tmp_path) as main:
        main.be(DOWN)
        chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 3)
        box = backed(main, tmp_path / "local.db", clock, chat)
        for key in "abc":
            box.publish(alert(key))
        damaged(tmp_path / "local.db", "b")
        main.be(UP)
        if by == "carry_over":
            with pytest.raises(StoreError, match="'b' is damaged"):
                box.carry_over()
        else:
            getattr(box, by)()
            assert "the alert 'b' is damaged and skipped" in str(box.store_error)
        assert [d["alert"]["dedup_key"] for d in outbox(main, clock).deliveries()] == ["a", "c"]
        box.drain()
        assert [(a.dedup_key, doubt) for a, doubt in chat.told] == [("a", True), ("c", True)]


def test_what_says_that_others_were_given_up_is_replayed_by_its_key_alone(store, clock):
    chat = Recorder("chat", *[DeliveryError("HTTP 401", permanent=True)] * 2)
    box = outbox(store, clock, chat)
    for key in (f"{KEY}2025-02-01", "guard/rsi"):
        box.publish(alert(key))
    assert [d["alert"]["dedup_key"] for d in box.retry()] == ["guard/rsi"]
    assert (box.retry(), [a.dedup_key for a, _ in chat.told]) == ([], ["guard/rsi"])
    assert [states(d) for d in box.retry(f"{KEY}2025-02-01")] == [{"chat": "sent"}]


# doubt


@pytest.mark.parametrize("error", [DeliveryError("timeout", in_doubt=True), RuntimeError("who knows")])
def test_what_may_have_arrived_is_a_possible_duplicate_next_time(store, clock, error):
    chat = Recorder("chat", error, DeliveryError("HTTP 500"))
    box = outbox(store, clock, chat)
    box.publish(ALERT)
    box.drain()
    box.drain()
    assert chat.told == [(ALERT, True)]


def test_a_channel_that_recognises_repeats_is_never_told_of_a_possible_duplicate(store, clock):
    page, chat = Recorder("page", DeliveryError("timeout", in_doubt=True)), Recorder("chat", RuntimeError())
    page.deduplicates = True
    box = outbox(store, clock, page, chat)
    box.publish(ALERT)
    box.drain()
    assert (page.told, chat.told) == ([(ALERT, False)], [(ALERT, True)])


def test_a_webhook_whose_answer_was_lost_gets_the_same_key_again(store):
    def takes_and_falls_silent(asked: Any) -> Answer:
        webhook_rules(asked)
        return Answer(204, hang_s=0.0 if len(server.taken) else 5.0)

    with VendorServer(takes_and_falls_silent) as server:
        channel = WebhookChannel(url=server.url + WEBHOOK_PATH, secret=WEBHOOK_SECRET, timeout_s=0.3)
        box = Outbox(store, {"webhook": channel}, backoff=Backoff(first_s=0))
        assert states(box.publish(ALERT)) == {"webhook": "failed"}
        assert box.drain() == 1
        first, again = server.taken
    assert first.headers["idempotency-key"] == again.headers["idempotency-key"]
    assert again.document["possible_duplicate"] is False


def test_a_process_killed_while_two_services_have_the_alert_but_did_not_answer(tmp_path):
    """Both may have it: Slack is told of the doubt, the webhook gets the key that it knows."""
    code = f"""
import sys
from trading_ops.audit.store import open_store
from trading_ops.notifications.channels.slack import SlackChannel
from trading_ops.notifications.channels.webhook import WebhookChannel
from trading_ops.notifications.outbox import Outbox
from trading_ops.notifications.pace import WIDENS_AFTER
from trading_ops.notifications.rests import RESTING
from trading_ops_tests.notifications.test_outbox import ALERT
slack = SlackChannel(webhook_url=sys.argv[1] + "{SLACK_PATH}")
webhook = WebhookChannel(url=sys.argv[2] + "{WEBHOOK_PATH}", secret="{WEBHOOK_SECRET}")
Outbox(open_store("sqlite:///{tmp_path}/audit.db"), {{"slack": slack, "webhook": webhook}}).publish(ALERT)
"""
    with VendorServer(slack_rules) as slack, VendorServer(webhook_rules) as hook:
        for server in (slack, hook):
            server.faults.append(Answer(204, hang_s=60.0))
        line = [sys.executable, "-c", code, slack.url, hook.url]
        with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL) as victim:
            deadline = time.monotonic() + 300
            while not (slack.asked and hook.asked):
                assert victim.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            victim.kill()
        channels = {
            "slack": SlackChannel(webhook_url=slack.url + SLACK_PATH),
            "webhook": WebhookChannel(url=hook.url + WEBHOOK_PATH, secret=WEBHOOK_SECRET),
        }
        with SqliteStore(tmp_path / "audit.db") as store:
            assert Outbox(store, channels).drain() == 0  # the dead one's claim holds for a minute
            later = Outbox(store, channels, lambda: datetime.now(UTC) + CLAIM)
            assert (later.drain(), later.drain()) == (1, 0)
            assert [states(d) for d in later.deliveries()] == [{"slack": "sent", "webhook": "sent"}]
        assert "possible duplicate" in slack.taken[0].document["text"]
        assert hook.taken[0].document["possible_duplicate"] is False
        keys = [asked.headers["idempotency-key"] for asked in hook.asked]
        assert (len(slack.asked), len(keys), len(set(keys))) == (2, 2, 1)


# side by side


def test_a_channel_that_hangs_delays_no_other_and_is_given_up_for_this_time(store):
    released, told = threading.Event(), threading.Event()
    hangs = Recorder("chat", during=lambda: released.wait(300))
    mail = Recorder("mail", during=told.set)
    box = Outbox(store, {"chat": hangs, "mail": mail}, send_timeout_s=0.3)
    delivery = box.publish(ALERT)
    assert states(delivery) == {"chat": "failed", "mail": "sent"}
    assert delivery["channels"]["chat"]["error"] == "timeout: not done within 0.3 s"
    assert delivery["channels"]["chat"]["in_doubt"] is True
    released.set()


def test_all_channels_are_under_way_at_once(store, clock):
    """Each waits for the others to begin; one after the other, none would end."""
    together = threading.Barrier(6, timeout=300)
    channels = [Recorder(f"c{i}", during=together.wait) for i in range(6)]
    assert set(states(outbox(store, clock, *channels).publish(ALERT)).values()) == {"sent"}


def test_a_store_that_fails_while_two_channels_are_under_way_makes_neither_hear_it_twice(clock, tmp_path):
    together = threading.Barrier(2, timeout=300)
    with UnreliableStore(tmp_path) as main:

        def the_store_goes() -> None:
            together.wait()
            main.be(DOWN)
            together.wait()

        chat = Recorder("chat", during=the_store_goes)
        mail = Recorder("mail", during=lambda: (together.wait(), together.wait()))
        box = backed(main, tmp_path / "local.db", clock, chat, mail)
        assert states(box.publish(ALERT)) == {"chat": "sent", "mail": "sent"}
        main.be(UP)
        clock.advance(CLAIM)
        box.drain()
        box.publish(ALERT)
        assert (chat.told, mail.told) == ([(ALERT, False)], [(ALERT, False)])
        assert [states(d) for d in box.deliveries()] == [{"chat": "sent", "mail": "sent"}]


def test_a_dead_channel_costs_a_drain_one_wait_and_not_one_for_each_alert(store, clock):
    released = threading.Event()
    hangs = Recorder("chat", DeliveryError("down"), DeliveryError("down"), DeliveryError("down"))
    mail = Recorder("mail", *[DeliveryError("down")] * 3)
    box = Outbox(store, {"chat": hangs, "mail": mail}, clock, backoff=Backoff(first_s=0), send_timeout_s=0.3)
    for key in "abc":
        box.publish(alert(key))
    hangs._during = lambda: released.wait(300)
    assert box.drain() == 0
    assert (hangs.tries, mail.tries) == (4, 6)
    released.set()


def test_a_service_that_does_not_answer_is_asked_once_a_drain_each_time_with_another_alert(store, clock):
    """The alert that was tried waits for its pause, so one that the service cannot stomach holds up no other."""
    with VendorServer(webhook_rules) as server:
        channel = WebhookChannel(url=server.url + WEBHOOK_PATH, secret=WEBHOOK_SECRET, timeout_s=0.2)
        box = Outbox(store, {"webhook": channel}, clock, backoff=STEADY)
        box.publish_all(alerts(3), within_s=0.0)
        server.faults.extend([Answer(204, hang_s=5.0)] * 2)
        assert [(box.drain(), len(server.asked)) for _ in range(2)] == [(0, 1), (0, 2)]
        assert [d["channels"]["webhook"]["attempts"] for d in box.deliveries()] == [1, 1, 0]
        assert (box.drain(), len(server.asked)) == (1, 3)


def test_a_service_that_takes_no_connection_is_asked_once_a_drain(store, clock):
    with VendorServer(webhook_rules) as server:
        channel = WebhookChannel(url=server.url + WEBHOOK_PATH, secret=WEBHOOK_SECRET)
    box = Outbox(store, {"webhook": channel}, clock, backoff=STEADY)
    box.publish_all(alerts(3))
    assert [d["channels"]["webhook"]["state"] for d in box.deliveries()] == ["failed", "pending", "pending"]


def test_a_drain_begins_nothing_after_its_time(store, clock):
    chat = Recorder("chat", DeliveryError("down"), DeliveryError("down"))
    box = outbox(store, clock, chat)
    box.publish(alert("a"))
    box.publish(alert("b"))
    assert (box.drain(within_s=0.0), chat.tries) == (0, 2)
    assert box.drain() == 2


def test_a_drain_does_not_wait_for_a_moment_that_is_after_its_time(store):
    chat = Recorder("chat", DeliveryError("down"), DeliveryError("HTTP 429", retry_after_s=4.0))
    box = Outbox(store, {"chat": chat}, backoff=Backoff(first_s=0))
    box.publish(ALERT)
    assert (box.drain(within_s=3.0), chat.tries) == (0, 2)


def test_the_oldest_alert_is_sent_first(store, clock):
    chat = Recorder("chat", *[DeliveryError("down")] * 3)
    box = outbox(store, clock, chat)
    for key in ("c", "a", "b"):
        box.publish(alert(key))
        clock.advance(timedelta(seconds=1))
    box.drain()
    assert [a.dedup_key for a, _ in chat.told] == ["c", "a", "b"]


# many at once


class Busy:
    """A channel that notes how many sends are under way; `judge` is asked how many, and which."""

    name = "chat"
    deduplicates = updates = False
    reports = True

    def __init__(self, judge: Callable[[int, Alert], object]) -> None:
        self.told: list[str] = []
        self._judge, self._lock, self._under_way = judge, threading.Lock(), 0

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> None:
        with self._lock:
            self._under_way += 1
            under_way = self._under_way
        try:
            self._judge(under_way, alert)
            with self._lock:
                self.told.append(alert.dedup_key)
        finally:
            with self._lock:
                self._under_way -= 1


def alerts(number: int) -> list[Alert]:
    return [alert(f"{n:03}") for n in range(number)]


def test_a_channel_that_takes_what_it_is_told_is_told_several_at_once(store):
    several = threading.Event()

    def judge(under_way: int, told: Alert) -> None:
        if under_way > 1:
            several.set()
        assert int(told.dedup_key) < WIDENS_AFTER or several.wait(300)

    chat = Busy(judge)
    delivered = Outbox(store, {"chat": chat}).publish_all(alerts(40))
    assert [d["alert"]["dedup_key"] for d in delivered] == sorted(chat.told) == [a.dedup_key for a in alerts(40)]
    assert {states(d)["chat"] for d in delivered} == {"sent"}
    assert len(store.read("notifications")) == 40


def test_what_is_not_due_yet_opens_no_lane(store, clock):
    most = 0

    def judge(under_way: int, told: Alert) -> None:
        nonlocal most
        if told.dedup_key.startswith("new"):
            most = max(most, under_way)
            time.sleep(0.05)
        else:
            raise DeliveryError("HTTP 500")

    chat = Busy(judge)
    box = Outbox(store, {"chat": chat}, clock, backoff=STEADY)
    box.publish_all(alerts(5 * WIDENS_AFTER))
    box.publish_all([alert(f"new {n}") for n in range(WIDENS_AFTER - 1)], within_s=0.0)
    assert (box.drain(), most) == (WIDENS_AFTER - 1, 1)


def test_a_channel_that_asks_for_a_moment_is_told_one_at_a_time_from_then_on(store):
    under_way_after_it: list[int] = []

    def judge(under_way: int, told: Alert) -> None:
        time.sleep(0.005)
        if under_way_after_it:
            under_way_after_it.append(under_way)
        elif under_way > 1:
            under_way_after_it.append(0)
            raise DeliveryError("Rate limited (HTTP 429)", retry_after_s=0.01)

    chat = Busy(judge)
    assert {states(d)["chat"] for d in Outbox(store, {"chat": chat}).publish_all(alerts(60))} == {"sent"}
    assert sorted(chat.told) == [a.dedup_key for a in alerts(60)]
    assert max(under_way_after_it) <= 2  # itself, and what was on its way when the channel asked


def test_alerts_of_one_incident_are_told_in_their_order(store):
    number_of = {a.dedup_key: n for n, a in enumerate(alerts(60))}
    chat = Busy(lambda under_way, told: time.sleep(random.Random(told.dedup_key).random() / 100))
    Outbox(store, {"chat": chat}).publish_all(
        [replace(a, incident=f"incident {n % 3}" if n % 2 else None) for n, a in enumerate(alerts(60))]
    )
    for incident in range(3):
        order = [number_of[key] for key in chat.told if number_of[key] % 2 and number_of[key] % 3 == incident]
        assert order == sorted(order)
    assert len(chat.told) == 60


def test_all_alerts_are_stored_before_one_is_sent(store, tmp_path):
    seen: list[int] = []
    chat = Recorder("chat", during=lambda: seen.append(len(store.list_state("outbox"))))
    Outbox(store, {"chat": chat}).publish_all(alerts(5))
    assert seen == [5]


def test_what_the_time_does_not_suffice_for_waits_for_the_next_drain(store, clock):
    chat = Recorder("chat")
    box = outbox(store, clock, chat)
    assert {states(d)["chat"] for d in box.publish_all(alerts(5), within_s=0.0)} == {"pending"}
    assert (chat.tries, box.waiting(), box.drain(), chat.tries) == (0, 5, 5, 5)


def test_the_same_alert_twice_among_many_is_told_once(store, clock):
    chat = Recorder("chat")
    assert len(outbox(store, clock, chat).publish_all([ALERT, ALERT])) == 1
    assert len(chat.told) == 1


def test_a_store_that_goes_while_many_are_told_makes_nobody_hear_one_twice(clock, tmp_path):
    with UnreliableStore(tmp_path) as main:
        chat = Busy(lambda under_way, told: main.be(DOWN) if told.dedup_key == "017" else None)
        box = backed(main, tmp_path / "local.db", clock, chat)
        assert {states(d)["chat"] for d in box.publish_all(alerts(40))} == {"sent"}
        main.be(UP)
        clock.advance(CLAIM)
        box.drain()
        box.publish_all(alerts(40))
        assert sorted(chat.told) == [a.dedup_key for a in alerts(40)]


def test_a_process_ends_though_a_channel_hangs_for_ever(tmp_path):
    code = f"""
import time
from trading_ops.audit.store import open_store
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.outbox import Outbox
from trading_ops.notifications.pace import WIDENS_AFTER
from trading_ops.notifications.rests import RESTING
class Hangs:
    deduplicates = updates = False
    reports = True
    def send(self, alert, *, possible_duplicate, opening=None):
        time.sleep(600)
store = open_store("sqlite:///{tmp_path}/audit.db")
box = Outbox(store, {{"chat": Hangs()}}, send_timeout_s=0.2)
print(box.publish(Alert(Severity.INFO, "k", "w", "", ""))["channels"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert "timeout: not done within 0.2 s" in done.stdout


# what waits


class Counting(SqliteStore):
    """Counts the documents that are read."""

    read_documents = 0

    def get_state(self, collection: str, key: str) -> StateDocument | None:
        self.read_documents += 1
        return super().get_state(collection, key)

    def list_state(self, collection: str, prefix: str = "") -> list[StateDocument]:
        listed = super().list_state(collection, prefix)
        self.read_documents += len(listed)
        return listed


def test_a_drain_reads_what_waits_and_not_what_was_ever_told(tmp_path, clock):
    with Counting(tmp_path / "audit.db") as store:
        box = outbox(store, clock, Recorder("chat", *[DeliveryError("down")] * 2))
        for key in ("x", "y"):
            box.publish(alert(key))
        box = outbox(store, clock, Recorder("chat"))
        for number in range(150):
            box.publish(alert(f"told {number}"))
        assert box.drain() == 2  # the first one looks at everything once
        box = outbox(store, clock, Recorder("chat", DeliveryError("down")))
        box.publish(alert("z"))
        store.read_documents = 0
        assert (box.waiting(), box.drain()) == (1, 1)
        assert store.read_documents < 2 * (SHARDS + 1) + 15
        store.read_documents = 0
        assert box.drain() == 0
        assert store.read_documents <= SHARDS + 1


def test_alerts_from_before_the_index_are_found_once_and_then_by_it(store, clock):
    box = outbox(store, clock, Recorder("chat", DeliveryError("down")))
    box.publish(ALERT)
    for document in store.list_state(INDEX):  # as it was before there was one
        store.put_state(INDEX, document.key, {"keys": []}, expected_version=document.version)
    assert store.get_state(INDEX, COMPLETE) is None
    assert box.waiting() == 1
    assert store.get_state(INDEX, COMPLETE) is not None
    assert box.drain() == 1


def test_a_damaged_index_loses_no_alert(store, clock, tmp_path):
    box = outbox(store, clock, Recorder("chat", *[DeliveryError("down")] * 2))
    box.publish(ALERT)
    box.drain()
    with sqlite3.connect(tmp_path / "audit.db") as db:
        db.execute("UPDATE state SET body = '{' WHERE collection = ?", (INDEX,))
    box.publish(alert("later"))
    assert box.drain() == 1
    assert box.waiting() == 0


def test_an_alert_that_begins_anew_while_it_is_forgotten_is_not(store, clock):
    """A replay writes the alert just before another process, which saw it dead, takes it out of the index."""
    chat = Recorder("chat", DeliveryError("HTTP 401", permanent=True))
    box = outbox(store, clock, chat)
    box.publish(ALERT)
    dead = store.get_state("outbox", ALERT.dedup_key)
    assert dead is not None
    waiting = Waiting(store)
    box.drain()
    down = outbox(store, clock, Recorder("chat", DeliveryError("HTTP 500")))
    assert [states(d) for d in down.retry()] == [{"chat": "failed"}]
    waiting.settle(dead)
    assert box.waiting() == 1


def test_a_replay_that_a_drain_forgets_in_between_is_tried_again_by_itself(store, clock):
    """The drain sees the alert still dead, just after the replay has put it into the index."""
    chat = Recorder("chat", DeliveryError("HTTP 401", permanent=True))
    box = outbox(store, clock, chat)
    box.publish(ALERT)
    box.drain()
    drained = outbox(store, clock, chat).drain
    down = outbox(store, clock, Recorder("chat", DeliveryError("HTTP 500"), during=lambda: forget(store)))
    assert [states(d) for d in down.retry()] == [{"chat": "failed"}]
    assert (box.waiting(), drained()) == (1, 1)


def forget(store: SqliteStore) -> None:
    for document in store.list_state(INDEX):
        if document.key != COMPLETE:
            store.put_state(INDEX, document.key, {"keys": []}, expected_version=document.version)


def test_a_process_killed_before_it_wrote_the_alert_leaves_an_index_that_harms_nothing(store, clock):
    box = outbox(store, clock, Recorder("chat"))
    box.drain()
    Waiting(store).add("never written")
    assert (box.drain(), box.waiting(), box.store_error) == (0, 0, None)


def test_many_publishers_at_once_lose_nothing(store, clock):
    chat = Recorder("chat", *[DeliveryError("down")] * 40)
    box = outbox(store, clock, chat)
    box.drain()
    threads = [
        threading.Thread(target=lambda n=n: [outbox(store, clock, chat).publish(alert(f"{n}/{i}")) for i in range(5)])
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert box.waiting() == 40
    clock.advance(CLAIM)
    assert box.drain() == 40
    assert len({a.dedup_key for a, _ in chat.told}) == 40


# a store that makes us wait


def test_while_a_stopped_process_locks_the_store_an_alert_is_told_and_so_is_what_was_not_taken_at_once(clock, tmp_path):
    """The store's patience is longer than a publish or a drain may take."""
    with SqliteStore(tmp_path / "audit.db", busy_timeout_s=0.3) as main:
        chat = Recorder("chat", None, DeliveryError("HTTP 500"))
        box = backed(main, tmp_path / "local.db", clock, chat)
        with closing(sqlite3.connect(tmp_path / "audit.db", isolation_level=None)) as stopped:
            stopped.execute("BEGIN IMMEDIATE")
            for key in "ab":
                box.publish_all([alert(key)], within_s=0.2)
            assert [a.dedup_key for a, _ in chat.told] == ["a"]
            assert box.drain(within_s=0.2) == 1
            assert "locked by another process" in str(box.store_error)
        box.drain()
        assert [a.dedup_key for a, _ in chat.told] == ["a", "b"]
        assert [states(d) for d in outbox(main, clock).deliveries()] == [{"chat": "sent"}] * 2


def test_a_store_that_is_away_is_waited_for_once_and_not_for_each_alert_that_it_lacks(clock, tmp_path):
    with UnreliableStore(tmp_path) as main:
        main.be(DOWN)
        box = backed(main, tmp_path / "local.db", clock, Recorder("chat", *[DeliveryError("HTTP 500")] * 3))
        for key in "abc":
            box.publish(alert(key))
        main.asked.clear()
        assert box.drain() == 3
        assert main.asked.count("put_state") == 1


def test_an_alert_that_was_told_while_the_store_became_locked_is_not_told_again(clock, tmp_path):
    with (
        SqliteStore(tmp_path / "audit.db", busy_timeout_s=0.2) as main,
        closing(sqlite3.connect(tmp_path / "audit.db", isolation_level=None, check_same_thread=False)) as stopped,
    ):
        chat = Recorder("chat", during=lambda: stopped.execute("BEGIN IMMEDIATE"))
        box = backed(main, tmp_path / "local.db", clock, chat)
        assert states(box.publish(ALERT)) == {"chat": "sent"}
        stopped.execute("ROLLBACK")
        clock.advance(CLAIM)
        box.drain()
        assert chat.told == [(ALERT, False)]


def test_a_doubt_stays_with_its_call_while_another_thread_asks_the_same_outbox(clock, tmp_path):
    """What was told locally is not known to the store when another thread's alert is told without a doubt."""
    with UnreliableStore(tmp_path) as main:
        chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 2)
        box = backed(main, tmp_path / "local.db", clock, chat)
        box.publish(alert("before the outage"))
        main.be(DOWN)
        box.publish(alert("in the outage"))
        main.be(UP)
        errors: list[str | None] = []

        def other_thread() -> None:
            ask = lambda: (box.publish(alert("beside it")), errors.append(box.store_error))  # noqa: E731
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()

        main.lost, chat._during = 1, other_thread
        assert box.drain() == 2
        doubts = {a.dedup_key: doubt for a, doubt in chat.told}
        assert doubts == {"before the outage": True, "in the outage": True, "beside it": False}
        assert errors == [None]
        assert box.store_error


@pytest.mark.parametrize(("ahead", "taken"), [(CLAIM / 2, False), (CLAIM * 2, True), (timedelta(days=300), True)])
def test_a_claim_from_a_clock_that_was_ahead_is_taken_over(store, clock, ahead, taken):
    clock.advance(ahead)
    with pytest.raises(KeyboardInterrupt):  # where the process dies
        outbox(store, interrupted(clock, 3), Recorder("chat")).publish(ALERT)
    clock.advance(-ahead)
    chat = Recorder("chat")
    assert outbox(store, clock, chat).drain() == taken
    assert chat.told == ([(ALERT, True)] if taken else [])


def interrupted(clock: Clock, at: int) -> Callable[[], datetime]:
    """A clock that ends the process when it is asked for the n-th time: to store, to claim, to note the delivery."""
    asked = iter(range(1, 1_000))

    def now() -> datetime:
        if next(asked) == at:
            raise KeyboardInterrupt
        return clock()

    return now
