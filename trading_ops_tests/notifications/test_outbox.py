"""Is every alert told, once, whatever dies in between?"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trading_ops
from trading_ops.audit.spool import SpooledStore
from trading_ops.audit.sqlite import SqliteStore
from trading_ops.audit.store import AuditStore, StoreError, StoreUnavailable
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.backoff import Backoff
from trading_ops.notifications.channel import DeliveryError
from trading_ops.notifications.outbox import Outbox
from trading_ops.notifications.sending import CLAIM
from trading_ops_tests.audit.unreliable import BROKEN, DOWN, READ_ONLY, UP, UnreliableStore

ROOT = Path(trading_ops.__file__).parents[1]
NOW = datetime(2025, 3, 1, 12, tzinfo=UTC)
ALERT = Alert(Severity.CRITICAL, "guard/rsi/2025-03-01", "rsi lost 12 %", "above 10 %", "Look, then resume.",
              "2025-03-01", {"daily_loss_pct": 12.0})  # fmt: skip

PUBLISHER = """
import sys, time
from datetime import UTC, datetime
from pathlib import Path
from trading_ops.audit.store import open_store
from trading_ops.notifications.alert import Alert, Severity
from trading_ops.notifications.outbox import Outbox

uri, folder, hang = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

def stop_here():
    (folder / "stopped").touch()
    time.sleep(120)

class Channel:
    name = "chat"
    deduplicates = updates = False
    reports = True
    def send(self, alert, *, possible_duplicate, opening=None):
        if hang == "inside":
            stop_here()
        time.sleep(0.2)
        with open(folder / "delivered", "a") as file:
            file.write(f"{alert.what} {possible_duplicate}\\n")

ticks = 0

def clock():  # asked once to store the alert, once to claim it, then to note the delivery
    global ticks
    ticks += 1
    if ticks == {"before": 2, "after": 3}.get(hang):
        stop_here()
    return datetime.now(UTC)

alert = Alert(Severity.CRITICAL, "guard/rsi", "rsi lost 12 %", "above 10 %", "Look.")
Outbox(open_store(uri), {"chat": Channel()}, clock).publish(alert)
"""


class Recorder:
    """A channel that keeps what it was given; it can fail, and things can happen while it sends."""

    deduplicates = updates = False
    reports = True

    def __init__(self, name: str = "chat", *errors: Exception | None, during: Callable[[], object] | None = None):
        self.name = name
        self.told: list[tuple[Alert, bool]] = []
        self.tries = 0
        self._errors = list(errors)
        self._during = during

    def send(self, alert: Alert, *, possible_duplicate: bool, opening: str | None = None) -> None:
        self.tries += 1
        if self._during:
            during, self._during = self._during, None
            during()
        error = self._errors.pop(0) if self._errors else None
        if error:
            raise error
        self.told.append((alert, possible_duplicate))


class Clock:
    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> datetime:
        return self.time

    def advance(self, by: timedelta) -> None:
        self.time += by


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "audit.db") as store:
        yield store


@pytest.fixture
def clock() -> Clock:
    return Clock()


AT_ONCE = Backoff(first_s=0)


def outbox(store: SqliteStore, clock: Callable[[], datetime], *channels: Recorder, **options: Any) -> Outbox:
    """Without pauses, so that what failed is due at once."""
    return Outbox(store, {channel.name: channel for channel in channels}, clock, **{"backoff": AT_ONCE, **options})


def states(delivery: dict[str, Any]) -> dict[str, str]:
    return {name: channel["state"] for name, channel in delivery["channels"].items()}


def test_who_took_over_has_the_last_word(store: SqliteStore, clock: Clock):
    """A hangs past its minute and then fails; B, who took over and sent it, is not undone."""
    chat_b = Recorder("chat")

    def late() -> None:
        clock.advance(CLAIM)
        outbox(store, clock, chat_b).drain()

    chat_a = Recorder("chat", DeliveryError("timed out"), during=late)
    assert states(outbox(store, clock, chat_a).publish(ALERT)) == {"chat": "sent"}
    assert outbox(store, clock, chat_b).drain() == 0
    assert [duplicate for _, duplicate in chat_b.told] == [True]


def test_the_text_of_an_unexpected_error_is_not_kept_for_it_may_hold_a_secret(store: SqliteStore, clock: Clock):
    leak = Recorder("chat", RuntimeError("POST https://hooks.example/T0/SECRET failed"))
    delivery = outbox(store, clock, leak).publish(ALERT)
    assert delivery["channels"]["chat"]["error"] == "RuntimeError"
    assert "SECRET" not in str(outbox(store, clock).deliveries())


def test_an_alert_is_told_on_every_channel_and_kept(store: SqliteStore, clock: Clock):
    chat, mail = Recorder("chat"), Recorder("mail")
    delivery = outbox(store, clock, chat, mail).publish(ALERT)
    assert chat.told == mail.told == [(ALERT, False)]
    assert states(delivery) == {"chat": "sent", "mail": "sent"}
    assert delivery["alert"] == ALERT.to_document()
    kept = store.read("notifications", first="2025-03-01", last="2025-03-01")
    assert [record.key for record in kept] == [f"{ALERT.dedup_key}/chat", f"{ALERT.dedup_key}/mail"]
    assert kept[0].body == {"channel": "chat", "alert": ALERT.to_document(), "possible_duplicate": False}


def test_the_same_key_is_told_once_even_by_another_process(store: SqliteStore, clock: Clock, tmp_path: Path):
    chat = Recorder()
    outbox(store, clock, chat).publish(ALERT)
    outbox(store, clock, chat).publish(ALERT)
    with SqliteStore(tmp_path / "audit.db") as other:
        assert states(outbox(other, clock, chat).publish(ALERT)) == {"chat": "sent"}
        assert outbox(other, clock, chat).drain() == 0
    assert len(chat.told) == 1


def test_another_key_is_another_alert(store: SqliteStore, clock: Clock):
    chat = Recorder()
    box = outbox(store, clock, chat)
    for day in ("2025-03-01", "2025-03-02"):
        box.publish(Alert(Severity.INFO, f"daily/{day}", "done", "", "", day))
        clock.advance(timedelta(days=1))
    assert [alert.day for alert, _ in chat.told] == ["2025-03-01", "2025-03-02"]
    assert [d["alert"]["day"] for d in box.deliveries()] == ["2025-03-01", "2025-03-02"]


def test_B106_a_failing_channel_leaves_the_others_sent_and_says_why(store: SqliteStore, clock: Clock):
    broken, mail = Recorder("chat", DeliveryError("HTTP 500")), Recorder("mail")
    delivery = outbox(store, clock, broken, mail).publish(ALERT)
    assert mail.told == [(ALERT, False)]
    assert states(delivery) == {"chat": "failed", "mail": "sent"}
    assert delivery["channels"]["chat"]["error"] == "HTTP 500"


def test_B107_what_failed_is_tried_again_until_it_is_sent(store: SqliteStore, clock: Clock):
    broken, mail = Recorder("chat", DeliveryError("HTTP 500"), DeliveryError("timeout")), Recorder("mail")
    box = outbox(store, clock, broken, mail)
    box.publish(ALERT)
    assert box.drain() == 0
    assert box.drain() == 1
    assert box.drain() == 0
    assert broken.told == [(ALERT, False)]  # it never took one, so nothing can be a duplicate
    assert (broken.tries, mail.tries) == (3, 1)
    (delivery,) = box.deliveries()
    assert (delivery["channels"]["chat"]["attempts"], delivery["channels"]["chat"]["error"]) == (3, None)


def test_publishing_again_tries_what_failed_again(store: SqliteStore, clock: Clock):
    broken = Recorder("chat", DeliveryError("HTTP 500"))
    box = outbox(store, clock, broken)
    box.publish(ALERT)
    assert states(box.publish(ALERT)) == {"chat": "sent"}
    assert len(broken.told) == 1


def test_B106_a_channel_that_raises_anything_else_leaves_the_others_sent_too(store: SqliteStore, clock: Clock):
    broken, mail = Recorder("chat", OSError("connection reset")), Recorder("mail")
    delivery = outbox(store, clock, broken, mail).publish(ALERT)
    assert states(delivery) == {"chat": "failed", "mail": "sent"}


def test_one_stubborn_alert_does_not_hold_up_the_rest(store: SqliteStore, clock: Clock):
    down = Recorder("chat", *[DeliveryError("down")] * 2, OSError("connection reset"))
    box = outbox(store, clock, down)
    for key in ("a", "b"):
        box.publish(Alert(Severity.INFO, key, key, "", ""))
    assert box.drain() == 1


def test_a_channel_no_longer_configured_leaves_its_delivery_pending_and_shown(store: SqliteStore, clock: Clock):
    down = DeliveryError("down")
    outbox(store, clock, Recorder("chat", down), Recorder("mail", down)).publish(ALERT)
    mail = Recorder("mail")
    later = outbox(store, clock, mail)
    assert later.drain() == 0
    assert mail.told == [(ALERT, False)]
    assert states(later.deliveries()[0]) == {"chat": "failed", "mail": "sent"}


def test_what_waits_for_a_channel_no_longer_configured_is_given_up_after_a_day_and_sent_when_asked_for(
    store: SqliteStore, clock: Clock
):
    outbox(store, clock, Recorder("chat", DeliveryError("down"))).publish(ALERT)
    without = outbox(store, clock, Recorder("mail"))
    clock.advance(timedelta(hours=23))
    without.drain()
    assert (without.waiting(), without.dead()) == (1, 0)
    clock.advance(timedelta(hours=1))
    without.drain()
    assert (without.waiting(), without.dead()) == (0, 1)
    assert without.deliveries()[0]["channels"]["chat"]["error"] == "the channel is not configured any more"
    chat = Recorder("chat")
    again = outbox(store, clock, chat)
    assert (again.drain(), [states(d) for d in again.retry()]) == (0, [{"chat": "sent"}])
    assert (again.dead(), chat.told) == (0, [(ALERT, False)])


def test_a_replay_of_all_reads_what_is_undelivered_and_not_what_was_ever_told(store, clock, monkeypatch):
    chat = Recorder("chat", DeliveryError("HTTP 401", permanent=True), DeliveryError("HTTP 500"))
    box = outbox(store, clock, chat)
    for key in "abc":
        box.publish(replace(ALERT, dedup_key=key))
    box.deliveries(), box.drain(), box.dead()  # the first one looks at everything once
    read: list[str] = []
    whole = store.list_state
    monkeypatch.setattr(store, "list_state", lambda name, *prefix: read.append(name) or whole(name, *prefix))
    assert [d["alert"]["dedup_key"] for d in box.retry()] == ["a"]
    assert "outbox" not in read


def test_without_any_channel_the_alert_is_kept(store: SqliteStore, clock: Clock):
    box = outbox(store, clock)
    assert box.publish(ALERT)["channels"] == {}
    assert [d["alert"]["what"] for d in box.deliveries()] == ["rsi lost 12 %"]


def test_while_one_process_sends_another_keeps_off(store: SqliteStore, clock: Clock):
    second = Recorder()
    first = Recorder(during=lambda: outbox(store, clock, second).publish(ALERT))
    assert states(outbox(store, clock, first).publish(ALERT)) == {"chat": "sent"}
    assert (first.told, second.told) == ([(ALERT, False)], [])


def test_a_send_slower_than_the_claim_is_taken_over_as_a_possible_duplicate(store: SqliteStore, clock: Clock):
    second = Recorder()

    def a_minute_passes() -> None:
        clock.advance(CLAIM - timedelta(seconds=1))
        assert outbox(store, clock, second).drain() == 0
        clock.advance(timedelta(seconds=1))
        assert outbox(store, clock, second).drain() == 1

    first = Recorder(during=a_minute_passes)
    assert states(outbox(store, clock, first).publish(ALERT)) == {"chat": "sent"}
    assert (first.told, second.told) == ([(ALERT, False)], [(ALERT, True)])


def test_two_processes_on_two_channels_tell_each_channel_once(store: SqliteStore, clock: Clock):
    """While A sends to chat, B takes mail. A's `sent` then conflicts, chat stays `sending` and is told again."""
    chat_b, mail_b = Recorder("chat"), Recorder("mail")
    chat_a = Recorder("chat", during=lambda: outbox(store, clock, chat_b, mail_b).publish(ALERT))
    outbox(store, clock, chat_a, Recorder("mail"), workers=1).publish(ALERT)
    clock.advance(CLAIM)
    outbox(store, clock, chat_b, mail_b).drain()
    assert len(chat_a.told) + len(chat_b.told) == 1
    assert len(mail_b.told) == 1


def test_an_alert_with_a_figure_that_is_no_number_is_told_all_the_same(store: SqliteStore, clock: Clock):
    chat = Recorder()
    outbox(store, clock, chat).publish(Alert(Severity.CRITICAL, "k", "blind", "", "", None, {"loss": float("nan")}))
    assert [alert.what for alert, _ in chat.told] == ["blind"]


# while the store is down


@pytest.fixture
def main(tmp_path: Path) -> Iterator[UnreliableStore]:
    (tmp_path / "main").mkdir()
    with UnreliableStore(tmp_path / "main") as store:
        yield store


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return tmp_path / "local.db"


def backed(main: AuditStore, local: Path, clock: Callable[[], datetime], *channels: Recorder, **options: Any) -> Outbox:
    """As another process would make it."""
    by_name = {channel.name: channel for channel in channels}
    fallback: dict[str, Any] = {"fallback": lambda: SqliteStore(local), "fallback_exists": local.exists}
    return Outbox(main, by_name, clock, backoff=AT_ONCE, **fallback, **options)


def sends(store: AuditStore) -> list[tuple[str, bool]]:
    """Every delivery that the store remembers: the channel, and whether it was told as a possible duplicate."""
    records = store.read("notifications", all_revisions=True)
    return [(record.body["channel"], record.body["possible_duplicate"]) for record in records]


def test_with_the_store_down_an_alert_is_told_all_the_same_as_a_possible_duplicate(main, local, clock):
    main.be(DOWN)
    chat, mail = Recorder("chat"), Recorder("mail")
    box = backed(main, local, clock, chat, mail)
    assert states(box.publish(ALERT)) == {"chat": "sent", "mail": "sent"}
    assert box.store_error == "shared.example: connection refused"
    assert states(backed(main, local, clock, chat, mail).publish(ALERT)) == {"chat": "sent", "mail": "sent"}
    assert chat.told == mail.told == [(ALERT, True)]


def test_when_the_store_is_back_it_knows_of_the_alert_and_tells_no_one_again(main, local, clock):
    main.be(DOWN)
    chat = Recorder("chat")
    backed(main, local, clock, chat).publish(ALERT)
    main.be(UP)
    for _ in range(2):
        box = backed(main, local, clock, chat)
        assert (box.drain(), box.store_error) == (0, None)
    assert states(backed(main, local, clock, chat).publish(ALERT)) == {"chat": "sent"}
    assert chat.told == [(ALERT, True)]
    assert [states(d) for d in box.deliveries()] == [{"chat": "sent"}]
    assert [states(d) for d in outbox(main, clock).deliveries()] == [{"chat": "sent"}]
    assert sends(main) == [("chat", True)]


def test_behind_a_spool_the_delivery_is_remembered_once(main, local, clock, tmp_path):
    with SpooledStore(main, tmp_path / "spool.db", retry_after_s=0) as spooled:
        main.be(DOWN)
        chat = Recorder("chat", during=None)
        backed(spooled, local, clock, chat).publish(ALERT)
        main.be(UP)
        backed(spooled, local, clock, chat).drain()
        assert sends(main) == [("chat", True)]
        assert len(chat.told) == 1


def test_what_could_not_be_told_during_the_outage_is_tried_again_during_the_outage(main, local, clock):
    main.be(DOWN)
    chat = Recorder("chat", DeliveryError("HTTP 500"))
    assert states(backed(main, local, clock, chat).publish(ALERT)) == {"chat": "failed"}
    box = backed(main, local, clock, chat)
    assert (box.drain(), box.store_error) == (1, "shared.example: connection refused")
    assert (box.drain(), len(chat.told)) == (0, 1)
    main.be(UP)
    assert box.drain() == 0
    assert sends(main) == [("chat", True)]


def test_what_no_channel_took_is_handed_over_to_the_store_and_told_from_there(main, local, clock):
    main.be(DOWN)
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 2)
    backed(main, local, clock, chat).publish(ALERT)
    main.be(UP)
    box = backed(main, local, clock, chat)
    assert (box.drain(), chat.tries) == (0, 2)
    assert [states(d) for d in box.deliveries()] == [{"chat": "failed"}]
    assert (box.waiting(), len(outbox(main, clock).deliveries())) == (1, 1)
    assert box.drain() == 1
    assert [states(d) for d in box.deliveries()] == [{"chat": "sent"}]
    assert (box.waiting(), chat.told) == (0, [(ALERT, False)])  # nobody was told before, so there is no doubt


def test_one_broken_channel_does_not_make_another_hear_it_twice(main, local, clock):
    main.be(DOWN)
    chat, mail = Recorder("chat"), Recorder("mail", *[DeliveryError("HTTP 500")] * 3)
    backed(main, local, clock, chat, mail).publish(ALERT)
    main.be(UP)
    box = backed(main, local, clock, chat, mail)
    assert states(box.publish(ALERT)) == {"chat": "sent", "mail": "failed"}
    assert box.drain() == 0
    assert [states(d) for d in box.deliveries()] == [{"chat": "sent", "mail": "failed"}]
    assert (box.drain(), box.waiting()) == (1, 0)
    assert (chat.told, mail.told) == ([(ALERT, True)], [(ALERT, False)])
    assert sends(main) == [("chat", True), ("mail", False)]


def test_what_the_fallback_tells_in_a_second_outage_is_carried_over_too(main, local, clock):
    main.be(DOWN)
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 2)
    box = backed(main, local, clock, chat)
    box.publish(ALERT)
    main.be(UP)
    assert box.drain() == 0
    main.be(DOWN)
    assert box.drain() == 0  # handed over: the store tells it
    assert states(box.publish(ALERT)) == {"chat": "sent"}  # unless it is asked for again
    main.be(UP)
    box.drain()
    assert (chat.told, [states(d) for d in box.deliveries()]) == ([(ALERT, True)], [{"chat": "sent"}])


def test_a_damaged_fallback_stops_nothing_and_makes_every_send_a_possible_duplicate(main, local, clock):
    chat = Recorder("chat", DeliveryError("HTTP 500"))
    box = backed(main, local, clock, chat)
    box.publish(ALERT)
    local.write_bytes(b"no database at all, sorry" * 100)
    assert box.drain() == 1
    assert "local.db is damaged or no SQLite database" in (box.store_error or "")
    box.publish(replace(ALERT, dedup_key="another"))
    assert [duplicate for _, duplicate in chat.told] == [True, True]
    with pytest.raises(StoreError, match="local outbox does not work"):
        box.deliveries()


def test_a_damaged_store_is_as_bad_as_one_that_is_down(main, local, clock):
    main.be(BROKEN)
    chat = Recorder("chat")
    box = backed(main, local, clock, chat)
    assert states(box.publish(ALERT)) == {"chat": "sent"}
    assert (box.store_error, chat.told) == ("shared.example: a record is damaged", [(ALERT, True)])


def test_one_damaged_document_is_skipped_and_told(main, local, clock, tmp_path):
    chat = Recorder("chat", *[DeliveryError("HTTP 500")] * 3)
    box = backed(main, local, clock, chat)
    for key in ("guard/a", "guard/b", "other"):
        box.publish(replace(ALERT, dedup_key=key))
    with sqlite3.connect(tmp_path / "main" / "shared.db") as db:
        db.execute("UPDATE state SET body = '{' WHERE key = 'guard/a'")
    assert box.drain() == 2
    assert "the alert 'guard/a' is damaged and skipped" in (box.store_error or "")
    assert [alert.dedup_key for alert, _ in chat.told] == ["guard/b", "other"]


def test_a_key_that_is_no_text_is_told_all_the_same(main, local, clock):
    chat = Recorder("chat")
    box = backed(main, local, clock, chat)
    for _ in range(2):
        assert states(box.publish(replace(ALERT, dedup_key="run/\udcff\0"))) == {"chat": "sent"}
    assert [alert.dedup_key for alert, _ in chat.told] == [r"run/\udcff\0"]


@pytest.mark.parametrize("mode", [DOWN, READ_ONLY])
def test_a_store_that_fails_between_two_channels_makes_no_channel_hear_it_twice(main, local, clock, mode):
    chat, mail = Recorder("chat", during=lambda: main.be(mode)), Recorder("mail")
    box = backed(main, local, clock, chat, mail, workers=1)  # one after the other
    assert states(box.publish(ALERT)) == {"chat": "sent", "mail": "sent"}
    assert (chat.told, mail.told) == ([(ALERT, False)], [(ALERT, True)])
    main.be(UP)
    clock.advance(CLAIM)  # the store still says that chat is being told
    box = backed(main, local, clock, chat, mail)
    box.drain()
    box.publish(ALERT)
    assert len(chat.told) == len(mail.told) == 1
    assert [states(d) for d in box.deliveries()] == [{"chat": "sent", "mail": "sent"}]
    assert sends(main) == [("chat", False), ("mail", True)]


def test_a_doubt_from_the_outage_is_told_with_the_next_try(main, local, clock):
    chat = Recorder("chat", DeliveryError("timeout", in_doubt=True))
    main.writes_left = 2  # the index and the alert, which is pending there
    assert states(backed(main, local, clock, chat).publish(ALERT)) == {"chat": "failed"}
    main.writes_left = None
    clock.advance(CLAIM)
    assert backed(main, local, clock, chat).drain() == 1
    assert chat.told == [(ALERT, True)]


@pytest.mark.parametrize("doubtful", [0, 1])
def test_of_two_failures_the_doubt_of_either_and_the_longer_pause_are_kept(main, local, clock, doubtful):
    doubts = [DeliveryError("HTTP 500"), DeliveryError("HTTP 500")]
    doubts[doubtful].in_doubt = True
    box = backed(main, local, clock, Recorder("chat", *doubts))
    box.publish(ALERT)
    main.be(DOWN)
    clock.advance(timedelta(minutes=1))
    assert states(box.publish(ALERT)) == {"chat": "failed"}
    main.be(UP)
    box.carry_over()
    delivery = box.delivery(ALERT.dedup_key)["channels"]["chat"]
    assert (delivery["state"], delivery["in_doubt"]) == ("failed", True)
    assert delivery["next_at"] == clock().isoformat()


def test_what_was_told_and_cannot_be_looked_up_is_a_possible_duplicate(main, local, clock):
    chat = Recorder("chat")
    main.writes_left = 2
    backed(main, local, clock, chat).publish(ALERT)
    main.writes_left = None
    local.write_bytes(b"no database" * 1_000)
    for beside in ("-wal", "-shm"):
        local.with_name(local.name + beside).unlink(missing_ok=True)
    box = backed(main, local, clock, chat)
    assert box.drain() == 1
    assert "local outbox" in str(box.store_error)
    assert chat.told == [(ALERT, True), (ALERT, True)]


def test_what_could_not_be_carried_over_for_a_moment_is_a_possible_duplicate(main, local, clock):
    chat = Recorder("chat")
    main.writes_left = 2
    box = backed(main, local, clock, chat)
    box.publish(ALERT)
    main.writes_left, main.lost = None, 1
    assert box.drain() == 1
    assert chat.told == [(ALERT, True), (ALERT, True)]


def test_an_alert_published_again_before_it_was_carried_over_is_not_told_again(main, local, clock):
    main.be(DOWN)
    chat = Recorder("chat")
    backed(main, local, clock, chat).publish(ALERT)
    main.be(UP)
    assert states(backed(main, local, clock, chat).publish(ALERT)) == {"chat": "sent"}
    box = backed(main, local, clock, chat)
    box.drain()
    assert [told for _, told in chat.told] == [True]
    assert sends(main) == [("chat", True)]
    assert len(box.deliveries()) == 1


@pytest.mark.parametrize("writes", range(4))
def test_a_store_that_fails_again_while_alerts_are_carried_over_gets_each_once(main, local, clock, writes):
    main.be(DOWN)
    chat, mail = Recorder("chat"), Recorder("mail")
    backed(main, local, clock, chat, mail).publish(ALERT)
    main.be(UP)
    main.writes_left = writes
    box = backed(main, local, clock, chat, mail)
    box.drain()
    assert (box.store_error is None) == (writes == 3)
    main.writes_left = None
    backed(main, local, clock, chat, mail).drain()
    assert sends(main) == [("chat", True), ("mail", True)]
    assert [states(d) for d in box.deliveries()] == [{"chat": "sent", "mail": "sent"}]
    assert len(chat.told) == len(mail.told) == 1


def test_without_a_fallback_a_store_that_is_down_is_told_and_breaks_no_drain(main, clock):
    main.be(DOWN)
    box = outbox(main, clock, Recorder())
    with pytest.raises(StoreUnavailable, match="connection refused"):
        box.publish(ALERT)
    assert (box.drain(), box.store_error) == (0, "shared.example: connection refused")


def test_with_both_stores_down_the_caller_learns_of_both(main, clock, tmp_path):
    main.be(DOWN)
    (tmp_path / "file").touch()
    box = backed(main, tmp_path / "file" / "local.db", clock, Recorder())
    with pytest.raises(StoreUnavailable, match=r"connection refused; and the local outbox does not work: .*local\.db"):
        box.publish(ALERT)


def test_half_of_the_deliveries_are_not_shown_as_the_whole(main, local, clock):
    main.be(DOWN)
    box = backed(main, local, clock, Recorder())
    box.publish(ALERT)
    for question in (box.deliveries, box.waiting):
        with pytest.raises(StoreUnavailable, match="connection refused"):
            question()


def test_a_healthy_system_has_no_fallback(main, local, clock):
    box = backed(main, local, clock, Recorder())
    box.publish(ALERT)
    box.drain()
    box.deliveries()
    assert not local.exists()


# what it says


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path_factory.mktemp("outbox") / "audit.db") as store:
        yield store


@settings(max_examples=25, deadline=None)
@given(
    severity=st.sampled_from(Severity),
    texts=st.tuples(st.text(), st.text(), st.text()),
    numbers=st.dictionaries(st.text(max_size=5), st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-1, 1)),
)
def test_an_alert_survives_the_store_and_the_channel_unchanged(shared, severity, texts, numbers):
    alert = Alert(severity, f"key-{time.monotonic_ns()}", *texts, None, numbers)
    late = Recorder("chat", DeliveryError("not now"))
    outbox(shared, Clock(), late).publish(alert)
    after_restart = Recorder("chat")
    outbox(shared, Clock(), after_restart).drain()
    assert after_restart.told == [(alert, False)]
    assert Alert.from_document(alert.to_document()) == alert


def test_severities_rise():
    assert [s.rank for s in (Severity.INFO, Severity.WARNING, Severity.ERROR, Severity.CRITICAL)] == [0, 1, 2, 3]


# what dies in between


def start(folder: Path, hang: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PUBLISHER, f"sqlite:///{folder}/audit.db", str(folder), hang]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True)


def kill_9(process: subprocess.Popen[str], folder: Path) -> None:
    """Kill the publisher as soon as it says that it stands where it should die."""
    deadline = time.monotonic() + 300
    while not (folder / "stopped").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


@pytest.mark.parametrize(
    ("hang", "left_as", "delivered", "duplicate"),
    [
        pytest.param("before", "pending", "", False, id="before the send: it is sent exactly once"),
        pytest.param("inside", "sending", "", True, id="inside the send: it may have arrived"),
        pytest.param("after", "sending", "rsi lost 12 % False\n", True, id="after the send, before it is noted"),
    ],
)
def test_a_process_killed_while_it_tells_loses_nothing(tmp_path: Path, hang, left_as, delivered, duplicate):
    kill_9(start(tmp_path, hang), tmp_path)
    arrived = tmp_path / "delivered"
    assert (arrived.read_text() if arrived.exists() else "") == delivered
    with SqliteStore(tmp_path / "audit.db") as store:
        chat = Recorder()
        soon = outbox(store, lambda: datetime.now(UTC), chat)
        assert [states(d) for d in soon.deliveries()] == [{"chat": left_as}]
        if left_as == "sending":  # the claim of the dead holds for a minute
            assert soon.drain() == 0
            assert chat.told == []
        later = outbox(store, lambda: datetime.now(UTC) + CLAIM, chat)
        assert later.drain() == 1
        assert [(alert.what, alert.severity, flag) for alert, flag in chat.told] == [
            ("rsi lost 12 %", Severity.CRITICAL, duplicate)
        ]
        assert later.drain() == 0
        assert len(chat.told) == 1
        assert store.verify() == []


def test_three_processes_that_publish_the_same_alert_at_once_tell_it_once(tmp_path: Path):
    with SqliteStore(tmp_path / "audit.db"):
        processes = [start(tmp_path, "never") for _ in range(3)]
        errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    assert (tmp_path / "delivered").read_text() == "rsi lost 12 % False\n"
